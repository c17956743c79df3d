//! A program's own standard output and error in its log. They belong to the whole process, so each test
//! runs this test program again, as the program of its name.

mod common;

use common::{PATIENCE, TempDir, eventually, run};
use edgeweb::config::{LogConfig, StderrLog};
use edgeweb::logging::{self, CaptureError, capture_stderr, capture_stdout};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Mutex;
use std::time::Instant;

/// Says in the second process which program it is, and in which directory.
const PROGRAM: &str = "EDGEWEB_CAPTURE_PROGRAM";
const DIRECTORY: &str = "EDGEWEB_CAPTURE_DIRECTORY";

/// Writes `level severity target message` lines into a file: a log that has nothing to do with the streams.
struct FileLog(Mutex<File>);

impl log::Log for FileLog {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let severity = record.key_values().get("severity".into());
        let severity = severity.map_or(String::from("-"), |severity| severity.to_string());
        let (level, target) = (record.level(), record.target());
        let mut file = self.0.lock().unwrap();
        writeln!(file, "{level} {severity} {target} {}", record.args()).unwrap();
    }

    fn flush(&self) {}
}

fn write(stream: &mut impl Write, text: &str) {
    stream.write_all(text.as_bytes()).unwrap();
}

fn shell(script: &str) {
    assert!(
        Command::new("sh")
            .args(["-c", script])
            .status()
            .unwrap()
            .success()
    );
}

/// What the second process does. Without one, this has nothing to show.
#[test]
fn program() {
    let Ok(name) = std::env::var(PROGRAM) else {
        return;
    };
    let directory = std::env::var_os(DIRECTORY).unwrap();
    let directory = Path::new(&directory);
    if name != "loop" {
        let log = FileLog(Mutex::new(File::create(directory.join("log")).unwrap()));
        log::set_boxed_logger(Box::new(log)).unwrap();
        log::set_max_level(log::LevelFilter::Trace);
    }
    match name.as_str() {
        "stdout" => {
            write(&mut io::stdout(), "not yet,");
            let capture = capture_stdout("pump").unwrap();
            assert!(matches!(capture_stdout("pump"), Err(CaptureError::Twice)));
            write(&mut io::stdout(), "from Rust\n");
            shell(
                "echo '[ERR] from a program'; echo '<2>worst'; echo '[DBG] least'; printf '\\377half'",
            );
            write(&mut io::stderr(), "error is left alone\n");
            drop(capture);
            write(&mut io::stdout(), "not any more\n");
            drop(capture_stdout("again").unwrap());
        }
        "stderr" => {
            let capture = capture_stderr("pump").unwrap();
            write(&mut io::stderr(), "from Rust\n");
            shell("echo '[INFO] from a program' >&2");
            write(&mut io::stdout(), "output is left alone\n");
            drop(capture);
            write(&mut io::stderr(), "not any more\n");
        }
        "held" => {
            let capture = capture_stdout("pump").unwrap();
            let go = directory.join("go");
            shell(&format!(
                "(while [ ! -e {} ]; do sleep 0.05; done; echo late) 2>/dev/null &",
                go.display()
            ));
            let began = Instant::now();
            drop(capture);
            assert!(began.elapsed() < PATIENCE / 2);
            File::create(go).unwrap();
            let log = directory.join("log");
            eventually("the late line", || {
                fs::read_to_string(&log)
                    .unwrap()
                    .contains("pump late")
                    .then_some(())
            });
        }
        "loop" => {
            let config = LogConfig {
                stderr: StderrLog::Always,
                ..LogConfig::default()
            };
            logging::install(&config).unwrap();
            assert!(matches!(capture_stderr("pump"), Err(CaptureError::Loop)));
            let _capture = capture_stdout("pump").unwrap();
            shell("echo from a program");
        }
        other => panic!("there is no program {other}"),
    }
}

/// Runs the program `name` and returns what it wrote and what it logged.
fn play(name: &str) -> (Output, String) {
    let directory = TempDir::new();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "program", "--nocapture"])
        .env(PROGRAM, name)
        .env(DIRECTORY, directory.path())
        .env_remove("RUST_LOG");
    let output = run(&mut command);
    assert!(output.status.success(), "{output:?}");
    let log = fs::read_to_string(directory.path().join("log")).unwrap_or_default();
    (output, log)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn a_tag_must_do_before_a_message() {
    for tag in ["", "a b", "pump:"] {
        assert!(
            matches!(capture_stdout(tag), Err(CaptureError::Tag(_))),
            "{tag:?}"
        );
    }
}

#[test]
fn what_is_written_to_standard_output_is_logged_line_by_line() {
    let (output, log) = play("stdout");
    let expected = "INFO - pump from Rust\n\
                    ERROR - pump from a program\n\
                    ERROR critical pump worst\n\
                    DEBUG - pump least\n\
                    INFO - pump \\xffhalf\n";
    assert_eq!(log, expected);
    let out = text(&output.stdout);
    assert!(out.contains("not yet,not any more\n"), "{out}");
    assert!(!out.contains("from"), "{out}");
    assert!(text(&output.stderr).contains("error is left alone\n"));
}

#[test]
fn what_is_written_to_standard_error_is_a_warning() {
    let (output, log) = play("stderr");
    assert_eq!(log, "WARN - pump from Rust\nINFO - pump from a program\n");
    assert_eq!(text(&output.stderr), "not any more\n");
    assert!(text(&output.stdout).contains("output is left alone\n"));
}

#[test]
fn a_program_that_keeps_the_stream_holds_nobody_up_and_is_read_to_its_end() {
    let (_, log) = play("held");
    assert_eq!(log, "INFO - pump late\n");
}

#[test]
fn a_log_on_standard_error_is_no_input_of_its_own() {
    let (output, _) = play("loop");
    assert!(
        text(&output.stderr).contains("pump: from a program"),
        "{output:?}"
    );
}
