//! One file of the journal: a header, then framed records up to its end.
//!
//! All numbers are little-endian. Header: magic, flags u32, boot id, run id u64, wall time i64 (ns since
//! 1970), the key that opens sealed records (HPKE's encapsulated key, zeros where nothing is sealed), CRC-32C
//! u32. Frame: mark u32, length u32, CRC-32C u32 of segment number, length and record; then the record.
//!
//! The mark is what a reader looks for behind a frame that is damaged. The segment's number is in the sum
//! because a file system may show old blocks at the end of a file after a power cut.

use crc::{CRC_32_ISCSI, Crc};

use crate::logging::entry::MAX_ENCODED;
use crate::logging::origin::{BootId, Origin, RunId};
use crate::logging::seal::OVERHEAD;

/// CRC-32C (Castagnoli), as in iSCSI (RFC 3720, appendix B.4), ext4 and Btrfs.
static CRC32C: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

const MAGIC: [u8; 8] = *b"EWLOG\x00\x01\n";
const SEALED: u32 = 1;
const MARK: [u8; 4] = [0xF5, b'r', b'e', 0xC1];
/// Everything before the first frame.
pub(super) const HEADER: usize = 8 + 4 + 16 + 8 + 8 + KEY + 4;
/// HPKE's encapsulated key for X25519 (RFC 9180, section 7.1).
pub(in crate::logging) const KEY: usize = 32;
/// Everything before a record.
pub(super) const FRAME: usize = 12;
/// The longest record in a frame.
pub(super) const MAX_RECORD: usize = MAX_ENCODED + OVERHEAD;

/// What a segment says of all its records.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::logging) struct Header {
    pub(in crate::logging) origin: Origin,
    pub(in crate::logging) created_ns: i64,
    /// Set where the records are sealed.
    pub(in crate::logging) key: Option<[u8; KEY]>,
}

impl Header {
    pub(super) fn encode(&self) -> [u8; HEADER] {
        let mut bytes = Vec::with_capacity(HEADER);
        bytes.extend_from_slice(&MAGIC);
        let flags = if self.key.is_some() { SEALED } else { 0 };
        bytes.extend_from_slice(&flags.to_le_bytes());
        bytes.extend_from_slice(&self.origin.boot.0);
        bytes.extend_from_slice(&self.origin.run.0.to_le_bytes());
        bytes.extend_from_slice(&self.created_ns.to_le_bytes());
        bytes.extend_from_slice(&self.key.unwrap_or_default());
        bytes.extend_from_slice(&CRC32C.checksum(&bytes).to_le_bytes());
        let mut header = [0; HEADER];
        header.copy_from_slice(&bytes);
        header
    }

    /// Reads the header at the start of `segment`; `None` when there is none that is whole.
    pub(super) fn decode(segment: &[u8]) -> Option<Self> {
        let header = segment.get(..HEADER)?;
        let (content, sum) = header.split_at(HEADER - 4);
        if content[..8] != MAGIC || CRC32C.checksum(content).to_le_bytes() != *sum {
            return None;
        }
        let flags = u32::from_le_bytes(content[8..12].try_into().ok()?);
        Some(Self {
            origin: Origin {
                boot: BootId(content[12..28].try_into().ok()?),
                run: RunId(u64::from_le_bytes(content[28..36].try_into().ok()?)),
            },
            created_ns: i64::from_le_bytes(content[36..44].try_into().ok()?),
            key: if flags & SEALED == 0 {
                None
            } else {
                Some(content[44..].try_into().ok()?)
            },
        })
    }
}

/// Appends `record` to `out` in its frame.
pub(super) fn push_frame(out: &mut Vec<u8>, segment: u64, record: &[u8]) {
    let length = (record.len() as u32).to_le_bytes(); // MAX_RECORD fits
    out.extend_from_slice(&MARK);
    out.extend_from_slice(&length);
    out.extend_from_slice(&sum(segment, length, record).to_le_bytes());
    out.extend_from_slice(record);
}

fn sum(segment: u64, length: [u8; 4], record: &[u8]) -> u32 {
    let mut digest = CRC32C.digest();
    digest.update(&segment.to_le_bytes());
    digest.update(&length);
    digest.update(record);
    digest.finalize()
}

/// What stands at a place of a segment.
#[derive(Debug, PartialEq)]
pub(super) enum Frame<'a> {
    /// A record that is whole, and where the next frame begins.
    Record(&'a [u8], usize),
    /// The bytes end before the frame does.
    Cut,
    /// No frame.
    Damaged,
}

/// Reads the frame that begins at `at`.
pub(super) fn frame_at(bytes: &[u8], at: usize, segment: u64) -> Frame<'_> {
    let rest = bytes.get(at..).unwrap_or_default();
    if !rest.starts_with(&MARK[..rest.len().min(4)]) {
        return Frame::Damaged;
    }
    let Some(head) = rest.first_chunk::<FRAME>() else {
        return Frame::Cut;
    };
    let [.., l0, l1, l2, l3, c0, c1, c2, c3] = *head;
    let length_bytes = [l0, l1, l2, l3];
    let length = u32::from_le_bytes(length_bytes) as usize;
    if length > MAX_RECORD {
        return Frame::Damaged;
    }
    let Some(record) = rest.get(FRAME..FRAME + length) else {
        return Frame::Cut;
    };
    if sum(segment, length_bytes, record) == u32::from_le_bytes([c0, c1, c2, c3]) {
        Frame::Record(record, at + FRAME + length)
    } else {
        Frame::Damaged
    }
}

/// Where, after `at`, a frame might begin: the next mark, or the first bytes of one at the end.
pub(super) fn next_mark(bytes: &[u8], at: usize) -> usize {
    (at + 1..bytes.len())
        .find(|at| {
            let rest = &bytes[*at..];
            rest.starts_with(&MARK[..rest.len().min(4)])
        })
        .unwrap_or(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_back_and_a_damaged_one_is_not() {
        for key in [None, Some([7; KEY])] {
            let header = Header {
                origin: Origin {
                    boot: BootId([3; 16]),
                    run: RunId(0x1234),
                },
                created_ns: -1,
                key,
            };
            let bytes = header.encode();
            assert_eq!(Header::decode(&bytes), Some(header));
            for at in 0..HEADER {
                let mut damaged = bytes;
                damaged[at] ^= 0x10;
                assert_eq!(Header::decode(&damaged), None, "{at}");
                assert_eq!(Header::decode(&bytes[..at]), None, "{at}");
            }
        }
    }

    #[test]
    fn a_frame_is_a_record_cut_or_damaged() {
        let mut bytes = Vec::new();
        push_frame(&mut bytes, 5, b"first");
        let second = bytes.len();
        push_frame(&mut bytes, 5, b"second");
        assert_eq!(frame_at(&bytes, 0, 5), Frame::Record(b"first", second));
        assert_eq!(
            frame_at(&bytes, second, 5),
            Frame::Record(b"second", bytes.len())
        );
        assert_eq!(frame_at(&bytes, bytes.len(), 5), Frame::Cut);
        assert_eq!(frame_at(&bytes, 0, 6), Frame::Damaged, "another segment's");
        for length in 0..second {
            assert_eq!(frame_at(&bytes[..length], 0, 5), Frame::Cut, "{length}");
        }
        for at in 0..second {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            let frame = frame_at(&damaged, 0, 5);
            assert!(!matches!(frame, Frame::Record(..)), "{at}: {frame:?}");
            assert_eq!(next_mark(&damaged, 0), second, "{at}");
        }
    }
}
