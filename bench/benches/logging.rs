//! What a log call costs its caller, and what each sink takes.
//!
//! One process for each of them, because a process has one logger: `cargo bench --bench logging -- caller`.

use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use edgeweb::config::{LogConfig, StderrLog};
use edgeweb::logging::{self, Severity, Stored};

/// What fits into every queue on the way.
const BATCH: u32 = 256;

fn scratch() -> PathBuf {
    let path = std::env::temp_dir().join(format!("edgeweb-bench-{}", std::process::id()));
    std::fs::create_dir_all(&path).expect("a directory for temporary files");
    path
}

/// No sink but memory.
fn quiet() -> LogConfig {
    let mut config = LogConfig {
        filter: String::from("info"),
        stderr: StderrLog::Never,
        ..LogConfig::default()
    };
    config.syslog.enabled = false;
    config.journal.enabled = false;
    config.journal.directory = scratch().join("journal");
    config
}

/// Time in log calls alone, in bursts that the log's own thread has the time to take.
fn bursts(calls: u64, call: impl Fn(u64)) -> Duration {
    let mut spent = Duration::ZERO;
    let mut done = 0;
    while done < calls {
        let burst = (calls - done).min(64);
        let begin = Instant::now();
        (done..done + burst).for_each(&call);
        spent += begin.elapsed();
        done += burst;
        thread::sleep(Duration::from_millis(5));
    }
    spent
}

fn caller(criterion: &mut Criterion) {
    logging::install(&quiet()).expect("the first logger");
    let short = |n: u64| log::info!("valve {n} is open");
    short(0);
    let mut group = criterion.benchmark_group("log call, caller's side");
    group
        .sample_size(20)
        .measurement_time(Duration::from_secs(4));
    group.bench_function("short message", |bench| {
        bench.iter_custom(|calls| bursts(calls, short));
    });
    group.bench_function("with two key-values", |bench| {
        bench.iter_custom(|calls| {
            bursts(
                calls,
                |n| log::info!(pressure = n, unit = "bar"; "valve is open"),
            )
        });
    });
    group.bench_function("filtered out", |bench| {
        bench.iter(|| log::debug!("valve {} is open", 1));
    });
    group.bench_function("short message, without a pause", |bench| {
        bench.iter(|| short(1));
    });
    group.finish();
    // From the first one on the buffer is there.
    let allocations = allocation_counter::measure(|| (0..10_000).for_each(short));
    println!(
        "allocations in 10000 calls with a short message: {}",
        allocations.count_total
    );
    assert_eq!(
        allocations.count_total, 0,
        "a short message allocates nothing"
    );
}

/// Records from the call to the sink, a batch at a time.
fn sink(criterion: &mut Criterion, name: &str, config: &LogConfig) {
    logging::install(config).expect("the first logger");
    let mut group = criterion.benchmark_group("log record, to the sink");
    group.throughput(Throughput::Elements(u64::from(BATCH)));
    group
        .sample_size(20)
        .measurement_time(Duration::from_secs(4));
    let number = AtomicU32::new(0);
    group.bench_function(name, |bench| {
        bench.iter(|| {
            for _ in 0..BATCH {
                let number = number.fetch_add(1, Ordering::Relaxed);
                log::error!("the pump of tank {number} stopped");
            }
            log::logger().flush();
        });
    });
    group.finish();
}

fn syslog(criterion: &mut Criterion) {
    let path = scratch().join("log.sock");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while socket.recv(&mut buffer).is_ok() {}
    });
    let mut config = quiet();
    config.syslog.enabled = true;
    config.syslog.socket = path;
    sink(criterion, "syslog, to a reader of datagrams", &config);
}

fn journal(criterion: &mut Criterion) {
    let mut config = quiet();
    config.journal.enabled = true;
    sink(criterion, "journal, one sync a batch", &config);
}

fn critical(criterion: &mut Criterion) {
    let mut config = quiet();
    config.journal.enabled = true;
    logging::install(&config).expect("the first logger");
    let mut group = criterion.benchmark_group("log record, to the sink");
    group
        .sample_size(20)
        .measurement_time(Duration::from_secs(4));
    group.bench_function("journal, a critical record on its own", |bench| {
        bench.iter(|| {
            let stored = logging::record(Severity::Critical, "bench", format_args!("it burns"));
            assert_eq!(stored, Stored::Journal);
        });
    });
    group.finish();
}

fn memory(criterion: &mut Criterion) {
    sink(criterion, "memory", &quiet());
}

fn main() {
    let groups: [(&str, fn(&mut Criterion)); 5] = [
        ("caller", caller),
        ("memory", memory),
        ("syslog", syslog),
        ("journal", journal),
        ("critical", critical),
    ];
    let wanted = std::env::args().skip(1).find(|word| !word.starts_with('-'));
    match wanted {
        Some(wanted) => {
            let (_, group) = groups
                .iter()
                .find(|(name, _)| *name == wanted)
                .expect("caller, memory, syslog, journal or critical");
            let mut criterion = Criterion::default().without_plots();
            group(&mut criterion);
            let _ = std::fs::remove_dir_all(scratch());
        }
        None => {
            let program = std::env::current_exe().expect("this program");
            for (name, _) in groups {
                let status = std::process::Command::new(&program)
                    .args(["--bench", name])
                    .status();
                assert!(status.is_ok_and(|status| status.success()), "{name}");
            }
        }
    }
}
