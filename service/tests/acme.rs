//! Certificates by ACME, as Pebble issues them, the test authority of Let's Encrypt: how they come, stay and go on.

mod common;

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;

use common::https::{client_config, connect_tls, request};
use common::users::Device;
use common::{Service, TempDir, clock_from, connect, device_config, eventually, get, run};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConnection, ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

const IN_FORCE: &str = "from now on TLS presents the acme certificate";

/// A port that nobody has, below those that the system gives to whoever asks for any.
fn free_port() -> u16 {
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 12_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() * 97 % u32::from(COUNT)).unwrap();
    loop {
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + (start + next) % COUNT;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
            return port;
        }
    }
}

/// A process that ends with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Who signed the certificate of an authority's own server.
struct PrivateCa {
    directory: TempDir,
    file: PathBuf,
}

impl PrivateCa {
    /// Makes a CA, `ca.pem`, and a certificate by it for localhost, `cert.pem` with `key.pem`.
    fn new() -> Self {
        let directory = TempDir::new();
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let server = CertificateParams::new([String::from("localhost")]).unwrap();
        let server = server.signed_by(&key, &ca).unwrap();
        directory.write("cert.pem", server.pem());
        directory.write("key.pem", key.serialize_pem());
        directory.write("cert.der", server.der());
        directory.write("key.der", key.serialize_der());
        let file = directory.write("ca.pem", ca.pem());
        Self { directory, file }
    }
}

/// Pebble, and a name server that gives every name the loopback address.
struct Pebble {
    ca: PrivateCa,
    port: u16,
    /// Where it looks for proofs.
    device: Ports,
    environment: Vec<(&'static str, &'static str)>,
    running: Option<[Process; 2]>,
    starts: u32,
}

/// Where a device listens.
#[derive(Clone, Copy)]
struct Ports {
    http: u16,
    https: u16,
}

impl Ports {
    fn new() -> Self {
        Self {
            http: free_port(),
            https: free_port(),
        }
    }
}

impl Pebble {
    fn start(device: Ports) -> Self {
        let mut pebble = Self::stopped(device);
        pebble.restart(3600);
        pebble
    }

    fn stopped(device: Ports) -> Self {
        Self {
            ca: PrivateCa::new(),
            port: free_port(),
            device,
            // Rejected nonces are for the test that asks for them; each name is proved every time.
            environment: vec![
                ("PEBBLE_VA_NOSLEEP", "1"),
                ("PEBBLE_WFE_NONCEREJECT", "0"),
                ("PEBBLE_AUTHZREUSE", "0"),
            ],
            running: None,
            starts: 0,
        }
    }

    /// Starts it with nothing left of what it knew. Its certificates are valid for so many seconds.
    fn restart(&mut self, validity: u32) {
        self.running = None;
        self.starts += 1;
        let directory = self.ca.directory.path();
        let config = json!({"pebble": {
            "listenAddress": format!("127.0.0.1:{}", self.port),
            "managementListenAddress": "",
            "certificate": directory.join("cert.pem"),
            "privateKey": directory.join("key.pem"),
            "httpPort": self.device.http,
            "tlsPort": self.device.https,
            "certificateValidityPeriod": validity,
        }});
        let config = self.ca.directory.write("pebble.json", config.to_string());
        let names = format!("127.0.0.1:{}", free_port());
        let dns = Command::new("pebble-challtestsrv")
            .args(["-dns01", &names, "-defaultIPv6", ""])
            .args(["-http01", "", "-https01", "", "-tlsalpn01", ""])
            .args(["-management", &format!("127.0.0.1:{}", free_port())])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("pebble-challtestsrv, of Debian's package pebble");
        let dns = Process(dns);
        let log = fs::File::create(self.log_file()).unwrap();
        let pebble = Command::new("pebble")
            .arg("-config")
            .arg(config)
            .args(["-dnsserver", &names])
            .envs(self.environment.iter().copied())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("pebble, of Debian's package of that name");
        self.running = Some([Process(pebble), dns]);
        let names: SocketAddr = names.parse().unwrap();
        eventually("pebble and its name server listen", || {
            // It says so a moment before it does.
            let listens = |address: SocketAddr| std::net::TcpStream::connect(address).is_ok();
            (listens(([127, 0, 0, 1], self.port).into()) && listens(names)).then_some(())
        });
    }

