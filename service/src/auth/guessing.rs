//! Who guesses waits: a delay for each address and each account that grows with every failure.
//!
//! An attempt counts as a failure from its beginning, until it is known to be none: attempts at the same time
//! get no more guesses than attempts one after the other. One that comes during the delay is not looked at and
//! does not make it longer. The delay of an account is short, and does not hold for addresses from which its
//! owner has logged in: somebody else's guesses never lock the owner out.

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

/// Both tables, and who is known.
struct Tables {
    addresses: Table<Address>,
    accounts: Table<String>,
    /// The last addresses from which each account's owner logged in.
    known: HashMap<String, VecDeque<Address>>,
    logged: Option<Instant>,
    not_logged: u64,
}

impl Tables {
    fn is_known(&self, account: &str, address: Address) -> bool {
        let known = self.known.get(account);
        known.is_some_and(|known| known.contains(&address))
    }

    fn remember(&mut self, account: &str, address: Address) {
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

/// An attempt of which it is not known yet what it is. Dropped, it was none.
pub(crate) struct Attempt {
    guessing: Guessing,
    address: Option<Address>,
    account: Option<String>,
    judged: bool,
}

impl Guessing {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Tables {
            addresses: Table::new(MAX_ADDRESS_DELAY),
            accounts: Table::new(MAX_ACCOUNT_DELAY),
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
        let mut attempt = Attempt {
            guessing: self.clone(),
            address: from.address.map(Address::from),
            account: account.map(String::from),
            judged: false,
        };
        let Some(address) = attempt.address else {
            attempt.account = None;
            return Ok(attempt);
        };
        let mut tables = self.tables();
        let mut delay = tables.addresses.delay(&address, now);
        if let Some(account) = &attempt.account
            && !tables.is_known(account, address)
        {
            delay = delay.max(tables.accounts.delay(account, now));
        }
        if !delay.is_zero() {
            tables.log(from, delay, now);
            attempt.judged = true;
            return Err(delay);
        }
        tables.addresses.failed(&address, now);
        if let Some(account) = &attempt.account {
            tables.accounts.failed(account, now);
        }
        drop(tables);
        Ok(attempt)
    }
}

impl Attempt {
    /// The password or the code was wrong.
    pub(super) fn failed(mut self) {
        self.judged = true;
    }

    /// It was right: what was held against the address and the account is forgotten.
    pub(super) fn succeeded(mut self) {
        self.judged = true;
        if let Some(address) = self.address {
            let mut tables = self.guessing.tables();
            tables.addresses.entries.remove(&address);
            if let Some(account) = &self.account {
                tables.accounts.entries.remove(account);
                tables.remember(account, address);
            }
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if !self.judged
            && let Some(address) = self.address
        {
            let mut tables = self.guessing.tables();
            tables.addresses.undo(&address);
            if let Some(account) = &self.account {
                tables.accounts.undo(account);
            }
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
