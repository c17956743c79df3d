//! What stands before every request and after every answer, whatever the route.
//!
//! It sits outside of actix-web's application, where errors have become responses: nothing that a
//! handler does, panic included, gets past it.

use std::any::Any;
use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use actix_http::error::PayloadError;
use actix_http::{ConnectionType, HttpMessage, Payload, Request, Response};
use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::http::{Method, StatusCode, Version, header};
use actix_web::{HttpResponse, ResponseError};
use bytes::Bytes;
use futures_core::Stream;
use percent_encoding::percent_decode_str;
use tokio::time::{Instant, Sleep, sleep_until};

use super::Core;
use super::authorize::authorize;
use super::connection::{ConnectionState, Peer};
use super::host::HostNames;
use super::{in_clear, security_headers};
use crate::api::error::Problem;
use crate::api::is_health_path;
use crate::config::{HttpContent, Limits};

/// One request, from its header to the last byte of its answer.
pub(super) struct Ticket {
    core: Arc<Core>,
    connection: Option<Rc<ConnectionState>>,
}

impl Ticket {
    fn new(core: &Arc<Core>, connection: Option<Rc<ConnectionState>>) -> Self {
        core.lifecycle.request_started();
        if let Some(connection) = &connection {
            connection.request_started();
        }
        Self {
            core: Arc::clone(core),
            connection,
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(connection) = &self.connection {
            connection.request_finished();
        }
        self.core.lifecycle.request_finished();
    }
}

/// An answer's body that holds its request's ticket until it is sent.
pub(super) struct Tracked {
    body: BoxBody,
    _ticket: Ticket,
}

impl MessageBody for Tracked {
    type Error = Box<dyn std::error::Error>;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_next(cx)
    }
}

/// Why a handler ended before it answered.
pub(super) type Panic = Box<dyn Any + Send>;

/// A request on its way to its handler.
pub(super) struct Guarded {
    core: Arc<Core>,
    limits: Arc<Limits>,
    ticket: Ticket,
    refusal: Option<Response<BoxBody>>,
    body: Option<Rc<BodyState>>,
    peer: Peer,
    version: Version,
    method: Method,
    path: String,
}

/// What a generation's configuration says about every request.
pub(super) struct Rules {
    pub(super) limits: Arc<Limits>,
    pub(super) names: Arc<HostNames>,
    /// What is answered in clear.
    pub(super) in_clear: HttpContent,
}

/// Takes a request in. It comes back, its body bounded, if a handler shall see it.
pub(super) fn begin(
    core: &Arc<Core>,
    rules: &Rules,
    connection: Option<Rc<ConnectionState>>,
    request: Request,
) -> (Guarded, Option<Request>) {
    let limits = &rules.limits;
    let early = refuse_early(core, rules, connection.as_deref(), &request);
    let ticket = Ticket::new(core, connection);
    let peer = Peer(request.peer_addr());
    let version = request.version();
    let method = request.method().clone();
    let path = request.path().to_owned();
    let (request, body) = bound_body(request, limits);
    let guarded = Guarded {
        core: Arc::clone(core),
        limits: Arc::clone(limits),
        ticket,
        refusal: early,
        body,
        peer,
        version,
        method,
        path,
    };
    let request = guarded.refusal.is_none().then_some(request);
    (guarded, request)
}

/// Runs `inner`; a panic in it ends here.
pub(super) fn catch<T>(inner: impl FnOnce() -> T) -> Result<T, Panic> {
    catch_unwind(AssertUnwindSafe(inner))
}

