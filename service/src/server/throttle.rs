//! A line that would otherwise be logged as often as somebody wishes.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The least time between two such lines.
const INTERVAL: Duration = Duration::from_secs(10);

/// Counts an event and lets it be logged at most once in [`INTERVAL`].
#[derive(Default)]
pub(crate) struct Throttle(Mutex<(Option<Instant>, u64)>);

impl Throttle {
    /// Calls `log` with the number of events since it was last called, if it is time.
    pub(crate) fn note(&self, log: impl FnOnce(u64)) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.1 += 1;
        if state.0.is_none_or(|last| last.elapsed() >= INTERVAL) {
            let times = std::mem::take(&mut state.1);
            state.0 = Some(Instant::now());
            drop(state);
            log(times);
        }
    }
}
