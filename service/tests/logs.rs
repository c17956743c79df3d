//! The log as an operator reads it: over the API, with the command, and after a crash.

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{Answer, PATIENCE, Service, TempDir, edgeweb, eventually, run};
use edgeweb::control;
use serde_json::Value;

/// Asks over the device's own socket, which may read what users may.
fn ask(service: &Service, path: &str) -> (u16, Value) {
    let (status, body) = control::get(&control_socket(service), path, PATIENCE).unwrap();
    (status, serde_json::from_str(&body).unwrap())
}

fn control_socket(service: &Service) -> PathBuf {
    service.directory.path().join("run/edgeweb.sock")
}

fn entries(service: &Service, query: &str) -> Vec<Value> {
    let (status, body) = ask(service, &format!("/api/user/logs{query}"));
    assert_eq!(status, 200, "{body}");
    body["entries"].as_array().unwrap().clone()
}

fn messages(service: &Service, query: &str) -> Vec<String> {
    let entries = entries(service, query);
    let text = |entry: &Value| entry["message"].as_str().unwrap().to_owned();
    entries.iter().map(text).collect()
}

/// Says something as another program of the device does.
fn say(service: &Service, datagram: impl AsRef<[u8]>) {
    let socket = UnixDatagram::unbound().unwrap();
    let path = service.directory.path().join("run/log.sock");
    socket.send_to(datagram.as_ref(), path).unwrap();
}

fn wait_for(service: &Service, query: &str, text: &str) -> Value {
    eventually(&format!("{text:?} in the log"), || {
        entries(service, query)
            .into_iter()
            .find(|entry| entry["message"].as_str().unwrap().contains(text))
    })
}

/// Waits until the journal has `records`, said since the service was started.
fn wait_for_journal(service: &Service, records: u64) {
    eventually("the journal has them", || {
        (metric(service, "edgeweb_log_journal_records_total") >= records).then_some(())
    });
}

/// The value of a metric, by its name with its labels.
fn metric(service: &Service, name: &str) -> u64 {
    let answer = service.get("/metrics");
    let line = answer
        .text()
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} in {}", answer.text()))
        .parse()
        .unwrap()
}

