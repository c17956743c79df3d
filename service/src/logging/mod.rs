//! From a `log` record to the firmware's syslog, to memory and to the journal that outlives a power cut.
//!
//! Installing a logger is the program's choice: `edgeweb serve` does, an embedding program may. A record
//! passes the filter, is written down once as an [`Entry`]'s bytes on the caller's side, and waits in one of
//! two bounded lanes for the log's own thread, which gives it to every sink. Standard error alone is
//! written by the caller: it is for a person who looks at a program that they started.
//!
//! `log` knows five levels and syslog eight severities: a key-value `severity` says one that `log` has
//! not, as in `log::error!(severity = "critical"; "the pump is on fire")`; [`record`] says where it got to.

mod capture;
mod counters;
mod entry;
mod escape;
mod forward;
mod input;
mod journal;
mod lanes;
mod lines;
mod metrics;
mod origin;
mod pipe_reader;
mod prefixes;
pub mod query;
mod recent;
mod record_ring;
mod redact;
#[cfg(any(feature = "syslog", feature = "uplink"))]
mod rfc5424;
pub mod seal;
mod severity;
#[cfg(feature = "syslog")]
mod syslog;
#[cfg(feature = "uplink")]
mod uplink;
mod writer;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io::IsTerminal;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use log::kv::{Key, Value, VisitSource};
use log::{LevelFilter, Log, Metadata, Record};

pub use capture::{Capture, CaptureError, capture_stderr, capture_stdout};
pub use entry::Entry;
pub(crate) use input::LogInput;
pub use lanes::Stored;
pub(crate) use metrics::write_metrics;
pub use pipe_reader::PipeReader;
pub use prefixes::Prefixes;
pub use severity::{Severity, UnknownSeverity};

use crate::config::{LogConfig, StderrLog};
use entry::Encoder;
use lanes::{Command, Waits};
use writer::Path;

static LOGGER: OnceLock<Logger> = OnceLock::new();

/// The key-value that says a severity which `log` does not have.
const SEVERITY: &str = "severity";
/// How long a flush or a new configuration waits for the log's own thread.
const COMMAND_LIMIT: Duration = Duration::from_secs(3);

thread_local! {
    /// What a record is written down in, used again and again.
    static ENCODER: RefCell<Encoder> = const { RefCell::new(Encoder::new()) };
    static NEVER_WAITS: Cell<bool> = const { Cell::new(false) };
}

/// The calling thread is one that others wait for when they log.
fn never_wait() {
    NEVER_WAITS.set(true);
}

/// Whether `tag` may stand before a message as the name of a program: 1 to 32 letters, digits, `-`, `_`, `.`.
#[must_use]
pub fn is_tag(tag: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    (1..=32).contains(&tag.len()) && tag.chars().all(plain)
}

/// The process already has another logger.
#[derive(Debug, thiserror::Error)]
#[error("the process has a logger already; leave the log to it, or install edgeweb's first")]
pub struct AlreadyInstalled;

/// Makes this the logger of the process.
///
/// # Errors
/// [`AlreadyInstalled`] when the program has set another one.
pub fn install(config: &LogConfig) -> Result<(), AlreadyInstalled> {
    let logger = LOGGER.get_or_init(|| Logger {
        // First, while there is one thread: later the offset cannot be asked for.
        path: {
            local_offset();
            Path::start(config)
        },
        choice: RwLock::new(Choice::new(config)),
    });
    let installed = log::set_logger(logger).map_err(|_| AlreadyInstalled);
    if installed.is_ok() {
        log::set_max_level(logger.max_level());
    }
    if let Some(path) = &logger.path {
        path.begin();
    }
    installed
}

/// Whether records reach standard error.
#[must_use]
pub fn reaches_stderr() -> bool {
    LOGGER
        .get()
        .is_some_and(|logger| logger.read().stderr.is_some())
}

/// Puts a record into the log and says where it is. One of severity critical and above waits for the
/// storage, at most 2 s.
pub fn record(severity: Severity, target: &str, message: fmt::Arguments<'_>) -> Stored {
    match LOGGER.get() {
        Some(logger) => logger.record(severity, target, 0, message),
        None => Stored::Nowhere,
    }
}

