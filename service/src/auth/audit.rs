//! Every change of state is told to the log: who, what, from where, and what came of it.

use std::fmt::Display;

/// Records that `who` did `what` to `subject`, coming `from` somewhere. An error says why it came to nothing.
pub(crate) fn record(
    who: &str,
    what: &str,
    subject: &str,
    from: &dyn Display,
    result: Result<(), &str>,
) {
    let result = match result {
        Ok(()) => "done",
        Err(reason) => reason,
    };
    log::info!(
        target: "edgeweb::audit",
        severity = "notice", who, what, from = from.to_string(), result;
        "{}", format_args!("{what} {subject}").to_string().trim_end()
    );
}
