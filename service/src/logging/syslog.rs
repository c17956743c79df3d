//! The firmware's syslog daemon: it may be missing, be restarted or be slow, and nobody waits for it.
//!
//! The `syslog` crate gives up when the daemon is restarted and takes ENOBUFS for the end (its issues
//! 21 and 79). Here a thread holds the connection, with a bounded ring in front: when that is full, its
//! oldest record is lost and counted. The crate's formatters stamp a record when it is sent; what waited for
//! the daemon would then have the wrong time, so the formats are written here, by the crate's own trait.

use std::io::{self, BufWriter, Write};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use syslog::{LogFormat, Logger, LoggerBackend, Severity as CrateSeverity};
use time::{OffsetDateTime, UtcOffset};

use super::counters::Counters;
use super::entry::{Entry, UNKNOWN_PID};
use super::record_ring::RecordRing;
use super::rfc5424;
use super::severity::Severity;
use crate::config::{SyslogConfig, SyslogFormat};

/// What may wait for the daemon, in bytes.
const QUEUE: usize = 64 * 1024;
/// How long one write may take.
const WRITE_LIMIT: Duration = Duration::from_millis(250);
/// The first pause before the daemon is tried again; doubled up to [`MAX_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const MAX_PAUSE: Duration = Duration::from_secs(1);
/// How long the end of the process waits for what is in the queue.
const FLUSH_LIMIT: Duration = Duration::from_millis(500);
/// The thread formats one line at a time.
const STACK: usize = 64 * 1024;
/// As RFC 3164 abbreviates them.
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// The queue in front of the daemon. Dropping it ends the thread.
pub(super) struct Syslog {
    config: SyslogConfig,
    shared: Arc<Shared>,
}

struct Shared {
    queue: Mutex<Queue>,
    /// The thread waits here for records,
    work: Condvar,
    /// and who flushes for the end of them.
    empty: Condvar,
    counters: Arc<Counters>,
}

struct Queue {
    ring: RecordRing,
    /// The thread has one in hand.
    is_sending: bool,
    ending: bool,
    /// Lost ones that the daemon has not been told of.
    untold: u64,
}

impl Syslog {
    /// Starts the thread. `None` when the system has none to give; the log then goes without syslog.
    pub(super) fn start(config: &SyslogConfig, counters: &Arc<Counters>) -> Option<Self> {
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue {
                ring: RecordRing::new(QUEUE),
                is_sending: false,
                ending: false,
                untold: 0,
            }),
            work: Condvar::new(),
            empty: Condvar::new(),
            counters: Arc::clone(counters),
        });
        let mut sender = Sender {
            shared: Arc::clone(&shared),
            config: config.clone(),
            format: Format::new(config),
            connection: None,
        };
        thread::Builder::new()
            .name(String::from("syslog"))
            .stack_size(STACK)
            .spawn(move || sender.run())
            .ok()?;
        Some(Self {
            config: config.clone(),
            shared,
        })
    }

    pub(super) fn config(&self) -> &SyslogConfig {
        &self.config
    }

    /// Hands a record over. Never waits.
    pub(super) fn offer(&self, record: &[u8]) {
        let mut queue = self.shared.lock();
        let Queue { ring, untold, .. } = &mut *queue;
        ring.push(record, |_| {
            *untold += 1;
            self.shared.counters.syslog.lost.add(1);
        });
        drop(queue);
        self.shared.work.notify_one();
    }

    /// Waits until what is queued has been handed over, at most [`FLUSH_LIMIT`].
    pub(super) fn flush(&self) {
        // Too late is as good as done: the process wants to end.
        let _ = self
            .shared
            .empty
            .wait_timeout_while(self.shared.lock(), FLUSH_LIMIT, |queue| {
                !queue.ring.is_empty() || queue.is_sending
            });
    }
}

impl Drop for Syslog {
    fn drop(&mut self) {
        let mut queue = self.shared.lock();
        queue.ending = true;
        // From here on the thread takes none.
        let left = queue.ring.iter().count() as u64;
        drop(queue);
        self.shared.counters.syslog.lost.add(left);
        self.shared.work.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the oldest record out, once there is one. False when the thread shall end.
    fn next(&self, record: &mut Vec<u8>) -> bool {
        let mut queue = self.lock();
        queue.is_sending = false;
        if queue.ring.is_empty() {
            self.empty.notify_all();
        }
        let mut queue = self
            .work
            .wait_while(queue, |queue| queue.ring.is_empty() && !queue.ending)
            .unwrap_or_else(PoisonError::into_inner);
        if queue.ending {
            return false;
        }
        record.clear();
        record.extend_from_slice(queue.ring.oldest().unwrap_or_default());
        queue.ring.drop_oldest();
        queue.is_sending = true;
        true
    }

    /// Waits before the daemon is tried again. False when the thread shall end.
    fn pause(&self, limit: Duration) -> bool {
        let (queue, _) = self
            .work
            .wait_timeout_while(self.lock(), limit, |queue| !queue.ending)
            .unwrap_or_else(PoisonError::into_inner);
        !queue.ending
    }
}

struct Sender {
    shared: Arc<Shared>,
    config: SyslogConfig,
    format: Format,
    connection: Option<Logger<LoggerBackend, Format>>,
}

impl Sender {
    fn run(&mut self) {
        let mut record = Vec::new();
        while self.shared.next(&mut record) {
            let Some(entry) = Entry::decode(&record) else {
                continue;
            };
            if !self.deliver(&entry) {
                self.shared.counters.syslog.lost.add(1);
                return;
            }
            self.tell_lost(&entry);
        }
    }

