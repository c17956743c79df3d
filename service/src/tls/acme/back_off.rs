//! Pauses between orders that failed: longer each time, and not the same on all devices of a fleet.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// The first pause.
const FIRST: Duration = Duration::from_secs(60);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// The next pause.
#[derive(Debug)]
pub(super) struct BackOff {
    next: Duration,
}

impl BackOff {
    pub(super) const fn new() -> Self {
        Self { next: FIRST }
    }

    /// Something worked: the next pause is a short one again.
    pub(super) const fn reset(&mut self) {
        self.next = FIRST;
    }

    /// The next pause and up to half of it more by chance, at least what the authority told.
    pub(super) fn pause(&mut self, told: Option<Duration>) -> Duration {
        let pause = self.next.max(told.unwrap_or_default());
        self.next = (self.next * 2).min(LONGEST);
        // The standard library keys each RandomState differently, from the system's random numbers.
        let chance = RandomState::new().hash_one(()) % 1024;
        pause + (pause / 2).min(LONGEST / 24) * chance as u32 / 1024
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn pauses_double_up_to_a_day_and_begin_again() {
        let mut back_off = BackOff::new();
        for round in 0..2 {
            let mut least = MINUTE;
            for _ in 0..20 {
                let pause = back_off.pause(None);
                assert!(
                    pause >= least && pause < least + least / 2,
                    "{round}: {pause:?}"
                );
                least = (least * 2).min(LONGEST);
            }
            back_off.reset();
        }
    }

    #[test]
    fn what_the_authority_tells_is_waited_for() {
        let mut back_off = BackOff::new();
        assert!(back_off.pause(Some(60 * MINUTE)) >= 60 * MINUTE);
        assert!(back_off.pause(Some(MINUTE)) >= 2 * MINUTE);
    }

    #[test]
    fn two_devices_do_not_come_at_the_same_time() {
        let pauses: std::collections::HashSet<Duration> =
            (0..20).map(|_| BackOff::new().pause(None)).collect();
        assert!(pauses.len() > 10, "{pauses:?}");
    }
}
