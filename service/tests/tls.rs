//! The device's identity and whom it trusts, as OpenSSL, curl and administrators see them.

mod common;

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::https::{client_config, connect_any, connect_tls, exchange, request};
use common::{Answer, Service, TempDir, device_config, eventually, run};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams,
    SanType, SerialNumber,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

/// Somebody who signs.
type Ca = CertifiedIssuer<'static, KeyPair>;

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new([String::from(name)]).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = OffsetDateTime::now_utc() - Duration::DAY;
    params.not_after = OffsetDateTime::now_utc() + 90 * Duration::DAY;
    params
}

fn ca(name: &str) -> Ca {
    let mut params = params(name);
    params.subject_alt_names.clear();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ca::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A server's certificate and its key, in PEM.
fn server(name: &str, issuer: &Ca) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = params(name);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = params.signed_by(&key, issuer).unwrap();
    (certificate.pem(), key.serialize_pem())
}

fn bundle(name: &str, issuer: &Ca) -> String {
    let (certificate, key) = server(name, issuer);
    certificate + &key
}

/// A client's certificate and its key, in one file of PEM.
fn client(directory: &TempDir, serial: u64, issuer: &Ca) -> PathBuf {
    let key = KeyPair::generate().unwrap();
    let mut params = params("ops");
    params.subject_alt_names.clear();
    params.serial_number = Some(SerialNumber::from(serial));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = params.signed_by(&key, issuer).unwrap();
    let name = format!("client-{serial}.pem");
    directory.write(&name, certificate.pem() + &key.serialize_pem())
}

/// What [`client`] wrote.
fn identity(path: &Path) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let pem = fs::read(path).unwrap();
    let certificate = CertificateDer::from_pem_slice(&pem).unwrap();
    (
        vec![certificate],
        PrivateKeyDer::from_pem_slice(&pem).unwrap(),
    )
}

fn crl(issuer: &Ca, revoked: &[u64]) -> String {
    let now = OffsetDateTime::now_utc();
    let revoked = revoked.iter().map(|serial| RevokedCertParams {
        serial_number: SerialNumber::from(*serial),
        revocation_time: now - Duration::MINUTE,
        reason_code: None,
        invalidity_date: None,
    });
    CertificateRevocationListParams {
        this_update: now - Duration::MINUTE,
        next_update: now + Duration::DAY,
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: revoked.collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    }
    .signed_by(issuer)
    .unwrap()
    .pem()
    .unwrap()
}

fn openssl(arguments: &[&str]) -> Output {
    run(Command::new("openssl").args(arguments))
}

/// The first certificate that is shown, as OpenSSL prints it with `options`.
fn shown(service: &Service, options: &[&str]) -> String {
    let address = service.https().to_string();
    let connected = openssl(&["s_client", "-connect", &address, "-servername", "localhost"]);
    let text = String::from_utf8(connected.stdout).unwrap();
    let from = text.find("-----BEGIN").expect("a certificate");
    let file = service.directory.write("shown.pem", &text[from..]);
    let file = file.to_str().unwrap();
    let printed = openssl(&[&["x509", "-noout", "-in", file], options].concat());
    assert!(printed.status.success(), "{printed:?}");
    String::from_utf8(printed.stdout).unwrap()
}

fn subject(service: &Service) -> String {
    shown(service, &["-subject", "-nameopt", "RFC2253"])
}

/// Whether curl, which trusts `ca` alone, gets an answer for `name`.
fn is_trusted(service: &Service, ca: &Path, name: &str) -> bool {
    let address = service.https();
    let (ip, port) = (address.ip(), address.port());
    let output = run(Command::new("curl")
        .args(["--silent", "--max-time", "15", "--cacert"])
        .arg(ca)
        .args(["--resolve", &format!("{name}:{port}:{ip}")])
        .arg(format!("https://{name}:{port}/health")));
    output.status.success() && output.stdout == br#"{"status":"ok"}"#
}

fn start(directory: TempDir, more: &str) -> Service {
    start_with(directory, more, |_| {})
}

fn start_with(directory: TempDir, more: &str, prepare: impl FnOnce(&mut Command)) -> Service {
    let text = device_config(directory.path(), more);
    Service::start_with(directory, text, prepare)
}

fn own_certificate(service: &Service) -> PathBuf {
    service.directory.path().join("state/tls/device.crt")
}

/// The administrator of a service, who has claimed it.
struct Admin<'a> {
    service: &'a Service,
    authorization: String,
}

