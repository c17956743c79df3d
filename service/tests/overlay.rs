//! The overlay directory: it adds and replaces pages, and nothing outside of it can be read.
#![cfg(feature = "overlay")]

mod common;

use common::{Service, TempDir, get, request};
use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

fn service_with_overlay() -> (Service, std::path::PathBuf) {
    let directory = TempDir::new();
    let www = directory.path().join("www");
    fs::create_dir(&www).unwrap();
    let config = format!("overlay.enabled = true\noverlay.directory = {www:?}");
    (Service::start_in(directory, &config, |_| {}), www)
}

#[test]
fn it_is_off_unless_it_is_configured() {
    let directory = TempDir::new();
    directory.write("www/extra.html", "extra");
    let www = directory.path().join("www");
    let service = Service::start_in(directory, &format!("overlay.directory = {www:?}"), |_| {});
    service.get("/extra.html").is_problem(404);
}

#[test]
fn it_adds_and_replaces_pages() {
    let (service, www) = service_with_overlay();
    let built_in = service.get("/style.css").body;
    fs::create_dir(www.join("docs")).unwrap();
    fs::write(www.join("docs/index.html"), "<p>docs</p>").unwrap();
    fs::write(www.join("style.css"), "body{}").unwrap();
    fs::write(www.join("with space é.txt"), "text").unwrap();

    let page = service.get("/docs/");
    assert_eq!((page.status, page.text()), (200, "<p>docs</p>"));
    assert_eq!(
        page.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    assert_eq!(page.header("cache-control"), Some("no-cache"));
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    let moved = service.get("/docs");
    assert_eq!(
        (moved.status, moved.header("location")),
        (308, Some("/docs/"))
    );
    assert_eq!(service.get("/style.css").text(), "body{}");
    assert_eq!(service.get("/with%20space%20%C3%A9.txt").text(), "text");
    assert_eq!(service.get("/index.html").status, 200);

    let tag = page.header("etag").unwrap();
    assert_eq!(
        get(service.address, "/docs/", &[("if-none-match", tag)]).status,
        304
    );
    let part = get(service.address, "/docs/", &[("range", "bytes=0-2")]);
    assert_eq!((part.status, part.text()), (206, "<p>"));
    let head = request(service.address, "HEAD", "/docs/", &[], b"");
    assert_eq!(
        (head.status, head.header("content-length")),
        (200, Some("11"))
    );

    fs::remove_file(www.join("style.css")).unwrap();
    assert_eq!(service.get("/style.css").body, built_in);
}

#[test]
fn no_path_leaves_it() {
    let (service, www) = service_with_overlay();
    let outside = service.directory.write("secret.txt", "secret");
    fs::create_dir(www.join("sub")).unwrap();
    fs::write(www.join("sub/page.txt"), "page").unwrap();
    fs::write(www.join(".hidden"), "secret").unwrap();
    symlink(&outside, www.join("absolute.txt")).unwrap();
    symlink("../secret.txt", www.join("relative.txt")).unwrap();
    symlink("..", www.join("up")).unwrap();
    symlink("/proc/self/environ", www.join("environ")).unwrap();
    symlink("sub/page.txt", www.join("inside.txt")).unwrap();

    for path in [
        "/../secret.txt",
        "/sub/../../secret.txt",
        "/%2e%2e/secret.txt",
        "/%2e%2e%2fsecret.txt",
        "/..%2fsecret.txt",
        "/sub/..%2f..%2fsecret.txt",
        "/..%5csecret.txt",
        "/%252e%252e/secret.txt",
        "/.%2e/secret.txt",
        "//etc/passwd",
        "/sub//page.txt",
        "/./sub/page.txt",
        "/.hidden",
        "/absolute.txt",
        "/relative.txt",
        "/up/secret.txt",
        "/environ",
        "/sub/page.txt%00.html",
    ] {
        let answer = service.get(path);
        assert_eq!(answer.status, 404, "{path}: {:?}", answer.text());
        assert!(!answer.text().contains("secret"), "{path}");
    }
    assert_eq!(service.get("/inside.txt").text(), "page");
}

#[test]
fn what_is_no_file_is_not_waited_for() {
    let (service, www) = service_with_overlay();
    assert!(
        Command::new("mkfifo")
            .arg(www.join("pipe"))
            .status()
            .unwrap()
            .success()
    );
    fs::create_dir(www.join("empty")).unwrap();
    service.get("/pipe").is_problem(404);
    service.get("/empty/").is_problem(404);
}

#[test]
fn a_missing_directory_leaves_the_built_in_pages() {
    let (service, www) = service_with_overlay();
    fs::remove_dir(&www).unwrap();
    assert_eq!(service.get("/").status, 200);
}