/// `edgeweb logs` with options: status, standard output, standard error.
fn logs(config: &Path, options: &[&str]) -> (i32, String, String) {
    let output = run(edgeweb()
        .arg("logs")
        .args(options)
        .arg("--config")
        .arg(config));
    (
        output.status.code().unwrap(),
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

#[test]
fn the_newest_records_are_there_by_severity_target_time_and_number() {
    let service = Service::start("");
    say(&service, "<11>pump[42]: it stopped");
    say(&service, "<12>pump: it is warm");
    say(&service, "<14>valve: it is shut");
    let stopped = wait_for(&service, "", "it stopped");
    assert_eq!(stopped["severity"], "error");
    assert_eq!(stopped["target"], "pump");
    assert_eq!(stopped["pid"], 42);
    wait_for(&service, "", "it is shut");

    assert_eq!(messages(&service, "?severity=error"), ["it stopped"]);
    assert_eq!(messages(&service, "?severity=err"), ["it stopped"]);
    let warm = ["it stopped", "it is warm"];
    assert_eq!(messages(&service, "?severity=warning&target=pump"), warm);
    assert_eq!(messages(&service, "?target=pum"), [""; 0]);
    let own = messages(&service, "?target=edgeweb&severity=info&limit=1000");
    assert!(own.iter().any(|text| text.starts_with("listening on")));
    assert!(!own.iter().any(|text| text == "it stopped"));
    assert_eq!(
        messages(&service, "?severity=warning&limit=1"),
        ["it is warm"]
    );

    let time = stopped["time"].as_str().unwrap().to_owned();
    assert!(time.ends_with('Z') && time.contains('T'), "{time}");
    let since = format!("?target=pump&since={}", time.replace('+', "%2B"));
    assert_eq!(messages(&service, &since), warm);
    assert_eq!(
        messages(&service, "?since=2999-01-01T00:00:00%2B01:00"),
        [""; 0]
    );
    assert!(stopped["uptime"].as_f64().unwrap() > 0.0);
}

#[test]
fn a_question_that_is_wrong_is_answered_with_the_reason() {
    let service = Service::start("");
    for query in ["?boot=0", "?limit=1"] {
        let (status, body) = ask(&service, &format!("/api/user/logs/stream{query}"));
        assert_eq!(
            status, 400,
            "the stream has neither an end nor a past: {body}"
        );
    }
    for (query, said) in [
        ("?severity=bad", "bad"),
        ("?limit=0", "limit: 0 is not in 1 to 1000"),
        ("?limit=1001", "limit"),
        ("?limit=-1", "digit"),
        ("?since=yesterday", "since: \"yesterday\" is no time"),
        ("?boot=1", "boot: 0 is this boot"),
        ("?colour=red", "colour"),
    ] {
        for path in ["/api/user/logs", "/api/user/logs/stream"] {
            let (status, body) = ask(&service, &format!("{path}{query}"));
            assert_eq!(status, 400, "{query}: {body}");
            let knows =
                !path.ends_with("stream") || !(query.contains("boot") || query.contains("limit"));
            assert!(
                !knows || body["detail"].as_str().unwrap().contains(said),
                "{body}"
            );
        }
    }
    let (status, body) = ask(&service, "/api/user/logs?boot=-1");
    assert_eq!(status, 404, "{body}");
}

#[test]
fn who_is_not_logged_in_reads_the_log_over_the_devices_own_socket_only() {
    let service = Service::start("");
    for path in [
        "/api/user/logs",
        "/api/user/logs/stream",
        "/api/user/logs?boot=0",
    ] {
        service.get(path).is_problem(401);
    }
    assert_eq!(ask(&service, "/api/admin/logs").0, 403);
    assert_eq!(ask(&service, "/api/user/nothing").0, 404);
}

/// A stream of server-sent events.
struct Events(BufReader<UnixStream>);

impl Events {
    fn open(service: &Service, query: &str, last_id: &str) -> Self {
        use std::io::Write;
        let mut stream = UnixStream::connect(control_socket(service)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(
            stream,
            "GET /api/user/logs/stream{query} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nlast-event-id: {last_id}\r\n\r\n"
        )
        .unwrap();
        Self(BufReader::new(stream))
    }

    /// The next line that begins with `start`, without it.
    fn line(&mut self, start: &str) -> Option<String> {
        let mut line = String::new();
        let end = Instant::now() + PATIENCE;
        while self.0.read_line(&mut line).unwrap() > 0 {
            // What keeps the stream alive keeps the read from timing out.
            assert!(Instant::now() < end, "no line that begins with {start:?}");
            if let Some(rest) = line.trim_end().strip_prefix(start) {
                return Some(rest.to_owned());
            }
            line.clear();
        }
        None
    }

    fn message(&mut self) -> String {
        let data = self.line("data: ").expect("an event");
        let value: Value = serde_json::from_str(&data).unwrap();
        value["message"].as_str().unwrap().to_owned()
    }
}

#[test]
fn a_reader_sees_records_as_they_come_and_goes_on_after_the_last_one_seen() {
    let service = Service::start("");
    say(&service, "<12>pump: before");
    wait_for(&service, "", "before");
    let mut events = Events::open(&service, "?target=pump", "");
    eventually("the reader is there", || {
        (metric(&service, "edgeweb_log_stream_readers") == 1).then_some(())
    });
    say(&service, "<12>valve: somebody else");
    say(&service, "<12>pump: first");
    let id = events.line("id: ").unwrap();
    assert_eq!(events.message(), "first");
    say(&service, "<12>pump: second");
    assert_eq!(events.message(), "second");
    drop(events);
    let mut events = Events::open(&service, "?target=pump", &id);
    assert_eq!(events.message(), "second");
    // Of another start of the program: all that is there is new.
    let mut events = Events::open(&service, "?target=pump", "0123456789abcdef-999999");
    assert_eq!(events.message(), "before");
}

#[test]
fn a_stop_ends_the_streams_at_once() {
    let mut service = Service::start("server.drain_seconds = 600");
    let mut events = Events::open(&service, "?target=pump", "");
    events.line("retry: ").unwrap();
    service.signal("TERM");
    assert!(service.wait().success());
    assert_eq!(events.line("data: "), None);
}

#[test]
fn more_readers_than_allowed_are_refused_and_counted() {
    let service = Service::start("log.recent.max_readers = 2");
    let mut first = Events::open(&service, "", "");
    let mut second = Events::open(&service, "", "");
    first.line("retry: ").unwrap();
    second.line("retry: ").unwrap();
    let (status, body) = ask(&service, "/api/user/logs/stream");
    assert_eq!(status, 503, "{body}");
    assert!(body["detail"].as_str().unwrap().contains("max_readers"));
    assert_eq!(
        metric(&service, "edgeweb_log_stream_readers_refused_total"),
        1
    );
    drop(first);
    eventually("a place is free again", || {
        (metric(&service, "edgeweb_log_stream_readers") == 1).then_some(())
    });
    let mut third = Events::open(&service, "", "");
    third.line("retry: ").unwrap();
}

#[test]
fn a_slow_reader_is_dropped_and_nobody_waits_for_it() {
    let service = Service::start("log.recent.max_bytes = 16384");
    let mut slow = Events::open(&service, "?target=pump", "");
    slow.line("retry: ").unwrap();
    let text = "x".repeat(1000);
    // More than the socket's buffers and the ring hold together.
    for _ in 0..3000 {
        say(&service, format!("<14>pump: {text}"));
    }
    eventually("the reader is dropped", || {
        (metric(&service, "edgeweb_log_stream_readers_dropped_total") == 1).then_some(())
    });
    let mut rest = String::new();
    slow.0.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("event: too-slow"));
    assert_eq!(metric(&service, "edgeweb_log_stream_readers"), 0);
}

#[test]
fn a_reader_that_comes_back_too_late_is_told_that_something_is_missing() {
    let service = Service::start("log.recent.max_bytes = 16384");
    let mut events = Events::open(&service, "?target=pump", "");
    events.line("retry: ").unwrap();
    say(&service, "<14>pump: seen");
    let id = events.line("id: ").unwrap();
    let mut events = Events::open(&service, "?target=pump", &id);
    say(&service, "<14>pump: next");
    assert_eq!(events.message(), "next", "nothing is missing yet");
    for number in 0..200 {
        say(&service, format!("<14>pump: {number} {}", "x".repeat(500)));
    }
    wait_for(&service, "?target=pump", "199 ");
    let mut events = Events::open(&service, "?target=pump", &id);
    assert_eq!(events.line("event: ").as_deref(), Some("missed"));
    let said = events.line("data: ").unwrap();
    assert!(said.contains("no longer there"), "{said}");
    assert!(events.message().contains(" xxx"));
}

#[test]
fn memory_is_bounded_and_the_oldest_go_first() {
    let service = Service::start("log.recent.max_bytes = 16384");
    for number in 0..200 {
        say(&service, format!("<14>pump: {number} {}", "x".repeat(500)));
    }
    wait_for(&service, "?target=pump", "199 ");
    let kept = messages(&service, "?target=pump&limit=1000");
    assert!((10..=32).contains(&kept.len()), "{}", kept.len());
    assert!(kept.last().unwrap().starts_with("199 "));
}

#[test]
fn errors_outlive_a_crash_and_a_reboot() {
    let directory = {
        let mut service = Service::start("");
        say(&service, "<11>pump[42]: it stopped");
        say(&service, "<14>pump[42]: nothing to see");
        wait_for(&service, "", "nothing to see");
        wait_for_journal(&service, 1);
        service.signal("KILL");
        service.wait();
        service.into_directory()
    };
    let config = directory.path().join("edgeweb.toml");
    // Nobody runs: the journal is read.
    let (status, out, error) = logs(&config, &[]);
    assert_eq!((status, error.as_str()), (0, ""));
    assert!(out.ends_with(" error     pump[42]: it stopped\n"), "{out}");
    assert_eq!(out.lines().count(), 1);
    assert_eq!(logs(&config, &["--boot", "-1"]).0, 1);

    make_it_another_boots(&directory.path().join("journal"));
    let (_, out, _) = logs(&config, &[]);
    assert_eq!(out, "");
    let (status, out, _) = logs(&config, &["--boot", "-1", "--json"]);
    assert_eq!(status, 0);
    let line: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(line["message"], "it stopped");

    let service = Service::start_in(directory, "", |_| {});
    say(&service, "<11>pump[43]: it stopped again");
    wait_for_journal(&service, 1);
    assert_eq!(messages(&service, "?boot=-1"), ["it stopped"]);
    assert_eq!(messages(&service, "?boot=0"), ["it stopped again"]);
    let config = service.config();
    let (_, out, _) = logs(&config, &["-b", "-1"]);
    assert!(out.contains("pump[42]: it stopped"), "{out}");
    let (_, out, _) = logs(&config, &["--severity", "error", "--target", "pump"]);
    assert!(out.contains("pump[43]: it stopped again"), "{out}");
    let (status, _, error) = logs(&config, &["--boot", "-2"]);
    assert_eq!(status, 1);
    assert!(
        error.contains("the journal has no boot -2; it has records of 2 boots"),
        "{error}"
    );
}

/// Changes the boot id in every segment, as if the device had been started again since.
fn make_it_another_boots(journal: &Path) {
    let castagnoli = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI);
    for entry in fs::read_dir(journal).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "seg") {
            let mut bytes = fs::read(&path).unwrap();
            bytes[12..28].fill(0x42);
            let sum = castagnoli.checksum(&bytes[..76]).to_le_bytes();
            bytes[76..80].copy_from_slice(&sum);
            fs::write(path, bytes).unwrap();
        }
    }
}

