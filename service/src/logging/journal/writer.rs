//! The side that writes.
//!
//! Every segment belongs to one start of the program, and is never opened for writing again. What is not
//! known to be on the storage is also kept in memory, so that after a write or a sync that failed it is
//! written again into a new segment: after a failed fsync nobody knows what of the old one is there.
//! Readers tell the two copies by run and sequence number.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::segment::{FRAME, Frame, HEADER, Header, frame_at, next_mark, push_frame};
use super::storage::{Directory, SegmentFile, Storage, is_unreadable};
use super::{BLOCK, MAX_SEGMENT, MIN_SEGMENT, SEGMENTS};
use crate::config::JournalConfig;
use crate::logging::counters::Counters;
use crate::logging::origin::{self, Origin};
use crate::logging::record_ring::RecordRing;
use crate::logging::seal::{OVERHEAD, Recipient, SegmentSealer};

/// What may wait for the storage, in bytes.
const UNSYNCED: usize = 64 * 1024;
/// The first pause before a storage that failed is tried again; doubled up to [`MAX_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// The journal as the log's own thread has it.
pub(in crate::logging) struct Journal {
    storage: Box<dyn Storage>,
    /// What an error message says.
    place: String,
    origin: Origin,
    max_bytes: u64,
    sync_every: Duration,
    recipient: Option<Recipient>,
    counters: Arc<Counters>,
    /// Segments that are no longer written, with their lengths; `None` until they were looked at.
    closed: Option<VecDeque<(u64, u64)>>,
    active: Option<Active>,
    /// The number of the next segment.
    next: u64,
    /// Frames of the active segment that are not yet written.
    frames: Vec<u8>,
    /// How many records that are.
    framed: u64,
    /// Whether something was taken or written since the last sync.
    dirty: bool,
    /// Records that are not known to be on the storage.
    unsynced: RecordRing,
    /// When the oldest of them was taken.
    unsynced_since: Option<Instant>,
    /// Whether one of them made room for another since the last commit.
    has_lost: bool,
    failure: Option<Failure>,
}

struct Active {
    number: u64,
    file: Box<dyn SegmentFile>,
    length: u64,
    sealer: Option<SegmentSealer>,
}

struct Failure {
    retry_at: Instant,
    pause: Duration,
    lost_before: u64,
}

impl Journal {
    /// Opens the journal; what a power cut tore is cut off. A storage that does not work is tried again
    /// later, and said.
    pub(in crate::logging) fn open(
        config: &JournalConfig,
        origin: Origin,
        counters: &Arc<Counters>,
    ) -> Self {
        // The configuration was checked; without a key nothing is written that should have been sealed.
        let recipient = Recipient::decode(&config.recipient).ok();
        Self::open_in(
            Box::new(Directory::new(&config.directory)),
            config,
            recipient,
            origin,
            counters,
        )
    }

    pub(super) fn open_in(
        storage: Box<dyn Storage>,
        config: &JournalConfig,
        recipient: Option<Recipient>,
        origin: Origin,
        counters: &Arc<Counters>,
    ) -> Self {
        let mut journal = Self {
            storage,
            place: config.directory.display().to_string(),
            origin,
            max_bytes: config.max_bytes,
            sync_every: Duration::from_secs(config.sync_seconds),
            recipient,
            counters: Arc::clone(counters),
            closed: None,
            active: None,
            next: 1,
            frames: Vec::new(),
            framed: 0,
            dirty: false,
            unsynced: RecordRing::new(UNSYNCED),
            unsynced_since: None,
            has_lost: false,
            failure: None,
        };
        counters.journal.working.store(true, Ordering::Relaxed);
        if let Err(error) = journal.recover() {
            journal.fail(&error);
        }
        journal
    }

    /// Takes a record. It is in memory until [`Journal::commit`].
    pub(in crate::logging) fn append(&mut self, record: &[u8]) {
        if self.failure.is_none()
            && let Err(error) = self.make_way(record)
        {
            self.fail(&error);
        }
        let (lost, has_lost) = (&self.counters.journal.lost, &mut self.has_lost);
        self.unsynced.push(record, |_| {
            lost.add(1);
            *has_lost = true;
        });
        self.unsynced_since.get_or_insert_with(Instant::now);
        if self.failure.is_none()
            && let Err(error) = self.frame(record)
        {
            self.fail(&error);
        }
    }

