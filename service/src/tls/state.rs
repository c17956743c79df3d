//! Everything about certificates that takes files: which are there, which of them is in force, what may change.

use std::fmt::Display;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use zeroize::Zeroizing;

use super::certificate::rfc3339;
use super::clock;
use super::files::{self, Look, Watched};
use super::identity::{Identity, Source};
use super::own::{MAX_COMMON_NAME, Own};
use super::surroundings::{MAX_ADDRESSES, Surroundings};
use super::trust::{
    Anchor, Crl, CrlFacts, MAX_TRUST_BYTES, Trust, check_crls, parse_anchors, parse_crls,
};
use super::validation::{self, Checked, MAX_BUNDLE_BYTES, Refusal, parse_bundle};
use super::{ChangeError, RequestParameters, TlsError};
use crate::atomic_file;
use crate::auth::audit;
use crate::config::{Config, is_host_name};

const PROVISIONED_CERTIFICATE: &str = "server.crt";
const PROVISIONED_KEY: &str = "server.key";
pub(super) const PROVISIONED_ANCHORS: &str = "client-ca.crt";
const PROVISIONED_CRLS: &str = "client-ca.crl";
const INSTALLED: &str = "installed.pem";
const ACME: &str = "acme.pem";
const ACME_PREVIOUS: &str = "acme.pem.previous";
const INSTALLED_ANCHORS: &str = "client-ca.pem";
const INSTALLED_CRLS: &str = "client-ca.crl";

/// How often the device's name, its addresses and the ends of certificates are looked at.
const FOLLOW_EVERY: Duration = Duration::from_secs(60);
/// From when on the log says that a certificate of somebody else's ends, in days.
const ENDS_SOON: i64 = 30;
/// The most names in a request.
const MAX_NAMES: usize = 16;

/// What there is, and what is in force.
pub(super) struct State {
    /// What the device keeps.
    directory: PathBuf,
    /// Where others put files.
    provisioned_directory: PathBuf,
    acme_enabled: bool,
    own: Own,
    installed: Option<Arc<Identity>>,
    acme: Option<Arc<Identity>>,
    provisioned: Option<Arc<Identity>>,
    identity_files: Watched,
    trust: Trust,
    trust_files: Watched,
    followed: Instant,
    /// Of which certificate the log has said that it ends soon or has ended.
    said: Option<(String, bool)>,
    /// Of which revocation list the log has said that it is overdue.
    overdue: Option<CrlFacts>,
}

/// Whom the device trusts to sign clients' certificates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct TrustView {
    /// `none`, `installed` or `provisioned`.
    source: &'static str,
    anchors: Vec<AnchorView>,
    /// `none`, `installed` or `provisioned`.
    crl_source: &'static str,
    crls: Vec<CrlFacts>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct AnchorView {
    subject: String,
    not_after: String,
    fingerprint_sha256: String,
}

impl State {
    /// Reads everything. What is damaged is said in the log, and what comes after it is in force: a device is reached
    /// with its own certificate rather than not at all. Whom to trust is another matter: if that cannot be read, every
    /// certificate that a client shows is refused.
    pub(super) fn open(config: &Config) -> Result<Self, TlsError> {
        let directory = config.server.state_dir.join("tls");
        let now = clock::now();
        let own = Own::open(directory.clone(), &Surroundings::look(), now)?;
        let mut state = Self {
            provisioned_directory: config.tls.directory.clone(),
            acme_enabled: config.tls.acme.enabled,
            own,
            installed: read_kept(&directory.join(INSTALLED), Source::Installed),
            acme: read_acme(&directory),
            directory,
            provisioned: None,
            identity_files: Watched::default(),
            trust: Trust::nobody(),
            trust_files: Watched::default(),
            followed: Instant::now(),
            said: None,
            overdue: None,
        };
        let paths = state.identity_paths();
        state.identity_files.look(&paths);
        state.identity_files.taken_up();
        // One that has ended is presented all the same: an operator's certificate is never replaced by the device's.
        match state.read_provisioned(None) {
            Ok(provisioned) => state.provisioned = provisioned,
            Err(error) => log::error!("{error}; it is not presented"),
        }
        let paths = state.trust_paths();
        state.trust_files.look(&paths);
        state.trust_files.taken_up();
        state.trust = state.read_trust().unwrap_or_else(|error| {
            log::error!("{error}; every certificate that a client shows is refused");
            Trust::unknown()
        });
        state.say_ends(now);
        Ok(state)
    }

