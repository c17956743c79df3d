//! Which records the collector has for certain, and which are still under way.
//!
//! Syslog has no receipts. A record counts as delivered when everything up to it has left this device and
//! the connection is still without error some time later, longer than TCP would go without an answer.
//! That says that the collector's kernel has it, not that the collector has read it: one that hangs for longer
//! than that and is then killed takes with it what fitted into its kernel's buffer.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::logging::journal::Position;

/// What is written within this time is confirmed together, which bounds the number of marks.
const TOGETHER: Duration = Duration::from_secs(1);

/// A place in both sources: everything before it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Place {
    /// In the journal; `None` before its first record.
    pub(super) journal: Option<Position>,
    /// In memory: how many records have been before it.
    pub(super) memory: u64,
}

/// Written, and not confirmed yet.
#[derive(Debug)]
struct Mark {
    through: Place,
    records: u64,
    begun: Instant,
    /// When all of it had left this device.
    gone: Option<Instant>,
}

/// What is under way on one connection after the other.
#[derive(Debug)]
pub(super) struct Delivery {
    confirmed: Place,
    marks: VecDeque<Mark>,
}

impl Delivery {
    pub(super) const fn new(confirmed: Place) -> Self {
        Self {
            confirmed,
            marks: VecDeque::new(),
        }
    }

    /// Everything before this has been delivered.
    pub(super) const fn confirmed(&self) -> Place {
        self.confirmed
    }

    /// Records that are under way.
    pub(super) fn unconfirmed(&self) -> u64 {
        self.marks.iter().map(|mark| mark.records).sum()
    }

    /// `records` more have been written; with them, everything before `through`.
    pub(super) fn wrote(&mut self, through: Place, records: u64, now: Instant) {
        if let Some(last) = self.marks.back_mut()
            && (last.gone.is_none() || now.duration_since(last.begun) < TOGETHER)
        {
            last.through = through;
            last.records += records;
            last.gone = None;
            return;
        }
        self.marks.push_back(Mark {
            through,
            records,
            begun: now,
            gone: None,
        });
    }

    /// The connection is without error at `now`; `all_gone` when nothing of what was written is still in this
    /// device. Confirms what left it `wait` ago and says how many records that are.
    pub(super) fn is_well(&mut self, now: Instant, all_gone: bool, wait: Duration) -> u64 {
        if all_gone {
            for mark in self.marks.iter_mut().rev() {
                if mark.gone.is_some() {
                    break;
                }
                mark.gone = Some(now);
            }
        }
        let mut records = 0;
        while let Some(mark) = self.marks.front()
            && mark
                .gone
                .is_some_and(|gone| now.duration_since(gone) >= wait)
        {
            self.confirmed = mark.through;
            records += mark.records;
            self.marks.pop_front();
        }
        records
    }

    /// The collector has said that it has everything. Says how many records that are.
    pub(super) fn confirm_all(&mut self) -> u64 {
        let records = self.unconfirmed();
        if let Some(last) = self.marks.back() {
            self.confirmed = last.through;
        }
        self.marks.clear();
        records
    }

    /// The connection is lost, and perhaps all that was under way. Says from where to send again.
    pub(super) fn lost(&mut self) -> Place {
        self.marks.clear();
        self.confirmed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_secs(12);

    fn place(memory: u64) -> Place {
        Place {
            journal: Some(Position {
                segment: 1,
                offset: memory * 100,
            }),
            memory,
        }
    }

    #[test]
    fn a_record_is_confirmed_when_the_connection_was_well_long_enough_after_it() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut delivery = Delivery::new(Place::default());
        delivery.wrote(place(3), 3, at(0));
        assert_eq!(delivery.is_well(at(0), true, WAIT), 0);
        delivery.wrote(place(5), 2, at(6));
        assert_eq!(delivery.is_well(at(6), true, WAIT), 0);
        assert_eq!(delivery.is_well(at(11), true, WAIT), 0);
        assert_eq!(delivery.confirmed(), Place::default());
        assert_eq!(delivery.is_well(at(12), true, WAIT), 3);
        assert_eq!(delivery.confirmed(), place(3));
        assert_eq!(delivery.unconfirmed(), 2);
        assert_eq!(delivery.is_well(at(18), true, WAIT), 2);
        assert_eq!(delivery.confirmed(), place(5));
    }

    #[test]
    fn what_still_waits_in_this_device_is_not_confirmed_however_long_it_takes() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut delivery = Delivery::new(Place::default());
        delivery.wrote(place(1), 1, at(0));
        delivery.wrote(place(2), 1, at(30));
        assert_eq!(delivery.is_well(at(60), false, WAIT), 0);
        assert_eq!(delivery.is_well(at(61), true, WAIT), 0);
        assert_eq!(delivery.is_well(at(72), true, WAIT), 0);
        assert_eq!(delivery.is_well(at(73), true, WAIT), 2);
    }

    #[test]
    fn a_lost_connection_goes_back_to_what_was_confirmed() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut delivery = Delivery::new(place(1));
        delivery.wrote(place(2), 1, at(0));
        delivery.is_well(at(0), true, WAIT);
        delivery.wrote(place(3), 1, at(5));
        delivery.is_well(at(12), true, WAIT);
        assert_eq!(delivery.lost(), place(2));
        assert_eq!(delivery.unconfirmed(), 0);
        // What was sent before is no longer waited for.
        assert_eq!(delivery.is_well(at(60), true, WAIT), 0);
        delivery.wrote(place(4), 2, at(60));
        assert_eq!(delivery.confirm_all(), 2);
        assert_eq!(delivery.lost(), place(4));
    }

    #[test]
    fn a_steady_stream_is_confirmed_and_takes_few_marks() {
        let start = Instant::now();
        let mut delivery = Delivery::new(Place::default());
        let mut confirmed = 0;
        for n in 1..=6000_u64 {
            let now = start + Duration::from_millis(10 * n);
            delivery.wrote(place(n), 1, now);
            confirmed += delivery.is_well(now, true, WAIT);
            assert!(delivery.marks.len() <= 16, "{}", delivery.marks.len());
            assert_eq!(confirmed + delivery.unconfirmed(), n);
        }
        assert!(confirmed > 4000, "{confirmed}");
    }
}
