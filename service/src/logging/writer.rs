//! The log's own thread: takes records from the lanes and gives them to every sink.

use std::sync::atomic::Ordering;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use super::counters::Counters;
use super::entry::{Encoder, Entry, Times, seq_of, severity_of};
use super::journal::Journal;
use super::lanes::{Buffers, Command, Lanes, by_severity};
use super::origin::Origin;
use super::recent::Recent;
use super::record_ring::RecordRing;
use super::redact::{is_secret_name, redact};
use super::severity::Severity;
#[cfg(feature = "syslog")]
use super::syslog::Syslog;
#[cfg(feature = "uplink")]
use super::uplink::Uplink;
use crate::config::{JournalConfig, LogConfig};

/// How often at most the log says what was dropped.
const DROPPED_EVERY: Duration = Duration::from_secs(1);
/// The thread formats one line at a time and seals with HPKE.
const STACK: usize = 128 * 1024;

/// Everything of the log path that outlives a new configuration.
pub(super) struct Path {
    pub(super) lanes: Lanes,
    pub(super) recent: Arc<Recent>,
    pub(super) counters: Arc<Counters>,
    pub(super) origin: Origin,
    /// Where the journal is, for those who read it.
    pub(super) journal: RwLock<JournalConfig>,
    begin: SyncSender<()>,
}

impl Path {
    /// Starts the thread, which waits for [`Path::begin`]. `None` when the system has none to give; the log then goes to standard error only.
    pub(super) fn start(config: &LogConfig) -> Option<Arc<Self>> {
        let counters: Arc<Counters> = Arc::default();
        let (begin, begun) = sync_channel(1);
        let recent = &config.recent;
        let path = Arc::new(Self {
            lanes: Lanes::new(config.buffer_bytes, &counters),
            recent: Arc::new(Recent::new(recent.max_bytes, recent.max_readers, &counters)),
            counters,
            origin: Origin::of_this_process(),
            journal: RwLock::new(config.journal.clone()),
            begin,
        });
        let mut writer = Writer {
            back: Buffers::new(config.buffer_bytes),
            buffer_bytes: config.buffer_bytes,
            path: Arc::clone(&path),
            sinks: Sinks::default(),
            encoder: Encoder::new(),
            #[cfg(feature = "uplink")]
            journal_told: 0,
            dropped_told: 0,
            dropped: [0; 8],
            told_at: None,
        };
        let config = config.clone();
        thread::Builder::new()
            .name(String::from("log"))
            .stack_size(STACK)
            .spawn(move || {
                super::never_wait();
                // It always comes; the sender is in the path, which is never dropped.
                let _ = begun.recv();
                writer.configure(&config);
                writer.run();
            })
            .ok()?;
        Some(path)
    }

    /// Opens the sinks, once what they have to say of that has a logger.
    pub(super) fn begin(&self) {
        // The thread has been told before, or is told now.
        let _ = self.begin.try_send(());
    }
}

/// What a configuration says.
#[derive(Default)]
struct Sinks {
    #[cfg(feature = "syslog")]
    syslog: Option<Syslog>,
    #[cfg(feature = "uplink")]
    uplink: Option<Uplink>,
    journal: Option<Journal>,
    journal_from: Option<(JournalConfig, Severity)>,
}

struct Writer {
    path: Arc<Path>,
    back: Buffers,
    buffer_bytes: usize,
    sinks: Sinks,
    encoder: Encoder,
    /// How many records the journal had written when the uplink was told.
    #[cfg(feature = "uplink")]
    journal_told: u64,
    /// How many dropped records the log has been told of, in all and of each severity, and when.
    dropped_told: u64,
    dropped: [u64; 8],
    told_at: Option<Instant>,
}

