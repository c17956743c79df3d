//! The embedded pages: forms, tags, ranges and types.

mod common;

use common::{Service, get, request};
use std::fs;

fn source(name: &str) -> Vec<u8> {
    fs::read(common::crate_file(&format!("web/{name}"))).unwrap()
}

#[test]
fn the_start_page_is_what_the_tree_holds() {
    let service = Service::start("");
    for path in ["/", "/index.html"] {
        let page = service.get(path);
        assert_eq!(page.status, 200);
        assert_eq!(page.body, source("index.html"));
        assert_eq!(
            page.header("content-type"),
            Some("text/html; charset=utf-8")
        );
        assert_eq!(page.header("content-encoding"), None);
        assert_eq!(page.header("cache-control"), Some("no-cache"));
        assert_eq!(page.header("vary"), Some("accept-encoding"));
    }
}

#[test]
fn types_are_right() {
    let service = Service::start("");
    for (path, kind) in [
        ("/health.js", "text/javascript; charset=utf-8"),
        ("/style.css", "text/css; charset=utf-8"),
        ("/icon.svg", "image/svg+xml"),
    ] {
        assert_eq!(
            service.get(path).header("content-type"),
            Some(kind),
            "{path}"
        );
    }
}

#[test]
fn each_client_gets_the_form_it_takes() {
    let service = Service::start("");
    let original = source("health.js");
    let mut tags = Vec::new();
    for (accepts, encoding) in [
        ("gzip, deflate, br", Some("br")),
        ("gzip", Some("gzip")),
        ("br;q=0, gzip", Some("gzip")),
        ("identity", None),
    ] {
        let answer = get(
            service.address,
            "/health.js",
            &[("accept-encoding", accepts)],
        );
        assert_eq!(answer.header("content-encoding"), encoding, "{accepts}");
        assert_eq!(answer.header("vary"), Some("accept-encoding"));
        let plain = match encoding {
            Some(encoding) => {
                assert!(
                    answer.body.len() * 2 < original.len(),
                    "{}",
                    answer.body.len()
                );
                decompress(encoding, &answer.body)
            }
            None => answer.body.clone(),
        };
        assert_eq!(plain, original, "{accepts}");
        tags.push(answer.header("etag").unwrap().to_owned());
    }
    assert_eq!(tags[1], tags[2]);
    tags.dedup();
    assert_eq!(tags.len(), 3, "a tag for each form: {tags:?}");
    assert!(
        tags.iter().all(|tag| tag.starts_with('"')),
        "strong: {tags:?}"
    );
}

/// By the reference programs' own libraries in Python or the command line, not by the ones under test.
fn decompress(encoding: &str, bytes: &[u8]) -> Vec<u8> {
    match encoding {
        "gzip" => {
            let mut plain = Vec::new();
            std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(bytes), &mut plain)
                .unwrap();
            plain
        }
        "br" => {
            let mut plain = Vec::new();
            brotli::BrotliDecompress(&mut &bytes[..], &mut plain).unwrap();
            plain
        }
        other => panic!("{other}"),
    }
}

#[test]
fn what_the_client_has_is_not_sent_again() {
    let service = Service::start("");
    let first = service.get("/style.css");
    let tag = first.header("etag").unwrap();
    for known in [
        tag.to_owned(),
        format!("W/{tag}"),
        format!("\"other\", {tag}"),
        String::from("*"),
    ] {
        let answer = get(service.address, "/style.css", &[("if-none-match", &known)]);
        assert_eq!(answer.status, 304, "{known}");
        assert_eq!(answer.header("etag"), Some(tag));
        assert_eq!(answer.header("cache-control"), Some("no-cache"));
        assert!(answer.body.is_empty());
    }
    let answer = get(
        service.address,
        "/style.css",
        &[("if-none-match", "\"other\"")],
    );
    assert_eq!((answer.status, &answer.body), (200, &first.body));
    // Another form is another content.
    let headers = [("if-none-match", tag), ("accept-encoding", "br")];
    assert_eq!(get(service.address, "/style.css", &headers).status, 200);
}

#[test]
fn head_is_get_without_the_body() {
    let service = Service::start("");
    let full = service.get("/style.css");
    let head = request(service.address, "HEAD", "/style.css", &[], b"");
    assert_eq!(head.status, 200);
    for name in [
        "content-length",
        "etag",
        "content-type",
        "cache-control",
        "accept-ranges",
    ] {
        assert!(head.header(name).is_some(), "{name}");
        assert_eq!(head.header(name), full.header(name), "{name}");
    }
}

#[test]
fn parts_are_sent_as_asked() {
    let service = Service::start("");
    let full = source("style.css");
    let length = full.len();
    let ranged = |range: &str, more: &[(&str, &str)]| {
        let mut headers = vec![("range", range)];
        headers.extend_from_slice(more);
        get(service.address, "/style.css", &headers)
    };
    for (range, from, to) in [
        ("bytes=0-9", 0, 10),
        ("bytes=5-", 5, length),
        ("bytes=-7", length - 7, length),
        ("bytes=3-999999", 3, length),
    ] {
        let answer = ranged(range, &[]);
        assert_eq!(answer.status, 206, "{range}");
        assert_eq!(answer.body, full[from..to], "{range}");
        let expected = format!("bytes {from}-{}/{length}", to - 1);
        assert_eq!(answer.header("content-range"), Some(expected.as_str()));
    }
    let beyond = ranged("bytes=999999-", &[]);
    assert_eq!(beyond.status, 416);
    assert_eq!(
        beyond.header("content-range"),
        Some(format!("bytes */{length}").as_str())
    );
    for ignored in ["bytes=0-1,4-5", "lines=0-1", "bytes=x-y", "bytes=9-3"] {
        let answer = ranged(ignored, &[]);
        assert!(
            answer.status == 200 && answer.body == full,
            "{ignored}: {}",
            answer.status
        );
    }
    let tag = service.get("/style.css").header("etag").unwrap().to_owned();
    assert_eq!(ranged("bytes=0-9", &[("if-range", &tag)]).status, 206);
    assert_eq!(ranged("bytes=0-9", &[("if-range", "\"old\"")]).status, 200);
    assert_eq!(ranged("bytes=0-9", &[("if-none-match", &tag)]).status, 304);
}
