//! Users, log-ins and tokens over HTTPS, right and wrong.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::users::{Device, PASSWORD, bearer, token};
use common::{
    Answer, PATIENCE, Service, TempDir, config_text, device_config, edgeweb, eventually, https,
    request,
};
use serde_json::{Value, json};

const SESSION: &str = "/api/public/session";
const ME: &str = "/api/user/session";
const USERS: &str = "/api/admin/users";
const TOKENS: &str = "/api/admin/tokens";
const CLAIM: &str = "/api/public/claim";
const NEW: &str = "another battery staple";

fn state_file(device: &Device) -> PathBuf {
    device.0.directory.path().join("state/auth.json")
}

fn state(device: &Device) -> Value {
    let text = fs::read_to_string(state_file(device)).unwrap();
    serde_json::from_str(text.split_once('\n').unwrap().1).unwrap()
}

/// The same device, started again.
fn restart(device: Device) -> Device {
    restart_with(device, |_| {})
}

fn restart_with(device: Device, change: impl FnOnce(&TempDir)) -> Device {
    device.0.signal("TERM");
    let mut service = device.0;
    assert!(service.wait().success());
    let directory = service.into_directory();
    change(&directory);
    let text = device_config(directory.path(), "");
    Device(Service::start_with(directory, text, |_| {}))
}

fn claim_with(device: &Device, code: &str, name: &str, password: &str) -> Answer {
    let body = json!({"code": code, "username": name, "password": password});
    device.ask_locally("POST", CLAIM, &[], &body)
}

#[test]
fn who_has_the_code_becomes_the_administrator_and_nobody_after_them() {
    let device = Device::start("");
    let open = |device: &Device| device.ask("GET", CLAIM, &[], &Value::Null).json();
    assert_eq!(open(&device), json!({"open": true}));
    device.log_in("ann", PASSWORD).is_problem(401);
    assert!(!state_file(&device).exists(), "nothing is written before");
    let code = device.code();

    claim_with(&device, "0000-0000-0000", "ann", PASSWORD).is_problem(403);
    // What is wrong with name or password costs no code.
    claim_with(&device, &code, "ann", "too short").is_problem(400);
    claim_with(&device, &code, "ann", "password1234").is_problem(400);
    claim_with(&device, &code, "Ann!", PASSWORD).is_problem(400);

    let body = json!({"code": code.to_lowercase().replace('-', ""), "username": "ann", "password": PASSWORD});
    let claimed = device.ask("POST", CLAIM, &[], &body);
    assert_eq!(claimed.status, 201, "{claimed:?}");
    assert_eq!(claimed.header("cache-control"), Some("no-store"));
    assert_eq!(claimed.json()["role"], "admin");
    let token = token(&claimed);
    let me = device.ask_as(&token, "GET", ME, &Value::Null).json();
    assert_eq!(
        (&me["username"], &me["role"], &me["via"]),
        (&json!("ann"), &json!("admin"), &json!("session"))
    );

    assert_eq!(open(&device), json!({"open": false}));
    claim_with(&device, &code, "eve", PASSWORD).is_problem(409);
    assert_eq!(state(&device)["users"].as_array().unwrap().len(), 1);
    let mode = fs::metadata(state_file(&device))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o600);
    let log = device.0.log();
    assert!(log.contains("edgeweb::audit: claim the device severity=\"notice\" who=\"ann\" what=\"claim\" from=\"127.0.0.1\" result=\"done\""), "{log}");

    // No code is made when somebody exists.
    let device = restart(device);
    assert!(!device.0.log().contains("claim code"), "{}", device.0.log());
    assert_eq!(open(&device), json!({"open": false}));
    assert!(device.takes(&token), "a session outlives a restart");
}

#[test]
fn the_code_is_shown_on_the_console() {
    let directory = TempDir::new();
    let text = device_config(directory.path(), "auth.claim_minutes = 7");
    let console = directory.path().join("console");
    let output = fs::File::create(&console).unwrap();
    let device = Device(Service::start_with(directory, text, |command| {
        command.stdout(output);
    }));
    let line = eventually("the line", || {
        fs::read_to_string(&console)
            .ok()
            .filter(|text| text.ends_with('\n'))
    });
    let code = device.code();
    let port = device.0.https().port();
    assert!(
        line.starts_with(&format!("edgeweb: claim code: {code} (https://")),
        "{line}"
    );
    assert!(line.ends_with(&format!(":{port}/, 7 minutes)\n")), "{line}");
    assert_eq!(line.lines().count(), 1);
}

#[test]
fn ten_wrong_codes_end_the_right_one_until_a_restart() {
    let device = Device::start("");
    let code = device.code();
    for _ in 0..10 {
        claim_with(&device, "7777-7777-7777", "eve", PASSWORD).is_problem(403);
    }
    claim_with(&device, &code, "ann", PASSWORD).is_problem(409);
    assert!(device.0.log().contains("the claim code has ended"));
    let device = restart(device);
    assert_ne!(device.code(), code);
    claim_with(&device, &code, "ann", PASSWORD).is_problem(403);
    device.claim("ann");
}

#[test]
fn two_who_claim_at_the_same_time_are_one_administrator() {
    let device = Device::start("");
    let code = device.code();
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let claims: Vec<_> = (0..4)
            .map(|n| {
                let (device, code) = (&device, &code);
                scope.spawn(move || claim_with(device, code, &format!("u{n}"), PASSWORD).status)
            })
            .collect();
        claims
            .into_iter()
            .map(|claim| claim.join().unwrap())
            .collect()
    });
    assert_eq!(
        statuses.iter().filter(|status| **status == 201).count(),
        1,
        "{statuses:?}"
    );
    assert_eq!(
        statuses.iter().filter(|status| **status == 409).count(),
        3,
        "{statuses:?}"
    );
    assert_eq!(state(&device)["users"].as_array().unwrap().len(), 1);
}