impl<'a> Admin<'a> {
    fn claim(service: &'a Service) -> Self {
        let code = eventually("a claim code in the log", || {
            let log = service.log();
            let (_, rest) = log.split_once("claim code: ")?;
            rest.get(..14).map(str::to_owned)
        });
        let asked = json!({"code": code, "username": "owner", "password": "correct horse battery"});
        let answer = request(
            service.https(),
            "POST",
            "/api/public/claim",
            &[("content-type", "application/json")],
            asked.to_string().as_bytes(),
        );
        let token = answer.json()["token"].as_str().unwrap().to_owned();
        Self {
            service,
            authorization: format!("Bearer {token}"),
        }
    }

    fn ask(&self, method: &str, path: &str, media_type: &str, body: impl AsRef<[u8]>) -> Answer {
        let mut headers = vec![("authorization", self.authorization.as_str())];
        if !media_type.is_empty() {
            headers.push(("content-type", media_type));
        }
        let path = format!("/api/admin{path}");
        request(self.service.https(), method, &path, &headers, body.as_ref())
    }

    fn get(&self, path: &str) -> Value {
        let answer = self.ask("GET", path, "", "");
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    fn put(&self, path: &str, pem: impl AsRef<[u8]>) -> Answer {
        self.ask("PUT", path, "application/pem-certificate-chain", pem)
    }
}

/// The detail of a refusal.
#[track_caller]
fn refused(answer: &Answer, status: u16) -> String {
    answer.is_problem(status);
    answer.json()["detail"].as_str().unwrap().to_owned()
}

#[test]
fn the_first_start_makes_an_identity_that_stays() {
    let service = start(TempDir::new(), "");
    let own = own_certificate(&service);
    assert!(is_trusted(&service, &own, "localhost"));
    let text = shown(&service, &["-text"]);
    for part in [
        "Public Key Algorithm: id-ecPublicKey",
        "ASN1 OID: prime256v1",
        "TLS Web Server Authentication",
        "CA:FALSE",
        "DNS:localhost",
        "IP Address:127.0.0.1",
        "Signature Algorithm: ecdsa-with-SHA256",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let host = host.trim().to_lowercase();
    assert!(text.contains(&format!("DNS:{host}")), "{text}");
    let key = service.directory.path().join("state/tls/device.key");
    assert_eq!(
        fs::metadata(&key).unwrap().permissions().mode() & 0o7777,
        0o600
    );
    assert!(!service.log().contains("PRIVATE KEY"));

    // A start later, with a key that others may read: the same certificate, and the key is closed.
    let before = shown(&service, &["-fingerprint"]);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let service = start(service.into_directory(), "");
    assert_eq!(shown(&service, &["-fingerprint"]), before);
    service.wait_for_log("mode 0644 let others read the private key; it is 0600 now");
    assert_eq!(
        fs::metadata(&key).unwrap().permissions().mode() & 0o7777,
        0o600
    );

    // Damage costs the key, and nothing else.
    fs::write(&key, "-----BEGIN PRIVATE KEY-----\n").unwrap();
    let service = start(service.into_directory(), "");
    service.wait_for_log("device.key: is no private key in PKCS#8 and PEM; it is ");
    assert_ne!(shown(&service, &["-pubkey"]), before);
    assert!(is_trusted(&service, &own, "localhost"));
}

#[test]
fn without_storage_there_is_tls_all_the_same() {
    let directory = TempDir::new();
    let state = directory.write("state", "a file, where there should be a directory");
    let service = start(directory, "");
    service.wait_for_log("the device's key is in memory only");
    assert!(state.is_file());
    assert_eq!(
        request(service.https(), "GET", "/health", &[], b"").status,
        200
    );
}

#[test]
fn a_device_that_starts_in_1970_is_reached_and_gets_a_right_certificate_later() {
    let directory = TempDir::new();
    let clock = directory.write("clock", "@1970-01-01 00:00:10\n");
    let service = start_with(directory, "", |command| {
        common::clock_from(command, &clock);
    });
    service.wait_for_log("the clock shows a day before this version was made");
    let own = own_certificate(&service);
    assert!(is_trusted(&service, &own, "localhost"));
    let dates = shown(&service, &["-dates"]);
    assert!(
        dates.contains("notBefore=Nov  1 00:00:00 2026 GMT"),
        "{dates}"
    );
    assert!(
        dates.contains("notAfter=Oct 27 00:00:00 2046 GMT"),
        "{dates}"
    );
    let key = shown(&service, &["-pubkey"]);

    fs::write(&clock, "@2027-03-01 12:00:00\n").unwrap();
    service.signal("HUP");
    service.wait_for_log("with the same key, because the clock has been set");
    let dates = shown(&service, &["-dates"]);
    assert!(dates.contains("notBefore=Feb 28 "), "{dates}");
    assert!(dates.contains("notAfter=Jun  2 12:"), "{dates}");
    assert_eq!(shown(&service, &["-pubkey"]), key);
    service.wait_for_log("certificate.renew");

    // 30 days before its end.
    fs::write(&clock, "@2029-05-05 12:00:00\n").unwrap();
    service.signal("HUP");
    service.wait_for_log("with the same key, because its end was near");
    assert_eq!(shown(&service, &["-pubkey"]), key);
}

/// What the log says of a certificate for nobody.
const NO_NAMES: &str = "the first certificate names neither a host nor an address";

#[test]
fn provisioned_files_are_noticed_while_running() {
    let service = start(TempDir::new(), "");
    let mut stream = connect_any(service.https());
    let keep = [("connection", "keep-alive")];
    let mut still_open = || {
        let answer = exchange(&mut stream, "GET", "/health", &keep, b"").unwrap();
        assert_eq!(answer.status, 200);
    };
    still_open();
    let root = ca("root");
    let trusted = service.directory.write("root.crt", root.pem());
    let (certificate, key) = server("first.example", &root);
    service.directory.write("tls/server.key", key);
    service.directory.write("tls/server.crt", certificate);
    eventually("first.example is shown", || {
        subject(&service).contains("first.example").then_some(())
    });
    still_open();
    // The name is now one of the device's own.
    assert!(is_trusted(&service, &trusted, "first.example"));

    // One that does not do leaves it in force, and is said once.
    service.directory.write("tls/server.crt", root.pem());
    service.wait_for_log(NO_NAMES);
    assert!(subject(&service).contains("first.example"));
    let (certificate, key) = server("second.example", &root);
    service.directory.write("tls/server.crt", certificate);
    service.wait_for_log("the private key is not that of the first certificate");
    assert!(subject(&service).contains("first.example"));
    service.directory.write("tls/server.key", key);
    // A manager that does not want to wait may say so.
    service.signal("HUP");
    service.wait_for_log("TLS presents the provisioned certificate of CN=second.example");
    assert!(subject(&service).contains("second.example"));
    let said = service.log().matches(NO_NAMES).count();
    assert_eq!(said, 1);

    let service = start(service.into_directory(), "");
    assert!(
        subject(&service).contains("second.example"),
        "after a start"
    );
    fs::remove_dir_all(service.directory.path().join("tls")).unwrap();
    service.signal("HUP");
    service.wait_for_log("from now on TLS presents the own certificate");
    assert!(is_trusted(
        &service,
        &own_certificate(&service),
        "localhost"
    ));
}

#[test]
fn an_administrator_installs_and_removes_a_certificate() {
    let service = start(TempDir::new(), "");
    let admin = Admin::claim(&service);
    let view = admin.get("/certificate");
    assert_eq!(view["source"], "own");
    assert_eq!(view["key_type"], "ECDSA P-256");
    assert_eq!(view["chain_length"], 1);
    assert!(
        (820..=825).contains(&view["days_left"].as_i64().unwrap()),
        "{view}"
    );
    let fingerprint = view["fingerprint_sha256"].as_str().unwrap();
    assert!(shown(&service, &["-fingerprint", "-sha256"]).contains(fingerprint));
    assert!(
        view["names"]
            .as_array()
            .unwrap()
            .contains(&json!("localhost"))
    );
    let end = view["not_after"].as_str().unwrap();
    assert!(end.len() == 20 && end.ends_with('Z'), "{end}");

    let root = ca("root");
    let trusted = service.directory.write("root.crt", root.pem());
    let mut stream = connect_any(service.https());
    let answer = admin.put("/certificate", bundle("pump.example", &root));
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["source"], "installed");
    assert_eq!(answer.json()["issuer"], "CN=root");
    assert!(is_trusted(&service, &trusted, "pump.example"));
    let answer = exchange(&mut stream, "GET", "/health", &[], b"").unwrap();
    assert_eq!(answer.status, 200, "what was open stays open");

    // As programs write it.
    let (chain, key) = server("json.example", &root);
    let asked = json!({"chain": chain, "key": key}).to_string();
    let answer = admin.ask(
        "PUT",
        "/certificate",
        "application/json; charset=utf-8",
        &asked,
    );
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(is_trusted(&service, &trusted, "json.example"));
    for media_type in ["application/x-pem-file", "Text/Plain"] {
        let answer = admin.ask(
            "PUT",
            "/certificate",
            media_type,
            bundle("a.example", &root),
        );
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    let log = service.log();
    assert!(log.contains("certificate.install"), "{log}");
    assert!(!log.contains("PRIVATE KEY") && !log.contains(key.lines().nth(1).unwrap()));

    let service = {
        let authorization = admin.authorization.clone();
        let service = start(service.into_directory(), "");
        assert!(subject(&service).contains("a.example"), "after a start");
        let admin = Admin {
            service: &service,
            authorization,
        };
        let answer = admin.ask("DELETE", "/certificate", "", "");
        assert_eq!(answer.status, 200);
        assert_eq!(answer.json()["source"], "own");
        refused(&admin.ask("DELETE", "/certificate", "", ""), 404);
        service
    };
    assert!(is_trusted(
        &service,
        &own_certificate(&service),
        "localhost"
    ));
    assert!(service.log().contains("certificate.remove"));
}

#[test]
fn what_does_not_do_is_refused_and_changes_nothing() {
    let service = start(TempDir::new(), "");
    let admin = Admin::claim(&service);
    let root = ca("root");
    let good = bundle("pump.example", &root);
    assert_eq!(admin.put("/certificate", &good).status, 200);
    let (certificate, _) = server("other.example", &root);
    let (_, other_key) = server("other.example", &root);
    let mut ended = params("ended.example");
    ended.not_after = OffsetDateTime::now_utc() - Duration::SECOND;
    let ended_key = KeyPair::generate().unwrap();
    let ended = ended.signed_by(&ended_key, &root).unwrap().pem() + &ended_key.serialize_pem();
    for (body, status, reason) in [
        (String::new(), 400, "no certificate"),
        (String::from("rubbish"), 400, "no certificate"),
        (certificate.clone(), 400, "not for the key of this device"),
        (
            format!("{certificate}{other_key}"),
            400,
            "not that of the first",
        ),
        (
            root.pem() + &certificate,
            400,
            "the first certificate is a CA's",
        ),
        (ended, 400, "ended on"),
        (good.clone(), 409, "in force already"),
        (" ".repeat(65 * 1024), 413, "larger than"),
    ] {
        let answer = admin.put("/certificate", &body);
        let detail = refused(&answer, status);
        assert!(detail.contains(reason), "{detail}");
        assert!(subject(&service).contains("pump.example"), "{reason}");
    }
    for media_type in ["", "application/octet-stream", "multipart/form-data"] {
        refused(&admin.ask("PUT", "/certificate", media_type, &good), 415);
    }
    for bad in ["{", "[]", "{}", r#"{"chain":1}"#, r#"{"chain":"","x":1}"#] {
        refused(
            &admin.ask("PUT", "/certificate", "application/json", bad),
            400,
        );
    }
    let mine = json!({"chain": 7, "key": other_key}).to_string();
    let detail = refused(
        &admin.ask("PUT", "/certificate", "application/json", &mine),
        400,
    );
    assert!(!detail.contains("KEY"), "{detail}");
    assert_eq!(admin.get("/certificate")["names"], json!(["pump.example"]));

    // What is provisioned comes before what is installed, and says where it is.
    let (certificate, key) = server("maker.example", &root);
    service.directory.write("tls/server.crt", certificate);
    service.directory.write("tls/server.key", key);
    service.signal("HUP");
    service.wait_for_log("the provisioned certificate of CN=maker.example");
    for answer in [
        admin.put("/certificate", bundle("b.example", &root)),
        admin.ask("DELETE", "/certificate", "", ""),
    ] {
        let detail = refused(&answer, 409);
        assert!(detail.contains("tls/server.crt"), "{detail}");
    }
    assert_eq!(admin.get("/certificate")["source"], "provisioned");
}

#[test]
fn only_an_administrator_touches_certificates() {
    let service = start(TempDir::new(), "");
    for (method, path) in [
        ("GET", "/certificate"),
        ("PUT", "/certificate"),
        ("DELETE", "/certificate"),
        ("POST", "/certificate/request"),
        ("GET", "/trust"),
        ("PUT", "/trust"),
        ("DELETE", "/trust"),
        ("PUT", "/trust/crl"),
        ("DELETE", "/trust/crl"),
    ] {
        let path = format!("/api/admin{path}");
        let answer = request(service.https(), method, &path, &[], b"");
        answer.is_problem(401);
        let socket = service.directory.path().join("run/edgeweb.sock");
        let local = run(Command::new("curl")
            .args([
                "--silent",
                "--output",
                "/dev/null",
                "--write-out",
                "%{http_code}",
            ])
            .args(["--request", method, "--unix-socket"])
            .arg(socket)
            .arg(format!("http://localhost{path}")));
        assert_eq!(local.stdout, b"403", "{method} {path}");
    }
}

#[test]
fn a_request_is_signed_elsewhere_and_comes_back_as_a_chain() {
    let service = start(TempDir::new(), "");
    let admin = Admin::claim(&service);
    let asked = json!({
        "names": ["pump.example", "pump7.example"],
        "addresses": ["192.0.2.7"],
        "common_name": "Pump 7",
        "organization": "Maker & Söhne"
    });
    let path = "/certificate/request";
    let answer = admin.ask("POST", path, "application/json", asked.to_string());
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/pkcs10"));
    let directory = service.directory.path();
    let file = |name: &str| directory.join(name).to_str().unwrap().to_owned();
    service.directory.write("csr.pem", answer.text());
    let checked = openssl(&["req", "-in", &file("csr.pem"), "-noout", "-verify", "-text"]);
    let text = String::from_utf8(checked.stdout).unwrap();
    assert!(checked.status.success(), "{text}");
    for part in [
        "DNS:pump.example",
        "DNS:pump7.example",
        "IP Address:192.0.2.7",
        "CN = Pump 7",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }

    // A CA of OpenSSL's.
    let made = openssl(&[
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-subj",
        "/CN=OpenSSL CA",
        "-days",
        "30",
        "-keyout",
        &file("ca.key"),
        "-out",
        &file("ca.crt"),
    ]);
    assert!(made.status.success(), "{made:?}");
    let signed = openssl(&[
        "x509",
        "-req",
        "-in",
        &file("csr.pem"),
        "-CA",
        &file("ca.crt"),
        "-CAkey",
        &file("ca.key"),
        "-CAcreateserial",
        "-days",
        "10",
        "-copy_extensions",
        "copy",
        "-out",
        &file("signed.crt"),
    ]);
    assert!(signed.status.success(), "{signed:?}");
    let key = shown(&service, &["-pubkey"]);
    let chain = fs::read_to_string(file("signed.crt")).unwrap();
    let issuer = fs::read_to_string(file("ca.crt")).unwrap();
    let answer = admin.put("/certificate", chain + &issuer);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["chain_length"], 2);
    assert!(is_trusted(
        &service,
        Path::new(&file("ca.crt")),
        "pump7.example"
    ));
    assert_eq!(
        shown(&service, &["-pubkey"]),
        key,
        "the device's key never left it"
    );

    // Without a body it is for the device as it is.
    let answer = admin.ask("POST", path, "", "");
    assert_eq!(answer.status, 200);
    service.directory.write("csr.pem", answer.text());
    let checked = openssl(&["req", "-in", &file("csr.pem"), "-noout", "-verify", "-text"]);
    let text = String::from_utf8(checked.stdout).unwrap();
    assert!(
        checked.status.success() && text.contains("DNS:localhost"),
        "{text}"
    );

    for (body, reason) in [
        (r#"{"names":["no host"]}"#, "is no host name"),
        (r#"{"names":[]}"#, "empty"),
        (r#"{"nmaes":["a"]}"#, "nmaes"),
        (r#"{"addresses":["a"]}"#, "address"),
        ("{", "EOF"),
    ] {
        let detail = refused(&admin.ask("POST", path, "application/json", body), 400);
        assert!(detail.contains(reason), "{detail}");
    }
    refused(&admin.ask("POST", path, "text/plain", "x"), 415);
    refused(
        &admin.ask("POST", path, "application/json", " ".repeat(17 * 1024)),
        413,
    );
}

#[test]
fn fifty_swaps_leave_an_open_connection_and_no_descriptor() {
    let service = start(TempDir::new(), "");
    let admin = Admin::claim(&service);
    let root = ca("root");
    let bundles = ["one.example", "two.example"].map(|name| bundle(name, &root));
    let mut stream = connect_any(service.https());
    let open = || {
        let files = format!("/proc/{}/fd", service.pid());
        fs::read_dir(files).unwrap().count()
    };
    let mut least = usize::MAX;
    for swap in 0..50 {
        assert_eq!(admin.put("/certificate", &bundles[swap % 2]).status, 200);
        let answer = exchange(&mut stream, "GET", "/health", &[], b"").unwrap();
        assert_eq!(answer.status, 200);
        if swap == 5 {
            least = open();
        }
    }
    eventually("as few descriptors as before", || {
        (open() <= least).then_some(())
    });
    assert!(subject(&service).contains("two.example"));
    let answer = request(service.https(), "GET", "/metrics", &[], b"");
    let text = answer.text();
    assert!(
        text.contains("\nedgeweb_certificate_swaps_total 50\n"),
        "{text}"
    );
    let end = "\nedgeweb_certificate_not_after_seconds{source=\"installed\"} ";
    assert!(text.contains(end), "{text}");
}

/// What curl gets that shows `certificate`, if any.
fn curl_shows(service: &Service, port: u16, certificate: Option<&Path>) -> Option<String> {
    let mut command = Command::new("curl");
    command.args(["--silent", "--insecure", "--max-time", "15"]);
    if let Some(certificate) = certificate {
        command.arg("--cert").arg(certificate);
    }
    let ip = service.https().ip();
    let output = run(command.arg(format!("https://{ip}:{port}/api/public/about")));
    output
        .status
        .success()
        .then(|| String::from_utf8(output.stdout).unwrap())
}

/// The port of the listener where certificates must be shown.
fn managed_port(service: &Service) -> u16 {
    let all = common::endpoints(service.directory.path());
    let https = service.https();
    let in_clear = service.address;
    let other = all
        .iter()
        .find(|address| **address != https && **address != in_clear);
    other.expect("a third endpoint").port()
}

/// A client's certificate with a SPIFFE ID.
fn spiffe_client(directory: &TempDir, id: &str, issuer: &Ca) -> PathBuf {
    let key = KeyPair::generate().unwrap();
    let mut params = params("machine");
    params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = params.signed_by(&key, issuer).unwrap();
    let name = format!("{}.pem", id.replace([':', '/'], "-"));
    directory.write(&name, certificate.pem() + &key.serialize_pem())
}

/// The status that curl gets with `certificate`.
fn status(service: &Service, certificate: &Path, options: &[&str], path: &str) -> String {
    let url = format!("https://{}{path}", service.https());
    let output = run(Command::new("curl")
        .args([
            "--silent",
            "--insecure",
            "--max-time",
            "15",
            "--output",
            "/dev/null",
        ])
        .args(["--write-out", "%{http_code}", "--cert"])
        .arg(certificate)
        .args(options)
        .arg(url));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_clients_certificate_gives_the_role_that_the_configuration_says() {
    let directory = TempDir::new();
    let ours = ca("ours");
    directory.write("tls/client-ca.crt", ours.pem());
    let service = start(
        directory,
        r#"
        https.client_certificates = "optional"
        [[tls.client_roles]]
        spiffe_id = "spiffe://factory/manager/*"
        role = "admin"
        [[tls.client_roles]]
        subject = "CN=ops"
        role = "user"
        "#,
    );
    let at = &service.directory;
    let manager = spiffe_client(at, "spiffe://factory/manager/1", &ours);
    let ops = client(at, 7, &ours);
    let other = spiffe_client(at, "spiffe://factory/managers", &ours);
    let elsewhere = spiffe_client(at, "spiffe://factory.example/manager/1", &ours);
    for (who, user, admin) in [
        (&manager, "200", "200"),
        (&ops, "200", "403"),
        (&other, "401", "401"),
        (&elsewhere, "401", "401"),
    ] {
        for http in ["--http1.1", "--http2"] {
            assert_eq!(
                status(&service, who, &[http], "/api/user/session"),
                user,
                "{who:?}"
            );
            assert_eq!(
                status(&service, who, &[http], "/api/admin/users"),
                admin,
                "{who:?}"
            );
        }
    }
    // A token decides, if there is one: also one that makes less of the caller, or none.
    let wrong = ["--header", "Authorization: Bearer x"];
    assert_eq!(
        status(&service, &manager, &wrong, "/api/user/session"),
        "401"
    );
    let administrator = Admin::claim(&service);
    let token = format!("Authorization: {}", administrator.authorization);
    assert_eq!(
        status(&service, &ops, &["--header", &token], "/api/admin/users"),
        "200"
    );
    // A browser shows a certificate whatever page makes it ask.
    let change = ["--request", "DELETE", "--header"];
    let path = "/api/admin/tokens/none";
    for (header, expected) in [
        ("Sec-Fetch-Site: cross-site", "403"),
        ("Sec-Fetch-Site: same-site", "403"),
        ("Origin: https://evil.example", "403"),
        ("Sec-Fetch-Site: same-origin", "404"),
        ("X-Nothing: 1", "404"),
    ] {
        let options = [&change[..], &[header]].concat();
        assert_eq!(
            status(&service, &manager, &options, path),
            expected,
            "{header}"
        );
    }
}

const MANAGED: &str = r#"
[[listener]]
address = "127.0.0.1"
port = 0
client_certificates = "required"
"#;

#[test]
fn clients_show_certificates_until_they_are_revoked() {
    let service = start(TempDir::new(), MANAGED);
    service.wait_for_log("clients must show certificates, but there are no trust anchors");
    let admin = Admin::claim(&service);
    let (ours, theirs) = (ca("ours"), ca("theirs"));
    let good = client(&service.directory, 7, &ours);
    let stranger = client(&service.directory, 8, &theirs);
    let port = managed_port(&service);
    let gets_in = |certificate: Option<&Path>| curl_shows(&service, port, certificate).is_some();
    assert!(!gets_in(None) && !gets_in(Some(&good)));
    assert_eq!(admin.get("/trust")["source"], "none");
    refused(&admin.put("/trust/crl", crl(&ours, &[])), 409);

    let answer = admin.put("/trust", ours.pem());
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["anchors"][0]["subject"], "CN=ours");
    assert!(!gets_in(None) && gets_in(Some(&good)) && !gets_in(Some(&stranger)));
    assert!(curl_shows(&service, service.https().port(), None).is_some());

    // A connection that was begun before the certificate was lost.
    let config = client_config(&["http/1.1"], Some(identity(&good)));
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut open = connect_tls(address, &config).unwrap();
    let mut ask = || exchange(&mut open, "GET", "/health", &[], b"");
    assert_eq!(ask().unwrap().status, 200);
    assert_eq!(admin.put("/trust/crl", crl(&ours, &[9])).status, 200);
    assert_eq!(ask().unwrap().status, 200, "somebody else's was revoked");
    assert_eq!(admin.put("/trust/crl", crl(&ours, &[7])).status, 200);
    assert_eq!(ask().unwrap().status, 421);
    assert!(ask().is_err(), "it is closed");
    assert_eq!(admin.ask("DELETE", "/trust/crl", "", "").status, 200);

    // A session that was begun before the certificate was lost.
    let session = service.directory.path().join("session.pem");
    let address = format!("127.0.0.1:{port}");
    let s_client = |version: &str, session_option: &str| {
        let shell = format!(
            "printf 'GET /health HTTP/1.1\\r\\nhost: localhost\\r\\nconnection: close\\r\\n\\r\\n' | \
             openssl s_client -ign_eof {version} -connect {address} {session_option} {} -cert {1} -key {1} 2>&1",
            session.display(),
            good.display()
        );
        let output = run(Command::new("sh").arg("-c").arg(shell));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    for version in ["-tls1_3", "-tls1_2"] {
        let first = s_client(version, "-sess_out");
        assert!(first.contains("200 OK"), "{first}");
        let again = s_client(version, "-sess_in");
        assert!(
            again.contains("Reused, ") && again.contains("200 OK"),
            "{again}"
        );
        let answer = admin.put("/trust/crl", crl(&ours, &[7]));
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.json()["crls"][0]["revoked"], 1);
        let refused = s_client(version, "-sess_in");
        assert!(!refused.contains("200 OK"), "{refused}");
        assert!(!gets_in(Some(&good)));
        assert_eq!(admin.ask("DELETE", "/trust/crl", "", "").status, 200);
        assert!(gets_in(Some(&good)));
    }

    assert_eq!(admin.put("/trust/crl", crl(&ours, &[])).status, 200);
    let detail = refused(&admin.put("/trust", ca("ours").pem()), 400);
    assert!(detail.contains("not signed by"), "{detail}");
    assert!(gets_in(Some(&good)));
    assert_eq!(admin.ask("DELETE", "/trust/crl", "", "").status, 200);

    for (path, body, status, reason) in [
        ("/trust", String::from("rubbish"), 400, "no certificate"),
        ("/trust", bundle("a.example", &ours), 400, "private key"),
        ("/trust", server("a.example", &ours).0, 400, "not a CA's"),
        ("/trust", ours.pem().repeat(2), 400, "twice"),
        ("/trust", " ".repeat(257 * 1024), 413, "larger"),
        ("/trust/crl", ours.pem(), 400, "no revocation list"),
        ("/trust/crl", crl(&ca("ours"), &[]), 400, "not signed by"),
        ("/trust/crl", " ".repeat(257 * 1024), 413, "larger"),
    ] {
        let detail = refused(&admin.put(path, body), status);
        assert!(detail.contains(reason), "{detail}");
        assert!(gets_in(Some(&good)) && !gets_in(Some(&stranger)));
    }
    refused(&admin.ask("PUT", "/trust", "application/json", "{}"), 415);
    refused(&admin.ask("DELETE", "/trust/crl", "", ""), 404);

    let service = start(service.into_directory(), MANAGED);
    let port = managed_port(&service);
    assert!(
        curl_shows(&service, port, Some(&good)).is_some(),
        "after a start"
    );
    // What is provisioned takes its place, and cannot be changed from afar.
    service.directory.write("tls/client-ca.crt", theirs.pem());
    service.signal("HUP");
    service.wait_for_log("clients' certificates: 1 trust anchors, 0 revocation lists");
    eventually("theirs are trusted", || {
        curl_shows(&service, port, Some(&stranger)).map(drop)
    });
    assert!(curl_shows(&service, port, Some(&good)).is_none());
    service.directory.write("tls/client-ca.crl", "rubbish");
    service.wait_for_log("whom to trust stays as it was");
    assert!(curl_shows(&service, port, Some(&stranger)).is_some());
    service
        .directory
        .write("tls/client-ca.crl", crl(&theirs, &[8]));
    eventually("the stranger's certificate is revoked", || {
        curl_shows(&service, port, Some(&stranger))
            .is_none()
            .then_some(())
    });

    // At a start, trust that cannot be read is none.
    service.directory.write("tls/client-ca.crl", "rubbish");
    let service = start(service.into_directory(), MANAGED);
    service.wait_for_log("every certificate that a client shows is refused");
    let port = managed_port(&service);
    for certificate in [&good, &stranger] {
        assert!(curl_shows(&service, port, Some(certificate)).is_none());
    }
    assert!(curl_shows(&service, service.https().port(), None).is_some());
}

#[test]
fn strict_asks_everybody_everywhere() {
    let directory = TempDir::new();
    let ours = ca("ours");
    directory.write("tls/client-ca.crt", ours.pem());
    let good = client(&directory, 7, &ours);
    let service = start(directory, "tls.mode = \"STRICT\"");
    let port = service.https().port();
    assert!(curl_shows(&service, port, None).is_none());
    assert!(curl_shows(&service, port, Some(&good)).is_some());
    assert_eq!(common::endpoint(service.directory.path(), "http"), None);
}

#[test]
fn a_mistake_in_a_rule_for_clients_is_said() {
    let directory = TempDir::new();
    for bad in [
        "spiffe://Example.org/a",
        "spiffe://example.org/a*",
        "https://example.org/a",
    ] {
        let rule = format!("[[tls.client_roles]]\nspiffe_id = {bad:?}\nrole = \"user\"");
        let config = directory.write("edgeweb.toml", device_config(directory.path(), &rule));
        let output = run(common::edgeweb()
            .args(["check-config", "--config"])
            .arg(config));
        assert_eq!(output.status.code(), Some(2), "{bad}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            said.contains("tls.client_roles") && said.contains(bad),
            "{said}"
        );
    }
}

#[test]
fn a_handshake_is_tls_1_2_or_1_3_and_resumed_within_its_listener() {
    let service = start(TempDir::new(), "");
    let config = client_config(&["http/1.1"], None);
    let mut first = connect_tls(service.https(), &config).unwrap();
    // The ticket comes with the first answer.
    let answer = exchange(&mut first, "GET", "/health", &[], b"").unwrap();
    assert_eq!(answer.status, 200);
    let again = connect_tls(service.https(), &config).unwrap();
    assert_eq!(
        again.conn.handshake_kind(),
        Some(rustls::HandshakeKind::Resumed)
    );
}
