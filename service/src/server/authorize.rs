//! Who a request comes from, and whether they may go where it leads.
//!
//! A token decides, if there is a good one; else the certificate that was shown in the handshake; else that the
//! request came over the device's own socket. No token is ever looked for in a URL.

use std::net::{IpAddr, Ipv4Addr};

use actix_http::{HttpMessage, Request};
use actix_web::http::{Method, StatusCode, header};

use super::Core;
use super::connection::ConnectionState;
use crate::api::cookie::{self, cookie_value};
use crate::api::cross_site;
use crate::api::error::Problem;
use crate::auth::{Principal, Role, Source, Via};

/// Where secrets are sent without a role.
const SECRETS: [&str; 2] = ["/api/public/claim", "/api/public/session"];
const SCHEME: &str = "bearer";

/// Who asks. `path` is the decoded one: actix-web looks for the route behind it, so the role is that path's, too.
///
/// # Errors
/// The answer to somebody who may not go there.
pub(super) fn authorize(
    core: &Core,
    connection: Option<&ConnectionState>,
    request: &Request,
    path: &str,
) -> Result<Principal, Problem> {
    let source = source(connection, request);
    request.extensions_mut().insert(source);
    let role = Role::of_path(path);
    let principal = principal(core, connection, request, source, path, role)?;
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

fn source(connection: Option<&ConnectionState>, request: &Request) -> Source {
    let is_local = connection.is_some_and(ConnectionState::is_local);
    let address = request.peer_addr().map(|peer| peer.ip());
    // A client that is gone already has no address; it is not the device itself.
    let nowhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    Source {
        address: (!is_local).then(|| address.unwrap_or(nowhere)),
        private: connection.is_some_and(ConnectionState::is_private),
    }
}

fn principal(
    core: &Core,
    connection: Option<&ConnectionState>,
    request: &Request,
    source: Source,
    path: &str,
    role: Role,
) -> Result<Principal, Problem> {
    let bearer = bearer(request)?;
    let in_cookie = session_cookie(request)?;
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let brings_secret = bearer.is_some() || in_cookie.is_some();
    // SECURITY: before any of it is looked at.
    if !source.private && (brings_secret || (SECRETS.contains(&path) && !is_read)) {
        return Err(Problem::only_over_https());
    }
    if let Some(token) = bearer {
        let token = token.ok_or_else(Problem::invalid_token)?;
        let known = core.auth.verify(token, false);
        return known.ok_or_else(Problem::invalid_token);
    }
    if let Some(token) = in_cookie
        && let Some(known) = core.auth.verify(token, true)
    {
        let trusted = cross_site::is_safe(request.method())
            || cross_site::is_own_page(request.uri(), request.headers());
        if trusted {
            return Ok(known);
        }
        // What is public is not done in anybody's name.
        if role > Role::Guest {
            return Err(Problem::new(
                StatusCode::FORBIDDEN,
                "a change with the session's cookie needs the header X-Requested-With, and a page of this device \
                 that asks for it",
            ));
        }
    }
    let known = without_token(connection);
    // SECURITY: a browser shows its certificate whatever page makes it ask, as it does with cookies.
    if known.via == Via::Certificate && role > Role::Guest && !cross_site::is_safe(request.method())
    {
        cross_site::refuse(request.uri(), request.headers())?;
    }
    Ok(known)
}

fn without_token(connection: Option<&ConnectionState>) -> Principal {
    let Some(connection) = connection else {
        return Principal::guest();
    };
    if let Some(client) = connection.client()
        && let Some(role) = client.role
    {
        return Principal {
            name: client.name.clone(),
            role,
            via: Via::Certificate,
            ..Principal::guest()
        };
    }
    if connection.is_local() {
        // Who may open the device's own socket, root or the service's user, may read what users may.
        return Principal {
            name: String::from("local"),
            role: Role::User,
            via: Via::LocalSocket,
            ..Principal::guest()
        };
    }
    Principal::guest()
}

/// The token in `Authorization` (RFC 6750, section 2.1); the inner `None` is a header that has none.
///
/// # Errors
/// 400 for several such headers.
fn bearer(request: &Request) -> Result<Option<Option<&str>>, Problem> {
    let mut values = request.headers().get_all(header::AUTHORIZATION);
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "there are several Authorization headers; send one",
        ));
    }
    let token = value
        .to_str()
        .ok()
        .and_then(|value| value.trim().split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case(SCHEME))
        .map(|(_, token)| token.trim_start());
    Ok(Some(token))
}

/// The token in the browser's cookie.
///
/// # Errors
/// 400 when there are several different ones.
fn session_cookie(request: &Request) -> Result<Option<&str>, Problem> {
    let ambiguous = || {
        Problem::new(
            StatusCode::BAD_REQUEST,
            "there are several different session cookies; delete the device's cookies and log in again",
        )
    };
    let mut found: Option<&str> = None;
    // HTTP/2 sends one header for each cookie (RFC 9113, section 8.2.3).
    for header in request.headers().get_all(header::COOKIE) {
        // What is not text is no token of ours.
        let Ok(header) = std::str::from_utf8(header.as_bytes()) else {
            continue;
        };
        match cookie_value(header, cookie::SESSION).map_err(|_| ambiguous())? {
            Some(value) if found.is_some_and(|other| other != value) => return Err(ambiguous()),
            Some(value) => found = Some(value),
            None => {}
        }
    }
    Ok(found)
}
