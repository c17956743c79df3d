//! An OPA policy that narrows what the roles allow.
#![cfg(feature = "policy")]

mod common;

use common::https::request;
use common::{Service, TempDir, device_config, edgeweb, run};

const PATH: &str = "auth.policy_file";

/// A service with `policy`, and where the policy is.
fn start(policy: &str) -> Service {
    let directory = TempDir::new();
    let path = directory.write("edgeweb.rego", policy);
    let text = device_config(directory.path(), &format!("{PATH} = {path:?}"));
    Service::start_with(directory, text, |_| {})
}

fn get(service: &Service, path: &str) -> u16 {
    request(service.https(), "GET", path, &[], b"").status
}

#[test]
fn only_what_the_policy_allows_passes() {
    let service = start(
        "package edgeweb\n\
         default allow := false\n\
         allow if {\n\
         \tinput.method in {\"GET\", \"HEAD\"}\n\
         \tinput.role == \"guest\"\n\
         \tinput.via == \"nothing\"\n\
         \tinput.tls\n\
         \tinput.path == \"/api/public/about\"\n\
         \tnet.cidr_contains(\"127.0.0.0/8\", input.address)\n\
         \tinput.unix_time > 1700000000\n\
         \tstartswith(input.time, \"20\")\n\
         }\n",
    );
    assert_eq!(get(&service, "/api/public/about"), 200);
    assert_eq!(
        get(&service, "/api/public/%61bout"),
        200,
        "the decoded path counts"
    );
    for path in ["/", "/metrics", "/api/public/session", "/nothing"] {
        request(service.https(), "GET", path, &[], b"").is_problem(403);
    }
    // A role is never made larger.
    let all = "package edgeweb\nallow := true\n";
    let open = start(all);
    assert_eq!(get(&open, "/api/user/logs"), 401);
    assert_eq!(get(&open, "/"), 200);
}

#[test]
fn health_and_the_devices_own_socket_are_not_asked_about() {
    let service = start("package edgeweb\nallow := false\n");
    assert_eq!(get(&service, "/health"), 200);
    assert_eq!(get(&service, "/health/ready"), 200);
    assert_eq!(get(&service, "/"), 403);
    service.wait_for_log("GET / of guest refused, the policy: does not allow it");
    let logs = run(edgeweb().arg("logs").arg("--config").arg(service.config()));
    assert!(logs.status.success(), "{logs:?}");
}

#[test]
fn what_is_not_true_is_no() {
    for (what, policy) in [
        ("undefined", "package edgeweb\nallow if input.nothing\n"),
        ("no boolean", "package edgeweb\nallow := \"true\"\n"),
        ("a number", "package edgeweb\nallow := 1\n"),
        (
            "a conflict",
            "package edgeweb\nallow := true if input.method == \"GET\"\nallow := false if input.path == \"/\"\n",
        ),
        (
            "too long",
            "package edgeweb\nallow if {\n\tinput.path == \"/\"\n\tx := numbers.range(1, 3000)\n\
             \tsome a in x\n\tsome b in x\n\tsome c in x\n\ta * b * c == -1\n}\n",
        ),
    ] {
        let service = start(policy);
        assert_eq!(get(&service, "/"), 403, "{what}");
        assert_eq!(get(&service, "/health"), 200, "{what}");
    }
}

#[test]
fn a_wrong_policy_is_told_with_its_place_and_never_in_force() {
    for (policy, expected) in [
        (
            "package edgeweb\nallow if {\n x ==\n}\n",
            "edgeweb.rego:4:1: expecting expression",
        ),
        (
            "package edgeweb\nallow if { input.x == y }\n",
            "edgeweb.rego:2:23: use of undefined variable",
        ),
        (
            "package edgeweb\nallow if { no_such(1) }\n",
            "edgeweb.rego:2:12: could not find function",
        ),
        (
            "package edgeweb\nallow if { input.name == \"nobody\"; endless(1) }\nendless(x) if endless(x + 1)\n",
            "edgeweb.rego:3:1: endless refers to itself",
        ),
        (
            "package other\nallow := true\n",
            "edgeweb.rego: has no rule data.edgeweb.allow",
        ),
        ("", "edgeweb.rego"),
    ] {
        let directory = TempDir::new();
        let path = directory.write("edgeweb.rego", policy);
        let text = device_config(directory.path(), &format!("{PATH} = {path:?}"));
        let config = directory.write("edgeweb.toml", text);
        for command in ["check-config", "serve"] {
            let output = run(edgeweb().arg(command).arg("--config").arg(&config));
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(
                output.status.code(),
                Some(2),
                "{command} {policy:?}: {said}"
            );
            assert!(said.contains(expected), "{command} {policy:?}: {said}");
            assert!(said.contains(PATH), "{command}: {said}");
        }
    }
    let missing = TempDir::new();
    let text = device_config(missing.path(), &format!("{PATH} = \"/nonexistent.rego\""));
    let config = missing.write("edgeweb.toml", text);
    let output = run(edgeweb().arg("check-config").arg("--config").arg(&config));
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[test]
fn a_reload_takes_up_a_policy_and_keeps_the_old_one_when_the_new_is_wrong() {
    let service = start("package edgeweb\nallow := true\n");
    assert_eq!(get(&service, "/"), 200);
    service
        .directory
        .write("edgeweb.rego", "package edgeweb\nallow := fals\n");
    service.signal("HUP");
    service.wait_for_log("the old configuration stays in force");
    assert_eq!(get(&service, "/"), 200);
    // Who only wants to know where the service is does not mind.
    assert!(service.health(&[]).status.success());
    service
        .directory
        .write("edgeweb.rego", "package edgeweb\nallow := false\n");
    service.signal("HUP");
    service.wait_for_log("the new configuration is in force");
    assert_eq!(get(&service, "/"), 403);
}
