//! Identities and trust as handshakes see them, in memory.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams,
    SanType, SerialNumber,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, HandshakeKind, ServerConnection,
};
use rustls::{ServerConfig, SignatureScheme, SupportedProtocolVersion, version};
use time::OffsetDateTime;

use super::*;
use crate::config::ClientRole;

/// A directory of a test's own, gone with it.
pub(super) struct TempDir(PathBuf);

impl TempDir {
    pub(super) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("edgeweb-tls-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    pub(super) fn config(&self) -> Config {
        let mut config = Config::default();
        config.server.state_dir = self.0.join("state");
        config.tls.directory = self.0.join("provisioned");
        config
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Somebody who signs.
pub(super) type Ca = CertifiedIssuer<'static, KeyPair>;

pub(super) fn ca_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

pub(super) fn ca(name: &str) -> Ca {
    Ca::self_signed(ca_params(name), KeyPair::generate().unwrap()).unwrap()
}

pub(super) fn intermediate(name: &str, issuer: &Ca) -> Ca {
    Ca::signed_by(ca_params(name), KeyPair::generate().unwrap(), issuer).unwrap()
}

/// What a device's certificate should be like, valid from yesterday for 90 days.
pub(super) fn leaf_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new([String::from(name)]).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.is_ca = IsCa::ExplicitNoCa;
    let now = clock::now();
    params.not_before = OffsetDateTime::from_unix_timestamp(now - clock::DAY).unwrap();
    params.not_after = OffsetDateTime::from_unix_timestamp(now + 90 * clock::DAY).unwrap();
    params
}

/// A chain with its key in PEM.
pub(super) fn bundle(name: &str, issuer: &Ca) -> String {
    let key = KeyPair::generate().unwrap();
    let leaf = leaf_params(name).signed_by(&key, issuer).unwrap();
    leaf.pem() + &key.serialize_pem()
}

/// A client's certificate with its key.
fn client(
    change: impl FnOnce(&mut CertificateParams),
    issuer: &Ca,
) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let key = KeyPair::generate().unwrap();
    let mut params = leaf_params("client");
    params.subject_alt_names.clear();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    change(&mut params);
    let certificate = params.signed_by(&key, issuer).unwrap();
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    (vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key))
}

fn crl(issuer: &Ca, revoked: &[u64], number: u64) -> String {
    let now = clock::now();
    let time = |seconds| OffsetDateTime::from_unix_timestamp(seconds).unwrap();
    let revoked = revoked.iter().map(|serial| RevokedCertParams {
        serial_number: SerialNumber::from(*serial),
        revocation_time: time(now - 60),
        reason_code: None,
        invalidity_date: None,
    });
    CertificateRevocationListParams {
        this_update: time(now - 60 + i64::try_from(number).unwrap()),
        next_update: time(now + clock::DAY),
        crl_number: SerialNumber::from(number),
        issuing_distribution_point: None,
        revoked_certs: revoked.collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    }
    .signed_by(issuer)
    .unwrap()
    .pem()
    .unwrap()
}

/// Takes every certificate.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

type ClientCert = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn client_config(
    versions: &[&'static SupportedProtocolVersion],
    identity: Option<&ClientCert>,
) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody));
    Arc::new(match identity {
        Some((chain, key)) => builder
            .with_client_auth_cert(chain.clone(), key.clone_key())
            .unwrap(),
        None => builder.with_no_client_auth(),
    })
}

/// A connection in memory, with its handshake made.
struct Connection {
    client: ClientConnection,
    server: ServerConnection,
}

impl Connection {
    fn open(server: Arc<ServerConfig>, client: &Arc<ClientConfig>) -> Result<Self, rustls::Error> {
        let name = ServerName::try_from("localhost").unwrap();
        let mut connection = Self {
            client: ClientConnection::new(Arc::clone(client), name).unwrap(),
            server: ServerConnection::new(server).unwrap(),
        };
        connection.exchange()?;
        Ok(connection)
    }

    /// Carries bytes both ways until there are none.
    fn exchange(&mut self) -> Result<(), rustls::Error> {
        loop {
            let mut bytes = Vec::new();
            while self.client.wants_write() {
                self.client.write_tls(&mut bytes).unwrap();
            }
            let sent = !bytes.is_empty();
            let mut left = bytes.as_slice();
            while !left.is_empty() {
                self.server.read_tls(&mut left).unwrap();
                self.server.process_new_packets()?;
            }
            let mut bytes = Vec::new();
            while self.server.wants_write() {
                self.server.write_tls(&mut bytes).unwrap();
            }
            if bytes.is_empty() && !sent {
                return Ok(());
            }
            let mut left = bytes.as_slice();
            while !left.is_empty() {
                self.client.read_tls(&mut left).unwrap();
                self.client.process_new_packets()?;
            }
        }
    }

