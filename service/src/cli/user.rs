//! `edgeweb user`

use std::ffi::OsString;
use std::io::{self, IsTerminal, Read, Write};
use std::path::PathBuf;

use anyhow::{Context, bail};
use edgeweb::config::{Config, DEFAULT_PATH, LogConfig, StderrLog};
use edgeweb::{AuthError, Password, Role, UserFile, logging};
use lexopt::Arg;
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr,
};

use super::{Failure, print};

pub(super) const HELP: &str = "\
edgeweb user - make, change and remove those who can log in

Usage: edgeweb user add NAME [--role ROLE]
       edgeweb user passwd NAME
       edgeweb user list
       edgeweb user remove NAME
       edgeweb user hash
       edgeweb user rotate-key [--now]

Works as root or as the service's user, whether the service runs or not; one that runs sees the change with the
next request. A password is asked for twice without being shown, or read from standard input, one line, when
that is no terminal. It has 12 to 256 characters.

  add         makes a user, an administrator unless --role says otherwise
  passwd      gives a user another password and ends their sessions
  list        shows who there is
  remove      removes a user, and the API tokens that they made
  hash        prints the hash of a password, for the maker's file auth.provisioned_users
  rotate-key  signs tokens with a new key; with --now, everybody has to log in again and no API token is left

Options:
      --role ROLE    user or admin (default admin)
      --now          end every token at once
  -c, --config PATH  the service's configuration (default /etc/edgeweb/edgeweb.toml)

Exit status: 0 fine; 1 it could not be done; 2 wrong usage or a wrong configuration.
";

/// The longest line that is read for a password, in bytes. A password is shorter.
const MAX_LINE: u64 = 4096;
/// What ctrl-C types on a terminal that sends no signal for it.
const CTRL_C: u8 = 3;

#[derive(Default)]
struct Options {
    config: Option<PathBuf>,
    role: Option<Role>,
    now: bool,
    words: Vec<String>,
}

pub(super) fn run(mut parser: lexopt::Parser) -> Result<(), Failure> {
    let mut options = Options::default();
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Short('h') | Arg::Long("help") => return print(HELP),
            Arg::Short('c') | Arg::Long("config") => {
                options.config = Some(PathBuf::from(parser.value()?));
            }
            Arg::Long("role") => options.role = Some(role(&parser.value()?)?),
            Arg::Long("now") => options.now = true,
            Arg::Value(word) => options.words.push(word.to_string_lossy().into_owned()),
            other => return Err(other.unexpected().into()),
        }
    }
    let words: Vec<&str> = options.words.iter().map(String::as_str).collect();
    match *words {
        [] => return usage("user wants a command: add, passwd, list, remove, hash or rotate-key"),
        [command, ..] if options.role.is_some() && command != "add" => {
            return usage("--role belongs to user add");
        }
        [command, ..] if options.now && command != "rotate-key" => {
            return usage("--now belongs to user rotate-key");
        }
        _ => {}
    }
    let path = options.config.as_deref();
    let config = Config::load(path.unwrap_or(DEFAULT_PATH.as_ref()))?;
    let users = UserFile::new(&config, |_, line| say(line));
    match *words {
        ["add", name] => {
            record_in_log(&config);
            add(&users, name, options.role.unwrap_or(Role::Admin))
        }
        ["passwd", name] => {
            record_in_log(&config);
            passwd(&users, name)
        }
        ["list"] => list(&users),
        ["remove", name] => {
            record_in_log(&config);
            remove(&users, name)
        }
        ["hash"] => hash(),
        ["rotate-key"] => {
            record_in_log(&config);
            users.rotate_key(options.now).map_err(failed)
        }
        ["add" | "passwd" | "remove"] => usage("which user? a name is missing"),
        [command, ..] => usage(&format!(
            "user {command:?} is no command, or has words after it that it does not want; a password is asked for"
        )),
        [] => unreachable!("checked above"),
    }?;
    log::logger().flush();
    Ok(())
}

fn usage<T>(reason: &str) -> Result<T, Failure> {
    Err(Failure::Usage(String::from(reason)))
}

fn role(word: &OsString) -> Result<Role, Failure> {
    match word.to_str() {
        Some("user") => Ok(Role::User),
        Some("admin") => Ok(Role::Admin),
        _ => usage(&format!("--role {word:?} is neither user nor admin")),
    }
}

/// Says a line on standard error. Where nobody reads it, the exit status is left.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "edgeweb: {line}");
}

fn failed(error: AuthError) -> Failure {
    log::logger().flush();
    Failure::Runtime(anyhow::Error::new(error))
}