impl Guarded {
    /// Waits for the handler's answer, which is there if the request came back from [`begin`].
    pub(super) async fn finish<F, R, B>(
        mut self,
        called: Option<Result<F, Panic>>,
    ) -> Response<Tracked>
    where
        F: Future<Output = Result<R, Response<BoxBody>>>,
        R: Into<Response<B>>,
        B: MessageBody + 'static,
    {
        let answer = match called {
            None => Ok(None),
            Some(Err(panic)) => Err(panic),
            Some(Ok(handler)) => catch_panic(handler).await.map(Some),
        };
        let mut response = match answer {
            Ok(Some(Ok(response))) => response.into().map_body(|_, body| BoxBody::new(body)),
            Ok(Some(Err(response))) => response,
            Ok(None) => self.refusal(),
            Err(panic) => self.panicked(&*panic),
        };
        if let Some(problem) = self
            .body
            .as_ref()
            .and_then(|body| body.problem(&self.limits))
        {
            response = problem.error_response().into();
        }
        // What is left of the body is not read to find the next request behind it.
        let unread = self.body.as_ref().is_some_and(|body| !body.complete.get());
        // Over HTTP/2 the stream alone is reset, by h2.
        let unread = unread && self.version < Version::HTTP_2;
        if unread && let Some(connection) = &self.ticket.connection {
            connection.close_after_answer();
        }
        let distrusted = self.ticket.connection.as_ref().is_some_and(|c| c.ends());
        if unread || distrusted || self.core.lifecycle.is_draining() {
            response
                .head_mut()
                .set_connection_type(ConnectionType::Close);
        }
        if self.version < Version::HTTP_11 && response.body().size() == BodySize::Stream {
            // No chunks for who does not know them (RFC 9112, section 6.1): the body ends with the connection.
            response.head_mut().no_chunking(true);
            response
                .head_mut()
                .set_connection_type(ConnectionType::Close);
        }
        let is_tls = self.ticket.connection.as_ref().is_some_and(|c| c.is_tls());
        security_headers::add(response.headers_mut(), is_tls);
        log::debug!(
            "{}: {} {} {}",
            self.peer,
            self.method,
            self.path,
            response.status().as_u16()
        );
        response.map_body(|_, body| Tracked {
            body,
            _ticket: self.ticket,
        })
    }

    fn refusal(&mut self) -> Response<BoxBody> {
        let refusal = self.refusal.take();
        refusal.unwrap_or_else(|| Problem::not_found().error_response().into())
    }

    fn panicked(&self, panic: &(dyn Any + Send)) -> Response<BoxBody> {
        let reason = panic
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no reason given");
        log::error!(
            "the handler of {} {} panicked: {reason}",
            self.method,
            self.path
        );
        Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the handler of this request failed; the device's log says why",
        )
        .error_response()
        .into()
    }
}

/// Whether the request is answered before any handler sees it.
fn refuse_early(
    core: &Core,
    rules: &Rules,
    connection: Option<&ConnectionState>,
    request: &Request,
) -> Option<Response<BoxBody>> {
    match check(core, rules, connection, request) {
        Ok(None) => None,
        Ok(Some(response)) => Some(response.into()),
        Err(problem) => Some(problem.error_response().into()),
    }
}

fn check(
    core: &Core,
    rules: &Rules,
    connection: Option<&ConnectionState>,
    request: &Request,
) -> Result<Option<HttpResponse>, Problem> {
    let path = request.path();
    if core.lifecycle.is_draining() && !is_health_path(path) {
        return Err(Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "the service is stopping; ask again when it has started",
        ));
    }
    let is_local = connection.is_some_and(ConnectionState::is_local);
    if !is_local {
        let is_in_clear = !connection.is_some_and(ConnectionState::is_private);
        // An authority asks for the name that it is asked to certify, which need not be known yet.
        if is_in_clear && let Some(answer) = in_clear::acme_challenge(core, request) {
            return Ok(Some(answer));
        }
        let host = rules.names.check(request, &core.tls)?;
        if is_in_clear && rules.in_clear == HttpContent::Redirect && !is_health_path(path) {
            return in_clear::redirect(core, request, host).map(Some);
        }
    }
    // SECURITY: a connection may be older than the revocation of the certificate that it began with.
    if let Some(connection) = connection
        && !connection.is_trusted(&core.tls)
    {
        connection.end_after_answer();
        return Err(Problem::new(
            StatusCode::MISDIRECTED_REQUEST,
            "the certificate of this connection is no longer trusted; connect anew with one that is",
        ));
    }
    // SECURITY: actix-web looks for the route behind the decoded path.
    let decoded = percent_decode_str(path).decode_utf8_lossy();
    let principal = authorize(core, connection, request, &decoded)?;
    #[cfg(feature = "policy")]
    super::policy::narrow(core, connection, request, &decoded, &principal)?;
    request.extensions_mut().insert(principal);
    body_too_large(request, &rules.limits).map_or(Ok(None), Err)
}