    fn log_file(&self) -> PathBuf {
        let directory = self.ca.directory.path();
        directory.join(format!("pebble-{}.log", self.starts))
    }

    /// How often this start's log has `text`.
    fn count(&self, text: &str) -> usize {
        let log = fs::read_to_string(self.log_file()).unwrap();
        log.matches(text).count()
    }

    fn orders(&self) -> usize {
        self.count("POST /order-plz")
    }

    /// What a device is told of it.
    fn config(&self, names: &[&str], more: &str) -> String {
        acme_config(self.port, &self.ca.file, names, more)
    }
}

fn acme_config(port: u16, ca_file: &Path, names: &[&str], more: &str) -> String {
    format!(
        "[tls.acme]\nenabled = true\ndirectory_url = \"https://localhost:{port}/dir\"\n\
         ca_file = {ca_file:?}\nnames = {names:?}\n{more}\n"
    )
}

fn config_text(directory: &Path, ports: Ports, more: &str) -> String {
    device_config(directory, more)
        .replace("http.port = 0", &format!("http.port = {}", ports.http))
        .replace("https.port = 0", &format!("https.port = {}", ports.https))
}

fn start(directory: TempDir, ports: Ports, more: &str) -> Service {
    let text = config_text(directory.path(), ports, more);
    Service::start_with(directory, text, |_| {})
}

/// Ends it in order, and starts it again.
fn restart(mut service: Service, ports: Ports, more: &str) -> Service {
    service.signal("TERM");
    assert!(service.wait().success());
    start(service.into_directory(), ports, more)
}

fn reload(service: &Service, ports: Ports, more: &str) {
    let text = config_text(service.directory.path(), ports, more);
    service.directory.write("edgeweb.toml", text);
    service.signal("HUP");
}

fn state_file(service: &Service, name: &str) -> PathBuf {
    service.directory.path().join("state/tls").join(name)
}

/// The certificate that a client is shown.
#[derive(Debug, PartialEq)]
struct Shown {
    names: Vec<String>,
    issuer: String,
    /// From when until when it is valid, in seconds of Unix time.
    valid: [u64; 2],
    der: Vec<u8>,
}

impl Shown {
    fn at(service: &Service) -> Self {
        let config = client_config(&["http/1.1"], None);
        let stream = connect_tls(service.https(), &config).unwrap();
        let der = stream.conn.peer_certificates().unwrap()[0].to_vec();
        let certificate = Certificate::from_der(&der).unwrap();
        let tbs = certificate.tbs_certificate();
        let names = tbs.get_extension::<SubjectAltName>().unwrap().unwrap().1;
        let mut names: Vec<String> = names
            .0
            .iter()
            .filter_map(|name| match name {
                GeneralName::DnsName(name) => Some(name.to_string()),
                _ => None,
            })
            .collect();
        names.sort();
        Self {
            names,
            issuer: tbs.issuer().to_string(),
            valid: [tbs.validity().not_before, tbs.validity().not_after]
                .map(|time| time.to_unix_duration().as_secs()),
            der,
        }
    }

    #[track_caller]
    fn is_issued_for(&self, names: &[&str]) {
        assert!(self.issuer.contains("Pebble Intermediate CA"), "{self:?}");
        assert_eq!(self.names, names);
    }
}

#[track_caller]
fn is_private(path: &Path) {
    let mode = fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode, 0o600, "{}", path.display());
}

/// The line of the log that says why the last order failed.
fn failure(service: &Service) -> String {
    eventually("an order that failed", || {
        let log = service.log();
        let line = log
            .lines()
            .rfind(|line| line.contains("acme: no certificate for"))?;
        Some(line.to_owned())
    })
}

fn orders_ended(service: &Service, result: &str) -> u32 {
    let answer = request(service.https(), "GET", "/metrics", &[], b"");
    let name = format!("edgeweb_acme_attempts_total{{result=\"{result}\"}} ");
    let count = answer.text().lines().find_map(|l| l.strip_prefix(&name));
    count.expect("the metric").parse().unwrap()
}

/// What a device that tests itself has no authority for.
mod with_pebble {
    use super::*;

