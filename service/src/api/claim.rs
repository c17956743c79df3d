//! `POST /api/public/claim` makes the first administrator with the code that the device shows. `GET`: is that
//! possible?

use actix_web::http::StatusCode;
use actix_web::web::{Data, Json};
use actix_web::{HttpRequest, HttpResponse};
use serde::{Deserialize, Serialize};

use super::caller::{Caller, Guest};
use super::cross_site;
use super::error::Problem;
use super::route_group::RouteGroup;
use super::session::{answer, hashing};
use crate::auth::{Password, Role, Source};
use crate::server::Core;

pub(super) fn routes() -> RouteGroup {
    RouteGroup::new("edgeweb claim")
        .get(Role::Guest, "/claim", is_open)
        .post(Role::Guest, "/claim", claim)
}

#[derive(Serialize)]
struct Open {
    open: bool,
}

async fn is_open(_: Caller<Guest>, core: Data<Core>) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header(("cache-control", "no-store"))
        .json(Open {
            open: core.auth.can_be_claimed(),
        })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Claim {
    code: String,
    username: String,
    password: Password,
    #[serde(default)]
    cookie: bool,
}

async fn claim(
    _: Caller<Guest>,
    from: Source,
    core: Data<Core>,
    request: HttpRequest,
    Json(asked): Json<Claim>,
) -> Result<HttpResponse, Problem> {
    cross_site::refuse(request.uri(), request.headers())?;
    let attempt = core.auth.attempt(from, None)?;
    let session = hashing(core, move |core| {
        let Claim {
            code,
            username,
            password,
            ..
        } = &asked;
        let session = core.auth.claim(code, username, password, attempt, from)?;
        Ok((session, asked.cookie))
    })
    .await?;
    Ok(answer(StatusCode::CREATED, &session.0, session.1))
}
