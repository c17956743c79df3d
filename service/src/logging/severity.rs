//! The severities of syslog.

use std::fmt;
use std::str::FromStr;

use log::{Level, LevelFilter};
use serde::{Deserialize, Serialize};

/// How bad it is (RFC 5424, section 6.2.1). The worst comes first: `Critical < Error`.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Severity {
    /// The device is unusable.
    #[serde(alias = "emerg")]
    Emergency,
    /// Somebody must act at once.
    Alert,
    /// Something essential has failed. From here up, a record is on the flash before its call returns.
    #[serde(alias = "crit")]
    Critical,
    /// Something did not work.
    #[serde(alias = "err")]
    Error,
    /// Something may go wrong.
    #[serde(alias = "warn")]
    Warning,
    /// Normal, and worth noticing.
    Notice,
    /// What happens.
    Info,
    /// What only a programmer wants to know.
    Debug,
}

impl Severity {
    /// All of them, the worst first; the index is the number in syslog's priority.
    pub const ALL: [Self; 8] = [
        Self::Emergency,
        Self::Alert,
        Self::Critical,
        Self::Error,
        Self::Warning,
        Self::Notice,
        Self::Info,
        Self::Debug,
    ];

    /// Its name, as the configuration, the API and the metrics have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Emergency => "emergency",
            Self::Alert => "alert",
            Self::Critical => "critical",
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Notice => "notice",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }

    /// The severity of that number in syslog's priority.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// The level of the `log` crate that the filter judges it by.
    #[must_use]
    pub const fn level(self) -> Level {
        match self {
            Self::Emergency | Self::Alert | Self::Critical | Self::Error => Level::Error,
            Self::Warning => Level::Warn,
            Self::Notice | Self::Info => Level::Info,
            Self::Debug => Level::Debug,
        }
    }

    /// Whether such a record waits in the lane from which nothing is dropped.
    pub(super) fn is_important(self) -> bool {
        self <= Self::Error
    }

    /// Whether such a record is on the flash before its call returns.
    pub(super) fn is_critical(self) -> bool {
        self <= Self::Critical
    }
}

impl From<Level> for Severity {
    fn from(level: Level) -> Self {
        match level {
            Level::Error => Self::Error,
            Level::Warn => Self::Warning,
            Level::Info => Self::Info,
            Level::Debug | Level::Trace => Self::Debug,
        }
    }
}

impl From<Severity> for LevelFilter {
    fn from(severity: Severity) -> Self {
        severity.level().to_level_filter()
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A word that names no severity.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no severity; emergency, alert, critical, error, warning, notice, info or debug")]
pub struct UnknownSeverity(String);

impl FromStr for Severity {
    type Err = UnknownSeverity;

    /// Reads a name, or the short form that syslog's own programs use (`emerg`, `crit`, `err`, `warn`).
    fn from_str(name: &str) -> Result<Self, UnknownSeverity> {
        let long = match name {
            "emerg" => "emergency",
            "crit" => "critical",
            "err" => "error",
            "warn" => "warning",
            long => long,
        };
        Self::ALL
            .into_iter()
            .find(|severity| severity.name() == long)
            .ok_or_else(|| UnknownSeverity(name.to_owned()))
    }
}
