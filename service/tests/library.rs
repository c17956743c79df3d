//! The library in a program of the caller's: handlers that are slow, panic, read bodies, and claim paths.

mod common;

use common::{Answer, PATIENCE, TempDir, connect, eventually, get, is_closed, request, send_get};
use edgeweb::actix_web::HttpResponse;
use edgeweb::actix_web::http::StatusCode;
use edgeweb::actix_web::web::{Bytes, Json, Path};
use edgeweb::config::HttpContent;
use edgeweb::{Config, Problem, Role, RouteGroup, Server, ServerBuilder, ServerHandle, StartError};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

fn config(directory: &TempDir) -> Config {
    let mut config = Config::default();
    config.server.runtime_dir = directory.path().join("run");
    config.server.state_dir = directory.path().join("state");
    config.server.host_names = vec![String::from("device")];
    config.tls.directory = directory.path().join("tls");
    config.auth.provisioned_users = directory.path().join("users.toml");
    config.http.address = "127.0.0.1".parse().unwrap();
    config.http.port = 0;
    config.http.content = HttpContent::Public;
    config.https.enabled = false;
    config
}

struct Running {
    directory: TempDir,
    handle: ServerHandle,
    address: SocketAddr,
}

fn start(
    configure: impl FnOnce(&mut Config),
    build: impl FnOnce(ServerBuilder) -> ServerBuilder,
) -> Running {
    let directory = TempDir::new();
    let mut config = config(&directory);
    configure(&mut config);
    let handle = build(Server::builder().config(config)).start().unwrap();
    let address = handle.addrs()[0];
    Running {
        directory,
        handle,
        address,
    }
}

impl Running {
    /// Waits for the end, but not for ever.
    fn wait(&self) {
        let (tell, told) = std::sync::mpsc::channel();
        let handle = self.handle.clone();
        thread::spawn(move || tell.send(handle.wait()));
        told.recv_timeout(PATIENCE).expect("the end").unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.handle.stop_now();
        let _ = self.handle.wait();
    }
}

/// Knows when a slow handler has begun its work.
#[derive(Clone, Default)]
struct Entered(Arc<AtomicUsize>);

impl Entered {
    fn note(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    /// Waits until a handler has been entered since the last time.
    fn wait(&self) {
        eventually("the handler is entered", || {
            (self.0.swap(0, Ordering::SeqCst) > 0).then_some(())
        });
    }
}

async fn faulty() -> &'static str {
    let answer = std::env::var("EDGEWEB_TEST_PUMP_THAT_IS_NOT_THERE");
    answer.expect("the pump answers");
    ""
}

async fn faulty_later() -> &'static str {
    tokio::time::sleep(Duration::from_millis(10)).await;
    panic!("after a while")
}

async fn echo(body: Bytes) -> Bytes {
    body
}

fn routes(entered: &Entered) -> RouteGroup {
    let (slow, stuck) = (entered.clone(), entered.clone());
    RouteGroup::new("test")
        .get(Role::Guest, "/slow", move || {
            slow.note();
            async {
                tokio::time::sleep(Duration::from_millis(1500)).await;
                "slow, but here"
            }
        })
        .get(Role::Guest, "/stuck", move || {
            stuck.note();
            std::future::pending::<&'static str>()
        })
        .get(Role::Guest, "/faulty", faulty)
        .get(Role::Guest, "/faulty-later", faulty_later)
        .post(Role::Guest, "/echo", echo)
}

/// A service that is busy with one request for `path`, and the client that waits for its answer.
fn busy_with(path: &str, drain_seconds: u64) -> (Running, std::net::TcpStream) {
    let entered = Entered::default();
    let running = start(
        |config| config.server.drain_seconds = drain_seconds,
        |builder| builder.routes(routes(&entered)),
    );
    let mut client = connect(running.address);
    send_get(&mut client, path);
    entered.wait();
    (running, client)
}

#[test]
fn start_returns_at_once_and_the_caller_is_told_the_addresses() {
    let running = start(|_| {}, |builder| builder);
    assert_ne!(running.address.port(), 0);
    assert_eq!(get(running.address, "/health", &[]).status, 200);
    running.handle.stop().unwrap();
    assert!(std::net::TcpStream::connect(running.address).is_err());
    // Everything may be asked again of a service that has ended.
    running.handle.stop().unwrap();
    running.wait();
    assert!(running.handle.reload(Config::default()).is_err());
}

