//! HTTPS as a device has it without any configuration: what is encrypted, what is redirected, what is refused.

mod common;

use std::io::Write;
use std::process::Command;
use std::time::Duration;

use common::https::{client_config, connect_any, connect_tls, exchange, request};
use common::{Answer, Service, connect, eventually, get, is_closed, run};

fn curl(service: &Service, options: &[&str], path: &str) -> String {
    let url = format!("https://{}{path}", service.https());
    let output = run(Command::new("curl")
        .args(["--silent", "--show-error", "--insecure", "--max-time", "15"])
        .args(options)
        .arg(url));
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn http2_and_http1_are_spoken_over_tls_1_3_and_1_2() {
    let service = Service::start_device("");
    let write = "%{http_version} %{http_code}";
    for (options, expected) in [
        (&["--http2", "--tls-max", "1.2"][..], "2 200"),
        (&["--http2", "--tlsv1.3"], "2 200"),
        (&["--http1.1", "--tls-max", "1.2"], "1.1 200"),
        (&["--http1.1", "--tlsv1.3"], "1.1 200"),
    ] {
        let options = [options, &["--output", "/dev/null", "--write-out", write]].concat();
        assert_eq!(curl(&service, &options, "/health"), expected, "{options:?}");
    }
    for old in ["--tls-max 1.1", "--tls-max 1.0"] {
        let url = format!("https://{}/health", service.https());
        let output = run(Command::new("curl")
            .args(["--silent", "--insecure", "--ciphers", "ALL:@SECLEVEL=0"])
            .args(old.split(' '))
            .arg(url));
        assert!(!output.status.success(), "{old}: {output:?}");
    }
}

#[test]
fn in_clear_there_is_health_and_the_way_to_https() {
    let service = Service::start_device("server.host_names = [\"device\"]");
    let port = service.https().port();
    assert_eq!(get(service.address, "/health", &[]).status, 200);
    assert_eq!(get(service.address, "/health/ready", &[]).status, 200);
    for path in [
        "/",
        "/api/public/about?x=1&y=%20",
        "/nothing/here",
        "/metrics",
    ] {
        let answer = get(service.address, path, &[]);
        assert_eq!(answer.status, 308, "{path}");
        let expected = format!("https://device:{port}{path}");
        assert_eq!(answer.header("location"), Some(expected.as_str()));
    }
    // Nothing is led on that has already told its secret.
    let sent = common::request(service.address, "POST", "/api/public/session", &[], b"{}");
    sent.is_problem(403);
    assert!(!sent.text().contains("location"));
    let token = [("authorization", "Bearer x")];
    common::request(service.address, "GET", "/api/user/session", &token, b"").is_problem(403);
}

#[test]
fn https_alone_and_http_alone_are_possible() {
    let alone = Service::start_device("http.enabled = false");
    assert_eq!(common::endpoint(alone.directory.path(), "http"), None);
    assert_eq!(
        request(alone.https(), "GET", "/health", &[], b"").status,
        200
    );
    drop(alone);
    let alone = Service::start_device("https.enabled = false");
    assert_eq!(common::endpoint(alone.directory.path(), "https"), None);
    get(alone.address, "/", &[]).is_problem(421);
    drop(alone);
    let alone = Service::start_device("https.enabled = false\nserver.host_names = [\"device\"]");
    assert_eq!(alone.get("/health").status, 200);
    get(alone.address, "/", &[]).is_problem(404);
}

#[test]
fn a_request_for_another_name_is_refused() {
    let service = Service::start_device("server.host_names = [\"Pump.Example\"]");
    let ask = |host: &str| {
        let mut stream = connect_any(service.https());
        let text = format!("GET /api/public/about HTTP/1.1\r\n{host}connection: close\r\n\r\n");
        stream.write_all(text.as_bytes()).unwrap();
        Answer::read(&mut stream, false).unwrap().status
    };
    let own = run(Command::new("uname").arg("-n"));
    let own = String::from_utf8(own.stdout).unwrap().trim().to_owned();
    for (host, expected) in [
        ("host: localhost\r\n", 200),
        ("host: LOCALHOST:8443\r\n", 200),
        ("host: 127.0.0.1\r\n", 200),
        ("host: [::1]:1\r\n", 200),
        ("host: pump.example\r\n", 200),
        ("host: pump.example.\r\n", 200),
        (&format!("host: {own}\r\n"), 200),
        ("host: evil.example\r\n", 421),
        ("host: pump.example.evil.example\r\n", 421),
        ("host: localhost.evil.example\r\n", 421),
        ("", 400),
        ("host: \r\n", 400),
        ("host: a b\r\n", 400),
        ("host: localhost\r\nhost: localhost\r\n", 400),
        ("host: user@localhost\r\n", 400),
    ] {
        assert_eq!(ask(host), expected, "{host:?}");
    }
    // Over HTTP/2 it is :authority that counts.
    let status = |host: &str| {
        let resolve = format!("{host}:{}:127.0.0.1", service.https().port());
        let url = format!("https://{host}:{}/api/public/about", service.https().port());
        let output = run(Command::new("curl")
            .args(["--silent", "--insecure", "--http2", "--max-time", "15"])
            .args(["--output", "/dev/null", "--write-out", "%{http_code}"])
            .args(["--resolve", &resolve, &url]));
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(status("pump.example"), "200");
    assert_eq!(status("evil.example"), "421");
}

/// As the OWASP Secure Headers Project has it, on every kind of answer.
#[test]
fn every_answer_says_what_a_browser_may_do() {
    let service = Service::start_device("server.host_names = [\"device\"]");
    let answers = [
        ("page", request(service.https(), "GET", "/", &[], b"")),
        (
            "health",
            request(service.https(), "GET", "/health", &[], b""),
        ),
        ("404", request(service.https(), "GET", "/nothing", &[], b"")),
        (
            "401",
            request(service.https(), "GET", "/api/user/logs", &[], b""),
        ),
        (
            "405",
            request(service.https(), "DELETE", "/health", &[], b""),
        ),
        (
            "413",
            request(
                service.https(),
                "PUT",
                "/health",
                &[("expect", "100-continue")],
                &vec![0; 1_100_000],
            ),
        ),
        (
            "400",
            request(
                service.https(),
                "GET",
                "/",
                &[("content-length", "1"), ("content-length", "2")],
                b"",
            ),
        ),
        ("redirection", get(service.address, "/", &[])),
        (
            "403 in clear",
            common::request(service.address, "POST", "/", &[], b"x"),
        ),
        ("421", get(service.address, "/", &[("host", "x")])),
        (
            "431",
            request(
                service.https(),
                "GET",
                "/",
                &[("x", &"y".repeat(20_000))],
                b"",
            ),
        ),
    ];
    for (what, answer) in &answers {
        let header = |name: &str| {
            let value = answer.header(name);
            value.unwrap_or_else(|| panic!("{what}: no {name}: {answer:?}"))
        };
        let policy = header("content-security-policy");
        for part in [
            "default-src 'self'",
            "frame-ancestors 'none'",
            "object-src 'none'",
            "base-uri 'none'",
        ] {
            assert!(policy.contains(part), "{what}: {policy}");
        }
        assert!(!policy.contains("unsafe-"), "{what}: {policy}");
        for (name, expected) in [
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "no-referrer"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
            ("cross-origin-embedder-policy", "require-corp"),
            ("x-permitted-cross-domain-policies", "none"),
        ] {
            assert_eq!(header(name), expected, "{what}");
        }
        assert!(header("permissions-policy").contains("camera=()"), "{what}");
        assert_eq!(answer.header("server"), None, "{what}");
        let over_tls = !["redirection", "403 in clear", "421"].contains(what);
        let strict = answer.header("strict-transport-security");
        if over_tls {
            assert_eq!(strict, Some("max-age=31536000"), "{what}");
        } else {
            assert_eq!(strict, None, "{what}");
        }
    }
}

#[test]
fn a_client_that_does_not_speak_tls_is_told_and_let_go() {
    let service = Service::start_device("limits.header_seconds = 1\nlimits.max_connections = 2");
    let mut plain = connect(service.https());
    plain
        .write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .unwrap();
    let answer = Answer::read(&mut plain, false).unwrap();
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("https://"), "{answer:?}");
    assert!(is_closed(&mut plain));
    // One that says nothing, one that stops in the middle of its first message.
    let mut silent = connect(service.https());
    let mut half = connect(service.https());
    half.write_all(&[0x16, 3, 1, 2, 0, 1, 0]).unwrap();
    assert!(is_closed(&mut silent));
    assert!(is_closed(&mut half));
    // Their places are free again.
    assert_eq!(
        request(service.https(), "GET", "/health", &[], b"").status,
        200
    );
}

#[test]
fn one_connection_more_than_may_be_is_told_so_over_tls() {
    let service =
        Service::start_device("limits.max_connections = 1\nlimits.keep_alive_seconds = 60");
    let mut first = connect_any(service.https());
    assert_eq!(
        exchange(&mut first, "GET", "/health", &[], b"")
            .unwrap()
            .status,
        200
    );
    let mut second = connect_any(service.https());
    Answer::read(&mut second, false).unwrap().is_problem(503);
    drop(first);
    eventually("the place is free", || {
        let mut stream = connect_tls(service.https(), &client_config(&["http/1.1"], None)).ok()?;
        let answer = exchange(&mut stream, "GET", "/health", &[], b"").ok()?;
        (answer.status == 200).then_some(())
    });
}

#[test]
fn a_reload_takes_listeners_on_and_away_and_disturbs_no_connection() {
    let service = Service::start_device("limits.keep_alive_seconds = 60");
    let https = service.https();
    let http = service.address;
    let mut kept = connect_any(https);
    assert_eq!(
        exchange(&mut kept, "GET", "/health", &[], b"")
            .unwrap()
            .status,
        200
    );
    let more = "limits.keep_alive_seconds = 61\n[[listener]]\naddress = \"127.0.0.1\"\nport = 0";
    let text = common::device_config(service.directory.path(), more);
    service.directory.write("edgeweb.toml", text);
    service.signal("HUP");
    service.wait_for_log("the new configuration is in force");
    let now = common::endpoints(service.directory.path());
    assert_eq!(now.len(), 3, "{now:?}");
    assert_eq!(
        (now[0], now[1]),
        (http, https),
        "those that stay keep their ports"
    );
    assert_eq!(request(now[2], "GET", "/health", &[], b"").status, 200);
    assert_eq!(
        exchange(&mut kept, "GET", "/health", &[], b"")
            .unwrap()
            .status,
        200
    );
    std::thread::sleep(Duration::from_millis(10));
}
