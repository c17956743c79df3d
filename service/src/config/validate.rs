//! The bounds of every value, in one place.

use std::net::IpAddr;
use std::path::Path;

use super::{AcmeChallenge, Config, TlsMode, Transport, UplinkConfig};
use crate::logging::Severity;
use crate::logging::seal::Recipient;
use crate::tls::is_spiffe_pattern;

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
        absolute("server.state_dir", &self.server.state_dir)?;
        self.validate_names()?;
        self.validate_tls()?;
        self.validate_auth()?;
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
    fn validate_names(&self) -> Result<(), OutOfRange> {
        let names = &self.server.host_names;
        at_most("server.host_names", names.len(), 64)?;
        match names.iter().find(|name| !is_host_name(name)) {
            Some(name) => Err(("server.host_names", format!("{name:?} is no host name"))),
            None => Ok(()),
        }
    }

    fn validate_tls(&self) -> Result<(), OutOfRange> {
        let tls = &self.tls;
        absolute("tls.directory", &tls.directory)?;
        at_most("listener", self.listener.len(), 8)?;
        at_most("tls.client_roles", tls.client_roles.len(), 64)?;
        for rule in &tls.client_roles {
            if rule.spiffe_id.is_empty() == rule.subject.is_empty() {
                let reason = String::from("each has either a spiffe_id or a subject");
                return Err(("tls.client_roles", reason));
            }
            if !rule.spiffe_id.is_empty() && !is_spiffe_pattern(&rule.spiffe_id) {
                let reason = format!(
                    "{:?} is not spiffe://trust-domain/path, or such with /* at its end",
                    rule.spiffe_id
                );
                return Err(("tls.client_roles", reason));
            }
        }
        if tls.mode == TlsMode::Strict && !self.https.enabled && self.listener.is_empty() {
            let reason =
                String::from("STRICT listens on nothing in clear, and https.enabled is false");
            return Err(("tls.mode", reason));
        }
        if tls.acme.enabled {
            validate_acme(self)?;
        }
        Ok(())
    }

    fn validate_auth(&self) -> Result<(), OutOfRange> {
        let auth = &self.auth;
        within("auth.token_hours", auth.token_hours, 1, 720)?;
        within("auth.claim_minutes", auth.claim_minutes, 1, 1440)?;
        absolute("auth.provisioned_users", &auth.provisioned_users)?;
        if !auth.policy_file.as_os_str().is_empty() {
            if !cfg!(feature = "policy") {
                let reason = String::from("this build has no policy feature");
                return Err(("auth.policy_file", reason));
            }
            absolute("auth.policy_file", &auth.policy_file)?;
        }
        Ok(())
    }

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

fn validate_acme(config: &Config) -> Result<(), OutOfRange> {
    let acme = &config.tls.acme;
    if !cfg!(feature = "acme") {
        let reason = String::from("this build has no acme feature");
        return Err(("tls.acme.enabled", reason));
    }
    if !acme.directory_url.starts_with("https://") {
        let reason = format!("{:?} does not begin with https://", acme.directory_url);
        return Err(("tls.acme.directory_url", reason));
    }
    if let Err(error) = acme.directory_url.parse::<http::Uri>() {
        let reason = format!("{:?}: {error}", acme.directory_url);
        return Err(("tls.acme.directory_url", reason));
    }
    absolute("tls.acme.ca_file", &acme.ca_file)?;
    within("tls.acme.names", acme.names.len() as u64, 1, 16)
        .map_err(|(key, reason)| (key, format!("their number, {reason}")))?;
    if let Some(name) = acme.names.iter().find(|name| !is_host_name(name)) {
        return Err(("tls.acme.names", format!("{name:?} is no host name")));
    }
    if let Some(name) = acme.names.iter().find(|n| n.parse::<IpAddr>().is_ok()) {
        let reason = format!("{name:?} is an address; certificates are ordered for names only");
        return Err(("tls.acme.names", reason));
    }
    at_most("tls.acme.contact", acme.contact.len(), 4)?;
    let in_clear = config.http.enabled && config.tls.mode == TlsMode::Permissive;
    if acme.challenge == AcmeChallenge::Http01 && !in_clear {
        let reason = String::from("http-01 needs the listener in clear; use tls-alpn-01");
        return Err(("tls.acme.challenge", reason));
    }
    Ok(())
}

/// A name of RFC 1123, section 2.1: labels of letters, digits and hyphens.
pub(crate) fn is_host_name(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    name.len() <= 253 && name.split('.').all(is_label)
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

fn at_most(key: &'static str, count: usize, most: usize) -> Result<(), OutOfRange> {
    if count <= most {
        Ok(())
    } else {
        Err((key, format!("{count} are more than {most}")))
    }
}

fn absolute(key: &'static str, path: &Path) -> Result<(), OutOfRange> {
    if path.is_absolute() {
        Ok(())
    } else {
        Err((key, format!("{path:?} is not an absolute path")))
    }
}
