//! The socket on which other programs of the device put their records into the log: `<PRI>tag[pid]: text`
//! (RFC 3164, as `/dev/log` has it), one a datagram. `edgeweb logpipe` and `logger --socket` write there.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::entry::{MAX_MESSAGE, UNKNOWN_PID};
use super::severity::Severity;

/// How often the thread looks whether it should end.
const POLL: Duration = Duration::from_millis(500);
const STACK: usize = 64 * 1024;
/// The longest datagram that is read; the rest of a longer one is cut off.
const MAX_DATAGRAM: usize = 2 * MAX_MESSAGE;
/// What a program is called that does not say so.
const NAMELESS: &str = "unknown";

/// The socket and the thread that reads it. Dropping it ends both.
pub(crate) struct LogInput {
    path: PathBuf,
    ending: Arc<AtomicBool>,
}

impl LogInput {
    /// Binds `path` for everybody on the device, in place of a socket that was left there.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn bind(path: &Path) -> io::Result<Self> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let socket = UnixDatagram::bind(path)?;
        let input = Self {
            path: path.to_owned(),
            ending: Arc::default(),
        };
        fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
        socket.set_read_timeout(Some(POLL))?;
        let ending = Arc::clone(&input.ending);
        thread::Builder::new()
            .name(String::from("log-input"))
            .stack_size(STACK)
            .spawn(move || read(&socket, &ending))?;
        Ok(input)
    }
}

impl Drop for LogInput {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        // Somebody else may have put another one there; nobody can be told any more.
        let _ = fs::remove_file(&self.path);
    }
}

fn read(socket: &UnixDatagram, ending: &AtomicBool) {
    let mut buffer = [0; MAX_DATAGRAM];
    while !ending.load(Ordering::Relaxed) {
        match socket.recv(&mut buffer) {
            Ok(length) => {
                let text = String::from_utf8_lossy(&buffer[..length]);
                let record = parse(&text);
                super::submit(record.severity, record.tag, record.pid, record.text);
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock
                        | io::ErrorKind::TimedOut
                        | io::ErrorKind::Interrupted
                ) => {}
            Err(error) => {
                log::warn!("the socket for other programs' records: {error}");
                thread::sleep(POLL);
            }
        }
    }
}

#[derive(Debug, PartialEq)]
struct Record<'a> {
    severity: Severity,
    tag: &'a str,
    pid: u32,
    text: &'a str,
}

/// Reads a datagram. What is not written as it should be is text, and loses nothing.
fn parse(datagram: &str) -> Record<'_> {
    let datagram = datagram.trim_end_matches(['\n', '\0']);
    let (severity, rest) = priority(datagram).unwrap_or((Severity::Notice, datagram));
    let rest = without_timestamp(rest);
    let (tag, pid, text) = tag(rest).unwrap_or((NAMELESS, 0, rest));
    Record {
        severity,
        tag,
        // 0 is this process itself.
        pid: if pid == 0 { UNKNOWN_PID } else { pid },
        text,
    }
}

fn priority(text: &str) -> Option<(Severity, &str)> {
    let (number, rest) = text.strip_prefix('<')?.split_once('>')?;
    let number: u8 = number.parse().ok().filter(|number| *number < 192)?;
    Some((Severity::from_number(number & 7)?, rest))
}

/// What `logger` and libc put there; when it came is when it was said.
fn without_timestamp(text: &str) -> &str {
    let bytes = text.as_bytes();
    let is_timestamp = bytes.len() > 16
        && [3, 6, 15].iter().all(|at| bytes[*at] == b' ')
        && [9, 12].iter().all(|at| bytes[*at] == b':')
        && bytes[..16].is_ascii();
    if is_timestamp { &text[16..] } else { text }
}

fn tag(text: &str) -> Option<(&str, u32, &str)> {
    let (head, rest) = text.split_once(':')?;
    let (tag, pid) = match head.strip_suffix(']').and_then(|head| head.split_once('[')) {
        Some((tag, pid)) => (tag, pid.parse().ok()?),
        None => (head, 0),
    };
    super::is_tag(tag).then(|| (tag, pid, rest.strip_prefix(' ').unwrap_or(rest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_is_priority_tag_process_and_text() {
        use Severity::{Critical, Error, Info, Notice};
        let none = UNKNOWN_PID;
        for (datagram, severity, tag, pid, text) in [
            ("<11>pump[42]: it stopped", Error, "pump", 42, "it stopped"),
            (
                "<10>pump: it stopped\n",
                Critical,
                "pump",
                none,
                "it stopped",
            ),
            (
                "<14>Nov 23 07:00:01 pump[42]: a: b",
                Info,
                "pump",
                42,
                "a: b",
            ),
            ("it stopped", Notice, NAMELESS, none, "it stopped"),
            ("<999>x: y", Notice, NAMELESS, none, "<999>x: y"),
            (
                "<14>no tag here: text",
                Info,
                NAMELESS,
                none,
                "no tag here: text",
            ),
            ("<14>pump[x]: text", Info, NAMELESS, none, "pump[x]: text"),
            ("", Notice, NAMELESS, none, ""),
            ("<14>pump[0]: text", Info, "pump", none, "text"),
        ] {
            let expected = Record {
                severity,
                tag,
                pid,
                text,
            };
            assert_eq!(parse(datagram), expected, "{datagram}");
        }
    }
}
