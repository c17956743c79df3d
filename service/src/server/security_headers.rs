//! What every answer says to a browser about what it may do (OWASP Secure Headers Project).

use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// Sent with every answer that does not say otherwise.
///
/// The pages load nothing from elsewhere, run no inline script, are in nobody's frame, and use nothing of the
/// browser's machine.
const ALL: [(HeaderName, &str); 9] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (
        header::PERMISSIONS_POLICY,
        "accelerometer=(), autoplay=(), camera=(), display-capture=(), encrypted-media=(), fullscreen=(), \
         geolocation=(), gyroscope=(), magnetometer=(), microphone=(), midi=(), payment=(), \
         publickey-credentials-get=(), screen-wake-lock=(), usb=(), xr-spatial-tracking=()",
    ),
    (header::CROSS_ORIGIN_OPENER_POLICY, "same-origin"),
    (header::CROSS_ORIGIN_RESOURCE_POLICY, "same-origin"),
    (header::CROSS_ORIGIN_EMBEDDER_POLICY, "require-corp"),
    (
        HeaderName::from_static("x-permitted-cross-domain-policies"),
        "none",
    ),
];

/// Over TLS only (RFC 6797, section 7.2). A year, and not for names below the device's, which are others' machines.
const STRICT_TRANSPORT_SECURITY: &str = "max-age=31536000";

/// All of them, for an answer that is written by hand.
pub(super) fn lines(is_tls: bool) -> impl Iterator<Item = (HeaderName, &'static str)> {
    let strict = (header::STRICT_TRANSPORT_SECURITY, STRICT_TRANSPORT_SECURITY);
    ALL.into_iter().chain(is_tls.then_some(strict))
}

/// Adds what is not there yet.
pub(super) fn add(headers: &mut HeaderMap, is_tls: bool) {
    for (name, value) in ALL {
        if !headers.contains_key(&name) {
            headers.insert(name, HeaderValue::from_static(value));
        }
    }
    if is_tls {
        headers.insert(
            header::STRICT_TRANSPORT_SECURITY,
            HeaderValue::from_static(STRICT_TRANSPORT_SECURITY),
        );
    }
}
