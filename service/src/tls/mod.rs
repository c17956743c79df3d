//! The device's identity: its key and certificate, and whose certificates it trusts.
//!
//! Knows nothing of HTTP. [`Tls`] lives as long as the service; what changes, changes inside of it, and
//! takes effect with the next handshake.
//!
//! What the device keeps is in `tls` below `server.state_dir`: `device.key` and `device.crt` are its own,
//! `installed.pem` and `acme.pem` each a chain with its key, `client-ca.pem` and `client-ca.crl` whom it trusts. What
//! somebody else puts into `tls.directory` comes before all of that, and is looked at every 5 s.

#[cfg(feature = "acme")]
mod acme;
mod acme_status;
mod certificate;
mod challenges;
mod client;
mod clock;
mod configs;
mod files;
mod identity;
mod metrics;
mod own;
mod resolver;
mod state;
mod surroundings;
#[cfg(test)]
mod tests;
mod trust;
mod validation;

pub(crate) use acme_status::AcmeStatus;
pub(crate) use client::is_spiffe_pattern;
pub(crate) use identity::{Identity, Source};
pub(crate) use state::TrustView;
pub(crate) use trust::{MAX_TRUST_BYTES, TrustRefusal};
pub(crate) use validation::{MAX_BUNDLE_BYTES, Refusal};

#[cfg(fuzzing)]
pub(crate) use validation::fuzz as fuzz_pem_bundle;

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;
use serde::Deserialize;

use crate::auth::Role;
use crate::config::{ClientCertificates, ClientRole, Config, TlsMode};
use challenges::ChallengeError;
use configs::Configs;
use resolver::Resolver;
use state::State;
use trust::Trust;

/// How often files that others put there are looked at.
const EVERY: Duration = Duration::from_secs(5);

/// Everything about certificates, for all listeners.
pub(crate) struct Tls {
    shared: Arc<Shared>,
    watcher: Option<Watcher>,
    #[cfg(feature = "acme")]
    acme: acme::Acme,
}

/// The thread that looks at files and at the time.
struct Watcher {
    /// Dropped, it ends the thread.
    end: mpsc::Sender<()>,
    thread: JoinHandle<()>,
}

/// What handshakes and the watching thread share. Locks are taken in the order of the fields.
struct Shared {
    /// Everything that takes files, one at a time.
    state: Mutex<State>,
    resolver: Arc<Resolver>,
    presented: RwLock<Presented>,
    clients: RwLock<Clients>,
    swaps: AtomicU64,
}

/// What the next handshake presents.
#[derive(Clone)]
struct Presented {
    identity: Arc<Identity>,
    names: Arc<BTreeSet<String>>,
}

impl Presented {
    fn new(identity: Arc<Identity>) -> Self {
        let names = identity.facts.names.iter().cloned().collect();
        Self {
            identity,
            names: Arc::new(names),
        }
    }
}

/// What the next handshake asks clients for, and what their certificates let them do.
struct Clients {
    configs: Configs,
    /// Who verifies them.
    verifier: Arc<dyn ClientCertVerifier>,
    /// Grows with each change of whom to trust.
    trust_number: u64,
    /// Every listener asks for a certificate, whatever its own configuration says.
    strict: bool,
    rules: Arc<[ClientRole]>,
}

