//! HTTP/2 (RFC 9113) on one connection, with a bound on everything that a client may cost.
//!
//! actix-http's own dispatcher has no bound on streams, header lists, idle time or slow readers, and no way to
//! end; the bounds here are those of HTTP/1.1, and the requests go the same way.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use actix_http::error::PayloadError;
use actix_http::{BoxedPayloadStream, Payload, Request, Response};
use actix_web::body::{BodySize, MessageBody};
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode, Version};
use bytes::Bytes;
use futures_core::Stream;
use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use crate::config::Limits;

/// Requests at a time on one connection. A browser has about as many under way for a page.
const MAX_STREAMS: u32 = 32;
/// What a client may send before somebody reads it, on a stream and on the whole connection, in bytes.
const WINDOW: u32 = 64 * 1024;
/// What waits to be sent on a stream, in bytes.
const SEND_BUFFER: usize = 32 * 1024;
/// The most that is sent at a time, in bytes.
const CHUNK: usize = 16 * 1024;
/// How long a client has to close after it was told to go away.
const GOODBYE: Duration = Duration::from_secs(2);

/// Serves requests with `handle` until the client goes, is idle for too long, or `close_idle` becomes true.
///
/// `io` bounds the time of a write that does not go on.
pub(super) async fn serve<T, H, F, B>(
    io: T,
    peer: Option<SocketAddr>,
    limits: &Limits,
    mut close_idle: watch::Receiver<bool>,
    handle: H,
) -> Result<(), h2::Error>
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
    H: Fn(Request) -> F,
    F: Future<Output = Response<B>> + 'static,
    B: MessageBody + 'static,
{
    let handshake = Builder::new()
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(u32::try_from(limits.max_header_bytes).unwrap_or(u32::MAX))
        .initial_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .handshake(io);
    let header = Duration::from_secs(limits.header_seconds);
    let mut connection = tokio::select! {
        connection = timeout(header, handshake) => match connection {
            Ok(connection) => connection?,
            Err(_) => return Ok(()),
        },
        _ = close_idle.wait_for(|close| *close) => return Ok(()),
    };
    let idle = Duration::from_secs(limits.keep_alive_seconds.max(1));
    let write = Duration::from_secs(limits.write_seconds);
    let activity = Rc::new(Activity::new());
    let mut deadline = Instant::now() + idle;
    let mut leaving = false;
    loop {
        tokio::select! {
            accepted = connection.accept() => match accepted {
                None => return Ok(()),
                Some(Err(error)) => return Err(error),
                Some(Ok((request, mut respond))) => {
                    let head_only = request.method() == Method::HEAD;
                    let answer = handle(convert(request, peer));
                    let busy = activity.begin();
                    actix_rt::spawn(async move {
                        // A request that its client took back is not worked on any longer: its place among the
                        // streams is free again, and handlers must not pile up (CVE-2023-44487).
                        let answer = tokio::select! {
                            answer = answer => answer,
                            _ = poll_fn(|cx| respond.poll_reset(cx)) => return,
                        };
                        let sent = send(answer, respond, head_only, write).await;
                        if let Err(error) = sent {
                            log::debug!("an answer over HTTP/2 ended early: {error}");
                        }
                        drop(busy);
                    });
                }
            },
            () = sleep_until(deadline) => {
                if leaving && activity.is_idle() {
                    return Ok(());
                }
                if !leaving && activity.idle_since().is_some_and(|since| since.elapsed() >= idle) {
                    connection.graceful_shutdown();
                    leaving = true;
                }
                deadline = match (leaving, activity.idle_since()) {
                    (true, _) => Instant::now() + GOODBYE,
                    (false, Some(since)) => since + idle,
                    (false, None) => Instant::now() + idle,
                };
            }
            _ = close_idle.wait_for(|close| *close), if !leaving => {
                connection.graceful_shutdown();
                leaving = true;
                deadline = Instant::now() + GOODBYE;
            }
        }
    }
}

/// How many requests are being served, and since when none is.
struct Activity {
    count: Cell<usize>,
    idle_since: Cell<Instant>,
}

impl Activity {
    fn new() -> Self {
        Self {
            count: Cell::new(0),
            idle_since: Cell::new(Instant::now()),
        }
    }

    fn begin(self: &Rc<Self>) -> Busy {
        self.count.set(self.count.get() + 1);
        Busy(Rc::clone(self))
    }

    fn is_idle(&self) -> bool {
        self.count.get() == 0
    }

    fn idle_since(&self) -> Option<Instant> {
        self.is_idle().then(|| self.idle_since.get())
    }
}

struct Busy(Rc<Activity>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.count.set(self.0.count.get() - 1);
        self.0.idle_since.set(Instant::now());
    }
}

