//! What time it is, and whether that can be true: a device without a battery clock starts in 1970.

use std::time::{SystemTime, UNIX_EPOCH};

/// No right clock shows less: the release of this version, 2026-11-01T00:00:00Z, in seconds of Unix time.
pub(super) const FLOOR: i64 = 1_793_491_200;

/// A day in seconds.
pub(super) const DAY: i64 = 24 * 60 * 60;

/// The time of the system's clock, in seconds since 1970.
pub(super) fn now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
        })
}

/// Whether `now` can be the time.
pub(super) fn is_right(now: i64) -> bool {
    now >= FLOOR
}

/// Whole days from `now` to `end`, rounded down; negative when it is past.
pub(super) fn days_left(end: i64, now: i64) -> i64 {
    end.saturating_sub(now).div_euclid(DAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_is_the_day_of_the_release() {
        let floor = time::OffsetDateTime::from_unix_timestamp(FLOOR).unwrap();
        assert_eq!(floor.date().to_string(), "2026-11-01");
        assert!(!is_right(0));
        assert!(!is_right(FLOOR - 1));
        assert!(is_right(FLOOR));
        assert!(is_right(now()), "the clock of the machine under test");
    }

    #[test]
    fn days_are_rounded_down() {
        assert_eq!(days_left(FLOOR + DAY - 1, FLOOR), 0);
        assert_eq!(days_left(FLOOR + DAY, FLOOR), 1);
        assert_eq!(days_left(FLOOR - 1, FLOOR), -1);
    }
}
