//! `edgeweb user` on the device, with a service that runs and without.

mod common;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use common::users::{Device, PASSWORD, token};
use common::{PATIENCE, Service, TempDir, device_config, edgeweb, eventually};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::Value;

const NEW: &str = "another battery staple";

fn user(directory: &Path, arguments: &[&str], stdin: &str) -> Output {
    run_with(directory, arguments, stdin, |_| {})
}

fn run_with(
    directory: &Path,
    arguments: &[&str],
    stdin: &str,
    prepare: impl FnOnce(&mut Command),
) -> Output {
    let config = directory.join("edgeweb.toml");
    let mut command = edgeweb();
    command
        .arg("user")
        .args(arguments)
        .arg("--config")
        .arg(config)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    prepare(&mut command);
    let mut child = command.spawn().unwrap();
    // One that refuses early does not read.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    child.wait_with_output().unwrap()
}

#[track_caller]
fn fails(output: &Output, status: i32, said: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{text}");
    assert!(text.contains(said), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(output.stdout.is_empty());
}

/// A device that does not run.
fn stopped() -> TempDir {
    let directory = TempDir::new();
    directory.write("edgeweb.toml", device_config(directory.path(), ""));
    directory
}

fn state(directory: &Path) -> String {
    fs::read_to_string(directory.join("state/auth.json")).unwrap()
}

#[test]
fn users_are_made_changed_and_removed_without_a_service() {
    let directory = stopped();
    let path = directory.path();
    let list = || String::from_utf8(user(path, &["list"], "").stdout).unwrap();
    assert_eq!(list(), "");
    assert!(!path.join("state").exists(), "looking makes nothing");
    for (name, options) in [("ann", &[][..]), ("bob", &["--role", "user"])] {
        let added = user(
            path,
            &[&["add", name], options].concat(),
            &format!("{PASSWORD}\n"),
        );
        assert!(added.status.success(), "{added:?}");
        assert!(
            added.stdout.is_empty() && added.stderr.is_empty(),
            "{added:?}"
        );
    }
    let listed = list();
    let words: Vec<&str> = listed.split_whitespace().collect();
    assert_eq!(words, ["ann", "admin", "bob", "user"]);
    fails(
        &user(path, &["add", "ann"], PASSWORD),
        1,
        "that name is taken",
    );
    fails(
        &user(path, &["add", "Ann"], PASSWORD),
        1,
        "a name is 1 to 32",
    );
    fails(
        &user(path, &["add", "cat"], "short"),
        1,
        "12 to 256 characters",
    );
    fails(&user(path, &["add", "cat"], ""), 1, "12 to 256 characters");
    fails(
        &user(path, &["add", "cat"], &"x".repeat(5000)),
        1,
        "12 to 256",
    );
    fails(
        &user(path, &["add", "cat"], "qwertyuiopas"),
        1,
        "list of common ones",
    );
    fails(&user(path, &["passwd", "cat"], NEW), 1, "there is no user");
    fails(&user(path, &["remove", "cat"], ""), 1, "there is no user");
    assert!(user(path, &["passwd", "ann"], NEW).status.success());
    assert!(user(path, &["rotate-key"], "").status.success());
    assert!(user(path, &["rotate-key", "--now"], "").status.success());

    let text = device_config(path, "");
    let device = Device(Service::start_with(directory, text, |_| {}));
    assert!(!device.0.log().contains("claim code"));
    device.log_in("ann", PASSWORD).is_problem(401);
    assert_eq!(device.log_in("ann", NEW).status, 200);
    assert_eq!(device.log_in("bob", PASSWORD).status, 200);
}

#[test]
fn a_service_that_runs_sees_it_with_the_next_request() {
    let (device, ann) = Device::claimed("");
    let path = device.0.directory.path();
    assert!(
        user(path, &["add", "bob", "--role", "user"], PASSWORD)
            .status
            .success()
    );
    let bob = token(&device.log_in("bob", PASSWORD));
    assert!(user(path, &["passwd", "bob"], NEW).status.success());
    assert!(!device.takes(&bob));
    let bob = token(&device.log_in("bob", NEW));
    assert!(user(path, &["remove", "bob"], "").status.success());
    assert!(!device.takes(&bob));
    device.log_in("bob", NEW).is_problem(401);
    assert!(device.takes(&ann));
    assert!(user(path, &["rotate-key"], "").status.success());
    assert!(device.takes(&ann));
    assert!(user(path, &["rotate-key", "--now"], "").status.success());
    assert!(!device.takes(&ann));
    // It told the service's log.
    device.0.wait_for_log("new user bob");
    device.0.wait_for_log("removed user bob");
    device.0.wait_for_log("from=\"the command line\"");

    // Who has the device in their hands may remove the last one; the code comes with the next start.
    let removed = user(path, &["remove", "ann"], "");
    assert!(removed.status.success());
    assert!(
        String::from_utf8_lossy(&removed.stderr).contains("nobody is left"),
        "{removed:?}"
    );
    device.log_in("ann", PASSWORD).is_problem(401);
    let claim = device.ask("GET", "/api/public/claim", &[], &Value::Null);
    assert_eq!(claim.json()["open"], false);
}

#[test]
fn a_user_made_on_the_device_ends_the_claim() {
    let device = Device::start("");
    let code = device.code();
    let path = device.0.directory.path();
    assert!(user(path, &["add", "ann"], PASSWORD).status.success());
    let claim = device.ask("GET", "/api/public/claim", &[], &Value::Null);
    assert_eq!(claim.json()["open"], false);
    let body = serde_json::json!({"code": code, "username": "eve", "password": PASSWORD});
    device
        .ask("POST", "/api/public/claim", &[], &body)
        .is_problem(409);
}

#[test]
fn the_command_and_the_service_write_at_the_same_time() {
    let (device, ann) = Device::claimed("");
    let path = device.0.directory.path();
    std::thread::scope(|scope| {
        let commands: Vec<_> = (0..4)
            .map(|n| scope.spawn(move || user(path, &["add", &format!("c{n}")], PASSWORD)))
            .collect();
        for n in 0..4 {
            device.add(&ann, &format!("s{n}"), "user");
        }
        for command in commands {
            let output = command.join().unwrap();
            assert!(output.status.success(), "{output:?}");
        }
    });
    let list = user(path, &["list"], "").stdout;
    assert_eq!(String::from_utf8(list).unwrap().lines().count(), 9);
    for name in ["c0", "c3", "s0", "s3"] {
        assert_eq!(device.log_in(name, PASSWORD).status, 200);
    }
}

#[test]
fn wrong_usage_is_one_line_and_status_2() {
    let directory = stopped();
    for (arguments, said) in [
        (&[][..], "user wants a command"),
        (&["make"], "is no command"),
        (&["add"], "a name is missing"),
        (&["add", "ann", PASSWORD], "a password is asked for"),
        (&["add", "ann", "--role", "guest"], "neither user nor admin"),
        (&["list", "--now"], "--now belongs to"),
        (&["passwd", "ann", "--role", "user"], "--role belongs to"),
        (&["add", "ann", "--password", "x"], "--password"),
    ] {
        fails(&user(directory.path(), arguments, ""), 2, said);
    }
    assert!(!directory.path().join("state").exists());
}

/// A process that does not outlive its test.
struct Ended(std::process::Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Types `lines`, each when the terminal shows what is asked, and returns the status and all that was shown.
fn on_a_terminal(
    directory: &Path,
    arguments: &[&str],
    lines: &[(&str, &str)],
) -> (Option<i32>, String) {
    let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&controller).unwrap();
    unlockpt(&controller).unwrap();
    let name = ptsname(&controller, Vec::new()).unwrap();
    let terminal = File::options()
        .read(true)
        .write(true)
        .open(name.to_str().unwrap())
        .unwrap();
    let child = edgeweb()
        .arg("user")
        .args(arguments)
        .arg("--config")
        .arg(directory.join("edgeweb.toml"))
        .stdin(terminal.try_clone().unwrap())
        .stdout(terminal.try_clone().unwrap())
        .stderr(terminal)
        .spawn()
        .unwrap();
    let mut child = Ended(child);
    let mut controller = File::from(controller);
    let mut reader = controller.try_clone().unwrap();
    let (send, shown) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 1024];
        // Linux says EIO when the last of the other side is gone.
        while let Ok(length @ 1..) = reader.read(&mut buffer) {
            let _ = send.send(String::from_utf8_lossy(&buffer[..length]).into_owned());
        }
    });
    let mut all = String::new();
    let mut seen = 0;
    for (prompt, line) in lines {
        while !all[seen..].contains(prompt) {
            all += &shown.recv_timeout(PATIENCE).expect("the prompt");
        }
        seen = all.len();
        controller.write_all(line.as_bytes()).unwrap();
    }
    let status = eventually("the end", || child.0.try_wait().unwrap());
    while let Ok(more) = shown.recv_timeout(Duration::from_millis(200)) {
        all += &more;
    }
    (status.code(), all)
}

