//! What a client may cost: header, body, time, connections.

mod common;

use common::{Answer, Service, connect, eventually, get, is_closed, request, send_get};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

/// Sends `bytes` one by one until the service has had enough, and returns its answer and the time.
fn drip(stream: &mut TcpStream, bytes: impl IntoIterator<Item = u8>) -> (Answer, Duration) {
    let start = Instant::now();
    let mut writer = stream.try_clone().unwrap();
    let bytes: Vec<u8> = bytes.into_iter().collect();
    let dripping = thread::spawn(move || {
        for byte in bytes {
            if writer.write_all(&[byte]).is_err() {
                return;
            }
            thread::sleep(Duration::from_millis(100));
        }
    });
    let answer = Answer::read(stream, false).unwrap();
    let taken = start.elapsed();
    let closed = is_closed(stream);
    drop(stream.shutdown(std::net::Shutdown::Both));
    dripping.join().unwrap();
    assert!(closed);
    (answer, taken)
}

#[test]
fn a_header_that_comes_byte_by_byte_gets_no_more_than_its_time() {
    let service = Service::start("limits.header_seconds = 1");
    let endless = b"GET / HTTP/1.1\r\nhost: device\r\nx: "
        .iter()
        .copied()
        .chain([b'x'; 100]);
    let (answer, taken) = drip(&mut connect(service.address), endless.clone());
    answer.is_problem(408);
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(taken >= Duration::from_millis(900), "{taken:?}");

    // On a connection that has served a request as well, where actix-http itself has no limit.
    let mut stream = connect(service.address);
    send_get(&mut stream, "/health");
    assert_eq!(Answer::read(&mut stream, false).unwrap().status, 200);
    let (answer, _) = drip(&mut stream, endless);
    answer.is_problem(408);
}

#[test]
fn a_client_that_says_nothing_gets_no_more_than_its_time() {
    let service = Service::start("limits.header_seconds = 1");
    let mut stream = connect(service.address);
    Answer::read(&mut stream, false).unwrap().is_problem(408);
    assert!(is_closed(&mut stream));
}

#[test]
fn a_body_that_comes_byte_by_byte_gets_no_more_than_its_time() {
    let service = Service::start("limits.body_seconds = 1");
    // The time runs while a route reads the body; a route that does not, answers at once.
    for head in ["content-length: 1000", "transfer-encoding: chunked"] {
        let mut stream = connect(service.address);
        let text = format!("POST /health HTTP/1.1\r\nhost: device\r\n{head}\r\n\r\n");
        stream.write_all(text.as_bytes()).unwrap();
        Answer::read(&mut stream, false).unwrap().is_problem(405);
        // What still comes of the body is thrown away for a moment, then the connection is gone.
        let mut writer = stream.try_clone().unwrap();
        let dripping = thread::spawn(move || {
            let chunk: &[u8] = if head.starts_with("transfer") {
                b"1\r\nx\r\n"
            } else {
                b"x"
            };
            for _ in 0..200 {
                if writer.write_all(chunk).is_err() {
                    return true;
                }
                thread::sleep(Duration::from_millis(50));
            }
            false
        });
        assert!(is_closed(&mut stream), "{head}");
        drop(stream.shutdown(std::net::Shutdown::Both));
        assert!(dripping.join().unwrap(), "{head}");
    }
}

#[test]
fn an_idle_connection_is_closed_after_its_time() {
    let service = Service::start("limits.keep_alive_seconds = 1");
    let mut stream = connect(service.address);
    for _ in 0..3 {
        send_get(&mut stream, "/health");
        assert_eq!(Answer::read(&mut stream, false).unwrap().status, 200);
        thread::sleep(Duration::from_millis(300));
    }
    assert!(is_closed(&mut stream));
}