    /// Whether `config` has its files at another place.
    pub(super) fn is_elsewhere(&self, config: &Config) -> bool {
        self.directory != config.server.state_dir.join("tls")
            || self.provisioned_directory != config.tls.directory
    }

    pub(super) fn set_acme(&mut self, enabled: bool) {
        self.acme_enabled = enabled;
    }

    pub(super) fn acme(&self) -> Option<&Arc<Identity>> {
        self.acme.as_ref()
    }

    pub(super) fn trust(&self) -> &Trust {
        &self.trust
    }

    pub(super) fn set_trust(&mut self, trust: Trust) {
        self.trust = trust;
        self.say_overdue(clock::now());
    }

    /// What is to be presented: the same for the same files, after every start.
    pub(super) fn chosen(&self) -> Arc<Identity> {
        let acme = self.acme.as_ref().filter(|_| self.acme_enabled);
        let first = self.provisioned.as_ref().or(acme);
        let chosen = first.or(self.installed.as_ref());
        Arc::clone(chosen.unwrap_or_else(|| self.own.identity()))
    }

    fn identity_paths(&self) -> [PathBuf; 2] {
        [PROVISIONED_CERTIFICATE, PROVISIONED_KEY].map(|name| self.provisioned_directory.join(name))
    }

    fn trust_paths(&self) -> [PathBuf; 2] {
        [PROVISIONED_ANCHORS, PROVISIONED_CRLS].map(|name| self.provisioned_directory.join(name))
    }

    /// Takes up a provisioned certificate that came, changed or went. What is not good leaves the one in force, and is
    /// looked at again when it changes.
    pub(super) fn look_at_identity(&mut self, settled: bool) {
        let look = self.look_at_identity_files();
        if look == Look::Same {
            return;
        }
        let settled = settled || look == Look::Settled;
        match self.read_provisioned(time_to_check()) {
            // One of two files that are being replaced goes for a moment.
            Ok(None) if !settled && self.provisioned.is_some() => {}
            Ok(provisioned) => {
                self.provisioned = provisioned;
                self.identity_files.taken_up();
            }
            // Certificate and key are two files, and cannot be replaced in one step.
            Err(_) if !settled => {}
            Err(error) => {
                log::error!("{error}; what was presented before stays in force");
                self.identity_files.taken_up();
            }
        }
    }

    pub(super) fn look_at_identity_files(&mut self) -> Look {
        let paths = self.identity_paths();
        self.identity_files.look(&paths)
    }

    /// Whom to trust from now on, if that changed.
    pub(super) fn look_at_trust(&mut self, settled: bool) -> Option<Trust> {
        let paths = self.trust_paths();
        let look = self.trust_files.look(&paths);
        if look == Look::Same {
            return None;
        }
        let settled = settled || look == Look::Settled;
        let provisioned = Some(Source::Provisioned);
        match self.read_trust() {
            // Without its revocation list for a moment, what was revoked would be trusted.
            Ok(trust)
                if !settled
                    && (self.trust.anchors_from == provisioned
                        && trust.anchors_from != provisioned
                        || self.trust.crls_from == provisioned
                            && trust.crls_from != provisioned) =>
            {
                None
            }
            Ok(trust) => {
                self.trust_files.taken_up();
                Some(trust)
            }
            Err(_) if !settled => None,
            Err(error) => {
                log::error!("{error}; whom to trust stays as it was");
                self.trust_files.taken_up();
                None
            }
        }
    }

    /// Renews the device's own certificate, and says what has ended, once a minute; `now`: at once.
    pub(super) fn follow_time(&mut self, at_once: bool) {
        if !at_once && self.followed.elapsed() < FOLLOW_EVERY {
            return;
        }
        self.followed = Instant::now();
        let now = clock::now();
        match self
            .own
            .renew_if_due(&Surroundings::look(), now, self.followed)
        {
            Ok(Some(why)) => {
                let facts = &self.own.identity().facts;
                log::info!(
                    "the device's own certificate was made anew with the same key, because {}: {}, valid until {}, \
                     SHA-256 {}",
                    why.as_str(),
                    facts.subject,
                    rfc3339(facts.not_after),
                    facts.fingerprint_sha256
                );
                // The one change that nobody asks for.
                let subject = facts.fingerprint_sha256.as_str();
                audit::record(
                    "edgeweb",
                    "certificate.renew",
                    subject,
                    &"this device",
                    Ok(()),
                );
            }
            Ok(None) => {}
            Err(error) => log::error!("{error}"),
        }
        self.say_ends(now);
        self.say_overdue(now);
    }

