//! One generation of the running service: sockets, workers and limits as one configuration has them.
//!
//! A reload starts a new generation on the same sockets and lets the old one finish what it serves,
//! so that every setting may change and no connection is dropped for it.

use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix_http::error::DispatchError;
use actix_http::{HttpService, Request, Response};
use actix_service::{
    IntoServiceFactory, Service, ServiceFactory, ServiceFactoryExt, apply_fn_factory, fn_service,
    map_config,
};
use actix_web::App;
use actix_web::body::BoxBody;
use actix_web::dev::{AppConfig, ServiceResponse};
use actix_web::web::{self, Data};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::Core;
use super::connection::{Connection, Peer, Place, refuse};
use super::guard;
use super::listeners::Listener;
use crate::api::error::{Problem, problem};
use crate::config::{Config, Limits};
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
    limits: Arc<Limits>,
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
            limits: Arc::new(config.limits.clone()),
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
            server = server.listen("http", socket, move || tcp_service(setup.clone()))?;
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

type Admitted<T> = (Connection<T>, Option<std::net::SocketAddr>);

fn tcp_service(
    setup: Setup,
) -> impl ServiceFactory<TcpStream, Config = (), Response = (), Error = DispatchError, InitError = ()>
{
    let http = http_service(&setup);
    fn_service(move |io: TcpStream| {
        let admitted = admit(&setup, io);
        async move { admitted }
    })
    .and_then(http)
}

fn control_service(
    setup: Setup,
) -> impl ServiceFactory<UnixStream, Config = (), Response = (), Error = DispatchError, InitError = ()>
{
    let http = http_service(&setup);
    fn_service(move |io: UnixStream| {
        let admitted = admit_control(&setup, io);
        async move { admitted }
    })
    .and_then(http)
}

/// Gives a connection its place, or answers that there is none.
fn admit(setup: &Setup, io: TcpStream) -> Result<Admitted<TcpStream>, DispatchError> {
    let peer = io.peer_addr().ok();
    // Answers are small and whole; waiting to fill a segment only delays them. It fails on a
    // connection that is already gone, which the first read will say.
    let _ = io.set_nodelay(true);
    let limit = setup.limits.max_connections;
    match Place::take(&setup.core.connections, &setup.connections, limit) {
        Some(place) => Ok((Connection::new(io, Some(place), peer, &setup.limits), peer)),
        None => {
            setup.core.connection_limit_reached.note(|times| {
                log::warn!(
                    "{}: refused, limits.max_connections is {limit} ({times} refused since the last such line)",
                    Peer(peer)
                );
            });
            refuse_connection(setup, io);
            Err(full())
        }
    }
}

fn refuse_connection(setup: &Setup, io: TcpStream) {
    let refusals = Arc::clone(&setup.refusals);
    if refusals.fetch_add(1, Ordering::SeqCst) < MAX_REFUSALS {
        let answer = Problem::new(
            actix_web::http::StatusCode::SERVICE_UNAVAILABLE,
            "the device serves as many connections as it may; ask again in a moment",
        )
        .to_http1();
        actix_rt::spawn(async move {
            refuse(io, answer).await;
            refusals.fetch_sub(1, Ordering::SeqCst);
        });
    } else {
        refusals.fetch_sub(1, Ordering::SeqCst);
    }
}

fn admit_control(setup: &Setup, io: UnixStream) -> Result<Admitted<UnixStream>, DispatchError> {
    let taken = &setup.core.control_connections;
    match Place::take(taken, &setup.connections, MAX_CONTROL_CONNECTIONS) {
        Some(place) => {
            let connection = Connection::new(io, Some(place), None, &setup.limits);
            connection.state().mark_local();
            Ok((connection, None))
        }
        None => Err(full()),
    }
}

fn full() -> DispatchError {
    DispatchError::Io(io::Error::other("no place for another connection"))
}

fn http_service<T>(
    setup: &Setup,
) -> impl ServiceFactory<Admitted<T>, Config = (), Response = (), Error = DispatchError, InitError = ()>
+ use<T>
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let limits = Arc::clone(&setup.limits);
    let expect_limits = Arc::clone(&setup.limits);
    let core = Arc::clone(&setup.core);
    let close_idle = setup.close_idle.clone();
    let app = apply_fn_factory(application(setup), move |request: Request, app| {
        let (guarded, request) = guard::begin(&core, &limits, request);
        let called = request.map(|request| guard::catch(|| app.call(request)));
        let response = guarded.finish(called);
        async move { Ok::<_, Response<BoxBody>>(response.await) }
    });
    HttpService::build()
        .keep_alive(Duration::from_secs(setup.limits.keep_alive_seconds))
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
            let refusal = guard::body_too_large(&request, &expect_limits);
            async move {
                match refusal {
                    Some(problem) => Err(actix_web::ResponseError::error_response(&problem).into()),
                    None => Ok::<_, Response<BoxBody>>(request),
                }
            }
        }))
        .h1(app)
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
    let limit = setup.limits.max_body_bytes;
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
