//! Which addresses the service takes, and what it says when it cannot.

mod common;

use common::{Service, TempDir, config_text, edgeweb, endpoints, get, run};
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

fn serve(directory: &TempDir, more: &str) -> (i32, String) {
    let text = config_text(directory.path(), "").replace("http.port = 0\n", "");
    let config = directory.write("edgeweb.toml", format!("{text}{more}\n"));
    let output = run(edgeweb().args(["serve", "--config"]).arg(config));
    let error = String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), error)
}

fn taken() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

#[test]
fn a_busy_port_names_the_address_and_who_holds_it_and_nothing_is_started() {
    let (_holder, port) = taken();
    let directory = TempDir::new();
    let (status, error) = serve(&directory, &format!("http.port = {port}"));
    assert_eq!(status, 1);
    let who = format!("(process {})", std::process::id());
    let last = error.lines().last().unwrap();
    assert!(last.starts_with("edgeweb: not started: "), "{error}");
    assert!(
        last.contains(&format!("127.0.0.1:{port} is taken by ")),
        "{error}"
    );
    assert!(last.contains(&who), "{error}");
    assert!(
        !directory.path().join("run").exists(),
        "nothing else was begun"
    );
}

#[test]
fn any_takes_another_port_and_says_which() {
    let (_holder, port) = taken();
    let directory = TempDir::new();
    let service = start_on(directory, port, "http.port_when_busy = \"any\"");
    assert_ne!(service.address.port(), port);
    service.wait_for_log(&format!("listening on http://{}", service.address));
    assert_eq!(service.get("/health").status, 200);
}

#[test]
fn a_range_gives_its_first_free_port() {
    // Two neighbours that are free now; somebody else may take one, then the next pair is tried.
    for _ in 0..20 {
        let (holder, port) = taken();
        let Some(next) = port.checked_add(1) else {
            continue;
        };
        let Ok(second) = TcpListener::bind(("127.0.0.1", next)) else {
            continue;
        };
        let last = next.saturating_add(3);
        let range = format!("http.port_when_busy = \"{port}-{next}\"");
        let (status, error) = serve(&TempDir::new(), &format!("http.port = {port}\n{range}"));
        assert_eq!(status, 1);
        assert!(
            error.contains(&format!("every port from {port} to {next} are taken")),
            "{error}"
        );
        drop(second);
        let range = format!("http.port_when_busy = \"{port}-{last}\"");
        let service = start_on(TempDir::new(), port, &range);
        assert_eq!(service.address.port(), next);
        drop(holder);
        return;
    }
    panic!("no two neighbouring ports are free");
}

/// Starts the service with `http.port = port`.
fn start_on(directory: TempDir, port: u16, more: &str) -> Service {
    let text = config_text(directory.path(), more)
        .replace("http.port = 0", &format!("http.port = {port}"));
    Service::start_with(directory, text, |_| {})
}

#[test]
fn the_addresses_in_use_are_in_the_file_and_gone_after_the_end() {
    let mut service = Service::start("");
    let run = service.directory.path().join("run");
    let text = fs::read_to_string(run.join("endpoints.json")).unwrap();
    let file: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(file["pid"], service.pid());
    assert_eq!(file["endpoints"][0]["scheme"], "http");
    assert_eq!(endpoints(service.directory.path()), [service.address]);
    assert_ne!(service.address.port(), 0);
    assert_eq!(get(service.address, "/health", &[]).status, 200);
    let mode = fs::metadata(run.join("edgeweb.sock"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o660);
    service.signal("TERM");
    assert!(service.wait().success());
    assert_eq!(fs::read_dir(&run).unwrap().count(), 0);
}

#[test]
fn an_address_that_is_not_the_devices_is_refused_with_its_name() {
    let directory = TempDir::new();
    let text = config_text(directory.path(), "").replace("127.0.0.1", "192.0.2.1");
    let config = directory.write("edgeweb.toml", text);
    let output = run(edgeweb().args(["serve", "--config"]).arg(config));
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        error.contains("192.0.2.1:0 cannot be listened on: "),
        "{error}"
    );
}

#[test]
fn the_unspecified_address_takes_ipv4_and_ipv6() {
    let directory = TempDir::new();
    let text = config_text(directory.path(), "").replace("127.0.0.1", "::");
    let service = Service::start_with(directory, text, |_| {});
    let port = service.address.port();
    assert_eq!(
        get(SocketAddr::from(([127, 0, 0, 1], port)), "/health", &[]).status,
        200
    );
    if service.address.is_ipv6() {
        let loopback = std::net::Ipv6Addr::LOCALHOST;
        assert_eq!(
            get(SocketAddr::from((loopback, port)), "/health", &[]).status,
            200
        );
    }
}

#[test]
fn a_second_service_in_the_same_place_is_refused_and_the_first_stays() {
    let service = Service::start("");
    let output = run(edgeweb().args(["serve", "--config"]).arg(service.config()));
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(error.contains("another service is running here"), "{error}");
    assert!(service.health(&[]).status.success());
}

#[test]
fn a_socket_that_a_killed_service_left_is_replaced() {
    let directory = TempDir::new();
    fs::create_dir(directory.path().join("run")).unwrap();
    drop(UnixListener::bind(directory.path().join("run/edgeweb.sock")).unwrap());
    let service = Service::start_in(directory, "", |_| {});
    assert!(service.health(&[]).status.success());
}

#[test]
fn what_is_in_the_way_and_no_socket_is_left_alone() {
    let directory = TempDir::new();
    let file = directory.write("run/edgeweb.sock", "precious");
    let (status, error) = serve(&directory, "http.port = 0");
    assert_eq!(status, 1);
    assert!(
        error.contains("edgeweb.sock: is in the way and is not a socket"),
        "{error}"
    );
    assert_eq!(fs::read_to_string(file).unwrap(), "precious");
}

#[test]
fn a_run_time_directory_that_cannot_be_made_is_named() {
    let directory = TempDir::new();
    directory.write("run", "a file");
    let (status, error) = serve(&directory, "http.port = 0");
    assert_eq!(status, 1);
    assert!(error.contains("set server.runtime_dir"), "{error}");
}

#[test]
fn ended_by_kill_it_can_be_started_again_in_the_same_place() {
    let mut killed = Service::start("");
    killed.signal("KILL");
    killed.wait();
    assert_eq!(killed.health(&[]).status.code(), Some(1));
    assert!(killed.directory.path().join("run/edgeweb.sock").exists());
    let directory = std::mem::replace(&mut killed.directory, TempDir::new());
    let again = Service::start_in(directory, "", |_| {});
    assert!(again.health(&[]).status.success());
}
