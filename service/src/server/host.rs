//! Whether a request is meant for this device: the names in `Host` and `:authority`.
//!
//! A page of elsewhere can let its own name point to the device's address (DNS rebinding); the browser then
//! takes the device for that page's own server. It sends that page's name, by which it is known here. An address
//! cannot be let point elsewhere.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use actix_http::{HttpMessage, Request};
use actix_web::http::{StatusCode, Version, header};

use crate::api::error::Problem;
use crate::tls::Tls;

/// The longest authority that is looked at, in bytes: a name of 253 and a port.
const MAX_AUTHORITY: usize = 260;

/// The host that a client names, without the port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    /// An address.
    Address(IpAddr),
    /// A name, in lower case and without a dot at its end.
    Name(String),
}

impl Host {
    /// Reads an authority (RFC 3986, section 3.2) without user information; `None` when it is none.
    pub(crate) fn parse(authority: &str) -> Option<Self> {
        if authority.len() > MAX_AUTHORITY {
            return None;
        }
        if let Some(rest) = authority.strip_prefix('[') {
            let (address, port) = rest.split_once(']')?;
            is_port(port).then_some(())?;
            return Some(Self::Address(address.parse::<Ipv6Addr>().ok()?.into()));
        }
        let (host, port) = match authority.find(':') {
            Some(colon) => authority.split_at(colon),
            None => (authority, ""),
        };
        is_port(port).then_some(())?;
        let name = host.strip_suffix('.').unwrap_or(host);
        if let Ok(address) = name.parse::<Ipv4Addr>() {
            return Some(Self::Address(address.into()));
        }
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        let is_label = |label: &str| !label.is_empty() && label.bytes().all(is_part);
        name.split('.')
            .all(is_label)
            .then(|| Self::Name(name.to_ascii_lowercase()))
    }
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Address(address) => address.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// Nothing, or a colon with a port, which may be empty.
fn is_port(text: &str) -> bool {
    text.is_empty()
        || text
            .strip_prefix(':')
            .is_some_and(|port| port.is_empty() || port.parse::<u16>().is_ok())
}

/// The names by which the device may be called.
pub(super) struct HostNames {
    configured: BTreeSet<String>,
}

impl HostNames {
    pub(super) fn new(configured: &[String]) -> Arc<Self> {
        let configured = configured.iter().map(|name| name.to_ascii_lowercase());
        Arc::new(Self {
            configured: configured.collect(),
        })
    }

    /// The host that `request` names; `None` when it need not name one and does not (HTTP/1.0).
    ///
    /// # Errors
    /// 400 when it names none or several, 421 (RFC 9110, section 15.5.20) when it names somebody else.
    pub(super) fn check(&self, request: &Request, tls: &Tls) -> Result<Option<Host>, Problem> {
        let Some(authority) = authority(request)? else {
            return Ok(None);
        };
        let host = Host::parse(authority).ok_or_else(|| bad("the Host header is no host"))?;
        let is_known = match &host {
            Host::Address(_) => true,
            Host::Name(name) => self.is_known(name, tls),
        };
        if is_known {
            Ok(Some(host))
        } else {
            Err(Problem::new(
                StatusCode::MISDIRECTED_REQUEST,
                format!(
                    "this device is not called {host}; ask for its address, or add the name to server.host_names"
                ),
            ))
        }
    }

    fn is_known(&self, name: &str, tls: &Tls) -> bool {
        if name == "localhost" || self.configured.contains(name) {
            return true;
        }
        let names = tls.names();
        // The host name may change while the service runs; asking the kernel costs less than a lock.
        is_own_name(name)
            || names.contains(name)
            || name
                .split_once('.')
                .is_some_and(|(_, domain)| names.contains(&format!("*.{domain}")))
    }
}

/// Whether `name` is the system's host name, whole, without its domain, or as mDNS has it (RFC 6762).
fn is_own_name(name: &str) -> bool {
    let system = rustix::system::uname();
    let Ok(own) = system.nodename().to_str() else {
        return false;
    };
    let own = own.to_ascii_lowercase();
    let short = own.split('.').next().unwrap_or(&own);
    name == own || name == short || name.strip_suffix(".local") == Some(short)
}

fn authority(request: &Request) -> Result<Option<&str>, Problem> {
    // SECURITY: an absolute target and :authority go before the header (RFC 9112, section 3.2.2), as for actix-web.
    if let Some(authority) = request.uri().authority() {
        return Ok(Some(authority.as_str()));
    }
    let mut hosts = request.headers().get_all(header::HOST);
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => match host.to_str() {
            Ok(host) => Ok(Some(host)),
            Err(_) => Err(bad("the Host header is no host")),
        },
        (None, _) if request.version() < Version::HTTP_11 => Ok(None),
        (None, _) => Err(bad("a request names its host: the Host header is missing")),
        (Some(_), Some(_)) => Err(bad(
            "a request names one host: there are several Host headers",
        )),
    }
}

fn bad(detail: &'static str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, detail)
}

/// For [`crate::fuzzing::host`].
#[cfg(fuzzing)]
pub(crate) fn fuzz(text: &str) {
    if let Some(host) = Host::parse(text) {
        assert_eq!(Host::parse(&host.to_string()), Some(host));
    }
}

#[cfg(test)]
mod tests {
    use super::Host;

    #[test]
    fn a_host_is_read_without_its_port() {
        for (authority, expected) in [
            ("device", Some("device")),
            ("Device.Local.:8443", Some("device.local")),
            ("192.0.2.1", Some("192.0.2.1")),
            ("192.0.2.1:80", Some("192.0.2.1")),
            ("[2001:db8::1]:8443", Some("[2001:db8::1]")),
            ("[::1]", Some("[::1]")),
            ("device:", Some("device")),
            ("", None),
            (".", None),
            ("192.0.2.1.", Some("192.0.2.1")),
            ("device..", None),
            (".device", None),
            ("a..b", None),
            (":80", None),
            ("device:x", None),
            ("device:99999", None),
            ("device:80:80", None),
            ("::1", None),
            ("[::1", None),
            ("[::1]x", None),
            ("[device]", None),
            ("user@device", None),
            ("dev ice", None),
            ("device/", None),
            ("evil.example\u{0}", None),
            ("dévice", None),
        ] {
            let host = Host::parse(authority).map(|host| host.to_string());
            assert_eq!(host.as_deref(), expected, "{authority:?}");
        }
        assert_eq!(Host::parse(&"a".repeat(300)), None);
    }
}
