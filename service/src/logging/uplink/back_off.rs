//! Pauses between attempts: longer each time, and not the same on all devices after a power cut in the house.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

/// The next pause.
#[derive(Debug)]
pub(super) struct BackOff(Duration);

impl BackOff {
    pub(super) const fn new() -> Self {
        Self(FIRST)
    }

    /// Something worked: the next pause is a short one again.
    pub(super) const fn reset(&mut self) {
        self.0 = FIRST;
    }

    /// Half of the pause is certain, the other half by chance.
    pub(super) fn next(&mut self) -> Duration {
        let half = self.0 / 2;
        self.0 = (self.0 * 2).min(LONGEST);
        // The standard library keys each RandomState differently, from the system's random numbers.
        let chance = RandomState::new().hash_one(()) % 1024;
        half + half * chance as u32 / 1024
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_again() {
        let mut back_off = BackOff::new();
        for round in 0..2 {
            let mut longest = FIRST;
            for _ in 0..10 {
                let pause = back_off.next();
                assert!(
                    pause >= longest / 2 && pause < longest,
                    "{round}: {pause:?}"
                );
                longest = (longest * 2).min(LONGEST);
            }
            back_off.reset();
        }
    }

    #[test]
    fn two_devices_do_not_come_at_the_same_time() {
        let pauses: std::collections::HashSet<Duration> =
            (0..20).map(|_| BackOff::new().next()).collect();
        assert!(pauses.len() > 10, "{pauses:?}");
    }
}
