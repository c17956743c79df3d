//! `PUT /api/user/password`: another password for whoever asks, who must know the old one.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::web::{Data, Json};
use serde::Deserialize;

use super::caller::{Caller, User};
use super::error::Problem;
use super::route_group::RouteGroup;
use super::session::{answer, hashing};
use crate::auth::{Password, Role, Source, Via};
use crate::server::Core;

pub(super) fn routes() -> RouteGroup {
    RouteGroup::new("edgeweb password").put(Role::User, "/password", change)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    old: Password,
    new: Password,
}

/// Every session of theirs has ended then; the answer is a new one, as after a log-in.
async fn change(
    caller: Caller<User>,
    from: Source,
    core: Data<Core>,
    Json(asked): Json<Change>,
) -> Result<HttpResponse, Problem> {
    let attempt = core.auth.attempt(from, Some(&caller.name))?;
    let who = (*caller).clone();
    let session = hashing(core, move |core| {
        core.auth
            .change_password(&who, &asked.old, &asked.new, attempt, from)
    })
    .await?;
    let in_cookie = matches!(caller.via, Via::Cookie(_));
    Ok(answer(StatusCode::OK, &session, in_cookie))
}