#[test]
fn on_a_terminal_a_password_is_asked_twice_and_not_shown() {
    let directory = stopped();
    let path = directory.path();
    let (status, shown) = on_a_terminal(
        path,
        &["add", "ann"],
        &[
            ("New password: ", &format!("{PASSWORD}\n")),
            ("Again: ", &format!("{PASSWORD}\n")),
        ],
    );
    assert_eq!(status, Some(0), "{shown}");
    assert!(!shown.contains("correct"), "{shown}");
    let (status, shown) = on_a_terminal(
        path,
        &["passwd", "ann"],
        &[
            ("New password: ", &format!("{NEW}\n")),
            ("Again: ", "something else\n"),
        ],
    );
    assert_eq!(status, Some(1), "{shown}");
    assert!(shown.contains("the two are not the same"), "{shown}");
    let before = state(path);
    let (status, shown) =
        on_a_terminal(path, &["passwd", "ann"], &[("New password: ", "half\u{3}")]);
    assert_eq!(status, Some(1), "{shown}");
    assert!(shown.contains("interrupted"), "{shown}");
    let (status, shown) = on_a_terminal(path, &["passwd", "ann"], &[("New password: ", "short\n")]);
    assert_eq!(status, Some(1), "{shown}");
    assert!(shown.contains("12 to 256"), "{shown}");
    assert_eq!(state(path), before);
}