    #[test]
    fn http_01_brings_a_certificate_that_a_restart_does_not_order_again() {
        let ports = Ports::new();
        let pebble = Pebble::start(ports);
        let config = pebble.config(
            &["pump.example", "Door.Example"],
            "contact = [\"mailto:ops@pump.example\"]",
        );
        let service = start(TempDir::new(), ports, &config);
        service.wait_for_log(IN_FORCE);
        let shown = Shown::at(&service);
        shown.is_issued_for(&["door.example", "pump.example"]);
        service.wait_for_log("certificate.renew pump.example, Door.Example");
        assert_eq!(orders_ended(&service, "ok"), 1);
        assert_eq!(orders_ended(&service, "failed"), 0);

        for name in ["acme-account.json", "acme.pem"] {
            is_private(&state_file(&service, name));
        }
        let kept = fs::read_to_string(state_file(&service, "acme.pem")).unwrap();
        assert!(kept.contains("BEGIN PRIVATE KEY"), "the key stays here");
        let own = fs::read_to_string(state_file(&service, "device.key")).unwrap();
        assert!(
            !kept.contains(own.lines().nth(1).unwrap()),
            "a key of its own"
        );
        // The chain goes with it, as clients need it.
        assert_eq!(kept.matches("BEGIN CERTIFICATE").count(), 2);
        let account = fs::read(state_file(&service, "acme-account.json")).unwrap();
        let account: Value = serde_json::from_slice(&account).unwrap();
        let key = account["credentials"]["key_pkcs8"].as_str().unwrap();
        assert!(!service.log().contains(key) && !service.log().contains("PRIVATE KEY"));

        let service = restart(service, ports, &config);
        assert_eq!(Shown::at(&service), shown);
        // What it would order it orders at once.
        thread::sleep(std::time::Duration::from_secs(1));
        assert_eq!(pebble.orders(), 1);

        // Turned off, it is not presented; turned on again, it is the same.
        reload(&service, ports, "");
        eventually("the device's own certificate", || {
            (!Shown::at(&service).issuer.contains("Pebble")).then_some(())
        });
        reload(&service, ports, &config);
        eventually("the one that was issued", || {
            (Shown::at(&service) == shown).then_some(())
        });
        assert_eq!(pebble.orders(), 1);
        assert_eq!(pebble.count("POST /sign-me-up"), 1);
    }

    #[test]
    fn tls_alpn_01_needs_no_listener_in_clear() {
        let ports = Ports::new();
        let pebble = Pebble::start(ports);
        let names = ["pump.example", "door.example"];
        let config = pebble.config(&names, "challenge = \"tls-alpn-01\"");
        let config = format!("http.enabled = false\n{config}");
        let service = start(TempDir::new(), ports, &config);
        service.wait_for_log(IN_FORCE);
        Shown::at(&service).is_issued_for(&["door.example", "pump.example"]);
        // The authority's protocol is offered no longer than it is needed.
        let asking = client_config(&["acme-tls/1"], None);
        let name = ServerName::try_from("pump.example").unwrap();
        let mut asking = ClientConnection::new(asking, name).unwrap();
        let mut socket = connect(service.https());
        // A proof could not be taken for a certificate either: the device must say no itself.
        let refused = asking.complete_io(&mut socket).unwrap_err().to_string();
        assert!(refused.contains("fatal alert"), "{refused}");
    }

    #[test]
    fn it_is_renewed_when_two_thirds_of_its_time_are_over() {
        let ports = Ports::new();
        let mut pebble = Pebble::stopped(ports);
        pebble.restart(9);
        let service = start(TempDir::new(), ports, &pebble.config(&["pump.example"], ""));
        service.wait_for_log(IN_FORCE);
        let first = fs::read_to_string(state_file(&service, "acme.pem")).unwrap();
        let shown = Shown::at(&service);
        let renewed = eventually("another certificate", || {
            let now = Shown::at(&service);
            (now != shown).then_some(now)
        });
        renewed.is_issued_for(&["pump.example"]);
        // No sooner, and while the one before is still good.
        let [begin, end] = shown.valid;
        let [renewal, _] = renewed.valid;
        assert!(
            renewal >= begin + 6 && renewal <= end,
            "{shown:?} {renewed:?}"
        );
        let previous = state_file(&service, "acme.pem.previous");
        assert_eq!(fs::read_to_string(&previous).unwrap(), first);
        is_private(&previous);
        let key = |pem: &str| pem[pem.find("BEGIN PRIVATE KEY").unwrap()..].to_owned();
        let second = fs::read_to_string(state_file(&service, "acme.pem")).unwrap();
        assert_ne!(key(&first), key(&second), "each has a key of its own");
        assert_eq!(pebble.count("POST /sign-me-up"), 1);
    }

