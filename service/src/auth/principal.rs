//! Who a request comes from.

use super::Role;

/// Who a request comes from, and what they may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The user's name, the API token's, the certificate's SPIFFE ID or subject, or `guest`.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// How they showed who they are.
    pub via: Via,
}

/// How somebody showed who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Via {
    /// Not at all.
    Nothing,
    /// The device's own Unix socket, which its file mode guards.
    LocalSocket,
    /// A certificate, verified in the handshake.
    Certificate,
    /// The token of somebody who logged in, in the `Authorization` header; its `jti`.
    Session(String),
    /// The same in a browser's cookie; its `jti`.
    Cookie(String),
    /// An API token; its `jti`.
    ApiToken(String),
}

impl Principal {
    /// Somebody of whom nothing is known.
    #[must_use]
    pub fn guest() -> Self {
        Self {
            name: String::from("guest"),
            role: Role::Guest,
            via: Via::Nothing,
        }
    }
}
