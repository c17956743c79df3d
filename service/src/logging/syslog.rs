//! The firmware's syslog daemon: it may be missing, be restarted or be slow, and nobody waits for it.
//!
//! The `syslog` crate gives up when the daemon is restarted and takes ENOBUFS for the end (its issues
//! 21 and 79). Here a thread holds the connection, with a bounded queue in front: a producer whose
//! record finds the queue full counts it as lost and goes on.

use std::io::{self, BufWriter};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use log::Level;
use syslog::{
    Error, Facility as SyslogFacility, Formatter3164, LogFormat, Logger, LoggerBackend, Severity,
};

use crate::config::{Facility, SyslogConfig};

/// Records that wait for the daemon. At 2 KiB each, at most half a MiB.
const QUEUE: usize = 256;
/// How long one write may take.
const WRITE_LIMIT: Duration = Duration::from_millis(250);
/// The first pause before the daemon is tried again; doubled up to [`MAX_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const MAX_PAUSE: Duration = Duration::from_secs(1);
/// How long the end of the process waits for what is in the queue.
const FLUSH_LIMIT: Duration = Duration::from_millis(500);
/// The thread formats one line at a time.
const STACK: usize = 64 * 1024;

enum Item {
    Message(Level, String),
    Flush(SyncSender<()>),
}

/// The queue in front of the daemon. Dropping it ends the thread.
pub(super) struct Syslog {
    queue: SyncSender<Item>,
    lost: Arc<AtomicU64>,
}

impl Syslog {
    /// Starts the thread. `None` when the system has none to give; the log then goes without syslog.
    pub(super) fn start(config: &SyslogConfig) -> Option<Self> {
        let (queue, items) = sync_channel(QUEUE);
        let lost = Arc::new(AtomicU64::new(0));
        let mut writer = Writer {
            socket: config.socket.clone(),
            formatter: Formatter3164 {
                facility: facility(config.facility),
                // The daemon on the same device knows the host's name.
                hostname: None,
                process: config.tag.clone(),
                pid: std::process::id(),
            },
            connection: None,
            lost: Arc::clone(&lost),
            told: 0,
        };
        thread::Builder::new()
            .name(String::from("syslog"))
            .stack_size(STACK)
            .spawn(move || writer.run(&items))
            .ok()?;
        Some(Self { queue, lost })
    }

