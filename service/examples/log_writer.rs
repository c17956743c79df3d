//! A firmware program whose log is all that it does: the power cut test kills its machine again and again.
//!
//! `log_writer DIRECTORY RUN` writes numbered records into the journal in DIRECTORY without end. A record
//! reads `RUN NUMBER CHECKSUM FILLING`, where the checksum is the CRC-32 of the other three words. The number
//! of each critical record that is known to be on the storage is printed as `ok RUN NUMBER` as soon as that is
//! known. It ends with status 1 when nobody reads them any more, or when a record is not stored in time.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use edgeweb::config::{LogConfig, StderrLog};
use edgeweb::logging::{self, Severity, Stored};

/// As many records may want to be on the storage at the same time.
const THREADS: u64 = 3;
/// How many bytes of journal there may be: nothing is dropped while the test lasts.
const JOURNAL: u64 = 1024 * 1024 * 1024;
/// Around every record, so that the machine's processor is not all the log's.
const PAUSE: Duration = Duration::from_millis(2);
/// The longest filling, in bytes: with it a record spans two pages of a file now and then.
const FILLING: u64 = 1500;
const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz";
const CRC: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (Some(directory), Some(run), None) = (arguments.next(), arguments.next(), arguments.next())
    else {
        eprintln!("usage: log_writer DIRECTORY RUN");
        return ExitCode::from(2);
    };
    let mut config = LogConfig {
        stderr: StderrLog::Never,
        ..LogConfig::default()
    };
    config.syslog.enabled = false;
    config.journal.directory = directory.into();
    config.journal.severity = Severity::Info;
    config.journal.max_bytes = JOURNAL;
    config.journal.sync_seconds = 1;
    if let Err(error) = logging::install(&config) {
        eprintln!("log_writer: {error}");
        return ExitCode::FAILURE;
    }
    let number = AtomicU64::new(0);
    let goes_on = AtomicBool::new(true);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while goes_on.load(Ordering::Relaxed) {
                    let number = number.fetch_add(1, Ordering::Relaxed) + 1;
                    if let Err(error) = write(&run, number) {
                        eprintln!("log_writer: {error}");
                        goes_on.store(false, Ordering::Relaxed);
                    }
                    thread::sleep(PAUSE);
                }
            });
        }
    });
    ExitCode::FAILURE
}

/// Writes one record: in turns, most of some hundred records are critical, and few of the next.
fn write(run: &str, number: u64) -> io::Result<()> {
    let one_in = if (number / 256).is_multiple_of(2) {
        2
    } else {
        40
    };
    let severity = match number % one_in {
        0 => Severity::Critical,
        _ if number.is_multiple_of(3) => Severity::Error,
        _ => Severity::Info,
    };
    // Lengths without order, the same in every run.
    let mixed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
    let length = if number.is_multiple_of(8) {
        mixed % FILLING
    } else {
        mixed % 60
    };
    let filling: String = (0..=length)
        .map(|at| char::from(LETTERS[((number + at) % 26) as usize]))
        .collect();
    let checksum = CRC.checksum(format!("{run} {number} {filling}").as_bytes());
    let stored = logging::record(
        severity,
        "log_writer",
        format_args!("{run} {number} {checksum:08x} {filling}"),
    );
    match (severity, stored) {
        // Standard output is written at the end of each line.
        (Severity::Critical, Stored::Journal) => writeln!(io::stdout(), "ok {run} {number}"),
        (Severity::Critical, _) => Err(io::Error::other(format!("record {number}: {stored:?}"))),
        _ => Ok(()),
    }
}
