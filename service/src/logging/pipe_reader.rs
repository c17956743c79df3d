//! What another program writes to its standard output and error, from two pipes to the log.

use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep_until};

use super::forward::Forward;
use super::lines::Lines;
use super::prefixes::Prefixes;
use super::severity::Severity;
use crate::config::Facility;

/// How much is read at a time, in bytes: as many of the shortest lines as half the queue has room for.
const PIECE: usize = 2 * 1024;
/// How long a receiver is waited for when the program has ended and something is still to be said. Shorter
/// than what a service manager grants a service for its end.
const LINGER: Duration = Duration::from_secs(5);

/// Whose output it is, and where it goes.
#[derive(Clone, Debug)]
pub struct PipeReader {
    /// What the log calls the program, as [`super::is_tag`] has it.
    pub tag: String,
    /// The program's process.
    pub pid: u32,
    /// The facility of its records.
    pub facility: Facility,
    /// Which severity a line says.
    pub prefixes: Prefixes,
    /// The sockets that take RFC 3164 datagrams, the best one first.
    pub sockets: Vec<PathBuf>,
}

impl PipeReader {
    /// Reads both pipes to their ends. A line without a prefix is an info on `stdout` and a warning on
    /// `stderr`. `ready` is called once SIGHUP, SIGINT and SIGTERM do not end this process any more: they
    /// are meant for the program, whose last words come after them.
    ///
    /// # Errors
    /// What the system says when one of them is no pipe, or when it has nothing left for a runtime.
    pub fn run(
        self,
        stdout: OwnedFd,
        stderr: OwnedFd,
        ready: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()?
            .block_on(self.read(stdout, stderr, ready))
    }

    async fn read(
        self,
        stdout: OwnedFd,
        stderr: OwnedFd,
        ready: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        let mut out = Stream::new(stdout, Severity::Info)?;
        let mut err = Stream::new(stderr, Severity::Warning)?;
        // Each one stays caught, whether it is asked for or not.
        for kind in [
            SignalKind::hangup(),
            SignalKind::interrupt(),
            SignalKind::terminate(),
        ] {
            drop(signal(kind)?);
        }
        ready()?;
        let mut forward = Forward::new(self.sockets, self.facility, &self.tag, self.pid);
        let mut ended = None;
        loop {
            if out.is_ended() && err.is_ended() && ended.is_none() {
                ended = Some(Instant::now() + LINGER);
            }
            if ended.is_some() && forward.is_done() {
                return Ok(());
            }
            let reads = forward.has_room();
            tokio::select! {
                piece = out.next(), if reads && !out.is_ended() => {
                    out.take(piece, &self.prefixes, &mut forward);
                }
                piece = err.next(), if reads && !err.is_ended() => {
                    err.take(piece, &self.prefixes, &mut forward);
                }
                () = forward.ready(), if !forward.is_done() => forward.send(),
                () = at(ended), if ended.is_some() => return Ok(()),
            }
        }
    }
}

/// Waits until then, or for ever.
async fn at(end: Option<Instant>) {
    match end {
        Some(end) => sleep_until(end).await,
        None => std::future::pending().await,
    }
}

struct Stream {
    /// `None` once it has ended.
    pipe: Option<Receiver>,
    buffer: Box<[u8]>,
    lines: Lines,
}

impl Stream {
    fn new(pipe: OwnedFd, default: Severity) -> io::Result<Self> {
        Ok(Self {
            pipe: Some(Receiver::from_owned_fd(pipe)?),
            buffer: vec![0; PIECE].into_boxed_slice(),
            lines: Lines::new(default),
        })
    }

    fn is_ended(&self) -> bool {
        self.pipe.is_none()
    }

    /// Waits for more in the buffer. May be dropped and called again.
    fn next(&mut self) -> impl Future<Output = io::Result<usize>> {
        let Self { pipe, buffer, .. } = self;
        async move {
            match pipe {
                Some(pipe) => pipe.read(buffer).await,
                None => std::future::pending().await,
            }
        }
    }

    fn take(&mut self, piece: io::Result<usize>, prefixes: &Prefixes, forward: &mut Forward) {
        let mut push = |severity, message: &str| forward.push(severity, message);
        match piece {
            Ok(length) if length > 0 => {
                self.lines.feed(prefixes, &self.buffer[..length], &mut push)
            }
            // A pipe that cannot be read has nothing more to say.
            Ok(_) | Err(_) => {
                self.lines.finish(prefixes, &mut push);
                self.pipe = None;
            }
        }
    }
}
