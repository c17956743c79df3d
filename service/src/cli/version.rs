//! `edgeweb version`

use super::{Failure, Options, print};

pub(super) const HELP: &str = "\
edgeweb version - say version, target and features

Usage: edgeweb version
";

pub(super) fn run(options: Option<Options>) -> Result<(), Failure> {
    if options.is_none() {
        return Ok(());
    }
    print(&format!(
        "edgeweb {}\ntarget {}\nfeatures {}\n",
        edgeweb::VERSION,
        edgeweb::TARGET,
        edgeweb::FEATURES
    ))
}
