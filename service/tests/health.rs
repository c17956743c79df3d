//! `/health`, `/health/ready`, `/api/public/about`, and how errors look.

mod common;

use common::{Service, request};

#[test]
fn health_answers_ok_without_a_token() {
    let service = Service::start("");
    let answer = service.get("/health");
    assert_eq!((answer.status, answer.text()), (200, r#"{"status":"ok"}"#));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let head = request(service.address, "HEAD", "/health", &[], b"");
    assert_eq!(
        (head.status, head.header("content-length")),
        (200, Some("15"))
    );
}

#[test]
fn ready_lists_the_checks() {
    let service = Service::start("");
    let answer = service.get("/health/ready");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["status"], "ok");
    assert_eq!(answer.json()["checks"][0]["name"], "lifecycle");
    assert_eq!(answer.json()["checks"][0]["status"], "pass");
    assert_eq!(answer.header("cache-control"), Some("no-store"));
}

#[test]
fn about_says_name_version_target_and_uptime() {
    let service = Service::start("");
    let about = service.get("/api/public/about").json();
    assert_eq!(about["name"], "edgeweb");
    assert_eq!(about["version"], env!("CARGO_PKG_VERSION"));
    assert!(
        about["target"]
            .as_str()
            .unwrap()
            .starts_with(std::env::consts::ARCH)
    );
    let first = about["uptime"].as_u64().unwrap();
    common::eventually("the uptime grows", || {
        (service.get("/api/public/about").json()["uptime"].as_u64()? > first).then_some(())
    });
}

#[test]
fn what_is_wrong_is_a_problem() {
    let service = Service::start("");
    service.get("/nowhere").is_problem(404);
    service.get("/api/public/nowhere").is_problem(404);
    let wrong_method = request(service.address, "DELETE", "/health", &[], b"");
    wrong_method.is_problem(405);
    assert_eq!(wrong_method.header("allow"), Some("GET, HEAD"));
    let wrong_method = request(service.address, "POST", "/index.html", &[], b"");
    wrong_method.is_problem(405);
    assert_eq!(wrong_method.header("allow"), Some("GET, HEAD"));
}

#[test]
fn routes_for_those_who_logged_in_are_closed_while_nobody_can() {
    let service = Service::start("");
    for path in [
        "/api/user/x",
        "/api/user",
        "/api/admin/config",
        "/api/admin/",
    ] {
        let answer = service.get(path);
        answer.is_problem(401);
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
    }
    service.get("/api/users").is_problem(404);
}

#[test]
fn every_answer_carries_the_security_headers() {
    let service = Service::start("");
    for path in ["/", "/health", "/nowhere", "/api/admin/x"] {
        let answer = service.get(path);
        assert_eq!(
            answer.header("x-content-type-options"),
            Some("nosniff"),
            "{path}"
        );
        assert_eq!(answer.header("x-frame-options"), Some("DENY"), "{path}");
        assert_eq!(
            answer.header("referrer-policy"),
            Some("no-referrer"),
            "{path}"
        );
        let policy = answer.header("content-security-policy").unwrap();
        assert!(
            policy.contains("default-src 'self'") && !policy.contains("unsafe"),
            "{path}: {policy}"
        );
    }
}