    /// Says once that the certificate in force, if it is not the device's own, ends soon, and once that it has ended.
    fn say_ends(&mut self, now: i64) {
        let chosen = self.chosen();
        let facts = &chosen.facts;
        // Those that the device renews itself are said when they have ended all the same.
        let renewed = match chosen.source {
            Source::Own => true,
            Source::Acme => now < facts.not_after,
            Source::Installed | Source::Provisioned => false,
        };
        if renewed || !clock::is_right(now) {
            return;
        }
        let (days, ended) = (
            clock::days_left(facts.not_after, now),
            now >= facts.not_after,
        );
        // An authority is asked for the next one in time; when that fails for too long, it is said.
        if days > ENDS_SOON || (chosen.source == Source::Acme && !ended) {
            return;
        }
        let saying = Some((facts.fingerprint_sha256.clone(), ended));
        if self.said == saying {
            return;
        }
        self.said = saying;
        let (source, subject, when) = (chosen.source, &facts.subject, rfc3339(facts.not_after));
        if ended {
            log::error!(
                "the {source} certificate of {subject} ended on {when}: clients refuse it; replace it"
            );
        } else {
            log::warn!("the {source} certificate of {subject} ends on {when}; replace it");
        }
    }

    /// Says once that a revocation list should have been replaced by its next one.
    fn say_overdue(&mut self, now: i64) {
        let is_overdue = |crl: &&Crl| crl.facts.next_update.is_some_and(|next| next < now);
        let overdue = self.trust.crls.iter().find(is_overdue);
        let overdue = overdue.map(|crl| crl.facts.clone());
        if overdue == self.overdue {
            return;
        }
        if let Some(facts) = &overdue {
            log::warn!(
                "the revocation list of {} is overdue since {}; it is used until there is a newer one",
                facts.issuer,
                rfc3339(facts.next_update.unwrap_or_default())
            );
        }
        self.overdue = overdue;
    }

    fn read_provisioned(&self, now: Option<i64>) -> Result<Option<Arc<Identity>>, String> {
        let [certificate_path, key_path] = &self.identity_paths();
        let certificate = read(certificate_path, MAX_BUNDLE_BYTES)?;
        let key = read(key_path, MAX_BUNDLE_BYTES)?;
        let (mut pem, key) = match (certificate, key) {
            (None, None) => return Ok(None),
            (Some(certificate), Some(key)) => (certificate, key),
            (Some(_), None) => {
                return Err(format!(
                    "{}: is missing, a certificate is of no use without its key",
                    key_path.display()
                ));
            }
            (None, Some(_)) => {
                return Err(format!(
                    "{}: is missing, a key is of no use without its certificate",
                    certificate_path.display()
                ));
            }
        };
        if let Ok(metadata) = fs::metadata(key_path)
            && metadata.permissions().mode() & 0o007 != 0
        {
            log::warn!(
                "{}: everybody on this device may read the private key; let only the service's group",
                key_path.display()
            );
        }
        // Both are far below the bound that the two have together.
        let mut both = Zeroizing::new(Vec::with_capacity(pem.len() + 1 + key.len()));
        both.append(&mut pem);
        both.push(b'\n');
        both.extend_from_slice(&key);
        let checked = parse_bundle(&both).and_then(|bundle| validation::check(bundle, None, now));
        match checked {
            Ok(checked) => Ok(Some(taken(Source::Provisioned, checked))),
            Err(Refusal::NoKey) => {
                Err(format!("{}: has no private key in PEM", key_path.display()))
            }
            Err(refusal) => Err(format!(
                "{} with {PROVISIONED_KEY}: {refusal}",
                certificate_path.display()
            )),
        }
    }

