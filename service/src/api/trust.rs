//! `/api/admin/trust`: who signs clients' certificates. `/api/admin/trust/crl`: which of them are revoked.

use actix_web::http::{StatusCode, header};
use actix_web::web::{self, Data};
use actix_web::{HttpRequest, HttpResponse};

use super::caller::{Admin, Caller};
use super::certificate::{blocking, body, media_type, record};
use super::error::Problem;
use super::route_group::RouteGroup;
use crate::auth::{AuthError, Role, Via};
use crate::server::Core;
use crate::tls::{MAX_TRUST_BYTES, TrustView};

pub(super) fn routes() -> RouteGroup {
    RouteGroup::new("edgeweb trust")
        .get(Role::Admin, "/trust", show)
        .put(Role::Admin, "/trust", install)
        .delete(Role::Admin, "/trust", remove)
        .put(Role::Admin, "/trust/crl", install_crls)
        .delete(Role::Admin, "/trust/crl", remove_crls)
}

fn view(trust: &TrustView) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .json(trust)
}

async fn show(_: Caller<Admin>, core: Data<Core>) -> Result<HttpResponse, Problem> {
    // Somebody may be changing it, which takes files.
    Ok(view(&blocking(move || core.tls.trust()).await?))
}

async fn install(
    caller: Caller<Admin>,
    core: Data<Core>,
    asked: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    no_api_token(&caller)?;
    check_is_pem(&asked)?;
    let pem = body(payload, MAX_TRUST_BYTES).await?;
    let result = blocking(move || core.tls.install_anchors(&pem)).await?;
    record(&caller, &asked, "trust.install", "trust anchors", &result);
    Ok(view(&result?))
}

async fn remove(
    caller: Caller<Admin>,
    core: Data<Core>,
    asked: HttpRequest,
) -> Result<HttpResponse, Problem> {
    no_api_token(&caller)?;
    let result = blocking(move || core.tls.remove_anchors()).await?;
    record(&caller, &asked, "trust.remove", "trust anchors", &result);
    Ok(view(&result?))
}

async fn install_crls(
    caller: Caller<Admin>,
    core: Data<Core>,
    asked: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    no_api_token(&caller)?;
    check_is_pem(&asked)?;
    let pem = body(payload, MAX_TRUST_BYTES).await?;
    let result = blocking(move || core.tls.install_crls(&pem)).await?;
    record(&caller, &asked, "crl.install", "revocation lists", &result);
    Ok(view(&result?))
}

async fn remove_crls(
    caller: Caller<Admin>,
    core: Data<Core>,
    asked: HttpRequest,
) -> Result<HttpResponse, Problem> {
    no_api_token(&caller)?;
    let result = blocking(move || core.tls.remove_crls()).await?;
    record(&caller, &asked, "crl.remove", "revocation lists", &result);
    Ok(view(&result?))
}

/// SECURITY: who steals an API token must not make certificates with it that outlive it.
fn no_api_token(caller: &Caller<Admin>) -> Result<(), Problem> {
    match caller.via {
        Via::ApiToken(_) => Err(AuthError::NotForApiTokens.into()),
        _ => Ok(()),
    }
}

fn check_is_pem(request: &HttpRequest) -> Result<(), Problem> {
    match media_type(request)?.as_str() {
        "application/pem-certificate-chain" | "application/x-pem-file" | "text/plain" => Ok(()),
        _ => Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "the body must be application/x-pem-file: certificates or revocation lists in PEM",
        )),
    }
}