    /// Writes what was taken, and when it is `urgent` or has waited long enough, waits until it is on the
    /// storage. Says whether everything is that was taken since the last time.
    pub(in crate::logging) fn commit(&mut self, urgent: bool) -> bool {
        let has_lost = std::mem::take(&mut self.has_lost);
        self.bring(urgent) && !has_lost
    }

    /// As an urgent [`Journal::commit`], also when a storage that failed is not yet due.
    pub(in crate::logging) fn flush(&mut self) -> bool {
        if let Some(failure) = &mut self.failure {
            failure.retry_at = Instant::now();
        }
        self.commit(true)
    }

    /// Ends this journal. What could not be written is given back.
    pub(in crate::logging) fn close(mut self) -> RecordRing {
        self.flush();
        std::mem::replace(&mut self.unsynced, RecordRing::new(0))
    }

    fn bring(&mut self, urgent: bool) -> bool {
        if let Some(failure) = &self.failure {
            if Instant::now() < failure.retry_at {
                return false;
            }
            self.retry();
            return self.failure.is_none();
        }
        let due = self
            .unsynced_since
            .is_some_and(|since| since.elapsed() >= self.sync_every);
        if let Err(error) = self.write(urgent || due) {
            self.fail(&error);
        }
        self.failure.is_none() && !self.dirty
    }

    /// When [`Journal::commit`] has to be called next, even if there is nothing new.
    pub(in crate::logging) fn deadline(&self) -> Option<Instant> {
        match (&self.failure, self.unsynced_since) {
            (Some(failure), _) => Some(failure.retry_at),
            (None, Some(since)) => Some(since + self.sync_every),
            (None, None) => None,
        }
    }

    /// As if the pause after a failure were over.
    #[cfg(test)]
    pub(super) fn retry_now(&mut self) {
        if let Some(failure) = &mut self.failure {
            failure.retry_at = Instant::now();
        }
    }

    /// What the power takes away.
    #[cfg(test)]
    pub(super) fn lose_power(mut self) {
        self.active = None;
        self.frames.clear();
        self.dirty = false;
        self.failure = Some(Failure {
            retry_at: Instant::now() + MAX_PAUSE,
            pause: MAX_PAUSE,
            lost_before: 0,
        });
    }

    /// Whether a record that was just taken will be found in the segments.
    pub(in crate::logging) fn is_working(&self) -> bool {
        self.failure.is_none()
    }

    /// The records that are not known to be on the storage, the oldest first.
    #[cfg(feature = "uplink")]
    pub(in crate::logging) fn unsynced(&self) -> impl Iterator<Item = &[u8]> {
        self.unsynced.iter()
    }

    fn segment_bytes(&self) -> u64 {
        (self.max_bytes / SEGMENTS).clamp(MIN_SEGMENT, MAX_SEGMENT)
    }

    /// Sees to it that `record` fits into the active segment and into memory.
    fn make_way(&mut self, record: &[u8]) -> io::Result<()> {
        let needed = (FRAME + record.len() + OVERHEAD) as u64;
        let limit = self.segment_bytes();
        if let Some(active) = &self.active
            && active.length + self.frames.len() as u64 + needed > limit
        {
            self.close_active()
        } else if self.unsynced.has_room(record.len()) {
            Ok(())
        } else {
            self.write(true)
        }
    }

    /// Puts a record into the active segment's next write.
    fn frame(&mut self, record: &[u8]) -> io::Result<()> {
        let active = match self.active.take() {
            Some(active) => active,
            None => self.new_segment()?,
        };
        let active = self.active.insert(active);
        let at = active.length + self.frames.len() as u64;
        match &active.sealer {
            None => push_frame(&mut self.frames, active.number, record),
            Some(sealer) => {
                let sealed = sealer
                    .seal(at, record)
                    .ok_or_else(|| io::Error::other("the record cannot be sealed"))?;
                push_frame(&mut self.frames, active.number, &sealed);
            }
        }
        self.framed += 1;
        self.dirty = true;
        Ok(())
    }

