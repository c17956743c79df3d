//! Who is asking and what they may do. Knows nothing of HTTP.
//!
//! What is kept stands in one file ([`store`]), which the service and the `edgeweb user` command both change.
//! Everything here blocks for as long as a file takes, and some of it for as long as a hash does:
//! [`Hashing::run`] is where to do that.

mod accounts;
pub(crate) mod audit;
mod claim;
mod error;
mod guessing;
mod hashing;
mod metrics;
mod password;
#[cfg(feature = "policy")]
pub(crate) mod policy;
mod principal;
mod provisioned;
mod random;
mod role;
mod session;
mod source;
mod state;
mod store;
mod token;
mod user_file;

pub(crate) use accounts::{ApiTokenEntry, End, NewApiToken};
pub use error::AuthError;
pub(crate) use error::seconds;
pub(crate) use hashing::Hashing;
pub use password::{Password, PasswordError};
pub use principal::{Principal, Via};
pub use role::Role;
pub(crate) use session::Session;
pub(crate) use source::Source;
#[cfg(fuzzing)]
pub(crate) use token::{fuzz_claims, fuzz_token};
pub use user_file::{UserEntry, UserFile};

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use crate::config::Config;
use claim::Claim;
use guessing::Guessing;
use metrics::Counters;
use state::State;
use store::{Found, Stamp, Store, WhenLost};
use token::Key;

/// 2025-01-01. A clock that says less has not been set since the device was switched on.
const CLOCK_IS_SET: u64 = 1_735_689_600;

/// Users, tokens and everything else that says who somebody is. Lives as long as the service.
pub(crate) struct Auth {
    store: Store,
    loaded: RwLock<Arc<Loaded>>,
    /// Held while the file is read again.
    loading: Mutex<()>,
    /// Signs while the clock is not set: a device that is always switched on in 1970 would take a token of then
    /// for good every day. It ends with the process.
    volatile: Key,
    guessing: Guessing,
    claim: Mutex<Option<Claim>>,
    hashing: Hashing,
    session_seconds: AtomicU64,
    counters: Counters,
}

/// What the file says, in the form in which it is asked.
struct Loaded {
    stamp: Stamp,
    /// Nobody can be told from anybody else when there is no state; why.
    state: Result<State, String>,
    keys: Vec<Key>,
    revoked: HashSet<String>,
}

impl Loaded {
    fn new(stamp: Stamp, state: Result<State, String>) -> Self {
        let known = state.as_ref().ok();
        let keys = known.map(|state| {
            state
                .keys
                .iter()
                .filter_map(state::StoredKey::key)
                .collect()
        });
        let revoked = known.map(|state| state.revoked.iter().map(|r| r.jti.clone()).collect());
        Self {
            stamp,
            keys: keys.unwrap_or_default(),
            revoked: revoked.unwrap_or_default(),
            state,
        }
    }

    fn state(&self) -> Result<&State, AuthError> {
        self.state
            .as_ref()
            .map_err(|reason| AuthError::Closed(reason.clone()))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Seconds since 1970 by the device's clock, which may be wrong.
fn now() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs())
}

impl Auth {
    /// Reads what is known. When nobody exists, a claim code is made; damage is mended, or said in the log:
    /// the service goes on without anybody who can log in.
    ///
    /// # Errors
    /// [`AuthError::Internal`] when there are no random numbers.
    pub(crate) fn open(config: &Config) -> Result<Self, AuthError> {
        let store = Store::new(&config.server.state_dir, |level, line| {
            log::log!(target: "edgeweb::auth", level, "{line}");
        });
        let loaded = Loaded::new(Stamp::None, Ok(State::default()));
        let kid = random::hex::<8>().map_err(AuthError::Internal)?;
        let secret = random::bytes().map_err(AuthError::Internal)?;
        let auth = Self {
            store,
            loaded: RwLock::new(Arc::new(loaded)),
            loading: Mutex::new(()),
            volatile: Key::new(&kid, &secret),
            guessing: Guessing::new(),
            claim: Mutex::new(None),
            hashing: Hashing::new(),
            session_seconds: AtomicU64::new(session_seconds(config)),
            counters: Counters::default(),
        };
        auth.provision(config);
        auth.read_file();
        auth.open_claim(config)?;
        Ok(auth)
    }

    /// Takes up a new configuration. An error leaves the old one in force.
    pub(crate) fn reconfigure(&self, config: &Config) -> Result<(), AuthError> {
        if config.server.state_dir != self.store.directory() {
            return Err(AuthError::StateDir);
        }
        self.session_seconds
            .store(session_seconds(config), Ordering::Relaxed);
        Ok(())
    }

