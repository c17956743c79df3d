//! `/api/admin/certificate`: what the device shows its clients. It is read, replaced, removed, and asked for.

use std::fmt::Display;
use std::net::IpAddr;

use actix_web::http::{StatusCode, header};
use actix_web::web::{self, Data};
use actix_web::{HttpRequest, HttpResponse};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use super::caller::{Admin, Caller};
use super::error::Problem;
use super::route_group::RouteGroup;
use crate::auth::Role;
use crate::server::Core;
use crate::tls::{
    AcmeStatus, ChangeError, Identity, MAX_BUNDLE_BYTES, Refusal, RequestParameters, Source,
    TrustRefusal,
};

/// The longest chain and key as JSON, in bytes: each line end takes two characters there.
const MAX_JSON_BYTES: usize = MAX_BUNDLE_BYTES + MAX_BUNDLE_BYTES / 8;
/// The longest description of a request for a certificate, in bytes.
const MAX_REQUEST_BYTES: usize = 16 * 1024;
/// A request for a certificate (RFC 5967).
const PKCS10: &str = "application/pkcs10";

pub(super) fn routes() -> RouteGroup {
    RouteGroup::new("edgeweb certificate")
        .get(Role::Admin, "/certificate", show)
        .put(Role::Admin, "/certificate", install)
        .delete(Role::Admin, "/certificate", remove)
        .post(Role::Admin, "/certificate/request", request)
        .post(Role::Admin, "/certificate/renew", renew)
}

/// What is presented.
#[derive(Serialize)]
struct View<'a> {
    source: Source,
    subject: &'a str,
    issuer: &'a str,
    names: &'a [String],
    addresses: &'a [IpAddr],
    not_before: String,
    not_after: String,
    days_left: i64,
    key_type: String,
    fingerprint_sha256: &'a str,
    key_sha256: &'a str,
    chain_length: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    acme: Option<AcmeStatus>,
}

fn view(identity: &Identity, acme: Option<AcmeStatus>) -> HttpResponse {
    let facts = &identity.facts;
    HttpResponse::Ok()
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .json(View {
            source: identity.source,
            subject: &facts.subject,
            issuer: &facts.issuer,
            names: &facts.names,
            addresses: &facts.addresses,
            not_before: facts.begin(),
            not_after: facts.end(),
            days_left: facts.days_left(),
            key_type: facts.key_type.to_string(),
            fingerprint_sha256: &facts.fingerprint_sha256,
            key_sha256: &facts.key_sha256,
            chain_length: identity.chain_length(),
            acme,
        })
}

async fn show(_: Caller<Admin>, core: Data<Core>) -> HttpResponse {
    view(&core.tls.presented(), Some(core.tls.acme_status()))
}

async fn install(
    caller: Caller<Admin>,
    core: Data<Core>,
    asked: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    let json = match media_type(&asked)?.as_str() {
        "application/json" => true,
        "application/pem-certificate-chain" | "application/x-pem-file" | "text/plain" => false,
        _ => {
            return Err(Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "the body must be application/pem-certificate-chain, the chain and its key in PEM, \
                 or application/json with chain and key",
            ));
        }
    };
    let limit = if json {
        MAX_JSON_BYTES
    } else {
        MAX_BUNDLE_BYTES
    };
    let body = body(payload, limit).await?;
    let bundle = if json { from_json(&body)? } else { body };
    let result = blocking(move || core.tls.install(&bundle)).await?;
    let subject = match &result {
        Ok(identity) => identity.facts.fingerprint_sha256.as_str(),
        Err(_) => "certificate",
    };
    record(&caller, &asked, "certificate.install", subject, &result);
    Ok(view(result?.as_ref(), None))
}

async fn remove(
    caller: Caller<Admin>,
    core: Data<Core>,
    asked: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let result = blocking(move || core.tls.remove_installed()).await?;
    record(
        &caller,
        &asked,
        "certificate.remove",
        "certificate",
        &result,
    );
    Ok(view(result?.as_ref(), None))
}

async fn request(
    caller: Caller<Admin>,
    core: Data<Core>,
    asked: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    let body = body(payload, MAX_REQUEST_BYTES).await?;
    let parameters = if body.is_empty() {
        RequestParameters::default()
    } else {
        if media_type(&asked)? != "application/json" {
            return Err(Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "the body must be application/json, or empty",
            ));
        }
        serde_json::from_slice(&body).map_err(bad_json)?
    };
    let result = blocking(move || core.tls.request(&parameters)).await?;
    record(
        &caller,
        &asked,
        "certificate.request",
        "device key",
        &result,
    );
    Ok(HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, PKCS10))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .body(result?))
}

