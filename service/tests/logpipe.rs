//! `edgeweb logpipe`: another program's output in the log, and the program as if nothing were between.

mod common;

use common::{PATIENCE, TempDir, edgeweb, eventually, run};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// `logpipe` for a shell script, with records to `socket`.
fn logpipe(socket: &Path, script: &str) -> Command {
    let mut command = edgeweb();
    command.args(["logpipe", "--tag", "pump", "--socket"]);
    command.arg(socket).args(["--", "sh", "-c", script]);
    command
}

/// A receiver of the test's own, for what a syslog daemon would not show.
struct Receiver {
    socket: UnixDatagram,
}

impl Receiver {
    fn bind(path: &Path) -> Self {
        let _ = fs::remove_file(path);
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket }
    }

    fn next(&self) -> String {
        let mut buffer = [0; 65536];
        let length = self.socket.recv(&mut buffer).expect("a record");
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    /// The next `count` records without what stands before the message.
    fn messages(&self, count: usize) -> Vec<String> {
        let message = |record: String| record.split_once("]: ").unwrap().1.to_owned();
        (0..count).map(|_| message(self.next())).collect()
    }
}

/// The processes that read the output of process `pid`.
fn readers(pid: u32) -> Vec<u32> {
    let wanted = format!("logpipe\0--reader\0{pid}\0");
    let is_reader = |process: &u32| {
        let line = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&wanted)
    };
    let processes = fs::read_dir("/proc").unwrap();
    processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(is_reader)
        .collect()
}

fn reader(pid: u32) -> u32 {
    eventually("the reader", || readers(pid).pop())
}

fn wait_for_no_reader(pid: u32) {
    eventually("the reader is gone", || {
        readers(pid).is_empty().then_some(())
    });
}

/// A program under `logpipe`, killed with the test.
struct Program(Child);

