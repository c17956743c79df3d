//! The identity that the device makes for itself, and keeps: one key for ever, and a certificate that follows the
//! device's name, its addresses and the time.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rcgen::string::Ia5String;
use rcgen::{
    CertificateParams, CertificateSigningRequest, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::certificate::Facts;
use super::clock::{self, DAY, FLOOR};
use super::files;
use super::identity::{Identity, Source};
use super::surroundings::{MAX_ADDRESSES, Surroundings};
use super::validation::certify;
use super::{RequestParameters, TlsError};
use crate::atomic_file;

/// How long a certificate is valid, in seconds: 825 days. Apple's systems refuse a server's certificate that is valid
/// for longer, also one that its owner trusts; the CA/Browser Forum's baseline once had the same bound.
const LIFETIME: i64 = 825 * DAY;
/// It begins so long before it is made, for clients whose clock is slow; in seconds.
const BEFORE: i64 = DAY;
/// It is renewed so long before its end, in seconds.
const RENEW: i64 = 30 * DAY;
/// How long a certificate is valid that was made while the clock was not right, in seconds: 20 years from the floor.
/// It has to do until the clock is set, which may be never.
const LIFETIME_WITHOUT_CLOCK: i64 = 20 * 365 * DAY;
/// An address that comes and goes makes no more than one certificate in this time.
const ADDRESSES_EVERY: Duration = Duration::from_secs(60 * 60);
/// The longest common name (RFC 5280, appendix A.1, ub-common-name), in characters.
pub(super) const MAX_COMMON_NAME: usize = 64;
/// The largest file of a key or a certificate of the device's own, in bytes.
const MAX_FILE_BYTES: usize = 16 * 1024;

/// The device's own key and certificate.
pub(super) struct Own {
    directory: PathBuf,
    key: KeyPair,
    /// Whether the key is in its file: it is the same after the next start.
    kept: bool,
    identity: Arc<Identity>,
    /// When a certificate was last made for an address.
    addresses_at: Option<Instant>,
}

impl Own {
    /// Reads the key and the certificate in `directory`, and makes what is not there or not good any more.
    ///
    /// What cannot be kept is in memory only: a device whose storage is broken is still to be reached over TLS.
    pub(super) fn open(
        directory: PathBuf,
        surroundings: &Surroundings,
        now: i64,
    ) -> Result<Self, TlsError> {
        let (key, kept) = open_key(&directory)?;
        let stored = read_certificate(&directory, &key);
        let identity = match stored {
            Some(identity) if why_renew(&identity.facts, surroundings, now).is_none() => identity,
            stored => {
                let earlier = stored.map(|identity| identity.facts.addresses.clone());
                let identity = make(&key, surroundings, &earlier.unwrap_or_default(), now)?;
                if kept {
                    write_certificate(&directory, &identity);
                }
                identity
            }
        };
        if !clock::is_right(now) {
            log::warn!(
                "the clock shows a day before this version was made: the device's own certificate is valid from {} on, \
                 and is made anew when the clock is set",
                super::certificate::rfc3339(identity.facts.not_before)
            );
        }
        Ok(Self {
            directory,
            key,
            kept,
            identity: Arc::new(identity),
            addresses_at: None,
        })
    }

    pub(super) fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// Whether the key will still be there after the next start.
    pub(super) fn is_kept(&self) -> bool {
        self.kept
    }

    pub(super) fn private_key(&self) -> Zeroizing<PrivateKeyDer<'static>> {
        private_key(&self.key)
    }

    /// Makes a new certificate with the same key if it is time to, and says why.
    pub(super) fn renew_if_due(
        &mut self,
        surroundings: &Surroundings,
        now: i64,
        at: Instant,
    ) -> Result<Option<Why>, TlsError> {
        let Some(why) = why_renew(&self.identity.facts, surroundings, now) else {
            return Ok(None);
        };
        if why == Why::Addresses {
            let soon = |last: Instant| at.saturating_duration_since(last) < ADDRESSES_EVERY;
            if self.addresses_at.is_some_and(soon) {
                return Ok(None);
            }
            self.addresses_at = Some(at);
        }
        let earlier = &self.identity.facts.addresses;
        let identity = make(&self.key, surroundings, earlier, now)?;
        if self.kept {
            write_certificate(&self.directory, &identity);
        }
        self.identity = Arc::new(identity);
        Ok(Some(why))
    }

    /// A request (RFC 2986) for a certificate for the device's key.
    pub(super) fn request(
        &self,
        parameters: &RequestParameters,
        surroundings: &Surroundings,
    ) -> Result<String, TlsError> {
        let mut params = CertificateParams::default();
        let (names, addresses) = match (&parameters.names, &parameters.addresses) {
            (None, None) => (surroundings.names(), surroundings.addresses.clone()),
            (names, addresses) => (
                names.clone().unwrap_or_default(),
                addresses.clone().unwrap_or_default(),
            ),
        };
        params.subject_alt_names = alternative_names(&names, &addresses)?;
        let mut subject = DistinguishedName::new();
        if let Some(organization) = &parameters.organization {
            subject.push(DnType::OrganizationName, organization.as_str());
        }
        let common_name = match (&parameters.common_name, &parameters.names) {
            (Some(name), _) => name.as_str(),
            (None, Some(names)) if !names.is_empty() => &names[0],
            _ => surroundings.called(),
        };
        subject.push(DnType::CommonName, bounded(common_name));
        params.distinguished_name = subject;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params
            .serialize_request(&self.key)
            .and_then(|request: CertificateSigningRequest| request.pem())
            .map_err(|error| TlsError::Making(error.to_string()))
    }
}

