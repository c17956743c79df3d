//! The firmware's syslog, with a real rsyslogd on a socket of the test's own.
#![cfg(feature = "syslog")]

mod common;

use common::rsyslogd::Rsyslogd;
use common::{Service, TempDir, eventually};
use std::fs;
use std::time::{Duration, Instant};

fn start_service(directory: TempDir, more: &str) -> Service {
    let socket = directory.path().join("log.sock");
    let config = format!("log.syslog.socket = {socket:?}\n{more}");
    let text = common::config_text(directory.path(), &config)
        .replace("log.syslog.enabled = false", "log.syslog.enabled = true");
    Service::start_with(directory, text, |_| {})
}

/// A name of their own, so that a device without that daemon leaves all of them out.
mod with_rsyslogd {
    use super::*;

    #[test]
    fn records_arrive_with_facility_severity_and_tag() {
        let directory = TempDir::new();
        let daemon = Rsyslogd::start(directory.path());
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

    #[test]
    fn what_a_client_sends_cannot_forge_a_record() {
        let directory = TempDir::new();
        let daemon = Rsyslogd::start(directory.path());
        let service = start_service(directory, "");
        service.get("/%0a%3C0%3Eforged%1b");
        daemon.wait_for("GET /%0a%3C0%3Eforged%1b 404");
        let log = fs::read_to_string(&daemon.output).unwrap();
        assert!(
            !log.lines().any(|line| line.starts_with("kern.emerg")),
            "{log}"
        );
    }

    #[test]
    fn a_missing_daemon_neither_blocks_nor_kills_and_gets_the_records_when_it_comes() {
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
        let daemon = Rsyslogd::start(service.directory.path());
        daemon.wait_for("listening on http://");
        daemon.wait_for("GET /health 200");
    }

    #[test]
    fn a_restarted_daemon_gets_the_records_of_the_time_between() {
        let directory = TempDir::new();
        let mut daemon = Rsyslogd::start(directory.path());
        let service = start_service(directory, "");
        daemon.wait_for("is ready");
        daemon.stop();
        assert_eq!(service.get("/between").status, 404);
        let _ = fs::remove_file(service.directory.path().join("log.sock"));
        let daemon = Rsyslogd::start(service.directory.path());
        daemon.wait_for("GET /between 404");
        assert_eq!(service.get("/after").status, 404);
        daemon.wait_for("GET /after 404");
    }

    #[test]
    fn what_was_lost_is_counted_and_said() {
        let service = start_service(TempDir::new(), "");
        // More than the queue holds, while nobody takes anything.
        for _ in 0..1500 {
            assert_eq!(service.get("/health").status, 200);
        }
        let daemon = Rsyslogd::start(service.directory.path());
        let line = daemon.wait_for("messages lost");
        let lost: usize = line.split(' ').rev().nth(2).unwrap().parse().unwrap();
        assert!(line.starts_with("daemon.warning edgeweb["), "{line}");
        eventually("what arrived and what was lost add up", || {
            let log = fs::read_to_string(&daemon.output).unwrap();
            let arrived = log
                .lines()
                .filter(|line| line.contains("127.0.0.1") && line.ends_with("GET /health 200"))
                .count();
            (arrived > 100 && arrived + lost >= 1500).then_some(())
        });
    }

    #[test]
    fn the_last_words_of_a_service_arrive() {
        let directory = TempDir::new();
        let daemon = Rsyslogd::start(directory.path());
        let mut service = start_service(directory, "");
        service.signal("TERM");
        assert!(service.wait().success());
        daemon.wait_for("SIGTERM: stopping");
        daemon.wait_for("stopped");
    }

    #[test]
    fn why_a_service_did_not_start_is_in_the_log() {
        let directory = TempDir::new();
        let daemon = Rsyslogd::start(directory.path());
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