#[test]
fn a_journal_that_cannot_be_written_is_said_once_and_written_when_it_can() {
    let directory = TempDir::new();
    let blocked = directory.write("journal", "a file is in the way");
    let service = Service::start_in(directory, "", |_| {});
    service.wait_for_log("the journal cannot be written");
    say(&service, "<11>pump: it stopped");
    wait_for(&service, "", "it stopped");
    assert_eq!(metric(&service, "edgeweb_log_journal_up"), 0);
    assert!(metric(&service, "edgeweb_log_journal_errors_total") > 0);
    fs::remove_file(blocked).unwrap();
    service.wait_for_log("the journal is written again; 0 records did not get into it");
    assert_eq!(metric(&service, "edgeweb_log_journal_up"), 1);
    assert_eq!(messages(&service, "?boot=0"), ["it stopped"]);
    assert_eq!(
        service
            .log()
            .matches("the journal cannot be written")
            .count(),
        1
    );
}

#[test]
fn a_torn_end_is_cut_off_and_reported() {
    let directory = {
        let mut service = Service::start("");
        say(&service, "<10>pump: it stopped");
        wait_for_journal(&service, 1);
        service.signal("KILL");
        service.wait();
        service.into_directory()
    };
    let segment = directory.path().join("journal/0000000000000001.seg");
    let mut bytes = fs::read(&segment).unwrap();
    let whole = bytes.len();
    bytes.extend_from_slice(&bytes.clone()[80..100]);
    fs::write(&segment, bytes).unwrap();
    let service = Service::start_in(directory, "", |_| {});
    service.wait_for_log("20 bytes at the end of segment 1 were cut off");
    assert_eq!(fs::metadata(segment).unwrap().len(), whole as u64);
    assert_eq!(metric(&service, "edgeweb_log_journal_torn_bytes_total"), 20);
    assert_eq!(messages(&service, "?boot=0"), ["it stopped"]);
}

