//! What a device may be told: one TOML model, its defaults and its bounds.
//!
//! Absent keys take their defaults, an absent file means all defaults, and an unknown key is an
//! error: a typing mistake in a limit must not pass for the limit.

mod auth;
mod load;
mod log;
mod tls;
mod validate;

pub use auth::AuthConfig;
pub use load::{ConfigError, DEFAULT_PATH};
pub(crate) use load::{parse_toml, read_text};
pub use log::{
    Facility, JournalConfig, LogConfig, RecentConfig, StderrLog, SyslogConfig, SyslogFormat,
    Transport, UplinkConfig,
};
pub use tls::{
    AcmeChallenge, AcmeConfig, ClientCertificates, ClientRole, HttpsConfig, ListenerConfig,
    TlsConfig, TlsMode,
};
pub(crate) use validate::is_host_name;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

/// The whole configuration of the service.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Threads, run-time files and the drain limit.
    pub server: ServerConfig,
    /// The listener in clear.
    pub http: HttpConfig,
    /// The listener over TLS.
    pub https: HttpsConfig,
    /// Further listeners over TLS, at most 8.
    pub listener: Vec<ListenerConfig>,
    /// The device's identity and who else's is trusted.
    pub tls: TlsConfig,
    /// Users, tokens and what narrows their roles.
    pub auth: AuthConfig,
    /// What a client may cost.
    pub limits: Limits,
    /// Pages on the device's own storage.
    pub overlay: OverlayConfig,
    /// Where log records go.
    pub log: LogConfig,
}

/// Threads, run-time files and the drain limit.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct ServerConfig {
    /// Threads that serve requests, 1 to 64. Memory grows with each and stays at its peak.
    pub workers: usize,
    /// Directory of `endpoints.json`, `edgeweb.sock` and `log.sock`.
    pub runtime_dir: PathBuf,
    /// Directory of what the device learns and must keep: its key, its certificates, its users.
    pub state_dir: PathBuf,
    /// Names of the device besides its host name and those in its certificate, at most 64: requests for
    /// another name are refused, so that no page of elsewhere reaches the device under a name of its own.
    pub host_names: Vec<String>,
    /// How long a stop waits for requests that are being served, 0 to 3600 seconds.
    pub drain_seconds: u64,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            workers: 2,
            runtime_dir: PathBuf::from("/run/edgeweb"),
            state_dir: PathBuf::from("/var/lib/edgeweb"),
            host_names: Vec::new(),
            drain_seconds: 10,
        }
    }
}

impl ServerConfig {
    /// The drain limit as a duration.
    #[must_use]
    pub fn drain(&self) -> Duration {
        Duration::from_secs(self.drain_seconds)
    }

    /// The Unix socket on which the service answers the device itself.
    #[must_use]
    pub fn control_socket(&self) -> PathBuf {
        self.runtime_dir.join("edgeweb.sock")
    }

    /// The socket on which other programs of the device put their records into the log.
    #[must_use]
    pub fn log_socket(&self) -> PathBuf {
        self.runtime_dir.join("log.sock")
    }

    /// The file that says which addresses are in use.
    #[must_use]
    pub fn endpoints_file(&self) -> PathBuf {
        self.runtime_dir.join("endpoints.json")
    }
}

/// The listener in clear.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    /// On unless it is turned off.
    pub enabled: bool,
    /// Address to listen on. `::` is every address, IPv4 too.
    pub address: IpAddr,
    /// Port to listen on; 0 takes any free one.
    pub port: u16,
    /// What to do when the port is taken.
    pub port_when_busy: PortWhenBusy,
    /// What is answered in clear.
    pub content: HttpContent,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            address: IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            port: 8080,
            port_when_busy: PortWhenBusy::Fail,
            content: HttpContent::Redirect,
        }
    }
}

impl HttpConfig {
    /// Address and port together.
    #[must_use]
    pub fn socket_addr(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }
}

/// What is answered in clear, besides `/health`.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum HttpContent {
    /// Where the same is to be had over HTTPS.
    #[default]
    Redirect,
    /// Pages and what is public; nobody can log in, and what asks for a role is refused.
    Public,
}

/// What to do when the configured port is taken: `"fail"`, `"any"` or a range, `"8081-8089"`.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(try_from = "String")]
pub enum PortWhenBusy {
    /// Do not start; say who holds it.
    #[default]
    Fail,
    /// Take any free port.
    Any,
    /// Take the first free port from the first to the last, both included.
    Range(u16, u16),
}

impl TryFrom<String> for PortWhenBusy {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "fail" => return Ok(Self::Fail),
            "any" => return Ok(Self::Any),
            _ => {}
        }
        let wrong = || {
            format!(r#"{text:?} is none of "fail", "any" and a range of ports such as "8081-8089""#)
        };
        let (first, last) = text.split_once('-').ok_or_else(wrong)?;
        let port = |part: &str| part.trim().parse::<u16>().map_err(|_| wrong());
        match (port(first)?, port(last)?) {
            (first, last) if first == 0 || first > last => Err(wrong()),
            (first, last) => Ok(Self::Range(first, last)),
        }
    }
}

/// What a client may cost. Every bound of the HTTP side stands here.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Connections at a time, 1 to 65536; one more is answered with 503.
    pub max_connections: usize,
    /// Request line and header fields together, 1024 to 65536 bytes; more is answered with 431.
    pub max_header_bytes: usize,
    /// A request's body, at most 1 GiB (bytes); more is answered with 413.
    pub max_body_bytes: usize,
    /// From a request's first byte to the end of its header, 1 to 3600 seconds; then 408.
    pub header_seconds: u64,
    /// From the end of the header to the end of the body, 1 to 3600 seconds; then 408.
    pub body_seconds: u64,
    /// How long a client may take nothing of its answer, 1 to 3600 seconds.
    pub write_seconds: u64,
    /// How long an idle connection is kept, 0 to 3600 seconds.
    pub keep_alive_seconds: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 256,
            max_header_bytes: 16 * 1024,
            max_body_bytes: 1024 * 1024,
            header_seconds: 10,
            body_seconds: 10,
            write_seconds: 10,
            keep_alive_seconds: 15,
        }
    }
}

/// Pages on the device's own storage that come before the embedded ones.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct OverlayConfig {
    /// Off unless it is turned on.
    pub enabled: bool,
    /// The directory that is served; no path leaves it.
    pub directory: PathBuf,
}

impl Default for OverlayConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            directory: PathBuf::from("/var/lib/edgeweb/www"),
        }
    }
}
