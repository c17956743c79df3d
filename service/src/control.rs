//! Asking a running service, on the device itself, over its Unix socket.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// The most that is read of an answer, in bytes.
const MAX_ANSWER: u64 = 8 * 1024 * 1024;

/// The longest header that is read of an answer, in bytes.
const MAX_HEADER: u64 = 16 * 1024;

/// Sends `GET target` to the service behind `socket` and returns the status code and the body.
///
/// # Errors
/// What the system said, [`io::ErrorKind::WouldBlock`] when the service took longer than `limit`
/// for any one step, or [`io::ErrorKind::InvalidData`] when what came back is not HTTP.
pub fn get(socket: &Path, target: &str, limit: Duration) -> io::Result<(u16, String)> {
    let (status, body) = open(socket, target, None, limit)?;
    let mut answer = Vec::new();
    body.take(MAX_ANSWER).read_to_end(&mut answer)?;
    Ok((status, String::from_utf8_lossy(&answer).into_owned()))
}

/// As [`get`], but the body is read as it comes, `limit` being the longest pause in it. A stream of events
/// goes on after the one of `last_event_id`.
///
/// # Errors
/// As [`get`].
pub fn open(
    socket: &Path,
    target: &str,
    last_event_id: Option<&str>,
    limit: Duration,
) -> io::Result<(u16, BufReader<UnixStream>)> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    // HTTP/1.0: the body ends with the connection and comes without chunks in between.
    let last = last_event_id.map_or_else(String::new, |id| format!("last-event-id: {id}\r\n"));
    stream
        .write_all(format!("GET {target} HTTP/1.0\r\nhost: localhost\r\n{last}\r\n").as_bytes())?;
    let mut answer = BufReader::new(stream);
    let mut header = Vec::new();
    while !header.ends_with(b"\r\n\r\n") {
        let left = MAX_HEADER.saturating_sub(header.len() as u64);
        if answer.by_ref().take(left).read_until(b'\n', &mut header)? == 0 {
            return Err(not_http());
        }
    }
    let status = String::from_utf8_lossy(&header)
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.get(2..5)?.parse().ok())
        .ok_or_else(not_http)?;
    Ok((status, answer))
}

fn not_http() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP")
}
