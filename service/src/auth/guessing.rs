//! Who guesses waits: a delay for each address and each account that grows with every failure.
//!
//! An attempt counts as a failure from its beginning, until it is known to be none: attempts at the same time
//! get no more guesses than attempts one after the other. One that comes during the delay is not looked at and
//! does not make it longer. The delay of an account is short. At an address from which its owner has logged in, only
//! what went wrong with that account from there counts: somebody else's guesses, from the same network too, never
//! lock the owner out, and whoever has an account does not pay for guesses at another with log-ins to their own.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Source;

/// Failures without a delay.
const FREE: u32 = 5;
/// The longest delays.
const MAX_ADDRESS_DELAY: Duration = Duration::from_secs(300);
const MAX_ACCOUNT_DELAY: Duration = Duration::from_secs(30);
/// How long after the last failure it is forgotten.
const MEMORY: Duration = Duration::from_secs(15 * 60);
/// Entries of each table.
const MAX_ENTRIES: usize = 1024;
/// Addresses of which it is remembered that an account's owner logged in from there, and such accounts.
const MAX_KNOWN: usize = 4;
const MAX_OWNERS: usize = 64;
/// The least time between two lines in the log.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// An IPv4 address, or the part of an IPv6 address that names a network: one client has a /64 to itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Address {
    V4([u8; 4]),
    V6([u8; 8]),
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.octets()),
            IpAddr::V6(address) => {
                let mut network = [0; 8];
                network.copy_from_slice(&address.octets()[..8]);
                Self::V6(network)
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    failures: u32,
    last: Instant,
    /// When the next attempt is looked at.
    until: Instant,
}

/// Failures by whom they are held against.
struct Table<K> {
    entries: HashMap<K, Entry>,
    max_delay: Duration,
}

impl<K: Eq + Hash + Clone> Table<K> {
    fn new(max_delay: Duration) -> Self {
        Self {
            entries: HashMap::new(),
            max_delay,
        }
    }

    /// How long it still is until the next attempt.
    fn delay(&mut self, key: &K, now: Instant) -> Duration {
        match self.entries.get(key) {
            Some(entry) if now.saturating_duration_since(entry.last) >= MEMORY => {
                self.entries.remove(key);
                Duration::ZERO
            }
            Some(entry) => entry.until.saturating_duration_since(now),
            None => Duration::ZERO,
        }
    }

    fn failed(&mut self, key: &K, now: Instant) {
        if !self.entries.contains_key(key) {
            self.make_room(now);
        }
        let entry = self.entries.entry(key.clone()).or_insert(Entry {
            failures: 0,
            last: now,
            until: now,
        });
        entry.failures = entry.failures.saturating_add(1);
        entry.last = now;
        entry.until = now + delay_after(entry.failures, self.max_delay);
    }

    /// The failure was none.
    fn undo(&mut self, key: &K) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.failures = entry.failures.saturating_sub(1);
            if entry.failures == 0 {
                self.entries.remove(key);
            } else {
                entry.until = entry.last + delay_after(entry.failures, self.max_delay);
            }
        }
    }

    /// Forgets the one whose delay ends first, if there is no room for another.
    fn make_room(&mut self, now: Instant) {
        if self.entries.len() < MAX_ENTRIES {
            return;
        }
        self.entries
            .retain(|_, entry| now.saturating_duration_since(entry.last) < MEMORY);
        if self.entries.len() >= MAX_ENTRIES {
            let first = self.entries.iter().min_by_key(|(_, entry)| entry.until);
            if let Some(key) = first.map(|(key, _)| key.clone()) {
                self.entries.remove(&key);
            }
        }
    }
}

fn delay_after(failures: u32, most: Duration) -> Duration {
    match failures.checked_sub(FREE) {
        None => Duration::ZERO,
        Some(beyond) => Duration::from_secs(1 << beyond.min(16)).min(most),
    }
}

/// An account at one of the addresses from which its owner has logged in.
type Known = (String, IpAddr);

/// All tables, and who is known.
struct Tables {
    addresses: Table<Address>,
    accounts: Table<String>,
    owners: Table<Known>,
    /// The last addresses from which each account's owner logged in. A network is too much: others are in it.
    known: HashMap<String, VecDeque<IpAddr>>,
    logged: Option<Instant>,
    not_logged: u64,
}