    fn write(&mut self, sync: bool) -> io::Result<()> {
        let Some(active) = &mut self.active else {
            return Ok(());
        };
        if !self.frames.is_empty() {
            active.file.append(&self.frames)?;
            active.length += self.frames.len() as u64;
            self.counters
                .journal
                .bytes_written
                .add(self.frames.len() as u64);
            self.counters.journal.written.add(self.framed);
            self.frames.clear();
            self.framed = 0;
        }
        if sync && self.dirty {
            active.file.sync()?;
            self.counters.journal.syncs.add(1);
            self.dirty = false;
            self.unsynced.clear();
            self.unsynced_since = None;
        }
        self.count_bytes();
        Ok(())
    }

    fn close_active(&mut self) -> io::Result<()> {
        self.write(true)?;
        if let Some(active) = self.active.take() {
            let closed = self.closed.get_or_insert_default();
            closed.push_back((active.number, active.length));
        }
        Ok(())
    }

    fn new_segment(&mut self) -> io::Result<Active> {
        self.make_room();
        let sealer = match &self.recipient {
            None => None,
            Some(recipient) => Some(
                recipient
                    .sealer()
                    .ok_or_else(|| io::Error::other("the segment cannot be sealed"))?,
            ),
        };
        let header = Header {
            origin: self.origin,
            created_ns: origin::now().wall_ns,
            key: sealer.as_ref().map(|sealer| sealer.key),
        };
        let number = self.next;
        self.next += 1;
        let header = header.encode();
        let file = self.storage.create(number).and_then(|mut file| {
            file.append(&header)?;
            Ok(file)
        });
        let file = file.inspect_err(|_| self.discard(number))?;
        self.counters.journal.bytes_written.add(header.len() as u64);
        Ok(Active {
            number,
            file,
            length: HEADER as u64,
            sealer,
        })
    }

    /// Removes the segments from `first` on, which hold nothing that is not in memory as well: attempts on a
    /// storage that fails must not push older records out.
    fn discard(&mut self, first: u64) {
        self.active = None;
        for number in first..self.next {
            let removed = self.storage.remove(number);
            let is_gone =
                removed.map_or_else(|error| error.kind() == io::ErrorKind::NotFound, |()| true);
            if is_gone && let Some(closed) = &mut self.closed {
                closed.retain(|(other, _)| *other != number);
            }
        }
    }