#[test]
fn the_counters_add_up() {
    let service = Service::start("");
    for _ in 0..200 {
        say(&service, "<14>pump: working");
        say(&service, "<11>pump: failing");
    }
    wait_for(&service, "", "failing");
    eventually("all are counted", || {
        let sum = |name: &str| -> Vec<u64> {
            ["info", "error"]
                .map(|severity| metric(&service, &format!("{name}{{severity=\"{severity}\"}}")))
                .into()
        };
        let produced = sum("edgeweb_log_records_total");
        let handled = sum("edgeweb_log_records_handled_total");
        let dropped = sum("edgeweb_log_records_dropped_total");
        let adds_up = (0..2).all(|at| produced[at] == handled[at] + dropped[at]);
        (adds_up && produced[0] >= 200 && produced[1] == 200).then_some(())
    });
    wait_for_journal(&service, 200);
    assert_eq!(metric(&service, "edgeweb_log_journal_records_total"), 200);
    // Every metric is explained and of a kind.
    let answer = service.get("/metrics");
    assert_eq!(
        answer.header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    for line in answer.text().lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap();
        for head in ["HELP", "TYPE"] {
            assert!(
                answer.text().contains(&format!("# {head} {name} ")),
                "{line}"
            );
        }
    }
}

#[test]
fn the_command_follows_the_log_over_a_reload_and_a_restart() {
    // A reload cuts off at once what the old configuration serves.
    let mut service = Service::start("server.drain_seconds = 0");
    say(&service, "<11>pump: before");
    wait_for(&service, "", "before");
    let mut child = edgeweb()
        .args(["logs", "--follow", "--target", "pump", "--config"])
        .arg(service.config())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(
        lines
            .next()
            .unwrap()
            .unwrap()
            .ends_with("error     pump: before")
    );
    say(&service, "<12>pump: \x1b[31mafter");
    let line = lines.next().unwrap().unwrap();
    assert!(line.ends_with("warning   pump: \\u{1b}[31mafter"), "{line}");
    service.signal("HUP");
    service.wait_for_log("the new configuration is in force");
    say(&service, "<12>pump: after the reload");
    let line = lines.next().unwrap().unwrap();
    assert!(line.ends_with("pump: after the reload"), "{line}");
    service.signal("TERM");
    assert!(service.wait().success());
    // It looks for the service and does not find it, more than once.
    std::thread::sleep(Duration::from_millis(700));
    let service = Service::start_in(service.into_directory(), "", |_| {});
    say(&service, "<12>pump: after the restart");
    let line = lines.next().unwrap().unwrap();
    assert!(line.ends_with("pump: after the restart"), "{line}");
    service.signal("TERM");
    let status = eventually("the command ends with the service", || {
        child.try_wait().unwrap()
    });
    assert_eq!(status.code(), Some(1));
    let mut error = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut error)
        .unwrap();
    assert_eq!(error, "edgeweb: the service has stopped\n");
}