    /// Says something from the client to the server.
    fn still_works(&mut self) {
        use std::io::{Read, Write};
        self.client.writer().write_all(b"hello").unwrap();
        self.exchange().unwrap();
        let mut said = [0; 5];
        self.server.reader().read_exact(&mut said).unwrap();
        assert_eq!(&said, b"hello");
    }

    fn shown(&self) -> Facts {
        Facts::read(&self.client.peer_certificates().unwrap()[0]).unwrap()
    }
}

use super::certificate::Facts;

const BOTH: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];

fn connect(
    tls: &Tls,
    clients: ClientCertificates,
    client: &Arc<ClientConfig>,
) -> Option<Connection> {
    Connection::open(tls.server_config(clients), client).ok()
}

fn shown(tls: &Tls) -> Facts {
    connect(tls, Off, &client_config(&BOTH, None))
        .unwrap()
        .shown()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn the_first_start_makes_a_key_that_stays() {
    let directory = TempDir::new();
    let config = directory.config();
    let first = {
        let tls = Tls::open(&config).unwrap();
        shown(&tls)
    };
    let kept = directory.path().join("state/tls");
    assert_eq!(mode(&kept), 0o700);
    assert_eq!(mode(&kept.join("device.key")), 0o600);
    assert!(first.names.contains(&String::from("localhost")));
    assert!(first.addresses.contains(&"127.0.0.1".parse().unwrap()));
    assert!(first.may_serve && first.may_sign && !first.is_ca && first.self_issued);
    assert_eq!(first.key_type.to_string(), "ECDSA P-256");
    let again = shown(&Tls::open(&config).unwrap());
    assert_eq!(first, again, "the second start shows the same certificate");

    // Without the certificate it is another one, with the same key.
    fs::write(kept.join("device.crt"), "rubbish").unwrap();
    let another = shown(&Tls::open(&config).unwrap());
    assert_ne!(another.fingerprint_sha256, first.fingerprint_sha256);
    assert_eq!(another.key_sha256, first.key_sha256);
}

#[test]
fn a_key_that_others_may_read_is_closed_and_kept() {
    let directory = TempDir::new();
    let config = directory.config();
    let first = shown(&Tls::open(&config).unwrap());
    let key = directory.path().join("state/tls/device.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(key.parent().unwrap(), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(shown(&Tls::open(&config).unwrap()), first);
    assert_eq!(mode(&key), 0o600);
    assert_eq!(mode(key.parent().unwrap()), 0o700);
}

#[test]
fn a_damaged_key_is_kept_aside_and_replaced() {
    let directory = TempDir::new();
    let config = directory.config();
    let first = shown(&Tls::open(&config).unwrap());
    let key = directory.path().join("state/tls/device.key");
    let good = fs::read(&key).unwrap();
    for bad in [&b""[..], b"rubbish", &good[..good.len() / 2], &[0xff; 300]] {
        fs::write(&key, bad).unwrap();
        let now = shown(&Tls::open(&config).unwrap());
        assert_ne!(now.key_sha256, first.key_sha256);
        let aside = key.with_file_name("device.key.bad");
        assert_eq!(fs::read(aside).unwrap(), bad);
        assert_eq!(mode(&key), 0o600);
        // The new one is good.
        assert_eq!(shown(&Tls::open(&config).unwrap()), now);
    }
}

#[test]
fn without_storage_the_identity_is_in_memory() {
    let directory = TempDir::new();
    let mut config = directory.config();
    // A file where the directory should be stops root as well.
    config.server.state_dir = directory.write("state", "a file");
    let tls = Tls::open(&config).unwrap();
    let first = shown(&tls);
    assert!(matches!(
        tls.request(&RequestParameters::default()),
        Err(ChangeError::Elsewhere(_))
    ));
    let installing = tls.install(bundle("pump", &ca("root")).as_bytes());
    assert!(matches!(installing, Err(ChangeError::Failed(_))));
    assert_eq!(shown(&tls), first);
    let second = shown(&Tls::open(&config).unwrap());
    assert_ne!(first.key_sha256, second.key_sha256);
}

#[test]
fn what_is_installed_is_shown_next_and_after_a_start() {
    let directory = TempDir::new();
    let config = directory.config();
    let tls = Tls::open(&config).unwrap();
    let own = shown(&tls);
    let root = ca("root");
    let middle = intermediate("middle", &root);
    let client = client_config(&BOTH, None);
    let mut earlier = connect(&tls, Off, &client).unwrap();

    let key = KeyPair::generate().unwrap();
    let leaf = leaf_params("pump.example")
        .signed_by(&key, &middle)
        .unwrap();
    let pem = leaf.pem() + &middle.pem() + &key.serialize_pem();
    let installed = tls.install(pem.as_bytes()).unwrap();
    assert_eq!(installed.source, Source::Installed);
    assert_eq!(installed.chain_length(), 2);
    assert_eq!(shown(&tls).names, ["pump.example"]);
    assert!(tls.names().contains("pump.example"));
    earlier.still_works();
    let path = directory.path().join("state/tls/installed.pem");
    assert_eq!(mode(&path), 0o600);
    assert!(matches!(
        tls.install(pem.as_bytes()),
        Err(ChangeError::InForce)
    ));
    drop(tls);

    let tls = Tls::open(&config).unwrap();
    assert_eq!(shown(&tls).names, ["pump.example"]);
    // What is refused changes nothing.
    assert!(matches!(
        tls.install(b"rubbish"),
        Err(ChangeError::Certificate(Refusal::NoCertificate))
    ));
    assert_eq!(shown(&tls).names, ["pump.example"]);

    assert_eq!(tls.remove_installed().unwrap().source, Source::Own);
    assert_eq!(shown(&tls), own);
    assert!(!path.exists());
    assert!(matches!(
        tls.remove_installed(),
        Err(ChangeError::Nothing(_))
    ));
}

#[test]
fn what_is_taken_can_be_read_again_however_large_it_is() {
    let directory = TempDir::new();
    let config = directory.config();
    let tls = Tls::open_unwatched(&config).unwrap();
    let key = KeyPair::generate().unwrap();
    let root = ca("root");
    // In one line its certificate is shorter than as it is kept, in lines of 64.
    let of = |count: usize| {
        let names: Vec<_> = (0..count).map(|n| format!("n{n:05}.example")).collect();
        let mut params = leaf_params("pump.example");
        params.subject_alt_names = CertificateParams::new(names).unwrap().subject_alt_names;
        let pem = params.signed_by(&key, &root).unwrap().pem();
        let lines: Vec<_> = pem.lines().collect();
        let (first, last) = (lines[0], lines[lines.len() - 1]);
        let base64 = lines[1..lines.len() - 1].concat();
        format!("{first}\n{base64}\n{last}\n{}", key.serialize_pem())
    };
    let (mut taken, mut count) = (of(2900), 2900);
    while taken.len() <= MAX_BUNDLE_BYTES {
        match tls.install(taken.as_bytes()) {
            Ok(_) => {
                let again = Tls::open_unwatched(&config).unwrap();
                assert_eq!(shown(&again).names.len(), count);
            }
            Err(error) => assert!(matches!(error, ChangeError::Certificate(Refusal::TooLarge))),
        }
        count += 10;
        taken = of(count);
    }
    assert!(count > 3000, "{count}");
}

#[test]
fn a_damaged_installed_certificate_gives_way_to_the_devices_own() {
    let directory = TempDir::new();
    let config = directory.config();
    let own = shown(&Tls::open(&config).unwrap());
    let path = directory.write("state/tls/installed.pem", "rubbish");
    let tls = Tls::open(&config).unwrap();
    assert_eq!(shown(&tls), own);
    // It is there until it is replaced or removed.
    assert!(path.exists());
    assert_eq!(tls.remove_installed().unwrap().source, Source::Own);
    assert!(!path.exists());
}

#[test]
fn an_installed_certificate_that_has_ended_is_still_shown() {
    let directory = TempDir::new();
    let config = directory.config();
    let key = KeyPair::generate().unwrap();
    let mut params = leaf_params("old.example");
    let ended = clock::now() - clock::DAY;
    params.not_before = OffsetDateTime::from_unix_timestamp(ended - 30 * clock::DAY).unwrap();
    params.not_after = OffsetDateTime::from_unix_timestamp(ended).unwrap();
    let leaf = params.signed_by(&key, &ca("root")).unwrap();
    let pem = leaf.pem() + &key.serialize_pem();
    let tls = Tls::open(&config).unwrap();
    assert!(matches!(
        tls.install(pem.as_bytes()),
        Err(ChangeError::Certificate(Refusal::Expired { .. }))
    ));
    drop(tls);
    directory.write("state/tls/installed.pem", &pem);
    let tls = Tls::open(&config).unwrap();
    assert_eq!(shown(&tls).names, ["old.example"]);
    assert!(tls.presented().facts.days_left() < 0);
}

#[test]
fn a_request_is_for_the_devices_key_and_completed_by_a_chain_alone() {
    let directory = TempDir::new();
    let tls = Tls::open(&directory.config()).unwrap();
    let own = shown(&tls);
    let request = tls.request(&RequestParameters::default()).unwrap();
    assert!(request.starts_with("-----BEGIN CERTIFICATE REQUEST-----"));

    // A CA would take the request apart; for the key alone that is not needed.
    let key = fs::read_to_string(directory.path().join("state/tls/device.key")).unwrap();
    let key = KeyPair::from_pem(&key).unwrap();
    let root = ca("root");
    let leaf = leaf_params("pump.example").signed_by(&key, &root).unwrap();
    let installed = tls.install(leaf.pem().as_bytes()).unwrap();
    assert_eq!(installed.facts.key_sha256, own.key_sha256);
    assert_eq!(shown(&tls).names, ["pump.example"]);

    let other = leaf_params("other.example")
        .signed_by(&KeyPair::generate().unwrap(), &root)
        .unwrap();
    assert!(matches!(
        tls.install(other.pem().as_bytes()),
        Err(ChangeError::Certificate(Refusal::NoKey))
    ));
}

#[test]
fn a_request_asks_for_what_a_certificate_can_have() {
    let directory = TempDir::new();
    let tls = Tls::open(&directory.config()).unwrap();
    let ask = |json: &str| tls.request(&serde_json::from_str(json).unwrap());
    for good in [
        r#"{"names":["pump.example","*.pump.example"]}"#,
        r#"{"addresses":["192.0.2.1","2001:db8::1"]}"#,
        r#"{"names":[],"addresses":["192.0.2.1"],"common_name":"Pump 7","organization":"Größe & Co"}"#,
        &format!(r#"{{"common_name":"{}"}}"#, "ä".repeat(64)),
    ] {
        ask(good).unwrap();
    }
    for bad in [
        r#"{"names":["pump example"]}"#,
        r#"{"names":["pump..example"]}"#,
        r#"{"names":["*"]}"#,
        r#"{"names":["a.*.example"]}"#,
        r#"{"names":["-a"]}"#,
        r#"{"names":[]}"#,
        r#"{"names":[],"addresses":[]}"#,
        r#"{"addresses":[]}"#,
        r#"{"common_name":""}"#,
        r#"{"common_name":"a\nb"}"#,
        r#"{"organization":""}"#,
        &format!(r#"{{"organization":"{}"}}"#, "a".repeat(65)),
        &format!(r#"{{"names":["a"{}]}}"#, r#","b""#.repeat(16)),
        &format!(
            r#"{{"addresses":["192.0.2.1"{}]}}"#,
            r#","192.0.2.2""#.repeat(16)
        ),
    ] {
        assert!(matches!(ask(bad), Err(ChangeError::Request(_))), "{bad}");
    }
}

#[test]
fn provisioned_files_come_first_and_are_followed() {
    let directory = TempDir::new();
    let config = directory.config();
    let root = ca("root");
    let split = |name: &str| {
        let key = KeyPair::generate().unwrap();
        let leaf = leaf_params(name).signed_by(&key, &root).unwrap();
        (leaf.pem(), key.serialize_pem())
    };
    let tls = Tls::open_unwatched(&config).unwrap();
    tls.install(bundle("installed.example", &root).as_bytes())
        .unwrap();
    let look = || {
        tls.shared.tick();
        shown(&tls).names
    };
    assert_eq!(look(), ["installed.example"]);

    // The certificate alone is not enough, however long it is looked at.
    let (first, first_key) = split("first.example");
    directory.write("provisioned/server.crt", &first);
    for _ in 0..3 {
        assert_eq!(look(), ["installed.example"]);
    }
    let key_path = directory.write("provisioned/server.key", &first_key);
    assert_eq!(look(), ["first.example"]);
    assert!(matches!(
        tls.install(bundle("other.example", &root).as_bytes()),
        Err(ChangeError::Elsewhere(reason)) if reason.contains("server.crt")
    ));
    assert!(matches!(
        tls.remove_installed(),
        Err(ChangeError::Elsewhere(_))
    ));

    // A new key that does not fit yet, and then does.
    let (second, second_key) = split("second.example");
    directory.write("provisioned/server.key", &second_key);
    for _ in 0..3 {
        assert_eq!(look(), ["first.example"]);
    }
    directory.write("provisioned/server.crt", &second);
    assert_eq!(look(), ["second.example"]);

    // What is no certificate, or is of the wrong kind, leaves the one in force.
    for bad in [String::from("rubbish"), String::new(), root.pem()] {
        directory.write("provisioned/server.crt", bad);
        for _ in 0..3 {
            assert_eq!(look(), ["second.example"]);
        }
    }
    // It is said once, and not read again until it changes.
    {
        let mut state = tls.shared.state();
        assert_eq!(state.look_at_identity_files(), files::Look::Same);
    }
    directory.write("provisioned/server.crt", &second);
    assert_eq!(look(), ["second.example"]);

    // Gone for a moment, as between two steps of who replaces it, and gone for good.
    fs::remove_file(&key_path).unwrap();
    assert_eq!(look(), ["second.example"]);
    directory.write("provisioned/server.key", &second_key);
    assert_eq!(look(), ["second.example"]);
    fs::remove_dir_all(directory.path().join("provisioned")).unwrap();
    assert_eq!(look(), ["second.example"]);
    assert_eq!(look(), ["installed.example"]);
}

#[test]
fn a_pipe_among_the_provisioned_files_is_not_waited_for() {
    let directory = TempDir::new();
    let config = directory.config();
    fs::create_dir_all(&config.tls.directory).unwrap();
    for name in ["server.crt", "server.key", "client-ca.crt"] {
        rustix::fs::mkfifoat(
            rustix::fs::CWD,
            config.tls.directory.join(name),
            rustix::fs::Mode::RUSR,
        )
        .unwrap();
    }
    assert_eq!(Tls::open(&config).unwrap().presented().source, Source::Own);
}

#[test]
fn what_an_authority_issued_counts_while_acme_is_on() {
    let directory = TempDir::new();
    let mut config = directory.config();
    let root = ca("root");
    let tls = Tls::open_unwatched(&config).unwrap();
    tls.install(bundle("installed.example", &root).as_bytes())
        .unwrap();
    let issued = bundle("issued.example", &root);
    tls.shared.install_acme(issued.as_bytes()).unwrap();
    assert_eq!(shown(&tls).names, ["installed.example"]);
    config.tls.acme.enabled = true;
    tls.reconfigure(&config).unwrap();
    assert_eq!(shown(&tls).names, ["issued.example"]);
    assert!(matches!(
        tls.install(bundle("other.example", &root).as_bytes()),
        Err(ChangeError::Elsewhere(reason)) if reason.contains("tls.acme.enabled")
    ));
    // A renewal that is not good leaves the one before.
    assert!(tls.shared.install_acme(b"rubbish").is_err());
    assert_eq!(shown(&tls).names, ["issued.example"]);
    tls.shared
        .install_acme(bundle("renewed.example", &root).as_bytes())
        .unwrap();
    assert_eq!(shown(&tls).names, ["renewed.example"]);
    drop(tls);
    let tls = Tls::open_unwatched(&config).unwrap();
    assert_eq!(shown(&tls).names, ["renewed.example"]);
    assert_eq!(
        tls.shared.acme_identity().unwrap().facts.names,
        ["renewed.example"]
    );
    config.tls.acme.enabled = false;
    tls.reconfigure(&config).unwrap();
    assert_eq!(shown(&tls).names, ["installed.example"]);
}

#[test]
fn ten_thousand_swaps_drop_no_connection_and_leak_no_descriptor() {
    let directory = TempDir::new();
    let tls = Tls::open_unwatched(&directory.config()).unwrap();
    let root = ca("root");
    let bundles = ["one.example", "two.example"].map(|name| bundle(name, &root));
    let client = client_config(&BOTH, None);
    let mut earlier = connect(&tls, Off, &client).unwrap();
    let open = || fs::read_dir("/proc/self/fd").unwrap().count();
    let mut before = 0;
    for swap in 0..10_000 {
        tls.install(bundles[swap % 2].as_bytes()).unwrap();
        if swap == 10 {
            before = open();
        }
        if swap % 1000 == 0 {
            earlier.still_works();
            let expected = ["one.example", "two.example"][swap % 2];
            assert_eq!(shown(&tls).names, [expected]);
        }
    }
    // Other tests of this process open and close files at the same time.
    assert!(open() < before + 100, "{before} at first, {} now", open());
    earlier.still_works();
    let mut text = String::new();
    tls.write_metrics(&mut text);
    assert!(
        text.contains("\nedgeweb_certificate_swaps_total 10000\n"),
        "{text}"
    );
    let left = fs::read_dir(directory.path().join("state/tls")).unwrap();
    assert_eq!(left.count(), 3, "device.key, device.crt, installed.pem");
}

/// Whether a client gets in, with TLS 1.2 and 1.3 alike.
fn gets_in(tls: &Tls, clients: ClientCertificates, identity: Option<&ClientCert>) -> bool {
    let [with_13, with_12] = [&version::TLS13, &version::TLS12].map(|version| {
        let config = client_config(&[version], identity);
        // With TLS 1.3 a client is refused after it has finished; the server knows.
        connect(tls, clients, &config).is_some()
    });
    assert_eq!(with_13, with_12);
    with_13
}

use ClientCertificates::{Off, Optional, Required};

#[test]
fn clients_are_asked_as_the_listener_says() {
    let directory = TempDir::new();
    let mut config = directory.config();
    let tls = Tls::open_unwatched(&config).unwrap();
    let (ours, theirs) = (ca("ours"), ca("theirs"));
    let good = client(|_| {}, &ours);
    let stranger = client(|_| {}, &theirs);
    let server_only = client(
        |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth],
        &ours,
    );
    let ended = client(
        |params| {
            let ended = clock::now() - 60;
            params.not_after = OffsetDateTime::from_unix_timestamp(ended).unwrap();
        },
        &ours,
    );

    // Nobody is trusted: who may show one is not asked, who must cannot.
    for identity in [None, Some(&good)] {
        assert!(gets_in(&tls, Off, identity));
        assert!(gets_in(&tls, Optional, identity));
        assert!(!gets_in(&tls, Required, identity));
    }

    let view = tls.install_anchors(ours.pem().as_bytes()).unwrap();
    let view = serde_json::to_value(view).unwrap();
    assert_eq!(view["source"], "installed");
    assert_eq!(view["anchors"][0]["subject"], "CN=ours");
    assert!(gets_in(&tls, Optional, None));
    assert!(!gets_in(&tls, Required, None));
    assert!(gets_in(&tls, Required, Some(&good)));
    for bad in [&stranger, &server_only, &ended] {
        assert!(gets_in(&tls, Off, Some(bad)));
        assert!(!gets_in(&tls, Optional, Some(bad)));
        assert!(!gets_in(&tls, Required, Some(bad)));
    }

    // STRICT asks everywhere.
    config.tls.mode = TlsMode::Strict;
    tls.reconfigure(&config).unwrap();
    assert!(!gets_in(&tls, Off, None));
    assert!(gets_in(&tls, Off, Some(&good)));
    config.tls.mode = TlsMode::Permissive;
    tls.reconfigure(&config).unwrap();
    assert!(gets_in(&tls, Off, None));

    drop(tls);
    let tls = Tls::open_unwatched(&config).unwrap();
    assert!(gets_in(&tls, Required, Some(&good)), "after a start");
    tls.remove_anchors().unwrap();
    assert!(!gets_in(&tls, Required, Some(&good)));
    assert!(matches!(tls.remove_anchors(), Err(ChangeError::Nothing(_))));
}

#[test]
fn what_is_revoked_gets_in_no_more_not_even_by_resuming() {
    let directory = TempDir::new();
    let config = directory.config();
    let tls = Tls::open_unwatched(&config).unwrap();
    let ours = ca("ours");
    let numbered = |number: u64| {
        client(
            |params| params.serial_number = Some(SerialNumber::from(number)),
            &ours,
        )
    };
    let (lost, kept) = (numbered(7), numbered(8));
    assert!(matches!(
        tls.install_crls(crl(&ours, &[7], 1).as_bytes()),
        Err(ChangeError::Trust(TrustRefusal::NoAnchors))
    ));
    tls.install_anchors(ours.pem().as_bytes()).unwrap();

    for version in BOTH {
        let lost_client = client_config(&[version], Some(&lost));
        let kind = |tls: &Tls, clients| {
            let connection = connect(tls, clients, &lost_client)?;
            assert_eq!(connection.server.peer_certificates(), Some(&lost.0[..]));
            connection.server.handshake_kind()
        };
        assert_eq!(kind(&tls, Required), Some(HandshakeKind::Full));
        assert_eq!(kind(&tls, Required), Some(HandshakeKind::Resumed));
        let view = tls.install_crls(crl(&ours, &[7], 2).as_bytes()).unwrap();
        let view = serde_json::to_value(view).unwrap();
        assert_eq!(view["crl_source"], "installed");
        assert_eq!(view["crls"][0]["revoked"], 1);
        assert_eq!(kind(&tls, Required), None);
        assert!(!gets_in(&tls, Optional, Some(&lost)));
        assert!(gets_in(&tls, Required, Some(&kept)));
        tls.remove_crls().unwrap();
    }

    // Two lists of one issuer: the newer one counts, whichever comes first.
    let (older, newer) = (crl(&ours, &[], 1), crl(&ours, &[7], 2));
    for pem in [format!("{older}{newer}"), format!("{newer}{older}")] {
        tls.install_crls(pem.as_bytes()).unwrap();
        assert!(!gets_in(&tls, Required, Some(&lost)));
    }

    // A list of somebody else who calls himself ours.
    let impostor = ca("ours");
    assert!(matches!(
        tls.install_crls(crl(&impostor, &[8], 3).as_bytes()),
        Err(ChangeError::Trust(TrustRefusal::CrlSignature(1)))
    ));
    // A list of an issuer that is not known here is of no effect, and no harm.
    tls.install_crls(crl(&ca("theirs"), &[8], 3).as_bytes())
        .unwrap();
    assert!(gets_in(&tls, Required, Some(&kept)));
}

#[test]
fn a_session_is_resumed_only_where_it_began() {
    let directory = TempDir::new();
    let tls = Tls::open_unwatched(&directory.config()).unwrap();
    tls.install_anchors(ca("ours").pem().as_bytes()).unwrap();
    for version in BOTH {
        let client = client_config(&[version], None);
        assert!(connect(&tls, Off, &client).is_some());
        let again = connect(&tls, Off, &client).unwrap();
        assert_eq!(again.server.handshake_kind(), Some(HandshakeKind::Resumed));
        // Nobody has shown a certificate in that session.
        assert!(connect(&tls, Required, &client).is_none());
    }
}

#[test]
fn a_swap_lets_sessions_be_resumed() {
    let directory = TempDir::new();
    let tls = Tls::open_unwatched(&directory.config()).unwrap();
    let client = client_config(&BOTH, None);
    assert!(connect(&tls, Off, &client).is_some());
    tls.install(bundle("pump.example", &ca("root")).as_bytes())
        .unwrap();
    let again = connect(&tls, Off, &client).unwrap();
    assert_eq!(again.server.handshake_kind(), Some(HandshakeKind::Resumed));
}

#[test]
fn trust_that_cannot_be_read_is_no_trust() {
    let directory = TempDir::new();
    let config = directory.config();
    let ours = ca("ours");
    let good = client(
        |params| params.serial_number = Some(SerialNumber::from(8)),
        &ours,
    );
    directory.write("provisioned/client-ca.crt", ours.pem());
    let list = directory.write("provisioned/client-ca.crl", "rubbish");
    {
        let tls = Tls::open_unwatched(&config).unwrap();
        assert!(gets_in(&tls, Off, None));
        assert!(gets_in(&tls, Optional, None));
        assert!(!gets_in(&tls, Optional, Some(&good)));
        assert!(!gets_in(&tls, Required, Some(&good)));
        // What is wrong is not covered up by installing something else.
        assert!(matches!(
            tls.install_anchors(ours.pem().as_bytes()),
            Err(ChangeError::Elsewhere(_))
        ));
        // And is looked at again when it changes.
        fs::write(&list, crl(&ours, &[7], 1)).unwrap();
        tls.shared.tick();
        assert!(gets_in(&tls, Required, Some(&good)));
    }
    let tls = Tls::open_unwatched(&config).unwrap();
    assert!(gets_in(&tls, Required, Some(&good)));
    assert!(matches!(
        tls.install_crls(crl(&ours, &[], 2).as_bytes()),
        Err(ChangeError::Elsewhere(_))
    ));
    // While running, what cannot be read leaves what was in force.
    fs::write(&list, "rubbish").unwrap();
    for _ in 0..3 {
        tls.shared.tick();
        assert!(gets_in(&tls, Required, Some(&good)));
    }
    fs::write(&list, crl(&ours, &[8], 3)).unwrap();
    tls.shared.tick();
    assert!(!gets_in(&tls, Required, Some(&good)));
    // A list that is gone for a moment still counts.
    fs::remove_file(&list).unwrap();
    tls.shared.tick();
    assert!(!gets_in(&tls, Required, Some(&good)));
    tls.shared.tick();
    assert!(gets_in(&tls, Required, Some(&good)));
    // The anchors go, too, and with them everybody.
    fs::remove_file(directory.path().join("provisioned/client-ca.crt")).unwrap();
    tls.shared.tick();
    tls.shared.tick();
    assert!(!gets_in(&tls, Required, Some(&good)));
}

#[test]
fn a_client_is_who_its_certificate_says() {
    let directory = TempDir::new();
    let mut config = directory.config();
    let rule = |spiffe_id: &str, subject: &str, role| ClientRole {
        spiffe_id: String::from(spiffe_id),
        subject: String::from(subject),
        role,
    };
    config.tls.client_roles = vec![
        rule("spiffe://example.org/fleet/*", "", Role::Admin),
        rule("", r"CN=ops\, really,O=Maker", Role::User),
        rule("", "CN=ops,O=Maker", Role::Admin),
    ];
    let tls = Tls::open_unwatched(&config).unwrap();
    let ours = ca("ours");
    let who = |change: &dyn Fn(&mut CertificateParams)| {
        let (chain, _) = client(change, &ours);
        let found = tls.client_identity(&chain)?;
        Some((found.name, found.spiffe_id.is_some(), found.role))
    };
    let uri = |uri: &str| SanType::URI(uri.try_into().unwrap());
    let subject = |params: &mut CertificateParams, name: &str| {
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::OrganizationName, "Maker");
        params.distinguished_name.push(DnType::CommonName, name);
    };
    let expected = |name: &str, spiffe, role| Some((String::from(name), spiffe, role));
    assert_eq!(
        who(&|params| params.subject_alt_names = vec![uri("spiffe://example.org/fleet/manager")]),
        expected(
            "spiffe://example.org/fleet/manager",
            true,
            Some(Role::Admin)
        )
    );
    assert_eq!(
        who(&|params| {
            subject(params, "ops");
            params.subject_alt_names = vec![uri("spiffe://example.com/fleet/manager")];
        }),
        expected("spiffe://example.com/fleet/manager", true, None),
        "another trust domain, and its subject does not help"
    );
    assert_eq!(
        who(&|params| subject(params, "ops")),
        expected("CN=ops,O=Maker", false, Some(Role::Admin))
    );
    assert_eq!(
        who(&|params| subject(params, "ops, really")),
        expected(r"CN=ops\, really,O=Maker", false, Some(Role::User))
    );
    assert_eq!(
        who(&|params| subject(params, "ops,O=Maker")),
        expected(r"CN=ops\,O=Maker,O=Maker", false, None),
        "a comma in a name is no comma between names"
    );
    assert_eq!(
        who(&|params| {
            subject(params, "ops");
            params.subject_alt_names = vec![uri("https://example.org/")];
        }),
        expected("CN=ops,O=Maker", false, Some(Role::Admin)),
        "a URI that is no SPIFFE ID"
    );
    for ids in [
        &[
            "spiffe://example.org/fleet/a",
            "spiffe://example.org/fleet/b",
        ][..],
        &["spiffe://example.org/fleet/a", "https://example.org/"],
        &["spiffe://example.org/fleet/../a"],
        &["SPIFFE://example.org/fleet/a"],
    ] {
        assert_eq!(
            who(&|params| {
                subject(params, "ops");
                params.subject_alt_names = ids.iter().map(|id| uri(id)).collect();
            }),
            None,
            "{ids:?}"
        );
    }
    // A session that is resumed after its certificate's end.
    assert_eq!(
        who(&|params| {
            subject(params, "ops");
            params.not_after = OffsetDateTime::from_unix_timestamp(clock::now() - 1).unwrap();
        }),
        None
    );
    assert_eq!(tls.client_identity(&[]), None);
    assert_eq!(
        tls.client_identity(&[CertificateDer::from(vec![1, 2, 3])]),
        None
    );
}

#[test]
fn an_authority_sees_its_challenge_and_nobody_else_does() {
    let directory = TempDir::new();
    let tls = Tls::open_unwatched(&directory.config()).unwrap();
    let own = shown(&tls);
    let asking = |name: &str, protocols: &[&[u8]]| {
        let mut config = ClientConfig::clone(&client_config(&BOTH, None));
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut connection = Connection {
            client: ClientConnection::new(Arc::new(config), name).unwrap(),
            server: ServerConnection::new(tls.server_config(Off)).unwrap(),
        };
        connection.exchange().ok()?;
        let protocol = connection.client.alpn_protocol().map(<[u8]>::to_vec);
        Some((connection.shown().names, protocol))
    };
    let acme = challenges::ACME_TLS_ALPN;
    assert_eq!(asking("pump.example", &[acme]), None);

    let key = KeyPair::generate().unwrap();
    let answer = leaf_params("pump.example").self_signed(&key).unwrap();
    let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    let answer = validation::certify(&[answer.der().clone()], &key).unwrap();
    tls.shared
        .set_alpn_challenge("Pump.example", answer)
        .unwrap();
    let expected = Some((vec![String::from("pump.example")], Some(acme.to_vec())));
    assert_eq!(asking("pump.example", &[acme]), expected);
    assert_eq!(asking("other.example", &[acme]), None);
    let ordinary = Some((own.names.clone(), Some(b"h2".to_vec())));
    assert_eq!(asking("pump.example", &[b"h2", b"http/1.1"]), ordinary);
    assert_eq!(asking("pump.example", &[acme, b"h2"]), ordinary);
    assert_eq!(asking("pump.example", &[]), Some((own.names.clone(), None)));
    // What changes the trust meanwhile does not end it.
    tls.install_anchors(ca("ours").pem().as_bytes()).unwrap();
    assert_eq!(asking("pump.example", &[acme]), expected);
    tls.shared.clear_alpn_challenge("pump.example");
    assert_eq!(asking("pump.example", &[acme]), None);
}

#[test]
fn another_place_for_the_files_is_taken_up_while_running() {
    let directory = TempDir::new();
    let mut config = directory.config();
    let tls = Tls::open_unwatched(&config).unwrap();
    let first = shown(&tls);
    config.server.state_dir = directory.path().join("elsewhere");
    tls.reconfigure(&config).unwrap();
    assert_ne!(shown(&tls).key_sha256, first.key_sha256);
    config.server.state_dir = directory.config().server.state_dir;
    tls.reconfigure(&config).unwrap();
    assert_eq!(shown(&tls), first);
}
