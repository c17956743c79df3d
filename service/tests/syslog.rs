//! The firmware's syslog, with real daemons on a socket of the test's own.
#![cfg(feature = "syslog")]

mod common;

use common::{Service, TempDir, crate_file, eventually};
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long a daemon that is back may be without records. The service tries again within 1 s.
const SOON: Duration = Duration::from_secs(5);
/// Requests that make more records than may wait for a daemon.
const MANY: usize = 1500;

/// A syslog daemon that devices have.
#[derive(Clone, Copy, Debug)]
enum Kind {
    BusyBox,
    Rsyslogd,
    SyslogNg,
}

impl Kind {
    /// A daemon that takes this one's place.
    fn other(self) -> Self {
        match self {
            Self::BusyBox => Self::Rsyslogd,
            Self::Rsyslogd => Self::SyslogNg,
            Self::SyslogNg => Self::BusyBox,
        }
    }
}

/// How the daemon is told to read records.
#[derive(Clone, Copy, PartialEq)]
enum Reading {
    /// RFC 3164, as the daemon does by itself.
    Rfc3164,
    Rfc5424,
}

/// A running daemon.
struct Daemon {
    kind: Kind,
    child: Child,
    output: PathBuf,
}

impl Daemon {
    fn start(kind: Kind, directory: &Path) -> Self {
        Self::start_reading(kind, directory, Reading::Rfc3164)
    }

