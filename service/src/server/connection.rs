//! One client's byte stream, with a bound on what the client may cost before and while it is served.
//!
//! actix-http bounds the header's time on a connection's first request only, its size at 128 KiB, and
//! writing not at all. [`Connection`] sits between it and the socket (or, later, the TLS stream) and
//! knows from the request guard, by way of [`ConnectionState`], whether a header is being awaited.

use std::cell::{Cell, OnceCell};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::http::StatusCode;
use bytes::Bytes;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use super::security_headers;
use crate::api::error::Problem;
use crate::config::Limits;
use crate::tls::{ClientIdentity, Tls};

/// How long a refused client has to read the refusal before the connection is closed.
const LINGER: Duration = Duration::from_secs(1);
/// How many bytes of a refused client are read and thrown away, so that closing does not destroy
/// the refusal on its way (RFC 9112, section 9.6).
const LINGER_BYTES: u64 = 256 * 1024;

/// How long a client's certificate is good for further requests before it is verified again: it may end meanwhile.
const VERIFIED_FOR: Duration = Duration::from_secs(60);

/// What the guard tells the stream about the requests on it. Both live on one worker's thread.
#[derive(Default)]
pub(super) struct ConnectionState {
    in_flight: Cell<usize>,
    header: Cell<HeaderScan>,
    /// When the header must be complete.
    header_deadline: Cell<Option<Instant>>,
    /// The last answer on this connection has been decided; what still comes is thrown away.
    closing: Cell<bool>,
    /// The client has to connect anew; each answer says so.
    ends: Cell<bool>,
    /// It came over the device's own socket.
    local: Cell<bool>,
    /// Its bytes are HTTP/2's, which bounds its headers itself.
    http2: Cell<bool>,
    /// It is encrypted.
    secure: Cell<bool>,
    /// The certificate that the client showed.
    certificate: OnceCell<ClientCertificate>,
}

impl ConnectionState {
    pub(super) fn request_started(&self) {
        self.in_flight.set(self.in_flight.get() + 1);
        self.header.take();
        self.header_deadline.set(None);
    }

    pub(super) fn request_finished(&self) {
        self.in_flight.set(self.in_flight.get() - 1);
        self.header.take();
    }

    pub(super) fn mark_local(&self) {
        self.local.set(true);
    }

    pub(super) fn is_local(&self) -> bool {
        self.local.get()
    }

    pub(super) fn mark_http2(&self) {
        self.http2.set(true);
    }

    pub(super) fn is_tls(&self) -> bool {
        self.secure.get()
    }

    /// Whether what is said here can only be read by the two sides of it.
    pub(super) fn is_private(&self) -> bool {
        self.secure.get() || self.local.get()
    }

    pub(super) fn mark_secure(&self, certificate: Option<ClientCertificate>) {
        self.secure.set(true);
        if let Some(certificate) = certificate {
            // Told once, after the handshake.
            let _ = self.certificate.set(certificate);
        }
    }

    pub(super) fn client(&self) -> Option<&ClientIdentity> {
        self.certificate.get()?.identity.as_ref()
    }

    /// Whether the client's certificate, if it showed one, is still good: it may have ended, or have been revoked,
    /// since the handshake.
    pub(super) fn is_trusted(&self, tls: &Tls) -> bool {
        self.certificate
            .get()
            .is_none_or(|certificate| certificate.is_trusted(tls))
    }

    /// Whoever is at the other end has to connect anew.
    pub(super) fn end_after_answer(&self) {
        self.ends.set(true);
    }

    pub(super) fn ends(&self) -> bool {
        self.ends.get()
    }

    pub(super) fn close_after_answer(&self) {
        self.closing.set(true);
    }

    /// The last answer has been given. actix-http itself would go on reading an unread chunked body
    /// for as long as its sender likes.
    fn lingers(&self) -> bool {
        self.closing.get() && self.in_flight.get() == 0
    }

    fn awaits_header(&self) -> bool {
        self.in_flight.get() == 0
            && !self.closing.get()
            && !self.http2.get()
            && !self.header.get().complete
    }
}

/// What a client showed in the handshake.
pub(super) struct ClientCertificate {
    chain: Vec<CertificateDer<'static>>,
    identity: Option<ClientIdentity>,
    /// By which trust it was last verified, and when; nothing for a resumed session, which verifies nothing.
    verified: Cell<Option<(u64, Instant)>>,
}