#[test]
fn wrong_use_of_the_command_is_one_line_and_status_2() {
    let directory = TempDir::new();
    let config = directory.write("edgeweb.toml", common::config_text(directory.path(), ""));
    for (options, said) in [
        (&["--boot", "1"][..], "--boot 0 is this boot"),
        (&["--boot", "x"], "invalid digit"),
        (&["--severity", "bad"], "\"bad\" is no severity"),
        (&["--since", "now"], "\"now\" is no time"),
        (&["--limit", "0"], "--limit is not in 1 to 1000"),
        (&["--follow", "--boot", "-1"], "leave --boot out"),
        (&["--identity", "x"], "--identity is for logs decrypt"),
        (&["decrypt"], "decrypt wants --identity FILE"),
        (&["keygen"], "keygen wants one FILE"),
        (&["extra"], "extra"),
    ] {
        let (status, out, error) = logs(&config, options);
        assert_eq!((status, out.as_str()), (2, ""), "{options:?}");
        assert!(error.contains(said), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

/// What must not be in any log: the tokens and passwords that the requests below carry.
#[test]
fn no_secret_of_a_request_gets_into_any_log_and_those_of_other_programs_are_masked() {
    let secret = "s3cr3t-zQ8vT1";
    let directory = TempDir::new();
    let journal = directory.path().join("journal");
    let service = Service::start_in(directory, "log.journal.severity = \"debug\"", |command| {
        command.env("RUST_LOG", "trace");
    });
    let body = format!("{{\"username\":\"ann\",\"password\":\"{secret}\"}}");
    let bearer = format!("Bearer {secret}");
    let cookie = format!("session={secret}");
    let headers = [
        ("authorization", bearer.as_str()),
        ("cookie", &cookie),
        ("content-type", "application/json"),
    ];
    let send = |address: SocketAddr, method: &str, path: &str| -> Answer {
        common::request(address, method, path, &headers, body.as_bytes())
    };
    for path in ["/api/public/session", "/api/user/logs", "/api/admin/config"] {
        for query in [String::new(), format!("?token={secret}&password={secret}")] {
            for method in ["POST", "PUT", "GET"] {
                send(service.address, method, &format!("{path}{query}"));
            }
        }
    }
    say(
        &service,
        format!("<11>pump: login with password={secret} failed"),
    );
    say(
        &service,
        format!("<11>pump: Authorization: Bearer {secret}"),
    );
    say(&service, format!("<11>pump: mqtt://ann:{secret}@broker"));
    wait_for(&service, "", "mqtt://ann:***@broker");
    wait_for(&service, "", "password=*** failed");
    let written = serde_json::to_string(&entries(&service, "?limit=1000")).unwrap();
    assert!(written.contains("/api/admin/config"));
    assert!(!written.contains(secret), "{written}");
    assert!(!service.log().contains(secret), "{}", service.log());
    wait_for_journal(&service, 20);
    for entry in fs::read_dir(journal).unwrap() {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains(secret));
    }
}

#[test]
fn text_that_would_forge_records_is_written_out() {
    let service = Service::start("");
    say(
        &service,
        "<14>pump: one\nERROR forged: two\u{1b}[2J\u{202e}\r\u{9b}3",
    );
    say(&service, b"<14>pump: not utf-8 \xff\xfe end");
    let entry = wait_for(&service, "", "forged");
    assert_eq!(
        entry["message"],
        "one\\nERROR forged: two\\u{1b}[2J\\u{202e}\\r\\u{9b}3"
    );
    wait_for(&service, "", "not utf-8 \u{fffd}\u{fffd} end");
    assert!(
        !service
            .log()
            .lines()
            .any(|line| line.starts_with("ERROR forged"))
    );
    let (_, out, _) = logs(&service.config(), &["--target", "pump"]);
    assert_eq!(out.lines().count(), 2);
}

#[cfg(feature = "seal")]
#[test]
fn a_sealed_journal_is_read_by_its_maker_only() {
    let maker = TempDir::new();
    let identity = maker.path().join("identity");
    let identity = identity.to_str().unwrap();
    let keygen = |file: &str| run(edgeweb().args(["logs", "keygen", file]));
    let output = keygen(identity);
    assert!(output.status.success());
    let recipient = String::from_utf8(output.stdout).unwrap();
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&fs::metadata(identity).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(
        keygen(identity).status.code(),
        Some(1),
        "nothing is overwritten"
    );
    let other = maker.path().join("other");
    assert!(keygen(other.to_str().unwrap()).status.success());

    let mut service = Service::start(&format!("log.journal.recipient = {:?}", recipient.trim()));
    say(&service, "<10>pump: it stopped");
    wait_for_journal(&service, 1);
    let (status, body) = ask(&service, "/api/user/logs?boot=0");
    assert_eq!(status, 409, "{body}");
    service.signal("KILL");
    service.wait();
    let journal = service.directory.path().join("journal");
    for entry in fs::read_dir(&journal).unwrap() {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains("stopped") && !text.contains("pump"));
    }
    let config = service.config();
    let (status, _, error) = logs(&config, &[]);
    assert_eq!(status, 1);
    assert!(error.contains("the journal is sealed"), "{error}");
    let (status, out, error) = logs(&config, &["decrypt", "--identity", identity]);
    assert_eq!((status, error.as_str()), (0, ""));
    assert!(
        out.starts_with("-- boot ") && out.contains("critical  pump: it stopped"),
        "{out}"
    );
    let (status, out, error) = logs(&config, &["decrypt", "--identity", other.to_str().unwrap()]);
    assert_eq!((status, out.as_str()), (1, ""));
    assert!(
        error.contains("the identity does not open these records"),
        "{error}"
    );
    let mut wrong = edgeweb();
    let wrong = wrong
        .args(["check-config", "--config"])
        .arg(maker.write("wrong.toml", "log.journal.recipient = \"not a key\""));
    let output = run(wrong);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("log.journal.recipient: ")
    );
}

