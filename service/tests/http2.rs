//! HTTP/2: the same bounds as HTTP/1.1, on every request of a connection that has many.

mod common;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::https::client_config;
use common::{PATIENCE, TempDir, eventually};
use edgeweb::actix_web::HttpResponse;
use edgeweb::actix_web::web::Bytes;
use edgeweb::{Config, Role, RouteGroup, Server, ServerHandle};
use h2::client::{Connection, SendRequest};
use h2::{Reason, RecvStream};
use http::{HeaderMap, Method, Request, StatusCode};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A body that no socket's buffers hold.
const LARGE: usize = 32 * 1024 * 1024;

struct Running {
    handle: ServerHandle,
    address: SocketAddr,
    entered: Arc<AtomicUsize>,
    /// Handlers that will not answer.
    stuck: Arc<AtomicUsize>,
    _directory: TempDir,
}

/// Counts those that are there.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn start(configure: impl FnOnce(&mut Config)) -> Running {
    let directory = TempDir::new();
    let mut config = Config::default();
    config.server.runtime_dir = directory.path().join("run");
    config.server.state_dir = directory.path().join("state");
    config.tls.directory = directory.path().join("tls");
    config.auth.provisioned_users = directory.path().join("users.toml");
    config.http.enabled = false;
    config.https.address = "127.0.0.1".parse().unwrap();
    config.https.port = 0;
    configure(&mut config);
    let entered = Arc::new(AtomicUsize::new(0));
    let slow = Arc::clone(&entered);
    let stuck = Arc::<AtomicUsize>::default();
    let waiting = Arc::clone(&stuck);
    let routes = RouteGroup::new("test")
        .get(Role::Guest, "/slow", move || {
            slow.fetch_add(1, Ordering::SeqCst);
            async {
                tokio::time::sleep(Duration::from_millis(500)).await;
                "slow, but here"
            }
        })
        .get(Role::Guest, "/stuck", move || {
            let stuck = Counted::new(&waiting);
            async move {
                std::future::pending::<()>().await;
                drop(stuck);
                ""
            }
        })
        .get(Role::Guest, "/faulty", || async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            let answer = std::env::var("EDGEWEB_TEST_PUMP_THAT_IS_NOT_THERE");
            answer.expect("the pump answers")
        })
        .get(Role::Guest, "/large", || async {
            HttpResponse::Ok().body(vec![b'x'; LARGE])
        })
        .post(Role::Guest, "/echo", |body: Bytes| async { body });
    let server = Server::builder().config(config).routes(routes);
    let handle = server.start().unwrap();
    Running {
        address: handle.addrs()[0],
        handle,
        entered,
        stuck,
        _directory: directory,
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.handle.stop_now();
        let _ = self.handle.wait();
    }
}

/// Runs a client within [`PATIENCE`].
fn client<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let work = async { tokio::time::timeout(PATIENCE, work).await };
    let tasks = tokio::task::LocalSet::new();
    tasks.block_on(&runtime, work).expect("an end in time")
}

async fn handshake(
    address: SocketAddr,
) -> (SendRequest<Bytes>, Connection<TlsStream<TcpStream>, Bytes>) {
    let socket = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let connector = TlsConnector::from(client_config(&["h2"], None));
    let stream = connector.connect(name, socket).await.unwrap();
    h2::client::handshake(stream).await.unwrap()
}

/// A connection whose bytes are moved in the background, and its end.
async fn connect(address: SocketAddr) -> (SendRequest<Bytes>, JoinHandle<Result<(), h2::Error>>) {
    let (sender, connection) = handshake(address).await;
    (
        sender.ready().await.unwrap(),
        tokio::task::spawn_local(connection),
    )
}

fn request(method: Method, path: &str) -> Request<()> {
    let uri = format!("https://localhost{path}");
    Request::builder().method(method).uri(uri).body(()).unwrap()
}

async fn collect(body: &mut RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut all = Vec::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        body.flow_control().release_capacity(chunk.len())?;
        all.extend_from_slice(&chunk);
    }
    Ok(all)
}