    /// Sends one record, however long the daemon is away: the ring bounds what waits behind it. False when
    /// the thread shall end.
    fn deliver(&mut self, entry: &Entry<'_>) -> bool {
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match self.send(entry) {
                Ok(()) => {
                    self.shared.counters.syslog.sent.add(1);
                    return true;
                }
                Err(error) => error,
            };
            if is_too_long(&error) {
                self.shared.counters.syslog.lost.add(1);
                self.shared.lock().untold += 1;
                return true;
            }
            if !keeps_connection(&error) {
                self.connection = None;
            }
            if !self.shared.pause(pause) {
                return false;
            }
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    fn tell_lost(&mut self, last: &Entry<'_>) {
        let untold = self.shared.lock().untold;
        if untold == 0 {
            return;
        }
        let message = format!("{untold} messages lost");
        if self
            .send(&last.in_its_place(Severity::Warning, &message))
            .is_ok()
        {
            self.shared.lock().untold -= untold;
        }
    }

    fn send(&mut self, entry: &Entry<'_>) -> io::Result<()> {
        let logger = match &mut self.connection {
            Some(logger) => logger,
            None => {
                let connection = connect(&self.config.socket)?;
                self.shared.counters.syslog.connections.add(1);
                self.connection
                    .insert(Logger::new(connection, self.format.clone()))
            }
        };
        logger
            .formatter
            .format(&mut logger.backend, CrateSeverity::LOG_INFO, entry)
            .map_err(|error| match error {
                syslog::Error::Write(error) | syslog::Error::Io(error) => error,
                error => io::Error::other(error.to_string()),
            })
    }
}

/// How a record is written down.
#[derive(Clone)]
enum Format {
    Rfc3164(Rfc3164),
    Rfc5424(Arc<rfc5424::Formatter>),
}

#[derive(Clone)]
struct Rfc3164 {
    facility: u8,
    tag: String,
    /// What other lines of the same daemon have; UTC where it cannot be told.
    offset: UtcOffset,
}

impl Format {
    fn new(config: &SyslogConfig) -> Self {
        match config.format {
            SyslogFormat::Rfc3164 => Self::Rfc3164(Rfc3164 {
                facility: config.facility.number(),
                tag: config.tag.clone(),
                offset: super::local_offset(),
            }),
            SyslogFormat::Rfc5424 => Self::Rfc5424(Arc::new(rfc5424::Formatter::new(
                config.facility,
                &config.tag,
                &rfc5424::hostname(),
            ))),
        }
    }
}

impl LogFormat<&Entry<'_>> for Format {
    /// The severity is the entry's own.
    fn format<W: Write>(
        &self,
        out: &mut W,
        _: CrateSeverity,
        entry: &Entry<'_>,
    ) -> syslog::Result<()> {
        // In one piece: each write is a datagram.
        let mut line = Vec::with_capacity(entry.message.len() + 128);
        match self {
            Self::Rfc3164(format) => format.write(&mut line, entry),
            Self::Rfc5424(format) => {
                format.write(&mut line, entry, Some(std::process::id()), None);
            }
        }
        out.write_all(&line).map_err(syslog::Error::Write)
    }
}

impl Rfc3164 {
    /// RFC 3164, section 4.1, without the host's name, which the daemon on the same device knows.
    fn write(&self, line: &mut Vec<u8>, entry: &Entry<'_>) {
        let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(entry.wall_ns))
            .unwrap_or(OffsetDateTime::UNIX_EPOCH)
            .to_offset(self.offset);
        let stamp = format_args!(
            "{} {:2} {:02}:{:02}:{:02}",
            MONTHS[time.month() as usize - 1],
            time.day(),
            time.hour(),
            time.minute(),
            time.second()
        );
        let priority = self.facility * 8 + entry.severity as u8;
        let (tag, pid) = match entry.pid {
            0 => (self.tag.as_str(), std::process::id()),
            pid => (entry.target, pid),
        };
        // Writing to a Vec cannot fail.
        let _ = write!(line, "<{priority}>{stamp} {tag}");
        if pid != UNKNOWN_PID {
            let _ = write!(line, "[{pid}]");
        }
        let _ = write!(line, ": {}", entry.message);
        for (key, value) in entry.fields() {
            let _ = write!(line, " {key}={value:?}");
        }
    }
}

/// A daemon that is only slow, or whose buffer is full, is still the same daemon.
fn keeps_connection(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM)
    )
}

/// The daemon's socket takes no message of this length.
fn is_too_long(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::MSGSIZE)
}

/// Connects as `unix_custom` of the syslog crate does, with a limit on writing.
fn connect(path: &Path) -> io::Result<LoggerBackend> {
    let datagram = UnixDatagram::unbound()?;
    datagram.set_write_timeout(Some(WRITE_LIMIT))?;
    match datagram.connect(path) {
        Ok(()) => Ok(LoggerBackend::Unix(datagram)),
        // The daemon listens on a stream.
        Err(error) if Errno::from_io_error(&error) == Some(Errno::PROTOTYPE) => {
            let stream = UnixStream::connect(path)?;
            stream.set_write_timeout(Some(WRITE_LIMIT))?;
            Ok(LoggerBackend::UnixStream(BufWriter::new(stream)))
        }
        Err(error) => Err(error),
    }
}
