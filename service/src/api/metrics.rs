//! `GET /metrics`: what Prometheus reads.

use actix_web::HttpResponse;
use actix_web::web::Data;

use super::route_group::RouteGroup;
use crate::server::Core;

/// Prometheus's text format.
const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(super) fn routes() -> RouteGroup {
    RouteGroup::new("edgeweb metrics").get_at("/metrics", metrics)
}

async fn metrics(core: Data<Core>) -> HttpResponse {
    let mut text = String::new();
    crate::logging::write_metrics(&mut text);
    core.tls.write_metrics(&mut text);
    core.auth.write_metrics(&mut text);
    HttpResponse::Ok()
        .insert_header(("content-type", MEDIA_TYPE))
        .insert_header(("cache-control", "no-store"))
        .body(text)
}
