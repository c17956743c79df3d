//! What the fuzz targets in `fuzz/` call: the first code that reads what strangers send, with what must hold of it.
//!
//! Each function panics when that does not hold. Not part of the library: it is there under `cfg(fuzzing)` only.

use crate::api::cookie::{SESSION, cookie_value};
use crate::auth::{fuzz_claims, fuzz_token};
use crate::server::fuzz_host;
use crate::tls::fuzz_pem_bundle;

/// Only a token that a key of the device signed is good, and only in the one form that the device writes.
pub fn token(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        fuzz_token(text);
    }
}

/// Claims under a right signature are good only as the device writes them.
pub fn claims(data: &[u8]) {
    fuzz_claims(data);
}

/// A bundle that is taken can be written down and is the same when it is read again.
pub fn pem_bundle(data: &[u8]) {
    fuzz_pem_bundle(data);
}

/// A host that is read is the same when it is written down and read again.
pub fn host(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        fuzz_host(text);
    }
}

/// The value of a cookie is a part of the header, and the same with another cookie before it.
pub fn cookie(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let found = cookie_value(text, SESSION);
    if let Ok(Some(value)) = found {
        assert!(text.contains(value));
        assert!(!value.contains(';'));
    }
    let longer = format!("a=b; {text}");
    assert_eq!(cookie_value(&longer, SESSION), found);
}
