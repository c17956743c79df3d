//! The collector elsewhere: a real rsyslogd, over TLS, TCP and UDP, with everything that goes wrong on the way.
#![cfg(feature = "uplink")]

mod common;

use common::{Service, TempDir, eventually};
use socket2::SockRef;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The name in the collector's certificate.
const NAME: &str = "loghost.example";
/// Back-off and confirmation take their time: 12 s without an error, after pauses of up to 8 s.
const LONG: Duration = Duration::from_secs(90);

fn eventually_long<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + LONG;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < end, "not seen within {LONG:?}: {what}");
        thread::sleep(Duration::from_millis(100));
    }
}

/// How the collector listens.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Tcp,
    Udp,
    Tls,
    /// Only for a device with a certificate for the name `device`.
    TlsForDevice,
}

/// A record as the collector has understood it.
#[derive(Clone, Debug)]
struct Record {
    priority: String,
    host: String,
    program: String,
    process: String,
    data: String,
    text: String,
}

impl Record {
    fn parse(line: &str) -> Option<Self> {
        let mut parts = line.split('\t').map(str::to_owned);
        Some(Self {
            priority: parts.next()?,
            host: parts.next()?,
            program: parts.next()?,
            process: parts.next()?,
            data: parts.next()?,
            text: parts.next()?,
        })
    }

    fn parameter(&self, name: &str) -> String {
        let start = format!(" {name}=\"");
        let after = self.data.split_once(&start).map(|(_, after)| after);
        let value = after.and_then(|after| after.split('"').next());
        value
            .unwrap_or_else(|| panic!("{name} in {self:?}"))
            .to_owned()
    }

    /// What is the same for every copy of a record, and for nothing else.
    fn identity(&self) -> (String, u64) {
        (
            self.parameter("run"),
            self.parameter("seq").parse().unwrap(),
        )
    }
}

/// A real rsyslogd, which can be stopped and started again on the same port.
struct Collector {
    directory: PathBuf,
    port: u16,
    kind: Kind,
    child: Option<Child>,
}

impl Collector {
    /// Not yet running.
    fn new(directory: &Path, kind: Kind) -> Self {
        Self {
            directory: directory.join("collector"),
            port: TcpListener::bind("127.0.0.1:0")
                .unwrap()
                .local_addr()
                .unwrap()
                .port(),
            kind,
            child: None,
        }
    }

    fn running(directory: &Path, kind: Kind) -> Self {
        let mut collector = Self::new(directory, kind);
        collector.start();
        collector
    }