/// Why a certificate of the device's own is made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// It was made by a clock that was wrong.
    Clock,
    /// Its end is near.
    End,
    /// The device has another name.
    HostName,
    /// The device has an address that is not in it.
    Addresses,
}

impl Why {
    /// What the log says.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Clock => "the clock has been set",
            Self::End => "its end was near",
            Self::HostName => "the host name has changed",
            Self::Addresses => "the device has another address",
        }
    }
}

fn why_renew(facts: &Facts, surroundings: &Surroundings, now: i64) -> Option<Why> {
    if clock::is_right(now) {
        let length = facts.not_after.saturating_sub(facts.not_before);
        if length > LIFETIME || now < facts.not_before {
            return Some(Why::Clock);
        }
        if now >= facts.not_after - RENEW {
            return Some(Why::End);
        }
    }
    let mut names = facts.names.clone();
    names.sort_unstable();
    if names != surroundings.names() {
        return Some(Why::HostName);
    }
    let known = |address| facts.addresses.contains(address);
    if !surroundings.addresses.iter().all(known) {
        return Some(Why::Addresses);
    }
    None
}

/// Begin and end for a certificate made at `now`.
fn validity(now: i64) -> (i64, i64) {
    if clock::is_right(now) {
        let begin = now - BEFORE;
        (begin, begin + LIFETIME)
    } else {
        (FLOOR, FLOOR + LIFETIME_WITHOUT_CLOCK)
    }
}

/// A self-signed certificate for `key`. Addresses that the device had `earlier` stay in it while there is room, so that
/// one that goes between two networks needs no new certificate each time.
fn make(
    key: &KeyPair,
    surroundings: &Surroundings,
    earlier: &[IpAddr],
    now: i64,
) -> Result<Identity, TlsError> {
    let making = |error: rcgen::Error| TlsError::Making(error.to_string());
    let mut addresses = surroundings.addresses.clone();
    for address in earlier {
        if addresses.len() < MAX_ADDRESSES && !addresses.contains(address) {
            addresses.push(*address);
        }
    }
    let names = surroundings.names();
    let mut params = CertificateParams::default();
    params.subject_alt_names = alternative_names(&names, &addresses)?;
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, bounded(surroundings.called()));
    params.distinguished_name = subject;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.serial_number = Some(serial_number()?);
    let (begin, end) = validity(now);
    let time = |seconds| {
        OffsetDateTime::from_unix_timestamp(seconds)
            .map_err(|error| TlsError::Making(error.to_string()))
    };
    params.not_before = time(begin)?;
    params.not_after = time(end)?;
    let certificate = params.self_signed(key).map_err(making)?;
    identity(certificate.der().clone(), key)
}

