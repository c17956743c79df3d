//! What is known of users and tokens, and the changes that can be made to it. No file and no clock.

use std::collections::BTreeSet;

use base64ct::{Base64, Encoding};
use serde::{Deserialize, Serialize};

use super::token::{KEY, Key};
use super::{AuthError, Role, password, random};

/// Bounds of what is kept.
const MAX_USERS: usize = 64;
const MAX_TOKENS: usize = 64;
const MAX_KEYS: usize = 4;
/// Log-outs that are remembered.
const MAX_REVOKED: usize = 512;
/// As many of them are remembered beyond their end: a clock that is set back must not revive a token.
const KEEP_REVOKED: usize = 128;
/// The longest name.
const MAX_NAME: usize = 32;
/// The longest hash, in bytes.
const MAX_HASH: usize = 256;

/// Everything that is kept. Times are seconds since 1970.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    /// Names the device in its tokens; made with the first key.
    pub(super) device: String,
    pub(super) users: Vec<User>,
    pub(super) tokens: Vec<ApiToken>,
    pub(super) revoked: Vec<Revoked>,
    /// The last one signs; the others only verify.
    pub(super) keys: Vec<StoredKey>,
}

/// Somebody who can log in.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) role: Role,
    /// PHC string.
    pub(super) hash: String,
    /// Raised to end all sessions; from 1.
    pub(super) generation: u64,
    pub(super) created: u64,
    pub(super) changed: u64,
}

/// A token for a program.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ApiToken {
    pub(super) name: String,
    pub(super) role: Role,
    pub(super) jti: String,
    /// The key that signed it.
    pub(super) kid: String,
    pub(super) created: u64,
    pub(super) expires: u64,
    /// Who made it. It ends with them.
    pub(super) by: String,
}

/// A session that was ended before its time.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Revoked {
    pub(super) jti: String,
    pub(super) expires: u64,
}

/// A key as it is kept.
#[derive(Clone, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StoredKey {
    pub(super) kid: String,
    /// 64 bytes in base64.
    pub(super) secret: String,
    pub(super) created: u64,
    /// When the last session that it signed ends; absent in the one that signs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) until: Option<u64>,
}

impl std::fmt::Debug for StoredKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StoredKey({})", self.kid)
    }
}

impl StoredKey {
    fn new(now: u64) -> Result<Self, AuthError> {
        let secret: [u8; KEY] = random::bytes().map_err(AuthError::Internal)?;
        Ok(Self {
            kid: random::hex::<8>().map_err(AuthError::Internal)?,
            secret: Base64::encode_string(&secret),
            created: now,
            until: None,
        })
    }

    pub(super) fn key(&self) -> Option<Key> {
        let mut secret = [0; KEY];
        let length = Base64::decode(&self.secret, &mut secret).ok()?.len();
        (length == KEY).then(|| Key::new(&self.kid, &secret))
    }
}

/// Whether `name` is one: 1 to 32 of `a` to `z`, digits, `.`, `_`, `-`, beginning with a letter.
pub(super) fn is_name(name: &str) -> bool {
    name.len() <= MAX_NAME
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
}

/// Whether somebody new may be called `name`. What stands for somebody without a name in the log is none.
pub(super) fn check_name(name: &str) -> Result<(), AuthError> {
    if is_name(name) && !["guest", "local"].contains(&name) {
        Ok(())
    } else {
        Err(AuthError::Name)
    }
}

fn check_role(role: Role) -> Result<(), AuthError> {
    if role == Role::Guest {
        Err(AuthError::GuestRole)
    } else {
        Ok(())
    }
}

