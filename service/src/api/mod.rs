//! The HTTP surface, one file a resource; the only place that knows actix's extractors.

mod about;
pub(crate) mod caller;
mod certificate;
mod claim;
pub(crate) mod cookie;
pub(crate) mod cross_site;
pub(crate) mod error;
mod health;
mod logs;
mod metrics;
mod password;
pub(crate) mod route_group;
mod session;
mod source;
mod tokens;
mod trust;
mod users;

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
        claim::routes(),
        session::routes(),
        password::routes(),
        users::routes(),
        tokens::routes(),
    ]
}
