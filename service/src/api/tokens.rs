//! `/api/admin/tokens`: tokens for programs. `POST /api/admin/token-key`: a new key to sign all tokens with.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::web::{Data, Json, Path};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::caller::{Admin, Caller};
use super::error::Problem;
use super::route_group::RouteGroup;
use super::session::{blocking, rfc3339};
use crate::auth::{ApiTokenEntry, End, NewApiToken, Role, Source};
use crate::server::Core;

pub(super) fn routes() -> RouteGroup {
    RouteGroup::new("edgeweb tokens")
        .get(Role::Admin, "/tokens", list)
        .post(Role::Admin, "/tokens", add)
        .delete(Role::Admin, "/tokens/{name}", remove)
        .post(Role::Admin, "/token-key", rotate)
}

#[derive(Serialize)]
struct Tokens {
    tokens: Vec<Token>,
}

#[derive(Serialize)]
struct Token {
    name: String,
    role: Role,
    created: String,
    expires: String,
    by: String,
    /// Only in the answer to the request that made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

impl From<ApiTokenEntry> for Token {
    fn from(token: ApiTokenEntry) -> Self {
        Self {
            name: token.name,
            role: token.role,
            created: rfc3339(token.created),
            expires: rfc3339(token.expires),
            by: token.by,
            token: None,
        }
    }
}

async fn list(_: Caller<Admin>, core: Data<Core>) -> Result<HttpResponse, Problem> {
    let tokens = core.auth.api_tokens()?.into_iter();
    let tokens = tokens.map(Token::from).collect();
    Ok(HttpResponse::Ok()
        .insert_header(("cache-control", "no-store"))
        .json(Tokens { tokens }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewToken {
    name: String,
    role: Role,
    /// RFC 3339.
    expires: Option<String>,
    days: Option<u64>,
}

impl NewToken {
    fn read(self) -> Result<NewApiToken, Problem> {
        let wrong = |reason: &'static str| Problem::new(StatusCode::BAD_REQUEST, reason);
        let end = match (&self.expires, self.days) {
            (None, Some(days)) => End::Days(days),
            (Some(time), None) => {
                let time = OffsetDateTime::parse(time, &Rfc3339).map_err(|_| {
                    wrong("expires is no time as in 2027-11-23T07:00:00Z (RFC 3339)")
                })?;
                End::At(u64::try_from(time.unix_timestamp()).unwrap_or(0))
            }
            _ => return Err(wrong("say either expires or days")),
        };
        Ok(NewApiToken {
            name: self.name,
            role: self.role,
            end,
        })
    }
}

async fn add(
    caller: Caller<Admin>,
    from: Source,
    core: Data<Core>,
    Json(asked): Json<NewToken>,
) -> Result<HttpResponse, Problem> {
    let new = asked.read()?;
    let who = (*caller).clone();
    let added = blocking(core, move |core| core.auth.add_api_token(&who, from, &new)).await?;
    let (entry, text) = added;
    let location = format!("/api/admin/tokens/{}", entry.name);
    Ok(HttpResponse::Created()
        .insert_header(("location", location))
        .insert_header(("cache-control", "no-store"))
        .json(Token {
            token: Some(text),
            ..Token::from(entry)
        }))
}

async fn remove(
    caller: Caller<Admin>,
    from: Source,
    core: Data<Core>,
    name: Path<String>,
) -> Result<HttpResponse, Problem> {
    let who = (*caller).clone();
    blocking(core, move |core| {
        core.auth.remove_api_token(&who, from, &name)
    })
    .await?;
    Ok(HttpResponse::NoContent().finish())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rotate {
    /// Ends every token that was ever made, the caller's too.
    #[serde(default)]
    now: bool,
}

async fn rotate(
    caller: Caller<Admin>,
    from: Source,
    core: Data<Core>,
    Json(asked): Json<Rotate>,
) -> Result<HttpResponse, Problem> {
    let who = (*caller).clone();
    blocking(core, move |core| {
        core.auth.rotate_key(&who, from, asked.now)
    })
    .await?;
    Ok(HttpResponse::NoContent().finish())
}
