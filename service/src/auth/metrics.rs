//! The numbers of log-ins and tokens in Prometheus's text format (version 0.0.4).

use std::fmt::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use super::Auth;

#[derive(Default)]
pub(super) struct Counters {
    pub(super) ok: Counter,
    pub(super) refused: Counter,
    pub(super) delayed: Counter,
    pub(super) tokens_refused: Counter,
}

#[derive(Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Auth {
    /// Appends every number of log-ins and tokens.
    pub(crate) fn write_metrics(&self, out: &mut String) {
        // Writing to a String cannot fail.
        let _ = self.write(out);
    }

    fn write(&self, out: &mut String) -> fmt::Result {
        let counters = &self.counters;
        writeln!(
            out,
            "# HELP edgeweb_auth_attempts_total Passwords and claim codes that were tried.\n\
             # TYPE edgeweb_auth_attempts_total counter"
        )?;
        for (result, counter) in [
            ("ok", &counters.ok),
            ("refused", &counters.refused),
            ("delayed", &counters.delayed),
        ] {
            let count = counter.get();
            writeln!(
                out,
                "edgeweb_auth_attempts_total{{result=\"{result}\"}} {count}"
            )?;
        }
        writeln!(
            out,
            "# HELP edgeweb_auth_tokens_refused_total Tokens that were not good.\n\
             # TYPE edgeweb_auth_tokens_refused_total counter\n\
             edgeweb_auth_tokens_refused_total {}\n\
             # HELP edgeweb_users Users that can log in.\n\
             # TYPE edgeweb_users gauge\n\
             edgeweb_users {}",
            counters.tokens_refused.get(),
            self.user_count()
        )
    }
}
