//! `edgeweb logpipe`
//!
//! The program takes this process's place, so that its process id, its signals, its exit status and what
//! it tells systemd are its own, even when it is killed. Its output is read by a process beside it, which
//! is this program again: started by one in between that ends at once, so that it is no child that the
//! program would have to wait for, and in a process group of its own, which no ctrl-C reaches. Files that the
//! caller hands down to the program besides its streams stay open in the reader, too, for as long.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, PipeWriter, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, anyhow};
use edgeweb::Config;
use edgeweb::config::DEFAULT_PATH;
use edgeweb::logging::{PipeReader, Prefixes, is_tag};
use lexopt::Arg;

use super::{Failure, print};

pub(super) const HELP: &str = "\
edgeweb logpipe - run a program with its output in the log

Usage: edgeweb logpipe --tag NAME [OPTIONS] -- COMMAND [ARGUMENTS]

Each line on the program's standard output becomes an info in the log, each on its standard error a
warning, unless it begins with a prefix: [CRIT], [ERR], [WARN], [INFO], [DBG] and their like, <0> to <7>
as in sd-daemon(3), E/, W/, I/ and D/ as in logcat. Records go to the service, and while it is not there
to the syslog daemon; while neither is, 256 KiB of them wait, and the oldest are dropped and counted.

Options:
      --tag NAME     what the log calls the program: 1 to 32 letters, digits, -, _ and .
      --map FILE     more prefixes, TOML: a line \"[OOPS]\" = \"error\" for each; none for what is no prefix
      --socket PATH  where records go instead; more than once: the first on which somebody listens
  -c, --config PATH  the service's configuration (default /etc/edgeweb/edgeweb.toml; if that one is wrong,
                     the program runs all the same)

The program is this process: signals, process id and exit status are its own. Another process reads its
output until nobody holds it any more; if that one is killed, writing ends the program with SIGPIPE.
C programs hold standard output back once it is no terminal: setvbuf, or `stdbuf -oL` before COMMAND.

Exit status: the program's own; 1 its output cannot be read; 2 wrong usage, configuration or map;
126 COMMAND cannot be run; 127 there is no such command.
";

/// What the reader says once it is there.
const READY: &str = "ready\n";

/// Which of the three processes this is.
enum Part {
    /// Becomes the program.
    Program,
    /// Starts the reader, and ends.
    Between(u32),
    /// Reads the output of the program with that process id.
    Reader(u32),
}

struct Arguments {
    part: Part,
    tag: String,
    map: Option<PathBuf>,
    sockets: Vec<PathBuf>,
    config: Option<PathBuf>,
    command: Vec<OsString>,
}

pub(super) fn run(parser: lexopt::Parser) -> Result<(), Failure> {
    let Some(arguments) = Arguments::parse(parser)? else {
        return Ok(());
    };
    match arguments.part {
        Part::Program => arguments.run_program(),
        Part::Between(pid) => {
            let reader = arguments.command_line("--reader", pid).spawn();
            reader.context("the reader of the output")?;
            Ok(())
        }
        Part::Reader(pid) => arguments.read(pid),
    }
}

impl Arguments {
    fn parse(mut parser: lexopt::Parser) -> Result<Option<Self>, Failure> {
        let mut part = Part::Program;
        let mut tag = None;
        let mut map = None;
        let mut sockets = Vec::new();
        let mut config = None;
        let mut command = Vec::new();
        let absolute = |path: OsString| {
            std::path::absolute(&path).map_err(|error| Failure::Usage(format!("{path:?}: {error}")))
        };
        while let Some(argument) = parser.next()? {
            match argument {
                Arg::Short('h') | Arg::Long("help") => return print(HELP).map(|()| None),
                Arg::Long("tag") => tag = Some(parser.value()?),
                Arg::Long("map") => map = Some(absolute(parser.value()?)?),
                Arg::Long("socket") => sockets.push(absolute(parser.value()?)?),
                Arg::Short('c') | Arg::Long("config") => {
                    config = Some(absolute(parser.value()?)?);
                }
                Arg::Long("between") => part = Part::Between(number(&parser.value()?)?),
                Arg::Long("reader") => part = Part::Reader(number(&parser.value()?)?),
                // From here on, options are the program's.
                Arg::Value(program) => {
                    command.push(program);
                    command.extend(parser.raw_args()?);
                }
                other => return Err(other.unexpected().into()),
            }
        }
        let usage = |text: &str| Err(Failure::Usage(text.to_owned()));
        let Some(tag) = tag else {
            return usage("--tag NAME is missing");
        };
        let Some(tag) = tag.to_str().filter(|tag| is_tag(tag)).map(str::to_owned) else {
            return Err(Failure::Usage(format!(
                "--tag {tag:?} is not 1 to 32 letters, digits, -, _ and ."
            )));
        };
        if matches!(part, Part::Program) && command.is_empty() {
            return usage("logpipe wants a command to run after --");
        }
        Ok(Some(Self {
            part,
            tag,
            map,
            sockets,
            config,
            command,
        }))
    }