    fn start_reading(kind: Kind, directory: &Path, reading: Reading) -> Self {
        let socket = directory.join("log.sock");
        let output = directory.join(format!("messages-{kind:?}"));
        let mut command = match kind {
            Kind::BusyBox => busybox(&socket, &output),
            Kind::Rsyslogd => rsyslogd(directory, &socket, &output, reading),
            Kind::SyslogNg => syslog_ng(directory, &socket, &output, reading),
        };
        let errors = directory.join(format!("errors-{kind:?}"));
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&errors).unwrap())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        // From here on it is ended with the test, even if it never listens.
        let mut daemon = Self {
            kind,
            child,
            output,
        };
        eventually(&format!("{kind:?} listens"), || {
            if let Some(status) = daemon.child.try_wait().unwrap() {
                let errors = fs::read_to_string(&errors).unwrap();
                panic!("{command:?} ended with {status}: {errors}");
            }
            let probe = UnixDatagram::unbound().unwrap();
            probe.connect(&socket).ok()
        });
        daemon
    }

    fn stop(&mut self) {
        let _ = Command::new("kill")
            .arg(self.child.id().to_string())
            .status();
        let end = Instant::now() + SOON;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < end {
            thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// What it wrote, as `facility.severity tag message` lines.
    fn lines(&self) -> Vec<String> {
        let text = fs::read(&self.output).unwrap_or_default();
        String::from_utf8_lossy(&text)
            .lines()
            .map(|line| match self.kind {
                // Behind a time of 15 characters and the name of the host.
                Kind::BusyBox => line.get(16..).unwrap_or_default().split_once(' '),
                _ => Some(("", line)),
            })
            .map(|line| line.unwrap_or_default().1.to_owned())
            .collect()
    }

    fn wait_for(&self, text: &str) -> String {
        eventually(&format!("{text:?} in {}", self.output.display()), || {
            self.lines().into_iter().find(|line| line.contains(text))
        })
    }

    /// The daemon has just begun to listen again.
    fn wait_soon_for(&self, text: &str) {
        let start = Instant::now();
        self.wait_for(text);
        assert!(
            start.elapsed() < SOON,
            "{text:?} after {:?}",
            start.elapsed()
        );
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stop();
    }
}

fn rsyslogd(directory: &Path, socket: &Path, output: &Path, reading: Reading) -> Command {
    let (parser, template) = match reading {
        Reading::Rfc3164 => ("on", "%syslogtag%%msg%"),
        Reading::Rfc5424 => (
            "off",
            "%protocol-version% %app-name%[%procid%] %structured-data% %msg%",
        ),
    };
    let config = directory.join("rsyslog.conf");
    fs::write(
        &config,
        format!(
            r#"global(workDirectory={directory:?})
module(load="imuxsock" SysSock.Use="off")
input(type="imuxsock" Socket={socket:?} Unlink="on" RateLimit.Interval="0" UseSpecialParser="{parser}")
template(name="plain" type="string" string="%syslogfacility-text%.%syslogseverity-text% {template}\n")
action(type="omfile" file={output:?} template="plain")
"#
        ),
    )
    .unwrap();
    let mut command = Command::new("/usr/sbin/rsyslogd");
    command.args(["-n", "-f"]).arg(config);
    command.arg("-i").arg(directory.join("rsyslogd.pid"));
    command
}

/// Debian does not let syslog-ng be installed beside rsyslog: `scripts/test` unpacks it.
fn syslog_ng(directory: &Path, socket: &Path, output: &Path, reading: Reading) -> Command {
    let root = crate_file("../build/syslog-ng/usr");
    let libraries = root.join("lib/syslog-ng");
    let modules = fs::read_dir(&libraries)
        .unwrap_or_else(|error| panic!("{}: {error}; scripts/test puts it there", root.display()))
        .map(|entry| entry.unwrap().path())
        .find(|path| path.is_dir())
        .expect("a directory of modules");
    let (flags, template) = match reading {
        Reading::Rfc3164 => ("", "$MSGHDR$MSG"),
        Reading::Rfc5424 => ("flags(syslog-protocol)", "1 $PROGRAM[$PID] - $MSG"),
    };
    let config = directory.join("syslog-ng.conf");
    fs::write(
        &config,
        format!(
            r#"@version: 3.35
options {{ stats-freq(0); }};
source in {{ unix-dgram({socket:?} {flags}); }};
destination out {{ file({output:?} template("$FACILITY.$LEVEL {template}\n")); }};
log {{ source(in); destination(out); }};
"#
        ),
    )
    .unwrap();
    let mut command = Command::new(root.join("sbin/syslog-ng"));
    command
        .env("LD_LIBRARY_PATH", libraries)
        .args(["--foreground", "--no-caps", "--module-path"])
        .arg(modules);
    for (option, file) in [
        ("--cfgfile", "syslog-ng.conf"),
        ("--persist-file", "syslog-ng.persist"),
        ("--pidfile", "syslog-ng.pid"),
        ("--control", "syslog-ng.ctl"),
    ] {
        command.arg(option).arg(directory.join(file));
    }
    command
}

/// Its socket is /dev/log, or what that is a link to: it gets a /dev of its own, as an ordinary user's too, and a
/// /run for its pidfile.
fn busybox(socket: &Path, output: &Path) -> Command {
    let script = "mount -t tmpfs -o mode=0755 tmpfs /dev && mount -t tmpfs tmpfs /run && \
        ln -s \"$1\" /dev/log && exec busybox syslogd -n -O \"$2\"";
    let mut command = Command::new("unshare");
    command
        .args(["--map-root-user", "--mount", "sh", "-c", script, "sh"])
        .args([socket, output]);
    command
}

fn start_service(directory: TempDir, more: &str) -> Service {
    let socket = directory.path().join("log.sock");
    let config = format!("log.syslog.socket = {socket:?}\n{more}");
    let text = common::config_text(directory.path(), &config)
        .replace("log.syslog.enabled = false", "log.syslog.enabled = true");
    Service::start_with(directory, text, |_| {})
}

/// The counter of records that did not get to the daemon.
fn lost(service: &Service) -> usize {
    let metrics = service.get("/metrics");
    let line = metrics
        .text()
        .lines()
        .find_map(|line| line.strip_prefix("edgeweb_log_syslog_lost_total "))
        .map(str::to_owned);
    line.expect("the counter").parse().unwrap()
}

/// How many the log itself says were lost.
fn told(lines: &[String]) -> usize {
    lines
        .iter()
        .filter_map(|line| line.strip_suffix(" messages lost")?.rsplit(' ').next())
        .map(|number| number.parse::<usize>().unwrap())
        .sum()
}

/// Nobody has to wait for a daemon that does not read.
fn asks_many_times(service: &Service) {
    let start = Instant::now();
    for _ in 0..MANY {
        assert_eq!(service.get("/health").status, 200);
    }
    let elapsed = start.elapsed();
    assert!(elapsed < Duration::from_secs(60), "{elapsed:?}");
}

/// What arrived and what was lost is all that was written.
fn adds_up(service: &Service, mut lines: impl FnMut() -> Vec<String>) {
    eventually("what arrived and what was lost add up", || {
        let lines = lines();
        let arrived = lines
            .iter()
            .filter(|line| line.contains("127.0.0.1") && line.ends_with("GET /health 200"))
            .count();
        let told = told(&lines);
        (arrived > 100 && arrived + told >= MANY && told == lost(service)).then_some(())
    });
}

/// The tests with a daemon, in a module of its own for each, so that a device without it leaves all of them out.
macro_rules! with {
    ($module:ident, $kind:ident $(, $more:ident)*) => {
        mod $module {
            with! {
                @ $kind,
                records_arrive_with_facility_severity_and_tag,
                what_a_client_sends_cannot_forge_a_record,
                a_missing_daemon_neither_blocks_nor_kills_and_gets_the_records_when_it_comes,
                a_restarted_daemon_gets_the_records_of_the_time_between,
                a_daemon_that_takes_the_others_place_gets_the_records,
                a_deleted_socket_is_found_again,
                what_was_lost_is_counted_and_said,
                the_last_words_of_a_service_arrive,
                why_a_service_did_not_start_is_in_the_log
                $(, $more)*
            }
        }
    };
    (@ $kind:ident, $($test:ident),+) => {
        $(
            #[test]
            fn $test() {
                super::cases::$test(super::Kind::$kind);
            }
        )+
    };
}

with!(with_busybox, BusyBox);
with!(with_rsyslogd, Rsyslogd, rfc_5424_is_understood);
with!(with_syslog_ng, SyslogNg, rfc_5424_is_understood);

mod cases {
    use super::*;

    pub fn records_arrive_with_facility_severity_and_tag(kind: Kind) {
        let directory = TempDir::new();
        let daemon = Daemon::start(kind, directory.path());
        let more = "log.syslog.facility = \"local3\"\nlog.syslog.tag = \"pump\"";
        let service = start_service(directory, more);
        let line = daemon.wait_for("listening on http://");
        let expected = format!(
            "local3.info pump[{}]: listening on http://{}",
            service.pid(),
            service.address
        );
        assert_eq!(line, expected);
        service.get("/health");
        assert!(
            daemon
                .wait_for("GET /health 200")
                .starts_with("local3.debug pump[")
        );
    }

    pub fn what_a_client_sends_cannot_forge_a_record(kind: Kind) {
        let directory = TempDir::new();
        let daemon = Daemon::start(kind, directory.path());
        let service = start_service(directory, "");
        service.get("/%0a%3C0%3Eforged%1b");
        daemon.wait_for("GET /%0a%3C0%3Eforged%1b 404");
        let lines = daemon.lines();
        assert!(
            !lines.iter().any(|line| line.starts_with("kern.emerg")),
            "{lines:?}"
        );
    }

    pub fn a_missing_daemon_neither_blocks_nor_kills_and_gets_the_records_when_it_comes(
        kind: Kind,
    ) {
        let service = start_service(TempDir::new(), "");
        let start = Instant::now();
        for _ in 0..100 {
            assert_eq!(service.get("/health").status, 200);
        }
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "{:?}",
            start.elapsed()
        );
        let daemon = Daemon::start(kind, service.directory.path());
        daemon.wait_for("listening on http://");
        daemon.wait_for("GET /health 200");
    }

    pub fn a_restarted_daemon_gets_the_records_of_the_time_between(kind: Kind) {
        let directory = TempDir::new();
        let mut daemon = Daemon::start(kind, directory.path());
        let service = start_service(directory, "");
        daemon.wait_for("is ready");
        daemon.stop();
        assert_eq!(service.get("/between").status, 404);
        let daemon = Daemon::start(kind, service.directory.path());
        daemon.wait_soon_for("GET /between 404");
        assert_eq!(service.get("/after").status, 404);
        daemon.wait_soon_for("GET /after 404");
    }

    pub fn a_daemon_that_takes_the_others_place_gets_the_records(kind: Kind) {
        let directory = TempDir::new();
        let mut daemon = Daemon::start(kind, directory.path());
        let service = start_service(directory, "");
        daemon.wait_for("is ready");
        daemon.stop();
        assert_eq!(service.get("/between").status, 404);
        let other = Daemon::start(kind.other(), service.directory.path());
        other.wait_soon_for("GET /between 404");
        assert_eq!(service.get("/after").status, 404);
        other.wait_soon_for("GET /after 404");
    }

    pub fn a_deleted_socket_is_found_again(kind: Kind) {
        let directory = TempDir::new();
        let mut daemon = Daemon::start(kind, directory.path());
        let service = start_service(directory, "");
        daemon.wait_for("is ready");
        fs::remove_file(service.directory.path().join("log.sock")).unwrap();
        assert_eq!(service.get("/deleted").status, 404);
        daemon.wait_soon_for("GET /deleted 404");
        daemon.stop();
        assert_eq!(service.get("/between").status, 404);
        let daemon = Daemon::start(kind, service.directory.path());
        daemon.wait_soon_for("GET /between 404");
    }

    pub fn rfc_5424_is_understood(kind: Kind) {
        let directory = TempDir::new();
        let daemon = Daemon::start_reading(kind, directory.path(), Reading::Rfc5424);
        let more = "log.syslog.format = \"rfc5424\"\nlog.syslog.facility = \"local3\"\nlog.syslog.tag = \"pump\"";
        let service = start_service(directory, more);
        let line = daemon.wait_for("listening on http://");
        let expected = format!(
            "local3.info 1 pump[{}] - listening on http://{}",
            service.pid(),
            service.address
        );
        assert_eq!(line, expected);
    }

    pub fn what_was_lost_is_counted_and_said(kind: Kind) {
        let service = start_service(TempDir::new(), "");
        asks_many_times(&service);
        let daemon = Daemon::start(kind, service.directory.path());
        let line = daemon.wait_for("messages lost");
        // BusyBox: warn; the others: warning.
        assert!(line.starts_with("daemon.warn"), "{line}");
        adds_up(&service, || daemon.lines());
    }

    pub fn the_last_words_of_a_service_arrive(kind: Kind) {
        let directory = TempDir::new();
        let daemon = Daemon::start(kind, directory.path());
        let mut service = start_service(directory, "");
        service.signal("TERM");
        assert!(service.wait().success());
        daemon.wait_for("SIGTERM: stopping");
        daemon.wait_for("stopped");
    }

    pub fn why_a_service_did_not_start_is_in_the_log(kind: Kind) {
        let directory = TempDir::new();
        let daemon = Daemon::start(kind, directory.path());
        let busy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = busy.local_addr().unwrap().port();
        let socket = directory.path().join("log.sock");
        let text =
            common::config_text(directory.path(), &format!("log.syslog.socket = {socket:?}"))
                .replace("log.syslog.enabled = false", "log.syslog.enabled = true")
                .replace("http.port = 0", &format!("http.port = {port}"))
                .replace("\"always\"", "\"never\"");
        let config = directory.write("edgeweb.toml", text);
        let output = common::run(common::edgeweb().args(["serve", "--config"]).arg(config));
        assert_eq!(output.status.code(), Some(1));
        assert!(
            daemon
                .wait_for("not started: ")
                .starts_with("daemon.err edgeweb[")
        );
    }
}

/// A socket that is bound, and nobody reads it for a while.
#[test]
fn a_stuck_daemon_delays_no_request_and_learns_what_it_missed() {
    let directory = TempDir::new();
    let stuck = UnixDatagram::bind(directory.path().join("log.sock")).unwrap();
    let service = start_service(directory, "");
    asks_many_times(&service);
    assert!(lost(&service) > 0);
    stuck.set_nonblocking(true).unwrap();
    let mut lines = Vec::new();
    adds_up(&service, || {
        let mut line = [0; 8192];
        while let Ok(length) = stuck.recv(&mut line) {
            lines.push(String::from_utf8_lossy(&line[..length]).into_owned());
        }
        lines.clone()
    });
}
