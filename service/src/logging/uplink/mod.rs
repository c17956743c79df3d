//! Records on their way to a collector elsewhere: RFC 5424 over TLS, TCP or UDP.
//!
//! A thread sends what is in the journal from the place where it stopped, after a restart too, and what is
//! only in memory from a ring that is bounded in bytes, from which the oldest go first. Syslog has no
//! receipts, so what was under way when a connection broke is sent again: every record at least once.

mod back_off;
mod cursor;
mod delivery;
mod tls;
mod transport;

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::counters::{Counters, UplinkCounters};
use super::entry::{Entry, severity_of};
use super::journal::{Position, Reader};
use super::origin::Origin;
use super::record_ring::RecordRing;
use super::rfc5424::{self, Formatter, Identity};
use crate::config::{LogConfig, UplinkConfig};
use back_off::BackOff;
use cursor::Cursor;
use delivery::{Delivery, Place};
use transport::{Connection, Failure};

/// How much is sent from each source before the other has its turn, in bytes as the log holds them.
const TURN: usize = 16 * 1024;
/// How long an idle thread sleeps before it looks whether the collector is still there.
const LOOK: Duration = Duration::from_secs(1);
/// How long a first record waits for others, so that the network is not woken for each.
const GATHER: Duration = Duration::from_millis(100);
/// How long the end of the process waits for the collector.
const FLUSH_LIMIT: Duration = Duration::from_secs(2);
/// How long a new configuration waits for it.
const DROP_LIMIT: Duration = Duration::from_millis(500);
/// How often the log says that a collector which takes records takes too few.
const SAY_LOST: Duration = Duration::from_secs(60);
/// How long a journal that cannot be read is left alone.
const JOURNAL_PAUSE: Duration = Duration::from_secs(10);
/// TLS needs some; the kernel gives it as it is used.
const STACK: usize = 512 * 1024;

/// The thread, and what waits for it. Dropping it ends the thread.
pub(super) struct Uplink {
    shared: Arc<Shared>,
    config: LogConfig,
}

struct Shared {
    waiting: Mutex<Waiting>,
    /// Something came to be sent, the thread shall say goodbye, or it has.
    changed: Condvar,
    counters: Arc<Counters>,
}

/// What the log's thread and the uplink's own have between them. It is locked for moments only.
struct Waiting {
    records: RecordRing,
    /// How many records have been before the oldest in the ring.
    before: u64,
    /// Of all records, how many have been written to the connection of now.
    sent: u64,
    /// Of those before the ring's oldest, how many were dropped while they were under way.
    dropped_under_way: u64,
    /// The journal may have records that are not sent.
    journal_grew: bool,
    /// The thread sleeps until there is something to send.
    is_idle: bool,
    /// Until when the thread shall have sent everything and said goodbye.
    goodbye: Option<Instant>,
    /// After that it shall end.
    ending: bool,
    has_ended: bool,
}

impl Uplink {
    /// Starts the thread. `None` when the system has none to give; the log then goes without a collector.
    pub(super) fn start(
        config: &LogConfig,
        origin: Origin,
        counters: &Arc<Counters>,
    ) -> Option<Self> {
        let shared = Arc::new(Shared {
            waiting: Mutex::new(Waiting::new(config.uplink.buffer_bytes)),
            changed: Condvar::new(),
            counters: Arc::clone(counters),
        });
        let uplink = Self {
            shared: Arc::clone(&shared),
            config: config.clone(),
        };
        let config = config.clone();
        thread::Builder::new()
            .name(String::from("uplink"))
            .stack_size(STACK)
            .spawn(move || {
                // The log's own thread waits for this one when it ends.
                super::never_wait();
                let ended = Ended(Arc::clone(&shared));
                Worker::new(&config, origin, shared).run();
                drop(ended);
            })
            .ok()?;
        Some(uplink)
    }