impl Program {
    fn start(command: &mut Command) -> Self {
        Self(
            command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .process_group(0)
                .spawn()
                .unwrap(),
        )
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    fn signal(&self, name: &str) {
        signal(name, &self.pid().to_string());
    }

    fn wait(&mut self) -> std::process::ExitStatus {
        eventually("the program ends", || self.0.try_wait().unwrap())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// By the shell's own `kill`: procps and BusyBox differ in how they take a group.
fn signal(name: &str, target: &str) {
    let mut kill = Command::new("sh");
    kill.args(["-c", &format!("kill -{name} {target}")]);
    assert!(kill.status().unwrap().success());
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn the_exit_status_is_the_programs_own() {
    let directory = TempDir::new();
    let socket = directory.path().join("log.sock");
    let _receiver = Receiver::bind(&socket);
    for (script, code, killed_by) in [
        ("exit 0", Some(0), None),
        ("exit 7", Some(7), None),
        ("kill -s TERM $$", None, Some(15)),
        ("kill -s KILL $$", None, Some(9)),
    ] {
        let output = run(&mut logpipe(&socket, script));
        let found = (output.status.code(), output.status.signal());
        assert_eq!(found, (code, killed_by), "{script}");
        assert_eq!(
            (output.stdout.as_slice(), said(&output).as_str()),
            (&b""[..], "")
        );
    }
}

#[test]
fn the_program_has_the_process_its_arguments_and_its_input() {
    let directory = TempDir::new();
    let socket = directory.path().join("log.sock");
    let receiver = Receiver::bind(&socket);
    let mut command = edgeweb();
    command
        .args(["logpipe", "--tag=pump", "--socket"])
        .arg(&socket);
    command.args([
        "sh",
        "-c",
        "echo $$ $# $1 $2 $3; cat",
        "sh",
        "--tag",
        "--",
        "x y",
    ]);
    let input = directory.write("input", "from the input\n");
    let mut program = command
        .stdin(fs::File::open(input).unwrap())
        .spawn()
        .unwrap();
    let pid = program.id();
    assert!(program.wait().unwrap().success());
    assert_eq!(
        receiver.next(),
        format!("<30>pump[{pid}]: {pid} 3 --tag -- x y")
    );
    assert_eq!(receiver.next(), format!("<30>pump[{pid}]: from the input"));
    wait_for_no_reader(pid);
}

#[test]
fn what_cannot_be_run_is_said_with_status_126_and_127() {
    let directory = TempDir::new();
    let socket = directory.path().join("log.sock");
    let receiver = Receiver::bind(&socket);
    let file = directory.write("no-program", "x");
    for (program, status) in [("/nonexistent/pumpd", 127), (file.to_str().unwrap(), 126)] {
        let mut command = edgeweb();
        command
            .args(["logpipe", "--tag", "pump", "--socket"])
            .arg(&socket);
        let output = run(command.args(["--", program]));
        assert_eq!(output.status.code(), Some(status));
        let line = said(&output);
        assert!(
            line.starts_with(&format!("edgeweb: {program:?} cannot be run: ")),
            "{line}"
        );
        assert_eq!(line.lines().count(), 1, "{line}");
        // Started at boot, nobody sees standard error.
        let record = receiver.next();
        assert!(record.starts_with("<27>pump["), "{record}");
        assert!(record.contains("cannot be run"), "{record}");
    }
}

#[test]
fn wrong_usage_and_a_wrong_map_are_one_line_and_status_2_before_the_program_starts() {
    let directory = TempDir::new();
    let witness = directory.path().join("started");
    let map = directory.write("map.toml", "\"[OK]\" = \"info\"\n\"[OOPS]\" = \"loud\"\n");
    let map = map.to_str().unwrap();
    let config = directory.write("edgeweb.toml", "log.syslog.facility = \"pump\"");
    let config = config.to_str().unwrap();
    let wrong_severity = format!("edgeweb: {map}:2: [OOPS]: \"loud\" is no severity; ");
    let wrong_config = format!("edgeweb: {config}:1: log.syslog.facility: ");
    for (arguments, expected) in [
        (&["--", "touch"][..], "edgeweb: --tag NAME is missing"),
        (
            &["--tag", "", "--", "touch"],
            "edgeweb: --tag \"\" is not 1 to 32 letters",
        ),
        (
            &["--tag", "a b", "--", "touch"],
            "edgeweb: --tag \"a b\" is not 1 to 32 letters",
        ),
        (
            &["--tag", "a[1]", "--", "touch"],
            "edgeweb: --tag \"a[1]\" is not 1 to 32 letters",
        ),
        (
            &["--tag", "pump", "--colour", "touch"],
            "edgeweb: invalid option '--colour'",
        ),
        (
            &["--tag", "pump", "--map", map, "--", "touch"],
            &wrong_severity,
        ),
        (
            &["--tag", "pump", "--map", "/nonexistent", "touch"],
            "edgeweb: /nonexistent: cannot be read: ",
        ),
        (
            &["--tag", "pump", "--config", config, "touch"],
            &wrong_config,
        ),
    ] {
        let output = run(edgeweb().arg("logpipe").args(arguments).arg(&witness));
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let line = said(&output);
        assert!(line.starts_with(expected), "{arguments:?}: {line}");
        assert_eq!(line.lines().count(), 1, "{line}");
        assert!(!witness.exists(), "{arguments:?}");
    }
    let output = run(edgeweb().args(["logpipe", "--tag", "pump"]));
    assert_eq!(output.status.code(), Some(2));
    assert!(
        said(&output).contains("a command to run"),
        "{}",
        said(&output)
    );
}

#[test]
fn a_signal_is_the_programs() {
    let directory = TempDir::new();
    let socket = directory.path().join("log.sock");
    let receiver = Receiver::bind(&socket);
    let script = "trap 'echo \"last words\"; exit 5' TERM; echo up; while :; do sleep 0.05; done";
    let mut program = Program::start(&mut logpipe(&socket, script));
    assert_eq!(receiver.messages(1), ["up"]);
    program.signal("TERM");
    assert_eq!(program.wait().code(), Some(5));
    assert_eq!(receiver.messages(1), ["last words"]);
    wait_for_no_reader(program.pid());
}

/// A service manager that ends a service signals all of its processes, and a terminal a whole group.
#[test]
fn the_reader_outlives_the_signals_that_are_meant_for_the_program() {
    let directory = TempDir::new();
    let socket = directory.path().join("log.sock");
    let receiver = Receiver::bind(&socket);
    let script = "trap 'echo hup' HUP; trap 'echo int' INT; trap 'echo term; exit 3' TERM;
                  echo up; while :; do sleep 0.05; done";
    let mut program = Program::start(&mut logpipe(&socket, script));
    assert_eq!(receiver.messages(1), ["up"]);
    let reader = reader(program.pid());
    for name in ["HUP", "INT", "TERM"] {
        signal(name, &reader.to_string());
        signal(name, &format!("-{}", program.pid()));
        // The shell also says how its sleep has ended.
        while receiver.messages(1) != [name.to_lowercase()] {}
    }
    assert_eq!(program.wait().code(), Some(3));
    wait_for_no_reader(program.pid());
}

#[test]
fn a_killed_program_leaves_no_reader_behind() {
    let directory = TempDir::new();
    let socket = directory.path().join("log.sock");
    let receiver = Receiver::bind(&socket);
    // In this order: what is half is in its pipe when the other arrives.
    let script = "printf half >&2; echo up; exec sleep 600";
    let mut program = Program::start(&mut logpipe(&socket, script));
    assert_eq!(receiver.messages(1), ["up"]);
    program.signal("KILL");
    assert_eq!(program.wait().signal(), Some(9));
    assert_eq!(receiver.messages(1), ["half"]);
    wait_for_no_reader(program.pid());
}

/// Nor when nobody takes what it still has to say.
#[test]
fn a_reader_without_a_receiver_does_not_stay_for_ever() {
    let directory = TempDir::new();
    let socket = directory.path().join("log.sock");
    let mut program = Program::start(&mut logpipe(&socket, "echo lost"));
    assert!(program.wait().success());
    wait_for_no_reader(program.pid());
}

/// As the help says.
#[test]
fn a_killed_reader_ends_a_program_that_writes() {
    let directory = TempDir::new();
    let socket = directory.path().join("log.sock");
    let receiver = Receiver::bind(&socket);
    let script = "while :; do echo on; sleep 0.05; done";
    let mut program = Program::start(&mut logpipe(&socket, script));
    assert_eq!(receiver.messages(1), ["on"]);
    signal("KILL", &reader(program.pid()).to_string());
    assert_eq!(program.wait().signal(), Some(13));
}

/// The reader keeps nothing of whoever started the program: no pipe that somebody reads to its end.
#[test]
fn the_callers_streams_are_closed_with_the_program() {
    let directory = TempDir::new();
    let socket = directory.path().join("log.sock");
    let mut program = logpipe(&socket, "(sleep 600 2>/dev/null & echo $!) ")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut out, mut error) = (
        program.stdout.take().unwrap(),
        program.stderr.take().unwrap(),
    );
    // The sleep holds the program's pipe, and with it the reader.
    assert!(program.wait().unwrap().success());
    let reader = reader(program.id());
    assert_eq!(std::io::read_to_string(&mut out).unwrap(), "");
    assert_eq!(std::io::read_to_string(&mut error).unwrap(), "");
    let receiver = Receiver::bind(&socket);
    let sleep = receiver.messages(1).remove(0);
    assert_eq!(readers(program.id()), [reader]);
    signal("KILL", &sleep);
    wait_for_no_reader(program.id());
}

#[test]
fn a_long_line_and_a_binary_one_are_whole_in_several_records() {
    let directory = TempDir::new();
    let socket = directory.path().join("log.sock");
    let receiver = Receiver::bind(&socket);
    let script =
        "printf '[ERR] '; head -c 5000 /dev/zero | tr '\\0' x; echo; printf '\\000\\377\\033[2J'";
    let mut program = Program::start(&mut logpipe(&socket, script));
    assert!(program.wait().success());
    let records = [receiver.next(), receiver.next(), receiver.next()];
    assert!(records.iter().all(|record| record.starts_with("<27>pump[")));
    let texts = records.map(|record| record.split_once("]: ").unwrap().1.to_owned());
    assert!(texts.iter().all(|text| text.len() <= 2048));
    assert!(texts[0].starts_with('x') && texts[0].ends_with('…'));
    assert!(texts[1].starts_with('…') && texts[1].ends_with('…'));
    assert!(texts[2].starts_with('…') && texts[2].ends_with('x'));
    assert_eq!(texts.concat().replace('…', ""), "x".repeat(5000));
    assert_eq!(receiver.messages(1), ["\\u{0}\\xff\\u{1b}[2J"]);
}

#[test]
fn the_first_socket_on_which_somebody_listens_gets_the_records() {
    let directory = TempDir::new();
    let service = directory.path().join("service.sock");
    let syslog = directory.path().join("syslog.sock");
    let second = Receiver::bind(&syslog);
    let lines = directory.path().join("lines");
    assert!(
        Command::new("mkfifo")
            .arg(&lines)
            .status()
            .unwrap()
            .success()
    );
    let mut command = edgeweb();
    command
        .args(["logpipe", "--tag", "pump", "--socket"])
        .arg(&service);
    command
        .arg("--socket")
        .arg(&syslog)
        .args(["--", "cat"])
        .arg(&lines);
    let mut program = Program::start(&mut command);
    // Open to the end, so that cat goes on.
    let mut writer = fs::OpenOptions::new().write(true).open(&lines).unwrap();
    let mut say = |text: &str| std::io::Write::write_all(&mut writer, text.as_bytes()).unwrap();
    say("one\n");
    assert_eq!(second.messages(1), ["one"]);
    let first = Receiver::bind(&service);
    second.socket.set_nonblocking(true).unwrap();
    first.socket.set_nonblocking(true).unwrap();
    let mut buffer = [0; 100];
    eventually("the better receiver is found", || {
        say("two\n");
        std::thread::sleep(Duration::from_millis(20));
        while second.socket.recv(&mut buffer).is_ok() {}
        first.socket.recv(&mut buffer).is_ok().then_some(())
    });
    while first.socket.recv(&mut buffer).is_ok() {}
    drop(first);
    second.socket.set_nonblocking(false).unwrap();
    say("three\n");
    assert!(eventually("the other one again", || second
        .messages(1)
        .contains(&String::from("three"))
        .then_some(true)));
    drop(writer);
    assert!(program.wait().success());
}

/// The sockets and the facility are those of the service's configuration.
#[test]
fn the_services_configuration_says_where_records_go() {
    let directory = TempDir::new();
    fs::create_dir(directory.path().join("run")).unwrap();
    let receiver = Receiver::bind(&directory.path().join("run/log.sock"));
    let text = common::config_text(directory.path(), "log.syslog.facility = \"local3\"");
    let config = directory.write("edgeweb.toml", text);
    let mut command = edgeweb();
    command
        .args(["logpipe", "--tag", "pump", "--config"])
        .arg(config);
    let mut program = Program::start(command.args(["--", "echo", "hello"]));
    assert!(program.wait().success());
    assert_eq!(
        receiver.next(),
        format!("<158>pump[{}]: hello", program.pid())
    );
}

/// Through the service: the record is in its log as the program's, not as the service's or the reader's.
#[test]
fn the_services_log_has_it() {
    let service = common::Service::start("");
    let mut command = edgeweb();
    command.args(["logpipe", "--tag", "pump", "--config"]);
    command.arg(service.config());
    let mut program = Program::start(command.args(["--", "printf", "[CRIT] dry\\nfine"]));
    assert!(program.wait().success());
    let socket = service.directory.path().join("run/edgeweb.sock");
    let entries = eventually("both records", || {
        let (_, body) =
            edgeweb::control::get(&socket, "/api/user/logs?target=pump", PATIENCE).unwrap();
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        let entries = body["entries"].as_array().unwrap().clone();
        (entries.len() == 2).then_some(entries)
    });
    let found = [&entries[0], &entries[1]]
        .map(|entry| ["severity", "target", "message"].map(|key| entry[key].as_str().unwrap()));
    assert_eq!(
        found,
        [["critical", "pump", "dry"], ["info", "pump", "fine"]]
    );
    assert!(entries.iter().all(|entry| entry["pid"] == program.pid()));
}

#[test]
fn a_flood_that_nobody_takes_blocks_nobody_and_is_counted() {
    let directory = TempDir::new();
    let socket = directory.path().join("log.sock");
    let go = directory.path().join("go");
    // What it says is complete before anybody listens.
    let script = format!(
        "seq 100000; : > {0}/flooded; while [ ! -e {1} ]; do sleep 0.05; done",
        directory.path().display(),
        go.display()
    );
    let began = Instant::now();
    let mut program = Program::start(&mut logpipe(&socket, &script));
    eventually("the program is through", || {
        directory.path().join("flooded").exists().then_some(())
    });
    assert!(began.elapsed() < PATIENCE);
    let reader = reader(program.pid());
    let status = fs::read_to_string(format!("/proc/{reader}/status")).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak: u64 = peak
        .unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap();
    // The queue is 256 KiB; 100,000 records would be some MiB more than the process has without.
    let idle = idle_reader_kib(&directory);
    assert!(
        peak < idle + 1024,
        "{peak} KiB, {idle} KiB with nothing to do"
    );

    let receiver = Receiver::bind(&socket);
    fs::write(&go, "").unwrap();
    let (mut arrived, mut lost) = (0, 0);
    let mut last = 0;
    while arrived + lost < 100_000 {
        let message = receiver.messages(1).remove(0);
        if let Some(count) = message.strip_suffix(" messages lost") {
            lost += count.parse::<u64>().unwrap();
        } else {
            let number = message.parse().unwrap();
            assert!(number > last, "{number} after {last}");
            last = number;
            arrived += 1;
        }
    }
    assert_eq!(
        (arrived + lost, last),
        (100_000, 100_000),
        "{arrived} arrived, {lost} lost"
    );
    assert!(
        arrived > 1000 && lost > 1000,
        "{arrived} arrived, {lost} lost"
    );
    assert!(program.wait().success());
    wait_for_no_reader(program.pid());
}

/// How much memory a reader has that has read one line, at its peak.
fn idle_reader_kib(directory: &TempDir) -> u64 {
    let socket = directory.path().join("idle.sock");
    let receiver = Receiver::bind(&socket);
    let program = Program::start(&mut logpipe(&socket, "echo up; exec sleep 600"));
    assert_eq!(receiver.messages(1), ["up"]);
    let status = fs::read_to_string(format!("/proc/{}/status", reader(program.pid()))).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    peak.unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap()
}

/// A receiver that is slow and takes something now and then loses nothing: it is the program that waits.
#[test]
fn a_slow_receiver_slows_the_program_down() {
    let directory = TempDir::new();
    let socket = directory.path().join("log.sock");
    let receiver = Receiver::bind(&socket);
    let mut program = Program::start(&mut logpipe(&socket, "seq 20000"));
    for number in 1..=20_000 {
        if number % 100 == 0 {
            std::thread::sleep(Duration::from_millis(2));
        }
        assert_eq!(receiver.messages(1), [number.to_string()]);
    }
    assert!(program.wait().success());
}

/// A receiver that is there and takes nothing at all is no reason to wait either.
#[test]
fn a_stuck_receiver_blocks_nobody() {
    let directory = TempDir::new();
    let socket = directory.path().join("log.sock");
    let _receiver = Receiver::bind(&socket);
    let mut program = Program::start(&mut logpipe(&socket, "seq 100000"));
    assert!(program.wait().success());
    wait_for_no_reader(program.pid());
}

#[test]
fn the_readers_words_are_no_ones_input() {
    // A reader that was started by hand, on something that is no pipe, says so.
    let mut command = edgeweb();
    let arguments = ["logpipe", "--reader", "1", "--tag", "pump"];
    let output = run(command.args(arguments));
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said(&output).starts_with("edgeweb: the program's output: "),
        "{}",
        said(&output)
    );
    let mut lines = BufReader::new(output.stderr.as_slice()).lines();
    assert!(lines.next().is_some() && lines.next().is_none());
}

/// A name of their own, so that a device without that daemon leaves all of them out.
mod with_rsyslogd {
    use super::common::rsyslogd::Rsyslogd;
    use super::*;

    #[test]
    fn a_prefix_says_the_severity_on_both_streams() {
        let directory = TempDir::new();
        let daemon = Rsyslogd::start(directory.path());
        let prefixes = [
            ("[EMERG]", "emerg"),
            ("[ALERT]", "alert"),
            ("[CRIT]", "crit"),
            ("[CRITICAL]", "crit"),
            ("[FATAL]", "crit"),
            ("[ERR]", "err"),
            ("[ERROR]", "err"),
            ("[error]", "err"),
            ("[WARN]", "warning"),
            ("[WARNING]", "warning"),
            ("[NOTICE]", "notice"),
            ("[INFO]", "info"),
            ("[DBG]", "debug"),
            ("[DEBUG]", "debug"),
            ("<0>", "emerg"),
            ("<1>", "alert"),
            ("<2>", "crit"),
            ("<3>", "err"),
            ("<4>", "warning"),
            ("<5>", "notice"),
            ("<6>", "info"),
            ("<7>", "debug"),
            ("F/", "crit"),
            ("E/", "err"),
            ("W/", "warning"),
            ("I/", "info"),
            ("D/", "debug"),
            ("V/", "debug"),
        ];
        let mut text = String::from("out: none\nI/O error\n");
        for (number, (prefix, _)) in prefixes.iter().enumerate() {
            text += &format!("{prefix} word {number}.\n");
        }
        let file = directory.write("lines", text);
        for (stream, default) in [("out", "info"), ("err", "warning")] {
            let redirect = if stream == "err" { ">&2" } else { "" };
            let mut command = edgeweb();
            command.args(["logpipe", "--tag", stream, "--socket"]);
            command
                .arg(directory.path().join("log.sock"))
                .args(["--", "sh", "-c"]);
            command.arg(format!("cat {} {redirect}", file.display()));
            let mut program = Program::start(&mut command);
            assert!(program.wait().success());
            let tag = format!("{stream}[{}]:", program.pid());
            daemon.wait_for(&format!("daemon.{default} {tag} out: none"));
            daemon.wait_for(&format!("daemon.{default} {tag} I/O error"));
            for (number, (_, severity)) in prefixes.iter().enumerate() {
                daemon.wait_for(&format!("daemon.{severity} {tag} word {number}."));
            }
        }
    }

    #[test]
    fn a_map_adds_to_the_default_prefixes() {
        let directory = TempDir::new();
        let daemon = Rsyslogd::start(directory.path());
        let map = directory.write("map.toml", "\"OOPS:\" = \"crit\"\n\"[ERR]\" = \"none\"\n");
        let mut command = edgeweb();
        command
            .args(["logpipe", "--tag", "pump", "--map"])
            .arg(map)
            .arg("--socket");
        command.arg(directory.path().join("log.sock"));
        command.args(["--", "printf", "OOPS: a\n[ERR] b\n[WARN] c"]);
        let mut program = Program::start(&mut command);
        assert!(program.wait().success());
        let tag = format!("pump[{}]:", program.pid());
        daemon.wait_for(&format!("daemon.crit {tag} a"));
        daemon.wait_for(&format!("daemon.info {tag} [ERR] b"));
        daemon.wait_for(&format!("daemon.warning {tag} c"));
    }

    #[test]
    fn a_daemon_that_comes_back_gets_the_records_of_the_time_between() {
        let directory = TempDir::new();
        let socket = directory.path().join("log.sock");
        let mut daemon = Rsyslogd::start(directory.path());
        let step = |name: &str| directory.path().join(name);
        let script = format!(
            "echo before; while [ ! -e {0} ]; do sleep 0.05; done; echo between; : > {1};
             while [ ! -e {2} ]; do sleep 0.05; done; echo after",
            step("stopped").display(),
            step("said").display(),
            step("back").display()
        );
        let mut program = Program::start(&mut logpipe(&socket, &script));
        daemon.wait_for(" before");
        daemon.stop();
        let _ = fs::remove_file(&socket);
        directory.write("stopped", "");
        eventually("it is said", || step("said").exists().then_some(()));
        let daemon = Rsyslogd::start(directory.path());
        daemon.wait_for(" between");
        directory.write("back", "");
        daemon.wait_for(" after");
        assert!(program.wait().success());
        wait_for_no_reader(program.pid());
    }
}
