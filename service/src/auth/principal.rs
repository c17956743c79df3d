//! Who a request comes from.

use super::Role;

/// Who a request comes from, and what they may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The user's name, the API token's, the certificate's SPIFFE ID or subject, `local`, or `guest`.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// How they showed who they are.
    pub via: Via,
    /// When that ends, in seconds since 1970; only tokens have an end of their own.
    pub expires: Option<u64>,
    /// That of the user when the token was made.
    pub(crate) generation: u64,
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

impl Via {
    /// As it is written everywhere.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::LocalSocket => "local",
            Self::Certificate => "certificate",
            Self::Session(_) => "session",
            Self::Cookie(_) => "cookie",
            Self::ApiToken(_) => "token",
        }
    }
}

impl Principal {
    /// Somebody of whom nothing is known.
    #[must_use]
    pub fn guest() -> Self {
        Self {
            name: String::from("guest"),
            role: Role::Guest,
            via: Via::Nothing,
            expires: None,
            generation: 0,
        }
    }
}
