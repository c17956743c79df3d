//! `edgeweb serve`

use std::io::{self, Write};
use std::panic;

use anyhow::{Context, anyhow};
use edgeweb::config::LogConfig;
use edgeweb::{Scheme, Server, ServerHandle, logging};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Failure, Options};

pub(super) const HELP: &str = "\
edgeweb serve - serve until SIGTERM or SIGINT

Usage: edgeweb serve [--config PATH]

Options:
  -c, --config PATH  the configuration (default /etc/edgeweb/edgeweb.toml; absent means defaults)

Signals: SIGTERM and SIGINT end the service after the requests that it is serving, within
server.drain_seconds; a second one ends it at once. SIGHUP reads the configuration again; when the
new one is wrong, the log says why and the old one stays.

When nobody exists who could log in, the first line on standard output is the code with which the first
administrator is made: POST /api/public/claim. The log has it, too.

Exit status: 0 ended as asked; 1 a failure at run time; 2 the configuration is wrong.
";

pub(super) fn run(options: Option<Options>) -> Result<(), Failure> {
    let Some(options) = options else {
        return Ok(());
    };
    let config = match options.load_whole_config() {
        Ok(config) => config,
        Err(error) => {
            // Started at boot, nobody sees standard error; the syslog is where one would look.
            report(&LogConfig::default(), &error.to_string());
            return Err(error.into());
        }
    };
    logging::install(&config.log).context("log")?;
    log_panics();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .context("a runtime for signals")?;
    // From here on a signal is not lost, even if it comes before the service is up.
    let mut signals = runtime.block_on(async { Signals::new() })?;
    let claim_minutes = config.auth.claim_minutes;
    let server = match Server::builder().config(config).systemd(true).start() {
        Ok(server) => server,
        Err(error) => return Err(failed(anyhow!(error).context("not started"))),
    };
    show_claim_code(&server, claim_minutes);
    runtime
        .block_on(signals.serve(&server, &options))
        .map_err(|error| failed(error.into()))
}

/// Shows the claim code to whoever has the device's console in front of them.
fn show_claim_code(server: &ServerHandle, minutes: u64) {
    let Some(code) = server.claim_code() else {
        return;
    };
    let endpoints = server.endpoints();
    let https = endpoints.iter().find(|e| e.scheme == Scheme::Https);
    let host = rustix::system::uname();
    let host = host.nodename().to_string_lossy();
    let place = https.map_or_else(
        || String::from("only over HTTPS, which is off"),
        |endpoint| format!("https://{host}:{}/", endpoint.port),
    );
    let line = format!("edgeweb: claim code: {code} ({place}, {minutes} minutes)\n");
    // The log has it, too.
    let mut out = io::stdout().lock();
    let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
}

/// Says an error in the log; the caller says it on standard error.
fn failed(error: anyhow::Error) -> Failure {
    if !logging::reaches_stderr() {
        log::error!("{error:#}");
    }
    log::logger().flush();
    Failure::Runtime(error)
}

fn report(config: &LogConfig, line: &str) {
    let mut quiet = LogConfig {
        stderr: edgeweb::config::StderrLog::Never,
        ..config.clone()
    };
    // Where the journal should be is not known.
    quiet.journal.enabled = false;
    if logging::install(&quiet).is_ok() {
        log::error!("not started: {line}");
        log::logger().flush();
    }
}

/// A panic is said in the log, where the device's maker will look for it.
fn log_panics() {
    let default = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        // On the flash before anything else happens: it may be the last word.
        log::error!(severity = "critical"; "{info}");
        if !logging::reaches_stderr() {
            default(info);
        }
    }));
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("SIGINT")?,
            hangup: signal(SignalKind::hangup()).context("SIGHUP")?,
        })
    }

    async fn serve(
        &mut self,
        server: &ServerHandle,
        options: &Options,
    ) -> Result<(), edgeweb::ServeError> {
        let mut stopping = false;
        loop {
            tokio::select! {
                end = server.ended() => return end,
                _ = self.terminate.recv() => stop(server, &mut stopping, "SIGTERM"),
                _ = self.interrupt.recv() => stop(server, &mut stopping, "SIGINT"),
                _ = self.hangup.recv() => reload(server, options),
            }
        }
    }
}

fn stop(server: &ServerHandle, stopping: &mut bool, signal: &str) {
    if *stopping {
        log::warn!("{signal} again: not waiting any longer");
        server.stop_now();
    } else {
        log::info!("{signal}: stopping");
        server.begin_stop();
        *stopping = true;
    }
}

fn reload(server: &ServerHandle, options: &Options) {
    log::info!("SIGHUP: reading {}", options.config_path().display());
    match options.load_whole_config() {
        // The service logs what came of it.
        Ok(config) => drop(server.reload(config)),
        Err(error) => log::error!("the old configuration stays in force: {error}"),
    }
}