impl Writer {
    fn run(&mut self) {
        loop {
            let deadline = self.deadline();
            let path = Arc::clone(&self.path);
            let commands = path.lanes.take(&mut self.back, deadline);
            self.work();
            self.tell_dropped();
            for command in commands {
                match command {
                    Command::Configure(config, reply) => {
                        self.configure(&config);
                        // Whoever asked may have gone on.
                        let _ = reply.try_send(());
                    }
                    Command::Flush(reply) => {
                        self.flush();
                        let _ = reply.try_send(());
                    }
                }
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let journal = self.sinks.journal.as_ref().and_then(Journal::deadline);
        let dropped = self
            .told_at
            .filter(|_| self.path.counters.dropped.total() > self.dropped_told)
            .map(|told| told + DROPPED_EVERY);
        journal.into_iter().chain(dropped).min()
    }

    /// Gives what the back buffers hold to every sink.
    fn work(&mut self) {
        let back = std::mem::replace(&mut self.back, Buffers::new(0));
        let (mut newest, mut is_critical) = (0, false);
        let journal_worked = self.journal_works();
        for record in back.in_order() {
            newest = seq_of(record);
            let severity = severity_of(record);
            is_critical |= severity.is_critical();
            self.path.counters.handled.of(severity).add(1);
            match without_secrets(record, &mut self.encoder) {
                true => {
                    let encoder = std::mem::take(&mut self.encoder);
                    self.give(encoder.bytes(), severity, journal_worked);
                    self.encoder = encoder;
                }
                false => self.give(record, severity, journal_worked),
            }
        }
        self.back = back;
        self.back.clear();
        if self.back.important.capacity() != self.buffer_bytes {
            self.back = Buffers::new(self.buffer_bytes);
        }
        let is_durable = match &mut self.sinks.journal {
            Some(journal) => journal.commit(is_critical),
            None => false,
        };
        #[cfg(feature = "uplink")]
        self.tell_uplink(journal_worked);
        if newest > 0 {
            self.path.recent.announce(newest);
            self.path.lanes.done(newest, is_durable);
        }
    }

    fn journal_works(&self) -> bool {
        self.sinks.journal.as_ref().is_some_and(Journal::is_working)
    }

    /// `journal_worked` says whether a record that goes to the journal can be read there.
    fn give(&mut self, record: &[u8], severity: Severity, journal_worked: bool) {
        self.path.recent.push(record);
        #[cfg(feature = "syslog")]
        if let Some(syslog) = &self.sinks.syslog {
            syslog.offer(record);
        }
        let mut is_in_journal = false;
        if let (Some(journal), Some((_, least))) =
            (&mut self.sinks.journal, &self.sinks.journal_from)
            && severity <= *least
        {
            journal.append(record);
            is_in_journal = journal_worked;
        }
        #[cfg(feature = "uplink")]
        if let Some(uplink) = &self.sinks.uplink
            && !(is_in_journal && uplink.reads_journal())
        {
            uplink.offer(record);
        }
        #[cfg(not(feature = "uplink"))]
        let _ = is_in_journal;
    }

    /// What the journal has written can be sent from there; what it has just failed to write cannot.
    #[cfg(feature = "uplink")]
    fn tell_uplink(&mut self, journal_worked: bool) {
        let (Some(uplink), Some(journal)) = (&self.sinks.uplink, &self.sinks.journal) else {
            return;
        };
        let written = self.path.counters.journal.written.get();
        if written != self.journal_told {
            self.journal_told = written;
            uplink.journal_grew();
        }
        if !journal.is_working() && journal_worked && uplink.reads_journal() {
            journal.unsynced().for_each(|record| uplink.offer(record));
        }
    }

    /// Says how many records were dropped under pressure, at most once in a while.
    fn tell_dropped(&mut self) {
        let total = self.path.counters.dropped.total();
        let is_due = self
            .told_at
            .is_none_or(|told| told.elapsed() >= DROPPED_EVERY);
        if total == self.dropped_told || !is_due {
            return;
        }
        let now = self.path.counters.dropped.get();
        let new: [u64; 8] = std::array::from_fn(|index| now[index] - self.dropped[index]);
        self.dropped = now;
        self.dropped_told = now.iter().sum();
        self.told_at = Some(Instant::now());
        log::warn!(
            "{} log records were dropped, more came than could be taken: {}",
            new.iter().sum::<u64>(),
            by_severity(new)
        );
    }

    fn configure(&mut self, config: &LogConfig) {
        let path = &self.path;
        path.recent
            .configure(config.recent.max_bytes, config.recent.max_readers);
        self.buffer_bytes = config.buffer_bytes;
        let wanted = config.journal.enabled.then_some(&config.journal);
        let has = self.sinks.journal_from.as_ref().map(|(config, _)| config);
        if wanted != has {
            // The old one first: a journal has one writer.
            let left = self.sinks.journal.take().map(Journal::close);
            self.sinks.journal =
                wanted.map(|journal| Journal::open(journal, path.origin, &path.counters));
            let left = left.iter().flat_map(RecordRing::iter);
            match &mut self.sinks.journal {
                Some(journal) => {
                    left.for_each(|record| journal.append(record));
                    journal.commit(true);
                }
                None => {
                    let counters = &path.counters.journal;
                    counters.lost.add(left.count() as u64);
                    counters.working.store(false, Ordering::Relaxed);
                }
            }
            self.sinks.journal_from = wanted.map(|journal| (journal.clone(), journal.severity));
        }
        #[cfg(feature = "uplink")]
        {
            let has = self.sinks.uplink.as_ref();
            if !config.uplink.enabled || has.is_none_or(|uplink| !uplink.is_for(config)) {
                // The old one first: it leaves a cursor, from which the new one goes on.
                self.sinks.uplink = None;
            }
            if config.uplink.enabled && self.sinks.uplink.is_none() {
                self.sinks.uplink = Uplink::start(config, path.origin, &path.counters);
            }
        }
        *path.journal.write().unwrap_or_else(PoisonError::into_inner) = config.journal.clone();
        #[cfg(feature = "syslog")]
        {
            let wanted = config.syslog.enabled.then_some(&config.syslog);
            if wanted != self.sinks.syslog.as_ref().map(Syslog::config) {
                if let Some(old) = self.sinks.syslog.take() {
                    old.flush();
                }
                self.sinks.syslog = wanted.and_then(|config| Syslog::start(config, &path.counters));
            }
        }
    }

    fn flush(&mut self) {
        if let Some(journal) = &mut self.sinks.journal {
            journal.flush();
        }
        #[cfg(feature = "uplink")]
        if let Some(uplink) = &self.sinks.uplink {
            uplink.flush();
        }
        #[cfg(feature = "syslog")]
        if let Some(syslog) = &self.sinks.syslog {
            syslog.flush();
        }
    }
}

/// Whether `record` shows a secret; it is then written into `encoder` without.
fn without_secrets(record: &[u8], encoder: &mut Encoder) -> bool {
    let Some(entry) = Entry::decode(record) else {
        return false;
    };
    let message = redact(entry.message);
    let is_clean = matches!(message, std::borrow::Cow::Borrowed(_))
        && !entry
            .fields()
            .any(|(key, value)| is_secret_name(key) || redact(value) != value);
    if is_clean {
        return false;
    }
    let times = Times {
        wall_ns: entry.wall_ns,
        monotonic_ns: entry.monotonic_ns,
    };
    encoder.begin(times, entry.pid, entry.severity, entry.target);
    for (key, value) in entry.fields() {
        if is_secret_name(key) {
            encoder.field(key, format_args!("***"));
        } else {
            encoder.field(key, format_args!("{}", redact(value)));
        }
    }
    encoder.message(format_args!("{message}"));
    super::entry::set_seq(encoder.bytes_mut(), entry.seq);
    true
}