    fn read_trust(&self) -> Result<Trust, String> {
        let [provisioned_anchors, provisioned_crls] = &self.trust_paths();
        let (anchors, anchors_from) = first_of(
            provisioned_anchors,
            &self.directory.join(INSTALLED_ANCHORS),
            parse_anchors,
        )?;
        let (crls, crls_from) = first_of(
            provisioned_crls,
            &self.directory.join(INSTALLED_CRLS),
            parse_crls,
        )?;
        trust(anchors, anchors_from, crls, crls_from)
    }

    /// Refuses to install what would not be presented.
    fn check_is_installable(&self) -> Result<(), ChangeError> {
        let chosen = self.chosen();
        match chosen.source {
            Source::Own | Source::Installed => Ok(()),
            Source::Provisioned => Err(ChangeError::Elsewhere(format!(
                "the certificate in {} is in force; replace or remove that and {PROVISIONED_KEY} beside it",
                self.provisioned_directory
                    .join(PROVISIONED_CERTIFICATE)
                    .display()
            ))),
            Source::Acme => Err(ChangeError::Elsewhere(String::from(
                "a certificate that an authority issued is in force; set tls.acme.enabled to false first",
            ))),
        }
    }

    pub(super) fn install(&mut self, bundle: &[u8]) -> Result<(), ChangeError> {
        self.check_is_installable()?;
        let checked = self.check(bundle)?;
        if self.chosen().certified.cert == checked.certified.cert {
            return Err(ChangeError::InForce);
        }
        write(&self.directory.join(INSTALLED), &checked.to_pem())?;
        self.installed = Some(taken(Source::Installed, checked));
        Ok(())
    }

    pub(super) fn remove_installed(&mut self) -> Result<(), ChangeError> {
        self.check_is_installable()?;
        let path = self.directory.join(INSTALLED);
        if !path.exists() {
            return Err(ChangeError::Nothing("no certificate is installed"));
        }
        files::remove(&path).map_err(|error| cannot_change(&path, &error))?;
        self.installed = None;
        Ok(())
    }

    pub(super) fn install_acme(&mut self, bundle: &[u8]) -> Result<(), ChangeError> {
        let checked = self.check(bundle)?;
        let path = self.directory.join(ACME);
        // One that is damaged does not take the place of the one before it.
        if let Some(before) = &self.acme
            && let Ok(Some(content)) = files::read_secret(&path, MAX_BUNDLE_BYTES)
            && parse_bundle(&content).is_ok_and(|found| found.chain == before.certified.cert)
        {
            write(&self.directory.join(ACME_PREVIOUS), &content)?;
        }
        write(&path, &checked.to_pem())?;
        self.acme = Some(taken(Source::Acme, checked));
        Ok(())
    }

    fn check(&self, bundle: &[u8]) -> Result<Checked, Refusal> {
        let bundle = parse_bundle(bundle)?;
        let checked = validation::check(bundle, Some(&self.own.private_key()), time_to_check())?;
        // As it is written it may be longer than it came, and after a start it has to be read.
        if checked.to_pem().len() > MAX_BUNDLE_BYTES {
            return Err(Refusal::TooLarge);
        }
        Ok(checked)
    }

    pub(super) fn request(&self, parameters: &RequestParameters) -> Result<String, ChangeError> {
        if !self.own.is_kept() {
            return Err(ChangeError::Elsewhere(String::from(
                "the device's key is in memory only, and gone with the next start; make server.state_dir writable first",
            )));
        }
        check_request(parameters).map_err(ChangeError::Request)?;
        Ok(self.own.request(parameters, &Surroundings::look())?)
    }

    pub(super) fn trust_view(&self) -> TrustView {
        let source = |source: Option<Source>| source.map_or("none", Source::as_str);
        let anchor = |anchor: &Anchor| AnchorView {
            subject: anchor.facts.subject.clone(),
            not_after: rfc3339(anchor.facts.not_after),
            fingerprint_sha256: anchor.facts.fingerprint_sha256.clone(),
        };
        TrustView {
            source: source(self.trust.anchors_from),
            anchors: self.trust.anchors.iter().map(anchor).collect(),
            crl_source: source(self.trust.crls_from),
            crls: self
                .trust
                .crls
                .iter()
                .map(|crl| crl.facts.clone())
                .collect(),
        }
    }

