//! The HTTP surface, one file a resource; the only place that knows actix's extractors.

mod about;
pub(crate) mod caller;
mod certificate;
pub(crate) mod error;
mod health;
mod logs;
mod metrics;
pub(crate) mod route_group;
mod trust;

pub(crate) use health::is_health_path;

use route_group::RouteGroup;

/// The service's own routes, in groups like everybody else's.
pub(crate) fn own_groups() -> Vec<RouteGroup> {
    vec![
        health::routes(),
        about::routes(),
        logs::routes(),
        metrics::routes(),
        certificate::routes(),
        trust::routes(),
    ]
}
