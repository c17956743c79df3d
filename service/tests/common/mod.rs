//! The real binary, started on free ports, and a client that says exactly what a test wants said.
#![allow(dead_code)] // each test file uses a part

pub mod https;
pub mod rsyslogd;
pub mod users;

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take before a test gives up on it.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The command under test: beside the test under cargo, on a device where `EDGEWEB_BINARY` says. Not cargo's
/// `CARGO_BIN_EXE_edgeweb`, which would put the build machine's path into the ptest package.
pub fn program() -> PathBuf {
    std::env::var_os("EDGEWEB_BINARY").map_or_else(
        || {
            let test = std::env::current_exe().unwrap();
            test.parent().unwrap().with_file_name("edgeweb")
        },
        PathBuf::from,
    )
}

/// A command line of the command under test, still without arguments.
pub fn edgeweb() -> Command {
    Command::new(program())
}

/// A file of the crate's tree. `cargo test` and the ptest package's `run-ptest` both say where that is.
pub fn crate_file(name: &str) -> PathBuf {
    let tree =
        std::env::var_os("CARGO_MANIFEST_DIR").expect("CARGO_MANIFEST_DIR, as cargo test sets it");
    Path::new(&tree).join(name)
}

/// Asks again and again until `probe` has something, or fails the test.
pub fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < end, "not seen within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// A directory of its own for a test, gone with it.
pub struct TempDir(PathBuf);

impl TempDir {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "edgeweb-test-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file and says where it is.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A configuration that keeps everything in `directory`, logs to standard error, and answers on free ports of the
/// loopback address as a device does: over HTTPS, and in clear only health and redirections. `more` comes after.
pub fn device_config(directory: &Path, more: &str) -> String {
    let run = directory.join("run");
    let state = directory.join("state");
    let journal = directory.join("journal");
    let tls = directory.join("tls");
    let users = directory.join("users.toml");
    format!(
        "server.runtime_dir = {run:?}\nserver.state_dir = {state:?}\nlog.journal.directory = {journal:?}\n\
         tls.directory = {tls:?}\nauth.provisioned_users = {users:?}\n\
         http.address = \"127.0.0.1\"\nhttp.port = 0\nhttps.address = \"127.0.0.1\"\nhttps.port = 0\n\
         log.stderr = \"always\"\nlog.filter = \"debug,actix_server=warn,rustls=info,h2=info\"\n\
         log.syslog.enabled = false\n{more}\n"
    )
}

/// The same without TLS: what is public is answered in clear, so that a test sees each byte.
pub fn config_text(directory: &Path, more: &str) -> String {
    let in_clear =
        "https.enabled = false\nhttp.content = \"public\"\nserver.host_names = [\"device\"]";
    device_config(directory, &format!("{in_clear}\n{more}"))
}

/// Lets the program see the time that the file `clock` says, as the package faketime reads it; what measures how long
/// something takes is not what shows the time.
pub fn clock_from(command: &mut Command, clock: &Path) {
    let libraries = fs::read_dir("/usr/lib").unwrap();
    let library = libraries
        .map(|entry| entry.unwrap().path().join("faketime/libfaketime.so.1"))
        .find(|path| path.exists())
        .expect("libfaketime of the package faketime");
    command
        .env("LD_PRELOAD", library)
        .env("FAKETIME_TIMESTAMP_FILE", clock)
        .env("FAKETIME_NO_CACHE", "1")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
}

/// A running `edgeweb serve`, ended with the test.
pub struct Service {
    pub directory: TempDir,
    pub address: SocketAddr,
    child: Child,
}

impl Service {
    /// Starts it with `more` configuration and waits until its health command says that it is well.
    pub fn start(more: &str) -> Self {
        Self::start_in(TempDir::new(), more, |_| {})
    }

    /// Starts it as a device has it, with HTTPS; `more` is configuration that comes after.
    pub fn start_device(more: &str) -> Self {
        let directory = TempDir::new();
        let text = device_config(directory.path(), more);
        Self::start_with(directory, text, |_| {})
    }

    /// Where it answers over TLS.
    pub fn https(&self) -> SocketAddr {
        let found = endpoint(self.directory.path(), "https");
        found.expect("an endpoint over TLS")
    }

    /// Starts it in `directory`; `prepare` may change the command, its environment for instance.
    pub fn start_in(directory: TempDir, more: &str, prepare: impl FnOnce(&mut Command)) -> Self {
        let text = config_text(directory.path(), more);
        Self::start_with(directory, text, prepare)
    }