#[test]
fn two_services_live_in_one_process_and_one_can_follow_another() {
    let first = start(|_| {}, |builder| builder.name("first", "1"));
    let second = start(|_| {}, |builder| builder.name("second", "2"));
    for (running, name) in [(&first, "first"), (&second, "second")] {
        assert_eq!(
            get(running.address, "/api/public/about", &[]).json()["name"],
            name
        );
    }
    first.handle.stop().unwrap();
    assert_eq!(get(second.address, "/health", &[]).status, 200);
    let again = Server::builder()
        .config(config(&first.directory))
        .start()
        .unwrap();
    assert_eq!(get(again.addrs()[0], "/health", &[]).status, 200);
    again.stop().unwrap();
}

#[test]
fn two_groups_that_claim_a_path_are_refused_with_both_names() {
    async fn answer() -> &'static str {
        ""
    }
    let directory = TempDir::new();
    let refused = |first: RouteGroup, second: RouteGroup| {
        let builder = Server::builder().config(config(&directory));
        match builder.routes(first).routes(second).start() {
            Err(StartError::PathConflict(conflict)) => conflict.to_string(),
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("started"),
        }
    };
    let pump = || RouteGroup::new("pump").get(Role::Guest, "/motor/speed", answer);
    let error = refused(
        pump(),
        RouteGroup::new("fan").put(Role::Guest, "/motor/{what}", answer),
    );
    assert!(
        error.contains("\"pump\"") && error.contains("\"fan\""),
        "{error}"
    );
    assert!(error.contains("/api/public/motor/{what}"), "{error}");
    let error = refused(
        pump(),
        RouteGroup::new("names").get(Role::Guest, "/about", answer),
    );
    assert!(
        error.contains("\"edgeweb about\"") && error.contains("\"names\""),
        "{error}"
    );
    assert!(!directory.path().join("run").exists());

    // The same path for another role is another path.
    let admin = RouteGroup::new("fan").get(Role::Admin, "/motor/speed", answer);
    let handle = Server::builder()
        .config(config(&directory))
        .routes(pump())
        .routes(admin)
        .start()
        .unwrap();
    handle.stop().unwrap();
}

#[cfg(feature = "overlay")]
#[test]
fn pages_and_routes_that_claim_a_path_are_refused() {
    async fn answer() -> &'static str {
        ""
    }
    let directory = TempDir::new();
    let group = RouteGroup::new("manual").get(Role::Guest, "/book/page", answer);
    let builder = Server::builder().config(config(&directory)).routes(group);
    let result = builder.asset_directory("/api/public/book", "/srv").start();
    let Err(error) = result else {
        panic!("started")
    };
    let error = error.to_string();
    assert!(error.contains("\"manual\""), "{error}");
    assert!(error.contains("\"pages at /api/public/book\""), "{error}");
}

#[test]
fn routes_get_their_parameters_bodies_and_problems() {
    async fn speed(path: Path<(u8,)>) -> Result<Json<u8>, Problem> {
        match path.0 {
            0 => Err(Problem::new(StatusCode::CONFLICT, "the motor stands")),
            n => Ok(Json(n)),
        }
    }
    async fn set(body: Json<u8>) -> HttpResponse {
        HttpResponse::Accepted().body(body.to_string())
    }
    async fn names() -> &'static str {
        "left, right"
    }
    let group = RouteGroup::new("motor")
        .get(Role::Guest, "/motor/{n}", speed)
        .put(Role::Guest, "/motor/{n}", set)
        .get(Role::Guest, "/motor/names", names)
        .get(Role::Admin, "/motor", faulty);
    let running = start(
        |config| config.limits.max_body_bytes = 100,
        |builder| builder.routes(group),
    );
    let path = "/api/public/motor/7";
    assert_eq!(get(running.address, path, &[]).text(), "7");
    let names = get(running.address, "/api/public/motor/names", &[]);
    assert_eq!(names.text(), "left, right");
    assert_eq!(request(running.address, "HEAD", path, &[], b"").status, 200);
    get(running.address, "/api/public/motor/0", &[]).is_problem(409);
    get(running.address, "/api/public/motor/700", &[]).is_problem(404);
    // However the path is written that leads to the route.
    for path in [
        "/api/admin/motor",
        "/api/%61dmin/motor",
        "/%61pi/admin/motor",
        "/api/adm%69n/mot%6fr",
        "/api%2Fadmin/motor",
    ] {
        get(running.address, path, &[]).is_problem(401);
    }
    let put = |kind, body: &[u8]| {
        request(
            running.address,
            "PUT",
            path,
            &[("content-type", kind)],
            body,
        )
    };
    assert_eq!(put("application/json", b"5").text(), "5");
    put("application/json", b"{").is_problem(400);
    put("text/plain", b"5").is_problem(415);
    put("application/json", &[b' '; 101]).is_problem(413);
    let delete = request(running.address, "DELETE", path, &[], b"");
    delete.is_problem(405);
    assert_eq!(delete.header("allow"), Some("GET, HEAD, PUT"));
}

