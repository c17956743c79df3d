//! Which certificate a handshake presents.

use std::sync::{Arc, PoisonError, RwLock};

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::challenges::{ACME_TLS_ALPN, Challenges};

/// The certificate in force, and those that answer challenges. Every listener's configuration has the same one.
#[derive(Debug)]
pub(super) struct Resolver {
    current: RwLock<Arc<CertifiedKey>>,
    pub(super) challenges: Challenges,
}

impl Resolver {
    pub(super) fn new(current: Arc<CertifiedKey>) -> Self {
        Self {
            current: RwLock::new(current),
            challenges: Challenges::default(),
        }
    }

    /// From the next handshake on `key` is presented. Connections that exist have their keys already.
    pub(super) fn present(&self, key: Arc<CertifiedKey>) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = key;
    }

    pub(super) fn current(&self) -> Arc<CertifiedKey> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&current)
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // RFC 8737, section 3: the authority offers this protocol alone, and names the name. Without a challenge for
        // that name there is nothing to present, the device's own certificate least of all.
        let mut offered = hello.alpn().into_iter().flatten();
        if offered.next() == Some(ACME_TLS_ALPN) && offered.next().is_none() {
            return self.challenges.alpn(hello.server_name()?);
        }
        Some(self.current())
    }
}