    #[test]
    fn what_is_in_force_stays_until_another_one_is_there() {
        let ports = Ports::new();
        let pebble = Pebble::start(ports);
        let service = start(TempDir::new(), ports, &pebble.config(&["old.example"], ""));
        service.wait_for_log(IN_FORCE);
        let shown = Shown::at(&service);
        let kept = fs::read(state_file(&service, "acme.pem")).unwrap();

        let stranger = PrivateCa::new();
        let wrong = acme_config(pebble.port, &stranger.file, &["new.example"], "");
        reload(&service, ports, &wrong);
        let reason = failure(&service);
        let expected = "/dir: its certificate is not signed by one in tls.acme.ca_file";
        assert!(reason.contains(expected), "{reason}");
        assert!(reason.contains("the next attempt is in "), "{reason}");
        assert_eq!(Shown::at(&service), shown);
        assert_eq!(fs::read(state_file(&service, "acme.pem")).unwrap(), kept);

        let missing = acme_config(
            pebble.port,
            Path::new("/nonexistent.pem"),
            &["new.example"],
            "",
        );
        reload(&service, ports, &missing);
        service.wait_for_log("/nonexistent.pem: cannot be read");

        reload(&service, ports, &pebble.config(&["new.example"], ""));
        eventually("a certificate for the new name", || {
            (Shown::at(&service).names == ["new.example"]).then_some(())
        });
        assert_eq!(
            fs::read(state_file(&service, "acme.pem.previous")).unwrap(),
            kept
        );
        eventually("two orders that ended well", || {
            (orders_ended(&service, "ok") == 2).then_some(())
        });
        assert_eq!(orders_ended(&service, "failed"), 2);
    }

    #[test]
    fn an_authority_that_was_away_is_asked_again() {
        let ports = Ports::new();
        let mut pebble = Pebble::stopped(ports);
        let config = pebble.config(&["pump.example"], "");
        let service = start(TempDir::new(), ports, &config);
        let reason = failure(&service);
        assert!(reason.contains("/dir: no connection: "), "{reason}");
        // Between one and one and a half minutes, not the same on every device.
        let pause: u32 = reason
            .split("the next attempt is in ")
            .nth(1)
            .and_then(|rest| rest.split(' ').next()?.parse().ok())
            .unwrap();
        assert!((60..=90).contains(&pause), "{reason}");
        let own = Shown::at(&service);
        assert!(!own.issuer.contains("Pebble"));
        pebble.restart(3600);
        let service = restart(service, ports, &config);
        service.wait_for_log(IN_FORCE);
        Shown::at(&service).is_issued_for(&["pump.example"]);
    }

    #[test]
    fn a_proof_that_is_not_found_is_an_error_with_its_reason() {
        let ports = Ports::new();
        let elsewhere = Ports::new();
        let pebble = Pebble::start(elsewhere);
        for (challenge, kind) in [("http-01", "connection"), ("tls-alpn-01", "unauthorized")] {
            let config = format!("challenge = {challenge:?}");
            let config = pebble.config(&["pump.example"], &config);
            let service = start(TempDir::new(), ports, &config);
            let reason = failure(&service);
            let expected = format!("no certificate for pump.example: pump.example: {kind}: ");
            assert!(reason.contains(&expected), "{reason}");
            assert!(!Shown::at(&service).issuer.contains("Pebble"));
            assert!(!state_file(&service, "acme.pem").exists());
            assert_eq!(orders_ended(&service, "failed"), 1);
            service.wait_for_log("certificate.renew pump.example");
        }
        assert_eq!(pebble.orders(), 2);
    }

