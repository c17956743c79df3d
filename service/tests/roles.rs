//! Every route against everybody who may come: the table below says what each of them needs.

mod common;

use std::collections::BTreeSet;

use common::users::{Device, bearer};
use common::{TempDir, https};
use edgeweb::{Config, Role, Server};
use serde_json::{Value, json};

use Role::{Admin, Guest, User};

/// Every route of the service. Who adds one adds its row: what it needs is a decision, not an accident.
const ROUTES: [(&str, &str, Role); 31] = [
    ("GET", "/health", Guest),
    ("GET", "/health/ready", Guest),
    ("GET", "/metrics", Guest),
    ("GET", "/api/public/about", Guest),
    ("GET", "/api/public/claim", Guest),
    ("POST", "/api/public/claim", Guest),
    ("POST", "/api/public/session", Guest),
    ("GET", "/api/user/session", User),
    ("DELETE", "/api/user/session", User),
    ("PUT", "/api/user/password", User),
    ("GET", "/api/user/logs", User),
    ("GET", "/api/user/logs/stream", User),
    ("GET", "/api/admin/users", Admin),
    ("POST", "/api/admin/users", Admin),
    ("PUT", "/api/admin/users/{name}", Admin),
    ("DELETE", "/api/admin/users/{name}", Admin),
    ("GET", "/api/admin/tokens", Admin),
    ("POST", "/api/admin/tokens", Admin),
    ("DELETE", "/api/admin/tokens/{name}", Admin),
    ("POST", "/api/admin/token-key", Admin),
    ("GET", "/api/admin/certificate", Admin),
    ("PUT", "/api/admin/certificate", Admin),
    ("DELETE", "/api/admin/certificate", Admin),
    ("POST", "/api/admin/certificate/renew", Admin),
    ("POST", "/api/admin/certificate/request", Admin),
    ("GET", "/api/admin/trust", Admin),
    ("PUT", "/api/admin/trust", Admin),
    ("DELETE", "/api/admin/trust", Admin),
    ("PUT", "/api/admin/trust/crl", Admin),
    ("DELETE", "/api/admin/trust/crl", Admin),
    // As an example of what a program adds; see below.
    ("GET", "/api/admin/example", Admin),
];

fn config(directory: &TempDir) -> Config {
    let text = common::device_config(directory.path(), "");
    Config::parse(&text, "roles.toml".as_ref()).unwrap()
}

#[test]
fn every_route_stands_in_the_table() {
    let directory = TempDir::new();
    let example = edgeweb::RouteGroup::new("example").get(Admin, "/example", async || "");
    let server = Server::builder()
        .config(config(&directory))
        .routes(example)
        .start()
        .unwrap();
    let routes: BTreeSet<_> = server
        .routes()
        .into_iter()
        .map(|route| (route.method, route.path, format!("{:?}", route.role)))
        .collect();
    let table: BTreeSet<_> = ROUTES
        .into_iter()
        .map(|(method, path, role)| (method.to_owned(), path.to_owned(), format!("{role:?}")))
        .collect();
    server.stop_now();
    let _ = server.wait();
    assert_eq!(routes, table);
    assert_eq!(table.len(), ROUTES.len());
}

