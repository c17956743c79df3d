//! `edgeweb health`

use std::time::Duration;

use anyhow::{Context, bail};
use edgeweb::control;

use super::{Failure, Options, print};

pub(super) const HELP: &str = "\
edgeweb health - ask the running service whether it is well

Usage: edgeweb health [--ready] [--config PATH]

Asks over the service's own socket, so that it works whatever the service listens on.

Options:
      --ready        ask whether every check passes, not only whether it answers
  -c, --config PATH  the service's configuration (default /etc/edgeweb/edgeweb.toml)

Exit status: 0 it is well; 1 it is not, or does not answer; 2 the configuration is wrong.
";

/// How long the service may take for its answer.
const LIMIT: Duration = Duration::from_secs(5);

pub(super) fn run(options: Option<Options>) -> Result<(), Failure> {
    let Some(options) = options else {
        return Ok(());
    };
    let socket = options.load_config()?.server.control_socket();
    let target = if options.has("ready") {
        "/health/ready"
    } else {
        "/health"
    };
    print(&ask(&socket, target)?)
}

fn ask(socket: &std::path::Path, target: &str) -> anyhow::Result<String> {
    let (status, body) = control::get(socket, target, LIMIT)
        .with_context(|| format!("the service does not answer on {}", socket.display()))?;
    if status != 200 {
        bail!("{target} answers {status}: {body}");
    }
    Ok(format!("{body}\n"))
}