    /// Whether records of the journal get to the collector from there, so that they need not be offered. Those
    /// that are sealed do not: they can be read by their recipient only.
    pub(super) fn reads_journal(&self) -> bool {
        self.config.journal.enabled && self.config.journal.recipient.is_empty()
    }

    /// Takes a record that is not in the journal. The oldest makes room for it; nothing is waited for.
    pub(super) fn offer(&self, record: &[u8]) {
        if severity_of(record) > self.config.uplink.severity {
            return;
        }
        let mut waiting = self.shared.lock();
        let dropped = waiting.push(record);
        self.shared.wake(waiting);
        self.shared.counters.uplink.dropped.add(dropped);
    }

    /// The journal has new records.
    pub(super) fn journal_grew(&self) {
        let mut waiting = self.shared.lock();
        waiting.journal_grew = true;
        self.shared.wake(waiting);
    }

    /// Whether this uplink does what `config` says, so that it may stay when another configuration comes.
    pub(super) fn is_for(&self, config: &LogConfig) -> bool {
        let (mine, other) = (&self.config, config);
        mine.uplink == other.uplink
            && mine.journal == other.journal
            && mine.syslog.facility == other.syslog.facility
            && mine.syslog.tag == other.syslog.tag
    }

    /// Sends what there is and says goodbye to the collector, who then is known to have it; waits for that,
    /// at most [`FLUSH_LIMIT`]. What comes later makes a new connection.
    pub(super) fn flush(&self) {
        self.say_goodbye(FLUSH_LIMIT);
    }

    fn say_goodbye(&self, limit: Duration) {
        let mut waiting = self.shared.lock();
        waiting.goodbye = Some(Instant::now() + limit);
        self.shared.changed.notify_all();
        // Too late is as good as done: what has not arrived is in the journal, or lost with the process.
        let _ = self
            .shared
            .changed
            .wait_timeout_while(waiting, limit, |waiting| {
                waiting.goodbye.is_some() && !waiting.has_ended
            });
    }
}

impl Drop for Uplink {
    fn drop(&mut self) {
        self.shared.lock().ending = true;
        self.say_goodbye(DROP_LIMIT);
    }
}

/// Says that the thread has ended, however it did.
struct Ended(Arc<Shared>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.lock().has_ended = true;
        self.0.changed.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the thread when it has nothing to do: one that is busy costs no system call for each record.
    fn wake(&self, mut waiting: MutexGuard<'_, Waiting>) {
        let is_idle = std::mem::take(&mut waiting.is_idle);
        drop(waiting);
        if is_idle {
            self.changed.notify_all();
        }
    }

    /// Sleeps until something came to be sent or goodbye shall be said, for `limit` at most.
    fn wait_for_records(&self, limit: Duration) {
        let (mut waiting, timeout) = self
            .changed
            .wait_timeout_while(self.lock(), limit, |waiting| {
                waiting.is_idle = true;
                waiting.goodbye.is_none() && !waiting.has_more()
            })
            .unwrap_or_else(PoisonError::into_inner);
        waiting.is_idle = false;
        drop(waiting);
        if !timeout.timed_out() {
            self.pause(GATHER);
        }
    }

    /// Sleeps for `limit`, or until goodbye shall be said.
    fn pause(&self, limit: Duration) {
        let _ = self
            .changed
            .wait_timeout_while(self.lock(), limit, |waiting| waiting.goodbye.is_none());
    }

    /// Goodbye has been said, or there was nobody to say it to. True when the thread shall end.
    fn said_goodbye(&self) -> bool {
        let mut waiting = self.lock();
        waiting.goodbye = None;
        self.changed.notify_all();
        waiting.ending
    }
}

impl Waiting {
    fn new(capacity: usize) -> Self {
        Self {
            records: RecordRing::new(capacity),
            before: 0,
            sent: 0,
            dropped_under_way: 0,
            journal_grew: true,
            is_idle: false,
            goodbye: None,
            ending: false,
            has_ended: false,
        }
    }

    fn has_more(&self) -> bool {
        self.journal_grew || self.sent < self.before + self.records.len() as u64
    }

