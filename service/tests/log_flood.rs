//! More records than anything can take: memory stays bounded, the service answers, the numbers add up.
//!
//! In a process of its own, because a process has one logger.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use common::{TempDir, eventually, get};
use edgeweb::config::{Config, StderrLog};
use edgeweb::logging::query::{self, Query};
use edgeweb::logging::{self, Severity};
use edgeweb::{Server, ServerHandle};

const THREADS: u32 = 8;
/// Of each thread, a hundred times a second.
const BURST: u32 = 125;
const DURATION: Duration = Duration::from_secs(10);
/// One of so many is an error.
const ERRORS: u32 = 500;

/// Resident memory of this process, in bytes.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: u64 = line
        .unwrap()
        .trim()
        .split(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    kib * 1024
}

fn metrics(server: &ServerHandle) -> BTreeMap<String, u64> {
    let answer = get(server.addrs()[0], "/metrics", &[]);
    let lines = answer.text().lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap_or(0))
        })
        .collect()
}

fn of(metrics: &BTreeMap<String, u64>, what: &str, severity: &str) -> u64 {
    metrics[&format!("edgeweb_log_records{what}_total{{severity=\"{severity}\"}}")]
}

#[test]
fn a_flood_of_records() {
    let directory = TempDir::new();
    let text = common::config_text(directory.path(), "");
    let mut config = Config::parse(&text, "flood.toml".as_ref()).unwrap();
    config.log.syslog.enabled = true;
    config.log.filter = String::from("info");
    config.log.stderr = StderrLog::Never;
    // A daemon that is not there: its queue is full in no time.
    config.log.syslog.socket = directory.path().join("nobody");
    config.log.journal.directory = directory.path().join("journal");
    config.log.journal.severity = Severity::Warning;
    let log = &config.log;
    let bound = 4 * log.buffer_bytes + log.recent.max_bytes;
    logging::install(log).unwrap();
    let server = Server::builder().config(config).start().unwrap();
    assert_eq!(get(server.addrs()[0], "/health", &[]).status, 200);
    let before = resident();

    let end = Instant::now() + DURATION;
    let mut most = 0;
    thread::scope(|scope| {
        for thread_number in 0..THREADS {
            scope.spawn(move || {
                let mut due = Instant::now();
                let mut number = 0;
                while due < end {
                    for _ in 0..BURST {
                        number += 1;
                        if number % ERRORS == 0 {
                            log::error!("thread {thread_number} failed at {number}");
                        } else {
                            log::info!(number; "thread {thread_number} is at record {number}");
                        }
                    }
                    due += Duration::from_millis(10);
                    thread::sleep(due.saturating_duration_since(Instant::now()));
                }
            });
        }
        while Instant::now() < end {
            assert_eq!(get(server.addrs()[0], "/health", &[]).status, 200);
            most = most.max(resident());
            thread::sleep(Duration::from_millis(50));
        }
    });

    let records = u64::from(THREADS * BURST) * 1000;
    let errors = u64::from(THREADS) * (records / u64::from(THREADS) / u64::from(ERRORS));
    let seen = eventually("everything is counted", || {
        let seen = metrics(&server);
        let adds_up = Severity::ALL.iter().all(|severity| {
            let count = |what| of(&seen, what, severity.name());
            count("") == count("_handled") + count("_dropped")
        });
        (adds_up && of(&seen, "", "info") >= records - errors).then_some(seen)
    });
    let own = of(&seen, "", "info") - (records - errors);
    assert!(own < 20, "{own} records of the service itself");
    assert_eq!(of(&seen, "_dropped", "error"), 0);
    assert_eq!(of(&seen, "", "error"), errors);
    eventually("every error is in the journal", || {
        let warnings = of(&metrics(&server), "_handled", "warning");
        (metrics(&server)["edgeweb_log_journal_records_total"] == errors + warnings).then_some(())
    });
    if of(&seen, "_dropped", "info") > 0 {
        let query = Query {
            severity: Severity::Warning,
            target: String::from("edgeweb::logging"),
            limit: 1000,
            ..Query::default()
        };
        eventually("the log says what it dropped", || {
            query::boot(0, &query)
                .unwrap()
                .iter()
                .any(|line| line.message.contains("log records were dropped"))
                .then_some(())
        });
    }
    // Stacks, the allocator's arenas and what requests take, besides.
    let grown = most.saturating_sub(before);
    assert!(
        grown < bound as u64 + 2 * 1024 * 1024,
        "{grown} bytes more than before"
    );
    println!(
        "{records} records, {} dropped, {grown} bytes more than before",
        of(&seen, "_dropped", "info")
    );
    server.stop().unwrap();
}
