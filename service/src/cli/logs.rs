//! `edgeweb logs`

use std::cell::Cell;
use std::fs::{self, OpenOptions};
use std::io::{self, BufRead, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use edgeweb::config::Config;
use edgeweb::control;
use edgeweb::logging::Severity;
use edgeweb::logging::query::{self, LogLine, MAX_LIMIT, Query};
use edgeweb::logging::seal::Identity;
use lexopt::Arg;

use super::{Failure, print};

pub(super) const HELP: &str = "\
edgeweb logs - read the log of this device

Usage: edgeweb logs [--follow] [--boot N] [--severity S] [--target T] [--since TIME] [--limit N] [--json]
       edgeweb logs decrypt --identity FILE [--json] [DIRECTORY]
       edgeweb logs keygen FILE

Asks the running service, which has the newest records in memory; reads the journal when the service is
down, and for what was before this boot.

Options:
  -f, --follow       go on with what is written from now on, until ctrl-C
  -b, --boot N       what the journal has of a boot: 0 is this one, -1 the one before it
  -s, --severity S   only S and what is worse: emergency, alert, critical, error, warning, notice, info, debug
  -t, --target T     only of this module or program
      --since TIME   only from TIME on, as in 2026-11-23T07:00:00Z
  -n, --limit N      the newest N records (default 100, at most 1000)
      --json         one JSON object a line
  -c, --config PATH  the service's configuration (default /etc/edgeweb/edgeweb.toml)

decrypt shows a journal that is sealed with log.journal.recipient; DIRECTORY is a copy of the journal, by default
the one that the configuration names. keygen writes a new identity to FILE, for its owner only, and prints the
recipient that belongs to it. The identity stays with the maker and never comes onto a device.

Exit status: 0 fine; 1 the log cannot be read; 2 wrong usage or a wrong configuration.
";

/// How long the service may take for its answer, and may be silent while it is followed.
const LIMIT: Duration = Duration::from_secs(60);
/// How long a service that is followed may be away, in a restart.
const COMES_BACK: Duration = Duration::from_secs(5);
/// Between two attempts to follow it.
const PAUSE: Duration = Duration::from_millis(200);
/// The longest identity file that is read, in bytes.
const MAX_IDENTITY: u64 = 4096;

#[derive(Default)]
struct Options {
    config: Option<PathBuf>,
    query: Query,
    since: Option<String>,
    boot: Option<i32>,
    follow: bool,
    json: bool,
    identity: Option<PathBuf>,
    values: Vec<PathBuf>,
}

pub(super) fn run(mut parser: lexopt::Parser) -> Result<(), Failure> {
    let mut options = Options::default();
    let mut command = None;
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Short('h') | Arg::Long("help") => return print(HELP),
            Arg::Short('c') | Arg::Long("config") => {
                options.config = Some(PathBuf::from(parser.value()?));
            }
            Arg::Short('f') | Arg::Long("follow") => options.follow = true,
            Arg::Long("json") => options.json = true,
            Arg::Short('b') | Arg::Long("boot") => options.boot = Some(number(&mut parser)?),
            Arg::Short('n') | Arg::Long("limit") => options.query.limit = number(&mut parser)?,
            Arg::Short('s') | Arg::Long("severity") => {
                options.query.severity = number(&mut parser)?
            }
            Arg::Short('t') | Arg::Long("target") => options.query.target = number(&mut parser)?,
            Arg::Long("since") => {
                let since: String = number(&mut parser)?;
                let time = query::parse_time(&since).map_err(Failure::Usage)?;
                options.query.since_ns = Some(time);
                options.since = Some(since);
            }
            Arg::Long("identity") => options.identity = Some(PathBuf::from(parser.value()?)),
            Arg::Value(value) if command.is_none() && (value == "decrypt" || value == "keygen") => {
                command = value.into_string().ok();
            }
            Arg::Value(value) if command.is_some() => options.values.push(PathBuf::from(value)),
            other => return Err(other.unexpected().into()),
        }
    }
    options.check(command.as_deref())?;
    match command.as_deref() {
        Some("keygen") => keygen(&options.values[0]),
        Some(_) => decrypt(&options),
        None => show(&options),
    }
}

fn number<T: std::str::FromStr>(parser: &mut lexopt::Parser) -> Result<T, Failure>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    use lexopt::ValueExt;
    Ok(parser.value()?.parse()?)
}

