//! What happened to the records, in numbers that only grow.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::severity::Severity;

/// A number, of most things one that only grows.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// For what comes and goes: one more, if there are fewer than `limit`.
    pub(super) fn take_below(&self, limit: u64) -> bool {
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
                (taken < limit).then_some(taken + 1)
            })
            .is_ok()
    }

    pub(super) fn subtract(&self, fewer: u64) {
        self.0.fetch_sub(fewer, Ordering::Relaxed);
    }

    /// For what is known as a whole, such as how many bytes there are now.
    pub(super) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

/// A number for each severity.
#[derive(Debug, Default)]
pub(super) struct BySeverity([Counter; 8]);

impl BySeverity {
    pub(super) fn of(&self, severity: Severity) -> &Counter {
        &self.0[severity as usize]
    }

    pub(super) fn get(&self) -> [u64; 8] {
        std::array::from_fn(|index| self.0[index].get())
    }

    pub(super) fn total(&self) -> u64 {
        self.get().iter().sum()
    }
}

/// All numbers of the log path. They live as long as the process: a new configuration starts none again.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// Records that passed the filter.
    pub(super) produced: BySeverity,
    /// Of these, what found no room in front of the log's own thread.
    pub(super) dropped: BySeverity,
    /// Of these, what reached the log's own thread. At rest, dropped and handled are produced.
    pub(super) handled: BySeverity,
    pub(super) syslog: SyslogCounters,
    pub(super) recent: RecentCounters,
    pub(super) journal: JournalCounters,
    pub(super) uplink: UplinkCounters,
}

#[derive(Debug, Default)]
pub(super) struct SyslogCounters {
    pub(super) sent: Counter,
    /// What waited for the daemon and was the oldest when there was no more room, or was too long for it.
    pub(super) lost: Counter,
    pub(super) connections: Counter,
}

#[derive(Debug, Default)]
pub(super) struct RecentCounters {
    /// Readers of the live stream now.
    pub(super) readers: Counter,
    /// Readers that were slower than the log.
    pub(super) readers_dropped: Counter,
    /// Readers that found all places taken.
    pub(super) readers_refused: Counter,
}

#[derive(Debug, Default)]
pub(super) struct JournalCounters {
    /// Records in segments.
    pub(super) written: Counter,
    /// Records that waited for a storage that did not work, and were the oldest when there was no more room.
    pub(super) lost: Counter,
    pub(super) bytes_written: Counter,
    pub(super) syncs: Counter,
    /// Writes and syncs that failed.
    pub(super) errors: Counter,
    /// Places in the segments, found at the start, that hold no record but should.
    pub(super) damaged: Counter,
    /// Bytes at the end of the last segment that a power cut left, found at the start.
    pub(super) torn_bytes: Counter,
    /// Segments that made room for newer ones.
    pub(super) segments_dropped: Counter,
    /// Bytes on the storage now.
    pub(super) bytes: Counter,
    /// Whether records get to the storage.
    pub(super) working: AtomicBool,
}

#[derive(Debug, Default)]
pub(super) struct UplinkCounters {
    /// Records written to the collector, each time.
    pub(super) sent: Counter,
    /// Of these, what was written before, on a connection that was lost.
    pub(super) resent: Counter,
    /// Records that the collector has for certain.
    pub(super) confirmed: Counter,
    /// Records that were the oldest in memory when there was no more room, and may not have arrived.
    pub(super) dropped: Counter,
    /// Attempts to connect.
    pub(super) attempts: Counter,
    /// Attempts that came to nothing, and connections that broke.
    pub(super) failures: Counter,
    /// Whether there is a connection.
    pub(super) connected: AtomicBool,
}