#[test]
fn a_reload_keeps_the_records_and_takes_the_new_bounds() {
    let service = Service::start("");
    say(&service, "<11>pump: before");
    wait_for(&service, "", "before");
    let moved = service.directory.path().join("elsewhere");
    service.write_config(
        "log.recent.max_bytes = 65536\nlog.buffer_bytes = 65536\nlog.filter = \"info,pump=off\"",
    );
    let text = fs::read_to_string(service.config()).unwrap();
    let old = service.directory.path().join("journal");
    let text = text.replace(&format!("{old:?}"), &format!("{moved:?}"));
    let text = text.replacen(
        "log.filter = \"debug,actix_server=warn,rustls=info,h2=info\"\n",
        "",
        1,
    );
    fs::write(service.config(), text).unwrap();
    service.signal("HUP");
    service.wait_for_log("the new configuration is in force");
    wait_for(&service, "", "before");
    say(&service, "<11>pump: the filter has me");
    say(&service, "<11>valve: after");
    wait_for(&service, "", "after");
    assert_eq!(messages(&service, "?severity=error"), ["before", "after"]);
    assert_eq!(messages(&service, "?boot=0"), ["after"]);
    assert!(moved.join("0000000000000001.seg").exists());
}

#[test]
fn a_reader_that_is_sent_much_gets_each_record_once() {
    let service = Service::start("");
    for number in 0..100 {
        say(
            &service,
            format!("<14>pump: {number:03} {}", "x".repeat(500)),
        );
    }
    wait_for(&service, "?target=pump", "099 ");
    let mut events = Events::open(&service, "?target=pump", "0123456789abcdef-1");
    for number in 0..100 {
        let message = events.message();
        assert!(message.starts_with(&format!("{number:03} ")), "{message}");
    }
}