    fn prefixes(&self) -> Result<Prefixes, Failure> {
        let map = self.map.as_deref();
        Ok(map.map_or_else(|| Ok(Prefixes::default()), Prefixes::load)?)
    }

    /// The configuration, and what was wrong with it. A program must not stay away because of the default one.
    fn config(&self) -> Result<(Config, Option<String>), Failure> {
        let Some(path) = &self.config else {
            return Ok(match Config::load(DEFAULT_PATH.as_ref()) {
                Ok(config) => (config, None),
                Err(error) => (Config::default(), Some(error.to_string())),
            });
        };
        Ok((Config::load(path)?, None))
    }

    /// This program again, as `part` of what belongs to process `pid`.
    fn command_line(&self, part: &str, pid: u32) -> Command {
        // Also right when the file was replaced by an update.
        let mut command = Command::new("/proc/self/exe");
        command.arg0("edgeweb").arg("logpipe");
        command.arg(part).arg(pid.to_string());
        command.arg("--tag").arg(&self.tag);
        for (option, paths) in [
            ("--map", self.map.as_slice()),
            ("--socket", &self.sockets),
            ("--config", self.config.as_slice()),
        ] {
            for path in paths {
                command.arg(option).arg(path);
            }
        }
        command
    }

    /// Starts the reader, and becomes the program. Returns only if that was not possible.
    fn run_program(self) -> Result<(), Failure> {
        // What is wrong is said while there is somebody who can be told.
        self.prefixes()?;
        let (_, wrong) = self.config()?;
        let (stdout, stderr) = self.start_reader().context("logpipe: no reader")?;
        let mut log = stderr.try_clone().context("logpipe: no reader")?;
        if let Some(wrong) = wrong {
            // The reader says it in the log; that it may have gone already is no reason to stop.
            let _ = writeln!(log, "<4>logpipe: going on with the defaults: {wrong}");
        }
        // The streams are the program's before it is known whether it can be run.
        let original = io::stderr().as_fd().try_clone_to_owned();
        let program = &self.command[0];
        let error = Command::new(program)
            .args(&self.command[1..])
            .stdout(stdout)
            .stderr(stderr)
            .exec();
        let line = format!("{program:?} cannot be run: {error}");
        let _ = writeln!(log, "<3>logpipe: {line}");
        let status = match error.kind() {
            io::ErrorKind::NotFound => 127,
            _ => 126,
        };
        if let Ok(original) = original {
            let _ = writeln!(std::fs::File::from(original), "edgeweb: {line}");
        }
        Err(Failure::Exit(status))
    }

    /// The writing ends of two pipes that a new process reads.
    fn start_reader(&self) -> anyhow::Result<(PipeWriter, PipeWriter)> {
        let (stdout_reader, stdout) = io::pipe()?;
        let (stderr_reader, stderr) = io::pipe()?;
        let (answer, answer_writer) = io::pipe()?;
        // It reads what it finds in place of its standard input and output.
        let mut between = self
            .command_line("--between", std::process::id())
            .stdin(stdout_reader)
            .stdout(stderr_reader)
            .stderr(answer_writer)
            .env_clear()
            .current_dir("/")
            .process_group(0)
            .spawn()?;
        between.wait()?;
        // Ends with the reader's answer, or with the last process that could have given one.
        let mut said = String::new();
        BufReader::new(answer.take(1024)).read_line(&mut said)?;
        if said != READY {
            return Err(anyhow!(
                "{}",
                said.trim_end().trim_start_matches("edgeweb: ")
            ));
        }
        Ok((stdout, stderr))
    }

    fn read(self, pid: u32) -> Result<(), Failure> {
        let prefixes = self.prefixes()?;
        let (config, _) = self.config()?;
        let mut sockets = self.sockets;
        if sockets.is_empty() {
            sockets.push(config.server.log_socket());
            if config.log.syslog.enabled {
                sockets.push(config.log.syslog.socket);
            }
        }
        let reader = PipeReader {
            tag: self.tag,
            pid,
            facility: config.log.syslog.facility,
            prefixes,
            sockets,
        };
        let stdout = io::stdin().as_fd().try_clone_to_owned();
        let stderr = io::stdout().as_fd().try_clone_to_owned();
        let ready = || io::stderr().write_all(READY.as_bytes());
        stdout
            .and_then(|stdout| reader.run(stdout, stderr?, ready))
            .context("the program's output")?;
        Ok(())
    }
}

fn number(text: &OsString) -> Result<u32, Failure> {
    let number = text.to_str().and_then(|text| text.parse().ok());
    number.ok_or_else(|| Failure::Usage(format!("{text:?} is no number of a process")))
}