fn alternative_names(names: &[String], addresses: &[IpAddr]) -> Result<Vec<SanType>, TlsError> {
    let mut all = Vec::with_capacity(names.len() + addresses.len());
    for name in names {
        let name = Ia5String::try_from(name.as_str())
            .map_err(|error| TlsError::Making(error.to_string()))?;
        all.push(SanType::DnsName(name));
    }
    all.extend(addresses.iter().copied().map(SanType::IpAddress));
    Ok(all)
}

fn bounded(common_name: &str) -> &str {
    match common_name.char_indices().nth(MAX_COMMON_NAME) {
        Some((end, _)) => &common_name[..end],
        None => common_name,
    }
}

/// 16 random bytes. RFC 5280, section 4.1.2.2, wants a positive number, so the first bit is not set; nor is the first
/// byte zero, which another encoding would leave out.
fn serial_number() -> Result<SerialNumber, TlsError> {
    let mut bytes = [0; 16];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| TlsError::Random)?;
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

fn private_key(key: &KeyPair) -> Zeroizing<PrivateKeyDer<'static>> {
    Zeroizing::new(PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(
        key.serialize_der(),
    )))
}

fn identity(certificate: CertificateDer<'static>, key: &KeyPair) -> Result<Identity, TlsError> {
    let unusable = |reason: &str| TlsError::Making(String::from(reason));
    let facts = Facts::read(&certificate).map_err(|_| unusable("it cannot be read"))?;
    let chain = vec![certificate];
    let certified =
        certify(&chain, &private_key(key)).map_err(|refusal| unusable(&refusal.to_string()))?;
    Ok(Identity::new(Source::Own, certified, facts))
}

fn key_file(directory: &Path) -> PathBuf {
    directory.join("device.key")
}

fn certificate_file(directory: &Path) -> PathBuf {
    directory.join("device.crt")
}

/// The device's key, and whether it is kept.
fn open_key(directory: &Path) -> Result<(KeyPair, bool), TlsError> {
    let path = key_file(directory);
    let in_memory = |what: &dyn std::fmt::Display| {
        log::warn!(
            "{}: {what}; the device's key is in memory only, and browsers see another certificate after each start. \
             Make server.state_dir writable for the service",
            path.display()
        );
        Ok((generate()?, false))
    };
    if let Err(error) = files::make_directory(directory) {
        return in_memory(&error);
    }
    match files::read_secret(&path, MAX_FILE_BYTES) {
        Ok(Some(content)) => {
            let text = std::str::from_utf8(&content).ok();
            // Whether a handshake can use it shows when it is made into an identity.
            if let Some(key) = text.and_then(|text| KeyPair::from_pem(text).ok()) {
                return Ok((key, true));
            }
            let bad = directory.join("device.key.bad");
            if let Err(error) = fs::rename(&path, &bad) {
                return in_memory(&error);
            }
            log::error!(
                "{}: is no private key in PKCS#8 and PEM; it is {} now, and the device has a new key. \
                 Clients that hold on to the old one refuse it until they are told",
                path.display(),
                bad.display()
            );
        }
        Ok(None) => {}
        Err(error) => return in_memory(&error),
    }
    let key = generate()?;
    let pem = Zeroizing::new(key.serialize_pem());
    match atomic_file::write(&path, pem.as_bytes(), 0o600) {
        Ok(()) => Ok((key, true)),
        Err(error) => in_memory(&error),
    }
}

fn generate() -> Result<KeyPair, TlsError> {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(|_| TlsError::Random)
}

