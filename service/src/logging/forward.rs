//! Another program's records on their way to whoever takes them on this device: the service, or while
//! that is not there, the syslog daemon.
//!
//! Records are RFC 3164 datagrams without a time, which the receiver adds. Nobody waits for a receiver
//! that is missing or stuck: what does not fit into the queue meanwhile is counted, the oldest first.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio::net::UnixDatagram;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::severity::Severity;
use crate::config::Facility;

/// What may wait for a receiver, in bytes.
pub(super) const QUEUE: usize = 256 * 1024;
/// What a datagram in the queue costs besides its text.
const OVERHEAD: usize = 64;
/// How long a receiver that takes nothing is waited for before the queue drops what is oldest.
const STUCK: Duration = Duration::from_millis(250);
/// The first pause before the receivers are tried again; doubled up to [`MAX_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const MAX_PAUSE: Duration = Duration::from_secs(1);
/// How often a better receiver is looked for, and how often the log is told of what was lost.
const LOOK: Duration = Duration::from_secs(1);

/// Datagrams for the first of several sockets on which somebody listens.
pub(super) struct Forward {
    /// The best one first.
    sockets: Vec<PathBuf>,
    facility: Facility,
    /// What stands before a message: `tag[pid]: `.
    head: String,
    queue: VecDeque<Box<str>>,
    bytes: usize,
    lost: u64,
    /// How many of the lost ones the log has been told of.
    told: u64,
    tell_at: Instant,
    /// The receiver, and its place in `sockets`.
    connection: Option<(usize, UnixDatagram)>,
    look_at: Instant,
    try_at: Instant,
    pause: Duration,
    /// When a receiver last took something, or was found.
    moved: Instant,
}

impl Forward {
    /// For `tag[pid]`. The sockets may be there or not, the best one first.
    pub(super) fn new(sockets: Vec<PathBuf>, facility: Facility, tag: &str, pid: u32) -> Self {
        let now = Instant::now();
        let mut forward = Self {
            sockets,
            facility,
            head: format!("{tag}[{pid}]: "),
            queue: VecDeque::new(),
            bytes: 0,
            lost: 0,
            told: 0,
            tell_at: now,
            connection: None,
            look_at: now,
            try_at: now,
            pause: FIRST_PAUSE,
            moved: now,
        };
        forward.look();
        forward
    }

    /// Queues a message.
    pub(super) fn push(&mut self, severity: Severity, message: &str) {
        let datagram = self.datagram(severity, message).into_boxed_str();
        self.bytes += datagram.len() + OVERHEAD;
        self.queue.push_back(datagram);
        while self.bytes > QUEUE {
            self.drop_oldest();
            self.lost += 1;
        }
    }

    /// Whether everything is said, that something was lost as well.
    pub(super) fn is_done(&self) -> bool {
        self.queue.is_empty() && self.lost == self.told
    }

    /// Whether more should be read. A receiver that is slow, and takes something now and then, holds the
    /// program back by its full pipe, as it would if the program wrote to it itself.
    pub(super) fn has_room(&self) -> bool {
        let waits = self.connection.is_some() && self.moved.elapsed() < STUCK;
        !waits || self.bytes < QUEUE / 2
    }

    /// Waits until [`Forward::send`] is worth a try. May be dropped and called again.
    pub(super) async fn ready(&self) {
        sleep_until(self.try_at).await;
        if let Some((_, socket)) = &self.connection {
            // An error is found out by sending.
            let _ = timeout_at(Instant::now() + STUCK, socket.writable()).await;
        }
    }

    /// Sends as much as is taken without waiting.
    pub(super) fn send(&mut self) {
        while !self.is_done() {
            self.look();
            let Some((_, socket)) = &self.connection else {
                self.try_at = Instant::now() + self.pause;
                self.pause = (self.pause * 2).min(MAX_PAUSE);
                return;
            };
            // Once a second is enough while there is more to lose; at the end of the queue, all is told.
            let tells =
                self.lost > self.told && (self.queue.is_empty() || Instant::now() >= self.tell_at);
            let result = if tells {
                let message = format!("{} messages lost", self.lost - self.told);
                socket.try_send(self.datagram(Severity::Warning, &message).as_bytes())
            } else if let Some(datagram) = self.queue.front() {
                socket.try_send(datagram.as_bytes())
            } else {
                return;
            };
            match result {
                Ok(_) => {
                    self.moved = Instant::now();
                    self.pause = FIRST_PAUSE;
                    if tells {
                        self.told = self.lost;
                        self.tell_at = self.moved + LOOK;
                    } else {
                        self.drop_oldest();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if is_too_long(&error) => {
                    self.drop_oldest();
                    self.lost += 1;
                }
                Err(error) if is_short_of_memory(&error) => {
                    self.try_at = Instant::now() + FIRST_PAUSE;
                    return;
                }
                // Its socket is closed; another one may be there at once.
                Err(_) => {
                    self.connection = None;
                    self.look_at = Instant::now();
                }
            }
        }
    }

    /// Connects to the best receiver that is there; a better one than now is looked for once in [`LOOK`].
    fn look(&mut self) {
        let now = Instant::now();
        let better = match &self.connection {
            None => self.sockets.len(),
            Some((index, _)) if now >= self.look_at => *index,
            Some(_) => 0,
        };
        if better == 0 {
            return;
        }
        self.look_at = now + LOOK;
        let found = self.sockets[..better]
            .iter()
            .enumerate()
            .find_map(|(index, path)| {
                let socket = UnixDatagram::unbound().ok()?;
                socket.connect(path).ok()?;
                Some((index, socket))
            });
        if found.is_some() {
            self.connection = found;
            self.moved = now;
        }
    }

    fn datagram(&self, severity: Severity, message: &str) -> String {
        let priority = u16::from(self.facility.number()) * 8 + severity as u16;
        format!("<{priority}>{}{message}", self.head)
    }

    fn drop_oldest(&mut self) {
        if let Some(datagram) = self.queue.pop_front() {
            self.bytes -= datagram.len() + OVERHEAD;
        }
        if self.queue.is_empty() {
            // A flood's memory is given back.
            self.queue = VecDeque::new();
        }
    }
}

/// The socket takes no message of this length.
fn is_too_long(error: &io::Error) -> bool {
    rustix::io::Errno::from_io_error(error) == Some(rustix::io::Errno::MSGSIZE)
}

/// The kernel has no memory for it just now.
fn is_short_of_memory(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(
        Errno::from_io_error(error),
        Some(Errno::NOBUFS | Errno::NOMEM)
    )
}