/// The answer to somebody who asks whether a body may come (`Expect: 100-continue`) that may not.
pub(super) fn refuse_body(
    request: &Request,
    limits: &Limits,
    is_tls: bool,
) -> Option<Response<BoxBody>> {
    let problem = body_too_large(request, limits)?;
    let mut response: Response<BoxBody> = problem.error_response().into();
    security_headers::add(response.headers_mut(), is_tls);
    Some(response)
}

/// 413 by `Content-Length`, before a byte of the body is read.
fn body_too_large(request: &Request, limits: &Limits) -> Option<Problem> {
    let length = request.headers().get(header::CONTENT_LENGTH)?;
    let length: u64 = length.to_str().ok()?.trim().parse().ok()?;
    (length > limits.max_body_bytes as u64).then(|| Problem::body_too_large(limits.max_body_bytes))
}

/// Runs a handler to its end; a panic in it ends there.
async fn catch_panic<F: Future>(handler: F) -> Result<F::Output, Panic> {
    let mut handler = pin!(handler);
    poll_fn(|cx| match catch(|| handler.as_mut().poll(cx)) {
        Ok(poll) => poll.map(Ok),
        Err(panic) => Poll::Ready(Err(panic)),
    })
    .await
}

/// What became of a request's body.
#[derive(Default)]
struct BodyState {
    complete: Cell<bool>,
    too_large: Cell<bool>,
    too_slow: Cell<bool>,
}

impl BodyState {
    fn problem(&self, limits: &Limits) -> Option<Problem> {
        if self.too_large.get() {
            Some(Problem::body_too_large(limits.max_body_bytes))
        } else if self.too_slow.get() {
            Some(Problem::new(
                StatusCode::REQUEST_TIMEOUT,
                format!(
                    "the request's body was not complete after {} s",
                    limits.body_seconds
                ),
            ))
        } else {
            None
        }
    }
}

/// Puts the bounds of size and time around the request's body, if it has one.
fn bound_body(mut request: Request, limits: &Limits) -> (Request, Option<Rc<BodyState>>) {
    let payload = match request.take_payload() {
        Payload::None => return (request, None),
        payload => payload,
    };
    let state = Rc::new(BodyState::default());
    let bounded = BoundedBody {
        payload,
        state: Rc::clone(&state),
        left: limits.max_body_bytes,
        deadline: Instant::now() + Duration::from_secs(limits.body_seconds),
        timer: None,
    };
    let (request, _) = request.replace_payload(Payload::Stream {
        payload: Box::pin(bounded) as actix_http::BoxedPayloadStream,
    });
    (request, Some(state))
}

struct BoundedBody {
    payload: Payload,
    state: Rc<BodyState>,
    left: usize,
    deadline: Instant,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Stream for BoundedBody {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if let Poll::Ready(item) = Pin::new(&mut this.payload).poll_next(cx) {
            return Poll::Ready(match item {
                Some(Ok(chunk)) if chunk.len() > this.left => {
                    this.state.too_large.set(true);
                    Some(Err(PayloadError::Overflow))
                }
                Some(Ok(chunk)) => {
                    this.left -= chunk.len();
                    Some(Ok(chunk))
                }
                None => {
                    this.state.complete.set(true);
                    None
                }
                error => error,
            });
        }
        let deadline = this.deadline;
        let timer = this
            .timer
            .get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        ready!(timer.as_mut().poll(cx));
        this.state.too_slow.set(true);
        let error = std::io::Error::new(std::io::ErrorKind::TimedOut, "the body came too slowly");
        Poll::Ready(Some(Err(PayloadError::Io(error))))
    }
}