    /// Says how many records were dropped without having been sent.
    fn push(&mut self, record: &[u8]) -> u64 {
        let mut dropped = 0;
        self.records.push(record, |_| dropped += 1);
        self.before += dropped;
        let unsent = self.before.saturating_sub(self.sent);
        self.sent += unsent;
        self.dropped_under_way += dropped - unsent;
        unsent
    }

    /// Copies what is not sent yet into `out`, about as many bytes as a turn has.
    fn take(&self, out: &mut RecordRing) {
        out.clear();
        let sent = (self.sent - self.before) as usize;
        for record in self.records.iter().skip(sent) {
            if !out.try_push(record) {
                break;
            }
        }
    }

    /// The collector has everything before `memory`.
    fn confirm(&mut self, memory: u64) {
        while self.before < memory && !self.records.is_empty() {
            self.records.drop_oldest();
            self.before += 1;
        }
        let still = self.before.saturating_sub(memory);
        self.dropped_under_way = self.dropped_under_way.min(still);
    }

    /// The connection is lost; what is here is to be sent again. Says how many records cannot be.
    fn rewind(&mut self) -> u64 {
        self.sent = self.before;
        std::mem::take(&mut self.dropped_under_way)
    }
}

/// The journal, as far as the thread has read it.
struct Journal {
    directory: PathBuf,
    reader: Reader,
    cursor: Cursor,
    /// Segments that went before they were sent, of which the log has been told.
    missed: u64,
    /// When it may be read again, after an error.
    resting: Option<Instant>,
    /// The furthest place that was ever sent.
    furthest: Option<Position>,
}

struct Worker {
    config: UplinkConfig,
    formatter: Formatter,
    origin: Origin,
    shared: Arc<Shared>,
    journal: Option<Journal>,
    delivery: Delivery,
    /// The places up to which both sources are written.
    place: Place,
    /// How many records from memory were ever sent.
    furthest: u64,
    sequence_id: u32,
    back_off: BackOff,
    /// Whether the connection of now, or the last one, has brought something to the collector.
    has_delivered: bool,
    /// What the log was told last, while nothing gets through.
    trouble: Option<String>,
    /// How many of the dropped records the log has been told of.
    told_dropped: u64,
    told_at: Instant,
    /// Used again and again.
    turn: RecordRing,
    message: Vec<u8>,
}

impl Worker {
    fn new(config: &LogConfig, origin: Origin, shared: Arc<Shared>) -> Self {
        let (syslog, journal) = (&config.syslog, &config.journal);
        let formatter = Formatter::new(syslog.facility, &syslog.tag, &rfc5424::hostname());
        let directory = journal.enabled.then(|| journal.directory.clone());
        let journal = directory.map(|directory| {
            let cursor = Cursor::load(&directory);
            Journal {
                reader: Reader::open(&directory, cursor.stored()),
                directory,
                cursor,
                missed: 0,
                resting: None,
                furthest: None,
            }
        });
        let start = Place {
            journal: journal.as_ref().and_then(|journal| journal.cursor.stored()),
            memory: 0,
        };
        Self {
            config: config.uplink.clone(),
            formatter,
            origin,
            journal,
            delivery: Delivery::new(start),
            place: start,
            furthest: 0,
            sequence_id: 0,
            back_off: BackOff::new(),
            has_delivered: false,
            trouble: None,
            told_dropped: shared.counters.uplink.dropped.get(),
            told_at: Instant::now(),
            turn: RecordRing::new(TURN),
            message: Vec::new(),
            shared,
        }
    }

    fn run(&mut self) {
        loop {
            self.counters().attempts.add(1);
            let end = match Connection::open(&self.config) {
                Ok(connection) => self.use_up(connection),
                Err(failure) => Err(failure),
            };
            let pause = match &end {
                Ok(()) => None,
                Err(failure) => {
                    self.say_failure(failure);
                    Some(self.back_off.next())
                }
            };
            if self.shared.lock().goodbye.is_some() {
                if let Some(journal) = &mut self.journal {
                    journal.cursor.store(self.delivery.confirmed().journal);
                }
                if self.shared.said_goodbye() {
                    return self.say_left_behind();
                }
            }
            match pause {
                Some(pause) => self.shared.pause(pause),
                // It has everything; what comes next is sent when it comes.
                None => self.shared.wait_for_records(Duration::MAX),
            }
        }
    }

