//! Asking a running service, on the device itself, over its Unix socket.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// The most that is read of an answer, in bytes.
const MAX_ANSWER: u64 = 256 * 1024;

/// Sends `GET target` to the service behind `socket` and returns the status code and the body.
///
/// # Errors
/// What the system said, [`io::ErrorKind::WouldBlock`] when the service took longer than `limit`
/// for any one step, or [`io::ErrorKind::InvalidData`] when what came back is not HTTP.
pub fn get(socket: &Path, target: &str, limit: Duration) -> io::Result<(u16, String)> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    stream.write_all(
        format!("GET {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let not_http = || io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP");
    let status = answer
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3)?.parse().ok())
        .ok_or_else(not_http)?;
    let (_, body) = answer.split_once("\r\n\r\n").ok_or_else(not_http)?;
    Ok((status, body.to_owned()))
}