    /// Refuses to install what would not count, because `name` is provisioned.
    fn check_is_not_provisioned(&self, name: &str) -> Result<(), ChangeError> {
        let path = self.provisioned_directory.join(name);
        if path.exists() {
            return Err(ChangeError::Elsewhere(format!(
                "{} counts; replace or remove that",
                path.display()
            )));
        }
        Ok(())
    }

    pub(super) fn install_anchors(&mut self, pem: &[u8]) -> Result<Trust, ChangeError> {
        self.check_is_not_provisioned(PROVISIONED_ANCHORS)?;
        let anchors = parse_anchors(pem)?;
        // The revocation lists stay: those of an issuer that is no anchor any more revoke nothing.
        let (crls, crls_from) = self.read_crls()?;
        // One of that name with another key is refused for what was sent, and is no fault of the device.
        check_crls(&crls, &anchors)?;
        let trust =
            trust(anchors, Some(Source::Installed), crls, crls_from).map_err(TlsError::Setup)?;
        write(&self.directory.join(INSTALLED_ANCHORS), pem)?;
        Ok(trust)
    }

    pub(super) fn remove_anchors(&mut self) -> Result<Trust, ChangeError> {
        self.check_is_not_provisioned(PROVISIONED_ANCHORS)?;
        let path = self.directory.join(INSTALLED_ANCHORS);
        if !path.exists() {
            return Err(ChangeError::Nothing("no trust anchors are installed"));
        }
        files::remove(&path).map_err(|error| cannot_change(&path, &error))?;
        let crls = self.directory.join(INSTALLED_CRLS);
        files::remove(&crls).map_err(|error| cannot_change(&crls, &error))?;
        let (crls, crls_from) = self.read_crls()?;
        Ok(trust(Vec::new(), None, crls, crls_from).map_err(TlsError::Setup)?)
    }

    pub(super) fn install_crls(&mut self, pem: &[u8]) -> Result<Trust, ChangeError> {
        self.check_is_not_provisioned(PROVISIONED_CRLS)?;
        let crls = parse_crls(pem)?;
        let (anchors, anchors_from) = self.read_anchors()?;
        check_crls(&crls, &anchors)?;
        let trust =
            trust(anchors, anchors_from, crls, Some(Source::Installed)).map_err(TlsError::Setup)?;
        write(&self.directory.join(INSTALLED_CRLS), pem)?;
        Ok(trust)
    }

    pub(super) fn remove_crls(&mut self) -> Result<Trust, ChangeError> {
        self.check_is_not_provisioned(PROVISIONED_CRLS)?;
        let path = self.directory.join(INSTALLED_CRLS);
        if !path.exists() {
            return Err(ChangeError::Nothing("no revocation lists are installed"));
        }
        let (anchors, anchors_from) = self.read_anchors()?;
        files::remove(&path).map_err(|error| cannot_change(&path, &error))?;
        Ok(trust(anchors, anchors_from, Vec::new(), None).map_err(TlsError::Setup)?)
    }

    fn read_anchors(&self) -> Result<(Vec<Anchor>, Option<Source>), TlsError> {
        let [provisioned, _] = &self.trust_paths();
        first_of(
            provisioned,
            &self.directory.join(INSTALLED_ANCHORS),
            parse_anchors,
        )
        .map_err(TlsError::Setup)
    }

    fn read_crls(&self) -> Result<(Vec<Crl>, Option<Source>), TlsError> {
        let [_, provisioned] = &self.trust_paths();
        first_of(
            provisioned,
            &self.directory.join(INSTALLED_CRLS),
            parse_crls,
        )
        .map_err(TlsError::Setup)
    }
}

/// What `parse` finds in the provisioned file or, where there is none, in the installed one.
fn first_of<T, E: Display>(
    provisioned: &Path,
    installed: &Path,
    parse: impl Fn(&[u8]) -> Result<Vec<T>, E>,
) -> Result<(Vec<T>, Option<Source>), String> {
    for (path, source) in [
        (provisioned, Source::Provisioned),
        (installed, Source::Installed),
    ] {
        if let Some(content) = read(path, MAX_TRUST_BYTES)? {
            let found = parse(&content).map_err(|error| format!("{}: {error}", path.display()))?;
            return Ok((found, Some(source)));
        }
    }
    Ok((Vec::new(), None))
}

