//! Two bounded lanes in front of the log's own thread: what nobody may lose, and the rest.
//!
//! A producer copies its record into the front buffers and goes on. The thread swaps them with the back
//! buffers and works on those, so that neither waits for the other longer than a copy takes. When the rest
//! finds no room, the oldest of the rest is dropped and counted. A record of severity error and above waits
//! for room instead, and a critical one until it is on the storage; both waits are bounded by [`PATIENCE`],
//! and once one was in vain, nobody waits until the thread is heard of again: a storage that hangs must not
//! stop every request that has something to say.

use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::counters::Counters;
use super::entry::{set_seq, severity_of};
use super::record_ring::RecordRing;
use super::severity::Severity;
use crate::config::LogConfig;

/// How long a producer of an important record waits for the log's own thread.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long that thread waits for company of an ordinary record, so that not each of them wakes it.
const LINGER: Duration = Duration::from_millis(2);

/// What the producer of a record may wait for.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Waits {
    /// Nothing: it is a thread that others wait for when they log.
    Never,
    /// Room for a record of severity error and above.
    ForRoom,
    /// And the storage, for a critical one.
    ForStorage,
}

/// Where a record was when its call returned.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stored {
    /// On non-volatile storage: it outlives a power cut.
    Journal,
    /// In memory, on its way.
    Memory,
    /// Nowhere: it was dropped and counted, or the filter does not let it pass.
    Nowhere,
}

/// What the log's own thread is asked besides taking records.
pub(super) enum Command {
    /// Take this configuration.
    Configure(Box<LogConfig>, SyncSender<()>),
    /// Hand over everything that you have.
    Flush(SyncSender<()>),
}

/// The lanes, as producers and the log's own thread share them.
pub(super) struct Lanes {
    state: Mutex<State>,
    /// The thread waits here for work,
    work: Condvar,
    /// producers of important records for room,
    room: Condvar,
    /// and producers of critical records for the storage.
    done: Condvar,
    counters: Arc<Counters>,
}

struct State {
    front: Buffers,
    next_seq: u64,
    waiting: Waiting,
    commands: Vec<Command>,
    /// Somebody waited for the thread in vain, and it has not come since.
    stalled: bool,
    /// The last record that was handled, and the last that is known to be on the storage.
    handled: u64,
    durable: u64,
}

/// What the thread is waiting for.
#[derive(Clone, Copy, PartialEq)]
enum Waiting {
    Nothing,
    Important,
    Anything,
}

/// Both lanes' buffers.
pub(super) struct Buffers {
    pub(super) important: RecordRing,
    pub(super) ordinary: RecordRing,
}

impl Buffers {
    pub(super) fn new(bytes: usize) -> Self {
        Self {
            important: RecordRing::new(bytes),
            ordinary: RecordRing::new(bytes),
        }
    }

    pub(super) fn clear(&mut self) {
        self.important.clear();
        self.ordinary.clear();
    }

    fn is_empty(&self) -> bool {
        self.important.is_empty() && self.ordinary.is_empty()
    }

    /// All records in the order in which they were made.
    pub(super) fn in_order(&self) -> impl Iterator<Item = &[u8]> {
        use super::entry::seq_of;
        let mut important = self.important.iter().peekable();
        let mut ordinary = self.ordinary.iter().peekable();
        std::iter::from_fn(move || match (important.peek(), ordinary.peek()) {
            (Some(one), Some(other)) if seq_of(one) < seq_of(other) => important.next(),
            (Some(_), None) => important.next(),
            _ => ordinary.next(),
        })
    }
}

impl Lanes {
    pub(super) fn new(bytes: usize, counters: &Arc<Counters>) -> Self {
        Self {
            state: Mutex::new(State {
                front: Buffers::new(bytes),
                next_seq: 1,
                waiting: Waiting::Nothing,
                commands: Vec::new(),
                stalled: false,
                handled: 0,
                durable: 0,
            }),
            work: Condvar::new(),
            room: Condvar::new(),
            done: Condvar::new(),
            counters: Arc::clone(counters),
        }
    }

