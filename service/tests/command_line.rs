//! The commands: what they say, on which stream, and with which exit status.

mod common;

use common::{Service, TempDir, edgeweb, run};

fn output(arguments: &[&str]) -> (i32, String, String) {
    let output = run(edgeweb().args(arguments));
    (
        output.status.code().unwrap(),
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

#[test]
fn version_says_version_target_and_features() {
    let (status, out, _) = output(&["version"]);
    assert_eq!(status, 0);
    assert!(
        out.contains(&format!("edgeweb {}\n", env!("CARGO_PKG_VERSION"))),
        "{out}"
    );
    assert!(
        out.contains(&format!("target {}", std::env::consts::ARCH)),
        "{out}"
    );
    let features = out
        .lines()
        .find_map(|line| line.strip_prefix("features "))
        .unwrap();
    assert_eq!(features.contains("overlay"), cfg!(feature = "overlay"));
    assert_eq!(features.contains("syslog"), cfg!(feature = "syslog"));
    assert_eq!(output(&["--version"]).1, out);
}

#[test]
fn every_command_explains_itself() {
    for command in [
        "serve",
        "check-config",
        "health",
        "logpipe",
        "logs",
        "user",
        "version",
    ] {
        let (status, out, _) = output(&[command, "--help"]);
        assert_eq!(status, 0, "{command}");
        assert!(out.contains(&format!("Usage: edgeweb {command}")), "{out}");
        assert!(output(&["--help"]).1.contains(command));
    }
}

#[test]
fn wrong_usage_is_one_line_and_status_2() {
    for (arguments, said) in [
        (&[][..], "no command"),
        (&["sevre"], "there is no command \"sevre\""),
        (&["serve", "--colour"], "--colour"),
        (&["serve", "--config"], "missing argument"),
        (&["version", "now"], "now"),
    ] {
        let (status, out, error) = output(arguments);
        assert_eq!(status, 2, "{arguments:?}");
        assert_eq!(out, "");
        assert!(error.contains(said), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn a_wrong_configuration_is_one_line_with_file_key_and_reason_and_status_2() {
    let directory = TempDir::new();
    let path = directory.write("wrong.toml", "[http]\nport = 80800\n");
    let path = path.to_str().unwrap();
    for command in ["check-config", "serve", "health"] {
        let (status, out, error) = output(&[command, "--config", path]);
        assert_eq!(status, 2, "{command}: {error}");
        assert_eq!(out, "");
        let expected =
            format!("edgeweb: {path}:2: http.port: invalid value: integer `80800`, expected u16\n");
        assert_eq!(error, expected, "{command}");
    }
    let (status, _, error) = output(&["check-config", "--config", "/nonexistent.toml"]);
    assert_eq!(status, 2);
    assert!(
        error.starts_with("edgeweb: /nonexistent.toml: cannot be read: "),
        "{error}"
    );
    let binary = directory.write("binary.toml", b"\xff\xfe");
    let (status, _, error) = output(&["check-config", "--config", binary.to_str().unwrap()]);
    assert_eq!((status, error.lines().count()), (2, 1), "{error}");
}

#[test]
fn a_right_configuration_is_said_to_be_right() {
    let directory = TempDir::new();
    let path = directory.write("right.toml", "[http]\nport = 0\n");
    let (status, out, error) = output(&["check-config", "--config", path.to_str().unwrap()]);
    assert_eq!((status, error.as_str()), (0, ""));
    assert_eq!(out, format!("{}: ok\n", path.display()));
}

/// The file that the layer installs shows every default as a comment; it must not tell stories.
#[test]
fn the_shipped_configuration_is_right_and_shows_the_defaults() {
    let shipped =
        common::crate_file("../meta-edgeweb/recipes-edgeweb/edgeweb-conf/files/edgeweb.toml");
    let text = std::fs::read_to_string(&shipped).unwrap();
    assert_eq!(
        output(&["check-config", "--config", shipped.to_str().unwrap()]).0,
        0
    );
    let uncommented: String = text
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if !rest.starts_with(' ') => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let config = edgeweb::Config::parse(&uncommented, &shipped).unwrap();
    assert_eq!(config, edgeweb::Config::default());
    let keys = uncommented
        .lines()
        .filter(|line| !line.starts_with('#') && line.contains(" = "));
    assert_eq!(keys.count(), 61, "one line for each key of the model");
}

#[test]
fn health_is_1_when_nobody_answers_and_0_when_somebody_does() {
    let directory = TempDir::new();
    let config = directory.write("edgeweb.toml", common::config_text(directory.path(), ""));
    let (status, out, error) = output(&["health", "--config", config.to_str().unwrap()]);
    assert_eq!((status, out.as_str()), (1, ""));
    assert!(error.contains("does not answer on"), "{error}");
    assert_eq!(error.lines().count(), 1);

    let service = Service::start("");
    let answer = service.health(&[]);
    assert!(answer.status.success());
    assert_eq!(answer.stdout, b"{\"status\":\"ok\"}\n");
    assert!(service.health(&["--ready"]).status.success());
}
