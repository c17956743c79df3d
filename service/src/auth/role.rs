//! The three roles of a caller.

use serde::{Deserialize, Serialize};

/// What a route asks of its caller. The role shows in the route's path.
///
/// Routes for [`Role::User`] and [`Role::Admin`] are refused with 401 as long as nobody exists who could log
/// in: a route never falls open for want of somebody to ask.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Anybody who reaches the device: `/api/public/…`.
    Guest,
    /// Somebody who logged in: `/api/user/…`.
    User,
    /// Somebody who may change the device: `/api/admin/…`.
    Admin,
}

impl Role {
    /// The path under which the routes of this role stand.
    #[must_use]
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Guest => "/api/public",
            Self::User => "/api/user",
            Self::Admin => "/api/admin",
        }
    }

    /// As it is written everywhere: `guest`, `user`, `admin`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Guest => "guest",
            Self::User => "user",
            Self::Admin => "admin",
        }
    }

    /// The role that `path` asks for.
    #[must_use]
    pub(crate) fn of_path(path: &str) -> Self {
        let under = |role: Self| {
            path.strip_prefix(role.prefix())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        if under(Self::Admin) {
            Self::Admin
        } else if under(Self::User) {
            Self::User
        } else {
            Self::Guest
        }
    }
}