/// Only asks: how it goes, `acme` in the answer to GET says.
async fn renew(
    caller: Caller<Admin>,
    core: Data<Core>,
    asked: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let result = core.tls.renew_by_acme();
    record(&caller, &asked, "certificate.renew", "acme", &result);
    result?;
    Ok(HttpResponse::Accepted()
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .finish())
}

/// Chain and key apart, for programs that have them so.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Parts {
    chain: String,
    #[serde(default)]
    key: String,
}

fn from_json(body: &[u8]) -> Result<Zeroizing<Vec<u8>>, Problem> {
    let mut parts: Parts = serde_json::from_slice(body).map_err(|error| {
        // Where it is wrong, and nothing of what stands there.
        let (line, column) = (error.line(), error.column());
        Problem::new(
            StatusCode::BAD_REQUEST,
            format!(
                "the body is not JSON with the texts chain and key: line {line}, column {column}"
            ),
        )
    })?;
    let mut bundle = Zeroizing::new(Vec::with_capacity(parts.chain.len() + 1 + parts.key.len()));
    bundle.extend_from_slice(parts.chain.as_bytes());
    bundle.push(b'\n');
    bundle.extend_from_slice(parts.key.as_bytes());
    parts.key.zeroize();
    Ok(bundle)
}

fn bad_json(error: serde_json::Error) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, format!("the body: {error}"))
}

/// The media type of the body in lower case, without parameters.
pub(super) fn media_type(request: &HttpRequest) -> Result<String, Problem> {
    let field = request.headers().get(header::CONTENT_TYPE);
    let text = field.and_then(|field| field.to_str().ok()).ok_or_else(|| {
        Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "the request has no Content-Type",
        )
    })?;
    let essence = text.split(';').next().unwrap_or_default();
    Ok(essence.trim().to_ascii_lowercase())
}

/// The body, of at most `limit` bytes; overwritten when it is dropped.
pub(super) async fn body(
    payload: web::Payload,
    limit: usize,
) -> Result<Zeroizing<Vec<u8>>, Problem> {
    let body: Bytes = payload
        .to_bytes_limited(limit)
        .await
        .map_err(|_| Problem::body_too_large(limit))?
        .map_err(|error| {
            Problem::new(error.as_response_error().status_code(), error.to_string())
        })?;
    let copy = Zeroizing::new(body.to_vec());
    // Where nobody else holds the buffer, as is usual, there is no other copy of a key afterwards.
    if let Ok(mut body) = body.try_into_mut() {
        body.as_mut().zeroize();
    }
    Ok(copy)
}

/// Runs what takes files on a thread that may wait.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    web::block(work).await.map_err(|_| {
        Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "the service is stopping; ask again when it is back",
        )
    })
}

/// Who changed what, in the audit log.
pub(super) fn record<T>(
    caller: &Caller<Admin>,
    request: &HttpRequest,
    what: &str,
    subject: &str,
    result: &Result<T, ChangeError>,
) {
    let from: &dyn Display = match &request.peer_addr() {
        Some(address) => &address.ip().to_string(),
        None => &"local",
    };
    let reason = result.as_ref().err().map(ToString::to_string);
    let result = reason.as_deref().map_or(Ok(()), Err);
    crate::auth::audit::record(&caller.name, what, subject, from, result);
}

impl From<ChangeError> for Problem {
    fn from(error: ChangeError) -> Self {
        let status = match &error {
            ChangeError::Certificate(Refusal::TooLarge)
            | ChangeError::Trust(TrustRefusal::TooLarge) => StatusCode::PAYLOAD_TOO_LARGE,
            ChangeError::Trust(TrustRefusal::NoAnchors)
            | ChangeError::InForce
            | ChangeError::Elsewhere(_) => StatusCode::CONFLICT,
            ChangeError::Certificate(_) | ChangeError::Trust(_) | ChangeError::Request(_) => {
                StatusCode::BAD_REQUEST
            }
            ChangeError::Nothing(_) => StatusCode::NOT_FOUND,
            ChangeError::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.to_string())
    }
}