    #[test]
    fn an_account_that_the_authority_does_not_know_is_made_anew() {
        let ports = Ports::new();
        let mut pebble = Pebble::start(ports);
        let service = start(TempDir::new(), ports, &pebble.config(&["a.example"], ""));
        service.wait_for_log(IN_FORCE);
        let account = state_file(&service, "acme-account.json");
        let first = fs::read(&account).unwrap();
        // Pebble forgets everything.
        pebble.restart(3600);
        reload(&service, ports, &pebble.config(&["b.example"], ""));
        service.wait_for_log("no longer knows the account, a new one is made");
        eventually("a certificate for the new name", || {
            (Shown::at(&service).names == ["b.example"]).then_some(())
        });
        let bad = state_file(&service, "acme-account.json.bad");
        assert_eq!(fs::read(&bad).unwrap(), first);
        assert_ne!(fs::read(&account).unwrap(), first);
        is_private(&account);
    }

    #[test]
    fn damaged_files_are_kept_and_made_anew() {
        let ports = Ports::new();
        let pebble = Pebble::start(ports);
        let service = start(TempDir::new(), ports, &pebble.config(&["a.example"], ""));
        service.wait_for_log(IN_FORCE);
        let first = Shown::at(&service);
        reload(&service, ports, &pebble.config(&["b.example"], ""));
        eventually("a certificate for the new name", || {
            (Shown::at(&service).names == ["b.example"]).then_some(())
        });
        let account = state_file(&service, "acme-account.json");
        let pem = state_file(&service, "acme.pem");
        drop(pebble);

        // Half a certificate: the one before it is presented.
        let whole = fs::read(&pem).unwrap();
        fs::write(&pem, &whole[..whole.len() / 2]).unwrap();
        fs::write(&account, "{\"directory\": \"secret").unwrap();
        fs::set_permissions(&account, fs::Permissions::from_mode(0o644)).unwrap();
        let mut pebble = Pebble::stopped(ports);
        let config = pebble.config(&["b.example"], "");
        let service = restart(service, ports, &config);
        service
            .wait_for_log("acme-account.json: is no ACME account; kept as acme-account.json.bad");
        service.wait_for_log("acme.pem: ");
        assert_eq!(Shown::at(&service), first);
        assert!(!service.log().contains("secret"));
        let bad = fs::read_to_string(state_file(&service, "acme-account.json.bad")).unwrap();
        assert_eq!(bad, "{\"directory\": \"secret");

        pebble.restart(3600);
        let service = restart(service, ports, &config);
        eventually("a certificate for the name", || {
            (Shown::at(&service).names == ["b.example"]).then_some(())
        });
        is_private(&account);
        is_private(&pem);
    }

    #[test]
    fn rejected_nonces_are_tried_again() {
        let ports = Ports::new();
        let mut pebble = Pebble::stopped(ports);
        pebble.environment.push(("PEBBLE_WFE_NONCEREJECT", "25"));
        pebble.restart(3600);
        let mut service = start(TempDir::new(), ports, "");
        // What an order for one name asks for once. Pebble's log has the rejected ones, too.
        let requests = || {
            let once = ["/order-plz", "/chalZ/", "/finalize-order/", "/certZ/"];
            let count = |path: &&str| pebble.count(&format!("POST {path}"));
            once.iter().map(count).sum::<usize>()
        };
        // An order fails when one of its requests is rejected three times, which happens.
        for round in 0..12 {
            let before = requests();
            let name = format!("n{round}.example");
            service = restart(service, ports, &pebble.config(&[&name], ""));
            let issued = eventually("an end of the order", || {
                let log = service.log();
                let issued = log.contains(IN_FORCE);
                (issued || log.contains("acme: no certificate for")).then_some(issued)
            });
            if issued && requests() > before + 4 {
                Shown::at(&service).is_issued_for(&[&name]);
                return;
            }
        }
        panic!("no order came to an end in spite of a rejected nonce");
    }

    #[test]
    fn what_is_due_again_at_once_is_not_ordered_without_end() {
        let ports = Ports::new();
        let mut pebble = Pebble::stopped(ports);
        pebble.restart(365 * 24 * 3600);
        let config = pebble.config(&["pump.example"], "");
        let directory = TempDir::new();
        let clock = directory.write("clock", "+300d\n");
        let text = config_text(directory.path(), ports, &config);
        let service = Service::start_with(directory, text, |command| clock_from(command, &clock));
        service.wait_for_log(IN_FORCE);
        service.wait_for_log("most of its time is over");
        assert_eq!(pebble.orders(), 1);
    }