#[test]
fn a_journal_that_is_removed_is_begun_again_and_nothing_critical_is_said_to_be_in_the_old_one() {
    let service = Service::start("");
    let journal = service.directory.path().join("journal");
    say(&service, "<10>pump: first");
    wait_for_journal(&service, 1);
    fs::remove_dir_all(&journal).unwrap();
    say(&service, "<10>pump: second");
    service.wait_for_log("the journal is written again; 0 records did not get into it");
    assert_eq!(messages(&service, "?boot=0"), ["second"]);
    // It is this process's as before.
    let lock = fs::File::open(journal.join("lock")).unwrap();
    assert!(lock.try_lock().is_err());
}

#[test]
fn a_segment_that_cannot_be_read_is_counted_and_the_rest_goes_on() {
    let directory = TempDir::new();
    // Reading a directory fails as reading a bad block does.
    fs::create_dir_all(directory.path().join("journal/0000000000000001.seg")).unwrap();
    let mut service = Service::start_in(directory, "", |_| {});
    say(&service, "<10>pump: it stopped");
    wait_for_journal(&service, 1);
    assert_eq!(metric(&service, "edgeweb_log_journal_damaged_total"), 1);
    assert_eq!(messages(&service, "?boot=0"), ["it stopped"]);
    service.signal("KILL");
    service.wait();
    let (status, out, error) = logs(&service.config(), &[]);
    assert_eq!((status, error.as_str()), (0, ""));
    assert!(out.ends_with("pump: it stopped\n"), "{out}");
}

#[test]
fn what_the_old_journal_could_not_take_goes_into_the_new_one() {
    let directory = TempDir::new();
    directory.write("journal", "a file is in the way");
    let service = Service::start_in(directory, "", |_| {});
    say(&service, "<11>pump: it stopped");
    wait_for(&service, "", "it stopped");
    let [old, new] = ["journal", "elsewhere"].map(|name| service.directory.path().join(name));
    let text = fs::read_to_string(service.config()).unwrap();
    fs::write(
        service.config(),
        text.replace(&format!("{old:?}"), &format!("{new:?}")),
    )
    .unwrap();
    service.signal("HUP");
    service.wait_for_log("the new configuration is in force");
    assert_eq!(messages(&service, "?boot=0"), ["it stopped"]);
}

#[test]
fn at_its_end_the_service_tries_a_failed_journal_once_more() {
    let directory = TempDir::new();
    let blocked = directory.write("journal", "a file is in the way");
    let mut service = Service::start_in(directory, "", |_| {});
    say(&service, "<11>pump: it stopped");
    // The next attempt is 4 s away.
    eventually("it was tried again", || {
        (metric(&service, "edgeweb_log_journal_errors_total") >= 3).then_some(())
    });
    fs::remove_file(blocked).unwrap();
    service.signal("TERM");
    assert!(service.wait().success());
    let (status, out, error) = logs(&service.config(), &[]);
    assert_eq!((status, error.as_str()), (0, ""));
    assert!(out.ends_with("pump: it stopped\n"), "{out}");
}

#[test]
fn a_journal_from_elsewhere_does_nothing_to_the_terminal() {
    let mut service = Service::start("");
    say(&service, "<10>abcd: __1__2__");
    wait_for_journal(&service, 1);
    service.signal("KILL");
    service.wait();
    let segment = service
        .directory
        .path()
        .join("journal/0000000000000001.seg");
    let mut bytes = fs::read(&segment).unwrap();
    let record = bytes[92..].to_vec();
    let at = record.windows(4).position(|four| four == b"abcd").unwrap() + 92;
    bytes[at..at + 4].copy_from_slice(b"\x1b[2J");
    bytes[at + 6..at + 9].copy_from_slice("\u{202e}".as_bytes());
    let castagnoli = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI);
    let mut digest = castagnoli.digest();
    digest.update(&1_u64.to_le_bytes());
    digest.update(&bytes[84..88]);
    digest.update(&bytes[92..]);
    bytes[88..92].copy_from_slice(&digest.finalize().to_le_bytes());
    fs::write(&segment, bytes).unwrap();
    for options in [&[][..], &["--json"]] {
        let (status, out, error) = logs(&service.config(), options);
        assert_eq!((status, error.as_str()), (0, ""));
        assert!(out.contains("[2J"), "{out:?}");
        assert!(!out.contains(['\x1b', '\u{202e}']), "{out:?}");
    }
}

