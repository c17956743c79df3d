//! Who is asking and what they may do. Knows nothing of HTTP.

pub(crate) mod audit;
#[cfg(feature = "policy")]
pub(crate) mod policy;
mod principal;
mod role;

pub use principal::{Principal, Via};
pub use role::Role;

use crate::config::Config;

/// Users, tokens and everything else that says who somebody is. Lives as long as the service.
pub(crate) struct Auth(());

/// Why nobody can be told from anybody else. Each text is one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {}

impl Auth {
    /// Reads what is known.
    pub(crate) fn open(_config: &Config) -> Result<Self, AuthError> {
        Ok(Self(()))
    }

    /// Takes up a new configuration. An error leaves the old one in force.
    pub(crate) fn reconfigure(&self, _config: &Config) -> Result<(), AuthError> {
        Ok(())
    }
}
