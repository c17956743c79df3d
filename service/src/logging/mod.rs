//! From a `log` record to the firmware's syslog and to standard error.
//!
//! Installing a logger is the program's choice: `edgeweb serve` does, an embedding program may.
//! [`Sinks`] is the seam where further sinks go in.

mod counters;
mod entry;
mod escape;
mod journal;
mod origin;
mod record_ring;
pub mod seal;
mod severity;
#[cfg(feature = "syslog")]
mod syslog;

use std::io::IsTerminal;
use std::sync::{OnceLock, PoisonError, RwLock};

use log::{LevelFilter, Log, Metadata, Record};

pub use entry::Entry;
pub use severity::{Severity, UnknownSeverity};

use crate::config::{LogConfig, StderrLog};

static LOGGER: OnceLock<Logger> = OnceLock::new();

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
    let logger = LOGGER.get_or_init(|| Logger(RwLock::new(Sinks::new(config))));
    log::set_logger(logger).map_err(|_| AlreadyInstalled)?;
    log::set_max_level(logger.max_level());
    Ok(())
}

/// Whether records reach standard error.
#[must_use]
pub fn reaches_stderr() -> bool {
    LOGGER
        .get()
        .is_some_and(|logger| logger.read().stderr.is_some())
}

/// How many records were lost because the syslog daemon did not take them.
#[must_use]
pub fn lost_messages() -> u64 {
    #[cfg(feature = "syslog")]
    if let Some(logger) = LOGGER.get()
        && let Some(syslog) = &logger.read().syslog
    {
        return syslog.lost();
    }
    0
}

/// Takes a new configuration over, if [`install`] was called before.
pub(crate) fn reconfigure(config: &LogConfig) {
    if let Some(logger) = LOGGER.get() {
        // The old sinks say what they still have to say before the new ones begin.
        logger.flush();
        let sinks = Sinks::new(config);
        *logger.0.write().unwrap_or_else(PoisonError::into_inner) = sinks;
        log::set_max_level(logger.max_level());
    }
}

struct Logger(RwLock<Sinks>);

/// Where records go, and which.
struct Sinks {
    filter: env_filter::Filter,
    stderr: Option<env_logger::Logger>,
    #[cfg(feature = "syslog")]
    syslog: Option<syslog::Syslog>,
}

impl Sinks {
    fn new(config: &LogConfig) -> Self {
        let directives = std::env::var("RUST_LOG").unwrap_or_else(|_| config.filter.clone());
        let filter = env_filter::Builder::new().parse(&directives).build();
        let to_stderr = match config.stderr {
            StderrLog::Auto => std::io::stderr().is_terminal(),
            StderrLog::Always => true,
            StderrLog::Never => false,
        };
        Self {
            stderr: to_stderr.then(|| stderr_logger(filter.filter())),
            filter,
            #[cfg(feature = "syslog")]
            syslog: config
                .syslog
                .enabled
                .then(|| syslog::Syslog::start(&config.syslog))
                .flatten(),
        }
    }
}

/// The filter has been applied when a record gets here.
fn stderr_logger(level: LevelFilter) -> env_logger::Logger {
    use std::io::Write;
    env_logger::Builder::new()
        .filter_level(level)
        .target(env_logger::Target::Stderr)
        .format(|out, record| {
            writeln!(
                out,
                "{:<5} {}: {}",
                record.level(),
                record.target(),
                escape::line(&record.args().to_string())
            )
        })
        .build()
}

impl Logger {
    fn read(&self) -> std::sync::RwLockReadGuard<'_, Sinks> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn max_level(&self) -> LevelFilter {
        self.read().filter.filter()
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.read().filter.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        let sinks = self.read();
        if !sinks.filter.matches(record) {
            return;
        }
        if let Some(stderr) = &sinks.stderr {
            stderr.log(record);
        }
        #[cfg(feature = "syslog")]
        if let Some(syslog) = &sinks.syslog {
            syslog.send(record.level(), escape::line(&record.args().to_string()));
        }
    }

    fn flush(&self) {
        #[cfg(feature = "syslog")]
        if let Some(syslog) = &self.read().syslog {
            syslog.flush();
        }
    }
}