    /// Starts it with `text` as its whole configuration, whose run-time directory is `directory`/run.
    pub fn start_with(
        directory: TempDir,
        text: String,
        prepare: impl FnOnce(&mut Command),
    ) -> Self {
        let config = directory.write("edgeweb.toml", text);
        let log = fs::File::create(directory.path().join("log")).unwrap();
        let mut command = edgeweb();
        command
            .args(["serve", "--config"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .env_remove("RUST_LOG");
        prepare(&mut command);
        let child = command.spawn().unwrap();
        // From here on it is ended with the test, even if it never gets well.
        let mut service = Self {
            directory,
            address: SocketAddr::from(([0, 0, 0, 0], 0)),
            child,
        };
        eventually("the service is well", || {
            if let Some(status) = service.has_ended() {
                panic!("the service ended with {status}");
            }
            service.health(&[]).status.success().then_some(())
        });
        service.address = endpoints(service.directory.path())[0];
        service
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn config(&self) -> PathBuf {
        self.directory.path().join("edgeweb.toml")
    }

    pub fn write_config(&self, more: &str) {
        let text = config_text(self.directory.path(), more);
        self.directory.write("edgeweb.toml", text);
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap()
    }

    pub fn wait_for_log(&self, text: &str) {
        eventually(&format!("{text:?} in the log: {}", self.log()), || {
            self.log().contains(text).then_some(())
        });
    }

    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill")
            .args([&format!("-{signal}"), &self.pid().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// `edgeweb health` with options.
    pub fn health(&self, options: &[&str]) -> Output {
        edgeweb()
            .arg("health")
            .args(options)
            .arg("--config")
            .arg(self.config())
            .output()
            .unwrap()
    }

    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    pub fn wait(&mut self) -> ExitStatus {
        eventually("the service has ended", || self.child.try_wait().unwrap())
    }

    /// What it leaves behind, once it has ended.
    pub fn into_directory(mut self) -> TempDir {
        std::mem::replace(&mut self.directory, TempDir::new())
    }

    pub fn get(&self, path: &str) -> Answer {
        get(self.address, path, &[])
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- log of the service\n{}", self.log());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The addresses in `endpoints.json` under `directory`.
pub fn endpoints(directory: &Path) -> Vec<SocketAddr> {
    let text = fs::read_to_string(directory.join("run/endpoints.json")).unwrap();
    let file: serde_json::Value = serde_json::from_str(&text).unwrap();
    file["endpoints"]
        .as_array()
        .unwrap()
        .iter()
        .map(|endpoint| {
            let port = endpoint["port"].as_u64().unwrap() as u16;
            SocketAddr::new(endpoint["address"].as_str().unwrap().parse().unwrap(), port)
        })
        .collect()
}

/// The first address in `endpoints.json` under `directory` where `scheme` is spoken.
pub fn endpoint(directory: &Path, scheme: &str) -> Option<SocketAddr> {
    let text = fs::read_to_string(directory.join("run/endpoints.json")).unwrap();
    let file: serde_json::Value = serde_json::from_str(&text).unwrap();
    let all = file["endpoints"].as_array().unwrap();
    let found = all
        .iter()
        .position(|endpoint| endpoint["scheme"] == scheme)?;
    Some(endpoints(directory)[found])
}

/// What came back for a request.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    /// Reads one answer from `stream`, whose body has a length unless `head` says that there is none.
    pub fn read(stream: &mut impl Read, head: bool) -> io::Result<Self> {
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            if stream.read(&mut byte)? == 0 {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
            }
            bytes.push(byte[0]);
        }
        let text = String::from_utf8(bytes).unwrap();
        let mut lines = text.lines();
        let status = lines
            .next()
            .unwrap()
            .split(' ')
            .nth(1)
            .unwrap()
            .parse()
            .unwrap();
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        let mut answer = Self {
            status,
            headers,
            body: Vec::new(),
        };
        if !head && status != 304 && status != 204 {
            let length: usize = answer
                .header("content-length")
                .map_or(0, |n| n.parse().unwrap());
            answer.body = vec![0; length];
            stream.read_exact(&mut answer.body)?;
        }
        Ok(answer)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Checks that this is a problem as RFC 9457 has it, with `status`.
    #[track_caller]
    pub fn is_problem(&self, status: u16) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json")
        );
        assert_eq!(self.json()["status"], status);
        assert!(!self.json()["title"].as_str().unwrap().is_empty());
        assert!(!self.json()["detail"].as_str().unwrap().is_empty());
    }
}

pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends a GET on a connection that stays open.
pub fn send_get(stream: &mut TcpStream, path: &str) {
    let text = format!("GET {path} HTTP/1.1\r\nhost: device\r\n\r\n");
    stream.write_all(text.as_bytes()).unwrap();
}

/// Sends a request on a connection of its own.
pub fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let mut stream = connect(address);
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: device\r\nconnection: close\r\n");
    if !body.is_empty() {
        head += &format!("content-length: {}\r\n", body.len());
    }
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).unwrap();
    // A server that refuses early may close before it has read everything.
    let _ = stream.write_all(body);
    Answer::read(&mut stream, method == "HEAD").unwrap()
}

pub fn get(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Answer {
    request(address, "GET", path, headers, b"")
}

/// Whether the other side has closed the connection; waits for it within [`PATIENCE`].
pub fn is_closed(stream: &mut TcpStream) -> bool {
    let mut rest = [0; 1024];
    match stream.read(&mut rest) {
        Ok(0) => true,
        Ok(more) => {
            eprintln!("not closed: {}", rest[..more].escape_ascii());
            false
        }
        Err(error) => {
            eprintln!("not closed: {error}");
            error.kind() == io::ErrorKind::ConnectionReset
        }
    }
}

/// Runs a command to its end, within [`PATIENCE`], and returns what it said.
pub fn run(command: &mut Command) -> Output {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap();
    let end = Instant::now() + PATIENCE;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > end {
            child.kill().unwrap();
            panic!("{command:?} has not ended within {PATIENCE:?}");
        }
        thread::sleep(Duration::from_millis(10));
    }
    child.wait_with_output().unwrap()
}
