//! From a file to a [`Config`], with an error that names the file, the line, the key and the reason.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::Config;

/// Where the maker's configuration is read from unless a path is given.
pub const DEFAULT_PATH: &str = "/etc/edgeweb/edgeweb.toml";

/// The largest configuration file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 256 * 1024;

/// Why a configuration was refused. Its text is one line.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is larger than any configuration has reason to be.
    #[error("{}: is larger than {MAX_FILE_BYTES} bytes; is it the right file?", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The file is not TOML, or a key or a type is wrong.
    #[error("{}:{line}: {key}: {reason}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// The key with its tables, dots between; `-` where the text is not TOML at all.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A value is out of its range.
    #[error("{origin}: {key}: {reason}")]
    OutOfRange {
        /// The file, or `configuration` where it was made by a program.
        origin: String,
        /// The key with its tables, dots between.
        key: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

impl Config {
    /// Reads `path`. The default path may be absent, which means the defaults; any other must exist.
    ///
    /// # Errors
    /// [`ConfigError`] when the file cannot be read, is not TOML, or holds a key, a type or a value
    /// that is wrong.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = match read_text(path) {
            Err(ConfigError::Unreadable { source, .. })
                if source.kind() == io::ErrorKind::NotFound && path == Path::new(DEFAULT_PATH) =>
            {
                return Ok(Self::default());
            }
            text => text?,
        };
        Self::parse(&text, path)
    }

    /// Reads and tries the policy that `auth.policy_file` names, if it names one: what is wrong with code should be
    /// known before it is needed. `path` is where the configuration stands, which is said of a mistake.
    ///
    /// Not a part of [`Config::load`], for those who ask for other parts of the configuration.
    ///
    /// # Errors
    /// [`ConfigError::OutOfRange`] with the policy's file, line and reason.
    pub fn check_policy(&self, path: &Path) -> Result<(), ConfigError> {
        #[cfg(feature = "policy")]
        if !self.auth.policy_file.as_os_str().is_empty() {
            crate::auth::policy::check(&self.auth.policy_file).map_err(|reason| {
                ConfigError::OutOfRange {
                    origin: path.display().to_string(),
                    key: "auth.policy_file",
                    reason,
                }
            })?;
        }
        #[cfg(not(feature = "policy"))]
        let _ = path;
        Ok(())
    }

    /// Reads `text` as if it stood in `path`, which is only used to say where a mistake is.
    ///
    /// # Errors
    /// [`ConfigError`] as for [`Config::load`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let config: Self = parse_toml(text, path)?;
        config
            .validate()
            .map_err(|(key, reason)| ConfigError::OutOfRange {
                origin: path.display().to_string(),
                key,
                reason,
            })?;
        Ok(config)
    }

    /// Checks the bounds of a configuration that a program made itself.
    ///
    /// # Errors
    /// [`ConfigError::OutOfRange`] with the first key that is out of its range.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.validate()
            .map_err(|(key, reason)| ConfigError::OutOfRange {
                origin: String::from("configuration"),
                key,
                reason,
            })
    }
}

/// The text of a file that a person wrote.
pub(crate) fn read_text(path: &Path) -> Result<String, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text))
        .map_err(unreadable)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(ConfigError::TooLarge {
            path: path.to_owned(),
        });
    }
    Ok(text)
}