impl Tables {
    fn is_known(&self, account: &str, address: IpAddr) -> bool {
        let known = self.known.get(account);
        known.is_some_and(|known| known.contains(&address))
    }

    /// How long it still is until the next attempt.
    fn delay(&mut self, held: &Held, now: Instant) -> Duration {
        match held {
            Held::Nothing => Duration::ZERO,
            Held::Owner(known) => self.owners.delay(known, now),
            Held::Stranger(address, account) => {
                let delay = self.addresses.delay(&Address::from(*address), now);
                let account = account.as_ref();
                delay.max(
                    account.map_or(Duration::ZERO, |account| self.accounts.delay(account, now)),
                )
            }
        }
    }

    fn failed(&mut self, held: &Held, now: Instant) {
        match held {
            Held::Nothing => {}
            Held::Owner(known) => self.owners.failed(known, now),
            Held::Stranger(address, account) => {
                self.addresses.failed(&Address::from(*address), now);
                if let Some(account) = account {
                    self.accounts.failed(account, now);
                }
            }
        }
    }

    /// The failure was none.
    fn undo(&mut self, held: &Held) {
        match held {
            Held::Nothing => {}
            Held::Owner(known) => self.owners.undo(known),
            Held::Stranger(address, account) => {
                self.addresses.undo(&Address::from(*address));
                if let Some(account) = account {
                    self.accounts.undo(account);
                }
            }
        }
    }

    /// It was the owner. Of an address only this attempt is forgotten: the others may have been at other accounts.
    fn succeeded(&mut self, held: &Held) {
        self.undo(held);
        let (account, address) = match held {
            Held::Owner((account, address)) | Held::Stranger(address, Some(account)) => {
                (account, *address)
            }
            Held::Nothing | Held::Stranger(_, None) => return,
        };
        self.accounts.entries.remove(account);
        self.owners.entries.remove(&(account.clone(), address));
        self.remember(account, address);
    }

    fn remember(&mut self, account: &str, address: IpAddr) {
        if !self.known.contains_key(account) && self.known.len() >= MAX_OWNERS {
            // More than there can be users: some of these are of users who have been removed.
            self.known.clear();
        }
        let known = self.known.entry(String::from(account)).or_default();
        known.retain(|other| *other != address);
        known.push_back(address);
        if known.len() > MAX_KNOWN {
            known.pop_front();
        }
    }

    /// Says in the log that somebody guesses, now and then.
    fn log(&mut self, from: Source, delay: Duration, now: Instant) {
        self.not_logged += 1;
        let is_time = |logged| now.saturating_duration_since(logged) >= LOG_INTERVAL;
        if self.logged.is_none_or(is_time) {
            self.logged = Some(now);
            let times = std::mem::take(&mut self.not_logged);
            log::warn!(
                target: "edgeweb::auth",
                "{from}: too many wrong passwords or codes, nothing is looked at for {} s ({times} attempts refused \
                 since the last such line)",
                delay.as_secs().max(1)
            );
        }
    }
}

/// All that is known of failures.
#[derive(Clone)]
pub(super) struct Guessing(Arc<Mutex<Tables>>);

/// What a failure is held against.
enum Held {
    /// Nothing: it is the device itself.
    Nothing,
    Owner(Known),
    Stranger(IpAddr, Option<String>),
}

/// An attempt of which it is not known yet what it is. Dropped, it was none.
pub(crate) struct Attempt {
    guessing: Guessing,
    held: Held,
    judged: bool,
}

impl Guessing {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Tables {
            addresses: Table::new(MAX_ADDRESS_DELAY),
            accounts: Table::new(MAX_ACCOUNT_DELAY),
            owners: Table::new(MAX_ADDRESS_DELAY),
            known: HashMap::new(),
            logged: None,
            not_logged: 0,
        })))
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins an attempt. The device itself is not kept waiting.
    ///
    /// # Errors
    /// How long to wait instead.
    pub(super) fn begin(
        &self,
        from: Source,
        account: Option<&str>,
        now: Instant,
    ) -> Result<Attempt, Duration> {
        let mut tables = self.tables();
        let held = match (from.address.map(|address| address.to_canonical()), account) {
            (None, _) => Held::Nothing,
            (Some(address), Some(account)) if tables.is_known(account, address) => {
                Held::Owner((String::from(account), address))
            }
            (Some(address), account) => Held::Stranger(address, account.map(String::from)),
        };
        let delay = tables.delay(&held, now);
        if !delay.is_zero() {
            tables.log(from, delay, now);
            return Err(delay);
        }
        tables.failed(&held, now);
        drop(tables);
        Ok(Attempt {
            guessing: self.clone(),
            held,
            judged: false,
        })
    }
}

