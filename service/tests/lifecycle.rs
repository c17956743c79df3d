//! Reload and end of the process, by signals.

mod common;

use common::{Answer, Service, connect, eventually, get, is_closed, send_get};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

#[test]
fn sigterm_and_sigint_end_the_service_with_status_0() {
    for signal in ["TERM", "INT"] {
        let mut service = Service::start("");
        // An idle connection does not hold it up.
        let mut idle = connect(service.address);
        send_get(&mut idle, "/health");
        assert_eq!(Answer::read(&mut idle, false).unwrap().status, 200);
        let start = Instant::now();
        service.signal(signal);
        assert_eq!(service.wait().code(), Some(0), "{signal}");
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "{:?}",
            start.elapsed()
        );
        assert!(is_closed(&mut idle));
        let log = service.log();
        assert!(log.contains(&format!("SIG{signal}: stopping")), "{log}");
        assert!(log.contains("stopped"), "{log}");
    }
}

#[test]
fn sighup_takes_a_new_configuration_over() {
    let service = Service::start("");
    let first = service.address;
    assert_eq!(
        get(first, "/health", &[("x", &"y".repeat(3000))]).status,
        200
    );
    service.write_config("limits.max_header_bytes = 2048");
    service.signal("HUP");
    service.wait_for_log("the new configuration is in force");
    get(first, "/health", &[("x", &"y".repeat(3000))]).is_problem(431);
    assert!(service.health(&[]).status.success());
}

#[test]
fn sighup_moves_to_another_port() {
    let service = Service::start("");
    let old = service.address;
    let text = common::config_text(service.directory.path(), "").replace(
        "http.port = 0",
        "http.port = 0\nhttp.port_when_busy = \"any\"",
    );
    service.directory.write("edgeweb.toml", text);
    service.signal("HUP");
    let new = eventually("another address", || {
        let address = common::endpoints(service.directory.path())[0];
        (address != old).then_some(address)
    });
    assert_eq!(get(new, "/health", &[]).status, 200);
    eventually("the old port is closed", || {
        std::net::TcpStream::connect(old).err()
    });
    assert!(service.health(&[]).status.success());
}

#[test]
fn sighup_with_a_wrong_configuration_changes_nothing_and_says_why() {
    let service = Service::start("limits.max_header_bytes = 2048");
    let (_busy, port) = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        (listener, port)
    };
    let busy = common::config_text(service.directory.path(), "")
        .replace("http.port = 0", &format!("http.port = {port}"));
    let moved = common::config_text(service.directory.path(), "").replace("/run\"", "/run2\"");
    for (text, said) in [
        (String::from("[http\n"), "edgeweb.toml:1: "),
        (
            String::from("[http]\nport = -1"),
            "http.port: invalid value",
        ),
        (
            String::from("[limits]\nmax_connections = 0"),
            "limits.max_connections: 0 is not in 1 to 65536",
        ),
        (busy, "is taken by"),
        (moved, "server.runtime_dir cannot change"),
    ] {
        service.directory.write("edgeweb.toml", text);
        let before = service.log().len();
        service.signal("HUP");
        eventually("the refusal in the log", || {
            let log = service.log();
            log[before..]
                .contains("the old configuration stays in force")
                .then_some(())
        });
        let log = service.log();
        assert!(log[before..].contains(said), "{said}: {}", &log[before..]);
        get(service.address, "/health", &[("x", &"y".repeat(3000))]).is_problem(431);
    }
    // The next right one is taken.
    service.write_config("");
    service.signal("HUP");
    service.wait_for_log("the new configuration is in force");
    assert_eq!(
        get(service.address, "/health", &[("x", &"y".repeat(3000))]).status,
        200
    );
}

#[test]
fn reloads_under_load_lose_no_request() {
    let service = Service::start("");
    let address = service.address;
    let stop = Arc::new(AtomicBool::new(false));
    let served = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (stop, served) = (Arc::clone(&stop), Arc::clone(&served));
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(get(address, "/health", &[]).status, 200);
                    served.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for round in 1..=5 {
        service.signal("HUP");
        eventually("the reload", || {
            (service
                .log()
                .matches("the new configuration is in force")
                .count()
                == round)
                .then_some(())
        });
        let before = served.load(Ordering::Relaxed);
        eventually("requests go on", || {
            (served.load(Ordering::Relaxed) > before + 20).then_some(())
        });
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().unwrap();
    }
}

#[test]
fn a_keep_alive_client_survives_a_reload_by_connecting_again() {
    let service = Service::start("");
    let mut stream = connect(service.address);
    send_get(&mut stream, "/health");
    assert_eq!(Answer::read(&mut stream, false).unwrap().status, 200);
    service.signal("HUP");
    service.wait_for_log("the new configuration is in force");
    assert!(is_closed(&mut stream));
    assert_eq!(service.get("/health").status, 200);
}

#[test]
fn sighup_takes_a_new_log_filter_over() {
    let service = Service::start("");
    service.get("/before");
    service.wait_for_log("GET /before 404");
    let text = common::config_text(service.directory.path(), "")
        .replace("debug,actix_server=warn", "info,actix_server=warn");
    service.directory.write("edgeweb.toml", text);
    service.signal("HUP");
    service.wait_for_log("the new configuration is in force");
    service.get("/after");
    service.write_config("");
    service.signal("HUP");
    eventually("the second reload", || {
        let count = service
            .log()
            .matches("the new configuration is in force")
            .count();
        (count == 2).then_some(())
    });
    service.get("/again");
    service.wait_for_log("GET /again 404");
    assert!(!service.log().contains("GET /after"), "{}", service.log());
}

/// A client that takes nothing of a large file keeps its request open.
#[cfg(feature = "overlay")]
#[test]
fn a_second_sigterm_does_not_wait() {
    let directory = common::TempDir::new();
    directory.write("www/large", vec![b'x'; 64 << 20]);
    let www = directory.path().join("www");
    let more = format!(
        "overlay.enabled = true\noverlay.directory = {www:?}\n\
         server.drain_seconds = 3600\nlimits.write_seconds = 3600"
    );
    let mut service = Service::start_in(directory, &more, |_| {});
    let mut stream = connect(service.address);
    send_get(&mut stream, "/large");
    std::io::Read::read_exact(&mut stream, &mut [0; 10]).unwrap();
    service.signal("TERM");
    service.wait_for_log("draining: 1 requests are being served");
    assert!(service.has_ended().is_none());
    service.signal("TERM");
    assert!(service.wait().success());
    assert!(service.log().contains("SIGTERM again"), "{}", service.log());
}