fn trust(
    anchors: Vec<Anchor>,
    anchors_from: Option<Source>,
    crls: Vec<Crl>,
    crls_from: Option<Source>,
) -> Result<Trust, String> {
    if !anchors.is_empty() && !crls.is_empty() {
        check_crls(&crls, &anchors).map_err(|error| error.to_string())?;
    }
    let mut trust = Trust::new(anchors, crls)?;
    trust.anchors_from = anchors_from;
    trust.crls_from = crls_from;
    Ok(trust)
}

fn read(path: &Path, limit: usize) -> Result<Option<Zeroizing<Vec<u8>>>, String> {
    files::read(path, limit).map_err(|error| format!("{}: {error}", path.display()))
}

/// What an authority issued. Where it is damaged, what it issued before.
fn read_acme(directory: &Path) -> Option<Arc<Identity>> {
    let path = directory.join(ACME);
    let found = read_kept(&path, Source::Acme);
    if found.is_none() && path.exists() {
        return read_kept(&directory.join(ACME_PREVIOUS), Source::Acme);
    }
    found
}

/// A chain and key that the service keeps itself.
fn read_kept(path: &Path, source: Source) -> Option<Arc<Identity>> {
    let damaged = |error: &dyn Display| {
        let next = match source {
            Source::Acme => "a new one is ordered",
            _ => "install it again",
        };
        log::error!(
            "{}: {error}; this certificate is not presented, {next}",
            path.display()
        );
    };
    let content = files::read_secret(path, MAX_BUNDLE_BYTES)
        .inspect_err(|error| damaged(error))
        .ok()??;
    let checked = parse_bundle(&content).and_then(|bundle| validation::check(bundle, None, None));
    let checked = checked.inspect_err(|refusal| damaged(refusal)).ok()?;
    Some(taken(source, checked))
}

fn taken(source: Source, checked: Checked) -> Arc<Identity> {
    let Checked {
        certified, facts, ..
    } = checked;
    if facts.is_ca {
        log::warn!(
            "the {source} certificate of {} calls itself a CA, which some clients refuse in a server's; \
             openssl req -x509 makes one that does not with -addext basicConstraints=CA:FALSE",
            facts.subject
        );
    }
    Arc::new(Identity::new(source, certified, facts))
}

fn write(path: &Path, content: &[u8]) -> Result<(), TlsError> {
    atomic_file::write(path, content, 0o600).map_err(|error| cannot_change(path, &error))
}

fn cannot_change(path: &Path, error: &io::Error) -> TlsError {
    TlsError::File {
        path: path.to_owned(),
        reason: format!("cannot be changed: {error}; make server.state_dir writable"),
    }
}

/// The time that validity is checked against; nothing where it is not known.
fn time_to_check() -> Option<i64> {
    let now = clock::now();
    if clock::is_right(now) {
        return Some(now);
    }
    log::warn!(
        "the clock shows a day before this version was made: whether the certificate is valid now is not checked"
    );
    None
}

fn check_request(parameters: &RequestParameters) -> Result<(), String> {
    let names = parameters.names.as_deref().unwrap_or_default();
    let addresses = parameters.addresses.as_deref().unwrap_or_default();
    if names.len() > MAX_NAMES {
        return Err(format!("names: more than {MAX_NAMES}"));
    }
    if let Some(name) = names
        .iter()
        .find(|name| !is_host_name(name.strip_prefix("*.").unwrap_or(name)))
    {
        return Err(format!("names: {name:?} is no host name"));
    }
    if addresses.len() > MAX_ADDRESSES {
        return Err(format!("addresses: more than {MAX_ADDRESSES}"));
    }
    let asked = parameters.names.is_some() || parameters.addresses.is_some();
    if asked && names.is_empty() && addresses.is_empty() {
        return Err(String::from(
            "names and addresses are empty; a certificate is for one or the other",
        ));
    }
    for (key, text) in [
        ("common_name", &parameters.common_name),
        ("organization", &parameters.organization),
    ] {
        if let Some(text) = text {
            let length = text.chars().count();
            if !(1..=MAX_COMMON_NAME).contains(&length) || text.chars().any(char::is_control) {
                return Err(format!(
                    "{key}: is not 1 to {MAX_COMMON_NAME} characters without control characters"
                ));
            }
        }
    }
    Ok(())
}