impl Options {
    fn check(&self, command: Option<&str>) -> Result<(), Failure> {
        let wrong = |text: &str| Err(Failure::Usage(text.to_owned()));
        if !(1..=MAX_LIMIT).contains(&self.query.limit) {
            return wrong(&format!("--limit is not in 1 to {MAX_LIMIT}"));
        }
        if self.boot.is_some_and(|boot| boot > 0) {
            return wrong("--boot 0 is this boot, -1 the one before it");
        }
        if self.follow && self.boot.is_some() {
            return wrong("--follow goes on with this boot; leave --boot out");
        }
        match command {
            Some("keygen") if self.values.len() != 1 => {
                wrong("keygen wants one FILE for the identity")
            }
            Some("decrypt") if self.identity.is_none() => wrong("decrypt wants --identity FILE"),
            Some("decrypt") if self.values.len() > 1 => wrong("decrypt wants one DIRECTORY"),
            Some("decrypt") => Ok(()),
            _ if self.identity.is_some() => wrong("--identity is for logs decrypt"),
            _ => Ok(()),
        }
    }

    fn load_config(&self) -> Result<Config, Failure> {
        let path = self
            .config
            .clone()
            .unwrap_or_else(|| PathBuf::from(edgeweb::config::DEFAULT_PATH));
        Ok(Config::load(&path)?)
    }

    /// The question for the newest records, as the service reads it.
    fn logs_target(&self) -> String {
        let mut target = self.target("/api/user/logs");
        target += &format!("&limit={}", self.query.limit);
        if let Some(boot) = self.boot {
            target += &format!("&boot={boot}");
        }
        target
    }

    fn stream_target(&self) -> String {
        self.target("/api/user/logs/stream")
    }

    fn target(&self, path: &str) -> String {
        let query = &self.query;
        let mut target = format!("{path}?severity={}", query.severity);
        if !query.target.is_empty() {
            target += &format!("&target={}", escape(&query.target));
        }
        if let Some(since) = &self.since {
            target += &format!("&since={}", escape(since));
        }
        target
    }
}

fn escape(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// What shows lines.
struct Screen {
    json: bool,
    colour: bool,
    /// Whoever reads has read enough.
    is_closed: Cell<bool>,
}

impl Screen {
    fn new(json: bool) -> Self {
        Self {
            json,
            colour: io::stdout().is_terminal(),
            is_closed: Cell::new(false),
        }
    }

    fn say(&self, text: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        let said = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        said.inspect_err(|error| {
            self.is_closed
                .set(error.kind() == io::ErrorKind::BrokenPipe);
        })
    }

    /// That the output was closed is no error.
    fn ended(&self, result: anyhow::Result<()>) -> Result<(), Failure> {
        match result {
            Err(_) if self.is_closed.get() => Ok(()),
            result => Ok(result?),
        }
    }

    fn line(&self, line: &LogLine) -> io::Result<()> {
        let mut text = if self.json {
            serde_json::to_string(line)?
        } else {
            self.plain(line)
        };
        text.push('\n');
        self.say(&text)
    }

    fn plain(&self, line: &LogLine) -> String {
        let (begin, end) = match line.severity {
            _ if !self.colour => ("", ""),
            Severity::Warning => ("\x1b[33m", "\x1b[0m"),
            Severity::Notice | Severity::Info | Severity::Debug => ("", ""),
            _ => ("\x1b[31m", "\x1b[0m"),
        };
        // What a journal holds was written by somebody; the terminal belongs to somebody else.
        let clean = |text: &str| -> String {
            text.chars()
                .map(|c| if c.is_control() { '\u{fffd}' } else { c })
                .collect()
        };
        let mut text = format!(
            "{} {begin}{:<9}{end} {}",
            clean(&line.time),
            line.severity,
            clean(&line.target)
        );
        if let Some(pid) = line.pid {
            text += &format!("[{pid}]");
        }
        text += &format!(": {}", clean(&line.message));
        for (key, value) in &line.fields {
            text += &format!(" {}={:?}", clean(key), clean(value));
        }
        text
    }
}

fn show(options: &Options) -> Result<(), Failure> {
    let config = options.load_config()?;
    let screen = Screen::new(options.json);
    screen.ended(show_log(options, &config, &screen))
}

fn show_log(options: &Options, config: &Config, screen: &Screen) -> anyhow::Result<()> {
    let socket = config.server.control_socket();
    // What is shown when nothing is: everything that comes, and what is in memory, is new.
    let mut last = String::from("0-0");
    for line in lines(options, config, &socket)? {
        screen.line(&line)?;
        last = line.id;
    }
    if !options.follow {
        return Ok(());
    }
    let target = options.stream_target();
    let mut since = Instant::now();
    loop {
        match control::open(&socket, &target, Some(&last), LIMIT) {
            Ok((200, body)) => {
                follow(body, &mut last, screen)?;
                // A reload ends a stream, and so does a restart.
                since = Instant::now();
            }
            Ok((503, _)) | Err(_) if since.elapsed() < COMES_BACK => {}
            Ok((503, _)) | Err(_) => bail!("the service has stopped"),
            Ok((status, body)) => bail!("{}", reason(status, body)),
        }
        thread::sleep(PAUSE);
    }
}

/// What the service has, or what the journal has when it is down.
fn lines(options: &Options, config: &Config, socket: &Path) -> anyhow::Result<Vec<LogLine>> {
    #[derive(serde::Deserialize)]
    struct Logs {
        entries: Vec<LogLine>,
    }
    match control::get(socket, &options.logs_target(), LIMIT) {
        Ok((200, body)) => {
            let logs: Logs = serde_json::from_str(&body).context("the service's answer")?;
            Ok(logs.entries)
        }
        Ok((status, body)) => bail!("{}", reason(status, body.as_bytes())),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            if !config.log.journal.enabled {
                bail!("the service is down, and log.journal.enabled is false");
            }
            let number = options.boot.unwrap_or(0);
            Ok(query::boot_in(
                &config.log.journal.directory,
                number,
                &options.query,
            )?)
        }
        Err(error) => Err(error)
            .with_context(|| format!("the service does not answer on {}", socket.display())),
    }
}