/// What `text` says as TOML; `path` is only used to say where a mistake is.
pub(crate) fn parse_toml<T: DeserializeOwned>(text: &str, path: &Path) -> Result<T, ConfigError> {
    let invalid = |key: String, error: &toml::de::Error| ConfigError::Invalid {
        path: path.to_owned(),
        line: error
            .span()
            .map_or(1, |span| text[..span.start].matches('\n').count() + 1),
        key,
        reason: error.message().replace('\n', ", "),
    };
    let document =
        toml::de::Deserializer::parse(text).map_err(|error| invalid(String::from("-"), &error))?;
    serde_path_to_error::deserialize(document)
        .map_err(|error| invalid(error.path().to_string(), error.inner()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Facility, PortWhenBusy, StderrLog};

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("edgeweb.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn an_empty_file_means_the_defaults() {
        assert_eq!(parse("").unwrap(), Config::default());
    }

    #[test]
    fn every_key_is_read() {
        let config = parse(
            r#"
            [server]
            workers = 1
            runtime_dir = "/tmp/run"
            drain_seconds = 3
            [http]
            address = "127.0.0.1"
            port = 0
            port_when_busy = "9000-9010"
            [limits]
            max_connections = 3
            max_header_bytes = 2048
            max_body_bytes = 0
            header_seconds = 1
            body_seconds = 2
            write_seconds = 3
            keep_alive_seconds = 0
            [overlay]
            enabled = true
            directory = "/srv/www"
            [log]
            filter = "warn,edgeweb=debug"
            stderr = "always"
            [log.syslog]
            enabled = false
            socket = "/tmp/log"
            facility = "local3"
            tag = "pump"
            "#,
        )
        .unwrap();
        assert_eq!(config.http.port_when_busy, PortWhenBusy::Range(9000, 9010));
        assert_eq!(config.limits.max_body_bytes, 0);
        assert_eq!(config.log.stderr, StderrLog::Always);
        assert_eq!(config.log.syslog.facility, Facility::Local3);
        assert_eq!(
            config.server.control_socket(),
            Path::new("/tmp/run/edgeweb.sock")
        );
    }

    #[test]
    fn a_mistake_is_named_with_file_line_key_and_reason() {
        for (text, expected) in [
            (
                "[http]\nport = \"x\"",
                "edgeweb.toml:2: http.port: invalid type: string \"x\", expected u16",
            ),
            (
                "[http]\nport = 70000",
                "edgeweb.toml:2: http.port: invalid value: integer `70000`, expected u16",
            ),
            (
                "\n[http]\nprot = 1",
                "edgeweb.toml:3: http.prot: unknown field `prot`, expected one of `enabled`, `address`, `port`, `port_when_busy`, `content`",
            ),
            ("[htp]", "edgeweb.toml:1: htp: unknown field `htp`"),
            (
                "[http]\naddress = \"localhost\"",
                "edgeweb.toml:2: http.address: invalid IP address syntax",
            ),
            (
                "[http]\nport_when_busy = \"9-8\"",
                "edgeweb.toml:2: http.port_when_busy: \"9-8\" is none of",
            ),
            (
                "[http]\nport_when_busy = \"maybe\"",
                "edgeweb.toml:2: http.port_when_busy: \"maybe\" is none of",
            ),
            (
                "[server]\nworkers = 0",
                "edgeweb.toml: server.workers: 0 is not in 1 to 64",
            ),
            (
                "[server]\nruntime_dir = \"run\"",
                "edgeweb.toml: server.runtime_dir: \"run\" is not an absolute path",
            ),
            (
                "[limits]\nmax_header_bytes = 1",
                "edgeweb.toml: limits.max_header_bytes: 1 is not in 1024 to 65536",
            ),
            (
                "[limits]\nheader_seconds = 0",
                "edgeweb.toml: limits.header_seconds: 0 is not in 1 to 3600",
            ),
            (
                "[log]\nfilter = \"edgeweb=loud\"",
                "edgeweb.toml: log.filter: ",
            ),
            (
                "[log.syslog]\ntag = \"a b\"",
                "edgeweb.toml: log.syslog.tag: \"a b\" is not 1 to 32 letters",
            ),
            (
                "[log.syslog]\nfacility = \"loca\"",
                "edgeweb.toml:2: log.syslog.facility: unknown variant `loca`",
            ),
            (
                "[log.uplink]\ntransport = \"carrier pigeon\"",
                "edgeweb.toml:2: log.uplink.transport: unknown variant `carrier pigeon`",
            ),
            ("port = = 1", "edgeweb.toml:1: -: "),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.starts_with(expected), "{text:?}: {error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }

    #[cfg(feature = "uplink")]
    #[test]
    fn an_uplink_has_a_collector_and_whole_credentials() {
        for (text, expected) in [
            ("", "server: \"\" is not name:port"),
            ("server = \"loghost\"", "server: \"loghost\" is not"),
            ("server = \"loghost:0\"", "server: \"loghost:0\" is not"),
            ("server = \"loghost:65536\"", "server: \"loghost:65536\" is"),
            (
                "server = \"log host:514\"",
                "server: \"log host:514\" is not",
            ),
            ("server = \":514\"", "server: \":514\" is not"),
            ("server = \"::1:514\"", "server: \"::1:514\" is not"),
            (
                "server = \"log_:6514\"\nserver_name = \"a..b\"",
                "server_name: \"a..b\" is no host name",
            ),
            (
                "server = \"loghost:6514\"\nca_file = \"ca.crt\"",
                "ca_file: \"ca.crt\" is not an absolute path",
            ),
            (
                "server = \"loghost:6514\"\ncertificate_file = \"/c\"",
                "key_file: is missing",
            ),
            (
                "server = \"loghost:6514\"\nkey_file = \"/k\"",
                "certificate_file: is missing",
            ),
            (
                "server = \"loghost:6514\"\nkey_file = \"k\"\ncertificate_file = \"/c\"",
                "key_file: \"k\" is not an absolute path",
            ),
        ] {
            let table = format!("[log.uplink]\nenabled = true\n{text}");
            let error = parse(&table).expect_err(&table);
            let expected = format!("edgeweb.toml: log.uplink.{expected}");
            assert!(error.starts_with(&expected), "{table:?}: {error}");
        }
        for server in ["loghost:6514", "192.0.2.1:6514", "[2001:db8::1]:6514"] {
            let config = parse(&format!(
                "[log.uplink]\nenabled = true\nserver = {server:?}\ncertificate_file = \"/c\"\nkey_file = \"/k\""
            ));
            assert!(config.is_ok(), "{config:?}");
        }
    }

    #[cfg(not(feature = "uplink"))]
    #[test]
    fn a_build_without_the_uplink_says_so() {
        let error = parse("[log.uplink]\nenabled = true\nserver = \"loghost:514\"").unwrap_err();
        assert_eq!(
            error,
            "edgeweb.toml: log.uplink.enabled: this build has no uplink feature"
        );
    }

    #[test]
    fn only_the_default_path_may_be_absent() {
        let error = Config::load(Path::new("/nonexistent/edgeweb.toml")).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("/nonexistent/edgeweb.toml: cannot be read: ")
        );
    }
}
