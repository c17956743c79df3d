//! Who a request comes from, and whether they may go where it leads.

use actix_http::Request;
use actix_web::http::StatusCode;

use super::Core;
use super::connection::ConnectionState;
use crate::api::error::Problem;
use crate::auth::{Principal, Role, Via};

/// Who asks. `path` is the decoded one: actix-web looks for the route behind it, so the role is that path's, too.
///
/// # Errors
/// The answer to somebody who may not go there.
pub(super) fn authorize(
    _core: &Core,
    connection: Option<&ConnectionState>,
    _request: &Request,
    path: &str,
) -> Result<Principal, Problem> {
    let principal = match connection {
        // Who may open the device's own socket, root or the service's user, may read what users may.
        Some(connection) if connection.is_local() => Principal {
            name: String::from("local"),
            role: Role::User,
            via: Via::LocalSocket,
        },
        _ => Principal::guest(),
    };
    let role = Role::of_path(path);
    if role <= principal.role {
        Ok(principal)
    } else if principal.role == Role::Guest {
        Err(Problem::unauthorized())
    } else {
        Err(Problem::new(
            StatusCode::FORBIDDEN,
            "this route asks for a larger role than yours",
        ))
    }
}
