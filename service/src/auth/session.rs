//! Logging in and out, and what a token is worth.

use std::time::Instant;

use super::claim::Tried;
use super::error::AuthError;
use super::guessing::Attempt;
use super::state::{State, User, check_name};
use super::token::{self, Claims, ISSUER, MAX_TOKEN};
use super::{Auth, CLOCK_IS_SET, Loaded, Password, Principal, Role, Source, Via, audit, lock, now};
use super::{password, random};

/// Somebody who has just logged in.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) token: String,
    pub(crate) username: String,
    pub(crate) role: Role,
    /// Seconds since 1970.
    pub(crate) expires: u64,
    /// Seconds from now.
    pub(crate) expires_in: u64,
}

/// In the place of a name that nobody has: people type their passwords there.
const UNKNOWN: &str = "somebody unknown";

impl Auth {
    /// Who the bearer of `token` is; `None` if it is not good. Costs a few microseconds.
    pub(crate) fn verify(&self, token: &str, in_cookie: bool) -> Option<Principal> {
        let principal = self.find(token, in_cookie, now());
        if principal.is_none() {
            self.counters.tokens_refused.add();
        }
        principal
    }

    fn find(&self, token: &str, in_cookie: bool, now: u64) -> Option<Principal> {
        let loaded = self.current();
        let state = loaded.state().ok()?;
        let mut buffer = [0; MAX_TOKEN];
        let keys = loaded.keys.iter().chain([&self.volatile]);
        let (_, claims) = token::verify(keys, &state.device, now, token, &mut buffer).ok()?;
        let (role, via) = if claims.generation == 0 {
            let api = state.tokens.iter().find(|api| api.jti == claims.jti)?;
            if api.name != claims.sub || api.expires <= now || in_cookie {
                return None;
            }
            (api.role, Via::ApiToken(String::from(claims.jti)))
        } else {
            let user = state.user(claims.sub)?;
            if user.generation != claims.generation || loaded.revoked.contains(claims.jti) {
                return None;
            }
            let jti = String::from(claims.jti);
            let via = if in_cookie {
                Via::Cookie(jti)
            } else {
                Via::Session(jti)
            };
            (user.role, via)
        };
        Some(Principal {
            name: String::from(claims.sub),
            role: role.min(claims.role),
            via,
            expires: Some(claims.exp),
            generation: claims.generation,
        })
    }

    /// Whether what `who` showed a while ago is still good: for answers that go on for long.
    pub(crate) fn still_holds(&self, who: &Principal) -> bool {
        let loaded = self.current();
        let Ok(state) = loaded.state() else {
            return !matches!(who.via, Via::Session(_) | Via::Cookie(_) | Via::ApiToken(_));
        };
        let in_time = who.expires.is_none_or(|expires| expires > now());
        in_time
            && match &who.via {
                Via::Nothing | Via::LocalSocket | Via::Certificate => true,
                Via::ApiToken(jti) => state.tokens.iter().any(|api| api.jti == *jti),
                Via::Session(jti) | Via::Cookie(jti) => {
                    let user = state.user(&who.name);
                    user.is_some_and(|user| user.generation == who.generation)
                        && !loaded.revoked.contains(jti)
                }
            }
    }

    /// Begins an attempt with a password or a code.
    ///
    /// # Errors
    /// [`AuthError::Delayed`] to somebody who guesses.
    pub(crate) fn attempt(&self, from: Source, name: Option<&str>) -> Result<Attempt, AuthError> {
        // Nobody has such a name: it is not remembered, whatever it may be.
        let name = name.filter(|name| check_name(name).is_ok());
        self.guessing
            .begin(from, name, Instant::now())
            .map_err(|delay| {
                self.counters.delayed.add();
                AuthError::Delayed(delay)
            })
    }

