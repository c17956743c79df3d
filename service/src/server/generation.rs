//! One generation of the running service: sockets, workers and limits as one configuration has them.
//!
//! A reload starts a new generation on the same sockets and lets the old one finish what it serves,
//! so that every setting may change and no connection is dropped for it.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix_http::error::DispatchError;
use actix_http::{HttpService, Request, Response};
use actix_service::{
    IntoServiceFactory, Service, ServiceFactory, ServiceFactoryExt, fn_factory, fn_service,
    map_config,
};
use actix_web::App;
use actix_web::body::BoxBody;
use actix_web::dev::{AppConfig, ServiceResponse};
use actix_web::web::{self, Data};
use bytes::Bytes;
use rustls::{HandshakeKind, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_rustls::server::TlsStream;

use super::Core;
use super::connection::{ClientCertificate, Connection, ConnectionState, Peer, Place, refuse};
use super::guard::{self, Rules};
use super::host::HostNames;
use super::http2;
use super::listeners::{Listener, Speaks};
use super::security_headers;
use super::tls_stream::{self, Protocol};
use crate::api::error::{Problem, problem};
use crate::config::{ClientCertificates, Config};
use crate::web::Pages;

/// Connections at a time on the device's own socket.
const MAX_CONTROL_CONNECTIONS: usize = 16;
/// Refusals at a time that wait for their client to read them; beyond that it is just closed.
const MAX_REFUSALS: usize = 64;
/// Threads a worker may use for files. Each costs a stack.
const BLOCKING_THREADS: usize = 4;
/// How long a client that was answered has to close its side.
const DISCONNECT: Duration = Duration::from_secs(2);
/// How long an old generation goes on before it closes what is idle. A connection that it accepted in its last
/// moment is on its way to a worker, or waits for its first request to be read; neither can be seen from here, and
/// closed now its client would lose that request. The accept thread of a busy device may take as long to wake.
const SETTLE: Duration = Duration::from_secs(1);
/// How often the end of the last connections is looked for.
const POLL: Duration = Duration::from_millis(20);

/// What every worker of a generation needs.
#[derive(Clone)]
struct Setup {
    core: Arc<Core>,
    pages: Arc<Pages>,
    rules: Arc<Rules>,
    /// Connections of this generation, the device's own included.
    connections: Arc<AtomicUsize>,
    refusals: Arc<AtomicUsize>,
    /// Closes idle connections when it becomes true.
    close_idle: watch::Receiver<bool>,
}

/// Running workers.
pub(super) struct Generation {
    handle: actix_server::ServerHandle,
    running: JoinHandle<io::Result<()>>,
    connections: Arc<AtomicUsize>,
    close_idle: watch::Sender<bool>,
}

impl Generation {
    /// Starts workers for `config` on `listeners`. Called inside of an actix system.
    pub(super) fn start(
        core: &Arc<Core>,
        config: &Config,
        listeners: &[Listener],
        control: &UnixListener,
    ) -> io::Result<Self> {
        let (close_idle, close_idle_seen) = watch::channel(false);
        let setup = Setup {
            core: Arc::clone(core),
            pages: Arc::new(Pages::new(&core.mounts, &config.overlay)),
            rules: Arc::new(Rules {
                limits: Arc::new(config.limits.clone()),
                names: HostNames::new(&config.server.host_names),
                in_clear: config.http.content,
            }),
            connections: Arc::default(),
            refusals: Arc::default(),
            close_idle: close_idle_seen,
        };
        let connections = Arc::clone(&setup.connections);
        let mut server = actix_server::Server::build()
            .workers(config.server.workers)
            .worker_max_blocking_threads(BLOCKING_THREADS)
            // The bound is ours: one connection more is answered with 503 instead of left waiting.
            .max_concurrent_connections(usize::MAX >> 1)
            .disable_signals();
        for listener in listeners {
            let socket: TcpListener = listener.socket.try_clone()?;
            let setup = setup.clone();
            server = match listener.speaks {
                Speaks::Http => {
                    server.listen("http", socket, move || http_service(setup.clone()))?
                }
                Speaks::Https(clients) => server.listen("https", socket, move || {
                    https_service(setup.clone(), clients)
                })?,
            };
        }
        server = server.listen_uds("control", control.try_clone()?, move || {
            control_service(setup.clone())
        })?;
        let server = server.run();
        Ok(Self {
            handle: server.handle(),
            running: actix_rt::spawn(server),
            connections,
            close_idle,
        })
    }

    /// Waits for an end that nobody asked for, and says why it came.
    pub(super) async fn ended(&mut self) -> String {
        match (&mut self.running).await {
            Ok(Ok(())) => String::from("no reason given"),
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        }
    }

    /// Stops accepting. What was accepted a moment ago has reached its worker when this returns.
    pub(super) async fn stop_accepting(&self) {
        self.handle.pause().await;
        // The accept thread takes the command up when it wakes, which nothing here can see.
        sleep(POLL).await;
    }

    /// Closes the connections on which nothing is being served, now and from now on.
    pub(super) fn close_idle(&self) {
        self.close_idle.send_replace(true);
    }

    /// Waits until every connection is closed.
    pub(super) async fn no_connections(&self) {
        while self.open_connections() > 0 {
            sleep(POLL).await;
        }
    }

    /// After a reload: lets what is being served come to its end until `deadline`, and stops.
    pub(super) async fn retire(self, deadline: Instant, core: Arc<Core>) -> usize {
        let settled = deadline.min(Instant::now() + SETTLE);
        while Instant::now() < settled && !core.lifecycle.is_hurried() {
            sleep(POLL).await;
        }
        self.close_idle();
        while self.open_connections() > 0
            && Instant::now() < deadline
            && !core.lifecycle.is_hurried()
        {
            sleep(POLL).await;
        }
        self.stop().await
    }

    /// Stops at once. Returns how many connections were cut off.
    pub(super) async fn stop(self) -> usize {
        let cut_off = self.open_connections();
        self.handle.stop(false).await;
        // Only this stop makes it end; the main loop no longer waits for it.
        let _ = self.running.await;
        cut_off
    }

    fn open_connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

type Admitted<T> = (Connection<T>, Option<SocketAddr>);

fn http_service(
    setup: Setup,
) -> impl ServiceFactory<TcpStream, Config = (), Response = (), Error = DispatchError, InitError = ()>
{
    let application = application(&setup);
    fn_factory(move || {
        let setup = setup.clone();
        let app = application.new_service(());
        async move {
            let http1 = Rc::new(http1(setup.clone(), Rc::new(app.await?), false).await?);
            Ok(fn_service(move |io: TcpStream| {
                let admitted = admit(&setup, io);
                let http1 = Rc::clone(&http1);
                async move { http1.call(admitted?).await }
            }))
        }
    })
}

fn control_service(
    setup: Setup,
) -> impl ServiceFactory<UnixStream, Config = (), Response = (), Error = DispatchError, InitError = ()>
{
    let application = application(&setup);
    fn_factory(move || {
        let setup = setup.clone();
        let app = application.new_service(());
        async move {
            let http1 = Rc::new(http1(setup.clone(), Rc::new(app.await?), false).await?);
            Ok(fn_service(move |io: UnixStream| {
                let admitted = admit_control(&setup, io);
                let http1 = Rc::clone(&http1);
                async move { http1.call(admitted?).await }
            }))
        }
    })
}

fn https_service(
    setup: Setup,
    clients: ClientCertificates,
) -> impl ServiceFactory<TcpStream, Config = (), Response = (), Error = DispatchError, InitError = ()>
{
    let application = application(&setup);
    fn_factory(move || {
        let setup = setup.clone();
        let app = application.new_service(());
        async move {
            let app = Rc::new(app.await?);
            let http1 = Rc::new(http1(setup.clone(), Rc::clone(&app), true).await?);
            Ok(fn_service(move |io: TcpStream| {
                let setup = setup.clone();
                let (app, http1) = (Rc::clone(&app), Rc::clone(&http1));
                async move { serve_tls(setup, clients, app, http1, io).await }
            }))
        }
    })
}

/// Serves one connection over TLS to its end.
async fn serve_tls<A, H>(
    setup: Setup,
    clients: ClientCertificates,
    app: Rc<A>,
    http1: Rc<H>,
    io: TcpStream,
) -> Result<(), DispatchError>
where
    A: Service<Request, Response = ServiceResponse<BoxBody>, Error = Response<BoxBody>> + 'static,
    H: Service<Admitted<TlsStream<TcpStream>>, Response = (), Error = DispatchError>,
{
    let peer = io.peer_addr().ok();
    // As for HTTP in clear.
    let _ = io.set_nodelay(true);
    let tls = &setup.core.tls;
    // Before the configuration: of two that do not belong together, the older number makes it be verified again.
    let trust = tls.trust_number();
    let config = tls.server_config(clients);
    let limits = &setup.rules.limits;
    let limit = limits.max_connections;
    let Some(place) = Place::take(&setup.core.connections, &setup.connections, limit) else {
        note_full(&setup, peer);
        return refuse_tls(&setup, config, io).await;
    };
    let mut close_idle = setup.close_idle.clone();
    let header = Duration::from_secs(limits.header_seconds);
    let accepted = tokio::select! {
        accepted = tls_stream::accept(io, config, header) => accepted,
        // Before a request there is nothing to lose.
        _ = close_idle.wait_for(|close| *close) => Err(String::from("the service stopped during the handshake")),
    };
    let (stream, protocol) = match accepted {
        Ok(accepted) => accepted,
        Err(reason) => {
            log::debug!("{}: {reason}", Peer(peer));
            return Ok(());
        }
    };
    let session = stream.get_ref().1;
    let is_resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
    let verified = (!is_resumed).then_some(trust);
    let certificate = session
        .peer_certificates()
        .map(|chain| ClientCertificate::new(tls, chain, verified));
    let connection = Connection::new(stream, Some(place), peer, limits);
    let state = connection.state();
    state.mark_secure(certificate);
    match protocol {
        Protocol::None => Ok(()),
        Protocol::Http1 => http1.call((connection, peer)).await,
        Protocol::Http2 => {
            state.mark_http2();
            let handle = |request| {
                handle(
                    &setup.core,
                    &setup.rules,
                    &*app,
                    Some(Rc::clone(&state)),
                    request,
                )
            };
            http2::serve(connection, peer, limits, close_idle, handle)
                .await
                .map_err(|error| DispatchError::Io(io::Error::other(error)))
        }
    }
}

/// Passes a request by the guard to the routes and pages, and the answer back.
fn handle<A>(
    core: &Arc<Core>,
    rules: &Rules,
    app: &A,
    connection: Option<Rc<ConnectionState>>,
    request: Request,
) -> impl Future<Output = Response<guard::Tracked>> + use<A>
where
    A: Service<Request, Response = ServiceResponse<BoxBody>, Error = Response<BoxBody>> + 'static,
{
    let (guarded, request) = guard::begin(core, rules, connection, request);
    let called = request.map(|request| guard::catch(|| app.call(request)));
    guarded.finish(called)
}

/// Gives a connection its place, or answers that there is none.
fn admit(setup: &Setup, io: TcpStream) -> Result<Admitted<TcpStream>, DispatchError> {
    let peer = io.peer_addr().ok();
    // Answers are small and whole; waiting to fill a segment only delays them. It fails on a
    // connection that is already gone, which the first read will say.
    let _ = io.set_nodelay(true);
    let limit = setup.rules.limits.max_connections;
    match Place::take(&setup.core.connections, &setup.connections, limit) {
        Some(place) => Ok((
            Connection::new(io, Some(place), peer, &setup.rules.limits),
            peer,
        )),
        None => {
            note_full(setup, peer);
            if let Some(refusal) = Refusal::begin(setup) {
                actix_rt::spawn(async move {
                    refuse(io, no_place(false)).await;
                    drop(refusal);
                });
            }
            Err(full())
        }
    }
}

fn note_full(setup: &Setup, peer: Option<SocketAddr>) {
    let limit = setup.rules.limits.max_connections;
    setup.core.connection_limit_reached.note(|times| {
        log::warn!(
            "{}: refused, limits.max_connections is {limit} ({times} refused since the last such line)",
            Peer(peer)
        );
    });
}

fn no_place(is_tls: bool) -> Bytes {
    Problem::new(
        actix_web::http::StatusCode::SERVICE_UNAVAILABLE,
        "the device serves as many connections as it may; ask again in a moment",
    )
    .to_http1(security_headers::lines(is_tls))
}

/// A refusal has to be encrypted, too. It is said in HTTP/1.1, whatever else the client speaks.
async fn refuse_tls(
    setup: &Setup,
    config: Arc<ServerConfig>,
    io: TcpStream,
) -> Result<(), DispatchError> {
    let Some(_refusal) = Refusal::begin(setup) else {
        return Err(full());
    };
    let mut config = ServerConfig::clone(&config);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    if let Ok((stream, _)) = tls_stream::accept(io, Arc::new(config), DISCONNECT).await {
        refuse(stream, no_place(true)).await;
    }
    Err(full())
}

/// One of a bounded number of refusals on their way.
struct Refusal(Arc<AtomicUsize>);

impl Refusal {
    fn begin(setup: &Setup) -> Option<Self> {
        let refusal = Self(Arc::clone(&setup.refusals));
        (refusal.0.fetch_add(1, Ordering::SeqCst) < MAX_REFUSALS).then_some(refusal)
    }
}

impl Drop for Refusal {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn admit_control(setup: &Setup, io: UnixStream) -> Result<Admitted<UnixStream>, DispatchError> {
    let taken = &setup.core.control_connections;
    match Place::take(taken, &setup.connections, MAX_CONTROL_CONNECTIONS) {
        Some(place) => {
            let connection = Connection::new(io, Some(place), None, &setup.rules.limits);
            connection.state().mark_local();
            Ok((connection, None))
        }
        None => Err(full()),
    }
}

fn full() -> DispatchError {
    DispatchError::Io(io::Error::other("no place for another connection"))
}

/// HTTP/1.1 on connections that have their place.
async fn http1<T, A>(
    setup: Setup,
    app: Rc<A>,
    is_tls: bool,
) -> Result<impl Service<Admitted<T>, Response = (), Error = DispatchError>, ()>
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
    A: Service<Request, Response = ServiceResponse<BoxBody>, Error = Response<BoxBody>> + 'static,
{
    let Setup {
        core,
        rules,
        close_idle,
        ..
    } = setup;
    let expect_limits = Arc::clone(&rules.limits);
    let keep_alive = Duration::from_secs(rules.limits.keep_alive_seconds);
    let service = HttpService::build()
        .keep_alive(keep_alive)
        // The header's time is Connection's business, on every request and not only on the first.
        .client_request_timeout(Duration::ZERO)
        .client_disconnect_timeout(DISCONNECT)
        .graceful_shutdown_signal(move || {
            let mut close_idle = close_idle.clone();
            async move {
                // The sender is gone only when the generation is, and the connection with it.
                let _ = close_idle.wait_for(|close| *close).await;
            }
        })
        .on_connect_ext(|connection: &Connection<T>, data| {
            data.insert(connection.state());
        })
        // A client that asks before it sends learns at once that its body is too large.
        .expect(fn_service(move |request: Request| {
            let refusal = guard::refuse_body(&request, &expect_limits, is_tls);
            async move { refusal.map_or(Ok::<_, Response<BoxBody>>(request), Err) }
        }))
        .h1(fn_service(move |request: Request| {
            let connection = request.conn_data::<Rc<ConnectionState>>().cloned();
            let response = handle(&core, &rules, &*app, connection, request);
            async move { Ok::<_, Response<BoxBody>>(response.await) }
        }));
    service.new_service(()).await
}

/// The routes and pages as an actix application whose errors are responses.
fn application(
    setup: &Setup,
) -> impl ServiceFactory<
    Request,
    Config = (),
    Response = ServiceResponse<BoxBody>,
    Error = Response<BoxBody>,
    InitError = (),
> + use<> {
    let core = Data::from(Arc::clone(&setup.core));
    let pages = Arc::clone(&setup.pages);
    let limit = setup.rules.limits.max_body_bytes;
    let app = App::new()
        .app_data(core.clone())
        .app_data(web::PayloadConfig::new(limit))
        .app_data(
            web::JsonConfig::default()
                .limit(limit)
                .error_handler(problem),
        )
        .app_data(web::PathConfig::default().error_handler(problem))
        .app_data(web::QueryConfig::default().error_handler(problem))
        .configure(|app| {
            for group in &core.groups {
                group.register(app);
            }
        })
        .default_service(web::to(move |request: actix_web::HttpRequest| {
            let pages = Arc::clone(&pages);
            async move { pages.serve(&request).await }
        }));
    map_config(
        app.into_factory()
            .map_err(|error: actix_web::Error| Response::from(error.error_response())),
        |()| AppConfig::default(),
    )
}
