//! The example program: a firmware of its own with the service inside.
#![cfg(feature = "overlay")]

mod common;

use common::{PATIENCE, TempDir, config_text, eventually, get, request};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

fn example() -> PathBuf {
    let program = common::program()
        .with_file_name("examples")
        .join("embedded");
    assert!(
        program.exists(),
        "{} is built by cargo test",
        program.display()
    );
    program
}

#[test]
fn a_firmware_program_embeds_the_service() {
    let directory = TempDir::new();
    let config = directory.write("edgeweb.toml", config_text(directory.path(), ""));
    let manual = common::crate_file("examples/embedded/manual");
    let mut firmware = Command::new(example())
        .arg(&config)
        .arg(manual)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(firmware.stdout.take().unwrap()).lines();
    let url = lines.next().unwrap().unwrap();
    let address: SocketAddr = url.strip_prefix("http://").unwrap().parse().unwrap();

    // Its own check keeps it from being ready until it has measured.
    let first = get(address, "/health/ready", &[]);
    if first.status == 503 {
        assert_eq!(first.json()["checks"][1]["reason"], "no measurement yet");
        get(address, "/api/public/greenhouse/climate", &[]).is_problem(503);
    }
    eventually("ready", || {
        (get(address, "/health/ready", &[]).status == 200).then_some(())
    });

    // Its own routes beside the service's.
    let climate = get(address, "/api/public/greenhouse/climate", &[]).json();
    assert_eq!(
        climate,
        serde_json::json!({"temperature_celsius": 21.5, "valve_open": false})
    );
    let open = request(
        address,
        "PUT",
        "/api/public/greenhouse/valve",
        &[("content-type", "application/json")],
        br#"{"open":true}"#,
    );
    assert_eq!(open.json()["valve_open"], true);
    let about = get(address, "/api/public/about", &[]).json();
    assert_eq!(
        (&about["name"], &about["version"]),
        (&"greenhouse".into(), &"2.1.0".into())
    );

    // Its own pages, embedded and on storage, beside the service's.
    assert!(
        get(address, "/greenhouse/", &[])
            .text()
            .contains("<h1>Greenhouse</h1>")
    );
    assert_eq!(
        get(address, "/greenhouse", &[]).header("location"),
        Some("/greenhouse/")
    );
    let style = get(address, "/greenhouse/leaf.3f9c2a7d.css", &[]);
    assert_eq!(
        style.header("cache-control"),
        Some("public, max-age=31536000, immutable")
    );
    assert!(
        get(address, "/manual/", &[])
            .text()
            .contains("Water the plants")
    );
    get(address, "/manual/../Cargo.toml", &[]).is_problem(404);
    get(address, "/manual/%2e%2e/main.rs", &[]).is_problem(404);
    assert!(get(address, "/", &[]).text().contains("Device health"));

    // It decides itself when to stop.
    drop(firmware.stdin.take());
    let end = Instant::now() + PATIENCE;
    assert_eq!(lines.last().unwrap().unwrap(), "stopped");
    assert!(eventually("the end", || firmware.try_wait().unwrap()).success());
    assert!(Instant::now() < end);
}