#[test]
fn a_header_beyond_its_size_is_431() {
    let service = Service::start("limits.max_header_bytes = 2048");
    let request_with = |size: usize| {
        let filler = "x".repeat(size);
        get(service.address, "/health", &[("x-filler", &filler)])
    };
    assert_eq!(request_with(1500).status, 200);
    request_with(2048).is_problem(431);
    request_with(200_000).is_problem(431);
    // A long path is a part of the header.
    let path = format!("/{}", "x".repeat(5000));
    get(service.address, &path, &[]).is_problem(431);
    // Many small fields.
    let many = vec![("x-y", "z"); 400];
    get(service.address, "/health", &many).is_problem(431);
    // The size of a body does not count.
    let body = vec![b'x'; 50_000];
    request(service.address, "POST", "/health", &[], &body).is_problem(405);
    // Neither does a second request behind the first.
    let mut stream = connect(service.address);
    let filler = "x".repeat(1500);
    let one = format!("GET /health HTTP/1.1\r\nhost: device\r\nx: {filler}\r\n\r\n");
    stream.write_all(one.repeat(4).as_bytes()).unwrap();
    for _ in 0..4 {
        assert_eq!(Answer::read(&mut stream, false).unwrap().status, 200);
    }
}

#[test]
fn a_body_beyond_its_size_is_413_before_it_is_sent() {
    let service = Service::start("limits.max_body_bytes = 1000");
    let send = |size: usize| request(service.address, "POST", "/health", &[], &vec![b'x'; size]);
    send(1000).is_problem(405);
    send(1001).is_problem(413);
    send(1_000_000).is_problem(413);

    let mut stream = connect(service.address);
    stream
        .write_all(
            b"POST /x HTTP/1.1\r\nhost: device\r\ncontent-length: 9999\r\nexpect: 100-continue\r\n\r\n",
        )
        .unwrap();
    Answer::read(&mut stream, false).unwrap().is_problem(413);
}

#[test]
fn one_connection_too_many_is_503_and_the_device_itself_still_gets_through() {
    let service = Service::start("limits.max_connections = 3");
    let mut held: Vec<TcpStream> = Vec::new();
    for _ in 0..3 {
        let mut stream = connect(service.address);
        send_get(&mut stream, "/health");
        assert_eq!(Answer::read(&mut stream, false).unwrap().status, 200);
        held.push(stream);
    }
    let refused = service.get("/health");
    refused.is_problem(503);
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(refused.header("connection"), Some("close"));
    assert!(service.health(&[]).status.success());
    service.wait_for_log("limits.max_connections is 3");

    held.pop();
    eventually("there is a place again", || {
        (service.get("/health").status == 200).then_some(())
    });
}

#[test]
fn refusals_and_broken_requests_leave_no_connection_behind() {
    let service = Service::start("limits.max_connections = 4\nlimits.header_seconds = 1");
    for _ in 0..3 {
        for text in [
            &b"GET / HTTP/1.1\r\nhost: device\r\nx: "[..],
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"GET /\r\n\r\n",
            b"GET / HTTP/1.1\r\n\r\n",
            b"",
        ] {
            let mut stream = connect(service.address);
            let _ = stream.write_all(text);
            drop(stream.shutdown(std::net::Shutdown::Write));
            let _ = stream.read_to_end(&mut Vec::new());
        }
    }
    let places: Vec<TcpStream> = (0..4).map(|_| connect(service.address)).collect();
    for mut stream in places {
        send_get(&mut stream, "/health");
        assert_eq!(Answer::read(&mut stream, false).unwrap().status, 200);
    }
}

#[test]
fn requests_that_could_be_read_in_two_ways_are_refused() {
    let service = Service::start("");
    for head in [
        "POST / HTTP/1.1\r\nhost: device\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: device\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        "POST / HTTP/1.1\r\nhost: device\r\ncontent-length: +5\r\n\r\nhello",
        "GET / HTTP/1.1\r\nhost: device\r\nhost: b\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
    ] {
        let mut stream = connect(service.address);
        stream.write_all(head.as_bytes()).unwrap();
        assert_eq!(
            Answer::read(&mut stream, false).unwrap().status,
            400,
            "{head}"
        );
        assert!(is_closed(&mut stream), "{head}");
    }
}
