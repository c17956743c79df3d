//! The newest records, in memory bounded in bytes, and those who follow them live.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::counters::Counters;
use super::entry::{Entry, seq_of};
use super::record_ring::RecordRing;

/// The ring, as the log's own thread and readers share it.
pub(super) struct Recent {
    state: Mutex<State>,
    /// The number of the newest record: what a follower waits for.
    newest: watch::Sender<u64>,
    max_readers: AtomicUsize,
    counters: Arc<Counters>,
}

struct State {
    ring: RecordRing,
    /// The number of the last record that made room.
    evicted: u64,
}

impl Recent {
    pub(super) fn new(max_bytes: usize, max_readers: usize, counters: &Arc<Counters>) -> Self {
        Self {
            state: Mutex::new(State {
                ring: RecordRing::new(max_bytes),
                evicted: 0,
            }),
            newest: watch::Sender::new(0),
            max_readers: AtomicUsize::new(max_readers),
            counters: Arc::clone(counters),
        }
    }

    /// Takes new bounds over; the newest records stay.
    pub(super) fn configure(&self, max_bytes: usize, max_readers: usize) {
        self.max_readers.store(max_readers, Ordering::Relaxed);
        let mut state = self.lock();
        if state.ring.capacity() != max_bytes {
            let mut ring = RecordRing::new(max_bytes);
            let mut evicted = state.evicted;
            for record in state.ring.iter() {
                ring.push(record, |old| evicted = seq_of(old));
            }
            *state = State { ring, evicted };
        }
    }

    pub(super) fn push(&self, record: &[u8]) {
        let mut state = self.lock();
        let State { ring, evicted } = &mut *state;
        ring.push(record, |old| *evicted = seq_of(old));
    }

    /// Tells the followers of what was pushed.
    pub(super) fn announce(&self, newest: u64) {
        self.newest.send_replace(newest);
    }

    /// Shows every record, the oldest first.
    pub(super) fn each(&self, mut show: impl FnMut(&Entry<'_>)) {
        let state = self.lock();
        state
            .ring
            .iter()
            .filter_map(Entry::decode)
            .for_each(|entry| show(&entry));
    }

    /// The number of the newest record.
    pub(super) fn newest(&self) -> u64 {
        *self.newest.borrow()
    }

    /// Takes a reader's place, if fewer than allowed are taken.
    pub(super) fn follow(self: &Arc<Self>, after: u64) -> Option<Follower> {
        let readers = &self.counters.recent.readers;
        let limit = self.max_readers.load(Ordering::Relaxed) as u64;
        if !readers.take_below(limit) {
            self.counters.recent.readers_refused.add(1);
            return None;
        }
        Some(Follower {
            newest: self.newest.subscribe(),
            recent: Arc::clone(self),
            after,
            begun: false,
            has_missed: after > 0 && self.lock().evicted > after,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One who reads along. It has no buffer of its own: its place is a number, and when the ring has moved past
/// that, the reader was too slow.
pub(super) struct Follower {
    recent: Arc<Recent>,
    newest: watch::Receiver<u64>,
    after: u64,
    begun: bool,
    has_missed: bool,
}

/// The ring has moved past a reader's place.
#[derive(Debug)]
pub(super) struct TooSlow;

impl Follower {
    /// Whether records after the one to begin with have made room since.
    pub(super) fn has_missed(&self) -> bool {
        self.has_missed
    }

    /// Shows the records after the last one shown, up to and with the one for which `show` says false.
    pub(super) fn read(&mut self, mut show: impl FnMut(&Entry<'_>) -> bool) -> Result<(), TooSlow> {
        self.newest.mark_unchanged();
        let state = self.recent.lock();
        // One that comes back after a while takes what is left.
        if self.begun && state.evicted > self.after {
            self.recent.counters.recent.readers_dropped.add(1);
            return Err(TooSlow);
        }
        self.begun = true;
        for record in state.ring.iter() {
            let seq = seq_of(record);
            if seq <= self.after {
                continue;
            }
            self.after = seq;
            if let Some(entry) = Entry::decode(record)
                && !show(&entry)
            {
                // There is more; the next wait must not wait.
                self.newest.mark_changed();
                break;
            }
        }
        Ok(())
    }

    /// Waits until there is something to read.
    pub(super) async fn wait(&mut self) {
        // The ring lives as long as the process.
        let _ = self.newest.changed().await;
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.recent.counters.recent.readers.subtract(1);
    }
}
