//! Where log records go: the table `log` of the configuration.

use std::path::PathBuf;

use serde::Deserialize;

use crate::logging::Severity;

/// Where log records go.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// The filter in `env_logger`'s notation.
    pub filter: String,
    /// Whether records go to standard error as well.
    pub stderr: StderrLog,
    /// What may wait for the log's own thread: one buffer for records of severity error and above and one
    /// for the rest, each of so many bytes, each twice. 16384 to 16777216.
    pub buffer_bytes: usize,
    /// The firmware's syslog.
    pub syslog: SyslogConfig,
    /// The newest records, in memory.
    pub recent: RecentConfig,
    /// The records that outlive a power cut.
    pub journal: JournalConfig,
    /// The collector elsewhere.
    pub uplink: UplinkConfig,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            filter: String::from("info,actix_http=off,actix_server=warn"),
            stderr: StderrLog::Auto,
            buffer_bytes: 128 * 1024,
            syslog: SyslogConfig::default(),
            recent: RecentConfig::default(),
            journal: JournalConfig::default(),
            uplink: UplinkConfig::default(),
        }
    }
}

/// Whether records go to standard error.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum StderrLog {
    /// When it is a terminal.
    #[default]
    Auto,
    /// In every case.
    Always,
    /// Not at all.
    Never,
}

/// The firmware's syslog.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct SyslogConfig {
    /// On unless it is turned off.
    pub enabled: bool,
    /// The daemon's socket.
    pub socket: PathBuf,
    /// How a record is written down.
    pub format: SyslogFormat,
    /// The facility of RFC 5424, section 6.2.1, by its usual name.
    pub facility: Facility,
    /// The tag before each message (RFC 3164, section 4.1.3): 1 to 32 letters, digits, `-`, `_`, `.`.
    pub tag: String,
}

impl Default for SyslogConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            socket: PathBuf::from("/dev/log"),
            format: SyslogFormat::Rfc3164,
            facility: Facility::Daemon,
            tag: String::from("edgeweb"),
        }
    }
}

/// How a record is written down for syslog.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum SyslogFormat {
    /// What every daemon on a device reads: BusyBox, systemd-journald, rsyslog, syslog-ng.
    #[default]
    Rfc3164,
    /// With the year, fractions of seconds and key-values, for daemons that read it.
    Rfc5424,
}

/// The newest records, in memory, for `GET /api/user/logs` and its stream.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct RecentConfig {
    /// How much memory they may take, 16384 to 67108864 bytes.
    pub max_bytes: usize,
    /// How many may read the live stream at a time, 0 to 64.
    pub max_readers: usize,
}

impl Default for RecentConfig {
    fn default() -> Self {
        Self {
            max_bytes: 256 * 1024,
            max_readers: 8,
        }
    }
}

/// The records that outlive a power cut, on non-volatile storage.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct JournalConfig {
    /// On unless it is turned off.
    pub enabled: bool,
    /// Where its segments are.
    pub directory: PathBuf,
    /// Records of this severity and above are kept.
    pub severity: Severity,
    /// How much storage all segments together may take, 65536 to 1073741824 bytes; the oldest goes first.
    pub max_bytes: u64,
    /// How long a record below critical may wait for the flash, 1 to 3600 seconds.
    pub sync_seconds: u64,
    /// The public key that records are sealed with, as `edgeweb logs keygen` prints it; empty: they are not.
    pub recipient: String,
}

impl Default for JournalConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            directory: PathBuf::from("/var/lib/edgeweb/journal"),
            severity: Severity::Error,
            max_bytes: 4 * 1024 * 1024,
            sync_seconds: 10,
            recipient: String::new(),
        }
    }
}

/// The collector elsewhere that takes the log (RFC 5424).
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct UplinkConfig {
    /// Off unless it is turned on.
    pub enabled: bool,
    /// The collector, `name:port` or `address:port`.
    pub server: String,
    /// How the records get there.
    pub transport: Transport,
    /// Records of this severity and above are sent.
    pub severity: Severity,
    /// What may wait in memory for the collector, 16384 to 16777216 bytes; what is in the journal waits there.
    pub buffer_bytes: usize,
    /// The certificates, PEM, of which one must have signed the collector's.
    pub ca_file: PathBuf,
    /// The name in the collector's certificate; empty: the one in `server`.
    pub server_name: String,
    /// The device's own certificate chain, PEM, if the collector asks for one; empty: none.
    pub certificate_file: PathBuf,
    /// The key of that certificate, PEM.
    pub key_file: PathBuf,
}

impl Default for UplinkConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            server: String::new(),
            transport: Transport::Tls,
            severity: Severity::Info,
            buffer_bytes: 64 * 1024,
            ca_file: PathBuf::from("/etc/edgeweb/uplink/ca.crt"),
            server_name: String::new(),
            certificate_file: PathBuf::new(),
            key_file: PathBuf::new(),
        }
    }
}

impl UplinkConfig {
    /// The name and the port in `server`; `None` when one of them is missing.
    pub(crate) fn host_and_port(&self) -> Option<(&str, u16)> {
        let (host, port) = self.server.rsplit_once(':')?;
        let host = match host.strip_prefix('[') {
            Some(address) => address.strip_suffix(']')?,
            // An IPv6 address without brackets: where it ends is a guess.
            None if host.contains(':') => return None,
            None => host,
        };
        let port = port.parse().ok().filter(|port| *port != 0)?;
        let is_name =
            !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || c.is_control());
        is_name.then_some((host, port))
    }

    /// The name that the collector's certificate must be for.
    #[cfg(feature = "uplink")]
    pub(crate) fn expected_name(&self) -> &str {
        if self.server_name.is_empty() {
            self.host_and_port().map_or("", |(host, _)| host)
        } else {
            &self.server_name
        }
    }
}

/// How the records get to the collector.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// TLS (RFC 5425).
    #[default]
    Tls,
    /// TCP in clear, with octet counting (RFC 6587, section 3.4.1).
    Tcp,
    /// UDP in clear (RFC 5426). What is lost on the way is lost.
    Udp,
}

/// A syslog facility (RFC 5424, section 6.2.1).
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)] // the names say all that there is to say
pub enum Facility {
    Kern,
    User,
    Mail,
    Daemon,
    Auth,
    Syslog,
    Lpr,
    News,
    Uucp,
    Cron,
    Authpriv,
    Ftp,
    Local0,
    Local1,
    Local2,
    Local3,
    Local4,
    Local5,
    Local6,
    Local7,
}

impl Facility {
    /// Its number in a record's priority.
    #[must_use]
    pub const fn number(self) -> u8 {
        let name = self as u8;
        // 12 to 15 have no usual name.
        if name < Self::Local0 as u8 {
            name
        } else {
            name + 4
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facilities_have_the_numbers_of_the_rfc() {
        for (facility, number) in [
            (Facility::Kern, 0),
            (Facility::Daemon, 3),
            (Facility::Ftp, 11),
            (Facility::Local0, 16),
            (Facility::Local7, 23),
        ] {
            assert_eq!(facility.number(), number, "{facility:?}");
        }
    }
}