    /// The thread ends, and with it what is in memory.
    fn say_left_behind(&self) {
        let left = self.shared.lock().records.len();
        if left > 0 {
            self.counters().dropped.add(left as u64);
            log::warn!(
                "{left} records that waited for collector {} ended with its old configuration",
                self.config.server
            );
        }
    }

    fn counters(&self) -> &UplinkCounters {
        &self.shared.counters.uplink
    }

    /// Sends until the connection fails or goodbye has been said.
    fn use_up(&mut self, mut connection: Connection) -> Result<(), Failure> {
        self.counters().connected.store(true, Ordering::Relaxed);
        self.has_delivered = false;
        let end = self.serve(&mut connection);
        self.counters().connected.store(false, Ordering::Relaxed);
        let end = end.map_err(|failure| match self.has_delivered {
            true => failure,
            // A collector that refuses a device seldom says more.
            false => Failure::Broken(format!(
                "{failure}, before anything had arrived for certain; its own log may say why"
            )),
        })?;
        if !connection.close(end) && self.delivery.unconfirmed() > 0 {
            let reason = "it did not say in time that it has everything; some of it is sent again";
            return Err(Failure::Broken(String::from(reason)));
        }
        let records = self.delivery.confirm_all();
        self.confirmed(records);
        Ok(())
    }

    /// Says until when goodbye may take.
    fn serve(&mut self, connection: &mut Connection) -> Result<Instant, Failure> {
        loop {
            // More is written only when nothing waits in the socket; so much can be said of what was.
            connection.listen()?;
            let is_sent = connection.is_sent(Duration::ZERO)?;
            let now = Instant::now();
            let records = self
                .delivery
                .is_well(now, is_sent, connection.confirm_wait());
            self.confirmed(records);
            if let Some(journal) = &mut self.journal {
                journal
                    .cursor
                    .store_in_time(self.delivery.confirmed().journal, now);
            }
            let goodbye = self.shared.lock().goodbye;
            if let Some(end) = goodbye.filter(|end| now >= *end) {
                return Ok(end);
            }
            if !is_sent {
                let limit = goodbye.map_or(LOOK, |end| end - now).min(LOOK);
                connection.is_sent(limit)?;
            } else if !self.send_turn(connection)? {
                match goodbye {
                    Some(end) => return Ok(end),
                    None => self.shared.wait_for_records(LOOK),
                }
            }
        }
    }

    /// Sends some records of each source. False when there was none.
    fn send_turn(&mut self, connection: &mut Connection) -> Result<bool, Failure> {
        let before = self.place;
        let mut records = self.send_from_journal(connection)?;
        records += self.send_from_memory(connection)?;
        connection.flush()?;
        if self.place == before {
            return Ok(false);
        }
        self.counters().sent.add(records);
        self.delivery.wrote(self.place, records, Instant::now());
        Ok(true)
    }