    #[test]
    fn nothing_is_ordered_while_the_clock_is_wrong() {
        let ports = Ports::new();
        let pebble = Pebble::start(ports);
        let config = pebble.config(&["pump.example"], "");
        let directory = TempDir::new();
        let clock = directory.write("clock", "@1970-01-01 00:01:00\n");
        let text = config_text(directory.path(), ports, &config);
        let service = Service::start_with(directory, text, |command| clock_from(command, &clock));
        service.wait_for_log("acme: the clock says 1970-01-01T00:01:");
        assert_eq!(pebble.count("GET /dir"), 0);
        let service = restart(service, ports, &config);
        service.wait_for_log(IN_FORCE);
    }

    #[test]
    fn an_administrator_sees_how_it_goes_and_asks_for_a_renewal() {
        let ports = Ports::new();
        let pebble = Pebble::start(ports);
        let device = Device(start(TempDir::new(), ports, ""));
        let token = device.claim("ann");
        let renew = |token: &str| {
            let path = "/api/admin/certificate/renew";
            device.ask_as(token, "POST", path, &Value::Null)
        };
        let status = || {
            let path = "/api/admin/certificate";
            let answer = device.ask_as(&token, "GET", path, &Value::Null);
            answer.json()["acme"].clone()
        };
        let off = json!({"enabled": false, "last_attempt": null, "last_error": null,
        "next_attempt": null, "not_after": null});
        assert_eq!(status(), off);
        let refused = renew(&token);
        refused.is_problem(409);
        assert!(refused.text().contains("tls.acme.enabled"), "{refused:?}");
        let user = device.add(&token, "bob", "user");
        renew(&user).is_problem(403);
        renew("wrong").is_problem(401);

        let service = &device.0;
        // Nobody is there yet.
        let away = acme_config(free_port(), &pebble.ca.file, &["pump.example"], "");
        reload(service, ports, &away);
        failure(service);
        let failed = eventually("a next attempt", || {
            let status = status();
            let later = status["last_attempt"].as_str() < status["next_attempt"].as_str();
            later.then_some(status)
        });
        assert_eq!(failed["enabled"], true);
        let error = failed["last_error"].as_str().unwrap();
        assert!(error.contains("no connection"), "{error}");
        assert_eq!(failed["not_after"], Value::Null);
        // Asked for, it does not wait.
        assert_eq!(renew(&token).status, 202);
        eventually("another attempt", || {
            (orders_ended(service, "failed") == 2).then_some(())
        });

        reload(service, ports, &pebble.config(&["pump.example"], ""));
        service.wait_for_log(IN_FORCE);
        let first = Shown::at(service);
        assert_eq!(renew(&token).status, 202);
        eventually("another certificate", || {
            (Shown::at(service) != first).then_some(())
        });
        let fine = eventually("a status without error", || {
            let status = status();
            (!status["not_after"].is_null()).then_some(status)
        });
        assert_eq!(fine["last_error"], Value::Null);
        // Two thirds of an hour from now.
        assert!(fine["last_attempt"].as_str() < fine["next_attempt"].as_str());
        assert!(fine["next_attempt"].as_str() < fine["not_after"].as_str());
        let log = service.log();
        let asked = "certificate.renew acme severity=\"notice\" who=\"ann\"";
        assert!(log.contains(asked), "{log}");
        assert_eq!(pebble.orders(), 2);
    }
}

#[test]
fn an_authority_that_does_not_answer_holds_nothing_up() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let ports = Ports::new();
    let ca = PrivateCa::new();
    let config = acme_config(port, &ca.file, &["pump.example"], "");
    let mut service = start(TempDir::new(), ports, &config);
    let (mut asked, _) = silent.accept().unwrap();
    assert_eq!(
        request(service.https(), "GET", "/health", &[], b"").status,
        200
    );
    service.signal("TERM");
    assert!(service.wait().success());
    let mut rest = Vec::new();
    asked.read_to_end(&mut rest).unwrap();
}

