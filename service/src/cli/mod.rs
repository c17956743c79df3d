//! The `edgeweb` command line, one file a subcommand.
//!
//! Exit status: 0 fine, 1 a failure at run time, 2 wrong usage or a wrong configuration;
//! that of `logpipe` is the program's.

mod check_config;
mod health;
mod logpipe;
mod logs;
mod serve;
mod user;
mod version;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use edgeweb::config::{Config, ConfigError, DEFAULT_PATH};
use lexopt::Arg;

const HELP: &str = "\
edgeweb - the web service of a device

Usage: edgeweb COMMAND [OPTIONS]

Commands:
  serve         serve until SIGTERM; SIGHUP reads the configuration again
  check-config  say whether the configuration is right
  health        ask the running service whether it is well
  logpipe       run another program with its output in the log
  logs          read the log of this device
  user          make, change and remove those who can log in
  version       say version, target and features

`edgeweb COMMAND --help` says more of each.
";

/// Why a command did not succeed.
enum Failure {
    /// The command line is wrong.
    Usage(String),
    /// The configuration is wrong.
    Config(ConfigError),
    /// Something went wrong at run time.
    Runtime(anyhow::Error),
    /// It has been said already; the exit status is still missing.
    Exit(u8),
}

impl From<lexopt::Error> for Failure {
    fn from(error: lexopt::Error) -> Self {
        Self::Usage(error.to_string())
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Runtime(error)
    }
}

/// Runs the command line without the program's name.
pub(crate) fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let (line, status) = match dispatch(lexopt::Parser::from_args(arguments)) {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Usage(error)) => (format!("{error}; see edgeweb --help"), 2),
        Err(Failure::Config(error)) => (error.to_string(), 2),
        Err(Failure::Runtime(error)) => (format!("{error:#}"), 1),
        Err(Failure::Exit(status)) => return ExitCode::from(status),
    };
    // Nobody reads standard error when this fails; the exit status still says it.
    let _ = writeln!(io::stderr(), "edgeweb: {line}");
    ExitCode::from(status)
}

fn dispatch(mut parser: lexopt::Parser) -> Result<(), Failure> {
    match parser.next()? {
        Some(Arg::Value(command)) => match command.to_str() {
            Some("serve") => serve::run(Options::parse(parser, serve::HELP, &[])?),
            Some("check-config") => {
                check_config::run(Options::parse(parser, check_config::HELP, &[])?)
            }
            Some("health") => health::run(Options::parse(parser, health::HELP, &["ready"])?),
            Some("logpipe") => logpipe::run(parser),
            Some("logs") => logs::run(parser),
            Some("user") => user::run(parser),
            Some("version") => version::run(Options::parse(parser, version::HELP, &[])?),
            _ => Err(Failure::Usage(format!("there is no command {command:?}"))),
        },
        Some(Arg::Short('h') | Arg::Long("help")) => print(HELP),
        Some(Arg::Short('V') | Arg::Long("version")) => version::run(Some(Options::default())),
        Some(other) => Err(other.unexpected().into()),
        None => Err(Failure::Usage(String::from("no command was given"))),
    }
}

/// Says something on standard output.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // Whoever reads has read enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(|error| {
            Failure::Runtime(anyhow::Error::new(error).context("standard output"))
        }),
    }
}

/// What follows a command.
#[derive(Default)]
struct Options {
    config: Option<PathBuf>,
    flags: Vec<&'static str>,
}

impl Options {
    /// Reads the options; `None` when only the help was asked for, which has been given then.
    fn parse(
        mut parser: lexopt::Parser,
        help: &str,
        flags: &[&'static str],
    ) -> Result<Option<Self>, Failure> {
        let mut options = Self::default();
        while let Some(argument) = parser.next()? {
            match argument {
                Arg::Short('h') | Arg::Long("help") => {
                    print(help)?;
                    return Ok(None);
                }
                Arg::Short('c') | Arg::Long("config") => {
                    options.config = Some(PathBuf::from(parser.value()?));
                }
                Arg::Long(name) if flags.contains(&name) => {
                    let flag = flags.iter().find(|flag| **flag == name);
                    options.flags.extend(flag);
                }
                other => return Err(other.unexpected().into()),
            }
        }
        Ok(Some(options))
    }

    fn has(&self, flag: &str) -> bool {
        self.flags.contains(&flag)
    }

    fn config_path(&self) -> PathBuf {
        self.config
            .clone()
            .unwrap_or_else(|| PathBuf::from(DEFAULT_PATH))
    }

    fn load_config(&self) -> Result<Config, ConfigError> {
        Config::load(&self.config_path())
    }

    /// The configuration, and the files that have to be right with it.
    fn load_whole_config(&self) -> Result<Config, ConfigError> {
        let config = self.load_config()?;
        config.check_policy(&self.config_path())?;
        Ok(config)
    }
}
