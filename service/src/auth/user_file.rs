//! Users and keys where they are kept, for the command on the device. The service, if it runs, sees the change.

use std::fmt;

use super::state::{User, check_name};
use super::store::{Found, Store, WhenLost};
use super::{AuthError, Password, Role, audit, now};
use crate::config::Config;

/// The users of a device, changed where they are kept, with or without a service that runs.
pub struct UserFile {
    store: Store,
    session_seconds: u64,
    who: String,
}

/// Somebody who can log in. Times are seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UserEntry {
    /// The user's name.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// When they were made.
    pub created: u64,
    /// When password or role were last changed.
    pub changed: u64,
}

impl From<&User> for UserEntry {
    fn from(user: &User) -> Self {
        Self {
            name: user.name.clone(),
            role: user.role,
            created: user.created,
            changed: user.changed,
        }
    }
}

/// Where the changes that are made here come from.
struct Command;

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the command line")
    }
}

impl UserFile {
    /// The users of the device with this configuration. `report` is told what was found to be damaged and mended.
    #[must_use]
    pub fn new(config: &Config, report: fn(log::Level, &str)) -> Self {
        Self {
            store: Store::new(&config.server.state_dir, report),
            session_seconds: super::session_seconds(config),
            who: format!("uid {}", rustix::process::getuid().as_raw()),
        }
    }

    /// Everybody who can log in.
    ///
    /// # Errors
    /// [`AuthError::File`] when the file cannot be read, or neither it nor its previous state is good.
    pub fn list(&self) -> Result<Vec<UserEntry>, AuthError> {
        let state = match self.store.read()? {
            Found::Nothing => return Ok(Vec::new()),
            Found::Good(state) | Found::Previous(state, _) => state,
            Found::Bad(reason) => {
                return Err(AuthError::File {
                    path: self.store.file(),
                    reason: format!("{reason}; edgeweb user add begins anew"),
                });
            }
        };
        Ok(state.users.iter().map(UserEntry::from).collect())
    }

    /// Makes a user. Where no good file is left it begins a new one, and keeps the damaged ones.
    ///
    /// # Errors
    /// What is wrong with name, role or password, or why nothing can be kept.
    pub fn add(&self, name: &str, role: Role, password: &Password) -> Result<(), AuthError> {
        check_name(name)?;
        password.check(name)?;
        let hash = password.hash().map_err(AuthError::Internal)?;
        let added = self.store.change(WhenLost::StartAnew, |state| {
            state.add_user(name, role, hash, now())
        });
        self.told(added.map(drop), "new user", name)
    }

    /// Gives a user another password and ends their sessions.
    ///
    /// # Errors
    /// As [`UserFile::add`], and [`AuthError::NoSuchUser`].
    pub fn set_password(&self, name: &str, password: &Password) -> Result<(), AuthError> {
        if !self.list()?.iter().any(|user| user.name == name) {
            return Err(AuthError::NoSuchUser);
        }
        password.check(name)?;
        let hash = password.hash().map_err(AuthError::Internal)?;
        let changed = self
            .store
            .change(WhenLost::Refuse, |state| state.set_hash(name, hash, now()));
        self.told(changed.map(drop), "new password for", name)
    }

    /// Removes a user and says whether an administrator is left. Who has the device in their hands may remove
    /// the last one; when nobody is left, the next start of the service makes a claim code.
    ///
    /// # Errors
    /// [`AuthError::NoSuchUser`], or why nothing can be kept.
    pub fn remove(&self, name: &str) -> Result<bool, AuthError> {
        let removed = self.store.change(WhenLost::Refuse, |state| {
            state.remove_user(name)?;
            Ok(state.admins() > 0)
        });
        self.told(
            removed.map(|(admin_left, ..)| admin_left),
            "removed user",
            name,
        )
    }

    /// Signs with a new key from now on; `at_once` ends every token that was ever made.
    ///
    /// # Errors
    /// [`AuthError::Full`] when API tokens hold on to all keys, or why nothing can be kept.
    pub fn rotate_key(&self, at_once: bool) -> Result<(), AuthError> {
        let rotated = self.store.change(WhenLost::Refuse, |state| {
            state.rotate_key(at_once, self.session_seconds, now())
        });
        let what = if at_once {
            "ended all tokens with"
        } else {
            "made"
        };
        self.told(rotated.map(drop), what, "a new signing key")
    }

    fn told<T>(
        &self,
        result: Result<T, AuthError>,
        what: &str,
        name: &str,
    ) -> Result<T, AuthError> {
        let reason = result.as_ref().err().map(ToString::to_string);
        let outcome = reason.as_deref().map_or(Ok(()), Err);
        audit::record(&self.who, what, name, &Command, outcome);
        result
    }
}