/// Sends a request with `body` and returns the answer.
async fn exchange(
    sender: &mut SendRequest<Bytes>,
    request: Request<()>,
    body: &'static [u8],
) -> Result<(StatusCode, HeaderMap, Vec<u8>), h2::Error> {
    let (answer, mut stream) = sender.send_request(request, body.is_empty())?;
    if !body.is_empty() {
        stream.send_data(Bytes::from_static(body), true)?;
    }
    let (head, mut body) = answer.await?.into_parts();
    Ok((head.status, head.headers, collect(&mut body).await?))
}

#[test]
fn requests_and_bodies_go_both_ways() {
    let running = start(|_| {});
    client(async {
        let (mut sender, _end) = connect(running.address).await;
        let echo = request(Method::POST, "/api/public/echo");
        let (status, headers, body) = exchange(&mut sender, echo, &[b'e'; 200_000]).await.unwrap();
        assert_eq!((status.as_u16(), body), (200, vec![b'e'; 200_000]));
        assert_eq!(headers["content-length"], "200000");
        assert!(headers.contains_key("date"));
        assert!(headers.contains_key("strict-transport-security"));
        let large = request(Method::GET, "/api/public/large");
        let (_, _, body) = exchange(&mut sender, large, b"").await.unwrap();
        assert_eq!(body.len(), LARGE);
        let head = request(Method::HEAD, "/api/public/large");
        let (status, headers, body) = exchange(&mut sender, head, b"").await.unwrap();
        assert_eq!((status.as_u16(), body.len()), (200, 0));
        assert_eq!(headers["content-length"], LARGE.to_string());
    });
}

#[test]
fn a_panic_is_one_requests_and_not_the_connections() {
    let running = start(|_| {});
    client(async {
        let (mut sender, _end) = connect(running.address).await;
        let faulty = request(Method::GET, "/api/public/faulty");
        let (status, ..) = exchange(&mut sender, faulty, b"").await.unwrap();
        assert_eq!(status, 500);
        let health = request(Method::GET, "/health");
        let (status, ..) = exchange(&mut sender, health, b"").await.unwrap();
        assert_eq!(status, 200);
    });
}

#[test]
fn streams_headers_and_bodies_are_bounded() {
    let running = start(|config| {
        config.limits.max_header_bytes = 2048;
        config.limits.max_body_bytes = 1000;
        config.limits.body_seconds = 1;
    });
    client(async {
        let (sender, connection) = handshake(running.address).await;
        let mut sender = sender.ready().await.unwrap();
        let mut connection = Box::pin(connection);
        let health = request(Method::GET, "/health");
        tokio::select! {
            answer = exchange(&mut sender, health, b"") => assert_eq!(answer.unwrap().0, 200),
            _ = &mut connection => panic!("the connection ended"),
        }
        assert_eq!(connection.max_concurrent_send_streams(), 32);
        let _end = tokio::task::spawn_local(connection);

        let mut long = request(Method::GET, "/health");
        let value = "y".repeat(4000).parse().unwrap();
        long.headers_mut().insert("x-long", value);
        let refused = exchange(&mut sender, long, b"").await;
        assert_eq!(refused.unwrap().0, 431);

        // With a length that says it before, and without.
        let mut told = request(Method::POST, "/api/public/echo");
        let length = "99999".parse().unwrap();
        told.headers_mut().insert("content-length", length);
        let (answer, stream) = sender.send_request(told, false).unwrap();
        assert_eq!(answer.await.unwrap().status(), 413);
        drop(stream);
        let untold = request(Method::POST, "/api/public/echo");
        let (answer, mut stream) = sender.send_request(untold, false).unwrap();
        stream
            .send_data(Bytes::from_static(&[0; 1001]), false)
            .unwrap();
        assert_eq!(answer.await.unwrap().status(), 413);
        drop(stream);

        let slow = request(Method::POST, "/api/public/echo");
        let (answer, mut stream) = sender.send_request(slow, false).unwrap();
        stream.send_data(Bytes::from_static(b"a"), false).unwrap();
        assert_eq!(answer.await.unwrap().status(), 408);
    });
}

