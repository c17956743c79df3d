//! How orders of certificates by ACME go; there also in a build that makes none.

use serde::Serialize;

/// How it goes. Times are RFC 3339 where they are shown.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct AcmeStatus {
    /// Whether certificates are ordered at all.
    pub(crate) enabled: bool,
    /// When the last order began.
    pub(crate) last_attempt: Option<String>,
    /// Why the last order failed; nothing after one that did not.
    pub(crate) last_error: Option<String>,
    /// When the next order begins, unless somebody asks for it before.
    pub(crate) next_attempt: Option<String>,
    /// The end of the certificate that was issued last.
    pub(crate) not_after: Option<String>,
}