/// Takes over what another program said; nobody waits for it to be on the storage.
fn submit(severity: Severity, tag: &str, pid: u32, text: &str) {
    if let Some(logger) = LOGGER.get() {
        logger.record(severity, tag, pid, format_args!("{text}"));
    }
}

/// Takes a new configuration over, if [`install`] was called before.
pub(crate) fn reconfigure(config: &LogConfig) {
    if let Some(logger) = LOGGER.get() {
        logger.ask(|reply| Command::Configure(Box::new(config.clone()), reply));
        *logger
            .choice
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Choice::new(config);
        log::set_max_level(logger.max_level());
    }
}

/// The log path of the process, once there is one.
fn path() -> Option<&'static Arc<Path>> {
    LOGGER.get()?.path.as_ref()
}

/// What the clocks of this device's programs differ from UTC by, as it was when the log was installed.
fn local_offset() -> time::UtcOffset {
    static OFFSET: OnceLock<time::UtcOffset> = OnceLock::new();
    *OFFSET.get_or_init(|| time::UtcOffset::current_local_offset().unwrap_or(time::UtcOffset::UTC))
}

struct Logger {
    path: Option<Arc<Path>>,
    choice: RwLock<Choice>,
}

/// Which records pass, and whether a person sees them.
struct Choice {
    filter: env_filter::Filter,
    stderr: Option<Arc<env_logger::Logger>>,
}

impl Choice {
    fn new(config: &LogConfig) -> Self {
        let directives = std::env::var("RUST_LOG").unwrap_or_else(|_| config.filter.clone());
        let filter = env_filter::Builder::new().parse(&directives).build();
        let to_stderr = match config.stderr {
            StderrLog::Auto => std::io::stderr().is_terminal(),
            StderrLog::Always => true,
            StderrLog::Never => false,
        };
        Self {
            stderr: to_stderr.then(|| Arc::new(stderr_logger(filter.filter()))),
            filter,
        }
    }

    /// Standard error, unless it is captured: what is written there would come back as a record.
    fn stderr(&self) -> Option<Arc<env_logger::Logger>> {
        let stderr = self.stderr.as_ref();
        stderr.filter(|_| !capture::has_stderr()).cloned()
    }
}

/// The filter has been applied when a record gets here.
fn stderr_logger(level: LevelFilter) -> env_logger::Logger {
    use std::io::Write;
    env_logger::Builder::new()
        .filter_level(level)
        .target(env_logger::Target::Stderr)
        .format(|out, record| {
            let line = escape::line(&record.args().to_string());
            write!(
                out,
                "{:<5} {}: {}",
                record.level(),
                record.target(),
                redact::redact(&line)
            )?;
            let mut fields = Fields(|key: &str, value: fmt::Arguments<'_>| {
                let value = escape::line(&value.to_string());
                let value = redact::redact(&value);
                let is_secret = redact::is_secret_name(key);
                let value = if is_secret { "***" } else { &*value };
                write!(out, " {}={value:?}", escape::line(key))
            });
            let visited = record.key_values().visit(&mut fields);
            visited.map_err(std::io::Error::other)?;
            writeln!(out)
        })
        .build()
}

/// Shows a record's key-values to a function.
struct Fields<F>(F);

impl<'kvs, F, E> VisitSource<'kvs> for Fields<F>
where
    F: FnMut(&str, fmt::Arguments<'_>) -> Result<(), E>,
    E: std::error::Error + Send + Sync + 'static,
{
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), log::kv::Error> {
        (self.0)(key.as_str(), format_args!("{value}")).map_err(log::kv::Error::boxed)
    }
}

impl Logger {
    fn read(&self) -> std::sync::RwLockReadGuard<'_, Choice> {
        self.choice.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn max_level(&self) -> LevelFilter {
        self.read().filter.filter()
    }