impl ClientCertificate {
    /// `chain` of a handshake that was `verified` by that trust just now.
    pub(super) fn new(tls: &Tls, chain: &[CertificateDer<'static>], verified: Option<u64>) -> Self {
        Self {
            chain: chain.to_vec(),
            identity: tls.client_identity(chain),
            verified: Cell::new(verified.map(|trust| (trust, Instant::now()))),
        }
    }

    fn is_trusted(&self, tls: &Tls) -> bool {
        let trust = tls.trust_number();
        let is_fresh = self
            .verified
            .get()
            .is_some_and(|(by, at)| by == trust && at.elapsed() < VERIFIED_FOR);
        if is_fresh {
            return true;
        }
        let trusted = tls.still_verifies(&self.chain);
        self.verified.set(trusted.then(|| (trust, Instant::now())));
        trusted
    }
}

/// Finds the end of a header, the first empty line after something (RFC 9112, section 2.1).
#[derive(Clone, Copy, Default)]
struct HeaderScan {
    bytes: usize,
    line_has_text: bool,
    begun: bool,
    complete: bool,
}

impl HeaderScan {
    fn feed(mut self, chunk: &[u8]) -> Self {
        for &byte in chunk {
            self.bytes += 1;
            match byte {
                b'\n' if self.begun && !self.line_has_text => {
                    self.complete = true;
                    break;
                }
                b'\n' => self.line_has_text = false,
                b'\r' => {}
                _ => {
                    self.line_has_text = true;
                    self.begun = true;
                }
            }
        }
        self
    }
}

/// A place among a bounded number of connections; given back when it is dropped.
pub(super) struct Place {
    total: Arc<AtomicUsize>,
    generation: Arc<AtomicUsize>,
}

impl Place {
    /// Takes a place, if fewer than `limit` of the service's `total` are taken.
    pub(super) fn take(
        total: &Arc<AtomicUsize>,
        generation: &Arc<AtomicUsize>,
        limit: usize,
    ) -> Option<Self> {
        total
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |taken| {
                (taken < limit).then_some(taken + 1)
            })
            .ok()?;
        generation.fetch_add(1, Ordering::SeqCst);
        Some(Self {
            total: Arc::clone(total),
            generation: Arc::clone(generation),
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.generation.fetch_sub(1, Ordering::SeqCst);
        self.total.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A deadline that costs no timer operation while it only moves forward.
#[derive(Default)]
struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    /// Whether `deadline` has passed; otherwise the task is woken when it does.
    fn has_passed(&mut self, deadline: Instant, cx: &mut Context<'_>) -> bool {
        loop {
            let sleep = self
                .0
                .get_or_insert_with(|| Box::pin(sleep_until(deadline)));
            if sleep.deadline() > deadline {
                sleep.as_mut().reset(deadline);
            }
            if sleep.as_mut().poll(cx).is_pending() {
                return false;
            }
            if Instant::now() >= deadline {
                return true;
            }
            sleep.as_mut().reset(deadline);
        }
    }
}

/// A stream with its bounds.
pub(super) struct Connection<T: AsyncRead + AsyncWrite + Unpin + 'static> {
    /// Gone once the client has been refused: the refusal has it.
    io: Option<(T, Option<Place>)>,
    state: Rc<ConnectionState>,
    limits: Arc<Limits>,
    peer: Option<SocketAddr>,
    read_timer: Timer,
    write_timer: Timer,
    write_deadline: Option<Instant>,
    /// When throwing away what comes after the last answer ends, and how much has been.
    linger_deadline: Option<Instant>,
    linger_bytes: u64,
}

impl<T: AsyncRead + AsyncWrite + Unpin + 'static> Connection<T> {
    pub(super) fn new(
        io: T,
        place: Option<Place>,
        peer: Option<SocketAddr>,
        limits: &Arc<Limits>,
    ) -> Self {
        let state = ConnectionState::default();
        let header = Duration::from_secs(limits.header_seconds);
        state.header_deadline.set(Some(Instant::now() + header));
        Self {
            io: Some((io, place)),
            state: Rc::new(state),
            limits: Arc::clone(limits),
            peer,
            read_timer: Timer::default(),
            write_timer: Timer::default(),
            write_deadline: None,
            linger_deadline: None,
            linger_bytes: 0,
        }
    }

    pub(super) fn state(&self) -> Rc<ConnectionState> {
        Rc::clone(&self.state)
    }

    /// Answers with `problem` outside of the HTTP dispatcher, which sees the end of the stream.
    fn refuse(&mut self, problem: &Problem) {
        if let Some((io, place)) = self.io.take() {
            log::debug!("{}: {problem}", Peer(self.peer));
            let answer = problem.to_http1(security_headers::lines(self.state.is_tls()));
            actix_rt::spawn(async move {
                refuse(io, answer).await;
                drop(place);
            });
        }
    }

    /// Whether the time to throw away what still comes is over; otherwise the task is woken then.
    fn lingered_enough(&mut self, cx: &mut Context<'_>) -> bool {
        let deadline = *self
            .linger_deadline
            .get_or_insert_with(|| Instant::now() + LINGER);
        self.read_timer.has_passed(deadline, cx)
    }

    /// Arms the write deadline when a write cannot go on, and says whether it has passed.
    fn write_blocked(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let limit = Duration::from_secs(self.limits.write_seconds);
        let deadline = *self
            .write_deadline
            .get_or_insert_with(|| Instant::now() + limit);
        if self.write_timer.has_passed(deadline, cx) {
            log::debug!(
                "{}: took nothing of its answer for {} s; closed",
                Peer(self.peer),
                limit.as_secs()
            );
            return Poll::Ready(io::ErrorKind::TimedOut.into());
        }
        Poll::Pending
    }
}

/// Says who the client is, or that it is on the device itself.
pub(super) struct Peer(pub(super) Option<SocketAddr>);

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(address) => address.fmt(f),
            None => f.write_str("local client"),
        }
    }
}

