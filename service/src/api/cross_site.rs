//! Whether a request comes from a page of this device, or from one of elsewhere that uses its reader's cookie.
//!
//! SECURITY: `SameSite=Strict` alone would do in a browser that is right. Other services of the same host name,
//! on other ports, are the same site, though; the headers tell them apart.

use actix_web::http::header::{self, HeaderMap};
use actix_web::http::{Method, StatusCode, Uri};

use super::error::Problem;

/// What browsers say of where a request comes from (Fetch Metadata, W3C).
const FETCH_SITE: &str = "sec-fetch-site";
/// What a page cannot send elsewhere without being allowed to by a preflight (Fetch, CORS).
const REQUESTED_WITH: &str = "x-requested-with";

/// Whether `method` changes nothing (RFC 9110, section 9.2.1).
pub(crate) fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// Whether a change that comes with a cookie was asked for by a page of this device.
pub(crate) fn is_own_page(uri: &Uri, headers: &HeaderMap) -> bool {
    let site = all(headers, FETCH_SITE, |site| site == "same-origin");
    let asked = headers.get(REQUESTED_WITH);
    site && asked.is_some_and(|value| !value.is_empty()) && origin_is_own(uri, headers)
}

/// Refuses what a page of elsewhere sends, cookie or not: it could log its reader in as somebody else.
///
/// # Errors
/// 403.
pub(crate) fn refuse(uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
    let site = all(headers, FETCH_SITE, |site| {
        site == "same-origin" || site == "none"
    });
    if site && origin_is_own(uri, headers) {
        Ok(())
    } else {
        Err(Problem::new(
            StatusCode::FORBIDDEN,
            "this request comes from a page of elsewhere; open the device's own pages",
        ))
    }
}

/// Whether every header of that name is good; none is.
fn all(headers: &HeaderMap, name: &str, good: impl Fn(&str) -> bool) -> bool {
    headers
        .get_all(name)
        .all(|value| value.to_str().is_ok_and(&good))
}

/// Whether `Origin`, if it is there, names the host that the request is for.
fn origin_is_own(uri: &Uri, headers: &HeaderMap) -> bool {
    let host = uri.authority().map(|authority| authority.as_str());
    let host = host.or_else(|| headers.get(header::HOST)?.to_str().ok());
    all(headers, "origin", |origin| {
        let origin = origin.strip_prefix("https://");
        origin
            .zip(host)
            .is_some_and(|(origin, host)| port_443(origin).eq_ignore_ascii_case(port_443(host)))
    })
}

/// `host` without the port that needs not be said.
fn port_443(host: &str) -> &str {
    host.strip_suffix(":443").unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    fn request(headers: &[(&str, &str)]) -> actix_web::HttpRequest {
        let mut request = TestRequest::default().uri("/api/admin/users");
        for (name, value) in headers {
            request = request.append_header((*name, *value));
        }
        request.to_http_request()
    }

    #[test]
    fn a_change_by_cookie_needs_everything_to_be_right() {
        let with = ("x-requested-with", "edgeweb");
        let host = ("host", "device:8443");
        for (expected, headers) in [
            (true, &[host, with][..]),
            (true, &[host, with, ("sec-fetch-site", "same-origin")]),
            (true, &[host, with, ("origin", "https://device:8443")]),
            (true, &[host, with, ("origin", "https://DEVICE:8443")]),
            (
                true,
                &[("host", "device"), with, ("origin", "https://device:443")],
            ),
            (false, &[host]),
            (false, &[host, ("x-requested-with", "")]),
            (false, &[host, ("sec-fetch-site", "same-origin")]),
            (false, &[host, with, ("sec-fetch-site", "same-site")]),
            (false, &[host, with, ("sec-fetch-site", "cross-site")]),
            (false, &[host, with, ("sec-fetch-site", "none")]),
            (
                false,
                &[host, with, ("sec-fetch-site", "same-origin, none")],
            ),
            (
                false,
                &[
                    host,
                    with,
                    ("sec-fetch-site", "same-origin"),
                    ("sec-fetch-site", "cross-site"),
                ],
            ),
            (false, &[host, with, ("origin", "null")]),
            (false, &[host, with, ("origin", "http://device:8443")]),
            (false, &[host, with, ("origin", "https://device:8444")]),
            (false, &[host, with, ("origin", "https://device")]),
            (false, &[host, with, ("origin", "https://evil.example")]),
            (
                false,
                &[host, with, ("origin", "https://device:8443.evil.example")],
            ),
            (false, &[host, with, ("origin", "https://device:8443/")]),
            (
                false,
                &[
                    host,
                    with,
                    ("origin", "https://device:8443"),
                    ("origin", "https://evil.example"),
                ],
            ),
            (false, &[with, ("origin", "https://device:8443")]),
        ] {
            let request = request(headers);
            assert_eq!(
                is_own_page(request.uri(), request.headers()),
                expected,
                "{headers:?}"
            );
        }
    }

    #[test]
    fn a_log_in_is_refused_only_when_it_comes_from_elsewhere() {
        let host = ("host", "device:8443");
        for (expected, headers) in [
            (true, &[host][..]),
            (true, &[host, ("sec-fetch-site", "none")]),
            (
                true,
                &[
                    host,
                    ("sec-fetch-site", "same-origin"),
                    ("origin", "https://device:8443"),
                ],
            ),
            (false, &[host, ("sec-fetch-site", "same-site")]),
            (false, &[host, ("sec-fetch-site", "cross-site")]),
            (false, &[host, ("origin", "https://evil.example")]),
            (false, &[host, ("origin", "null")]),
        ] {
            let request = request(headers);
            assert_eq!(
                refuse(request.uri(), request.headers()).is_ok(),
                expected,
                "{headers:?}"
            );
        }
    }

    #[test]
    fn the_host_of_http2_is_its_authority() {
        let uri: Uri = "https://device:8443/x".parse().unwrap();
        let right = request(&[("origin", "https://device:8443"), ("host", "evil.example")]);
        assert!(refuse(&uri, right.headers()).is_ok());
        let wrong = request(&[("origin", "https://evil.example"), ("host", "evil.example")]);
        assert!(refuse(&uri, wrong.headers()).is_err());
    }
}
