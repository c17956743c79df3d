//! What systemd is told, and the sockets that it passes.
#![cfg(feature = "systemd")]

mod common;

use common::{PATIENCE, Service, TempDir, config_text, edgeweb, endpoints, eventually, get};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A service whose notifications a test reads.
fn notified(environment: &[(&str, &str)]) -> (Service, UnixDatagram) {
    let directory = TempDir::new();
    let path = directory.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let service = Service::start_in(directory, "", |command| {
        command
            .env("NOTIFY_SOCKET", &path)
            .envs(environment.iter().copied());
    });
    (service, socket)
}

fn receive(socket: &UnixDatagram) -> String {
    let mut buffer = [0; 1024];
    let length = socket.recv(&mut buffer).expect("a notification");
    String::from_utf8(buffer[..length].to_vec()).unwrap()
}

#[test]
fn ready_reloading_and_stopping_are_told() {
    let (mut service, socket) = notified(&[]);
    assert_eq!(receive(&socket).trim(), "READY=1");
    service.signal("HUP");
    let reloading = receive(&socket);
    assert!(reloading.contains("RELOADING=1"), "{reloading}");
    let usec = reloading
        .lines()
        .find_map(|line| line.strip_prefix("MONOTONIC_USEC="))
        .unwrap();
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
    let uptime: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
    let apart = (uptime - usec.parse::<f64>().unwrap() / 1e6).abs();
    assert!(apart < 60.0, "{usec} µs is not {uptime} s");
    assert_eq!(receive(&socket).trim(), "READY=1");
    service.signal("TERM");
    assert_eq!(receive(&socket).trim(), "STOPPING=1");
    assert!(service.wait().success());
}

#[test]
fn the_watchdog_is_fed_in_time() {
    let (_service, socket) = notified(&[("WATCHDOG_USEC", "2000000")]);
    assert_eq!(receive(&socket).trim(), "READY=1");
    for _ in 0..3 {
        let start = Instant::now();
        assert_eq!(receive(&socket).trim(), "WATCHDOG=1");
        assert!(
            start.elapsed() < Duration::from_millis(2000),
            "{:?}",
            start.elapsed()
        );
    }
}

#[test]
fn a_watchdog_that_was_not_asked_for_is_not_fed() {
    let (service, socket) = notified(&[]);
    assert_eq!(receive(&socket).trim(), "READY=1");
    socket
        .set_read_timeout(Some(Duration::from_millis(700)))
        .unwrap();
    assert!(socket.recv(&mut [0; 100]).is_err());
    assert!(service.health(&[]).status.success());
}

/// A process that ends with its test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // Fails when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// By systemd's own `systemd-socket-activate`.
#[test]
fn sockets_that_systemd_passes_are_used() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let directory = TempDir::new();
    let config = directory.write("edgeweb.toml", config_text(directory.path(), ""));
    let child = Command::new("systemd-socket-activate")
        .arg(format!("--listen={address}"))
        .arg("--fdname=http")
        .arg(edgeweb().get_program())
        .args(["serve", "--config"])
        .arg(&config)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("systemd-socket-activate of the package systemd");
    let mut child = Ended(child);
    let answer = eventually("an answer on the passed socket", || {
        // The first connection is what starts the service.
        TcpStream::connect(address).ok()?;
        Some(get(address, "/health", &[]))
    });
    assert_eq!(answer.status, 200);
    assert_eq!(endpoints(directory.path()), [address]);

    // A reload leaves the socket in place.
    let hangup = Command::new("kill")
        .args(["-HUP", &child.0.id().to_string()])
        .status();
    assert!(hangup.unwrap().success());
    for _ in 0..10 {
        assert_eq!(get(address, "/health", &[]).status, 200);
        std::thread::sleep(Duration::from_millis(20));
    }
    // Under STRICT it is not left open in clear.
    let strict = "tls.mode = \"STRICT\"";
    directory.write(
        "edgeweb.toml",
        common::device_config(directory.path(), strict),
    );
    let hangup = Command::new("kill")
        .args(["-HUP", &child.0.id().to_string()])
        .status();
    assert!(hangup.unwrap().success());
    eventually("nobody listens in clear", || {
        TcpStream::connect(address).is_err().then_some(())
    });
    assert_eq!(common::endpoint(directory.path(), "http"), None);
    assert!(common::endpoint(directory.path(), "https").is_some());
    let term = Command::new("kill")
        .args(["-TERM", &child.0.id().to_string()])
        .status();
    assert!(term.unwrap().success());
    assert!(eventually("the end", || child.0.try_wait().unwrap()).success());
}