    /// Drops the oldest segments until one more fits.
    fn make_room(&mut self) {
        let needed = self.segment_bytes();
        let Some(closed) = &mut self.closed else {
            return;
        };
        while let Some((oldest, _)) = closed.front().copied()
            && stored(closed) + needed > self.max_bytes
        {
            match self.storage.remove(oldest) {
                Ok(()) => self.counters.journal.segments_dropped.add(1),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    log::warn!(
                        "{}: segment {oldest} cannot be removed: {error}",
                        self.place
                    );
                }
            }
            closed.pop_front();
        }
    }

    fn count_bytes(&self) {
        let active = self.active.as_ref().map_or(0, |active| active.length);
        let bytes = self.closed.as_ref().map_or(0, stored) + blocks(active);
        self.counters.journal.bytes.set(bytes);
    }

    /// Looks at the segments there are: cuts off what a power cut tore, and counts what is damaged.
    fn recover(&mut self) -> io::Result<()> {
        self.storage.open()?;
        let mut closed: VecDeque<(u64, u64)> = self.storage.list()?.into();
        let mut damaged = 0;
        if let Some((number, length)) = closed.back_mut() {
            // What cannot be read is not cut either.
            let whole = |bytes: Vec<u8>| whole_records(&bytes, *number);
            let (end, places) = match self.storage.read(*number) {
                Err(error) if is_unreadable(&error) => (*length as usize, 1),
                bytes => bytes.map(whole)?,
            };
            damaged = places;
            if end == 0 && *length > HEADER as u64 {
                // A header that was whole once: nothing here was torn while it was written.
                damaged += 1;
            } else if (end as u64) < *length {
                let torn = *length - end as u64;
                log::warn!(
                    "{}: {torn} bytes at the end of segment {number} were cut off: the power failed, or the process, while they were written",
                    self.place
                );
                self.storage.truncate(*number, end as u64)?;
                self.counters.journal.torn_bytes.add(torn);
                *length = end as u64;
            }
            self.next = *number + 1;
            if *length == 0 {
                self.storage.remove(*number)?;
                closed.pop_back();
            }
        }
        for (number, _) in closed.iter().rev().skip(1) {
            damaged += match self.storage.read(*number) {
                Err(error) if is_unreadable(&error) => 1,
                bytes => whole_records(&bytes?, *number).1,
            };
        }
        if damaged > 0 {
            self.counters.journal.damaged.add(damaged);
            log::warn!(
                "{}: {damaged} places are damaged; what is there is skipped",
                self.place
            );
        }
        self.closed = Some(closed);
        self.count_bytes();
        Ok(())
    }

    /// Leaves the active segment as it is; from now on records are kept in memory.
    fn fail(&mut self, error: &io::Error) {
        self.counters.journal.errors.add(1);
        self.frames.clear();
        self.framed = 0;
        self.dirty = false;
        if let Some(active) = self.active.take() {
            let closed = self.closed.get_or_insert_default();
            closed.push_back((active.number, active.length));
        }
        let now = Instant::now();
        match &mut self.failure {
            Some(failure) => {
                failure.pause = (failure.pause * 2).min(MAX_PAUSE);
                failure.retry_at = now + failure.pause;
            }
            None => {
                self.counters
                    .journal
                    .working
                    .store(false, Ordering::Relaxed);
                self.failure = Some(Failure {
                    retry_at: now + FIRST_PAUSE,
                    pause: FIRST_PAUSE,
                    lost_before: self.counters.journal.lost.get(),
                });
                log::warn!(
                    "{}: the journal cannot be written: {error}; records stay in memory until it can",
                    self.place
                );
            }
        }
    }

    fn retry(&mut self) {
        match self.write_again() {
            Ok(()) => {
                let lost_before = self.failure.take().map_or(0, |failure| failure.lost_before);
                let lost = self.counters.journal.lost.get() - lost_before;
                self.counters.journal.working.store(true, Ordering::Relaxed);
                log::warn!(
                    "{}: the journal is written again; {lost} records did not get into it",
                    self.place
                );
            }
            Err(error) => self.fail(&error),
        }
    }

    /// Everything that is not known to be on the storage goes into a new segment.
    fn write_again(&mut self) -> io::Result<()> {
        if self.closed.is_none() {
            self.recover()?;
        }
        self.storage.open()?;
        // Out of self, because framing needs all of it.
        let unsynced = std::mem::replace(&mut self.unsynced, RecordRing::new(UNSYNCED));
        let first = self.next;
        let mut result = Ok(());
        for record in unsynced.iter() {
            result = result
                .and_then(|()| self.make_way(record))
                .and_then(|()| self.frame(record));
        }
        result = result.and_then(|()| self.write(true));
        if result.is_err() {
            self.unsynced = unsynced;
            self.discard(first);
        }
        result
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.commit(true);
    }
}

fn blocks(length: u64) -> u64 {
    length.div_ceil(BLOCK) * BLOCK
}

fn stored(segments: &VecDeque<(u64, u64)>) -> u64 {
    segments.iter().map(|(_, length)| blocks(*length)).sum()
}

/// Where the last record of a segment ends, and how many places before it hold no record but should.
fn whole_records(bytes: &[u8], number: u64) -> (usize, u64) {
    if Header::decode(bytes).is_none() {
        return (0, 0);
    }
    let (mut at, mut end, mut damaged, mut in_damage) = (HEADER, HEADER, 0, false);
    while at < bytes.len() {
        match frame_at(bytes, at, number) {
            Frame::Record(_, next) => {
                damaged += u64::from(in_damage);
                in_damage = false;
                at = next;
                end = next;
            }
            Frame::Cut | Frame::Damaged => {
                in_damage = true;
                at = next_mark(bytes, at);
            }
        }
    }
    (end, damaged)
}
