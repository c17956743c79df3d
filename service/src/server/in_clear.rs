//! What the listener in clear answers, besides health: where the same is to be had over HTTPS.

use std::sync::atomic::Ordering;

use actix_http::{HttpMessage, Request};
use actix_web::HttpResponse;
use actix_web::http::{Method, StatusCode, header};

use super::Core;
use super::host::Host;
use crate::api::error::Problem;

/// Where an ACME authority asks for its proof (RFC 8555, section 8.3).
const ACME_CHALLENGE: &str = "/.well-known/acme-challenge/";

/// The proof that an ACME authority asks for, if that is what `request` is about.
pub(super) fn acme_challenge(core: &Core, request: &Request) -> Option<HttpResponse> {
    let token = request.path().strip_prefix(ACME_CHALLENGE)?;
    let answer = core.tls.http_challenge(token)?;
    Some(
        HttpResponse::Ok()
            .insert_header((header::CONTENT_TYPE, "application/octet-stream"))
            .insert_header((header::CACHE_CONTROL, "no-store"))
            .body(answer),
    )
}

/// Where `request`, which names `host`, is to be had over HTTPS.
///
/// # Errors
/// What cannot be led on, and why.
pub(super) fn redirect(
    core: &Core,
    request: &Request,
    host: Option<Host>,
) -> Result<HttpResponse, Problem> {
    let port = core.https_port.load(Ordering::Relaxed);
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD)
        && !request.headers().contains_key(header::AUTHORIZATION);
    match (host, port) {
        (_, 0) => Err(Problem::new(
            StatusCode::NOT_FOUND,
            "only /health is answered in clear, and https.enabled is false",
        )),
        (Some(host), port) if is_read => {
            let target = request.uri().path_and_query();
            let target = target.map_or("/", |target| target.as_str());
            let port = match port {
                443 => String::new(),
                port => format!(":{port}"),
            };
            Ok(HttpResponse::PermanentRedirect()
                .insert_header((header::LOCATION, format!("https://{host}{port}{target}")))
                .finish())
        }
        // SECURITY: what was sent in clear has been read by who listens; led on, it would only seem to be safe.
        _ => Err(Problem::new(
            StatusCode::FORBIDDEN,
            "this is answered over HTTPS only; what was sent in clear others may have read",
        )),
    }
}