    /// Takes over the maker's users, if this is the first start.
    fn provision(&self, config: &Config) {
        if !matches!(self.store.read(), Ok(Found::Nothing)) {
            return;
        }
        let path = &config.auth.provisioned_users;
        let taken = provisioned::read(path, now()).and_then(|state| {
            let Some(state) = state else { return Ok(0) };
            self.store
                .change(WhenLost::Refuse, |kept| {
                    // Somebody may have run edgeweb user add since.
                    if !kept.users.is_empty() {
                        return Ok(0);
                    }
                    kept.users = state.users;
                    Ok(kept.users.len())
                })
                .map(|(count, ..)| count)
                .map_err(|error| error.to_string())
        });
        match taken {
            Ok(0) => {}
            Ok(count) => {
                let path = path.display().to_string();
                audit::record(
                    "the maker",
                    "provisioned users from",
                    &path,
                    &"the image",
                    Ok(()),
                );
                log::info!(target: "edgeweb::auth", "{count} users taken over from {path}");
            }
            Err(reason) => log::error!(
                target: "edgeweb::auth",
                "{reason}; nobody can log in, and the device cannot be claimed, until it is mended and the service \
                 started again, or edgeweb user add has made a user"
            ),
        }
    }

    /// Makes a claim code, if nobody exists and nothing is wrong.
    fn open_claim(&self, config: &Config) -> Result<(), AuthError> {
        let nobody = self
            .current()
            .state()
            .is_ok_and(|state| state.users.is_empty());
        // A file of the maker's that is there has users in it, or something is wrong with it.
        let is_first = matches!(self.store.read(), Ok(Found::Nothing));
        let provisioned = is_first
            && !matches!(
                provisioned::read(&config.auth.provisioned_users, now()),
                Ok(None)
            );
        if !nobody || provisioned {
            return Ok(());
        }
        let minutes = config.auth.claim_minutes;
        let lasts = Duration::from_secs(minutes * 60);
        let claim = Claim::new(lasts, Instant::now()).map_err(AuthError::Internal)?;
        log::info!(
            target: "edgeweb::auth", severity = "notice";
            "claim code: {}; it makes the first administrator, within {minutes} minutes",
            claim.code()
        );
        *lock(&self.claim) = Some(claim);
        Ok(())
    }

    /// The code that makes the first administrator, while it is good.
    pub(crate) fn claim_code(&self) -> Option<String> {
        let claim = lock(&self.claim);
        let open = claim.as_ref().filter(|claim| claim.is_open(Instant::now()));
        open.map(|claim| String::from(claim.code()))
    }

    /// Where passwords are hashed.
    pub(crate) fn hashing(&self) -> &Hashing {
        &self.hashing
    }

    /// How long a session lasts.
    fn session_seconds(&self) -> u64 {
        self.session_seconds.load(Ordering::Relaxed)
    }

    fn user_count(&self) -> usize {
        self.current().state().map_or(0, |state| state.users.len())
    }

    /// What is known now. Costs one system call, unless another program has changed the file.
    fn current(&self) -> Arc<Loaded> {
        let loaded = self.cached();
        if loaded.stamp == self.store.stamp() {
            loaded
        } else {
            self.read_file()
        }
    }

    fn cached(&self) -> Arc<Loaded> {
        Arc::clone(&self.loaded.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn keep(&self, loaded: Loaded) -> Arc<Loaded> {
        let loaded = Arc::new(loaded);
        *self.loaded.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&loaded);
        loaded
    }

    /// Reads the file, and mends it if it is damaged.
    fn read_file(&self) -> Arc<Loaded> {
        let _loading = lock(&self.loading);
        // Before it is read: what changes meanwhile is read again.
        let mut stamp = self.store.stamp();
        let cached = self.cached();
        if cached.stamp == stamp {
            return cached;
        }
        let state = match self.store.read() {
            Ok(Found::Nothing) => Ok(State::default()),
            Ok(Found::Good(state)) => Ok(state),
            Ok(Found::Previous(..)) => {
                let mended = self.store.change(WhenLost::Refuse, |_| Ok(()));
                let mended = mended.inspect(|(_, _, mended)| stamp = *mended);
                mended
                    .map(|(_, state, _)| state)
                    .map_err(|error| error.to_string())
            }
            Ok(Found::Bad(reason)) => Err(format!("{}: {reason}", self.store.file().display())),
            Err(error) => Err(error.to_string()),
        };
        if let Err(reason) = &state {
            log::error!(
                target: "edgeweb::auth",
                "{reason}; nobody can log in over the network until edgeweb user add has been run on the device, or \
                 the file is mended"
            );
        }
        self.keep(Loaded::new(stamp, state))
    }

    /// Changes what is kept, on the storage and here.
    fn change<T>(
        &self,
        change: impl FnOnce(&mut State) -> Result<T, AuthError>,
    ) -> Result<T, AuthError> {
        let _loading = lock(&self.loading);
        let (result, state, stamp) = self.store.change(WhenLost::Refuse, change)?;
        self.keep(Loaded::new(stamp, Ok(state)));
        Ok(result)
    }
}

fn session_seconds(config: &Config) -> u64 {
    config.auth.token_hours * 3600
}