/// Whether these bytes are what actix-http says, past the guard, to what it cannot parse: a 400 that says nothing.
fn is_bare_refusal(bytes: &[u8]) -> bool {
    const NO_BODY: &[u8] = b"content-length: 0\r\n";
    let first = bytes.strip_prefix(b"HTTP/1.1 400 Bad Request\r\n");
    // Every answer of the guard's has a body, and more to say.
    first.is_some_and(|rest| rest.starts_with(NO_BODY))
}

/// Sends a last answer and closes, within [`LINGER`].
pub(super) async fn refuse<T: AsyncRead + AsyncWrite + Unpin>(mut io: T, answer: Bytes) {
    let _ = timeout(LINGER, async {
        io.write_all(&answer).await?;
        io.shutdown().await?;
        tokio::io::copy(&mut io.take(LINGER_BYTES), &mut tokio::io::sink()).await
    })
    .await;
}

impl<T: AsyncRead + AsyncWrite + Unpin + 'static> AsyncRead for Connection<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let Some((io, _)) = this.io.as_mut() else {
            return Poll::Ready(Ok(()));
        };
        let before = buf.filled().len();
        match Pin::new(io).poll_read(cx, buf) {
            Poll::Pending if this.state.lingers() => {
                if this.lingered_enough(cx) {
                    Poll::Ready(Ok(()))
                } else {
                    Poll::Pending
                }
            }
            Poll::Ready(Ok(())) if this.state.lingers() => {
                this.linger_bytes += (buf.filled().len() - before) as u64;
                if this.linger_bytes > LINGER_BYTES {
                    buf.set_filled(before);
                }
                Poll::Ready(Ok(()))
            }
            Poll::Pending => {
                if this.state.awaits_header()
                    && let Some(deadline) = this.state.header_deadline.get()
                    && this.read_timer.has_passed(deadline, cx)
                {
                    this.refuse(&Problem::new(
                        StatusCode::REQUEST_TIMEOUT,
                        format!(
                            "the request's header was not complete after {} s",
                            this.limits.header_seconds
                        ),
                    ));
                    return Poll::Ready(Ok(()));
                }
                Poll::Pending
            }
            Poll::Ready(Ok(())) if this.state.awaits_header() => {
                let chunk = &buf.filled()[before..];
                let header = this.state.header.get().feed(chunk);
                if header.bytes > this.limits.max_header_bytes {
                    buf.set_filled(before);
                    this.refuse(&Problem::new(
                        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                        format!(
                            "the request's header is larger than {} bytes",
                            this.limits.max_header_bytes
                        ),
                    ));
                    return Poll::Ready(Ok(()));
                }
                if !chunk.is_empty() && this.state.header_deadline.get().is_none() {
                    let limit = Duration::from_secs(this.limits.header_seconds);
                    this.state.header_deadline.set(Some(Instant::now() + limit));
                }
                this.state.header.set(header);
                Poll::Ready(Ok(()))
            }
            other => other,
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin + 'static> AsyncWrite for Connection<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if is_bare_refusal(bytes) && !this.state.http2.get() && this.io.is_some() {
            this.refuse(&Problem::new(
                StatusCode::BAD_REQUEST,
                "this is no HTTP/1.1 request, or one whose end cannot be told",
            ));
            return Poll::Ready(Ok(bytes.len()));
        }
        let Some((io, _)) = this.io.as_mut() else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        match Pin::new(io).poll_write(cx, bytes) {
            Poll::Pending => this.write_blocked(cx).map(Err),
            ready => {
                this.write_deadline = None;
                ready
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let Some((io, _)) = this.io.as_mut() else {
            return Poll::Ready(Ok(()));
        };
        match Pin::new(io).poll_flush(cx) {
            Poll::Pending => this.write_blocked(cx).map(Err),
            ready => {
                if this.state.lingers() {
                    // Nothing may ever come again; the timer alone then brings about the end.
                    this.lingered_enough(cx);
                }
                ready
            }
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let Some((io, _)) = this.io.as_mut() else {
            return Poll::Ready(Ok(()));
        };
        match Pin::new(io).poll_shutdown(cx) {
            Poll::Pending => this.write_blocked(cx).map(Err),
            ready => ready,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::HeaderScan;

    #[test]
    fn the_end_of_a_header_is_found_wherever_the_stream_is_cut() {
        for (text, expected) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\nbody", Some(27)),
            ("GET / HTTP/1.1\nHost: a\n\n", Some(24)),
            ("\r\n\r\nGET / HTTP/1.1\r\n\r\n", Some(22)),
            ("GET / HTTP/1.1\r\nHost: a\r\n", None),
            ("\r\n\r\n\r\n", None),
        ] {
            for cut in 0..text.len() {
                let mut scan = HeaderScan::default().feed(&text.as_bytes()[..cut]);
                if !scan.complete {
                    scan = scan.feed(&text.as_bytes()[cut..]);
                }
                assert_eq!(
                    scan.complete.then_some(scan.bytes),
                    expected,
                    "{text:?} cut at {cut}"
                );
            }
        }
    }
}
