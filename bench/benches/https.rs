//! What TLS and tokens cost the device: handshakes, whole and resumed, and one route with a verified token against
//! the same route without.
//!
//! One client at a time does the same work again and again; what is counted is the time that the service's process
//! spent on a processor for each, so that the client and the neighbours on the machine do not count. The kinds take
//! turns, round after round, each round begun by another one. Ratios are the medians of those within a round.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use edgeweb::Server;
use edgeweb::config::{Config, HttpContent};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, HandshakeKind, SignatureScheme,
    StreamOwned, SupportedProtocolVersion,
};

const ROUNDS: usize = 21;
/// In each round.
const HANDSHAKES: usize = 100;
const REQUESTS: usize = 2000;
const PASSWORD: &str = "a bench has four legs";

fn serve(directory: &Path) {
    let mut config = Config::default();
    config.server.runtime_dir = directory.join("run");
    config.server.state_dir = directory.join("state");
    config.tls.directory = directory.join("tls");
    config.auth.provisioned_users = directory.join("users.toml");
    config.http.address = [127, 0, 0, 1].into();
    config.http.port = 0;
    config.http.content = HttpContent::Public;
    config.https.address = [127, 0, 0, 1].into();
    config.https.port = 0;
    let server = Server::builder().config(config).start().expect("a server");
    let addresses = server.addrs();
    let code = server.claim_code().expect("nobody exists yet");
    println!("{} {} {code}", addresses[0], addresses[1]);
    // Until the other side closes the pipe.
    let _ = std::io::stdin().read(&mut [0]);
    server.stop().expect("an end in order");
}

struct Service {
    child: Child,
    http: SocketAddr,
    https: SocketAddr,
    token: String,
}