/// Gives what this command does to the log of the service, if that runs, or else to the syslog.
fn record_in_log(config: &Config) {
    let mut log = LogConfig {
        stderr: StderrLog::Never,
        filter: String::from("info"),
        ..config.log.clone()
    };
    // The service has its own journal and its own collector.
    log.journal.enabled = false;
    log.uplink.enabled = false;
    let service = config.server.log_socket();
    if service.exists() {
        log.syslog.enabled = true;
        log.syslog.socket = service;
        log.syslog.format = edgeweb::config::SyslogFormat::default();
    }
    // Nothing else in this process has a logger.
    let _ = logging::install(&log);
}

fn add(users: &UserFile, name: &str, role: Role) -> Result<(), Failure> {
    if users
        .list()
        .is_ok_and(|list| list.iter().any(|user| user.name == name))
    {
        return Err(failed(AuthError::Exists));
    }
    let password = read_password(name)?;
    users.add(name, role, &password).map_err(failed)
}

fn passwd(users: &UserFile, name: &str) -> Result<(), Failure> {
    if !users
        .list()
        .map_err(failed)?
        .iter()
        .any(|user| user.name == name)
    {
        return Err(failed(AuthError::NoSuchUser));
    }
    let password = read_password(name)?;
    users.set_password(name, &password).map_err(failed)
}

fn remove(users: &UserFile, name: &str) -> Result<(), Failure> {
    let admin_left = users.remove(name).map_err(failed)?;
    if users.list().is_ok_and(|list| list.is_empty()) {
        say("nobody is left; the next start of the service makes a claim code");
    } else if !admin_left {
        say("no administrator is left; make one with edgeweb user add");
    }
    Ok(())
}

fn list(users: &UserFile) -> Result<(), Failure> {
    let mut text = String::new();
    for user in users.list().map_err(failed)? {
        text += &format!("{:<32} {}\n", user.name, user.role.name());
    }
    print(&text)
}

fn hash() -> Result<(), Failure> {
    let password = read_password("")?;
    let hash = password.hash().map_err(anyhow::Error::msg)?;
    print(&format!("{hash}\n"))
}

/// A new password for `name`, which fits.
fn read_password(name: &str) -> Result<Password, Failure> {
    let stdin = io::stdin();
    let line = if stdin.is_terminal() {
        let _hidden = Hidden::new().context("the terminal")?;
        let first = ask("New password: ")?;
        // Asked only for what would be taken.
        Password::from(first.clone()).check(name).map_err(refused)?;
        if ask("Again: ")? != first {
            return Err(anyhow::anyhow!("the two are not the same; nothing was changed").into());
        }
        first
    } else {
        read_line()?
    };
    let password = Password::from(line);
    password.check(name).map_err(refused)?;
    Ok(password)
}

fn refused(error: edgeweb::PasswordError) -> Failure {
    Failure::Runtime(anyhow::Error::new(error))
}

/// One line of standard input without its end.
fn read_line() -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    // A terminal ends a line with ctrl-C as well, see `Hidden`.
    for byte in io::stdin().lock().take(MAX_LINE).bytes() {
        bytes.push(byte.context("the password")?);
        if bytes.ends_with(b"\n") || bytes.ends_with(&[CTRL_C]) {
            break;
        }
    }
    while bytes.last().is_some_and(|byte| b"\r\n".contains(byte)) {
        bytes.pop();
    }
    if bytes.contains(&CTRL_C) {
        bail!("interrupted; nothing was changed");
    }
    String::from_utf8(bytes).map_err(|_| anyhow::anyhow!("the password is not UTF-8"))
}

/// Asks on a terminal that does not show what is typed.
fn ask(prompt: &str) -> anyhow::Result<String> {
    let mut err = io::stderr();
    let _ = err.write_all(prompt.as_bytes());
    let line = read_line();
    let _ = err.write_all(b"\n");
    line
}

/// A terminal that does not show what is typed, until this is dropped.
struct Hidden(Termios);

impl Hidden {
    fn new() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut hidden = before.clone();
        hidden.local_modes -= LocalModes::ECHO;
        // No signal may end this with the terminal as it is now: ctrl-C ends the line instead.
        hidden.local_modes -= LocalModes::ISIG;
        hidden.special_codes[SpecialCodeIndex::VEOL] = CTRL_C;
        tcsetattr(io::stdin(), OptionalActions::Flush, &hidden)?;
        Ok(Self(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing any more.
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.0);
    }
}
