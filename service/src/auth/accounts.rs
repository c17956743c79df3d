//! What an administrator changes: users, API tokens and the signing key.

use super::error::AuthError;
use super::state::{ApiToken, check_name};
use super::token::{Claims, ISSUER};
use super::user_file::UserEntry;
use super::{Auth, Password, Principal, Role, Source, Via, audit, now, random};

/// The longest that an API token lasts.
pub(super) const MAX_DAYS: u64 = 3650;
/// Seconds of a day.
const DAY: u64 = 86_400;

/// An API token without what would let one use it. Times are seconds since 1970.
#[derive(Clone, Debug)]
pub(crate) struct ApiTokenEntry {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) created: u64,
    pub(crate) expires: u64,
    /// Who made it.
    pub(crate) by: String,
}

/// What somebody asks for.
#[derive(Debug)]
pub(crate) struct NewApiToken {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) end: End,
}

/// When an API token ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    /// In seconds since 1970.
    At(u64),
    /// As many days from now.
    Days(u64),
}

/// SECURITY: what an API token makes would outlive it; who steals one must not breed others from it.
fn no_api_token(who: &Principal) -> Result<(), AuthError> {
    match who.via {
        Via::ApiToken(_) => Err(AuthError::NotForApiTokens),
        _ => Ok(()),
    }
}

/// Tells the log what came of a change.
fn told<T>(
    result: Result<T, AuthError>,
    who: &Principal,
    what: &str,
    subject: &str,
    from: Source,
) -> Result<T, AuthError> {
    let reason = result.as_ref().err().map(ToString::to_string);
    let outcome = reason.as_deref().map_or(Ok(()), Err);
    audit::record(&who.name, what, subject, &from, outcome);
    result
}

impl Auth {
    /// Everybody who can log in.
    pub(crate) fn users(&self) -> Result<Vec<UserEntry>, AuthError> {
        let current = self.current();
        Ok(current.state()?.users.iter().map(UserEntry::from).collect())
    }

    /// Makes a user. Hashes.
    pub(crate) fn add_user(
        &self,
        who: &Principal,
        from: Source,
        name: &str,
        password: &Password,
        role: Role,
    ) -> Result<(), AuthError> {
        no_api_token(who)?;
        check_name(name)?;
        password.check(name)?;
        let hash = password.hash().map_err(AuthError::Internal)?;
        let added = self.change(|state| state.add_user(name, role, hash, now()));
        told(added, who, "new user", name, from)
    }

    /// Gives a user another role, another password, or both. Hashes.
    pub(crate) fn change_user(
        &self,
        who: &Principal,
        from: Source,
        name: &str,
        role: Option<Role>,
        password: Option<&Password>,
    ) -> Result<(), AuthError> {
        no_api_token(who)?;
        let is_own = who.name == name && who.via != Via::Certificate;
        if is_own && password.is_some() {
            return Err(AuthError::OwnPassword);
        }
        if self.current().state()?.user(name).is_none() {
            return Err(AuthError::NoSuchUser);
        }
        let hash = match password {
            None => None,
            Some(password) => {
                password.check(name)?;
                Some(password.hash().map_err(AuthError::Internal)?)
            }
        };
        let what = match (role, password) {
            (Some(Role::Admin), None) => "role admin for",
            (Some(_), None) => "role user for",
            (None, _) => "new password for",
            (Some(_), Some(_)) => "new role and password for",
        };
        let changed = self.change(|state| {
            if let Some(role) = role {
                state.set_role(name, role, now())?;
            }
            match hash {
                Some(hash) => state.set_hash(name, hash, now()),
                None => Ok(()),
            }
        });
        told(changed, who, what, name, from)
    }

    /// Removes a user.
    pub(crate) fn remove_user(
        &self,
        who: &Principal,
        from: Source,
        name: &str,
    ) -> Result<(), AuthError> {
        no_api_token(who)?;
        let removed = self.change(|state| {
            let admins = state.admins();
            match state.user(name) {
                Some(user) if user.role == Role::Admin && admins == 1 => Err(AuthError::LastAdmin),
                _ => state.remove_user(name),
            }
        });
        told(removed, who, "removed user", name, from)
    }

    /// All API tokens.
    pub(crate) fn api_tokens(&self) -> Result<Vec<ApiTokenEntry>, AuthError> {
        let current = self.current();
        let now = now();
        let tokens = current.state()?.tokens.iter();
        Ok(tokens
            .filter(|token| token.expires > now)
            .map(entry)
            .collect())
    }

    /// Makes an API token; the text of it is to be had only now.
    pub(crate) fn add_api_token(
        &self,
        who: &Principal,
        from: Source,
        new: &NewApiToken,
    ) -> Result<(ApiTokenEntry, String), AuthError> {
        no_api_token(who)?;
        if new.role > who.role {
            return Err(AuthError::RoleTooLarge);
        }
        let now = now();
        let expires = match new.end {
            End::At(time) => time,
            End::Days(days) => now + days.min(MAX_DAYS + 1) * DAY,
        };
        if expires <= now || expires > now + MAX_DAYS * DAY {
            return Err(AuthError::Expiry);
        }
        let jti = random::name::<16>().map_err(AuthError::Internal)?;
        let added = self.change(|state| {
            // Those that have ended make room, and there is a key to sign with.
            state.tidy(now)?;
            let stored = state
                .keys
                .last()
                .ok_or(AuthError::Internal("there is no key"))?;
            let key = stored.key().ok_or(AuthError::Internal("the key is none"))?;
            let token = ApiToken {
                name: new.name.clone(),
                role: new.role,
                jti: jti.clone(),
                kid: String::from(key.kid()),
                created: now,
                expires,
                by: who.name.clone(),
            };
            let text = key.sign(&Claims {
                iss: ISSUER,
                aud: &state.device,
                sub: &new.name,
                role: new.role,
                iat: now,
                nbf: now,
                exp: expires,
                jti: &jti,
                generation: 0,
            });
            let entry = entry(&token);
            state.add_token(token)?;
            Ok((entry, text))
        });
        // What somebody typed is a name only if it was taken as one.
        let name = if added.is_ok() {
            &*new.name
        } else {
            "of another name"
        };
        told(added, who, "new API token", name, from)
    }

    /// Ends an API token.
    pub(crate) fn remove_api_token(
        &self,
        who: &Principal,
        from: Source,
        name: &str,
    ) -> Result<(), AuthError> {
        no_api_token(who)?;
        let removed = self.change(|state| state.remove_token(name));
        told(removed, who, "ended API token", name, from)
    }

    /// Signs with a new key from now on; `at_once` ends every token that was ever made.
    pub(crate) fn rotate_key(
        &self,
        who: &Principal,
        from: Source,
        at_once: bool,
    ) -> Result<(), AuthError> {
        no_api_token(who)?;
        let session = self.session_seconds();
        let rotated = self.change(|state| state.rotate_key(at_once, session, now()));
        let what = if at_once {
            "ended all tokens with"
        } else {
            "made"
        };
        told(rotated, who, what, "a new signing key", from)
    }
}

fn entry(token: &ApiToken) -> ApiTokenEntry {
    ApiTokenEntry {
        name: token.name.clone(),
        role: token.role,
        created: token.created,
        expires: token.expires,
        by: token.by.clone(),
    }
}