#[test]
fn a_panic_costs_its_own_request_a_500_and_nothing_else() {
    let entered = Entered::default();
    let running = start(
        |config| config.server.workers = 1,
        |builder| builder.routes(routes(&entered)),
    );
    let mut other = connect(running.address);
    send_get(&mut other, "/api/public/slow");
    for path in ["/api/public/faulty", "/api/public/faulty-later"] {
        for _ in 0..3 {
            let answer = get(running.address, path, &[]);
            answer.is_problem(500);
            assert!(
                !answer.text().contains("pump"),
                "what went wrong is the log's business"
            );
        }
    }
    // The same connection goes on, and so does the request beside it.
    let mut stream = connect(running.address);
    for path in ["/api/public/faulty", "/health"] {
        send_get(&mut stream, path);
        let expected = if path == "/health" { 200 } else { 500 };
        assert_eq!(Answer::read(&mut stream, false).unwrap().status, expected);
    }
    assert_eq!(
        Answer::read(&mut other, false).unwrap().text(),
        "slow, but here"
    );
}

#[test]
fn ready_is_503_until_every_check_passes() {
    let well = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&well);
    let running = start(
        |_| {},
        |builder| {
            builder
                .health_check("pump", move || {
                    if seen.load(Ordering::Relaxed) {
                        Ok(())
                    } else {
                        Err("no pressure".into())
                    }
                })
                .health_check("fan", || Ok(()))
        },
    );
    let answer = get(running.address, "/health/ready", &[]);
    assert_eq!(answer.status, 503);
    assert_eq!(answer.json()["status"], "unavailable");
    let expected = serde_json::json!([
        {"name": "lifecycle", "status": "pass"},
        {"name": "pump", "status": "fail", "reason": "no pressure"},
        {"name": "fan", "status": "pass"},
    ]);
    assert_eq!(answer.json()["checks"], expected);
    assert_eq!(get(running.address, "/health", &[]).status, 200);
    well.store(true, Ordering::Relaxed);
    eventually("ready", || {
        (get(running.address, "/health/ready", &[]).status == 200).then_some(())
    });
}

#[test]
fn a_check_that_hangs_or_panics_fails_and_is_not_started_twice() {
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&runs);
    let release = Arc::new(AtomicBool::new(false));
    let released = Arc::clone(&release);
    let running = start(
        |_| {},
        |builder| {
            builder
                .health_check("stuck", move || {
                    counted.fetch_add(1, Ordering::SeqCst);
                    while !released.load(Ordering::Relaxed) {
                        thread::sleep(Duration::from_millis(10));
                    }
                    Ok(())
                })
                .health_check("faulty", || panic!("on purpose"))
        },
    );
    for _ in 0..2 {
        let start = Instant::now();
        let answer = get(running.address, "/health/ready", &[]);
        assert!(
            start.elapsed() < Duration::from_secs(6),
            "{:?}",
            start.elapsed()
        );
        assert_eq!(answer.status, 503);
        assert_eq!(answer.json()["checks"][1]["reason"], "no answer after 2 s");
        assert_eq!(answer.json()["checks"][2]["reason"], "the check panicked");
        thread::sleep(Duration::from_millis(300));
    }
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    assert_eq!(get(running.address, "/health", &[]).status, 200);
    release.store(true, Ordering::Relaxed);
    eventually("it passes when it comes back", || {
        let report = get(running.address, "/health/ready", &[]).json();
        (report["checks"][1]["status"] == "pass").then_some(())
    });
}

#[test]
fn draining_finishes_what_is_served_refuses_what_is_new_and_says_so() {
    let (running, mut slow) = busy_with("/api/public/slow", 10);
    running.handle.begin_stop();
    let ready = eventually("the drain shows", || {
        let ready = get(running.address, "/health/ready", &[]);
        (ready.status == 503).then_some(ready)
    });
    assert_eq!(ready.json()["checks"][0]["name"], "lifecycle");
    assert_eq!(ready.json()["checks"][0]["status"], "fail");
    assert_eq!(ready.header("connection"), Some("close"));
    assert_eq!(get(running.address, "/health", &[]).status, 200);
    let refused = get(running.address, "/api/public/slow", &[]);
    refused.is_problem(503);
    assert!(refused.header("retry-after").is_some());
    let answer = Answer::read(&mut slow, false).unwrap();
    assert_eq!((answer.status, answer.text()), (200, "slow, but here"));
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(is_closed(&mut slow));
    running.wait();
    assert!(std::net::TcpStream::connect(running.address).is_err());
}

