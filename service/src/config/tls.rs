//! HTTPS and certificates: the tables `https`, `listener` and `tls` of the configuration.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use serde::Deserialize;

use super::PortWhenBusy;
use crate::auth::Role;

/// The listener over TLS.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct HttpsConfig {
    /// On unless it is turned off.
    pub enabled: bool,
    /// Address to listen on. `::` is every address, IPv4 too.
    pub address: IpAddr,
    /// Port to listen on; 0 takes any free one.
    pub port: u16,
    /// What to do when the port is taken.
    pub port_when_busy: PortWhenBusy,
    /// Whether clients show certificates here.
    pub client_certificates: ClientCertificates,
}

impl Default for HttpsConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            address: IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            port: 8443,
            port_when_busy: PortWhenBusy::Fail,
            client_certificates: ClientCertificates::Off,
        }
    }
}

impl HttpsConfig {
    /// Address and port together.
    #[must_use]
    pub fn socket_addr(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }
}

/// A further listener over TLS: `[[listener]]`, for instance one for the fleet's manager.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ListenerConfig {
    /// Address to listen on.
    pub address: IpAddr,
    /// Port to listen on; 0 takes any free one.
    pub port: u16,
    /// What to do when the port is taken.
    #[serde(default)]
    pub port_when_busy: PortWhenBusy,
    /// Whether clients show certificates here.
    #[serde(default)]
    pub client_certificates: ClientCertificates,
}

impl ListenerConfig {
    /// Address and port together.
    #[must_use]
    pub fn socket_addr(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }
}

/// Whether clients of a listener show certificates.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Hash)]
#[serde(rename_all = "lowercase")]
pub enum ClientCertificates {
    /// They are not asked.
    #[default]
    Off,
    /// They may; a wrong one is refused.
    Optional,
    /// They must.
    Required,
}

/// The device's identity and who else's is trusted.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// How strictly clients must show certificates, over all listeners.
    pub mode: TlsMode,
    /// Where a build, provisioning or a manager puts `server.crt`, `server.key`, `client-ca.crt` and
    /// `client-ca.crl`, all in PEM. What is there takes the place of everything else.
    pub directory: PathBuf,
    /// Which role a client's certificate gives: the first that fits. At most 64.
    pub client_roles: Vec<ClientRole>,
    /// Certificates by ACME (RFC 8555).
    pub acme: AcmeConfig,
}

impl Default for TlsConfig {
    fn default() -> Self {
        Self {
            mode: TlsMode::Permissive,
            directory: PathBuf::from("/etc/edgeweb/tls"),
            client_roles: Vec::new(),
            acme: AcmeConfig::default(),
        }
    }
}

/// How strictly clients must show certificates.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
pub enum TlsMode {
    /// As each listener says; the one in clear is there if it is enabled.
    #[default]
    #[serde(rename = "PERMISSIVE", alias = "permissive")]
    Permissive,
    /// On every listener clients must show a certificate, and nothing is listened on in clear.
    #[serde(rename = "STRICT", alias = "strict")]
    Strict,
}

/// From a client's certificate to a role: exactly one of `spiffe_id` and `subject` is set.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct ClientRole {
    /// The SPIFFE ID, `spiffe://trust-domain/path`; a `/*` at its end stands for any further path.
    #[serde(default)]
    pub spiffe_id: String,
    /// The whole subject as RFC 4514 writes it, `CN=ops,O=Maker`.
    #[serde(default)]
    pub subject: String,
    /// What its bearer may do.
    pub role: Role,
}

/// Certificates by ACME (RFC 8555), renewed without anybody.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct AcmeConfig {
    /// Off unless it is turned on. Who turns it on agrees to the authority's terms of service, as they are and become.
    pub enabled: bool,
    /// The authority's directory, `https://…`.
    pub directory_url: String,
    /// PEM: who signed the authority's own certificate. There is no list of public authorities in the
    /// binary: name the file of the firmware, such as `/etc/ssl/certs/ca-certificates.crt`, or that of a private CA.
    pub ca_file: PathBuf,
    /// The names the certificate is for, 1 to 16.
    pub names: Vec<String>,
    /// Whom the authority writes to, `mailto:…`; may be empty.
    pub contact: Vec<String>,
    /// How the device proves that the names are its own.
    pub challenge: AcmeChallenge,
}

impl Default for AcmeConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            directory_url: String::new(),
            ca_file: PathBuf::from("/etc/ssl/certs/ca-certificates.crt"),
            names: Vec::new(),
            contact: Vec::new(),
            challenge: AcmeChallenge::Http01,
        }
    }
}

/// How the device proves to an ACME authority that a name is its own.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
pub enum AcmeChallenge {
    /// The authority asks port 80 of the name (RFC 8555, section 8.3), which must lead to the HTTP listener.
    #[default]
    #[serde(rename = "http-01")]
    Http01,
    /// The authority makes a handshake at port 443 of the name (RFC 8737), which must lead to an HTTPS listener.
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn01,
}