    /// Takes a record and gives it its number.
    pub(super) fn push(&self, record: &mut [u8], waits: Waits) -> Stored {
        let severity = severity_of(record);
        self.counters.produced.of(severity).add(1);
        let mut state = self.lock();
        if severity.is_important() {
            let deadline = Instant::now() + PATIENCE;
            while !state.front.important.has_room(record.len()) {
                let left = deadline.saturating_duration_since(Instant::now());
                if waits == Waits::Never || state.stalled || left.is_zero() {
                    state.stalled |= left.is_zero();
                    drop(state);
                    self.counters.dropped.of(severity).add(1);
                    return Stored::Nowhere;
                }
                state = self
                    .room
                    .wait_timeout(state, left)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0;
            }
        }
        let seq = state.next_seq;
        state.next_seq += 1;
        set_seq(record, seq);
        let lane = if severity.is_important() {
            &mut state.front.important
        } else {
            &mut state.front.ordinary
        };
        lane.push(record, |dropped| {
            self.counters.dropped.of(severity_of(dropped)).add(1);
        });
        let wake = match state.waiting {
            Waiting::Nothing => false,
            Waiting::Important => severity.is_important(),
            Waiting::Anything => true,
        };
        if wake {
            state.waiting = Waiting::Nothing;
            self.work.notify_one();
        }
        if severity.is_critical() && waits == Waits::ForStorage && !state.stalled {
            self.wait_for_storage(state, seq)
        } else {
            Stored::Memory
        }
    }

    fn wait_for_storage(&self, state: MutexGuard<'_, State>, seq: u64) -> Stored {
        let (mut state, waited) = self
            .done
            .wait_timeout_while(state, PATIENCE, |state| state.handled < seq)
            .unwrap_or_else(PoisonError::into_inner);
        state.stalled |= waited.timed_out();
        if state.durable >= seq {
            Stored::Journal
        } else {
            Stored::Memory
        }
    }

    pub(super) fn command(&self, command: Command) {
        let mut state = self.lock();
        state.commands.push(command);
        state.waiting = Waiting::Nothing;
        self.work.notify_one();
    }

    /// Waits until there is something to do or `deadline` has come, and swaps the full front buffers with
    /// the empty `back`. Returns what was asked besides.
    pub(super) fn take(&self, back: &mut Buffers, deadline: Option<Instant>) -> Vec<Command> {
        let mut state = self.lock();
        while state.front.is_empty() && state.commands.is_empty() {
            let left = match deadline {
                None => Duration::from_secs(3600),
                Some(deadline) => match deadline.checked_duration_since(Instant::now()) {
                    Some(left) if !left.is_zero() => left,
                    _ => return Vec::new(),
                },
            };
            state = self.wait(state, Waiting::Anything, left);
        }
        if state.front.important.is_empty()
            && state.commands.is_empty()
            && state.front.ordinary.is_below_half()
        {
            state = self.wait(state, Waiting::Important, LINGER);
        }
        state.stalled = false;
        std::mem::swap(&mut state.front, back);
        self.room.notify_all();
        std::mem::take(&mut state.commands)
    }

