//! What this process writes to its own standard output or error, in the log: `printf` of C code that is
//! linked in, and what programs say that it starts.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::Duration;

use super::lines::Lines;
use super::prefixes::Prefixes;
use super::severity::Severity;

/// How long the end of a capture waits for the last lines.
const DRAIN_LIMIT: Duration = Duration::from_millis(500);
/// How much is read at a time, in bytes.
const PIECE: usize = 4 * 1024;
/// The thread splits lines and makes records.
const STACK: usize = 128 * 1024;

/// Which of the two are captured.
static CAPTURED: [AtomicBool; 2] = [AtomicBool::new(false), AtomicBool::new(false)];

/// Why a stream was not captured.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The tag would not do before a message.
    #[error("{0:?} is no tag; 1 to 32 letters, digits, -, _ and ., please")]
    Tag(String),
    /// It is captured already.
    #[error("it is captured already; drop the first capture, or leave it at that")]
    Twice,
    /// Records are written to the standard error, and each would become another record.
    #[error("the log itself is written to standard error; set log.stderr to \"never\" first")]
    Loop,
    /// The system has no pipe or thread to give.
    #[error("no pipe or thread: {0}")]
    System(#[from] io::Error),
}

#[derive(Clone, Copy)]
enum Stream {
    Out,
    Err,
}

impl Stream {
    fn captured(self) -> &'static AtomicBool {
        &CAPTURED[self as usize]
    }

    fn copy(self) -> io::Result<OwnedFd> {
        match self {
            Self::Out => io::stdout().as_fd().try_clone_to_owned(),
            Self::Err => io::stderr().as_fd().try_clone_to_owned(),
        }
    }

    /// Says what waits in Rust's own buffer, then puts `file` in the stream's place.
    fn replace(self, file: impl AsFd) -> io::Result<()> {
        match self {
            Self::Out => {
                // Whoever wrote it was told that it was written; there is nobody left to tell.
                let _ = io::stdout().flush();
                rustix::stdio::dup2_stdout(file)?;
            }
            Self::Err => rustix::stdio::dup2_stderr(file)?,
        }
        Ok(())
    }
}

/// Whether standard error is captured.
pub(super) fn has_stderr() -> bool {
    Stream::Err.captured().load(Ordering::Relaxed)
}

/// A captured stream. When it is dropped, the stream is again what it was, and what was still to be read is
/// in the log; a program that was started meanwhile and still has the stream is read on until its end.
#[must_use = "the stream is captured until this is dropped"]
pub struct Capture {
    stream: Stream,
    original: OwnedFd,
    done: Receiver<()>,
}

/// Puts each line that is written to standard output into the log, as a record with the target `tag`: an
/// info, or what its prefix says ([`Prefixes`] has the default ones). It does not matter who writes it:
/// Rust, C code in the same process, or a program that it starts.
///
/// C's `stdout` holds some KiB back as soon as it is a pipe: call `setvbuf(stdout, NULL, _IOLBF, 0)` before
/// anything is printed, and `fflush(stdout)` before the capture is dropped. A logger that itself writes to
/// standard output would never come to an end.
///
/// # Errors
/// [`CaptureError`] when `tag` is none, when it is captured already, or when the system has no pipe or thread.
pub fn capture_stdout(tag: &str) -> Result<Capture, CaptureError> {
    capture(Stream::Out, tag)
}

/// The same for standard error, where a line without a prefix is a warning. While it is captured, records
/// are not written there, whatever a new configuration says.
///
/// # Errors
/// [`CaptureError`] as for [`capture_stdout`], and when the log is written to standard error.
pub fn capture_stderr(tag: &str) -> Result<Capture, CaptureError> {
    if super::reaches_stderr() {
        return Err(CaptureError::Loop);
    }
    capture(Stream::Err, tag)
}

fn capture(stream: Stream, tag: &str) -> Result<Capture, CaptureError> {
    if !super::is_tag(tag) {
        return Err(CaptureError::Tag(tag.to_owned()));
    }
    if stream.captured().swap(true, Ordering::Relaxed) {
        return Err(CaptureError::Twice);
    }
    start(stream, tag.to_owned()).map_err(|error| {
        stream.captured().store(false, Ordering::Relaxed);
        CaptureError::System(error)
    })
}

fn start(stream: Stream, tag: String) -> io::Result<Capture> {
    let original = stream.copy()?;
    let (reader, writer) = io::pipe()?;
    let (finished, done) = sync_channel(1);
    thread::Builder::new()
        .name(String::from("capture"))
        .stack_size(STACK)
        .spawn(move || {
            read(OwnedFd::from(reader).into(), stream, &tag);
            // Nobody waits any more when this fails.
            let _ = finished.try_send(());
        })?;
    stream.replace(&writer)?;
    Ok(Capture {
        stream,
        original,
        done,
    })
}

fn read(mut pipe: File, stream: Stream, tag: &str) {
    let prefixes = Prefixes::default();
    let mut lines = Lines::new(match stream {
        Stream::Out => Severity::Info,
        Stream::Err => Severity::Warning,
    });
    let mut log = |severity, message: &str| log_line(tag, severity, message);
    let mut buffer = [0; PIECE];
    loop {
        match pipe.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => lines.feed(&prefixes, &buffer[..length], &mut log),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // A pipe that cannot be read has nothing more to say.
            Err(_) => break,
        }
    }
    lines.finish(&prefixes, &mut log);
}

fn log_line(tag: &str, severity: Severity, message: &str) {
    let level = severity.level();
    if Severity::from(level) == severity {
        log::log!(target: tag, level, "{message}");
    } else {
        log::log!(target: tag, level, severity = severity.name(); "{message}");
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        // With the pipe's last writing end gone, the thread comes to its end.
        if self.stream.replace(&self.original).is_ok() {
            // A program that still has the pipe must not hold this one up.
            let _ = self.done.recv_timeout(DRAIN_LIMIT);
        }
        self.stream.captured().store(false, Ordering::Relaxed);
    }
}