    fn send_from_journal(&mut self, connection: &mut Connection) -> Result<u64, Failure> {
        // Before it is read: what comes in the meantime is not overlooked.
        let grew = std::mem::take(&mut self.shared.lock().journal_grew);
        let Some(journal) = &mut self.journal else {
            return Ok(0);
        };
        match journal.resting {
            Some(until) if Instant::now() < until => return Ok(0),
            None if !grew => return Ok(0),
            Some(_) | None => {}
        }
        let (mut records, mut bytes) = (0, 0);
        while bytes < TURN {
            let found = match journal.reader.next() {
                Ok(Some(found)) => found,
                Ok(None) => {
                    journal.works();
                    return Ok(records);
                }
                Err(error) => {
                    journal.rest(&error);
                    return Ok(records);
                }
            };
            bytes += found.record.len();
            let next = found.next;
            // A sealed record can be read by its recipient only.
            let entry = match found.header.key {
                None => Entry::decode(found.record),
                Some(_) => None,
            };
            if let Some(entry) = entry.filter(|entry| entry.severity <= self.config.severity) {
                self.sequence_id = following(self.sequence_id);
                let origin = found.header.origin;
                let identity = Identity {
                    sequence_id: self.sequence_id,
                    origin,
                };
                let pid = (origin.run == self.origin.run).then(std::process::id);
                self.message.clear();
                self.formatter
                    .write(&mut self.message, &entry, pid, Some(identity));
                connection.send(&self.message)?;
                records += 1;
                if journal.furthest >= Some(next) {
                    self.shared.counters.uplink.resent.add(1);
                }
            }
            journal.furthest = journal.furthest.max(Some(next));
            self.place.journal = Some(next);
        }
        self.shared.lock().journal_grew = true;
        Ok(records)
    }

    fn send_from_memory(&mut self, connection: &mut Connection) -> Result<u64, Failure> {
        {
            let mut waiting = self.shared.lock();
            waiting.take(&mut self.turn);
            waiting.sent += self.turn.len() as u64;
            self.place.memory = waiting.sent;
        }
        for record in self.turn.iter() {
            let Some(entry) = Entry::decode(record) else {
                continue;
            };
            self.sequence_id = following(self.sequence_id);
            let identity = Identity {
                sequence_id: self.sequence_id,
                origin: self.origin,
            };
            self.message.clear();
            let pid = Some(std::process::id());
            self.formatter
                .write(&mut self.message, &entry, pid, Some(identity));
            connection.send(&self.message)?;
        }
        let records = self.turn.len() as u64;
        let first = self.place.memory - records;
        let again = self.furthest.saturating_sub(first).min(records);
        self.shared.counters.uplink.resent.add(again);
        self.furthest = self.furthest.max(self.place.memory);
        Ok(records)
    }

    /// The collector has `records` more.
    fn confirmed(&mut self, records: u64) {
        if records == 0 {
            return;
        }
        self.counters().confirmed.add(records);
        self.shared.lock().confirm(self.delivery.confirmed().memory);
        self.back_off.reset();
        self.has_delivered = true;
        let dropped = self.counters().dropped.get();
        let lost = dropped - self.told_dropped;
        let server = &self.config.server;
        if self.trouble.take().is_some() {
            log::info!(
                "collector {server} takes records again; {lost} could not wait in memory and were lost"
            );
        } else if lost > 0 && self.told_at.elapsed() >= SAY_LOST {
            log::warn!(
                "collector {server} is too slow: {lost} records could not wait in memory and were lost"
            );
        } else {
            return;
        }
        self.told_dropped = dropped;
        self.told_at = Instant::now();
    }

    /// What was under way is sent again; the log is told why, once.
    fn say_failure(&mut self, failure: &Failure) {
        let counters = &self.shared.counters.uplink;
        counters.failures.add(1);
        let unconfirmed = self.delivery.unconfirmed();
        self.place = self.delivery.lost();
        counters.dropped.add(self.shared.lock().rewind());
        if let Some(journal) = &mut self.journal {
            journal.reader = Reader::open(&journal.directory, self.place.journal);
            journal.missed = 0;
            self.shared.lock().journal_grew = true;
        }
        let server = &self.config.server;
        if *failure == Failure::Closed && unconfirmed == 0 {
            // It may close what is idle.
            return log::debug!("collector {server}: {failure}");
        }
        let reason = failure.to_string();
        if self.trouble.as_ref() != Some(&reason) {
            log::warn!("collector {server} takes no records: {reason}; they wait for it");
            self.trouble = Some(reason);
        }
    }
}

