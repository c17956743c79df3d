//! `GET /api/public/about`: what is running here, and since when.

use actix_web::web::{Data, Json};
use serde::Serialize;

use super::route_group::RouteGroup;
use crate::auth::Role;
use crate::server::Core;

#[derive(Serialize)]
struct About {
    name: String,
    version: String,
    target: &'static str,
    /// Seconds since the service was started, by the monotonic clock.
    uptime: u64,
}

pub(super) fn routes() -> RouteGroup {
    RouteGroup::new("edgeweb about").get(Role::Guest, "/about", about)
}

async fn about(core: Data<Core>) -> Json<About> {
    Json(About {
        name: core.name.clone(),
        version: core.version.clone(),
        target: crate::TARGET,
        uptime: core.lifecycle.uptime().as_secs(),
    })
}
