//! The numbers of the certificate in force, in Prometheus's text format (version 0.0.4).

use std::fmt::Write;

use super::identity::Identity;

/// Appends them.
pub(super) fn write(out: &mut String, identity: &Identity, swaps: u64) {
    let (source, end) = (identity.source, identity.facts.not_after);
    // Writing to a String cannot fail.
    let _ = write!(
        out,
        "# HELP edgeweb_certificate_not_after_seconds When the certificate in force ends, in Unix time.\n\
         # TYPE edgeweb_certificate_not_after_seconds gauge\n\
         edgeweb_certificate_not_after_seconds{{source=\"{source}\"}} {end}\n\
         # HELP edgeweb_certificate_swaps_total How often another certificate came in force.\n\
         # TYPE edgeweb_certificate_swaps_total counter\n\
         edgeweb_certificate_swaps_total {swaps}\n"
    );
}