impl Journal {
    fn works(&mut self) {
        if self.resting.take().is_some() {
            log::info!("{}: can be read again", self.directory.display());
        }
        let missed = self.reader.missed();
        if missed > self.missed {
            log::warn!(
                "{}: {} segments were dropped before the collector had them; see log.journal.max_bytes",
                self.directory.display(),
                missed - self.missed
            );
            self.missed = missed;
        }
    }

    fn rest(&mut self, error: &std::io::Error) {
        if self.resting.is_none() {
            log::warn!(
                "{}: cannot be read for the collector: {error}",
                self.directory.display()
            );
        }
        self.resting = Some(Instant::now() + JOURNAL_PAUSE);
    }
}

/// The number of the next sending (RFC 5424, section 7.3.1).
const fn following(sequence_id: u32) -> u32 {
    if sequence_id >= 2_147_483_647 {
        1
    } else {
        sequence_id + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Room for ten records of 12 bytes, with their lengths.
    fn waiting() -> Waiting {
        Waiting::new(160)
    }

    fn taken(waiting: &mut Waiting) -> u64 {
        let mut turn = RecordRing::new(TURN);
        waiting.take(&mut turn);
        waiting.sent += turn.len() as u64;
        turn.len() as u64
    }

    #[test]
    fn what_is_taken_stays_until_it_is_confirmed() {
        let mut waiting = waiting();
        for _ in 0..6 {
            assert_eq!(waiting.push(&[0; 12]), 0);
        }
        assert_eq!(taken(&mut waiting), 6);
        assert_eq!(taken(&mut waiting), 0);
        assert_eq!(waiting.push(&[0; 12]), 0);
        assert_eq!(taken(&mut waiting), 1);
        waiting.confirm(4);
        assert_eq!((waiting.before, waiting.records.len()), (4, 3));
        assert_eq!(waiting.rewind(), 0);
        assert_eq!(taken(&mut waiting), 3, "again");
        waiting.confirm(7);
        assert!(waiting.records.is_empty());
        assert_eq!(waiting.rewind(), 0);
        assert_eq!(taken(&mut waiting), 0);
    }

    #[test]
    fn every_record_is_confirmed_or_dropped_once() {
        // Pushes, takes, confirmations and lost connections in an order that is not the same twice.
        let mut waiting = waiting();
        let (mut pushed, mut confirmed, mut dropped) = (0_u64, 0_u64, 0_u64);
        let mut known = 0;
        for step in 0..20_000_u64 {
            let chance = step.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 59;
            match chance {
                0..=19 => {
                    pushed += 1;
                    dropped += waiting.push(&[0; 12]);
                }
                20..=25 => {
                    taken(&mut waiting);
                }
                26..=28 => {
                    // Everything that was taken; what was dropped before that is dropped.
                    let through = waiting.sent;
                    let before = waiting.before - waiting.dropped_under_way;
                    waiting.confirm(through);
                    confirmed += through - before;
                    known = through;
                }
                _ => dropped += waiting.rewind(),
            }
            let under_way = waiting.dropped_under_way;
            let left = waiting.records.len() as u64 + under_way;
            assert_eq!(confirmed + dropped + left, pushed, "{step}");
            assert!(waiting.sent >= waiting.before && known <= waiting.sent);
        }
        assert!(confirmed > 1000 && dropped > 1000, "{confirmed} {dropped}");
    }

    #[test]
    fn a_record_that_has_no_room_is_dropped_and_nothing_else_goes_wrong() {
        let mut waiting = waiting();
        assert_eq!(waiting.push(&[0; 500]), 1);
        waiting.journal_grew = false;
        assert!(!waiting.has_more());
        assert_eq!(waiting.push(&[0; 12]), 0);
        assert!(waiting.has_more());
        assert_eq!(taken(&mut waiting), 1);
        assert!(!waiting.has_more());
    }

    #[test]
    fn sendings_are_numbered_from_one_and_again() {
        assert_eq!(following(0), 1);
        assert_eq!(following(2_147_483_646), 2_147_483_647);
        assert_eq!(following(2_147_483_647), 1);
    }
}