#[test]
fn who_reads_nothing_of_an_answer_gets_no_more_of_it() {
    let running = start(|config| config.limits.write_seconds = 1);
    client(async {
        let (mut sender, _end) = connect(running.address).await;
        let large = request(Method::GET, "/api/public/large");
        let (answer, _) = sender.send_request(large, true).unwrap();
        // The window is not opened again.
        let mut body = answer.await.unwrap().into_body();
        let error = loop {
            match body.data().await.expect("a reset, not an end") {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(error.reason(), Some(Reason::CANCEL));
        // The other requests of the connection are not disturbed, nor does the service keep anything.
        drop(body);
        let health = request(Method::GET, "/health");
        assert_eq!(exchange(&mut sender, health, b"").await.unwrap().0, 200);
    });
}

#[test]
fn an_idle_connection_is_closed_however_often_it_pings() {
    let running = start(|config| config.limits.keep_alive_seconds = 1);
    client(async {
        let (sender, mut connection) = handshake(running.address).await;
        let mut ping = connection.ping_pong().unwrap();
        let end = tokio::task::spawn_local(connection);
        let began = Instant::now();
        let pings = async {
            while ping.ping(h2::Ping::opaque()).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::select! {
            () = pings => {}
            ended = end => drop(ended),
        }
        assert!(
            began.elapsed() >= Duration::from_millis(900),
            "{:?}",
            began.elapsed()
        );
        drop(sender);
    });
}

#[test]
fn a_request_longer_than_the_idle_limit_is_answered() {
    let running = start(|config| config.limits.keep_alive_seconds = 0);
    client(async {
        let (mut sender, _end) = connect(running.address).await;
        for _ in 0..3 {
            let slow = request(Method::GET, "/api/public/slow");
            let answer = exchange(&mut sender, slow, b"").await.unwrap();
            assert_eq!(answer.2, b"slow, but here");
        }
    });
}

#[test]
fn a_stop_lets_requests_come_to_their_end_and_takes_no_more() {
    let running = start(|_| {});
    let entered = Arc::clone(&running.entered);
    let handle = running.handle.clone();
    let stopping = std::thread::spawn(move || {
        eventually("the handler is entered", || {
            (entered.load(Ordering::SeqCst) == 2).then_some(())
        });
        handle.begin_stop();
    });
    client(async {
        let (sender, end) = connect(running.address).await;
        let ask = |mut sender: SendRequest<Bytes>| async move {
            let slow = request(Method::GET, "/api/public/slow");
            exchange(&mut sender, slow, b"").await
        };
        let (first, second) = tokio::join!(ask(sender.clone()), ask(sender.clone()));
        assert_eq!(first.unwrap().2, b"slow, but here");
        assert_eq!(second.unwrap().2, b"slow, but here");
        // GOAWAY, and then the end, without the client's help.
        let _ = end.await.unwrap();
        drop(sender);
    });
    stopping.join().unwrap();
    running.handle.wait().unwrap();
}

/// CVE-2023-44487: requests that are taken back at once must not pile up.
#[test]
fn requests_that_are_taken_back_are_not_worked_on() {
    let running = start(|_| {});
    client(async {
        let (mut sender, end) = connect(running.address).await;
        for round in 0..20 {
            let mut streams = Vec::new();
            for _ in 0..32 {
                sender = sender.ready().await.unwrap();
                let stuck = request(Method::GET, "/api/public/stuck");
                streams.push(sender.send_request(stuck, true).unwrap());
            }
            while running.stuck.load(Ordering::SeqCst) < 32 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            for (_, stream) in &mut streams {
                stream.send_reset(Reason::CANCEL);
            }
            while running.stuck.load(Ordering::SeqCst) > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            assert!(!end.is_finished(), "in round {round}");
        }
        drop(end);
        let (mut sender, _end) = connect(running.address).await;
        let health = request(Method::GET, "/health");
        assert_eq!(exchange(&mut sender, health, b"").await.unwrap().0, 200);
    });
}