#[test]
fn what_root_writes_belongs_to_whoever_the_directory_belongs_to() {
    if !rustix::process::geteuid().is_root() {
        return; // only root can give files away
    }
    const SERVICE: u32 = 54_321;
    let directory = stopped();
    let path = directory.path();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    let state = path.join("state");
    fs::create_dir(&state).unwrap();
    chown(&state, Some(SERVICE), Some(SERVICE)).unwrap();
    assert!(user(path, &["add", "ann"], PASSWORD).status.success());
    assert!(user(path, &["add", "bob"], PASSWORD).status.success());
    for name in ["auth.json", "auth.json.previous", "auth.lock"] {
        let metadata = fs::metadata(state.join(name)).unwrap();
        assert_eq!(
            (metadata.uid(), metadata.gid()),
            (SERVICE, SERVICE),
            "{name}"
        );
        assert_eq!(metadata.mode() & 0o7777, 0o600, "{name}");
    }
    // The service's user goes on with it, and somebody else does not.
    let as_user = |uid: u32, arguments: &[&str], stdin: &str| {
        run_with(path, arguments, stdin, |command| {
            command.uid(uid).gid(uid);
        })
    };
    assert!(as_user(SERVICE, &["passwd", "ann"], NEW).status.success());
    assert!(as_user(SERVICE, &["remove", "bob"], "").status.success());
    fs::set_permissions(&state, fs::Permissions::from_mode(0o755)).unwrap();
    fails(
        &as_user(SERVICE + 1, &["list"], ""),
        1,
        "auth.json: cannot be read: ",
    );
    fails(
        &as_user(SERVICE + 1, &["add", "eve"], PASSWORD),
        1,
        "cannot be locked",
    );

    // A file of somebody else's is taken over by root, and refused by the service.
    let file = state.join("auth.json");
    chown(&file, Some(SERVICE + 1), None).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    fails(&as_user(SERVICE, &["list"], ""), 1, "belongs to user 54322");
    let taken = user(path, &["list"], "");
    assert!(taken.status.success());
    let said = String::from_utf8_lossy(&taken.stderr);
    assert!(
        said.contains("belonged to user 54322 and had mode 0644"),
        "{said}"
    );
    assert!(as_user(SERVICE, &["list"], "").status.success());
}
