//! The records that outlive a crash and a power cut: append-only segments on non-volatile storage.

mod reader;
mod segment;
mod storage;
mod writer;

#[cfg(test)]
mod power_cut;

pub(super) use reader::{Copies, Position, Reader, boots, numbered_boot};
pub(super) use segment::KEY;
pub(super) use writer::Journal;

/// The longest segment, in bytes.
const MAX_SEGMENT: u64 = 1024 * 1024;
/// The shortest one: what goes when room is needed is one at a time.
const MIN_SEGMENT: u64 = 16 * 1024;
/// How many segments share what the journal may take.
const SEGMENTS: u64 = 8;
/// What a file system gives at least, in bytes: a file with one short record takes as much.
const BLOCK: u64 = 4096;