impl Clients {
    /// What was verified before is to be verified again.
    fn set_trust(&mut self, configs: Configs, trust: &Trust) {
        self.configs = configs;
        self.verifier = Arc::clone(&trust.required);
        self.trust_number += 1;
    }
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
    /// There are no random numbers.
    #[error("the system gives no random numbers to make a key with")]
    Random,
    /// A certificate cannot be made.
    #[error("a certificate for this device cannot be made: {0}")]
    Making(String),
    /// The library refuses its own configuration.
    #[error("TLS cannot be set up: {0}")]
    Setup(String),
    /// A thread cannot be started.
    #[error("the thread that watches certificates cannot be started: {0}")]
    Thread(#[source] io::Error),
}

/// Why a certificate, or whom to trust, was not changed. Each text is one line.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChangeError {
    /// What was sent is not good.
    #[error("the certificate is refused: {0}")]
    Certificate(#[from] Refusal),
    /// What was sent is not good.
    #[error("whom to trust stays as it was: {0}")]
    Trust(#[from] TrustRefusal),
    /// It would change nothing.
    #[error("this certificate is in force already")]
    InForce,
    /// Something that comes before it is in force.
    #[error("{0}")]
    Elsewhere(String),
    /// A request asks for what no certificate can have.
    #[error("{0}")]
    Request(String),
    /// There is nothing to remove.
    #[error("{0}")]
    Nothing(&'static str),
    /// The device cannot keep it.
    #[error(transparent)]
    Failed(#[from] TlsError),
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

/// What a request for a certificate asks for. Without names and addresses, those of the device's own certificate.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RequestParameters {
    /// Host names, at most 16.
    pub(crate) names: Option<Vec<String>>,
    /// Addresses, at most 16.
    pub(crate) addresses: Option<Vec<IpAddr>>,
    /// At most 64 characters; the first name unless it is given.
    pub(crate) common_name: Option<String>,
    /// At most 64 characters.
    pub(crate) organization: Option<String>,
}

impl Tls {
    /// Reads the device's identity, or makes one at the first start.
    pub(crate) fn open(config: &Config) -> Result<Self, TlsError> {
        let mut tls = Self::open_unwatched(config)?;
        let (end, ended) = mpsc::channel();
        let shared = Arc::downgrade(&tls.shared);
        let thread = thread::Builder::new()
            .name(String::from("edgeweb-tls"))
            .spawn(move || watch(&shared, &ended))
            .map_err(TlsError::Thread)?;
        tls.watcher = Some(Watcher { end, thread });
        Ok(tls)
    }

    fn open_unwatched(config: &Config) -> Result<Self, TlsError> {
        let state = State::open(config)?;
        let identity = state.chosen();
        let resolver = Arc::new(Resolver::new(Arc::clone(&identity.certified)));
        let configs = configs(&resolver, state.trust())?;
        warn_of_nobody(config, state.trust());
        let facts = &identity.facts;
        log::info!(
            "TLS presents the {} certificate of {}, valid until {}, SHA-256 {}",
            identity.source,
            facts.subject,
            certificate::rfc3339(facts.not_after),
            facts.fingerprint_sha256
        );
        let verifier = Arc::clone(&state.trust().required);
        let shared = Shared {
            state: Mutex::new(state),
            resolver,
            presented: RwLock::new(Presented::new(identity)),
            clients: RwLock::new(Clients {
                configs,
                verifier,
                trust_number: 0,
                strict: config.tls.mode == TlsMode::Strict,
                rules: config.tls.client_roles.clone().into(),
            }),
            swaps: AtomicU64::new(0),
        };
        let shared = Arc::new(shared);
        Ok(Self {
            #[cfg(feature = "acme")]
            acme: acme::Acme::new(Arc::clone(&shared)),
            shared,
            watcher: None,
        })
    }

    /// Takes up a new configuration, and looks at all files at once. An error leaves the old one in force.
    pub(crate) fn reconfigure(&self, config: &Config) -> Result<(), TlsError> {
        let mut state = self.shared.state();
        if state.is_elsewhere(config) {
            let opened = State::open(config)?;
            let configs = configs(&self.shared.resolver, opened.trust())?;
            *state = opened;
            self.shared
                .clients_mut(|clients| clients.set_trust(configs, state.trust()));
        } else {
            state.set_acme(config.tls.acme.enabled);
            self.shared.look(&mut state, true);
            state.follow_time(true);
        }
        self.shared.present(&state);
        self.shared.clients_mut(|clients| {
            clients.strict = config.tls.mode == TlsMode::Strict;
            clients.rules = config.tls.client_roles.clone().into();
        });
        warn_of_nobody(config, state.trust());
        Ok(())
    }

    /// What the next handshake is made with. Costs a clone of an `Arc`.
    pub(crate) fn server_config(&self, clients: ClientCertificates) -> Arc<ServerConfig> {
        let known = self.shared.clients.read();
        let known = known.unwrap_or_else(PoisonError::into_inner);
        let clients = if known.strict {
            ClientCertificates::Required
        } else {
            clients
        };
        Arc::clone(known.configs.get(clients))
    }

    /// Who the client with this chain, verified by a handshake, is.
    pub(crate) fn client_identity(&self, chain: &[CertificateDer<'_>]) -> Option<ClientIdentity> {
        let rules = {
            let known = self.shared.clients.read();
            Arc::clone(&known.unwrap_or_else(PoisonError::into_inner).rules)
        };
        client::identify(chain.first()?, &rules, clock::now())
    }

    /// Which trust is in force: another number after each change.
    pub(crate) fn trust_number(&self) -> u64 {
        let known = self.shared.clients.read();
        known.unwrap_or_else(PoisonError::into_inner).trust_number
    }

    /// Whether `chain`, which a handshake verified at another time, would be verified now.
    pub(crate) fn still_verifies(&self, chain: &[CertificateDer<'_>]) -> bool {
        let verifier = {
            let known = self.shared.clients.read();
            Arc::clone(&known.unwrap_or_else(PoisonError::into_inner).verifier)
        };
        chain.split_first().is_some_and(|(leaf, issuers)| {
            verifier
                .verify_client_cert(leaf, issuers, UnixTime::now())
                .is_ok()
        })
    }

    /// The host names in the certificate that is presented, in lower case. Costs a clone of an `Arc`.
    pub(crate) fn names(&self) -> Arc<BTreeSet<String>> {
        self.shared.presented().names
    }

    /// What is presented.
    pub(crate) fn presented(&self) -> Arc<Identity> {
        self.shared.presented().identity
    }

    /// Installs a chain with its key, or a chain alone for the device's key. The next handshake presents it.
    pub(crate) fn install(&self, bundle: &[u8]) -> Result<Arc<Identity>, ChangeError> {
        self.shared.change(|state| state.install(bundle))
    }

    /// Removes what was installed; the device's own certificate is presented again.
    pub(crate) fn remove_installed(&self) -> Result<Arc<Identity>, ChangeError> {
        self.shared.change(State::remove_installed)
    }

    /// A request (RFC 2986, PEM) for a certificate for the device's key.
    pub(crate) fn request(&self, parameters: &RequestParameters) -> Result<String, ChangeError> {
        self.shared.state().request(parameters)
    }

    /// Whom the device trusts to sign clients' certificates.
    pub(crate) fn trust(&self) -> TrustView {
        self.shared.state().trust_view()
    }

    /// Installs trust anchors in the place of those that were.
    pub(crate) fn install_anchors(&self, pem: &[u8]) -> Result<TrustView, ChangeError> {
        self.shared.change_trust(|state| state.install_anchors(pem))
    }

    /// Removes the trust anchors that were installed, and the revocation lists with them.
    pub(crate) fn remove_anchors(&self) -> Result<TrustView, ChangeError> {
        self.shared.change_trust(State::remove_anchors)
    }

    /// Installs revocation lists in the place of those that were.
    pub(crate) fn install_crls(&self, pem: &[u8]) -> Result<TrustView, ChangeError> {
        self.shared.change_trust(|state| state.install_crls(pem))
    }

    /// Removes the revocation lists that were installed.
    pub(crate) fn remove_crls(&self) -> Result<TrustView, ChangeError> {
        self.shared.change_trust(State::remove_crls)
    }

    /// Orders certificates by ACME as `config` says, from now on: an authority looks for its proof where the service
    /// listens.
    #[cfg(feature = "acme")]
    pub(crate) fn order_by_acme(&self, config: &Config) {
        if let Err(error) = self.acme.reconfigure(config) {
            log::error!(
                "no certificates are ordered by ACME: {}",
                TlsError::Thread(error)
            );
        }
    }

    /// How orders by ACME go.
    pub(crate) fn acme_status(&self) -> AcmeStatus {
        #[cfg(feature = "acme")]
        return self.acme.status();
        #[cfg(not(feature = "acme"))]
        AcmeStatus::default()
    }

    /// Orders a new certificate by ACME now. Asked while an order is under way, that order is it.
    pub(crate) fn renew_by_acme(&self) -> Result<(), ChangeError> {
        #[cfg(feature = "acme")]
        if self.acme.renew() {
            return Ok(());
        }
        Err(ChangeError::Elsewhere(String::from(
            "no certificates are ordered by ACME; set tls.acme.enabled to true first",
        )))
    }

    /// The answer to an ACME authority that asks for `token` (RFC 8555, section 8.3).
    pub(crate) fn http_challenge(&self, token: &str) -> Option<String> {
        self.shared.resolver.challenges.http(token)
    }

    /// Appends the numbers of the certificate in force, in Prometheus's text format.
    pub(crate) fn write_metrics(&self, out: &mut String) {
        let identity = self.presented();
        let swaps = self.shared.swaps.load(Ordering::Relaxed);
        metrics::write(out, &identity, swaps);
        #[cfg(feature = "acme")]
        self.acme.write_metrics(out);
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        if let Some(Watcher { end, thread }) = self.watcher.take() {
            drop(end);
            // It has nothing to say: a panic of its own was logged when it happened.
            let _ = thread.join();
        }
    }
}

/// Looks at files and at the time until the other side of `ended` is dropped.
fn watch(shared: &Weak<Shared>, ended: &mpsc::Receiver<()>) {
    while let Err(mpsc::RecvTimeoutError::Timeout) = ended.recv_timeout(EVERY) {
        let Some(shared) = shared.upgrade() else {
            return;
        };
        shared.tick();
    }
}

fn configs(resolver: &Arc<Resolver>, trust: &Trust) -> Result<Configs, TlsError> {
    let acme = resolver.challenges.any_alpn();
    Configs::new(resolver, trust, acme).map_err(|error| TlsError::Setup(error.to_string()))
}

/// Says where clients are asked for certificates and nobody is trusted to sign them.
fn warn_of_nobody(config: &Config, trust: &Trust) {
    if trust.optional.is_some() {
        return;
    }
    let https = config
        .https
        .enabled
        .then_some(&config.https.client_certificates);
    let others = config
        .listener
        .iter()
        .map(|listener| &listener.client_certificates);
    let asked: Vec<_> = https.into_iter().chain(others).collect();
    let strict = config.tls.mode == TlsMode::Strict;
    let anchors = config.tls.directory.join(state::PROVISIONED_ANCHORS);
    let anchors = anchors.display();
    if strict || asked.contains(&&ClientCertificates::Required) {
        log::error!(
            "clients must show certificates, but there are no trust anchors: every handshake is refused; \
             put them into {anchors}"
        );
    } else if asked.contains(&&ClientCertificates::Optional) {
        log::warn!(
            "clients may show certificates, but there are no trust anchors: they are not asked; \
             put them into {anchors}, or PUT /api/admin/trust"
        );
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn presented(&self) -> Presented {
        let presented = self.presented.read();
        presented.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn clients_mut(&self, change: impl FnOnce(&mut Clients)) {
        let clients = self.clients.write();
        change(&mut clients.unwrap_or_else(PoisonError::into_inner));
    }

    /// What the watching thread does every [`EVERY`].
    fn tick(&self) {
        let mut state = self.state();
        self.look(&mut state, false);
        state.follow_time(false);
        self.present(&state);
    }

    /// Takes up the files that changed; `settled`: without waiting for those that may still be changing.
    fn look(&self, state: &mut State, settled: bool) {
        state.look_at_identity(settled);
        if let Some(trust) = state.look_at_trust(settled)
            && let Err(error) = self.trust(state, trust)
        {
            log::error!("whom to trust stays as it was: {error}");
        }
    }

    /// Presents what `state` has chosen, if that is something else than before.
    fn present(&self, state: &State) {
        let identity = state.chosen();
        let before = self.presented().identity;
        if before.source == identity.source && before.presents_the_same_as(&identity) {
            return;
        }
        self.resolver.present(Arc::clone(&identity.certified));
        let facts = &identity.facts;
        log::info!(
            "from now on TLS presents the {} certificate of {}, valid until {}, SHA-256 {}",
            identity.source,
            facts.subject,
            certificate::rfc3339(facts.not_after),
            facts.fingerprint_sha256
        );
        *self
            .presented
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Presented::new(identity);
        self.swaps.fetch_add(1, Ordering::Relaxed);
    }

    /// Puts `trust` in force, and ends what could be resumed under the one before.
    fn trust(&self, state: &mut State, trust: Trust) -> Result<(), TlsError> {
        let configs = configs(&self.resolver, &trust)?;
        self.clients_mut(|clients| clients.set_trust(configs, &trust));
        log::info!(
            "clients' certificates: {} trust anchors, {} revocation lists",
            trust.anchors.len(),
            trust.crls.len()
        );
        state.set_trust(trust);
        Ok(())
    }

    fn change(
        &self,
        change: impl FnOnce(&mut State) -> Result<(), ChangeError>,
    ) -> Result<Arc<Identity>, ChangeError> {
        let mut state = self.state();
        change(&mut state)?;
        self.present(&state);
        Ok(self.presented().identity)
    }

    fn change_trust(
        &self,
        change: impl FnOnce(&mut State) -> Result<Trust, ChangeError>,
    ) -> Result<TrustView, ChangeError> {
        let mut state = self.state();
        let trust = change(&mut state)?;
        self.trust(&mut state, trust)?;
        Ok(state.trust_view())
    }
}

/// What the client of ACME authorities does.
#[cfg_attr(not(feature = "acme"), allow(dead_code))]
impl Shared {
    /// Takes up a chain with its key that an ACME authority issued. Presented as long as `tls.acme.enabled` says so and
    /// nothing is provisioned. What is refused leaves the one before in its place.
    fn install_acme(&self, bundle: &[u8]) -> Result<(), ChangeError> {
        self.change(|state| state.install_acme(bundle))?;
        Ok(())
    }

    /// What an ACME authority issued last, if it is there.
    fn acme_identity(&self) -> Option<Arc<Identity>> {
        self.state().acme().cloned()
    }

    /// Answers an authority's handshakes for `name` with `key` (RFC 8737), until it is cleared.
    fn set_alpn_challenge(&self, name: &str, key: Arc<CertifiedKey>) -> Result<(), ChallengeError> {
        self.resolver.challenges.set_alpn(name, key)?;
        self.offer_acme();
        Ok(())
    }

    /// Ends a challenge.
    fn clear_alpn_challenge(&self, name: &str) {
        self.resolver.challenges.clear_alpn(name);
        self.offer_acme();
    }

    /// Answers `GET /.well-known/acme-challenge/{token}` (RFC 8555, section 8.3), until it is cleared.
    fn set_http_challenge(
        &self,
        token: &str,
        key_authorization: &str,
    ) -> Result<(), ChallengeError> {
        self.resolver.challenges.set_http(token, key_authorization)
    }

    /// Ends a challenge.
    fn clear_http_challenge(&self, token: &str) {
        self.resolver.challenges.clear_http(token);
    }

    /// Offers the authority's protocol while a challenge waits for it, and not otherwise.
    fn offer_acme(&self) {
        self.clients_mut(|clients| {
            let acme = self.resolver.challenges.any_alpn();
            clients.configs = clients.configs.with_acme(acme);
        });
    }
}