#[test]
fn a_log_in_gives_a_token_for_its_time() {
    let (device, _) = Device::claimed("auth.token_hours = 2");
    let answer = device.log_in("ann", PASSWORD);
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("set-cookie"), None);
    let body = answer.json();
    assert_eq!(body["token_type"], "Bearer");
    assert_eq!(body["expires_in"], 7200);
    assert_eq!(
        (&body["username"], &body["role"]),
        (&json!("ann"), &json!("admin"))
    );
    assert!(body["expires"].as_str().unwrap().ends_with('Z'));
    let token = token(&answer);
    let me = device.ask_as(&token, "GET", ME, &Value::Null).json();
    assert_eq!(me["expires"], body["expires"]);
    // The scheme is read as RFC 9110 says.
    for header in [format!("bearer {token}"), format!("BEARER  {token}")] {
        assert_eq!(
            device
                .ask("GET", ME, &[("authorization", &header)], &Value::Null)
                .status,
            200
        );
    }
    for body in [
        json!({"username": "ann"}),
        json!({"username": "ann", "password": PASSWORD, "admin": true}),
        json!([]),
        json!({"username": "ann", "password": 5}),
    ] {
        device.ask("POST", SESSION, &[], &body).is_problem(400);
    }
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let body = format!("username=ann&password={PASSWORD}");
    https::request(device.0.https(), "POST", SESSION, &form, body.as_bytes()).is_problem(415);
}

#[test]
fn wrong_user_and_wrong_password_are_the_same_answer_in_the_same_time() {
    let (device, _) = Device::claimed("");
    let attempt = |name: &str, password: &str| {
        let body = json!({"username": name, "password": password});
        let begun = Instant::now();
        let answer = device.ask_locally("POST", SESSION, &[], &body);
        (begun.elapsed(), answer)
    };
    let (_, known) = attempt("ann", "a wrong password");
    known.is_problem(401);
    assert_eq!(known.header("www-authenticate"), Some("Bearer"));
    for name in [
        "bob",
        "",
        "Ann",
        "a name that none can have",
        &"x".repeat(500),
        "ann\u{0}",
    ] {
        let (_, unknown) = attempt(name, PASSWORD);
        assert_eq!(
            (unknown.status, &unknown.body),
            (401, &known.body),
            "{name:?}"
        );
        assert_eq!(unknown.header("www-authenticate"), Some("Bearer"));
    }
    // Without a hash an answer comes in a tenth of the time. The best of several, taken by turns: the machine has
    // other things to do.
    let mut best = [Duration::MAX; 2];
    for _ in 0..12 {
        for (best, name) in best.iter_mut().zip(["ann", "bob"]) {
            *best = attempt(name, "a wrong password").0.min(*best);
        }
    }
    let ratio = best[0].as_secs_f64() / best[1].as_secs_f64();
    assert!((0.3..3.3).contains(&ratio), "{best:?}");
    // What somebody typed for a name may be a password.
    attempt("my-secret-password", PASSWORD);
    let log = device.0.log();
    assert!(!log.contains("my-secret-password"));
    assert!(
        log.contains("who=\"somebody unknown\" what=\"log-in\""),
        "{log}"
    );
}