/// The certificate in its file, if there is a good one for `key`. One that is damaged is no loss: it is made anew.
fn read_certificate(directory: &Path, key: &KeyPair) -> Option<Identity> {
    let path = certificate_file(directory);
    let content = files::read(&path, MAX_FILE_BYTES)
        .inspect_err(|error| log::warn!("{}: {error}; it is made anew", path.display()))
        .ok()??;
    let stored = CertificateDer::from_pem_slice(&content)
        .ok()
        .and_then(|certificate| identity(certificate, key).ok());
    if stored.is_none() {
        log::warn!(
            "{}: is damaged, or not for the key beside it; it is made anew",
            path.display()
        );
    }
    stored
}

fn write_certificate(directory: &Path, identity: &Identity) {
    let path = certificate_file(directory);
    if let Err(error) = atomic_file::write(&path, identity.leaf_pem().as_bytes(), 0o644) {
        log::warn!(
            "{}: cannot be written: {error}; clients see another certificate after the next start, for the same key",
            path.display()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::tests::TempDir;

    fn surroundings(host_name: &str, addresses: &[&str]) -> Surroundings {
        Surroundings {
            host_name: String::from(host_name),
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        }
    }

    /// A time at which clocks are right.
    const NOW: i64 = FLOOR + 100 * DAY;

    fn open(directory: &TempDir, surroundings: &Surroundings, now: i64) -> Own {
        Own::open(directory.path().join("tls"), surroundings, now).unwrap()
    }

    fn facts(own: &Own) -> Facts {
        own.identity().facts.clone()
    }

    #[test]
    fn a_certificate_is_valid_for_825_days_from_yesterday() {
        let directory = TempDir::new();
        let facts = facts(&open(
            &directory,
            &surroundings("pump", &["192.0.2.1"]),
            NOW,
        ));
        assert_eq!(facts.not_before, NOW - DAY);
        assert_eq!(facts.not_after, NOW + 824 * DAY);
        assert_eq!(facts.subject, "CN=pump");
        assert_eq!(facts.names, ["localhost", "pump", "pump.local"]);
        assert_eq!(facts.addresses, ["192.0.2.1".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn a_long_host_name_has_a_common_name_of_its_first_64_characters() {
        let directory = TempDir::new();
        let name = format!("{0}.{0}", "a".repeat(60));
        let facts = facts(&open(&directory, &surroundings(&name, &[]), NOW));
        assert_eq!(facts.subject, format!("CN={}", &name[..64]));
        assert!(facts.names.contains(&name));
    }

    #[test]
    fn serial_numbers_are_random_and_positive() {
        let directory = TempDir::new();
        let mut serials = Vec::new();
        for _ in 0..20 {
            let bytes = serial_number().unwrap().to_bytes();
            assert_eq!(bytes.len(), 16);
            assert!((0x40..0x80).contains(&bytes[0]));
            assert!(!serials.contains(&bytes));
            serials.push(bytes);
        }
        drop(directory);
    }

    #[test]
    fn a_device_that_starts_in_1970_gets_along_until_its_clock_is_set() {
        let directory = TempDir::new();
        let here = surroundings("pump", &[]);
        let mut own = open(&directory, &here, 5);
        let first = facts(&own);
        assert_eq!(first.not_before, FLOOR);
        assert_eq!(first.not_after, FLOOR + 20 * 365 * DAY);
        // It stays, now and over starts, while the clock is wrong.
        assert_eq!(own.renew_if_due(&here, 65, Instant::now()).unwrap(), None);
        own = open(&directory, &here, 7);
        assert_eq!(facts(&own), first);
        // The clock is set while it runs.
        let why = own.renew_if_due(&here, NOW, Instant::now()).unwrap();
        assert_eq!(why, Some(Why::Clock));
        let second = facts(&own);
        assert_eq!(second.not_before, NOW - DAY);
        assert_eq!(second.key_sha256, first.key_sha256);
        // It is good still after a start in 1970.
        assert_eq!(facts(&open(&directory, &here, 9)), second);
        // Set before a start, it is made anew at the start.
        let other = TempDir::new();
        let first = facts(&open(&other, &here, 5));
        let second = facts(&open(&other, &here, NOW));
        assert_ne!(first.not_after, second.not_after);
        assert_eq!(first.key_sha256, second.key_sha256);
    }

    #[test]
    fn a_clock_that_was_ahead_is_no_trouble() {
        let directory = TempDir::new();
        let here = surroundings("pump", &[]);
        let mut own = open(&directory, &here, NOW + 5000 * DAY);
        let why = own.renew_if_due(&here, NOW, Instant::now()).unwrap();
        assert_eq!(why, Some(Why::Clock));
        assert_eq!(facts(&own).not_before, NOW - DAY);
    }

    #[test]
    fn it_is_renewed_30_days_before_its_end_with_the_same_key() {
        let directory = TempDir::new();
        let here = surroundings("pump", &[]);
        let mut own = open(&directory, &here, NOW);
        let first = facts(&own);
        let due = first.not_after - 30 * DAY;
        assert_eq!(
            own.renew_if_due(&here, due - 1, Instant::now()).unwrap(),
            None
        );
        assert_eq!(facts(&own), first);
        let why = own.renew_if_due(&here, due, Instant::now()).unwrap();
        assert_eq!(why, Some(Why::End));
        let second = facts(&own);
        assert_eq!(second.not_after, due + 824 * DAY);
        assert_eq!(second.key_sha256, first.key_sha256);
        assert_eq!(facts(&open(&directory, &here, due)), second, "it was kept");
        // One that ended while the device was off.
        let third = facts(&open(&directory, &here, second.not_after + DAY));
        assert_eq!(third.key_sha256, first.key_sha256);
        assert_ne!(third, second);
    }

    #[test]
    fn it_follows_the_host_name() {
        let directory = TempDir::new();
        let mut own = open(&directory, &surroundings("pump", &[]), NOW);
        let named = surroundings("valve", &[]);
        let why = own.renew_if_due(&named, NOW, Instant::now()).unwrap();
        assert_eq!(why, Some(Why::HostName));
        assert_eq!(facts(&own).names, ["localhost", "valve", "valve.local"]);
        // Also while the clock is wrong, and over a start.
        let again = surroundings("tank", &[]);
        let own = open(&directory, &again, 5);
        assert_eq!(facts(&own).names, ["localhost", "tank", "tank.local"]);
        assert_eq!(facts(&own).not_before, FLOOR);
    }

    #[test]
    fn it_gathers_addresses_at_most_one_certificate_an_hour() {
        let directory = TempDir::new();
        let start = Instant::now();
        let mut own = open(&directory, &surroundings("pump", &["192.0.2.1"]), NOW);
        let minutes = |minutes: u64| start + Duration::from_secs(60 * minutes);
        let has = |own: &Own, address: &str| {
            own.identity()
                .facts
                .addresses
                .contains(&address.parse().unwrap())
        };
        // The network comes up after the service, and then again elsewhere.
        let second = surroundings("pump", &["192.0.2.2"]);
        let why = own.renew_if_due(&second, NOW, minutes(1)).unwrap();
        assert_eq!(why, Some(Why::Addresses));
        assert!(has(&own, "192.0.2.1") && has(&own, "192.0.2.2"));
        let third = surroundings("pump", &["192.0.2.3"]);
        assert_eq!(own.renew_if_due(&third, NOW, minutes(2)).unwrap(), None);
        assert_eq!(own.renew_if_due(&third, NOW, minutes(60)).unwrap(), None);
        let why = own.renew_if_due(&third, NOW, minutes(61)).unwrap();
        assert_eq!(why, Some(Why::Addresses));
        // Back where it was: that is known.
        assert_eq!(own.renew_if_due(&second, NOW, minutes(200)).unwrap(), None);
        assert_eq!(facts(&own).addresses.len(), 3);

        // There is room for 16; those of now come first.
        let many: Vec<String> = (0..16).map(|last| format!("198.51.100.{last}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let crowded = surroundings("pump", &many);
        assert!(
            own.renew_if_due(&crowded, NOW, minutes(300))
                .unwrap()
                .is_some()
        );
        assert_eq!(facts(&own).addresses, crowded.addresses);
        assert_eq!(own.renew_if_due(&crowded, NOW, minutes(900)).unwrap(), None);
    }
}
