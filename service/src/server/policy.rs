//! Asks the policy about a request that its role lets pass.

use actix_http::Request;
use actix_web::http::StatusCode;

use super::Core;
use super::connection::{ConnectionState, Peer};
use crate::api::error::Problem;
use crate::api::is_health_path;
use crate::auth::Principal;
use crate::auth::policy::Question;

/// Refuses what the policy does not allow. Health is answered in any case, and the device's own socket too: by it
/// a policy that allows nothing can be seen and mended.
pub(super) fn narrow(
    core: &Core,
    connection: Option<&ConnectionState>,
    request: &Request,
    path: &str,
    principal: &Principal,
) -> Result<(), Problem> {
    if is_health_path(path) || connection.is_some_and(ConnectionState::is_local) {
        return Ok(());
    }
    let peer = request.peer_addr();
    let question = Question {
        method: request.method().as_str(),
        path,
        principal,
        spiffe_id: connection
            .and_then(ConnectionState::client)
            .and_then(|client| client.spiffe_id.as_deref()),
        address: peer.map(|peer| peer.ip()),
        over_tls: connection.is_some_and(ConnectionState::is_tls),
    };
    let allowed = core.policy.allows(&question);
    if allowed != Ok(true) {
        core.policy_refused.note(|times| {
            let why = allowed.as_ref().err().map_or("does not allow it", String::as_str);
            log::warn!(
                "{}: {} {path} of {} refused, the policy: {why} ({times} refused since the last such line)",
                Peer(peer),
                request.method(),
                principal.name,
            );
        });
    }
    if allowed == Ok(true) {
        Ok(())
    } else {
        Err(Problem::new(
            StatusCode::FORBIDDEN,
            "the device's policy does not allow this",
        ))
    }
}