    fn wait<'a>(
        &self,
        mut state: MutexGuard<'a, State>,
        waiting: Waiting,
        limit: Duration,
    ) -> MutexGuard<'a, State> {
        state.waiting = waiting;
        let mut state = self
            .work
            .wait_timeout(state, limit)
            .unwrap_or_else(PoisonError::into_inner)
            .0;
        state.waiting = Waiting::Nothing;
        state
    }

    /// Says that everything up to `handled` was handled, and is on the storage if it had to be there.
    pub(super) fn done(&self, handled: u64, is_durable: bool) {
        let mut state = self.lock();
        state.handled = state.handled.max(handled);
        if is_durable {
            state.durable = state.durable.max(handled);
        }
        self.done.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The dropped ones of each severity, in words: `12 info, 3 debug`.
pub(super) fn by_severity(counts: [u64; 8]) -> String {
    let words: Vec<String> = Severity::ALL
        .into_iter()
        .zip(counts)
        .filter(|(_, count)| *count > 0)
        .map(|(severity, count)| format!("{count} {severity}"))
        .collect();
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logging::entry::{Encoder, Times};

    const TIMES: Times = Times {
        wall_ns: 0,
        monotonic_ns: 0,
    };

    fn push(lanes: &Lanes, severity: Severity, patient: bool) -> Stored {
        let mut encoder = Encoder::new();
        encoder.begin(TIMES, 0, severity, "test");
        encoder.message(format_args!("{}", "x".repeat(100)));
        let waits = if patient {
            Waits::ForStorage
        } else {
            Waits::Never
        };
        lanes.push(encoder.bytes_mut(), waits)
    }

    #[test]
    fn ordinary_records_make_room_for_each_other_and_important_ones_for_nobody() {
        let counters = Arc::default();
        let lanes = Lanes::new(1024, &counters);
        for _ in 0..20 {
            assert_eq!(push(&lanes, Severity::Info, true), Stored::Memory);
        }
        let kept = (0..20)
            .filter(|_| push(&lanes, Severity::Error, false) == Stored::Memory)
            .count();
        let mut back = Buffers::new(1024);
        lanes.take(&mut back, None);
        assert_eq!(back.important.iter().count(), kept);
        assert_eq!(counters.dropped.of(Severity::Error).get(), 20 - kept as u64);
        let info = back.ordinary.iter().count() as u64;
        assert_eq!(counters.dropped.of(Severity::Info).get(), 20 - info);
        // The oldest are gone, and what is left comes in order.
        let seqs: Vec<u64> = back.in_order().map(super::super::entry::seq_of).collect();
        assert_eq!(seqs, (21 - info..=20 + kept as u64).collect::<Vec<_>>());
    }

    #[test]
    fn whoever_waits_gets_room_when_the_thread_comes() {
        let lanes = Arc::new(Lanes::new(1024, &Arc::default()));
        while push(&lanes, Severity::Error, false) == Stored::Memory {}
        let waiting = std::thread::spawn({
            let lanes = Arc::clone(&lanes);
            move || push(&lanes, Severity::Error, true)
        });
        std::thread::sleep(Duration::from_millis(50));
        let mut back = Buffers::new(1024);
        lanes.take(&mut back, None);
        assert_eq!(waiting.join().unwrap(), Stored::Memory);
    }

    #[test]
    fn a_critical_record_says_whether_it_is_on_the_storage() {
        for (durable, expected) in [(true, Stored::Journal), (false, Stored::Memory)] {
            let lanes = Arc::new(Lanes::new(1024, &Arc::default()));
            let waiting = std::thread::spawn({
                let lanes = Arc::clone(&lanes);
                move || push(&lanes, Severity::Critical, true)
            });
            let mut back = Buffers::new(1024);
            lanes.take(&mut back, None);
            lanes.done(1, durable);
            assert_eq!(waiting.join().unwrap(), expected);
        }
    }

    #[test]
    fn after_one_has_waited_in_vain_nobody_waits_until_the_thread_comes() {
        let lanes = Lanes::new(1024, &Arc::default());
        assert_eq!(push(&lanes, Severity::Critical, true), Stored::Memory);
        let begin = Instant::now();
        for _ in 0..20 {
            push(&lanes, Severity::Critical, true);
        }
        assert!(begin.elapsed() < PATIENCE);
        let mut back = Buffers::new(1024);
        lanes.take(&mut back, None);
        assert!(!lanes.lock().stalled);
    }

    #[test]
    fn the_dropped_are_said_by_severity() {
        assert_eq!(
            by_severity([0, 0, 0, 1, 0, 0, 12, 3]),
            "1 error, 12 info, 3 debug"
        );
    }
}