#[test]
fn draining_ends_at_its_limit() {
    let (running, mut stuck) = busy_with("/api/public/stuck", 1);
    let start = Instant::now();
    running.handle.begin_stop();
    running.wait();
    assert!(
        start.elapsed() >= Duration::from_millis(900),
        "{:?}",
        start.elapsed()
    );
    assert!(start.elapsed() < PATIENCE);
    assert!(is_closed(&mut stuck));
}

#[test]
fn an_answer_that_is_still_on_its_way_is_not_cut_off() {
    async fn large() -> Vec<u8> {
        vec![b'x'; 16 << 20]
    }
    let group = RouteGroup::new("large").get(Role::Guest, "/large", large);
    let running = start(|_| {}, |builder| builder.routes(group));
    let mut stream = connect(running.address);
    send_get(&mut stream, "/api/public/large");
    stream.read_exact(&mut [0; 10]).unwrap();
    running.handle.begin_stop();
    thread::sleep(Duration::from_millis(1500));
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    assert!(all.len() > 16 << 20, "{}", all.len());
    running.wait();
}

#[test]
fn stopping_at_once_does_not_wait_for_what_a_reload_left_behind() {
    let (running, mut stuck) = busy_with("/api/public/stuck", 3600);
    let mut changed = config(&running.directory);
    changed.server.drain_seconds = 3600;
    running.handle.reload(changed).unwrap();
    running.handle.stop_now();
    running.wait();
    assert!(is_closed(&mut stuck));
}

#[test]
fn a_second_wish_to_stop_is_not_kept_waiting() {
    let (running, mut stuck) = busy_with("/api/public/stuck", 3600);
    running.handle.begin_stop();
    thread::sleep(Duration::from_millis(200));
    running.handle.stop_now();
    running.wait();
    assert!(is_closed(&mut stuck));
}

#[test]
fn a_reload_lets_old_requests_finish_under_the_old_configuration() {
    let (running, mut slow) = busy_with("/api/public/slow", 10);
    let mut changed = config(&running.directory);
    changed.limits.max_body_bytes = 10;
    running.handle.reload(changed).unwrap();
    request(
        running.address,
        "POST",
        "/api/public/echo",
        &[],
        &[b'x'; 11],
    )
    .is_problem(413);
    assert_eq!(
        Answer::read(&mut slow, false).unwrap().text(),
        "slow, but here"
    );
}

#[test]
fn bodies_are_bounded_in_size_and_time_as_they_arrive() {
    let entered = Entered::default();
    let running = start(
        |config| {
            config.limits.max_body_bytes = 1000;
            config.limits.body_seconds = 1;
        },
        |builder| builder.routes(routes(&entered)),
    );
    let open = |head: &str| {
        let mut stream = connect(running.address);
        let text = format!("POST /api/public/echo HTTP/1.1\r\nhost: device\r\n{head}\r\n\r\n");
        stream.write_all(text.as_bytes()).unwrap();
        stream
    };
    let body = vec![b'x'; 1000];
    let echoed = request(running.address, "POST", "/api/public/echo", &[], &body);
    assert_eq!(echoed.body, body);

    let mut stream = open("transfer-encoding: chunked");
    for _ in 0..5 {
        stream
            .write_all(format!("fa\r\n{}\r\n", "x".repeat(250)).as_bytes())
            .unwrap();
    }
    Answer::read(&mut stream, false).unwrap().is_problem(413);
    assert!(is_closed(&mut stream));

    for head in ["content-length: 10", "transfer-encoding: chunked"] {
        let mut stream = open(head);
        stream.write_all(b"1").unwrap();
        let start = Instant::now();
        Answer::read(&mut stream, false).unwrap().is_problem(408);
        assert!(start.elapsed() >= Duration::from_millis(700));
        assert!(is_closed(&mut stream));
    }
}

#[test]
fn a_client_that_takes_nothing_of_its_answer_is_cut_off() {
    async fn large() -> Vec<u8> {
        vec![b'x'; 64 << 20]
    }
    let group = RouteGroup::new("large").get(Role::Guest, "/large", large);
    let running = start(
        |config| {
            config.limits.write_seconds = 1;
            config.limits.max_connections = 1;
        },
        |builder| builder.routes(group),
    );
    let mut stream = connect(running.address);
    send_get(&mut stream, "/api/public/large");
    stream.read_exact(&mut [0; 10]).unwrap();
    get(running.address, "/health", &[]).is_problem(503);
    // Its place is free again although it still holds its side of the connection.
    eventually("a place", || {
        (get(running.address, "/health", &[]).status == 200).then_some(())
    });
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all);
    assert!(all.len() < 64 << 20, "{}", all.len());
}
