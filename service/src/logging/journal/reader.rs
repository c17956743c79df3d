//! The side that reads: what is there, from the oldest on, also while it is being written.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::segment::{Frame, HEADER, Header, frame_at, next_mark};
use super::storage::{is_unreadable, list, segment_path};
use crate::logging::entry::seq_of;
use crate::logging::origin::{BootId, Origin, RunId};

/// How much is read at a time, in bytes.
const CHUNK: usize = 64 * 1024;
/// How many records back a second copy of one may be: what the writer keeps until it is on the storage.
const COPIES: usize = 2048;

/// A place between two records.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub(in crate::logging) struct Position {
    pub(in crate::logging) segment: u64,
    pub(in crate::logging) offset: u64,
}

/// A record and what its segment says of it.
#[derive(Debug)]
pub(in crate::logging) struct Found<'a> {
    /// Sealed where the header has a key.
    pub(in crate::logging) record: &'a [u8],
    pub(in crate::logging) header: Header,
    /// Where its frame begins.
    pub(in crate::logging) at: Position,
    /// Where the next one does.
    #[cfg_attr(not(feature = "uplink"), allow(dead_code))]
    pub(in crate::logging) next: Position,
}

/// Reads records one after the other, and goes on when more are written.
pub(in crate::logging) struct Reader {
    directory: PathBuf,
    position: Position,
    segment: Option<Segment>,
    /// Segments that were dropped before they were read.
    missed: u64,
    /// Places that hold no record but should.
    damaged: u64,
}

struct Segment {
    file: File,
    header: Header,
    /// What was read ahead, from `start` of the file on.
    bytes: Vec<u8>,
    start: u64,
    in_damage: bool,
}

impl Reader {
    /// Begins at `from`, or at the oldest record there is.
    pub(in crate::logging) fn open(directory: &Path, from: Option<Position>) -> Self {
        Self {
            directory: directory.to_owned(),
            position: from.unwrap_or_default(),
            segment: None,
            missed: 0,
            damaged: 0,
        }
    }

    /// How many segments were dropped before they were read.
    #[cfg(feature = "uplink")]
    pub(in crate::logging) fn missed(&self) -> u64 {
        self.missed
    }

    /// How many places held no record but should have.
    pub(in crate::logging) fn damaged(&self) -> u64 {
        self.damaged
    }

    /// The next record; `None` when there is none for now.
    pub(in crate::logging) fn next(&mut self) -> io::Result<Option<Found<'_>>> {
        let (range, header, at, next) = loop {
            let Some(segment) = &mut self.segment else {
                if self.open_next()? {
                    continue;
                }
                return Ok(None);
            };
            let number = self.position.segment;
            let at = (self.position.offset - segment.start) as usize;
            match frame_at(&segment.bytes, at, number) {
                Frame::Record(record, end) => {
                    segment.in_damage = false;
                    let range = end - record.len()..end;
                    let from = self.position;
                    self.position.offset = segment.start + end as u64;
                    break (range, segment.header, from, self.position);
                }
                Frame::Cut => {
                    match segment.read_more(self.position.offset) {
                        Ok(true) => continue,
                        Ok(false) => {}
                        Err(error) if is_unreadable(&error) => {
                            self.pass_over_segment(error)?;
                            continue;
                        }
                        Err(error) => return Err(error),
                    }
                    match self.newer()? {
                        Some(newer) => self.pass_over(newer),
                        // Frames are written one after the other: one behind this shows that it is damaged.
                        None if segment_goes_on(&self.segment, self.position) => self.skip_damage(),
                        // In the segment that is being written, the rest of the frame may still come.
                        None => return Ok(None),
                    }
                }
                Frame::Damaged => self.skip_damage(),
            }
        };
        let record = match &self.segment {
            Some(segment) => &segment.bytes[range],
            None => &[],
        };
        Ok(Some(Found {
            record,
            header,
            at,
            next,
        }))
    }

    /// Steps over the frame at which the segment seems to end: to the next mark, or to the next segment.
    fn pass_over(&mut self, newer: u64) {
        let left = match &self.segment {
            Some(segment) => segment.start + segment.bytes.len() as u64 - self.position.offset,
            None => 0,
        };
        if left > 0 {
            self.skip_damage();
        } else {
            self.segment = None;
            self.position = Position {
                segment: newer,
                offset: 0,
            };
        }
    }

    /// Goes on in the next segment when this one cannot be read to its end.
    fn pass_over_segment(&mut self, error: io::Error) -> io::Result<()> {
        let segment = self.newer()?.ok_or(error)?;
        self.damaged += 1;
        self.segment = None;
        self.position = Position { segment, offset: 0 };
        Ok(())
    }

    fn skip_damage(&mut self) {
        if let Some(segment) = &mut self.segment {
            if !segment.in_damage {
                segment.in_damage = true;
                self.damaged += 1;
            }
            let at = (self.position.offset - segment.start) as usize;
            self.position.offset = segment.start + next_mark(&segment.bytes, at) as u64;
        }
    }

    fn newer(&self) -> io::Result<Option<u64>> {
        let numbers = list(&self.directory)?;
        Ok(numbers
            .into_iter()
            .map(|(number, _)| number)
            .find(|number| *number > self.position.segment))
    }

    /// Opens the segment of the position, or the first one behind it. False when there is none.
    fn open_next(&mut self) -> io::Result<bool> {
        let numbers = list(&self.directory)?;
        let newest = numbers.last().map_or(0, |(number, _)| *number);
        if self.position.segment > newest + 1 {
            // Of another journal, which was here before: everything in this one is new.
            self.position = Position::default();
        }
        for (number, _) in numbers {
            if number < self.position.segment {
                continue;
            }
            if number > self.position.segment {
                if self.position.segment > 0 {
                    self.missed += number - self.position.segment;
                }
                self.position = Position {
                    segment: number,
                    offset: 0,
                };
            }
            let file = match File::open(segment_path(&self.directory, number)) {
                // Dropped by the writer since it was listed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                opened => opened?,
            };
            match read_header(&file)? {
                Some(header) => {
                    self.position.offset = self.position.offset.max(HEADER as u64);
                    self.segment = Some(Segment {
                        file,
                        header,
                        bytes: Vec::new(),
                        start: self.position.offset,
                        in_damage: false,
                    });
                    return Ok(true);
                }
                // Its header may still be on the way.
                None if number == newest => return Ok(false),
                None => {
                    self.damaged += 1;
                    self.position = Position {
                        segment: number + 1,
                        offset: 0,
                    };
                }
            }
        }
        Ok(false)
    }
}

