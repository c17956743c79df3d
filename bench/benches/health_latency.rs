//! Whether `/health` notices what the log's sinks go through: with a syslog daemon that takes everything, with
//! none, and with one that is stuck; with a journal that cannot be written, and with a collector that is away.
//!
//! Each kind is a process of its own that logs a line for each request. The kinds take turns, round after
//! round and each round begun by another one, and what is said is the median of the rounds, and the median of
//! the ratios to the first kind in the same round.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use edgeweb::config::{Config, HttpContent, StderrLog, Transport};
use edgeweb::logging::Severity;
use edgeweb::{Server, logging};

const KINDS: [&str; 5] = [
    "syslog takes all",
    "syslog is away",
    "syslog is stuck",
    "journal cannot be written",
    "collector is away",
];
const ROUNDS: usize = 101;
const CONNECTIONS: usize = 4;
/// Of each connection in each round.
const REQUESTS: usize = 500;

fn serve(kind: &str, directory: &Path) {
    let mut config = Config::default();
    config.server.runtime_dir = directory.join("run");
    config.http.address = [127, 0, 0, 1].into();
    config.http.port = 0;
    config.http.content = HttpContent::Public;
    config.https.enabled = false;
    config.server.state_dir = directory.join("state");
    let log = &mut config.log;
    log.filter = String::from("debug");
    log.stderr = StderrLog::Never;
    log.syslog.socket = directory.join("log.sock");
    log.journal.directory = directory.join("journal");
    let socket = (kind != "syslog is away")
        .then(|| UnixDatagram::bind(&log.syslog.socket).expect("a socket"));
    match kind {
        "syslog is stuck" => {}
        "journal cannot be written" => {
            std::fs::write(&log.journal.directory, "in the way").expect("a file");
            log.journal.severity = Severity::Debug;
        }
        "collector is away" => {
            log.uplink.enabled = true;
            log.uplink.transport = Transport::Tcp;
            log.uplink.severity = Severity::Debug;
            log.uplink.server = String::from("127.0.0.1:9");
        }
        _ => {}
    }
    let stuck = socket.filter(|socket| {
        let socket = socket.try_clone().expect("a socket");
        if kind != "syslog is stuck" {
            thread::spawn(move || {
                let mut buffer = [0; 4096];
                while socket.recv(&mut buffer).is_ok() {}
            });
        }
        true
    });
    logging::install(&config.log).expect("the first logger");
    let server = Server::builder().config(config).start().expect("a server");
    println!("{}", server.addrs()[0]);
    // Until the other side closes the pipe.
    let _ = std::io::stdin().read(&mut [0]);
    drop(stuck);
    server.stop().expect("an end in order");
}

struct Service {
    child: Child,
    address: SocketAddr,
}

impl Service {
    fn start(kind: &str, directory: &Path) -> Self {
        std::fs::create_dir_all(directory).expect("a directory");
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .arg("serve")
            .arg(kind)
            .arg(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("its output");
        BufReader::new(stdout)
            .read_line(&mut line)
            .expect("its address");
        let address = line.trim().parse().expect("an address");
        Self { child, address }
    }
}

/// The times of all requests of a round.
fn load(address: SocketAddr) -> Vec<Duration> {
    let connection = move || {
        let mut stream = TcpStream::connect(address).expect("a connection");
        stream.set_nodelay(true).expect("a socket option");
        let mut buffer = [0; 4096];
        let mut times = Vec::with_capacity(REQUESTS);
        for _ in 0..REQUESTS {
            let begin = Instant::now();
            stream
                .write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
                .expect("a request");
            let mut have = 0;
            while !buffer[..have].ends_with(b"}") {
                let more = stream.read(&mut buffer[have..]).expect("an answer");
                assert!(more > 0, "a whole answer");
                have += more;
            }
            times.push(begin.elapsed());
        }
        times
    };
    let threads: Vec<_> = (0..CONNECTIONS)
        .map(|_| thread::spawn(connection))
        .collect();
    let joined = threads
        .into_iter()
        .map(|thread| thread.join().expect("a thread"));
    joined.flatten().collect()
}

fn quantile(times: &mut [Duration], of_a_hundred: usize) -> f64 {
    times.sort_unstable();
    times[times.len() * of_a_hundred / 100].as_secs_f64() * 1e6
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [command, kind, directory] = words.as_slice()
        && command == "serve"
    {
        return serve(kind, &PathBuf::from(directory));
    }
    let scratch = std::env::temp_dir().join(format!("edgeweb-health-{}", std::process::id()));
    let services: Vec<Service> = KINDS
        .iter()
        .enumerate()
        .map(|(number, kind)| Service::start(kind, &scratch.join(number.to_string())))
        .collect();
    let mut rounds = vec![(Vec::new(), Vec::new()); KINDS.len()];
    for service in &services {
        load(service.address);
    }
    for round in 0..ROUNDS {
        for turn in 0..KINDS.len() {
            let kind = (round + turn) % KINDS.len();
            let (p50, p99) = &mut rounds[kind];
            let mut times = load(services[kind].address);
            p50.push(quantile(&mut times, 50));
            p99.push(quantile(&mut times, 99));
        }
    }
    let ratio =
        |of: &[f64], to: &[f64]| median(of.iter().zip(to).map(|(of, to)| of / to).collect());
    let (first50, first99) = rounds[0].clone();
    println!("GET /health, {CONNECTIONS} connections, median of {ROUNDS} rounds; µs (ratio)");
    for (kind, (p50, p99)) in KINDS.iter().zip(rounds) {
        println!(
            "{kind:<26} p50 {:6.0} ({:.2})   p99 {:6.0} ({:.2})",
            median(p50.clone()),
            ratio(&p50, &first50),
            median(p99.clone()),
            ratio(&p99, &first99)
        );
    }
    for mut service in services {
        drop(service.child.stdin.take());
        let _ = service.child.wait();
    }
    let _ = std::fs::remove_dir_all(scratch);
}