#[test]
fn no_secret_is_in_the_log() {
    let (device, token) = Device::claimed("");
    device.log_in("ann", "a wrong password");
    device.ask(
        "POST",
        SESSION,
        &[],
        &json!({"username": "ann", "password": PASSWORD, "cookie": true}),
    );
    device.ask(
        "GET",
        &format!("/api/public/about?token={token}"),
        &[],
        &Value::Null,
    );
    let body = json!({"old": PASSWORD, "new": NEW});
    assert_eq!(
        device
            .ask_as(&token, "PUT", "/api/user/password", &body)
            .status,
        200
    );
    let file = state(&device);
    let log = device.0.log();
    let hash = file["users"][0]["hash"].as_str().unwrap();
    let key = file["keys"][0]["secret"].as_str().unwrap();
    for secret in [
        PASSWORD,
        NEW,
        "a wrong password",
        hash,
        key,
        token.rsplit('.').next().unwrap(),
    ] {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
}

#[test]
fn no_token_no_way_and_a_wrong_one_is_said_to_be_wrong() {
    let (device, token) = Device::claimed("");
    let none = device.ask("GET", ME, &[], &Value::Null);
    none.is_problem(401);
    assert_eq!(none.header("www-authenticate"), Some("Bearer"));
    let twice = [
        ("authorization", &*bearer(&token)),
        ("authorization", &*bearer(&token)),
    ];
    device.ask("GET", ME, &twice, &Value::Null).is_problem(400);
    let (start, mac) = token.rsplit_once('.').unwrap();
    let (header, claims) = start.split_once('.').unwrap();
    for path in [ME, "/api/public/about", "/"] {
        for wrong in [
            String::from("Bearer"),
            String::from("Bearer "),
            String::from("Basic YW5uOnBhc3N3b3Jk"),
            token.clone(),
            bearer("x"),
            bearer(&format!("{start}.")),
            bearer(start),
            bearer(&format!("{claims}.{header}.{mac}")),
            bearer(&format!("{token}.")),
            bearer(&token[..token.len() - 1]),
            bearer(&format!("{token} {token}")),
            // {"alg":"none"}
            bearer(&format!("eyJhbGciOiJub25lIn0.{claims}.")),
            bearer(&"a".repeat(4000)),
        ] {
            let answer = device.ask("GET", path, &[("authorization", &wrong)], &Value::Null);
            answer.is_problem(401);
            let challenge = answer.header("www-authenticate");
            assert_eq!(challenge, Some("Bearer error=\"invalid_token\""), "{wrong}");
        }
    }
    // In a URL it is not looked for.
    for query in ["token", "access_token", "authorization"] {
        device
            .ask("GET", &format!("{ME}?{query}={token}"), &[], &Value::Null)
            .is_problem(401);
    }
    let metrics = device.ask("GET", "/metrics", &[], &Value::Null);
    assert!(
        metrics
            .text()
            .contains("\nedgeweb_auth_tokens_refused_total 27\n"),
        "{}",
        metrics.text()
    );
    assert!(
        metrics
            .text()
            .contains("edgeweb_auth_attempts_total{result=\"ok\"} 1\n")
    );
    assert!(metrics.text().contains("\nedgeweb_users 1\n"));
}

#[test]
fn a_log_out_ends_one_session_at_once_and_for_good() {
    let (device, first) = Device::claimed("");
    let second = token(&device.log_in("ann", PASSWORD));
    assert_eq!(
        device.ask_as(&first, "DELETE", ME, &Value::Null).status,
        204
    );
    assert!(!device.takes(&first));
    assert!(device.takes(&second));
    device
        .ask_as(&first, "DELETE", ME, &Value::Null)
        .is_problem(401);
    let device = restart(device);
    assert!(!device.takes(&first));
    assert!(device.takes(&second));
    // The socket of the device has no session that could be ended.
    device
        .ask_locally("DELETE", ME, &[], &Value::Null)
        .is_problem(403);
}

#[test]
fn an_answer_that_goes_on_ends_with_the_session() {
    let (device, token) = Device::claimed("");
    let mut stream = https::connect_any(device.0.https());
    let head = format!(
        "GET /api/user/logs/stream HTTP/1.1\r\nhost: localhost\r\nauthorization: {}\r\n\r\n",
        bearer(&token)
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut text = String::new();
    let mut buffer = [0; 4096];
    // The answer in chunks ends with an empty one.
    let mut read = |until: &str| {
        let end = Instant::now() + PATIENCE;
        while !text.contains(until) {
            assert!(Instant::now() < end, "{until:?} has not come: {text}");
            let length = stream.read(&mut buffer).unwrap();
            assert_ne!(length, 0, "{text}");
            text += &String::from_utf8_lossy(&buffer[..length]);
        }
    };
    read("retry: 2000");
    assert_eq!(
        device.ask_as(&token, "DELETE", ME, &Value::Null).status,
        204
    );
    read("\r\n0\r\n\r\n");
}

#[test]
fn curl_logs_in_as_programs_and_as_browsers_do() {
    let (device, _) = Device::claimed("");
    let jar = device.0.directory.path().join("jar");
    let curl = |options: &[&str], path: &str| {
        let port = device.0.https().port();
        let output = common::run(
            std::process::Command::new("curl")
                .args(["--silent", "--insecure", "--max-time", "15", "--http2"])
                .arg("--cookie-jar")
                .arg(&jar)
                .arg("--cookie")
                .arg(&jar)
                .args(options)
                .arg(format!("https://localhost:{port}{path}")),
        );
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let json = "content-type: application/json";
    let log_in = json!({"username": "ann", "password": PASSWORD}).to_string();
    let answer = curl(&["--header", json, "--data", &log_in], SESSION);
    let answer: Value = serde_json::from_str(&answer).unwrap();
    let header = format!(
        "authorization: {}",
        bearer(answer["token"].as_str().unwrap())
    );
    assert!(curl(&["--header", &header], ME).contains(r#""via":"session""#));

    let log_in = json!({"username": "ann", "password": PASSWORD, "cookie": true}).to_string();
    let port = device.0.https().port();
    let origin = format!("origin: https://localhost:{port}");
    curl(
        &["--header", json, "--header", &origin, "--data", &log_in],
        SESSION,
    );
    assert!(fs::read_to_string(&jar).unwrap().contains("__Host-edgeweb"));
    assert!(curl(&[], ME).contains(r#""via":"cookie""#));
    let refused = curl(&["--request", "DELETE"], ME);
    assert!(refused.contains(r#""status":403"#), "{refused}");
    let elsewhere = [
        "--request",
        "DELETE",
        "--header",
        "x-requested-with: x",
        "--header",
        "origin: https://localhost:1",
    ];
    assert!(curl(&elsewhere, ME).contains(r#""status":403"#));
    curl(
        &[
            "--request",
            "DELETE",
            "--header",
            "x-requested-with: x",
            "--header",
            &origin,
        ],
        ME,
    );
    assert!(
        !fs::read_to_string(&jar).unwrap().contains("__Host-edgeweb"),
        "taken away"
    );
    assert!(curl(&[], ME).contains(r#""status":401"#));
}

#[test]
fn a_new_password_ends_every_session_but_the_new_one() {
    let (device, first) = Device::claimed("");
    let second = token(&device.log_in("ann", PASSWORD));
    let change = |token: &str, old: &str, new: &str| {
        let body = json!({"old": old, "new": new});
        device.ask_as(token, "PUT", "/api/user/password", &body)
    };
    change(&first, "a wrong password", NEW).is_problem(401);
    change(&first, PASSWORD, "too short").is_problem(400);
    change(&first, PASSWORD, "my name is ann").is_problem(400);
    assert!(device.takes(&second));
    let changed = change(&first, PASSWORD, NEW);
    assert_eq!(changed.status, 200);
    assert!(!device.takes(&first) && !device.takes(&second));
    assert!(device.takes(&token(&changed)));
    device.log_in("ann", PASSWORD).is_problem(401);
    assert_eq!(device.log_in("ann", NEW).status, 200);
    let body = json!({"old": NEW, "new": PASSWORD});
    device
        .ask_locally("PUT", "/api/user/password", &[], &body)
        .is_problem(403);
}

#[test]
fn an_administrator_makes_changes_and_removes_users() {
    let (device, admin) = Device::claimed("");
    let bob = device.add(&admin, "bob", "user");
    device
        .ask_as(&bob, "GET", USERS, &Value::Null)
        .is_problem(403);
    let list = device.ask_as(&admin, "GET", USERS, &Value::Null).json();
    let names: Vec<_> = list["users"]
        .as_array()
        .unwrap()
        .iter()
        .map(|user| &user["username"])
        .collect();
    assert_eq!(names, ["ann", "bob"]);
    assert!(!list.to_string().contains("argon2"));
    let add = |name: &str, password: &str, role: &str| {
        let body = json!({"username": name, "password": password, "role": role});
        device.ask_as(&admin, "POST", USERS, &body)
    };
    add("bob", PASSWORD, "user").is_problem(409);
    add("Bob", PASSWORD, "user").is_problem(400);
    add("local", PASSWORD, "user").is_problem(400);
    add("cat", PASSWORD, "guest").is_problem(400);
    add("cat", PASSWORD, "root").is_problem(400);
    add("cat", "aaaaaaaaaaaa", "user").is_problem(400);

    let put =
        |name: &str, body: Value| device.ask_as(&admin, "PUT", &format!("{USERS}/{name}"), &body);
    // Another role takes effect with the next request.
    assert_eq!(put("bob", json!({"role": "admin"})).status, 204);
    assert!(!device.takes(&bob));
    let bob = token(&device.log_in("bob", PASSWORD));
    assert_eq!(device.ask_as(&bob, "GET", USERS, &Value::Null).status, 200);
    assert_eq!(
        put("bob", json!({"role": "user", "password": NEW})).status,
        204
    );
    assert!(!device.takes(&bob));
    let bob = token(&device.log_in("bob", NEW));
    put("bob", json!({})).is_problem(400);
    put("nobody", json!({"role": "user"})).is_problem(404);
    put("ann", json!({"role": "user"})).is_problem(409);
    put("ann", json!({"password": NEW})).is_problem(409);
    assert!(device.takes(&admin));

    let delete =
        |name: &str| device.ask_as(&admin, "DELETE", &format!("{USERS}/{name}"), &Value::Null);
    assert_eq!(delete("bob").status, 204);
    assert!(!device.takes(&bob));
    device.log_in("bob", NEW).is_problem(401);
    delete("bob").is_problem(404);
    delete("ann").is_problem(409);
    // A user of the same name is somebody else.
    device.add(&admin, "bob", "user");
    assert!(!device.takes(&bob));
    let log = device.0.log();
    for line in [
        "new user bob severity=\"notice\" who=\"ann\"",
        "role admin for bob severity=\"notice\" who=\"ann\"",
        "removed user bob severity=\"notice\" who=\"ann\"",
        "removed user ann severity=\"notice\" who=\"ann\" what=\"removed user\" from=\"127.0.0.1\" result=\"this is the last administrator",
    ] {
        assert!(log.contains(line), "{line}: {log}");
    }
}

#[test]
fn api_tokens_have_a_name_a_role_and_an_end_and_breed_nothing() {
    let (device, admin) = Device::claimed("");
    let make = |body: Value| device.ask_as(&admin, "POST", TOKENS, &body);
    let made = make(json!({"name": "backup", "role": "admin", "days": 30}));
    assert_eq!(made.status, 201, "{made:?}");
    let backup = token(&made);
    let me = device.ask_as(&backup, "GET", ME, &Value::Null).json();
    assert_eq!(
        (&me["username"], &me["via"]),
        (&json!("backup"), &json!("token"))
    );
    assert_eq!(me["expires"], made.json()["expires"]);
    make(json!({"name": "backup", "role": "user", "days": 1})).is_problem(409);
    for wrong in [
        json!({"name": "x", "role": "user"}),
        json!({"name": "x", "role": "user", "days": 0}),
        json!({"name": "x", "role": "user", "days": 3651}),
        json!({"name": "x", "role": "user", "days": u64::MAX}),
        json!({"name": "x", "role": "user", "days": 1, "expires": "2999-01-01T00:00:00Z"}),
        json!({"name": "x", "role": "user", "expires": "2020-01-01T00:00:00Z"}),
        json!({"name": "x", "role": "user", "expires": "1960-01-01T00:00:00Z"}),
        json!({"name": "x", "role": "user", "expires": "tomorrow"}),
        json!({"name": "x", "role": "guest", "days": 1}),
        json!({"name": "X", "role": "user", "days": 1}),
    ] {
        make(wrong).is_problem(400);
    }
    // It reads, and makes nothing that would outlive it.
    assert_eq!(
        device.ask_as(&backup, "GET", USERS, &Value::Null).status,
        200
    );
    let list = device.ask_as(&backup, "GET", TOKENS, &Value::Null).json();
    assert_eq!(list["tokens"][0]["by"], "ann");
    assert_eq!(list["tokens"][0].get("token"), None);
    let user = json!({"username": "eve", "password": PASSWORD, "role": "admin"});
    for (method, path, body) in [
        ("POST", USERS, user),
        ("PUT", "/api/admin/users/ann", json!({"password": NEW})),
        ("DELETE", "/api/admin/users/ann", Value::Null),
        (
            "POST",
            TOKENS,
            json!({"name": "more", "role": "user", "days": 1}),
        ),
        ("DELETE", "/api/admin/tokens/backup", Value::Null),
        ("PUT", "/api/admin/trust", Value::Null),
        ("DELETE", "/api/admin/trust", Value::Null),
        ("PUT", "/api/admin/trust/crl", Value::Null),
        ("DELETE", "/api/admin/trust/crl", Value::Null),
        ("POST", "/api/admin/token-key", json!({"now": true})),
        (
            "PUT",
            "/api/user/password",
            json!({"old": PASSWORD, "new": NEW}),
        ),
        ("DELETE", ME, Value::Null),
    ] {
        device.ask_as(&backup, method, path, &body).is_problem(403);
    }
    // Not as a cookie: a browser has no business with it.
    let cookie = format!("__Host-edgeweb={backup}");
    device
        .ask("GET", ME, &[("cookie", &cookie)], &Value::Null)
        .is_problem(401);

    let bob = device.add(&admin, "bob", "admin");
    let of_bob = token(&device.ask_as(
        &bob,
        "POST",
        TOKENS,
        &json!({"name": "bobs", "role": "user", "days": 1}),
    ));
    device
        .ask_as(&of_bob, "GET", USERS, &Value::Null)
        .is_problem(403);
    assert!(device.takes(&of_bob));
    assert_eq!(
        device
            .ask_as(&admin, "DELETE", "/api/admin/users/bob", &Value::Null)
            .status,
        204
    );
    assert!(!device.takes(&of_bob), "it ends with who made it");
    assert_eq!(
        device
            .ask_as(&admin, "DELETE", "/api/admin/tokens/backup", &Value::Null)
            .status,
        204
    );
    assert!(!device.takes(&backup));
    device
        .ask_as(&admin, "DELETE", "/api/admin/tokens/backup", &Value::Null)
        .is_problem(404);
}

#[test]
fn a_new_key_lets_the_old_ones_tokens_live_or_ends_them_all() {
    let (device, before) = Device::claimed("");
    let api = token(&device.ask_as(
        &before,
        "POST",
        TOKENS,
        &json!({"name": "t", "role": "user", "days": 1}),
    ));
    let rotate = |token: &str, now: bool| {
        let body = json!({"now": now});
        device
            .ask_as(token, "POST", "/api/admin/token-key", &body)
            .status
    };
    assert_eq!(rotate(&before, false), 204);
    let after = token(&device.log_in("ann", PASSWORD));
    assert_ne!(
        before.split('.').next(),
        after.split('.').next(),
        "another kid"
    );
    assert!(device.takes(&before) && device.takes(&after) && device.takes(&api));
    for _ in 0..5 {
        let after = token(&device.log_in("ann", PASSWORD));
        assert_eq!(rotate(&after, false), 204);
        assert!(device.takes(&api), "its key is not pushed out");
    }
    assert!(!device.takes(&after), "its key was: there are four");
    assert_eq!(rotate(&before, true), 204);
    for token in [&before, &after, &api] {
        assert!(!device.takes(token));
    }
    assert_eq!(device.log_in("ann", PASSWORD).status, 200);
}

#[test]
fn a_browser_has_its_token_in_a_cookie_and_its_pages_alone_change_something() {
    let (device, _) = Device::claimed("");
    let body = json!({"username": "ann", "password": PASSWORD, "cookie": true});
    let answer = device.ask("POST", SESSION, &[], &body);
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json().get("token"), None);
    let set = answer.header("set-cookie").unwrap();
    let (pair, attributes) = set.split_once("; ").unwrap();
    assert_eq!(
        attributes,
        "Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age=86400"
    );
    assert!(pair.starts_with("__Host-edgeweb=ey"));
    let token = pair.split_once('=').unwrap().1;

    let ask = |method: &str, path: &str, headers: &[(&str, &str)], body: &Value| {
        let headers = [&[("cookie", pair)], headers].concat();
        device.ask(method, path, &headers, body)
    };
    let me = ask("GET", ME, &[], &Value::Null);
    assert_eq!(me.json()["via"], "cookie");
    let user = json!({"username": "bob", "password": PASSWORD, "role": "user"});
    let own = ("x-requested-with", "edgeweb");
    for refused in [
        &[][..],
        &[("x-requested-with", "")],
        &[("sec-fetch-site", "same-origin")],
        &[own, ("sec-fetch-site", "same-site")],
        &[own, ("sec-fetch-site", "cross-site")],
        &[own, ("sec-fetch-site", "none")],
        &[own, ("origin", "https://evil.example")],
        &[own, ("origin", "null")],
    ] {
        ask("POST", USERS, refused, &user).is_problem(403);
        ask("DELETE", ME, refused, &Value::Null).is_problem(403);
    }
    assert_eq!(state(&device)["users"].as_array().unwrap().len(), 1);
    let allowed = [
        own,
        ("sec-fetch-site", "same-origin"),
        ("origin", "https://localhost"),
    ];
    assert_eq!(ask("POST", USERS, &allowed, &user).status, 201);
    // The header of a program needs none of that, and goes before a cookie.
    let both = [("authorization", "Bearer x"), own];
    ask("GET", ME, &both, &Value::Null).is_problem(401);
    // Two different ones: somebody else has set one of them.
    device
        .ask(
            "GET",
            ME,
            &[("cookie", &format!("{pair}; __Host-edgeweb=x"))],
            &Value::Null,
        )
        .is_problem(400);
    device
        .ask(
            "GET",
            ME,
            &[("cookie", pair), ("cookie", "__Host-edgeweb=x")],
            &Value::Null,
        )
        .is_problem(400);
    // A wrong one is nobody on a page, and nobody elsewhere.
    assert_eq!(
        device
            .ask("GET", "/", &[("cookie", "__Host-edgeweb=x")], &Value::Null)
            .status,
        200
    );
    device
        .ask("GET", ME, &[("cookie", "__Host-edgeweb=x")], &Value::Null)
        .is_problem(401);
    device
        .ask(
            "GET",
            ME,
            &[("cookie", &format!("edgeweb={token}"))],
            &Value::Null,
        )
        .is_problem(401);

    // A log-in that a page of elsewhere asks for.
    for refused in [
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
        ("origin", "https://evil.example"),
    ] {
        device
            .ask("POST", SESSION, &[refused], &body)
            .is_problem(403);
        let claim = json!({"code": "x", "username": "eve", "password": PASSWORD});
        device
            .ask("POST", CLAIM, &[refused], &claim)
            .is_problem(403);
    }
    assert_eq!(
        device
            .ask("POST", SESSION, &[("sec-fetch-site", "same-origin")], &body)
            .status,
        200
    );

    let change = json!({"old": PASSWORD, "new": NEW});
    let changed = ask("PUT", "/api/user/password", &[own], &change);
    let pair = changed
        .header("set-cookie")
        .unwrap()
        .split("; ")
        .next()
        .unwrap();
    assert_eq!(changed.json().get("token"), None);
    let out = device.ask("DELETE", ME, &[("cookie", pair), own], &Value::Null);
    assert_eq!(out.status, 204);
    assert_eq!(
        out.header("set-cookie"),
        Some("__Host-edgeweb=; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age=0")
    );
    device
        .ask("GET", ME, &[("cookie", pair)], &Value::Null)
        .is_problem(401);
}

/// A request from another address of the loopback network.
fn ask_from(address: [u8; 4], device: &Device, name: &str, password: &str) -> Answer {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((address, 0)).into()).unwrap();
    socket.connect(&device.0.https().into()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let name_of_server = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let config = https::client_config(&["http/1.1"], None);
    let client = rustls::ClientConnection::new(config, name_of_server).unwrap();
    let mut stream = rustls::StreamOwned::new(client, std::net::TcpStream::from(socket));
    let body = json!({"username": name, "password": password}).to_string();
    let headers = [("content-type", "application/json")];
    https::exchange(&mut stream, "POST", SESSION, &headers, body.as_bytes()).unwrap()
}

#[test]
fn who_guesses_waits_and_does_not_lock_the_owner_out() {
    let (device, _) = Device::claimed("");
    assert_eq!(
        ask_from([127, 0, 0, 1], &device, "ann", PASSWORD).status,
        200
    );
    for _ in 0..5 {
        ask_from([127, 0, 0, 66], &device, "ann", "a wrong password").is_problem(401);
    }
    let delayed = ask_from([127, 0, 0, 66], &device, "ann", PASSWORD);
    delayed.is_problem(429);
    let seconds: u64 = delayed.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=300).contains(&seconds));
    // Unknown names wait like known ones, and so does another account at the same address.
    ask_from([127, 0, 0, 66], &device, "bob", "a wrong password").is_problem(429);
    ask_from([127, 0, 0, 67], &device, "ann", PASSWORD).is_problem(429);
    assert_eq!(
        ask_from([127, 0, 0, 1], &device, "ann", PASSWORD).status,
        200
    );
    device
        .0
        .wait_for_log("127.0.0.66: too many wrong passwords or codes");
    let metrics = device.ask("GET", "/metrics", &[], &Value::Null);
    assert!(
        metrics
            .text()
            .contains("edgeweb_auth_attempts_total{result=\"refused\"} 5\n")
    );
    eventually("the delay is over", || {
        (ask_from([127, 0, 0, 66], &device, "ann", PASSWORD).status == 200).then_some(())
    });
}

/// A number of kB in `/proc/PID/status`.
fn memory(device: &Device, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", device.0.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn the_memory_of_a_hash_is_given_back() {
    let (device, _) = Device::claimed("");
    let before = memory(&device, "VmRSS:");
    for _ in 0..10 {
        let body = json!({"username": "ann", "password": PASSWORD});
        assert_eq!(device.ask_locally("POST", SESSION, &[], &body).status, 200);
    }
    let after = memory(&device, "VmRSS:");
    assert!(after < before + 5000, "{before} kB, then {after} kB");
    let most = memory(&device, "VmHWM:");
    assert!(most < before + 12_000, "{before} kB, at most {most} kB");
}

#[test]
fn many_log_ins_at_once_keep_nobody_else_waiting() {
    let (device, token) = Device::claimed("");
    std::thread::scope(|scope| {
        // As many as the local socket has places.
        let attempts: Vec<_> = (0..14)
            .map(|_| {
                let body = json!({"username": "ann", "password": PASSWORD});
                let device = &device;
                scope.spawn(move || device.ask_locally("POST", SESSION, &[], &body))
            })
            .collect();
        let begun = Instant::now();
        assert!(device.takes(&token));
        assert!(begun.elapsed() < Duration::from_secs(5));
        for attempt in attempts {
            let answer = attempt.join().unwrap();
            if answer.status != 200 {
                answer.is_problem(503);
                assert_eq!(answer.header("retry-after"), Some("5"));
            }
        }
    });
}

#[test]
fn in_clear_no_secret_is_looked_at() {
    let directory = TempDir::new();
    let text = device_config(
        directory.path(),
        "http.content = \"public\"\nserver.host_names = [\"device\"]",
    );
    let device = Device(Service::start_with(directory, text, |_| {}));
    let token = device.claim("ann");
    let clear = device.0.address;
    let cookie = format!("a=b; __Host-edgeweb={token}");
    let json = [("content-type", "application/json")];
    let body = json!({"username": "ann", "password": PASSWORD}).to_string();
    request(clear, "POST", SESSION, &json, body.as_bytes()).is_problem(403);
    request(
        clear,
        "POST",
        "/api/public%2fsession",
        &json,
        body.as_bytes(),
    );
    request(clear, "POST", CLAIM, &json, body.as_bytes()).is_problem(403);
    for path in [ME, "/api/public/about", "/"] {
        request(
            clear,
            "GET",
            path,
            &[("authorization", &bearer(&token))],
            b"",
        )
        .is_problem(403);
        request(clear, "GET", path, &[("authorization", "Bearer x")], b"").is_problem(403);
        request(clear, "GET", path, &[("cookie", &cookie)], b"").is_problem(403);
    }
    request(clear, "GET", ME, &[], b"").is_problem(401);
    assert_eq!(
        request(clear, "GET", CLAIM, &[], b"").json(),
        json!({"open": false})
    );
    assert!(
        !device.0.log().contains("what=\"log-in\""),
        "nothing was tried"
    );
}

#[test]
fn the_makers_users_are_taken_over_at_the_first_start_alone() {
    let hash = hash_of(PASSWORD);
    let directory = TempDir::new();
    let users =
        |name: &str| format!("[[user]]\nname = {name:?}\nrole = \"admin\"\nhash = {hash:?}\n");
    directory.write("users.toml", users("maker"));
    let text = device_config(directory.path(), "");
    let device = Device(Service::start_with(directory, text, |_| {}));
    assert!(!device.0.log().contains("claim code"));
    let made = token(&device.log_in("maker", PASSWORD));
    assert!(device.takes(&made));
    let device = restart_with(device, |directory| {
        directory.write("users.toml", users("other"));
    });
    device.log_in("other", PASSWORD).is_problem(401);
    assert!(device.takes(&made));
}

fn hash_of(password: &str) -> String {
    let mut child = edgeweb()
        .args(["user", "hash"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(password.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn a_wrong_file_of_the_makers_opens_no_door() {
    let hash = hash_of(PASSWORD);
    let user = |name: &str, role: &str, hash: &str| {
        format!("[[user]]\nname = {name:?}\nrole = {role:?}\nhash = {hash:?}\n")
    };
    let expensive = hash.replace("m=7168", "m=1000000");
    for (content, reason) in [
        (String::new(), "names no user"),
        (String::from("[[user"), "users.toml:1:"),
        (user("ann", "root", &hash), "unknown variant `root`"),
        (user("ann", "guest", &hash), "a role is user or admin"),
        (user("Ann", "admin", &hash), "a name is"),
        (user("ann", "admin", PASSWORD), "its hash is no PHC string"),
        (user("ann", "admin", &expensive), "its hash costs more than"),
        (user("ann", "admin", &hash).repeat(2), "that name is taken"),
        (
            format!("{}pin = 1\n", user("ann", "admin", &hash)),
            "unknown field `pin`",
        ),
    ] {
        let directory = TempDir::new();
        directory.write("users.toml", &content);
        let text = device_config(directory.path(), "");
        let device = Device(Service::start_with(directory, text, |_| {}));
        let log = device.0.log();
        assert!(log.contains(reason), "{reason}: {log}");
        assert!(
            log.contains("nobody can log in, and the device cannot be claimed"),
            "{log}"
        );
        assert!(!log.contains("claim code"), "{log}");
        assert!(!log.contains(PASSWORD), "{log}");
        assert_eq!(
            device.ask("GET", CLAIM, &[], &Value::Null).json(),
            json!({"open": false})
        );
        device.log_in("ann", PASSWORD).is_problem(401);
    }
}

#[test]
fn a_weaker_hash_becomes_a_strong_one_at_the_next_log_in() {
    // By argon2-cffi: m=1024, t=2, p=2.
    let weak = "$argon2id$v=19$m=1024,t=2,p=2$c2FsdHNhbHQ$Q3R4mehDUX554Xgh6rQKbw";
    let directory = TempDir::new();
    directory.write(
        "users.toml",
        format!("[[user]]\nname = \"ann\"\nrole = \"admin\"\nhash = {weak:?}\n"),
    );
    let text = device_config(directory.path(), "");
    let device = Device(Service::start_with(directory, text, |_| {}));
    assert_eq!(state(&device)["users"][0]["hash"], weak);
    let token = token(&device.log_in("ann", PASSWORD));
    let hash = state(&device)["users"][0]["hash"].clone();
    assert!(
        hash.as_str()
            .unwrap()
            .starts_with("$argon2id$v=19$m=7168,t=5,p=1$")
    );
    assert!(device.takes(&token));
    assert_eq!(device.log_in("ann", PASSWORD).status, 200);
    assert_eq!(state(&device)["users"][0]["hash"], hash);
}

#[test]
fn a_damaged_file_costs_the_last_change_and_all_sessions_and_no_user() {
    let (device, ann) = Device::claimed("");
    let bob = device.add(&ann, "bob", "user");
    let api = token(&device.ask_as(
        &ann,
        "POST",
        TOKENS,
        &json!({"name": "t", "role": "user", "days": 1}),
    ));
    let good = fs::read(state_file(&device)).unwrap();

    // While it runs.
    fs::write(state_file(&device), &good[..good.len() / 2]).unwrap();
    for token in [&ann, &bob, &api] {
        assert!(!device.takes(token));
    }
    let log = device.0.log();
    assert!(
        log.contains("the previous file is in force, and all tokens have ended"),
        "{log}"
    );
    assert_eq!(device.log_in("ann", PASSWORD).status, 200);
    assert_eq!(device.log_in("bob", PASSWORD).status, 200);
    let bad = device.0.directory.path().join("state/auth.json.bad");
    assert_eq!(fs::read(bad).unwrap(), &good[..good.len() / 2]);

    // While it does not, and gone altogether.
    for damage in [
        Some(&b""[..]),
        Some(b"edgeweb-auth 1 crc32c=00000000\n{}"),
        None,
    ] {
        let device = &device;
        device.0.signal("STOP");
        match damage {
            Some(content) => fs::write(state_file(device), content).unwrap(),
            None => fs::remove_file(state_file(device)).unwrap(),
        }
        device.0.signal("CONT");
        assert_eq!(device.log_in("ann", PASSWORD).status, 200);
    }
    let device = restart_with(device, |directory| {
        fs::write(directory.path().join("state/auth.json"), b"x").unwrap();
    });
    assert!(!device.0.log().contains("claim code"));
    assert_eq!(device.log_in("ann", PASSWORD).status, 200);
}

#[test]
fn two_damaged_files_close_the_door_until_somebody_on_the_device_opens_it() {
    let (device, ann) = Device::claimed("");
    let device = restart_with(device, |directory| {
        for name in ["auth.json", "auth.json.previous"] {
            fs::write(directory.path().join("state").join(name), b"damaged").unwrap();
        }
    });
    let log = device.0.log();
    assert!(!log.contains("claim code"), "{log}");
    assert!(log.contains("edgeweb user add"), "{log}");
    assert_eq!(
        device.ask("GET", CLAIM, &[], &Value::Null).json(),
        json!({"open": false})
    );
    device.log_in("ann", PASSWORD).is_problem(503);
    let body = json!({"code": "x", "username": "eve", "password": PASSWORD});
    device.ask("POST", CLAIM, &[], &body).is_problem(503);
    assert!(!device.takes(&ann));
    assert_eq!(device.ask("GET", "/health", &[], &Value::Null).status, 200);

    let mut child = edgeweb()
        .args(["user", "add", "carl", "--config"])
        .arg(device.0.config())
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(PASSWORD.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("begun anew"),
        "{output:?}"
    );
    assert_eq!(device.log_in("carl", PASSWORD).status, 200);
    for name in ["auth.json.bad", "auth.json.previous.bad"] {
        assert_eq!(
            fs::read(device.0.directory.path().join("state").join(name)).unwrap(),
            b"damaged"
        );
    }
}

#[test]
fn a_newer_file_is_not_touched_and_loose_permissions_are_tightened() {
    let (device, ann) = Device::claimed("");
    let mode = |device: &Device| {
        fs::metadata(state_file(device))
            .unwrap()
            .permissions()
            .mode()
            & 0o7777
    };
    fs::set_permissions(state_file(&device), fs::Permissions::from_mode(0o666)).unwrap();
    assert!(device.takes(&ann));
    assert_eq!(mode(&device), 0o600);
    assert!(
        device.0.log().contains("auth.json: had mode 0666"),
        "{}",
        device.0.log()
    );

    let good = fs::read_to_string(state_file(&device)).unwrap();
    let newer = with_version(2, good.split_once('\n').unwrap().1);
    fs::write(state_file(&device), &newer).unwrap();
    assert!(!device.takes(&ann));
    device.log_in("ann", PASSWORD).is_problem(503);
    assert!(device.0.log().contains("is of version 2"));
    assert_eq!(fs::read_to_string(state_file(&device)).unwrap(), newer);
    fs::write(state_file(&device), &good).unwrap();
    assert!(device.takes(&ann), "mended while it runs");
}

fn with_version(version: u32, body: &str) -> String {
    let rest = format!("edgeweb-auth {version}\n{body}");
    let sum = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI).checksum(rest.as_bytes());
    format!("edgeweb-auth {version} crc32c={sum:08x}\n{body}")
}

#[test]
fn tokens_forged_with_the_devices_own_key_are_refused_unless_they_are_as_the_device_makes_them() {
    use base64ct::{Base64, Base64UrlUnpadded, Encoding};
    use ring::hmac;
    let (device, good) = Device::claimed("");
    let file = state(&device);
    let key = &file["keys"][0];
    let secret = Base64::decode_vec(key["secret"].as_str().unwrap()).unwrap();
    let claims = good.split('.').nth(1).unwrap();
    let claims = Base64UrlUnpadded::decode_vec(claims).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    assert_eq!(claims["aud"], file["device"]);
    let with = |header: &Value, claims: &Value, algorithm: hmac::Algorithm| {
        let encode = |value: &Value| Base64UrlUnpadded::encode_string(value.to_string().as_bytes());
        // serde_json sorts members; the device's own order is that of the text here.
        let header = match header {
            Value::String(text) => Base64UrlUnpadded::encode_string(text.as_bytes()),
            other => encode(other),
        };
        let text = format!("{header}.{}", encode(claims));
        let mac = hmac::sign(&hmac::Key::new(algorithm, &secret), text.as_bytes());
        format!("{text}.{}", Base64UrlUnpadded::encode_string(mac.as_ref()))
    };
    let kid = key["kid"].as_str().unwrap();
    let header = |alg: &str| {
        Value::String(format!(
            "{{\"alg\":{alg:?},\"typ\":\"JWT\",\"kid\":{kid:?}}}"
        ))
    };
    let right = header("HS512");
    assert!(
        device.takes(&with(&right, &claims, hmac::HMAC_SHA512)),
        "the test signs as the device does"
    );
    for (alg, algorithm) in [
        ("HS256", hmac::HMAC_SHA256),
        ("HS384", hmac::HMAC_SHA384),
        ("none", hmac::HMAC_SHA512),
        ("RS256", hmac::HMAC_SHA512),
    ] {
        assert!(
            !device.takes(&with(&header(alg), &claims, algorithm)),
            "{alg}"
        );
    }
    for (member, value) in [
        ("sub", json!("root")),
        ("gen", json!(0)),
        ("gen", json!(claims["gen"].as_u64().unwrap() + 1)),
        ("aud", json!("another")),
        ("iss", json!("another")),
        ("exp", json!(1_700_000_000)),
        ("nbf", json!(claims["exp"])),
        ("role", json!("root")),
        ("more", json!(1)),
    ] {
        let mut claims = claims.clone();
        claims[member] = value;
        assert!(
            !device.takes(&with(&right, &claims, hmac::HMAC_SHA512)),
            "{member}"
        );
    }
    // A token with a smaller role stays smaller.
    let mut small = claims.clone();
    small["role"] = json!("user");
    let small = with(&right, &small, hmac::HMAC_SHA512);
    assert!(device.takes(&small));
    device
        .ask_as(&small, "GET", USERS, &Value::Null)
        .is_problem(403);
}

#[test]
fn without_https_nobody_logs_in_over_the_network() {
    let directory = TempDir::new();
    let text = config_text(directory.path(), "");
    let device = Device(Service::start_with(directory, text, |_| {}));
    let code = device.code();
    let body = json!({"code": code, "username": "ann", "password": PASSWORD});
    let json = [("content-type", "application/json")];
    request(
        device.0.address,
        "POST",
        CLAIM,
        &json,
        body.to_string().as_bytes(),
    )
    .is_problem(403);
    // The device's own socket is as private as its file mode.
    assert_eq!(device.ask_locally("POST", CLAIM, &[], &body).status, 201);
}
