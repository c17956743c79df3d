//! `edgeweb check-config`

use super::{Failure, Options, print};

pub(super) const HELP: &str = "\
edgeweb check-config - say whether the configuration is right

Usage: edgeweb check-config [--config PATH]

Options:
  -c, --config PATH  the file to check (default /etc/edgeweb/edgeweb.toml; absent means defaults)

Exit status: 0 it is right; 2 it is wrong, with one line that names file, key and reason.
";

pub(super) fn run(options: Option<Options>) -> Result<(), Failure> {
    let Some(options) = options else {
        return Ok(());
    };
    options.load_whole_config()?;
    print(&format!("{}: ok\n", options.config_path().display()))
}
