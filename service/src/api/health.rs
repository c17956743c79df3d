//! `GET /health`: the process answers. `GET /health/ready`: it should be given work.

use actix_web::http::StatusCode;
use actix_web::web::{Data, Json};
use actix_web::{HttpResponse, Responder};
use serde::Serialize;

use super::route_group::RouteGroup;
use crate::server::Core;

const HEALTH: &str = "/health";
const READY: &str = "/health/ready";

#[derive(Serialize)]
struct Health {
    status: &'static str,
}

pub(super) fn routes() -> RouteGroup {
    RouteGroup::new("edgeweb health")
        .get_at(HEALTH, health)
        .get_at(READY, ready)
}

/// Health is answered in every state of the service, so that a probe learns of a drain.
pub(crate) fn is_health_path(path: &str) -> bool {
    path == HEALTH || path == READY
}

async fn health() -> impl Responder {
    Json(Health { status: "ok" })
}

async fn ready(core: Data<Core>) -> HttpResponse {
    let report = core.readiness.report(&core.lifecycle).await;
    let status = if report.is_ready() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    HttpResponse::build(status)
        .insert_header(("cache-control", "no-store"))
        .json(report)
}