    /// Hands a record over, or counts it as lost. Never waits.
    pub(super) fn send(&self, level: Level, message: String) {
        match self.queue.try_send(Item::Message(level, message)) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Waits until what is queued has been handed over, at most [`FLUSH_LIMIT`].
    pub(super) fn flush(&self) {
        let (done, wait) = sync_channel(1);
        if self.queue.try_send(Item::Flush(done)).is_ok() {
            // Too late is as good as done: the process wants to end.
            let _ = wait.recv_timeout(FLUSH_LIMIT);
        }
    }

    /// Records that found the queue full.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

struct Writer {
    socket: PathBuf,
    formatter: Formatter3164,
    connection: Option<Logger<LoggerBackend, Formatter3164>>,
    lost: Arc<AtomicU64>,
    /// How many of the lost ones the log has been told of.
    told: u64,
}

impl Writer {
    fn run(&mut self, items: &Receiver<Item>) {
        loop {
            match items.recv_timeout(MAX_PAUSE) {
                Ok(Item::Message(level, message)) => self.deliver(severity(level), &message),
                Ok(Item::Flush(done)) => {
                    // Nobody waits any more when this fails.
                    let _ = done.try_send(());
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.tell_lost();
        }
    }

    /// Writes one message, however long the daemon is away: the queue bounds what waits behind it.
    fn deliver(&mut self, severity: Severity, message: &str) {
        let mut pause = FIRST_PAUSE;
        while let Err(error) = self.write(severity, message) {
            if !keeps_connection(&error) {
                self.connection = None;
            }
            if is_too_long(&error) {
                self.lost.fetch_add(1, Ordering::Relaxed);
                return;
            }
            thread::sleep(pause);
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    fn tell_lost(&mut self) {
        let lost = self.lost.load(Ordering::Relaxed);
        if lost > self.told {
            let message = format!("{} messages lost", lost - self.told);
            if self.write(Severity::LOG_WARNING, &message).is_ok() {
                self.told = lost;
            }
        }
    }

    fn write(&mut self, severity: Severity, message: &str) -> io::Result<()> {
        let logger = match &mut self.connection {
            Some(logger) => logger,
            None => self
                .connection
                .insert(Logger::new(connect(&self.socket)?, self.formatter.clone())),
        };
        logger
            .formatter
            .format(&mut logger.backend, severity, message)
            .map_err(|error| match error {
                Error::Write(error) | Error::Io(error) => error,
                error => io::Error::other(error.to_string()),
            })
    }
}

/// A daemon that is only slow is still the same daemon.
fn keeps_connection(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

/// The daemon's socket takes no message of this length.
fn is_too_long(error: &io::Error) -> bool {
    // EMSGSIZE has no ErrorKind; 90 on every Linux but MIPS, SPARC and PA-RISC.
    error.raw_os_error() == Some(90)
}

/// Connects as `unix_custom` of the syslog crate does, with a limit on writing.
fn connect(path: &Path) -> io::Result<LoggerBackend> {
    let datagram = UnixDatagram::unbound()?;
    datagram.set_write_timeout(Some(WRITE_LIMIT))?;
    match datagram.connect(path) {
        Ok(()) => Ok(LoggerBackend::Unix(datagram)),
        // The daemon listens on a stream: EPROTOTYPE has no ErrorKind.
        Err(error) if error.raw_os_error() == Some(91) => {
            let stream = UnixStream::connect(path)?;
            stream.set_write_timeout(Some(WRITE_LIMIT))?;
            Ok(LoggerBackend::UnixStream(BufWriter::new(stream)))
        }
        Err(error) => Err(error),
    }
}

fn severity(level: Level) -> Severity {
    match level {
        Level::Error => Severity::LOG_ERR,
        Level::Warn => Severity::LOG_WARNING,
        Level::Info => Severity::LOG_INFO,
        Level::Debug | Level::Trace => Severity::LOG_DEBUG,
    }
}

fn facility(facility: Facility) -> SyslogFacility {
    match facility {
        Facility::Kern => SyslogFacility::LOG_KERN,
        Facility::User => SyslogFacility::LOG_USER,
        Facility::Mail => SyslogFacility::LOG_MAIL,
        Facility::Daemon => SyslogFacility::LOG_DAEMON,
        Facility::Auth => SyslogFacility::LOG_AUTH,
        Facility::Syslog => SyslogFacility::LOG_SYSLOG,
        Facility::Lpr => SyslogFacility::LOG_LPR,
        Facility::News => SyslogFacility::LOG_NEWS,
        Facility::Uucp => SyslogFacility::LOG_UUCP,
        Facility::Cron => SyslogFacility::LOG_CRON,
        Facility::Authpriv => SyslogFacility::LOG_AUTHPRIV,
        Facility::Ftp => SyslogFacility::LOG_FTP,
        Facility::Local0 => SyslogFacility::LOG_LOCAL0,
        Facility::Local1 => SyslogFacility::LOG_LOCAL1,
        Facility::Local2 => SyslogFacility::LOG_LOCAL2,
        Facility::Local3 => SyslogFacility::LOG_LOCAL3,
        Facility::Local4 => SyslogFacility::LOG_LOCAL4,
        Facility::Local5 => SyslogFacility::LOG_LOCAL5,
        Facility::Local6 => SyslogFacility::LOG_LOCAL6,
        Facility::Local7 => SyslogFacility::LOG_LOCAL7,
    }
}