impl Service {
    fn start(directory: &Path) -> Self {
        std::fs::create_dir_all(directory).expect("a directory");
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .arg("serve")
            .arg(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("its output");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        let words: Vec<&str> = line.split_whitespace().collect();
        let [http, https, code] = words[..] else {
            panic!("{line:?}")
        };
        let mut service = Self {
            child,
            http: http.parse().expect("an address"),
            https: https.parse().expect("an address"),
            token: String::new(),
        };
        let body = format!(r#"{{"code":"{code}","username":"bench","password":"{PASSWORD}"}}"#);
        let text = format!(
            "POST /api/public/claim HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut stream = connect(service.https, &client(&TLS13));
        let answer = exchange(&mut stream, &text);
        let token = answer.split(r#""token":""#).nth(1).expect(&answer);
        service.token = token.split('"').next().expect("a token").to_owned();
        service
    }

    /// Time on a processor so far, in nanoseconds: the first figure of each thread's schedstat.
    fn busy(&self) -> u64 {
        let tasks = format!("/proc/{}/task", self.child.id());
        let tasks = std::fs::read_dir(tasks).expect("its threads");
        let times = tasks.map(|task| {
            let path = task.expect("a thread").path().join("schedstat");
            let text = std::fs::read_to_string(path).unwrap_or_default();
            text.split(' ')
                .next()
                .and_then(|ns| ns.parse().ok())
                .unwrap_or(0)
        });
        times.sum()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// What is measured is the server; whose certificate it shows is no matter.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
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
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

fn client(version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[version])
        .expect("a version")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

type Stream = StreamOwned<ClientConnection, TcpStream>;

fn connect(address: SocketAddr, config: &Arc<ClientConfig>) -> Stream {
    let name = ServerName::try_from("localhost").expect("a name");
    let client = ClientConnection::new(Arc::clone(config), name).expect("a client");
    let socket = TcpStream::connect(address).expect("a connection");
    socket.set_nodelay(true).expect("a socket option");
    let mut stream = StreamOwned::new(client, socket);
    while stream.conn.is_handshaking() {
        let (client, socket) = (&mut stream.conn, &mut stream.sock);
        client.complete_io(socket).expect("a handshake");
    }
    stream
}

/// Sends a request and reads the answer, whose JSON body ends with a brace.
fn exchange(stream: &mut (impl Read + Write), text: &str) -> String {
    stream.write_all(text.as_bytes()).expect("a request");
    stream.flush().expect("a request");
    let mut have = 0;
    let mut buffer = [0; 8192];
    while !buffer[..have].ends_with(b"}") {
        let more = stream.read(&mut buffer[have..]).expect("an answer");
        assert!(more > 0, "a whole answer");
        have += more;
    }
    let answer = String::from_utf8_lossy(&buffer[..have]).into_owned();
    assert!(answer.starts_with("HTTP/1.1 20"), "{answer}");
    answer
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Handshake(&'static SupportedProtocolVersion, HandshakeKind),
    /// `/health`, over TLS or not.
    Health(bool),
    /// The same route, with a token or without.
    About(bool),
}

const KINDS: [(&str, Kind); 8] = [
    (
        "TLS 1.3 handshake",
        Kind::Handshake(&TLS13, HandshakeKind::Full),
    ),
    (
        "TLS 1.3 resumed",
        Kind::Handshake(&TLS13, HandshakeKind::Resumed),
    ),
    (
        "TLS 1.2 handshake",
        Kind::Handshake(&TLS12, HandshakeKind::Full),
    ),
    (
        "TLS 1.2 resumed",
        Kind::Handshake(&TLS12, HandshakeKind::Resumed),
    ),
    ("/health in clear", Kind::Health(false)),
    ("/health over TLS", Kind::Health(true)),
    ("about, no token", Kind::About(false)),
    ("about, verified token", Kind::About(true)),
];

/// What one piece of `kind` costs the service, in seconds on a processor.
fn cost(service: &Service, kind: Kind) -> f64 {
    let get =
        |path: &str, token: &str| format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{token}\r\n");
    let health = get("/health", "");
    let (busy, count) = match kind {
        Kind::Handshake(version, expected) => {
            let resuming = client(version);
            // The first one brings the ticket, which comes with the answer.
            exchange(&mut connect(service.https, &resuming), &health);
            let before = service.busy();
            for _ in 0..HANDSHAKES {
                let whole;
                let config = if expected == HandshakeKind::Full {
                    whole = client(version);
                    &whole
                } else {
                    &resuming
                };
                let mut stream = connect(service.https, config);
                exchange(&mut stream, &health);
                assert_eq!(stream.conn.handshake_kind(), Some(expected));
            }
            (service.busy() - before, HANDSHAKES)
        }
        Kind::Health(over_tls) => (requests(service, over_tls, &health), REQUESTS),
        Kind::About(with_token) => {
            let token = format!("authorization: Bearer {}\r\n", service.token);
            let token = if with_token { token.as_str() } else { "" };
            let about = get("/api/public/about", token);
            (requests(service, true, &about), REQUESTS)
        }
    };
    busy as f64 / count as f64 / 1e9
}

fn requests(service: &Service, over_tls: bool, text: &str) -> u64 {
    let run = |stream: &mut dyn FnMut()| {
        stream();
        let before = service.busy();
        for _ in 0..REQUESTS {
            stream();
        }
        service.busy() - before
    };
    if over_tls {
        let mut stream = connect(service.https, &client(&TLS13));
        run(&mut || drop(exchange(&mut stream, text)))
    } else {
        let mut stream = TcpStream::connect(service.http).expect("a connection");
        stream.set_nodelay(true).expect("a socket option");
        run(&mut || drop(exchange(&mut stream, text)))
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [command, directory] = words.as_slice()
        && command == "serve"
    {
        return serve(&PathBuf::from(directory));
    }
    let directory = std::env::temp_dir().join(format!("edgeweb-bench-{}", std::process::id()));
    let service = Service::start(&directory);
    let mut rounds: Vec<[f64; KINDS.len()]> = Vec::new();
    for round in 0..ROUNDS {
        let mut costs = [0.0; KINDS.len()];
        for turn in 0..KINDS.len() {
            let index = (round + turn) % KINDS.len();
            costs[index] = cost(&service, KINDS[index].1);
        }
        rounds.push(costs);
        eprint!("\rround {} of {ROUNDS}", round + 1);
    }
    eprintln!();
    println!("{:<22} {:>10} {:>16}", "", "µs each", "per CPU-second");
    for (index, (name, _)) in KINDS.iter().enumerate() {
        let each = median(rounds.iter().map(|costs| costs[index]).collect());
        println!("{name:<22} {:>10.1} {:>16.0}", each * 1e6, 1.0 / each);
    }
    let ratio = |of: usize, to: usize| {
        let ratios = rounds.iter().map(|costs| costs[to] / costs[of]);
        median(ratios.collect())
    };
    println!(
        "resumed to whole handshakes a CPU-second: TLS 1.3 {:.2}, TLS 1.2 {:.2}",
        ratio(1, 0),
        ratio(3, 2)
    );
    println!(
        "/health over TLS to in clear a CPU-second: {:.2}",
        ratio(5, 4)
    );
    println!(
        "with a verified token to without a CPU-second: {:.2}",
        ratio(7, 6)
    );
    drop(service);
    let _ = std::fs::remove_dir_all(&directory);
}
