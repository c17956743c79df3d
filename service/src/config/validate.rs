//! The bounds of every value, in one place.

use std::path::Path;

use super::{Config, Transport, UplinkConfig};
use crate::logging::Severity;
use crate::logging::seal::Recipient;

/// The key that is out of range, and why.
type OutOfRange = (&'static str, String);

impl Config {
    /// Checks what the types alone do not say.
    pub(super) fn validate(&self) -> Result<(), OutOfRange> {
        let limits = &self.limits;
        within("server.workers", self.server.workers as u64, 1, 64)?;
        within("server.drain_seconds", self.server.drain_seconds, 0, 3600)?;
        within(
            "limits.max_connections",
            limits.max_connections as u64,
            1,
            65536,
        )?;
        within(
            "limits.max_header_bytes",
            limits.max_header_bytes as u64,
            1024,
            65536,
        )?;
        within(
            "limits.max_body_bytes",
            limits.max_body_bytes as u64,
            0,
            1 << 30,
        )?;
        within("limits.header_seconds", limits.header_seconds, 1, 3600)?;
        within("limits.body_seconds", limits.body_seconds, 1, 3600)?;
        within("limits.write_seconds", limits.write_seconds, 1, 3600)?;
        within(
            "limits.keep_alive_seconds",
            limits.keep_alive_seconds,
            0,
            3600,
        )?;
        absolute("server.runtime_dir", &self.server.runtime_dir)?;
        absolute("overlay.directory", &self.overlay.directory)?;
        absolute("log.syslog.socket", &self.log.syslog.socket)?;
        env_filter::Builder::new()
            .try_parse(&self.log.filter)
            .map_err(|error| ("log.filter", error.to_string()))?;
        let tag = &self.log.syslog.tag;
        if !crate::logging::is_tag(tag) {
            let reason = format!("{tag:?} is not 1 to 32 letters, digits, '-', '_' or '.'");
            return Err(("log.syslog.tag", reason));
        }
        self.validate_log()?;
        #[cfg(not(feature = "overlay"))]
        if self.overlay.enabled {
            return Err((
                "overlay.enabled",
                String::from("this build has no overlay feature"),
            ));
        }
        Ok(())
    }
}

impl Config {
    fn validate_log(&self) -> Result<(), OutOfRange> {
        const MIB: u64 = 1024 * 1024;
        const LEAST: u64 = 16 * 1024;
        let log = &self.log;
        within("log.buffer_bytes", log.buffer_bytes as u64, LEAST, 16 * MIB)?;
        within(
            "log.recent.max_bytes",
            log.recent.max_bytes as u64,
            LEAST,
            64 * MIB,
        )?;
        within(
            "log.recent.max_readers",
            log.recent.max_readers as u64,
            0,
            64,
        )?;
        let journal = &log.journal;
        absolute("log.journal.directory", &journal.directory)?;
        within(
            "log.journal.max_bytes",
            journal.max_bytes,
            4 * LEAST,
            1024 * MIB,
        )?;
        if journal.severity < Severity::Critical {
            let reason = format!(
                "{} leaves out critical records, which must outlive a power cut; critical or lower",
                journal.severity
            );
            return Err(("log.journal.severity", reason));
        }
        if !journal.recipient.is_empty() {
            Recipient::decode(&journal.recipient)
                .map_err(|error| ("log.journal.recipient", error.to_string()))?;
        }
        within("log.journal.sync_seconds", journal.sync_seconds, 1, 3600)?;
        let uplink = &log.uplink;
        within(
            "log.uplink.buffer_bytes",
            uplink.buffer_bytes as u64,
            LEAST,
            16 * MIB,
        )?;
        if uplink.enabled {
            validate_uplink(uplink)?;
        }
        Ok(())
    }
}

/// That the files are there is not asked: the uplink says it, and goes on when they come.
fn validate_uplink(uplink: &UplinkConfig) -> Result<(), OutOfRange> {
    if !cfg!(feature = "uplink") {
        let reason = String::from("this build has no uplink feature");
        return Err(("log.uplink.enabled", reason));
    }
    if uplink.host_and_port().is_none() {
        let reason = format!(
            "{:?} is not name:port, address:port or [IPv6 address]:port",
            uplink.server
        );
        return Err(("log.uplink.server", reason));
    }
    if uplink.transport != Transport::Tls {
        return Ok(());
    }
    #[cfg(feature = "uplink")]
    if rustls::pki_types::ServerName::try_from(uplink.expected_name()).is_err() {
        let reason = format!("{:?} is no host name or address", uplink.expected_name());
        return Err(("log.uplink.server_name", reason));
    }
    absolute("log.uplink.ca_file", &uplink.ca_file)?;
    let (certificate, key) = (&uplink.certificate_file, &uplink.key_file);
    match (
        certificate.as_os_str().is_empty(),
        key.as_os_str().is_empty(),
    ) {
        (true, true) => Ok(()),
        (false, true) => Err((
            "log.uplink.key_file",
            String::from("is missing: a certificate is of no use without its key"),
        )),
        (true, false) => Err((
            "log.uplink.certificate_file",
            String::from("is missing: a key is of no use without its certificate"),
        )),
        (false, false) => {
            absolute("log.uplink.certificate_file", certificate)?;
            absolute("log.uplink.key_file", key)
        }
    }
}

fn within(key: &'static str, value: u64, least: u64, most: u64) -> Result<(), OutOfRange> {
    if (least..=most).contains(&value) {
        Ok(())
    } else {
        Err((key, format!("{value} is not in {least} to {most}")))
    }
}

fn absolute(key: &'static str, path: &Path) -> Result<(), OutOfRange> {
    if path.is_absolute() {
        Ok(())
    } else {
        Err((key, format!("{path:?} is not an absolute path")))
    }
}