/// An authority that answers every request with `answer`, in which `PORT` stands for its port.
fn refusing(ca: &PrivateCa, answer: String) -> u16 {
    let read = |name: &str| fs::read(ca.directory.path().join(name)).unwrap();
    let chain = vec![CertificateDer::from(read("cert.der"))];
    let key: PrivateKeyDer<'static> = PrivatePkcs8KeyDer::from(read("key.der")).into();
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = answer.replace("PORT", &port.to_string());
    thread::spawn(move || {
        for socket in listener.incoming() {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = StreamOwned::new(connection, socket.unwrap());
            // A device that goes away is no error.
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(answer.as_bytes());
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    });
    port
}

#[test]
fn what_an_authority_says_is_told_in_one_line_and_its_wish_is_kept() {
    let ca = PrivateCa::new();
    let problem = json!({
        "type": "urn:ietf:params:acme:error:rateLimited",
        "detail": format!("too many\nforged: line \u{1b}[2J {}", "x".repeat(2000)),
    });
    let mut answer = String::new();
    write!(
        answer,
        "HTTP/1.1 429 Too Many Requests\r\nretry-after: 7200\r\n\
         content-type: application/problem+json\r\ncontent-length: {}\r\n\r\n{problem}",
        problem.to_string().len()
    )
    .unwrap();
    let port = refusing(&ca, answer);
    let ports = Ports::new();
    let config = acme_config(port, &ca.file, &["pump.example"], "");
    let service = start(TempDir::new(), ports, &config);
    let reason = failure(&service);
    let expected = "pump.example: rateLimited: too many\\nforged: line \\u{1b}[2J xxx";
    assert!(reason.contains(expected), "{reason}");
    assert!(reason.len() < 1000, "{reason}");
    let pause = reason.split("the next attempt is in ").nth(1).unwrap();
    let pause: u32 = pause.split(' ').next().unwrap().parse().unwrap();
    assert!((7200..=10800).contains(&pause), "{reason}");
    assert!(!service.log().lines().any(|line| line.starts_with("forged")));
    // Something that is no authority at all.
    let port = refusing(&ca, String::from("HTTP/1.1 200 OK\r\n\r\n<html>"));
    let config = acme_config(port, &ca.file, &["pump.example"], "");
    reload(&service, ports, &config);
    service.wait_for_log("is no directory of an ACME authority");
    // The listener in clear, meanwhile, shows nothing to whoever guesses.
    let path = "/.well-known/acme-challenge/guess";
    assert_ne!(get(service.address, path, &[]).status, 200);
    drop(connect(service.address));
}

#[test]
fn a_directory_that_is_no_url_is_a_wrong_configuration() {
    let directory = TempDir::new();
    let text = device_config(
        directory.path(),
        "[tls.acme]\nenabled = true\ndirectory_url = \"https://no where/dir\"\nnames = [\"pump.example\"]\n",
    );
    let file = directory.write("edgeweb.toml", text);
    let checked = run(common::edgeweb()
        .arg("check-config")
        .arg("--config")
        .arg(file));
    let said = String::from_utf8(checked.stderr).unwrap();
    assert_eq!(checked.status.code(), Some(2), "{said}");
    assert!(
        said.contains("tls.acme.directory_url: \"https://no where/dir\": "),
        "{said}"
    );
}

#[test]
fn nothing_that_an_authority_says_ends_the_renewals() {
    let ca = PrivateCa::new();
    let ports = Ports::new();
    let url = "https://localhost:PORT/";
    // A directory, an account and an order, whichever is asked for; the order waits for ever.
    let waiting = json!({
        "newNonce": url, "newAccount": url, "newOrder": url,
        "status": "pending", "authorizations": [], "finalize": url,
    });
    let never = format!(
        "HTTP/1.1 200 OK\r\nlocation: {url}\r\nreplay-nonce: n\r\nretry-after: {}\r\n\r\n{waiting}",
        u64::MAX
    );
    let nowhere = json!({"newNonce": "no where", "newAccount": url, "newOrder": url});
    let nowhere = format!("HTTP/1.1 200 OK\r\n\r\n{nowhere}");
    let mut service: Option<Service> = None;
    for (answer, reason) in [
        (never, "the authority has not decided in time"),
        (nowhere, "is no directory of an ACME authority"),
    ] {
        let config = acme_config(refusing(&ca, answer), &ca.file, &["pump.example"], "");
        match &service {
            Some(service) => reload(service, ports, &config),
            None => service = Some(start(TempDir::new(), ports, &config)),
        }
        let service = service.as_ref().unwrap();
        service.wait_for_log(reason);
        assert!(!service.log().contains("panicked"), "{}", service.log());
    }
}
