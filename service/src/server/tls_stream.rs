//! From a TCP connection to one over TLS, within a time limit.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::{InvalidMessage, ServerConfig};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How long somebody who spoke in clear is waited for.
const PLAIN_ANSWER: Duration = Duration::from_secs(1);

/// What a browser is told that asked in clear at a port for TLS.
const SPOKEN_IN_CLEAR: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: 50\r\n\
connection: close\r\n\r\nThis port speaks TLS: ask again with https:// ...\n";

/// The protocols of ALPN (RFC 7301) that are spoken here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// HTTP/1.1, also for a client that names none.
    Http1,
    /// HTTP/2.
    Http2,
    /// A handshake was all that the client wanted (RFC 8737).
    None,
}

/// Makes the handshake.
///
/// # Errors
/// Why there is none, in a line for the log.
pub(super) async fn accept(
    socket: TcpStream,
    config: Arc<ServerConfig>,
    limit: Duration,
) -> Result<(TlsStream<TcpStream>, Protocol), String> {
    let handshake = TlsAcceptor::from(config).accept(socket).into_fallible();
    match timeout(limit, handshake).await {
        Ok(Ok(stream)) => {
            let protocol = match stream.get_ref().1.alpn_protocol() {
                Some(b"h2") => Protocol::Http2,
                Some(b"acme-tls/1") => Protocol::None,
                _ => Protocol::Http1,
            };
            Ok((stream, protocol))
        }
        Ok(Err((error, mut socket))) => {
            if is_plain(&error) {
                // Whether it arrives is the client's business.
                let _ = timeout(PLAIN_ANSWER, async {
                    socket.write_all(SPOKEN_IN_CLEAR).await?;
                    socket.shutdown().await
                })
                .await;
                return Err(String::from("spoke in clear to a port for TLS"));
            }
            Err(format!("no TLS handshake: {error}"))
        }
        Err(_) => Err(format!("no TLS handshake within {} s", limit.as_secs())),
    }
}

/// Whether what came was no TLS at all.
fn is_plain(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    matches!(
        inner,
        Some(rustls::Error::InvalidMessage(
            InvalidMessage::InvalidContentType
        ))
    )
}

#[cfg(test)]
mod tests {
    use super::SPOKEN_IN_CLEAR;

    #[test]
    fn the_answer_in_clear_says_its_length() {
        let text = std::str::from_utf8(SPOKEN_IN_CLEAR).unwrap();
        let (header, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(
            header.contains(&format!("content-length: {}\r\n", body.len())),
            "{}",
            body.len()
        );
    }
}
