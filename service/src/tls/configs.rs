//! What handshakes are made with: one configuration for each way to ask for clients' certificates.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring::{Ticketer, default_provider};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};

use super::challenges::ACME_TLS_ALPN;
use super::resolver::Resolver;
use super::trust::Trust;
use crate::config::ClientCertificates;

/// One configuration for each way to ask for clients' certificates.
///
/// Each has tickets of its own (RFC 8446, section 2.2): a session that began where nobody is asked cannot be resumed
/// where everybody must show a certificate. When the trust changes all are made anew, and so are the keys of the
/// tickets, so that no session outlives the certificate that it began with.
#[derive(Clone)]
pub(super) struct Configs {
    off: Arc<ServerConfig>,
    optional: Arc<ServerConfig>,
    required: Arc<ServerConfig>,
}

impl Configs {
    pub(super) fn new(
        resolver: &Arc<Resolver>,
        trust: &Trust,
        acme: bool,
    ) -> Result<Self, rustls::Error> {
        let nobody_is_asked = WebPkiClientVerifier::no_client_auth;
        let optional = trust.optional.clone().unwrap_or_else(nobody_is_asked);
        let config = |verifier| config(resolver, verifier, acme);
        Ok(Self {
            off: config(nobody_is_asked())?,
            optional: config(optional)?,
            required: config(Arc::clone(&trust.required))?,
        })
    }

    /// The same, with or without the protocol that an ACME authority speaks; tickets stay good.
    pub(super) fn with_acme(&self, acme: bool) -> Self {
        let change = |config: &Arc<ServerConfig>| {
            let mut config = ServerConfig::clone(config);
            config.alpn_protocols = protocols(acme);
            Arc::new(config)
        };
        Self {
            off: change(&self.off),
            optional: change(&self.optional),
            required: change(&self.required),
        }
    }

    pub(super) fn get(&self, clients: ClientCertificates) -> &Arc<ServerConfig> {
        match clients {
            ClientCertificates::Off => &self.off,
            ClientCertificates::Optional => &self.optional,
            ClientCertificates::Required => &self.required,
        }
    }
}

fn config(
    resolver: &Arc<Resolver>,
    verifier: Arc<dyn ClientCertVerifier>,
    acme: bool,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        // TLS 1.2 and 1.3.
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::clone(resolver) as _);
    config.alpn_protocols = protocols(acme);
    // Sessions are resumed from what the client keeps: nothing in memory grows with the number of clients.
    config.ticketer = Ticketer::new()?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    // A browser resumes with the newest; a second one would only be sent.
    config.send_tls13_tickets = 1;
    // Early data could be sent again by anybody who saw it (RFC 8446, section 8).
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

/// Application protocols (RFC 7301), the one liked best first.
fn protocols(acme: bool) -> Vec<Vec<u8>> {
    let mut protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    if acme {
        protocols.push(ACME_TLS_ALPN.to_vec());
    }
    protocols
}