#[cfg(feature = "seal")]
#[test]
fn whoever_closes_the_output_of_decrypt_has_read_enough() {
    let maker = TempDir::new();
    let identity = maker.path().join("identity");
    let keygen = run(edgeweb().args(["logs", "keygen"]).arg(&identity));
    let recipient = String::from_utf8(keygen.stdout).unwrap();
    let mut service = Service::start(&format!("log.journal.recipient = {:?}", recipient.trim()));
    say(&service, "<10>pump: it stopped");
    wait_for_journal(&service, 1);
    service.signal("KILL");
    service.wait();
    for json in [&[][..], &["--json"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = edgeweb()
            .args(["logs", "decrypt", "--identity"])
            .arg(&identity)
            .args(json)
            .arg("--config")
            .arg(service.config())
            .stdout(writer)
            .output()
            .unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), error.as_str()), (Some(0), ""));
    }
}

#[test]
fn errors_of_other_programs_wait_for_room() {
    let directory = TempDir::new();
    let text = common::config_text(directory.path(), "log.buffer_bytes = 16384");
    let text = text.replace("log.stderr = \"always\"", "log.stderr = \"never\"");
    let service = Service::start_with(directory, text, |_| {});
    let path = service.directory.path().join("run/log.sock");
    let text = format!("<11>pump: {}", "x".repeat(1500));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let socket = UnixDatagram::unbound().unwrap();
                (0..2000).for_each(|_| {
                    socket.send_to(text.as_bytes(), &path).unwrap();
                });
            });
        }
    });
    eventually("all are there", || {
        let produced = metric(&service, "edgeweb_log_records_total{severity=\"error\"}");
        (produced >= 8000).then_some(())
    });
    let dropped = "edgeweb_log_records_dropped_total{severity=\"error\"}";
    assert_eq!(metric(&service, dropped), 0);
}

#[test]
fn an_identity_that_cannot_be_written_is_not_left_half() {
    let directory = TempDir::new();
    let file = directory.path().join("identity");
    let mut shell = std::process::Command::new("sh");
    let output = run(shell
        .args([
            "-c",
            "trap '' XFSZ; ulimit -f 0; exec \"$0\" logs keygen \"$1\"",
        ])
        .arg(common::program())
        .arg(&file));
    assert_eq!(output.status.code(), Some(1));
    assert!(!file.exists());
}

#[test]
fn who_asks_for_the_streams_header_only_takes_no_place() {
    use std::io::Write;
    let service = Service::start("log.recent.max_readers = 1");
    let mut connection = UnixStream::connect(control_socket(&service)).unwrap();
    connection.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = "HEAD /api/user/logs/stream HTTP/1.1\r\nhost: x\r\n";
    write!(connection, "{head}\r\n{head}connection: close\r\n\r\n").unwrap();
    let mut answers = String::new();
    connection.read_to_string(&mut answers).unwrap();
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 2, "{answers}");
    assert_eq!(answers.matches("text/event-stream").count(), 2, "{answers}");
    assert_eq!(metric(&service, "edgeweb_log_stream_readers"), 0);
}

#[test]
fn a_reader_that_knows_no_chunks_gets_none() {
    let service = Service::start("");
    let target = "/api/user/logs/stream";
    let (status, body) = control::open(&control_socket(&service), target, None, PATIENCE).unwrap();
    assert_eq!(status, 200);
    let mut lines = body.lines();
    assert_eq!(lines.next().unwrap().unwrap(), "retry: 2000");
    assert_eq!(lines.next().unwrap().unwrap(), "");
    say(&service, "<12>pump: it is warm");
    let line = lines.next().unwrap().unwrap();
    assert!(line.starts_with("id: "), "{line}");
}

#[cfg(feature = "syslog")]
#[test]
fn what_waited_for_a_daemon_that_is_no_longer_wanted_is_counted_as_lost() {
    let directory = TempDir::new();
    let nobody = directory.path().join("nobody");
    let text = common::config_text(
        directory.path(),
        &format!("log.syslog.socket = {nobody:?}\nlog.syslog.format = \"rfc5424\""),
    );
    let off = text.clone();
    let text = text.replace("log.syslog.enabled = false", "log.syslog.enabled = true");
    let service = Service::start_with(directory, text, |_| {});
    (0..10).for_each(|_| say(&service, "<12>pump: it is warm"));
    eventually("they are handled", || {
        let handled = "edgeweb_log_records_handled_total{severity=\"warning\"}";
        (metric(&service, handled) >= 10).then_some(())
    });
    fs::write(service.config(), off).unwrap();
    service.signal("HUP");
    service.wait_for_log("the new configuration is in force");
    eventually("they are counted", || {
        (metric(&service, "edgeweb_log_syslog_lost_total") >= 10).then_some(())
    });
}