impl Attempt {
    /// The password or the code was wrong.
    pub(super) fn failed(mut self) {
        self.judged = true;
    }

    /// It was right: what was held against the account is forgotten.
    pub(super) fn succeeded(mut self) {
        self.judged = true;
        self.guessing.tables().succeeded(&self.held);
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if !self.judged {
            self.guessing.tables().undo(&self.held);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(address: &str) -> Source {
        Source {
            address: Some(address.parse().unwrap()),
            private: true,
        }
    }

    /// One wrong attempt; whether it was looked at.
    fn fail(guessing: &Guessing, address: &str, account: &str, now: Instant) -> Result<(), u64> {
        guessing
            .begin(from(address), Some(account), now)
            .map(Attempt::failed)
            .map_err(|delay| delay.as_secs())
    }

    fn succeed(guessing: &Guessing, address: &str, account: &str, now: Instant) -> bool {
        let attempt = guessing.begin(from(address), Some(account), now);
        attempt.map(Attempt::succeeded).is_ok()
    }

    #[test]
    fn the_delay_of_an_address_doubles_up_to_five_minutes() {
        let guessing = Guessing::new();
        let mut now = Instant::now();
        for n in 0..FREE {
            assert_eq!(fail(&guessing, "192.0.2.1", &format!("u{n}"), now), Ok(()));
        }
        for (n, expected) in [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
            .into_iter()
            .enumerate()
        {
            assert_eq!(
                fail(&guessing, "192.0.2.1", &format!("v{n}"), now),
                Err(expected)
            );
            now += Duration::from_secs(expected) - Duration::from_millis(1);
            // Asking does not make it longer.
            assert_eq!(fail(&guessing, "192.0.2.1", &format!("w{n}"), now), Err(0));
            now += Duration::from_millis(1);
            assert_eq!(fail(&guessing, "192.0.2.1", &format!("x{n}"), now), Ok(()));
        }
        assert!(
            fail(&guessing, "192.0.2.2", "ann", now).is_ok(),
            "another address"
        );
        // A quarter of an hour later nothing is known.
        now += MEMORY;
        for n in 0..FREE {
            assert_eq!(fail(&guessing, "192.0.2.1", &format!("y{n}"), now), Ok(()));
        }
        assert!(fail(&guessing, "192.0.2.1", "z", now).is_err());
    }

    #[test]
    fn the_delay_of_an_account_is_half_a_minute_at_most_and_not_its_owners() {
        let guessing = Guessing::new();
        let mut now = Instant::now();
        assert!(succeed(&guessing, "192.0.2.9", "ann", now));
        for n in 0..40 {
            let address = format!("198.51.100.{n}");
            while let Err(delay) = fail(&guessing, &address, "ann", now) {
                assert!(delay <= 30);
                now += Duration::from_secs(delay.max(1));
            }
        }
        assert_eq!(fail(&guessing, "203.0.113.1", "ann", now), Err(30));
        assert!(
            succeed(&guessing, "192.0.2.9", "ann", now),
            "the owner's address"
        );
        assert!(
            succeed(&guessing, "203.0.113.1", "ann", now),
            "success clears"
        );
    }

    #[test]
    fn an_owner_does_not_wait_for_others_of_their_network() {
        let guessing = Guessing::new();
        let now = Instant::now();
        assert!(succeed(&guessing, "2001:db8::1", "ann", now));
        for n in 0..9 {
            let _ = fail(&guessing, "2001:db8::2", &format!("u{n}"), now);
            let _ = fail(&guessing, "2001:db8::2", "ann", now);
        }
        assert!(fail(&guessing, "2001:db8::2", "bob", now).is_err());
        assert!(succeed(&guessing, "2001:db8::1", "ann", now));
        // Guesses at the owner's own address are not free either.
        for _ in 0..FREE {
            assert!(fail(&guessing, "2001:db8::1", "ann", now).is_ok());
        }
        assert_eq!(fail(&guessing, "2001:db8::1", "ann", now), Err(1));
    }

    #[test]
    fn a_log_in_to_ones_own_account_pays_for_no_guesses_at_others() {
        let guessing = Guessing::new();
        let now = Instant::now();
        // Both come from here, by way of a translation of addresses.
        assert!(succeed(&guessing, "192.0.2.1", "ann", now));
        for account in ["ann", "bob"] {
            let guesses = (0..20).filter(|_| {
                let _ = guessing
                    .begin(from("192.0.2.1"), Some("eve"), now)
                    .map(Attempt::succeeded);
                fail(&guessing, "192.0.2.1", account, now).is_ok()
            });
            assert_eq!(guesses.count(), FREE as usize, "{account}");
        }
    }

    #[test]
    fn an_owner_is_known_at_the_last_four_addresses() {
        let guessing = Guessing::new();
        let now = Instant::now();
        for n in 0..=MAX_KNOWN {
            assert!(succeed(&guessing, &format!("192.0.2.{n}"), "ann", now));
        }
        for n in 0..9 {
            let _ = fail(&guessing, &format!("198.51.100.{n}"), "ann", now);
        }
        assert!(
            fail(&guessing, "192.0.2.0", "ann", now).is_err(),
            "the oldest is forgotten"
        );
        assert!(succeed(&guessing, "192.0.2.1", "ann", now));
    }

    #[test]
    fn attempts_at_the_same_time_are_no_more_than_attempts_one_after_the_other() {
        let guessing = Guessing::new();
        let now = Instant::now();
        let attempts: Vec<_> = (0..20)
            .filter_map(|_| guessing.begin(from("192.0.2.1"), Some("ann"), now).ok())
            .collect();
        assert_eq!(attempts.len(), FREE as usize);
        // They came to nothing, the device was too busy to look at them.
        drop(attempts);
        assert!(fail(&guessing, "192.0.2.1", "ann", now).is_ok());
    }

    #[test]
    fn a_network_of_ipv6_is_one_address_and_a_mapped_address_is_what_it_maps() {
        let guessing = Guessing::new();
        let now = Instant::now();
        for n in 0..FREE {
            assert!(fail(&guessing, &format!("2001:db8::{n}"), &format!("u{n}"), now).is_ok());
            assert!(
                fail(
                    &guessing,
                    &format!("::ffff:192.0.2.{}", 1),
                    &format!("v{n}"),
                    now
                )
                .is_ok()
            );
        }
        assert!(fail(&guessing, "2001:db8::ffff", "x", now).is_err());
        assert!(fail(&guessing, "2001:db8:0:1::1", "x", now).is_ok());
        assert!(fail(&guessing, "192.0.2.1", "y", now).is_err());
    }

    #[test]
    fn the_tables_stay_small_and_keep_those_who_wait_longest() {
        let guessing = Guessing::new();
        let now = Instant::now();
        let mut at = now;
        for _ in 0..12 {
            while fail(&guessing, "192.0.2.1", "ann", at).is_err() {
                at += Duration::from_secs(1);
            }
        }
        for n in 0..3 * MAX_ENTRIES {
            let [.., high, low] = n.to_be_bytes();
            let _ = fail(
                &guessing,
                &format!("10.0.{high}.{low}"),
                &format!("u{n}"),
                at,
            );
        }
        let tables = guessing.tables();
        assert_eq!(tables.addresses.entries.len(), MAX_ENTRIES);
        assert_eq!(tables.accounts.entries.len(), MAX_ENTRIES);
        drop(tables);
        assert!(
            fail(&guessing, "192.0.2.1", "bob", at).is_err(),
            "still waits"
        );
    }

    #[test]
    fn the_device_itself_does_not_wait() {
        let guessing = Guessing::new();
        let local = Source {
            address: None,
            private: true,
        };
        for _ in 0..50 {
            guessing
                .begin(local, Some("ann"), Instant::now())
                .ok()
                .unwrap()
                .failed();
        }
        assert!(fail(&guessing, "192.0.2.1", "ann", Instant::now()).is_ok());
    }
}
