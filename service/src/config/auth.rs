//! Users, tokens and what narrows their roles: the table `auth` of the configuration.

use std::path::PathBuf;

use serde::Deserialize;

/// Users, tokens and what narrows their roles.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct AuthConfig {
    /// How long somebody who logged in stays so, 1 to 720 hours.
    pub token_hours: u64,
    /// How long after the start a device without users can be claimed, 1 to 1440 minutes.
    pub claim_minutes: u64,
    /// Users that the maker put into the image, with hashes of their passwords; taken over at the first start,
    /// when nobody exists yet. It may be absent.
    pub provisioned_users: PathBuf,
    /// An OPA policy in Rego that narrows what the roles allow; empty: none.
    pub policy_file: PathBuf,
}

impl Default for AuthConfig {
    fn default() -> Self {
        Self {
            token_hours: 24,
            claim_minutes: 60,
            provisioned_users: PathBuf::from("/etc/edgeweb/users.toml"),
            policy_file: PathBuf::new(),
        }
    }
}