    /// Looks at a password. Hashes, whether there is such a user or not.
    ///
    /// # Errors
    /// [`AuthError::Refused`], or [`AuthError::Closed`].
    pub(crate) fn log_in(
        &self,
        name: &str,
        password: &Password,
        attempt: Attempt,
        from: Source,
    ) -> Result<Session, AuthError> {
        let loaded = self.current();
        let user = self.check_password(loaded.state()?, name, password, attempt, from, "log-in")?;
        self.rehash(user, password);
        let session = self.issue(&loaded, user, now())?;
        audit::record(name, "log-in", "", &from, Ok(()));
        Ok(session)
    }

    fn check_password<'s>(
        &self,
        state: &'s State,
        name: &str,
        password: &Password,
        attempt: Attempt,
        from: Source,
        what: &str,
    ) -> Result<&'s User, AuthError> {
        let user = state.user(name);
        let hash = user.and_then(|user| password::parse(&user.hash).ok());
        match user {
            Some(user) if password.matches(hash.as_ref()) => {
                attempt.succeeded();
                self.counters.ok.add();
                Ok(user)
            }
            _ => {
                if user.is_none() {
                    password.matches(None);
                }
                attempt.failed();
                self.counters.refused.add();
                let who = user.map_or(UNKNOWN, |user| &user.name);
                audit::record(who, what, "", &from, Err("refused: wrong name or password"));
                Err(AuthError::Refused)
            }
        }
    }

    /// Makes a hash as strong as new ones are.
    fn rehash(&self, user: &User, password: &Password) {
        let weaker = password::parse(&user.hash).is_ok_and(|hash| password::is_weaker(&hash));
        if !weaker {
            return;
        }
        let rehashed = password
            .hash()
            .map_err(AuthError::Internal)
            .and_then(|new| {
                self.change(|state| {
                    state.rehash(&user.name, &user.hash, &new);
                    Ok(())
                })
            });
        if let Err(error) = rehashed {
            log::warn!(target: "edgeweb::auth", "the hash of {} stays weaker than new ones: {error}", user.name);
        }
    }

    /// A new session for `user`, as `loaded` has them.
    fn issue(&self, loaded: &Loaded, user: &User, now: u64) -> Result<Session, AuthError> {
        let expires_in = self.session_seconds();
        let jti = random::name::<16>().map_err(AuthError::Internal)?;
        let state = loaded.state()?;
        let kept = loaded.keys.last().filter(|_| now >= CLOCK_IS_SET);
        let expires = now + expires_in;
        let token = kept.unwrap_or(&self.volatile).sign(&Claims {
            iss: ISSUER,
            aud: &state.device,
            sub: &user.name,
            role: user.role,
            iat: now,
            nbf: now,
            exp: expires,
            jti: &jti,
            generation: user.generation,
        });
        Ok(Session {
            token,
            username: user.name.clone(),
            role: user.role,
            expires,
            expires_in,
        })
    }

    /// Whether the device can be claimed.
    pub(crate) fn can_be_claimed(&self) -> bool {
        let nobody = self
            .current()
            .state()
            .is_ok_and(|state| state.users.is_empty());
        let mut claim = lock(&self.claim);
        if !nobody {
            *claim = None;
        }
        claim
            .as_ref()
            .is_some_and(|claim| claim.is_open(Instant::now()))
    }

    /// Makes the first administrator. Hashes.
    ///
    /// # Errors
    /// [`AuthError::ClaimClosed`], [`AuthError::WrongCode`], what is wrong with name or password (the code stays
    /// good then), or why nothing can be kept.
    pub(crate) fn claim(
        &self,
        code: &str,
        name: &str,
        password: &Password,
        attempt: Attempt,
        from: Source,
    ) -> Result<Session, AuthError> {
        self.current().state()?;
        if !self.can_be_claimed() {
            return Err(AuthError::ClaimClosed);
        }
        let tried = lock(&self.claim)
            .as_mut()
            .map_or(Tried::Ended, |claim| claim.try_code(code, Instant::now()));
        if tried != Tried::Right {
            attempt.failed();
            self.counters.refused.add();
            audit::record(
                UNKNOWN,
                "claim",
                "the device",
                &from,
                Err("refused: wrong code"),
            );
            if tried == Tried::Ended {
                log::warn!(target: "edgeweb::auth", "the claim code has ended: too many wrong ones; a restart makes another");
            }
            return Err(AuthError::WrongCode);
        }
        check_name(name)?;
        password.check(name)?;
        let hash = password.hash().map_err(AuthError::Internal)?;
        self.change(|state| {
            if state.users.is_empty() {
                state.add_user(name, Role::Admin, hash, now())
            } else {
                Err(AuthError::ClaimClosed)
            }
        })?;
        *lock(&self.claim) = None;
        attempt.succeeded();
        self.counters.ok.add();
        audit::record(name, "claim", "the device", &from, Ok(()));
        self.issue_anew(name)
    }

    fn issue_anew(&self, name: &str) -> Result<Session, AuthError> {
        let loaded = self.current();
        let user = loaded.state()?.user(name).ok_or(AuthError::NoSuchUser)?;
        self.issue(&loaded, user, now())
    }

    /// Ends the session of `who`.
    ///
    /// # Errors
    /// [`AuthError::NotASession`], or why it cannot be kept.
    pub(crate) fn log_out(&self, who: &Principal, from: Source) -> Result<(), AuthError> {
        let (Via::Session(jti) | Via::Cookie(jti)) = &who.via else {
            return Err(AuthError::NotASession);
        };
        let expires = who.expires.unwrap_or(u64::MAX);
        self.change(|state| {
            state.revoke(&who.name, jti, expires, now());
            Ok(())
        })?;
        audit::record(&who.name, "log-out", "", &from, Ok(()));
        Ok(())
    }

    /// Gives `who` another password, which ends all of their sessions, and a new session. Hashes twice.
    ///
    /// # Errors
    /// [`AuthError::Refused`] when the old one is wrong, [`AuthError::Password`] when the new one is none.
    pub(crate) fn change_password(
        &self,
        who: &Principal,
        old: &Password,
        new: &Password,
        attempt: Attempt,
        from: Source,
    ) -> Result<Session, AuthError> {
        const WHAT: &str = "new password for";
        let name = &who.name;
        if !matches!(who.via, Via::Session(_) | Via::Cookie(_)) {
            return Err(AuthError::NotASession);
        }
        let loaded = self.current();
        self.check_password(loaded.state()?, name, old, attempt, from, WHAT)?;
        new.check(name)?;
        let hash = new.hash().map_err(AuthError::Internal)?;
        self.change(|state| state.set_hash(name, hash, now()))?;
        audit::record(name, WHAT, name, &from, Ok(()));
        self.issue_anew(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use std::path::{Path, PathBuf};
    use std::sync::Arc;

    const LOCAL: Source = Source {
        address: None,
        private: true,
    };
    const TODAY: u64 = 1_800_000_000;

    /// A directory that is gone with the test.
    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Self {
            let name = format!("edgeweb-session-{name}-{}", std::process::id());
            let path = std::env::temp_dir().join(name);
            let _ = std::fs::remove_dir_all(&path);
            Self(path)
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn open(state: &Path) -> Auth {
        let mut config = Config::default();
        config.server.state_dir = state.to_owned();
        config.auth.provisioned_users = state.join("no users");
        Auth::open(&config).unwrap()
    }

    fn claim(auth: &Auth) -> Result<Session, AuthError> {
        let code = auth.claim_code().unwrap_or_default();
        let password = Password::from(String::from("correct horse"));
        auth.claim(&code, "ann", &password, auth.attempt(LOCAL, None)?, LOCAL)
    }

    #[test]
    fn what_cannot_be_kept_is_not_claimed() {
        // Not even root makes a directory there.
        let auth = open(Path::new("/proc/edgeweb-state"));
        let error = claim(&auth).unwrap_err();
        assert!(matches!(error, AuthError::File { .. }), "{error}");
        assert!(
            error
                .to_string()
                .starts_with("/proc/edgeweb-state: cannot be made: ")
        );
        assert!(auth.can_be_claimed(), "the code is still good");
        let auth = open(Path::new("/dev/null/state"));
        assert!(!auth.can_be_claimed());
        assert!(matches!(claim(&auth), Err(AuthError::Closed(_))));
    }

    #[test]
    fn a_token_made_before_the_clock_was_set_ends_with_the_process() {
        let dir = Dir::new("clock");
        let auth = open(&dir.0);
        claim(&auth).unwrap();
        let again = open(&dir.0);
        let issue = |now| {
            let loaded: Arc<Loaded> = auth.current();
            let user = loaded.state().unwrap().user("ann").unwrap();
            auth.issue(&loaded, user, now).unwrap().token
        };
        let early = issue(1000);
        assert!(auth.find(&early, false, 1000).is_some());
        assert!(
            auth.find(&early, false, TODAY).is_none(),
            "its time is over"
        );
        assert!(again.find(&early, false, 1000).is_none());
        let late = issue(TODAY);
        assert!(auth.find(&late, false, TODAY).is_some());
        assert!(again.find(&late, false, TODAY).is_some());
        assert!(again.find(&late, false, 1000).is_none(), "not yet");
    }

    #[test]
    fn a_token_made_before_the_clock_was_set_ends_with_all_others() {
        let dir = Dir::new("volatile");
        let auth = open(&dir.0);
        claim(&auth).unwrap();
        let issue = || {
            let loaded = auth.current();
            let user = loaded.state().unwrap().user("ann").unwrap();
            auth.issue(&loaded, user, 1000).unwrap().token
        };
        let (kept, ended) = (issue(), issue());
        let who = auth.find(&ended, false, 1000).unwrap();
        auth.log_out(&who, LOCAL).unwrap();
        let who = auth.find(&kept, false, 1000).unwrap();
        auth.rotate_key(&who, LOCAL, true).unwrap();
        for token in [kept, ended] {
            assert!(auth.find(&token, false, 1000).is_none(), "a new key");
        }
        let last = issue();
        assert!(auth.find(&last, false, 1000).is_some());
        std::fs::write(dir.0.join("auth.json"), "damaged").unwrap();
        assert!(auth.find(&last, false, 1000).is_none(), "an older copy");
    }

    #[test]
    fn a_clock_that_is_set_back_revives_no_session() {
        let dir = Dir::new("revived");
        let auth = open(&dir.0);
        claim(&auth).unwrap();
        let loaded = auth.current();
        let user = loaded.state().unwrap().user("ann").unwrap();
        // It ended long ago by the clock as it is when the log-out is written down.
        let now = now() - 100 * 3600;
        let token = auth.issue(&loaded, user, now).unwrap().token;
        let who = auth.find(&token, false, now).unwrap();
        auth.log_out(&who, LOCAL).unwrap();
        assert!(auth.find(&token, false, now).is_none());
        assert!(open(&dir.0).find(&token, false, now).is_none());
    }

    #[test]
    fn another_devices_token_is_none_here() {
        let (one, other) = (Dir::new("one"), Dir::new("other"));
        let (auth, stranger) = (open(&one.0), open(&other.0));
        let token = claim(&auth).unwrap().token;
        claim(&stranger).unwrap();
        assert!(auth.verify(&token, false).is_some());
        assert!(stranger.verify(&token, false).is_none());
    }

    #[test]
    fn a_user_made_while_the_password_is_hashed_is_not_joined_by_another_administrator() {
        let (here, elsewhere) = (Dir::new("here"), Dir::new("elsewhere"));
        claim(&open(&elsewhere.0)).unwrap();
        let auth = open(&here.0);
        std::fs::create_dir_all(&here.0).unwrap();
        let lock = std::fs::File::create(here.0.join("auth.lock")).unwrap();
        lock.lock().unwrap();
        std::thread::scope(|scope| {
            let claim = scope.spawn(|| claim(&auth));
            // Until it has looked whether somebody exists, and waits to write.
            std::thread::sleep(std::time::Duration::from_secs(1));
            std::fs::copy(elsewhere.0.join("auth.json"), here.0.join("auth.json")).unwrap();
            lock.unlock().unwrap();
            assert!(matches!(claim.join().unwrap(), Err(AuthError::ClaimClosed)));
        });
        assert_eq!(auth.user_count(), 1);
    }
}