    /// A record that does not come by way of `log`.
    fn record(
        &self,
        severity: Severity,
        target: &str,
        pid: u32,
        message: fmt::Arguments<'_>,
    ) -> Stored {
        let choice = self.read();
        let level = severity.level();
        let record = Record::builder()
            .args(message)
            .level(level)
            .target(target)
            .build();
        if !choice.filter.matches(&record) {
            return Stored::Nowhere;
        }
        let stderr = choice.stderr();
        // Standard error may be slow, and what is formatted may log; a new configuration must not wait for it.
        drop(choice);
        if let Some(stderr) = stderr {
            stderr.log(&record);
        }
        // Another program does not wait for the storage; it cannot be told anyway.
        let waits = if pid == 0 {
            Waits::ForStorage
        } else {
            Waits::ForRoom
        };
        self.push(waits, |encoder| {
            encoder.begin(origin::now(), pid, severity, target);
            encoder.message(message);
        })
    }

    fn push(&self, waits: Waits, write: impl FnOnce(&mut Encoder)) -> Stored {
        let Some(path) = &self.path else {
            return Stored::Nowhere;
        };
        let waits = match NEVER_WAITS.try_with(Cell::get) {
            Ok(false) => waits,
            _ => Waits::Never,
        };
        let mut write = Some(write);
        let pushed = ENCODER.try_with(|encoder| {
            // A value that logs while it is being formatted finds the encoder taken.
            let mut encoder = encoder.try_borrow_mut().ok()?;
            (write.take()?)(&mut encoder);
            Some(path.lanes.push(encoder.bytes_mut(), waits))
        });
        match (pushed, write) {
            (Ok(Some(stored)), _) => stored,
            (_, Some(write)) => {
                let mut encoder = Encoder::new();
                write(&mut encoder);
                path.lanes.push(encoder.bytes_mut(), waits)
            }
            _ => Stored::Nowhere,
        }
    }

    /// Gives the log's own thread a command and waits until it is done, within a limit.
    fn ask(&self, command: impl FnOnce(std::sync::mpsc::SyncSender<()>) -> Command) {
        if let Some(path) = &self.path
            && !NEVER_WAITS.get()
        {
            let (reply, done) = sync_channel(1);
            path.lanes.command(command(reply));
            // Too late is as good as done: the process wants to go on.
            let _ = done.recv_timeout(COMMAND_LIMIT);
        }
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.read().filter.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        let choice = self.read();
        if !choice.filter.matches(record) {
            return;
        }
        let stderr = choice.stderr();
        drop(choice);
        if let Some(stderr) = stderr {
            stderr.log(record);
        }
        let fields = record.key_values();
        let severity = fields
            .get(Key::from(SEVERITY))
            .and_then(|value| value.to_string().parse().ok())
            .unwrap_or_else(|| Severity::from(record.level()));
        self.push(Waits::ForStorage, |encoder| {
            encoder.begin(origin::now(), 0, severity, record.target());
            let mut visitor = Fields(|key: &str, value: fmt::Arguments<'_>| {
                if key != SEVERITY {
                    encoder.field(key, value);
                }
                Ok::<_, fmt::Error>(())
            });
            // Nothing in the visitor fails.
            let _ = fields.visit(&mut visitor);
            encoder.message(*record.args());
        });
    }

    fn flush(&self) {
        self.ask(Command::Flush);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;
    use std::thread;

    #[test]
    fn what_is_formatted_may_log_while_a_new_configuration_comes() {
        struct Logs(&'static Logger);

        impl fmt::Display for Logs {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let logger = self.0;
                thread::spawn(move || drop(logger.choice.write()));
                // Until the new configuration waits for its turn.
                thread::sleep(Duration::from_millis(50));
                logger.enabled(&Metadata::builder().build());
                f.write_str("text")
            }
        }

        let config = LogConfig {
            stderr: StderrLog::Always,
            ..LogConfig::default()
        };
        let logger = Box::leak(Box::new(Logger {
            path: None,
            choice: RwLock::new(Choice::new(&config)),
        }));
        let (ended, end) = channel();
        thread::spawn(move || {
            let text = Logs(logger);
            logger.log(
                &Record::builder()
                    .level(log::Level::Error)
                    .args(format_args!("{text}"))
                    .build(),
            );
            ended.send(())
        });
        assert_eq!(end.recv_timeout(Duration::from_secs(10)), Ok(()));
    }
}