impl State {
    /// Whether everything is within its bounds; the reason if it is not. Shows no secret.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        let distinct =
            |names: Vec<&str>| names.iter().collect::<BTreeSet<_>>().len() == names.len();
        let user = |user: &User| {
            is_name(&user.name)
                && user.role > Role::Guest
                && user.generation > 0
                && hash_is_good(&user.hash)
        };
        let token = |token: &ApiToken| is_name(&token.name) && token.role > Role::Guest;
        if self.users.len() > MAX_USERS || self.tokens.len() > MAX_TOKENS {
            Err("there are too many users or tokens")
        } else if self.revoked.len() > MAX_REVOKED || self.keys.len() > MAX_KEYS {
            Err("there are too many keys or revoked tokens")
        } else if !self.users.iter().all(user) {
            Err("a user's name, role, hash or generation is wrong")
        } else if !self.tokens.iter().all(token) {
            Err("an API token's name or role is wrong")
        } else if !distinct(self.users.iter().map(|user| &*user.name).collect())
            || !distinct(self.tokens.iter().map(|token| &*token.name).collect())
            || !distinct(self.keys.iter().map(|key| &*key.kid).collect())
        {
            Err("a name is there twice")
        } else if self.keys.iter().any(|key| key.key().is_none()) {
            Err("a key is not 64 bytes in base64")
        } else if self.device.is_empty() || self.keys.is_empty() {
            Err("there is no key")
        } else {
            Ok(())
        }
    }

    /// Makes what must always be there, and forgets what nobody needs any more.
    pub(super) fn tidy(&mut self, now: u64) -> Result<(), AuthError> {
        if self.device.is_empty() {
            self.device = random::hex::<8>().map_err(AuthError::Internal)?;
        }
        if self.keys.is_empty() {
            self.keys.push(StoredKey::new(now)?);
        }
        self.tokens.retain(|token| token.expires > now);
        let in_use: Vec<bool> = self.keys.iter().map(|key| self.is_used(&key.kid)).collect();
        let mut in_use = in_use.into_iter();
        self.keys.retain(|key| {
            let signs_for_tokens = in_use.next().unwrap_or(true);
            signs_for_tokens || key.until.is_none_or(|until| until > now)
        });
        if self.revoked.len() > KEEP_REVOKED {
            self.revoked.retain(|revoked| revoked.expires > now);
        }
        Ok(())
    }

    fn is_used(&self, kid: &str) -> bool {
        self.tokens.iter().any(|token| token.kid == kid)
    }

    pub(super) fn user(&self, name: &str) -> Option<&User> {
        self.users.iter().find(|user| user.name == name)
    }

    fn user_mut(&mut self, name: &str) -> Result<&mut User, AuthError> {
        self.users
            .iter_mut()
            .find(|user| user.name == name)
            .ok_or(AuthError::NoSuchUser)
    }

    pub(super) fn admins(&self) -> usize {
        let admins = self.users.iter().filter(|user| user.role == Role::Admin);
        admins.count()
    }

    pub(super) fn add_user(
        &mut self,
        name: &str,
        role: Role,
        hash: String,
        now: u64,
    ) -> Result<(), AuthError> {
        check_name(name)?;
        check_role(role)?;
        if self.user(name).is_some() {
            return Err(AuthError::Exists);
        }
        if self.users.len() >= MAX_USERS {
            return Err(AuthError::Full("there are 64 users; remove one first"));
        }
        self.users.push(User {
            name: String::from(name),
            role,
            hash,
            // A user of the same name may have been here, whose tokens must not be this one's.
            generation: new_generation()?,
            created: now,
            changed: now,
        });
        Ok(())
    }

    /// Gives a user a new password, which ends their sessions.
    pub(super) fn set_hash(&mut self, name: &str, hash: String, now: u64) -> Result<(), AuthError> {
        let user = self.user_mut(name)?;
        user.hash = hash;
        user.generation += 1;
        user.changed = now;
        Ok(())
    }

    /// The same password with a new hash, unless it was changed in the meantime.
    pub(super) fn rehash(&mut self, name: &str, old: &str, new: &str) {
        if let Ok(user) = self.user_mut(name)
            && user.hash == old
        {
            user.hash = String::from(new);
        }
    }

    /// Gives a user another role, which ends their sessions and the API tokens of theirs that would have more.
    pub(super) fn set_role(&mut self, name: &str, role: Role, now: u64) -> Result<(), AuthError> {
        check_role(role)?;
        let admins = self.admins();
        let user = self.user_mut(name)?;
        if user.role == role {
            return Ok(());
        }
        if user.role == Role::Admin && admins == 1 {
            return Err(AuthError::LastAdmin);
        }
        user.role = role;
        user.generation += 1;
        user.changed = now;
        self.tokens
            .retain(|token| token.by != name || token.role <= role);
        Ok(())
    }

    /// Ends every session of a user.
    pub(super) fn end_sessions(&mut self, name: &str) {
        if let Ok(user) = self.user_mut(name) {
            user.generation += 1;
        }
    }

    /// Removes a user, and the API tokens that they made.
    pub(super) fn remove_user(&mut self, name: &str) -> Result<(), AuthError> {
        self.user_mut(name)?;
        self.users.retain(|user| user.name != name);
        self.tokens.retain(|token| token.by != name);
        Ok(())
    }

    pub(super) fn add_token(&mut self, token: ApiToken) -> Result<(), AuthError> {
        check_name(&token.name)?;
        check_role(token.role)?;
        if self.tokens.iter().any(|other| other.name == token.name) {
            return Err(AuthError::Exists);
        }
        if self.tokens.len() >= MAX_TOKENS {
            return Err(AuthError::Full("there are 64 API tokens; delete one first"));
        }
        self.tokens.push(token);
        Ok(())
    }

    pub(super) fn remove_token(&mut self, name: &str) -> Result<(), AuthError> {
        let before = self.tokens.len();
        self.tokens.retain(|token| token.name != name);
        if self.tokens.len() == before {
            Err(AuthError::NoSuchToken)
        } else {
            Ok(())
        }
    }

    /// Ends one session of `user`; all of theirs, when there is no room to remember which.
    pub(super) fn revoke(&mut self, user: &str, jti: &str, expires: u64, now: u64) {
        if self.revoked.len() >= MAX_REVOKED {
            self.revoked.retain(|revoked| revoked.expires > now);
        }
        if self.revoked.len() >= MAX_REVOKED {
            self.end_sessions(user);
        } else if !self.revoked.iter().any(|revoked| revoked.jti == jti) {
            self.revoked.push(Revoked {
                jti: String::from(jti),
                expires,
            });
        }
    }

    /// A new key signs from now on. The old one verifies until the last session that it signed has ended,
    /// `session` seconds from now, and for its API tokens; `at_once` ends all of them.
    pub(super) fn rotate_key(
        &mut self,
        at_once: bool,
        session: u64,
        now: u64,
    ) -> Result<(), AuthError> {
        if at_once {
            self.end_all_tokens()?;
        }
        if let Some(key) = self.keys.last_mut() {
            key.until = Some(now.saturating_add(session));
        }
        if self.keys.len() >= MAX_KEYS {
            let unused = self.keys.iter().position(|key| !self.is_used(&key.kid));
            let unused = unused.filter(|index| index + 1 < MAX_KEYS);
            self.keys.remove(unused.ok_or(AuthError::Full(
                "API tokens hold on to 4 keys; delete the oldest of them, or end all with now",
            ))?);
        }
        self.keys.push(StoredKey::new(now)?);
        Ok(())
    }

    /// Ends every session and API token, by whichever key. An older copy must not revive what was ended since,
    /// and the key that signs while the clock is not set is not in here: users leave their generations behind.
    pub(super) fn end_all_tokens(&mut self) -> Result<(), AuthError> {
        self.keys.clear();
        self.tokens.clear();
        self.revoked.clear();
        for user in &mut self.users {
            // By chance: an older copy has not seen how far they were.
            user.generation = user.generation.saturating_add(new_generation()?);
        }
        Ok(())
    }
}

