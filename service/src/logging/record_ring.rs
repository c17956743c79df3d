//! A ring of encoded records, bounded in bytes, from which the oldest go first.

/// What stands before each record: its length.
const LENGTH: usize = 4;
/// In place of a length: the rest of the buffer is unused, and the next record is at its start.
const WRAP: u32 = u32::MAX;

/// Records in a buffer that is allocated once. Each lies in one piece.
pub(super) struct RecordRing {
    buffer: Box<[u8]>,
    /// Where the oldest record begins.
    head: usize,
    /// Where the next one goes.
    tail: usize,
    records: usize,
}

impl RecordRing {
    /// A ring of `capacity` bytes, which the system gives as they are used.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            buffer: vec![0; capacity].into_boxed_slice(),
            head: 0,
            tail: 0,
            records: 0,
        }
    }

    pub(super) fn capacity(&self) -> usize {
        self.buffer.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records == 0
    }

    #[cfg(feature = "uplink")]
    pub(super) fn len(&self) -> usize {
        self.records
    }

    /// Whether less than half of the buffer is behind the next record's place.
    pub(super) fn is_below_half(&self) -> bool {
        self.head == 0 && self.tail < self.buffer.len() / 2
    }

    pub(super) fn clear(&mut self) {
        self.head = 0;
        self.tail = 0;
        self.records = 0;
    }

    /// Appends a record, if there is room for it without dropping another.
    #[must_use]
    pub(super) fn try_push(&mut self, record: &[u8]) -> bool {
        let Some(at) = self.place(record.len()) else {
            return false;
        };
        if self.records == 0 {
            self.head = 0;
        } else if at == 0
            && let Some(mark) = self.buffer.get_mut(self.tail..self.tail + LENGTH)
        {
            mark.copy_from_slice(&WRAP.to_le_bytes());
        }
        let end = at + LENGTH + record.len();
        // A record's length is far below WRAP.
        self.buffer[at..at + LENGTH].copy_from_slice(&(record.len() as u32).to_le_bytes());
        self.buffer[at + LENGTH..end].copy_from_slice(record);
        self.tail = end;
        self.records += 1;
        true
    }

    /// Appends a record; the oldest make room for it, each shown to `dropped` as it goes. A record that
    /// is larger than the ring is dropped itself.
    pub(super) fn push(&mut self, record: &[u8], mut dropped: impl FnMut(&[u8])) {
        while !self.try_push(record) {
            match self.oldest() {
                Some(oldest) => dropped(oldest),
                None => return dropped(record),
            }
            self.drop_oldest();
        }
    }

    /// The oldest record.
    pub(super) fn oldest(&self) -> Option<&[u8]> {
        self.iter().next()
    }

    /// The records, the oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut at = self.head;
        (0..self.records).map(move |_| {
            if self.is_wrap(at) {
                at = 0;
            }
            let start = at + LENGTH;
            let length = self.length_at(at);
            at = start + length;
            &self.buffer[start..at]
        })
    }

    pub(super) fn drop_oldest(&mut self) {
        if self.records <= 1 {
            return self.clear();
        }
        if self.is_wrap(self.head) {
            self.head = 0;
        }
        self.head += LENGTH + self.length_at(self.head);
        self.records -= 1;
    }

    /// Whether a record of `length` bytes fits without dropping another.
    pub(super) fn has_room(&self, length: usize) -> bool {
        self.place(length).is_some()
    }

    /// Where a record of `length` bytes fits.
    fn place(&self, length: usize) -> Option<usize> {
        let needed = LENGTH + length;
        if self.records == 0 {
            return (needed <= self.buffer.len()).then_some(0);
        }
        if self.tail > self.head {
            if needed <= self.buffer.len() - self.tail {
                return Some(self.tail);
            }
            // Strictly less: head and tail are the same only in a ring that is empty or full to the byte.
            return (needed < self.head).then_some(0);
        }
        (needed < self.head - self.tail).then_some(self.tail)
    }

    fn is_wrap(&self, at: usize) -> bool {
        match self.buffer.get(at..at + LENGTH) {
            Some(mark) => mark == WRAP.to_le_bytes(),
            None => true,
        }
    }

    fn length_at(&self, at: usize) -> usize {
        let mut length = [0; LENGTH];
        length.copy_from_slice(&self.buffer[at..at + LENGTH]);
        u32::from_le_bytes(length) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    #[test]
    fn the_oldest_go_first_and_what_is_left_is_whole() {
        // Lengths without a common measure, against a queue that keeps what the ring says it keeps.
        for capacity in [64, 100, 257] {
            let mut ring = RecordRing::new(capacity);
            let mut expected: VecDeque<Vec<u8>> = VecDeque::new();
            for n in 0..10_000_usize {
                let record = vec![n as u8; n * 7 % 31];
                ring.push(&record, |dropped| {
                    assert_eq!(Some(dropped.to_vec()), expected.pop_front());
                });
                expected.push_back(record);
                assert!(ring.iter().eq(expected.iter().map(Vec::as_slice)), "{n}");
                let bytes: usize = expected.iter().map(|record| record.len() + LENGTH).sum();
                assert!(bytes <= capacity);
                if n % 97 == 0 {
                    ring.drop_oldest();
                    expected.pop_front();
                }
            }
        }
    }

    #[test]
    fn a_record_larger_than_the_ring_is_dropped_itself() {
        let mut ring = RecordRing::new(32);
        assert!(ring.try_push(b"small"));
        assert!(!ring.try_push(&[0; 28]));
        let mut dropped = Vec::new();
        ring.push(&[7; 29], |record| dropped.push(record.to_vec()));
        assert_eq!(dropped, [b"small".to_vec(), vec![7; 29]]);
        assert!(ring.is_empty());
        assert!(ring.try_push(&[7; 28]));
        assert!(!ring.try_push(b""));
    }
}