/// What a refusal of the service says.
fn reason(status: u16, body: impl io::Read) -> String {
    #[derive(serde::Deserialize)]
    struct Problem {
        detail: String,
    }
    serde_json::from_reader::<_, Problem>(io::Read::take(body, 64 * 1024)).map_or_else(
        |_| format!("the service answers {status}"),
        |problem| problem.detail,
    )
}

/// Shows records until the stream ends.
fn follow(body: impl BufRead, last: &mut String, screen: &Screen) -> anyhow::Result<()> {
    let mut event = String::new();
    for line in body.lines() {
        let Ok(line) = line else {
            break;
        };
        if let Some(name) = line.strip_prefix("event: ") {
            name.clone_into(&mut event);
        }
        let Some(data) = line.strip_prefix("data: ") else {
            continue;
        };
        match std::mem::take(&mut event).as_str() {
            "" => {
                let record: LogLine = serde_json::from_str(data).context("the service's answer")?;
                screen.line(&record)?;
                *last = record.id;
            }
            // It goes on with what is still there.
            _ => writeln!(io::stderr(), "edgeweb: {data}")?,
        }
    }
    Ok(())
}

fn keygen(file: &Path) -> Result<(), Failure> {
    let made = || -> anyhow::Result<String> {
        let (identity, recipient) = Identity::generate()?;
        let mut out = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(file)
            .with_context(|| file.display().to_string())?;
        writeln!(out, "{}", identity.encode())
            .and_then(|()| out.sync_all())
            // It is new, and half of it is of no use.
            .inspect_err(|_| drop(fs::remove_file(file)))
            .with_context(|| file.display().to_string())?;
        Ok(recipient.encode())
    };
    print(&format!("{}\n", made()?))
}

fn decrypt(options: &Options) -> Result<(), Failure> {
    let directory = match options.values.first() {
        Some(directory) => directory.clone(),
        None => options.load_config()?.log.journal.directory,
    };
    let screen = Screen::new(options.json);
    screen.ended(decrypt_journal(options, &directory, &screen))
}

fn decrypt_journal(options: &Options, directory: &Path, screen: &Screen) -> anyhow::Result<()> {
    let file = options.identity.as_deref().unwrap_or(Path::new(""));
    let text = fs::File::open(file)
        .and_then(|file| io::read_to_string(io::Read::take(file, MAX_IDENTITY)))
        .with_context(|| file.display().to_string())?;
    let identity = Identity::decode(&text).with_context(|| file.display().to_string())?;
    let mut boot_shown = String::new();
    let done = query::decrypt(directory, &identity, &options.query, |line| {
        if !screen.json && line.boot != boot_shown {
            line.boot.clone_into(&mut boot_shown);
            screen.say(&format!("-- boot {boot_shown}\n"))?;
        }
        screen.line(line)
    })?;
    if done.damaged > 0 {
        bail!(
            "{}: {} records are damaged or sealed for somebody else",
            directory.display(),
            done.damaged
        );
    }
    Ok(())
}