    fn start(&mut self) {
        fs::create_dir_all(&self.directory).unwrap();
        let dir = self.directory.display();
        let pki = self.directory.parent().unwrap().join("pki");
        let pki = pki.display();
        let port = self.port;
        let tls = |mode: &str| {
            format!(
                r#"global(defaultNetstreamDriver="gtls" defaultNetstreamDriverCAFile="{pki}/ca.crt"
 defaultNetstreamDriverCertFile="{pki}/collector.crt" defaultNetstreamDriverKeyFile="{pki}/collector.key")
module(load="imtcp" streamDriver.name="gtls" streamDriver.mode="1" {mode})
"#
            )
        };
        let input = match self.kind {
            Kind::Udp => format!(
                "module(load=\"imudp\")\ninput(type=\"imudp\" address=\"127.0.0.1\" port=\"{port}\")"
            ),
            kind => {
                let module = match kind {
                    Kind::Tls => tls("streamDriver.authMode=\"anon\""),
                    Kind::TlsForDevice => {
                        tls("streamDriver.authMode=\"x509/name\" permittedPeer=[\"device\"]")
                    }
                    _ => String::from("module(load=\"imtcp\")\n"),
                };
                format!("{module}input(type=\"imtcp\" address=\"127.0.0.1\" port=\"{port}\")")
            }
        };
        let config = self.directory.join("rsyslog.conf");
        let template =
            "%pri-text%\\t%hostname%\\t%app-name%\\t%procid%\\t%structured-data%\\t%msg%\\n";
        let text = format!(
            "global(workDirectory=\"{dir}\" maxMessageSize=\"16k\")\n{input}\n\
             template(name=\"record\" type=\"string\" string=\"{template}\")\n\
             if $structured-data contains \"edgeweb@32473\" then \
             action(type=\"omfile\" file=\"{dir}/records\" template=\"record\")\n\
             else action(type=\"omfile\" file=\"{dir}/own\")\n"
        );
        fs::write(&config, text).unwrap();
        let words = fs::File::create(self.directory.join("stderr")).unwrap();
        let child = Command::new("rsyslogd")
            .args(["-n", "-f"])
            .arg(&config)
            .arg("-i")
            .arg(self.directory.join("pid"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(words)
            .spawn()
            .expect("rsyslogd of the package rsyslog");
        self.child = Some(child);
        if self.kind != Kind::Udp {
            let address = SocketAddr::from(([127, 0, 0, 1], self.port));
            eventually("the collector listens", || {
                TcpStream::connect(address).ok().map(drop)
            });
        }
    }

    /// Ends it in order, or as a power cut would.
    fn stop(&mut self, signal: &str) {
        if let Some(mut child) = self.child.take() {
            let pid = child.id().to_string();
            let _ = Command::new("kill").args([signal, &pid]).status();
            let _ = child.wait();
        }
    }

    fn records(&self) -> Vec<Record> {
        let text = fs::read(self.directory.join("records")).unwrap_or_default();
        String::from_utf8_lossy(&text)
            .lines()
            .map(|line| Record::parse(line).unwrap_or_else(|| panic!("not a record: {line:?}")))
            .collect()
    }

    /// How many copies of each record there are.
    fn copies(&self) -> BTreeMap<(String, u64), usize> {
        let mut copies = BTreeMap::new();
        for record in self.records() {
            *copies.entry(record.identity()).or_default() += 1;
        }
        copies
    }

    fn has(&self, text: &str) -> Option<Record> {
        self.records()
            .into_iter()
            .find(|record| record.text.contains(text))
    }

    fn wait_for(&self, text: &str) -> Record {
        eventually_long(&format!("{text:?} at the collector"), || self.has(text))
    }

    fn wait_for_errors(&self, numbers: std::ops::Range<usize>) {
        eventually_long(&format!("errors {numbers:?} at the collector"), || {
            let records = self.records();
            numbers
                .clone()
                .all(|n| {
                    let text = error_text(n);
                    records.iter().any(|record| record.text.contains(&text))
                })
                .then_some(())
        });
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        if thread::panicking() {
            for name in ["stderr", "own"] {
                let said = fs::read(self.directory.join(name)).unwrap_or_default();
                eprintln!("--- collector's {name}\n{}", String::from_utf8_lossy(&said));
            }
        }
        self.stop("-TERM");
    }
}

/// Certificates in `directory`/pki: a CA, the collector's, the device's and another CA of no meaning here.
fn make_certificates(directory: &Path) {
    let pki = directory.join("pki");
    fs::create_dir_all(&pki).unwrap();
    let openssl = |arguments: &str| {
        let output = Command::new("openssl")
            .args(arguments.split(' '))
            .current_dir(&pki)
            .output()
            .expect("openssl of the package openssl");
        assert!(output.status.success(), "{arguments}: {output:?}");
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    for ca in ["ca", "other"] {
        openssl(&format!(
            "req -x509 {key} -keyout {ca}.key -out {ca}.crt -days 30 -subj /CN={ca}"
        ));
    }
    for (name, subject) in [("collector", NAME), ("device", "device")] {
        fs::write(
            pki.join("extensions"),
            format!("subjectAltName=DNS:{subject}\nbasicConstraints=CA:FALSE\n"),
        )
        .unwrap();
        openssl(&format!(
            "req -new {key} -keyout {name}.key -out {name}.csr -subj /CN={subject}"
        ));
        openssl(&format!(
            "x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out {name}.crt -days 30 \
             -extfile extensions"
        ));
    }
}

fn uplink_config(directory: &Path, port: u16, kind: Kind, more: &str) -> String {
    let transport = match kind {
        Kind::Tcp => "tcp",
        Kind::Udp => "udp",
        Kind::Tls | Kind::TlsForDevice => "tls",
    };
    let ca = directory.join("pki/ca.crt");
    format!(
        "log.uplink.enabled = true\nlog.uplink.severity = \"debug\"\n\
         log.uplink.server = \"127.0.0.1:{port}\"\nlog.uplink.transport = \"{transport}\"\n\
         log.uplink.server_name = \"{NAME}\"\nlog.uplink.ca_file = {ca:?}\n{more}\n"
    )
}

fn start_service(directory: TempDir, port: u16, kind: Kind, more: &str) -> Service {
    let config = uplink_config(directory.path(), port, kind, more);
    Service::start_in(directory, &config, |_| {})
}

/// The text that only the error of number `n` has.
fn error_text(n: usize) -> String {
    format!("fault {n} of the pump.")
}

/// Has the program `pump` say errors with these numbers.
fn say_errors(service: &Service, numbers: std::ops::Range<usize>) {
    say_long_errors(service, numbers, 0);
}

/// The same, each with so many bytes more.
fn say_long_errors(service: &Service, numbers: std::ops::Range<usize>, more: usize) {
    let socket = UnixDatagram::unbound().unwrap();
    let path = service.directory.path().join("run/log.sock");
    for n in numbers {
        // Every second one is critical.
        let more = "x".repeat(more);
        let text = format!("<{}>pump[77]: {}{more}", 10 + n % 2, error_text(n));
        socket.send_to(text.as_bytes(), &path).unwrap();
        service.wait_for_log(&error_text(n));
    }
}

/// A number of the log's own.
fn metric(service: &Service, name: &str) -> u64 {
    let text = service.get("/metrics").text().to_owned();
    let start = format!("edgeweb_log_{name} ");
    let value = text.lines().find_map(|line| line.strip_prefix(&start));
    value
        .unwrap_or_else(|| panic!("{name} in {text}"))
        .parse()
        .unwrap()
}

/// The memory that a process has now.
fn resident_bytes(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = text.lines().find(|line| line.starts_with("Rss:")).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}

fn count(text: &str, part: &str) -> usize {
    text.matches(part).count()
}

/// What is between the device and the collector.
#[derive(Clone, Copy)]
enum Way {
    /// Lets everything through.
    Open,
    /// Lets so many bytes through in 50 ms.
    Slow(usize),
    /// The same, and resets the connection after a time.
    SlowAndReset(usize, Duration),
    /// Takes nothing after what fits into its kernel.
    Hang,
    /// Takes so many bytes, gives none of them to the collector and resets the connection.
    Reset(usize),
}

/// Listens in front of `target`; `way` says what becomes of the connection of that number, from 0.
fn relay(target: u16, way: impl Fn(usize) -> Way + Send + 'static) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // Otherwise the kernel would take a lot before anybody reads it; connections inherit this.
    SockRef::from(&listener).set_recv_buffer_size(4096).unwrap();
    let port = listener.local_addr().unwrap().port();
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    thread::spawn(move || {
        for device in listener.incoming() {
            let way = way(count.fetch_add(1, Ordering::SeqCst));
            thread::spawn(move || pass(device.unwrap(), target, way));
        }
    });
    (port, connections)
}

fn pass(mut device: TcpStream, target: u16, way: Way) {
    if let Way::Hang = way {
        return thread::sleep(LONG);
    }
    if let Way::Reset(limit) = way {
        // What it has taken longer ago than this, the device would count as delivered.
        let patience = Some(Duration::from_secs(2));
        device.set_read_timeout(patience).unwrap();
        let mut bytes = vec![0; limit];
        let _ = device.read_exact(&mut bytes);
        thread::sleep(Duration::from_millis(200));
        SockRef::from(&device)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
        return;
    }
    let Ok(mut collector) = TcpStream::connect(("127.0.0.1", target)) else {
        return;
    };
    let mut back = collector.try_clone().unwrap();
    let mut to_device = device.try_clone().unwrap();
    thread::spawn(move || {
        // The end of either side ends the other.
        let _ = std::io::copy(&mut back, &mut to_device);
        let _ = to_device.shutdown(std::net::Shutdown::Both);
    });
    let mut bytes = match way {
        Way::Slow(count) | Way::SlowAndReset(count, _) => vec![0; count],
        _ => vec![0; 64 * 1024],
    };
    let start = Instant::now();
    while let Ok(count) = device.read(&mut bytes) {
        if count == 0 || collector.write_all(&bytes[..count]).is_err() {
            break;
        }
        match way {
            Way::SlowAndReset(_, limit) if start.elapsed() > limit => {
                // The other handle of it must not keep it open.
                SockRef::from(&device)
                    .set_linger(Some(Duration::ZERO))
                    .unwrap();
                break;
            }
            Way::Slow(_) | Way::SlowAndReset(..) => thread::sleep(Duration::from_millis(50)),
            _ => {}
        }
    }
    let _ = collector.shutdown(std::net::Shutdown::Write);
}

/// A name of their own, so that a device without that daemon leaves all of them out.
mod with_rsyslogd {
    use super::*;

    fn records_arrive(kind: Kind, more: &str) {
        let directory = TempDir::new();
        make_certificates(directory.path());
        let collector = Collector::running(directory.path(), kind);
        let more =
            format!("log.syslog.facility = \"local3\"\nlog.syslog.tag = \"device-web\"\n{more}");
        let mut service = start_service(directory, collector.port, kind, &more);
        let ready = collector.wait_for("listening on http://");
        assert_eq!(ready.priority, "local3.info");
        assert_eq!(ready.program, "device-web");
        assert_eq!(ready.process, service.pid().to_string());
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        assert_eq!(ready.host, host.trim());
        assert!(ready.parameter("target").starts_with("edgeweb::"));
        service.get("/some%0Apage");
        let request = collector.wait_for("GET /some%0Apage 404");
        assert_eq!(request.priority, "local3.debug");
        assert_eq!(request.parameter("run"), ready.parameter("run"));
        assert_eq!(request.parameter("boot"), ready.parameter("boot"));
        say_errors(&service, 0..3);
        collector.wait_for_errors(0..3);
        let error = collector.wait_for(&error_text(1));
        assert_eq!(error.priority, "local3.err");
        assert_eq!((&*error.program, &*error.process), ("pump", "77"));
        // The last words arrive as well, and each record once, numbered as it was sent.
        service.signal("TERM");
        assert!(service.wait().success());
        collector.wait_for("SIGTERM: stopping");
        collector.wait_for("stopped");
        assert!(collector.copies().values().all(|copies| *copies == 1));
        let mut sendings: Vec<usize> = collector
            .records()
            .iter()
            .map(|record| record.parameter("sequenceId").parse().unwrap())
            .collect();
        sendings.sort_unstable();
        assert!(
            sendings.iter().copied().eq(1..=sendings.len()),
            "{sendings:?}"
        );
    }

    #[test]
    fn over_tcp_records_arrive_once_and_whole() {
        records_arrive(Kind::Tcp, "");
    }

    #[test]
    fn over_udp_records_arrive_once_and_whole() {
        records_arrive(Kind::Udp, "");
    }

    #[test]
    fn over_tls_records_arrive_once_and_whole() {
        records_arrive(Kind::Tls, "");
    }

    #[test]
    fn a_collector_that_asks_for_a_certificate_gets_it() {
        let directory = TempDir::new();
        make_certificates(directory.path());
        let pki = directory.path().join("pki");
        let collector = Collector::running(directory.path(), Kind::TlsForDevice);
        // The device's key is not there at first: what lies in its place is a certificate.
        fs::rename(pki.join("device.key"), pki.join("device.key.away")).unwrap();
        fs::copy(pki.join("device.crt"), pki.join("device.key")).unwrap();
        let more = format!(
            "log.uplink.certificate_file = {:?}\nlog.uplink.key_file = {:?}",
            pki.join("device.crt"),
            pki.join("device.key")
        );
        let service = start_service(directory, collector.port, Kind::TlsForDevice, &more);
        service.wait_for_log("pki/device.key: has no private key in PEM");
        fs::rename(pki.join("device.key.away"), pki.join("device.key")).unwrap();
        collector.wait_for("listening on http://");
        let key = fs::read_to_string(pki.join("device.key")).unwrap();
        let secret = key.lines().nth(1).unwrap();
        assert!(!service.log().contains(secret));
    }

    #[test]
    fn a_device_without_the_certificate_that_is_asked_for_is_told_so() {
        let directory = TempDir::new();
        make_certificates(directory.path());
        let collector = Collector::running(directory.path(), Kind::TlsForDevice);
        let service = start_service(directory, collector.port, Kind::TlsForDevice, "");
        service.wait_for_log("before anything had arrived for certain; its own log may say why");
        thread::sleep(Duration::from_secs(5));
        assert!(collector.records().is_empty());
        assert_eq!(service.get("/health").status, 200);
    }

    #[test]
    fn a_collector_with_a_wrong_certificate_gets_nothing_until_the_file_is_right() {
        let directory = TempDir::new();
        make_certificates(directory.path());
        let pki = directory.path().join("pki");
        let right = fs::read(pki.join("ca.crt")).unwrap();
        let collector = Collector::running(directory.path(), Kind::Tls);
        let ca = directory.path().join("device-ca.crt");
        let more = format!("log.uplink.ca_file = {ca:?}");
        let config = uplink_config(directory.path(), collector.port, Kind::Tls, "");
        let config: String = config
            .lines()
            .filter(|line| !line.starts_with("log.uplink.ca_file"))
            .map(|line| format!("{line}\n"))
            .collect();
        let service = Service::start_in(directory, &format!("{config}{more}"), |_| {});
        service.wait_for_log("device-ca.crt: cannot be read: ");
        fs::copy(pki.join("other.crt"), &ca).unwrap();
        service.wait_for_log("its certificate is not signed by one in ");
        say_errors(&service, 0..2);
        // It is tried again, and said once.
        thread::sleep(Duration::from_secs(4));
        assert_eq!(
            count(&service.log(), "is not signed by one in"),
            1,
            "{}",
            service.log()
        );
        assert!(collector.records().is_empty());
        fs::write(&ca, right).unwrap();
        collector.wait_for("listening on http://");
        collector.wait_for_errors(0..2);
        collector.wait_for("takes records again; 0 could not wait");
    }

    #[test]
    fn a_collector_with_another_name_gets_nothing() {
        let directory = TempDir::new();
        make_certificates(directory.path());
        let collector = Collector::running(directory.path(), Kind::Tls);
        let config = uplink_config(directory.path(), collector.port, Kind::Tls, "")
            .replace(NAME, "other.example");
        let service = Service::start_in(directory, &config, |_| {});
        service.wait_for_log("its certificate is not for \"other.example\"");
        thread::sleep(Duration::from_secs(3));
        assert!(collector.records().is_empty());
    }

    #[test]
    fn a_collector_that_comes_late_gets_what_waited_for_it() {
        let directory = TempDir::new();
        let mut collector = Collector::new(directory.path(), Kind::Tcp);
        let service = start_service(directory, collector.port, Kind::Tcp, "");
        service.wait_for_log("takes no records: ");
        say_errors(&service, 0..5);
        assert_eq!(count(&service.log(), "takes no records: "), 1);
        collector.start();
        collector.wait_for("listening on http://");
        collector.wait_for_errors(0..5);
        eventually_long("the collector is back", || {
            let log = service.log();
            log.contains("takes records again; 0 could not wait")
                .then_some(())
        });
    }

    /// Nothing is missing, however the collector ends; what it gets twice can be told.
    fn restarts(kind: Kind) {
        let directory = TempDir::new();
        make_certificates(directory.path());
        let mut collector = Collector::running(directory.path(), kind);
        let service = start_service(directory, collector.port, kind, "");
        collector.wait_for("listening on http://");
        let mut said = 0;
        for signal in ["-TERM", "-KILL", "-TERM"] {
            say_errors(&service, said..said + 4);
            collector.stop(signal);
            say_errors(&service, said + 4..said + 8);
            collector.start();
            said += 8;
            collector.wait_for_errors(0..said);
        }
        let mut texts: BTreeMap<(String, u64), String> = BTreeMap::new();
        for record in collector.records() {
            let first = texts
                .entry(record.identity())
                .or_insert(record.text.clone());
            assert_eq!(*first, record.text);
        }
    }

    #[test]
    fn a_restarted_collector_gets_all_errors_over_tcp() {
        restarts(Kind::Tcp);
    }

    #[test]
    fn a_restarted_collector_gets_all_errors_over_tls() {
        restarts(Kind::Tls);
    }

    #[test]
    fn a_way_that_resets_connections_loses_nothing() {
        let directory = TempDir::new();
        let collector = Collector::running(directory.path(), Kind::Tcp);
        let (port, connections) = relay(collector.port, |n| match n {
            0 => Way::Reset(1),
            1 => Way::Reset(3000),
            _ => Way::Open,
        });
        let service = start_service(directory, port, Kind::Tcp, "");
        say_errors(&service, 0..10);
        collector.wait_for_errors(0..10);
        collector.wait_for("listening on http://");
        assert!(connections.load(Ordering::SeqCst) >= 3);
        // Back-off goes on from its beginning once something was delivered.
        eventually_long("the collector is back", || {
            let log = service.log();
            log.contains("takes records again; 0 could not wait")
                .then_some(())
        });
    }

    #[test]
    fn a_collector_that_hangs_is_left_and_gets_all_of_it_again() {
        let directory = TempDir::new();
        let collector = Collector::running(directory.path(), Kind::Tcp);
        let (port, connections) = relay(collector.port, |n| match n {
            0 => Way::Hang,
            _ => Way::Open,
        });
        let service = start_service(directory, port, Kind::Tcp, "");
        say_errors(&service, 0..20);
        for n in 0..200 {
            assert_eq!(service.get(&format!("/{n}")).status, 404);
        }
        eventually_long("the collector is left", || {
            service.log().contains(" takes no records: ").then_some(())
        });
        collector.wait_for_errors(0..20);
        collector.wait_for("listening on http://");
        collector.wait_for("GET /199 404");
        assert!(connections.load(Ordering::SeqCst) >= 2);
        assert!(metric(&service, "uplink_resent_total") > 0);
    }

    #[test]
    fn what_a_slow_way_still_had_to_take_when_it_broke_is_sent_again() {
        let directory = TempDir::new();
        let collector = Collector::running(directory.path(), Kind::Tcp);
        // For longer than 12 s, after which what has left the device counts as delivered; 1 KB a second.
        let (port, connections) = relay(collector.port, |n| match n {
            0 => Way::SlowAndReset(50, Duration::from_secs(14)),
            _ => Way::Open,
        });
        let service = start_service(directory, port, Kind::Tcp, "");
        say_long_errors(&service, 0..30, 1500);
        eventually_long("the connection is broken", || {
            (connections.load(Ordering::SeqCst) >= 2).then_some(())
        });
        collector.wait_for_errors(0..30);
    }

    #[test]
    fn a_slow_collector_delays_nobody_but_itself() {
        let directory = TempDir::new();
        let collector = Collector::running(directory.path(), Kind::Tcp);
        let (port, _) = relay(collector.port, |_| Way::Slow(500));
        let service = start_service(
            directory,
            port,
            Kind::Tcp,
            "log.uplink.buffer_bytes = 16384",
        );
        let start = Instant::now();
        for _ in 0..1500 {
            assert_eq!(service.get("/health").status, 200);
        }
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "{:?}",
            start.elapsed()
        );
        say_errors(&service, 0..3);
        collector.wait_for_errors(0..3);
        // It was slow: there are records that could not wait.
        let copies = collector.copies();
        let newest = copies.keys().map(|(_, seq)| *seq).max().unwrap();
        assert!(
            (copies.len() as u64) < newest,
            "{} of {newest}",
            copies.len()
        );
    }

    #[test]
    fn while_the_collector_is_away_memory_is_bounded_and_errors_wait_in_the_journal() {
        let directory = TempDir::new();
        let mut collector = Collector::new(directory.path(), Kind::Tcp);
        let more = "log.uplink.buffer_bytes = 16384";
        let service = start_service(directory, collector.port, Kind::Tcp, more);
        say_errors(&service, 0..5);
        for _ in 0..200 {
            service.get("/health");
        }
        let before = resident_bytes(service.pid());
        for _ in 0..3000 {
            service.get("/health");
        }
        let grown = resident_bytes(service.pid()).saturating_sub(before);
        assert!(grown < 4 * 1024 * 1024, "{grown} bytes more");
        collector.start();
        collector.wait_for_errors(0..5);
        let back = collector.wait_for("takes records again; ").text;
        let lost = back
            .split("; ")
            .nth(1)
            .and_then(|rest| rest.split(' ').next());
        let lost: u64 = lost.unwrap().parse().unwrap();
        let copies = collector.copies();
        let newest = copies.keys().map(|(_, seq)| *seq).max().unwrap();
        assert!(lost > 2000, "{back}");
        assert_eq!(metric(&service, "uplink_dropped_total"), lost);
        assert_eq!(metric(&service, "uplink_up"), 1);
        assert_eq!(copies.len() as u64 + lost, newest, "{back}");
    }

    #[test]
    fn a_new_configuration_keeps_what_waits() {
        let directory = TempDir::new();
        let mut collector = Collector::new(directory.path(), Kind::Tcp);
        let config = uplink_config(directory.path(), collector.port, Kind::Tcp, "");
        let service = Service::start_in(directory, &config, |_| {});
        service.get("/before");
        service.write_config(&format!("{config}limits.max_connections = 99\n"));
        service.signal("HUP");
        service.wait_for_log("configuration is in force");
        collector.start();
        collector.wait_for("GET /before 404");
    }

    #[test]
    fn what_is_sealed_in_the_journal_is_sent_from_memory() {
        let directory = TempDir::new();
        let mut collector = Collector::new(directory.path(), Kind::Tcp);
        let keys = directory.path().join("identity");
        let output = common::run(common::edgeweb().args(["logs", "keygen"]).arg(&keys));
        let said = String::from_utf8(output.stdout).unwrap();
        let recipient = said.split_whitespace().last().unwrap();
        let more = format!("log.journal.recipient = \"{recipient}\"");
        let service = start_service(directory, collector.port, Kind::Tcp, &more);
        say_errors(&service, 0..3);
        collector.start();
        collector.wait_for_errors(0..3);
    }

    #[test]
    fn a_reboot_while_the_collector_is_away_loses_no_error() {
        let directory = TempDir::new();
        let mut collector = Collector::running(directory.path(), Kind::Tcp);
        // The journal outlives the service, whose other files are its own.
        let config = uplink_config(directory.path(), collector.port, Kind::Tcp, "");
        let journal = directory.path().join("journal");
        let start = || {
            let own = TempDir::new();
            let text = common::config_text(own.path(), &config);
            let text = text.replace(
                &format!("{:?}", own.path().join("journal")),
                &format!("{journal:?}"),
            );
            Service::start_with(own, text, |_| {})
        };
        let mut service = start();
        say_errors(&service, 0..3);
        collector.wait_for_errors(0..3);
        collector.stop("-TERM");
        say_errors(&service, 3..6);
        eventually("the errors are in the journal", || {
            (metric(&service, "journal_records_total") >= 6).then_some(())
        });
        service.signal("KILL");
        service.wait();
        let mut service = start();
        say_errors(&service, 6..8);
        collector.start();
        collector.wait_for_errors(0..8);
        let runs: BTreeSet<String> = collector
            .records()
            .iter()
            .map(|record| record.parameter("run"))
            .collect();
        assert_eq!(runs.len(), 2);
        // Ended in order, it knows what the collector has, and does not send it again.
        service.signal("TERM");
        assert!(service.wait().success());
        let before = collector.copies();
        let service = start();
        say_errors(&service, 8..9);
        collector.wait_for_errors(8..9);
        let after = collector.copies();
        assert!(
            before
                .iter()
                .all(|(record, copies)| after[record] == *copies)
        );
    }
}