/// Whether there is a whole frame behind the one at `position`.
fn segment_goes_on(segment: &Option<Segment>, position: Position) -> bool {
    let Some(segment) = segment else {
        return false;
    };
    let mut at = (position.offset - segment.start) as usize;
    while at < segment.bytes.len() {
        at = next_mark(&segment.bytes, at);
        if let Frame::Record(..) = frame_at(&segment.bytes, at, position.segment) {
            return true;
        }
    }
    false
}

impl Segment {
    /// Forgets what was read and adds what comes next. False when there is nothing more.
    fn read_more(&mut self, position: u64) -> io::Result<bool> {
        self.bytes.drain(..(position - self.start) as usize);
        self.start = position;
        let before = self.bytes.len();
        read_at_most(&self.file, &mut self.bytes, position + before as u64, CHUNK)?;
        Ok(self.bytes.len() > before)
    }
}

/// The header of a segment, if there is one that can be read.
fn read_header(file: &File) -> io::Result<Option<Header>> {
    let mut head = Vec::with_capacity(HEADER);
    match read_at_most(file, &mut head, 0, HEADER) {
        Err(error) if !is_unreadable(&error) => Err(error),
        _ => Ok(Header::decode(&head)),
    }
}

fn read_at_most(file: &File, bytes: &mut Vec<u8>, mut at: u64, most: usize) -> io::Result<()> {
    let end = bytes.len() + most;
    let mut filled = bytes.len();
    bytes.resize(end, 0);
    while filled < end {
        match file.read_at(&mut bytes[filled..], at) {
            Ok(0) => break,
            Ok(count) => {
                filled += count;
                at += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                bytes.truncate(filled);
                return Err(error);
            }
        }
    }
    bytes.truncate(filled);
    Ok(())
}

/// Tells the second copy of a record, which there is after a write that failed.
#[derive(Default)]
pub(in crate::logging) struct Copies {
    newest: Option<(RunId, u64)>,
    last: VecDeque<(RunId, u64)>,
}

impl Copies {
    /// Whether that record, by run and sequence number, has been seen among the last ones.
    pub(in crate::logging) fn is_copy(&mut self, run: RunId, record: &[u8]) -> bool {
        let name = (run, seq_of(record));
        // Only what does not come in order can be one.
        let in_order = self
            .newest
            .is_none_or(|newest| newest.0 != run || newest.1 < name.1);
        if in_order {
            self.newest = Some(name);
        } else if self.last.contains(&name) {
            return true;
        }
        if self.last.len() == COPIES {
            self.last.pop_front();
        }
        self.last.push_back(name);
        false
    }
}

/// A start of the device of which the journal has records.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::logging) struct Boot {
    pub(in crate::logging) id: BootId,
    /// Its first segment.
    pub(in crate::logging) first: u64,
    /// Its last one.
    pub(in crate::logging) last: u64,
    pub(in crate::logging) sealed: bool,
}

/// The boots in the journal, the oldest first.
pub(in crate::logging) fn boots(directory: &Path) -> io::Result<Vec<Boot>> {
    let mut found: Vec<Boot> = Vec::new();
    for (number, _) in list(directory)? {
        let file = match File::open(segment_path(directory, number)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            opened => opened?,
        };
        let Some(header) = read_header(&file)? else {
            continue;
        };
        let id = header.origin.boot;
        match found.last_mut() {
            Some(boot) if boot.id == id => {
                boot.last = number;
                boot.sealed |= header.key.is_some();
            }
            _ => found.push(Boot {
                id,
                first: number,
                last: number,
                sealed: header.key.is_some(),
            }),
        }
    }
    Ok(found)
}

/// The boot of that number: 0 is the one of now, -1 the one before it, and so on.
pub(in crate::logging) fn numbered_boot(boots: &[Boot], number: i32, now: Origin) -> Option<Boot> {
    let is_now = boots.last().is_some_and(|boot| boot.id == now.boot);
    let back = usize::try_from(-i64::from(number)).ok()?;
    match (back, is_now) {
        (0, false) => None,
        (back, true) => boots.iter().rev().nth(back).copied(),
        (back, false) => boots.iter().rev().nth(back - 1).copied(),
    }
}