/// Somebody who asks, and what they may do.
struct Caller {
    name: &'static str,
    role: Role,
    headers: Vec<(&'static str, String)>,
    local: bool,
}

#[test]
fn nobody_gets_further_than_their_role() {
    let (device, admin) = Device::claimed("");
    let user = device.add(&admin, "bob", "user");
    let api = |name: &str, role: &str| {
        let body = json!({"name": name, "role": role, "days": 1});
        let made = device.ask_as(&admin, "POST", "/api/admin/tokens", &body);
        common::users::token(&made)
    };
    let with = |token: &str| vec![("authorization", bearer(token))];
    let cookie = |token: &str| {
        vec![
            ("cookie", format!("__Host-edgeweb={token}")),
            ("x-requested-with", String::from("test")),
        ]
    };
    let callers = [
        Caller {
            name: "nobody",
            role: Guest,
            headers: Vec::new(),
            local: false,
        },
        Caller {
            name: "a user",
            role: User,
            headers: with(&user),
            local: false,
        },
        Caller {
            name: "a user with a cookie",
            role: User,
            headers: cookie(&user),
            local: false,
        },
        Caller {
            name: "a user's program",
            role: User,
            headers: with(&api("one", "user")),
            local: false,
        },
        Caller {
            name: "an administrator",
            role: Admin,
            headers: with(&admin),
            local: false,
        },
        Caller {
            name: "an administrator with a cookie",
            role: Admin,
            headers: cookie(&admin),
            local: false,
        },
        Caller {
            name: "an administrator's program",
            role: Admin,
            headers: with(&api("two", "admin")),
            local: false,
        },
        Caller {
            name: "the device itself",
            role: User,
            headers: Vec::new(),
            local: true,
        },
        Caller {
            name: "an administrator on the device",
            role: Admin,
            headers: with(&admin),
            local: true,
        },
        Caller {
            name: "a cookie's bearer on the device",
            role: User,
            headers: cookie(&user),
            local: true,
        },
    ];
    for caller in &callers {
        for (method, path, role) in ROUTES {
            if path.ends_with("/example") {
                continue;
            }
            // A body that no route takes: who gets past the guard is answered for that, or for the method's sake.
            let path = path.replace("{name}", "nobody-of-this-name");
            // HEAD: a stream would not end. Log-out would end what the next row needs.
            let method = match (method, &*path) {
                ("GET", _) => "HEAD",
                ("DELETE", "/api/user/session") if caller.role >= role => continue,
                (method, _) => method,
            };
            let body = if method == "HEAD" {
                Value::Null
            } else {
                json!({"no": "such member"})
            };
            let headers: Vec<(&str, &str)> = caller
                .headers
                .iter()
                .map(|(n, v)| (*n, v.as_str()))
                .collect();
            let answer = if caller.local {
                device.ask_locally(method, &path, &headers, &body)
            } else {
                device.ask(method, &path, &headers, &body)
            };
            let who = caller.name;
            let expected = match caller.role {
                has if has >= role => None,
                Guest => Some(401),
                _ => Some(403),
            };
            match expected {
                Some(401) => {
                    assert_eq!(answer.status, 401, "{who}: {method} {path}");
                    assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
                }
                Some(status) => assert_eq!(answer.status, status, "{who}: {method} {path}"),
                // An API token may read everything and breed nothing; deleting is where that shows here.
                None if who.ends_with("program")
                    && (method == "DELETE" && path.contains("nobody-of")
                        || method != "HEAD" && path.starts_with("/api/admin/trust")) =>
                {
                    assert_eq!(answer.status, 403)
                }
                None => assert!(
                    matches!(answer.status, 200 | 204 | 400 | 404 | 409 | 415),
                    "{who}: {method} {path}: {answer:?}"
                ),
            }
        }
    }
}

#[test]
fn a_path_written_otherwise_asks_for_no_smaller_role() {
    let (device, _) = Device::claimed("");
    for path in [
        "/api/admin/users",
        "/api/admin/users/",
        "/api/%61dmin/users",
        "/api%2fadmin/users",
        "/api/admin%2Fusers",
        "/%61pi/admin/users",
        "/api/public/../admin/users",
        "/api/public/%2e%2e/admin/users",
        "//api/admin/users",
        "/API/ADMIN/users",
        "/api/./admin/users",
        "/api/admin/users;x=1",
        "/api/admin/users?x=/api/public/about",
    ] {
        let answer = device.ask("GET", path, &[], &Value::Null);
        assert!(
            matches!(answer.status, 400 | 401 | 404),
            "{path}: {answer:?}"
        );
        assert!(!answer.text().contains("\"users\""), "{path}");
    }
}

#[test]
fn a_method_that_a_route_has_not_asks_for_its_role_too() {
    let (device, _) = Device::claimed("");
    for method in ["PATCH", "OPTIONS", "DELETE", "TRACE", "FOO"] {
        let answer = https::request(device.0.https(), method, "/api/admin/users", &[], b"");
        assert_eq!(answer.status, 401, "{method}");
    }
    // Names of methods in headers are no methods.
    for name in ["x-http-method-override", "x-method-override"] {
        let answer = device.ask("GET", "/api/public/session", &[(name, "POST")], &json!({}));
        answer.is_problem(405);
    }
}
