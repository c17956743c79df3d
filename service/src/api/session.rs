//! `POST /api/public/session` logs in. `GET` and `DELETE /api/user/session`: who am I, and log out.

use actix_web::http::StatusCode;
use actix_web::web::{Data, Json};
use actix_web::{HttpRequest, HttpResponse};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::caller::{Caller, Guest, User};
use super::error::Problem;
use super::route_group::RouteGroup;
use super::{cookie, cross_site};
use crate::auth::{AuthError, Password, Role, Session, Source, Via};
use crate::server::Core;

pub(super) fn routes() -> RouteGroup {
    RouteGroup::new("edgeweb session")
        .post(Role::Guest, "/session", log_in)
        .get(Role::User, "/session", who_am_i)
        .delete(Role::User, "/session", log_out)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LogIn {
    username: String,
    password: Password,
    /// The token comes in a cookie that scripts cannot read, and not in the body.
    #[serde(default)]
    cookie: bool,
}

/// What a log-in gives (RFC 6749, section 5.1).
#[derive(Serialize)]
struct Answer<'a> {
    #[serde(flatten)]
    token: Option<Token<'a>>,
    expires_in: u64,
    expires: String,
    username: &'a str,
    role: Role,
}

#[derive(Serialize)]
struct Token<'a> {
    token: &'a str,
    token_type: &'static str,
}

/// The answer with a new session, whose token is in the body or in a cookie.
pub(super) fn answer(status: StatusCode, session: &Session, in_cookie: bool) -> HttpResponse {
    let mut response = HttpResponse::build(status);
    response.insert_header(("cache-control", "no-store"));
    if in_cookie {
        response.insert_header(("set-cookie", set_cookie(&session.token, session.expires_in)));
    }
    response.json(Answer {
        token: (!in_cookie).then_some(Token {
            token: &session.token,
            token_type: "Bearer",
        }),
        expires_in: session.expires_in,
        expires: rfc3339(session.expires),
        username: &session.username,
        role: session.role,
    })
}

fn set_cookie(value: &str, max_age: u64) -> String {
    let name = cookie::SESSION;
    format!("{name}={value}; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age={max_age}")
}

/// Seconds since 1970 as RFC 3339 has them, UTC.
pub(super) fn rfc3339(seconds: u64) -> String {
    i64::try_from(seconds)
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_default()
}

/// Waits for a turn to hash, and does `work` there.
pub(super) async fn hashing<T: Send + 'static>(
    core: Data<Core>,
    work: impl FnOnce(&Core) -> Result<T, AuthError> + Send + 'static,
) -> Result<T, Problem> {
    let inner = core.clone();
    let result = core.auth.hashing().run(move || work(&inner)).await;
    Ok(result.flatten()?)
}

/// Does `work`, which reads and writes files.
pub(super) async fn blocking<T: Send + 'static>(
    core: Data<Core>,
    work: impl FnOnce(&Core) -> Result<T, AuthError> + Send + 'static,
) -> Result<T, Problem> {
    let result = actix_web::web::block(move || work(&core)).await;
    let result = result.map_err(|_| AuthError::Busy);
    Ok(result.flatten()?)
}

async fn log_in(
    _: Caller<Guest>,
    from: Source,
    core: Data<Core>,
    request: HttpRequest,
    Json(asked): Json<LogIn>,
) -> Result<HttpResponse, Problem> {
    cross_site::refuse(request.uri(), request.headers())?;
    let attempt = core.auth.attempt(from, Some(&asked.username))?;
    let session = hashing(core, move |core| {
        core.auth
            .log_in(&asked.username, &asked.password, attempt, from)
    })
    .await?;
    Ok(answer(StatusCode::OK, &session, asked.cookie))
}

#[derive(Serialize)]
struct WhoAmI<'a> {
    username: &'a str,
    role: Role,
    via: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<String>,
}

async fn who_am_i(caller: Caller<User>) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header(("cache-control", "no-store"))
        .json(WhoAmI {
            username: &caller.name,
            role: caller.role,
            via: caller.via.name(),
            expires: caller.expires.map(rfc3339),
        })
}

async fn log_out(
    caller: Caller<User>,
    from: Source,
    core: Data<Core>,
) -> Result<HttpResponse, Problem> {
    let in_cookie = matches!(caller.via, Via::Cookie(_));
    let who = (*caller).clone();
    blocking(core, move |core| core.auth.log_out(&who, from)).await?;
    let mut response = HttpResponse::NoContent();
    if in_cookie {
        response.insert_header(("set-cookie", set_cookie("", 0)));
    }
    Ok(response.finish())
}