/// A number that no other user or copy of the file has had.
fn new_generation() -> Result<u64, AuthError> {
    let bytes = random::bytes().map_err(AuthError::Internal)?;
    Ok(u64::from(u32::from_le_bytes(bytes)) + 1)
}

fn hash_is_good(hash: &str) -> bool {
    hash.len() <= MAX_HASH && password::parse(hash).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "$argon2id$v=19$m=7168,t=5,p=1$c2FsdHNhbHRzYWx0c2FsdA$aGFzaGhhc2hoYXNoaGFzaGhhc2hoYXNoaGFzaGhhc2g";
    const NOW: u64 = 1_800_000_000;

    fn state() -> State {
        let mut state = State::default();
        state
            .add_user("ann", Role::Admin, String::from(HASH), NOW)
            .unwrap();
        state.tidy(NOW).unwrap();
        state.check().unwrap();
        state
    }

    fn token(state: &State, name: &str, by: &str, role: Role) -> ApiToken {
        ApiToken {
            name: String::from(name),
            role,
            jti: format!("jti of {name}"),
            kid: state.keys.last().unwrap().kid.clone(),
            created: NOW,
            expires: NOW + 1000,
            by: String::from(by),
        }
    }

    #[test]
    fn names_are_plain() {
        for name in ["a", "ann", "ann.b-c_d9", &"a".repeat(32)] {
            assert!(is_name(name), "{name}");
        }
        for name in [
            "",
            "9a",
            ".a",
            "Ann",
            "änn",
            "a b",
            "a/b",
            "a\n",
            &"a".repeat(33),
        ] {
            assert!(!is_name(name), "{name}");
        }
    }

    #[test]
    fn the_last_administrator_stays_one() {
        let mut state = state();
        assert!(matches!(
            state.set_role("ann", Role::User, NOW),
            Err(AuthError::LastAdmin)
        ));
        state
            .add_user("bob", Role::Admin, String::from(HASH), NOW)
            .unwrap();
        let generation = state.user("ann").unwrap().generation;
        state.set_role("ann", Role::User, NOW).unwrap();
        assert!(state.user("ann").unwrap().generation > generation);
        assert!(matches!(
            state.add_user("ann", Role::User, String::from(HASH), NOW),
            Err(AuthError::Exists)
        ));
        assert!(matches!(
            state.add_user("eve", Role::Guest, String::from(HASH), NOW),
            Err(AuthError::GuestRole)
        ));
    }

    #[test]
    fn a_log_out_is_remembered_or_ends_all_sessions() {
        let mut state = state();
        let generation = state.user("ann").unwrap().generation;
        for n in 0..MAX_REVOKED {
            state.revoke("ann", &format!("{n}"), NOW + 1, NOW);
        }
        state.tidy(NOW).unwrap();
        assert_eq!(state.revoked.len(), MAX_REVOKED);
        assert_eq!(state.user("ann").unwrap().generation, generation);
        state.revoke("ann", "one more", NOW + 1, NOW);
        assert_eq!(state.revoked.len(), MAX_REVOKED);
        assert_eq!(state.user("ann").unwrap().generation, generation + 1);
        // Their time over, there is room again.
        state.revoke("ann", "later", NOW + 9, NOW + 1);
        assert_eq!(state.revoked.len(), 1);
        state.check().unwrap();
    }

    #[test]
    fn a_key_is_kept_for_as_long_as_something_needs_it() {
        let mut state = state();
        state.rotate_key(false, 100, NOW).unwrap();
        state.tidy(NOW + 99).unwrap();
        assert_eq!(state.keys.len(), 2);
        state.tidy(NOW + 100).unwrap();
        assert_eq!(state.keys.len(), 1);
        state
            .add_token(token(&state, "t", "ann", Role::User))
            .unwrap();
        state.rotate_key(false, 100, NOW + 100).unwrap();
        state.tidy(NOW + 999).unwrap();
        assert_eq!(state.keys.len(), 2, "the API token's");
        state.tidy(NOW + 1000).unwrap();
        assert_eq!((state.keys.len(), state.tokens.len()), (1, 0));
        for _ in 0..9 {
            state.rotate_key(false, 100, NOW + 1000).unwrap();
            assert!(state.keys.len() <= MAX_KEYS);
            state.check().unwrap();
        }
        state.rotate_key(true, 100, NOW + 1000).unwrap();
        assert_eq!(state.keys.len(), 1);
    }

    #[test]
    fn keys_that_api_tokens_need_are_not_pushed_out() {
        let mut state = state();
        for n in 0..MAX_KEYS {
            let name = format!("t{n}");
            state
                .add_token(token(&state, &name, "ann", Role::User))
                .unwrap();
            let rotated = state.rotate_key(false, 100, NOW);
            assert_eq!(rotated.is_ok(), n + 1 < MAX_KEYS);
        }
    }

    #[test]
    fn what_somebody_made_ends_with_their_role() {
        let mut state = state();
        state
            .add_user("bob", Role::Admin, String::from(HASH), NOW)
            .unwrap();
        state
            .add_token(token(&state, "large", "bob", Role::Admin))
            .unwrap();
        state
            .add_token(token(&state, "small", "bob", Role::User))
            .unwrap();
        state.set_role("bob", Role::User, NOW).unwrap();
        assert_eq!(state.tokens.len(), 1);
        state.remove_user("bob").unwrap();
        assert!(state.tokens.is_empty());
    }
}