/// The request as actix knows it.
fn convert(request: http::Request<RecvStream>, peer: Option<SocketAddr>) -> Request {
    let (parts, body) = request.into_parts();
    let payload = if body.is_end_stream() {
        Payload::None
    } else {
        Payload::Stream {
            payload: Box::pin(Body(body)) as BoxedPayloadStream,
        }
    };
    let mut request = Request::with_payload(payload);
    let head = request.head_mut();
    head.uri = parts.uri;
    head.method = parts.method;
    head.version = parts.version;
    head.headers = parts.headers.into();
    head.peer_addr = peer;
    request
}

/// A request's body; what is read makes room for more.
struct Body(RecvStream);

impl Stream for Body {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let body = &mut self.get_mut().0;
        Poll::Ready(match ready!(body.poll_data(cx)) {
            Some(Ok(chunk)) => {
                let released = body.flow_control().release_capacity(chunk.len());
                Some(released.map(|()| chunk).map_err(failed))
            }
            Some(Err(error)) => Some(Err(failed(error))),
            None => None,
        })
    }
}

fn failed(error: h2::Error) -> PayloadError {
    PayloadError::Io(io::Error::other(error))
}

/// Sends an answer; a client that takes nothing of it for `limit` gets no more.
async fn send<B: MessageBody>(
    response: Response<B>,
    mut respond: SendResponse<Bytes>,
    head_only: bool,
    limit: Duration,
) -> Result<(), String> {
    let (response, body) = response.into_parts();
    let size = body.size();
    let head = convert_head(&response, size);
    let is_whole = head_only || size.is_eof();
    let mut stream = respond
        .send_response(head, is_whole)
        .map_err(|error| error.to_string())?;
    if is_whole {
        return Ok(());
    }
    let mut body = pin!(body);
    loop {
        // A client that is no longer interested says so, also while there is nothing to send.
        let next = poll_fn(|cx| {
            if let Poll::Ready(reset) = stream.poll_reset(cx) {
                return Poll::Ready(Err(match reset {
                    Ok(reason) => format!("reset by the client: {reason}"),
                    Err(error) => error.to_string(),
                }));
            }
            body.as_mut().poll_next(cx).map(Ok)
        });
        match next.await? {
            Some(Ok(chunk)) => send_chunk(&mut stream, chunk, limit).await?,
            Some(Err(error)) => {
                stream.send_reset(Reason::INTERNAL_ERROR);
                return Err(error.into().to_string());
            }
            None => {
                let end = stream.send_data(Bytes::new(), true);
                return end.map_err(|error| error.to_string());
            }
        }
    }
}

async fn send_chunk(
    stream: &mut SendStream<Bytes>,
    mut chunk: Bytes,
    limit: Duration,
) -> Result<(), String> {
    while !chunk.is_empty() {
        stream.reserve_capacity(chunk.len().min(CHUNK));
        let room = timeout(limit, poll_fn(|cx| stream.poll_capacity(cx))).await;
        let room = match room {
            Ok(Some(Ok(room))) => room,
            Ok(Some(Err(error))) => return Err(error.to_string()),
            Ok(None) => return Err(String::from("closed by the client")),
            Err(_) => {
                stream.send_reset(Reason::CANCEL);
                return Err(format!("nothing of it was taken for {} s", limit.as_secs()));
            }
        };
        let part = chunk.split_to(room.min(chunk.len()));
        stream
            .send_data(part, false)
            .map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// The head as HTTP/2 has it: without what is about the connection (RFC 9113, section 8.2.2).
fn convert_head(response: &Response<()>, size: BodySize) -> http::Response<()> {
    let head = response.head();
    let mut converted = http::Response::new(());
    *converted.status_mut() = head.status;
    *converted.version_mut() = Version::HTTP_2;
    let headers = converted.headers_mut();
    headers.reserve(head.headers.len() + 2);
    for (name, value) in head.headers.iter() {
        if !is_of_the_connection(name) {
            headers.append(name, value.clone());
        }
    }
    if let BodySize::Sized(length) = size
        && head.status != StatusCode::NO_CONTENT
    {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    if !headers.contains_key(header::DATE) {
        let now = httpdate::fmt_http_date(SystemTime::now());
        if let Ok(now) = HeaderValue::try_from(now) {
            headers.insert(header::DATE, now);
        }
    }
    converted
}

fn is_of_the_connection(name: &HeaderName) -> bool {
    *name == header::CONNECTION
        || *name == header::TRANSFER_ENCODING
        || *name == header::UPGRADE
        || *name == header::CONTENT_LENGTH
        || name == "keep-alive"
        || name == "proxy-connection"
}
