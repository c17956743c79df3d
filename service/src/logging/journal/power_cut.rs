//! The journal on storage that fails as flash and file systems do: torn writes, failed syncs, power cuts.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use super::storage::{Directory, SegmentFile, Storage, list, segment_path};
use super::{Copies, Journal, Reader};
use crate::config::JournalConfig;
use crate::logging::counters::Counters;
use crate::logging::entry::{Encoder, Entry, Times, set_seq};
use crate::logging::origin::{BootId, Origin, RunId};
use crate::logging::seal::{Identity, Recipient};
use crate::logging::severity::Severity;

/// Random numbers that are the same in every run (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % limit
    }
}

#[derive(Default)]
struct Faults {
    /// The next write stops in the middle and fails.
    tear: bool,
    /// The next sync fails, and what was written since the last one is lost at the next cut.
    fail_sync: bool,
    /// No new segment can be made.
    full: bool,
    /// How much of each segment is known to be on the storage.
    synced: BTreeMap<u64, u64>,
}

/// A directory with faults in front of it.
struct Faulty {
    inner: Directory,
    faults: Arc<Mutex<Faults>>,
}

struct FaultyFile {
    number: u64,
    length: u64,
    inner: Box<dyn SegmentFile>,
    faults: Arc<Mutex<Faults>>,
}

impl Storage for Faulty {
    fn open(&mut self) -> io::Result<()> {
        self.inner.open()
    }

    fn list(&self) -> io::Result<Vec<(u64, u64)>> {
        self.inner.list()
    }

    fn read(&self, number: u64) -> io::Result<Vec<u8>> {
        self.inner.read(number)
    }

    fn create(&mut self, number: u64) -> io::Result<Box<dyn SegmentFile>> {
        if self.faults.lock().unwrap().full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(Box::new(FaultyFile {
            number,
            length: 0,
            inner: self.inner.create(number)?,
            faults: Arc::clone(&self.faults),
        }))
    }

    fn truncate(&mut self, number: u64, length: u64) -> io::Result<()> {
        self.faults.lock().unwrap().synced.insert(number, length);
        self.inner.truncate(number, length)
    }

    fn remove(&mut self, number: u64) -> io::Result<()> {
        self.inner.remove(number)
    }
}

impl SegmentFile for FaultyFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if std::mem::take(&mut self.faults.lock().unwrap().tear) {
            self.inner.append(&bytes[..bytes.len() / 2])?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.length += bytes.len() as u64;
        self.inner.append(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut faults = self.faults.lock().unwrap();
        if std::mem::take(&mut faults.fail_sync) {
            return Err(io::Error::other("input/output error"));
        }
        faults.synced.insert(self.number, self.length);
        self.inner.sync()
    }
}

struct Device {
    directory: PathBuf,
    faults: Arc<Mutex<Faults>>,
    counters: Arc<Counters>,
    runs: u64,
    recipient: Option<Recipient>,
}

impl Device {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let directory = std::env::temp_dir().join(format!(
            "edgeweb-journal-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        ));
        Self {
            directory,
            faults: Arc::default(),
            counters: Arc::default(),
            runs: 0,
            recipient: None,
        }
    }

    /// A start of the device.
    fn start(&mut self, max_bytes: u64) -> Journal {
        self.runs += 1;
        let config = JournalConfig {
            directory: self.directory.clone(),
            max_bytes,
            sync_seconds: 3600,
            ..JournalConfig::default()
        };
        let storage = Faulty {
            inner: Directory::new(&self.directory),
            faults: Arc::clone(&self.faults),
        };
        let origin = Origin {
            boot: BootId([self.runs as u8; 16]),
            run: RunId(self.runs),
        };
        let recipient = self.recipient.clone();
        Journal::open_in(
            Box::new(storage),
            &config,
            recipient,
            origin,
            &self.counters,
        )
    }

    /// The power fails: of what was not synced some is there, some is something else, and the rest is not.
    fn cut(&mut self, random: &mut Random) {
        let mut faults = self.faults.lock().unwrap();
        for (number, length) in list(&self.directory).unwrap() {
            let synced = faults.synced.get(&number).copied().unwrap_or(0);
            assert!(synced <= length, "what was synced is there");
            let path = segment_path(&self.directory, number);
            let mut bytes = fs::read(&path).unwrap();
            let unsynced = length - synced;
            bytes.truncate((synced + random.below(unsynced + 1)) as usize);
            for byte in &mut bytes[synced as usize..] {
                match random.below(40) {
                    0 => *byte = 0,
                    1 => *byte = random.below(256) as u8,
                    _ => {}
                }
            }
            fs::write(&path, bytes).unwrap();
        }
        *faults = Faults {
            synced: list(&self.directory).unwrap().into_iter().collect(),
            ..Faults::default()
        };
    }

    fn read(&self) -> (Vec<(u64, u64)>, u64) {
        read(&self.directory, None)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Run and number of every record, each checked to be what was written, and how many places are damaged.
fn read(directory: &Path, identity: Option<&Identity>) -> (Vec<(u64, u64)>, u64) {
    let mut reader = Reader::open(directory, None);
    let mut copies = Copies::default();
    let mut found = Vec::new();
    while let Some(record) = reader.next().unwrap() {
        let run = record.header.origin.run;
        let opened = identity.map(|identity| {
            let key = record.header.key.unwrap();
            let opened = identity
                .opener(&key)
                .and_then(|opener| opener.open(record.at.offset, record.record));
            opened.unwrap()
        });
        let bytes = opened.as_deref().unwrap_or(record.record);
        let entry = Entry::decode(bytes).unwrap();
        assert_eq!(entry.message, message(run.0, entry.seq));
        if !copies.is_copy(run, bytes) {
            found.push((run.0, entry.seq));
        }
    }
    (found, reader.damaged())
}

fn message(run: u64, number: u64) -> String {
    let padding = "x".repeat((number * 37 % 400) as usize);
    format!("record {number} of run {run} {padding}")
}

fn append(journal: &mut Journal, encoder: &mut Encoder, run: u64, number: u64) {
    let times = Times {
        wall_ns: 0,
        monotonic_ns: 0,
    };
    encoder.begin(times, 0, Severity::Error, "test");
    encoder.message(format_args!("{}", message(run, number)));
    set_seq(encoder.bytes_mut(), number);
    journal.append(encoder.bytes());
}

#[test]
fn after_every_power_cut_what_was_acknowledged_is_there_and_nothing_is_garbled() {
    let mut random = Random(0x5EED);
    let mut encoder = Encoder::new();
    let (mut cuts_with_loss, mut cuts_with_failure) = (0, 0);
    for _ in 0..12 {
        let mut device = Device::new();
        let mut acknowledged = Vec::new();
        for _ in 0..5 {
            let mut journal = device.start(64 * 1024 * 1024);
            let run = device.runs;
            let mut waiting = Vec::new();
            for number in 1..=random.below(400) {
                {
                    let mut faults = device.faults.lock().unwrap();
                    faults.tear |= random.below(50) == 0;
                    faults.fail_sync |= random.below(50) == 0;
                }
                append(&mut journal, &mut encoder, run, number);
                waiting.push((run, number));
                let critical = random.below(4) == 0;
                journal.retry_now();
                if journal.commit(critical) {
                    acknowledged.append(&mut waiting);
                }
            }
            // What is written when a process ends by itself is not written when the power fails.
            journal.lose_power();
            cuts_with_failure += u32::from(device.counters.journal.errors.get() > 0);
            device.cut(&mut random);
            let mut again = device.start(64 * 1024 * 1024);
            assert!(again.is_working());
            append(&mut again, &mut encoder, device.runs, 1);
            assert!(again.commit(true));
            acknowledged.push((device.runs, 1));
            drop(again);
            let (found, _) = device.read();
            for record in &acknowledged {
                assert!(found.contains(record), "{record:?}");
            }
            let mut once = found.clone();
            once.dedup();
            assert_eq!(once, found, "each is there once");
            cuts_with_loss += u32::from(waiting.iter().any(|record| !found.contains(record)));
        }
    }
    assert!(cuts_with_loss > 10, "the cuts tear something");
    assert!(cuts_with_failure > 30, "the faults happen");
}

#[test]
fn a_damaged_record_in_the_middle_is_skipped_and_counted() {
    let mut device = Device::new();
    let mut encoder = Encoder::new();
    let mut journal = device.start(1024 * 1024);
    (1..=20).for_each(|number| append(&mut journal, &mut encoder, 1, number));
    assert!(journal.commit(true));
    drop(journal);
    let path = segment_path(&device.directory, 1);
    let whole = fs::read(&path).unwrap();
    let all = device.read().0;
    assert_eq!(all.len(), 20);
    for at in (super::segment::HEADER..whole.len()).step_by(13) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x55;
        fs::write(&path, &damaged).unwrap();
        let (found, places) = device.read();
        assert_eq!(found.len(), 19, "{at}");
        assert!(found.iter().all(|record| all.contains(record)));
        // The last one may as well be one that is still being written.
        assert!(places == 1 || found.last() != all.last(), "{at}");
        assert!(places == 1 || found.len() == 19, "{at}");
    }
    fs::write(&path, &whole).unwrap();
    let mut damaged = whole;
    damaged[super::segment::HEADER + 20] ^= 1;
    let end = damaged.len();
    damaged.extend_from_slice(&[0xF5, b'r', b'e', 0xC1, 9]);
    fs::write(&path, &damaged).unwrap();
    drop(device.start(1024 * 1024));
    assert_eq!(device.counters.journal.damaged.get(), 1);
    assert_eq!(device.counters.journal.torn_bytes.get(), 5);
    assert_eq!(fs::metadata(&path).unwrap().len(), end as u64);
}

#[test]
fn a_damaged_length_hides_nothing_behind_it() {
    let mut device = Device::new();
    let mut encoder = Encoder::new();
    let mut journal = device.start(1024 * 1024);
    (1..=20).for_each(|number| append(&mut journal, &mut encoder, 1, number));
    assert!(journal.commit(true));
    drop(journal);
    let path = segment_path(&device.directory, 1);
    let mut bytes = fs::read(&path).unwrap();
    let last = (0..bytes.len())
        .rev()
        .find(|at| bytes[*at..].starts_with(&[0xF5, b'r', b'e', 0xC1]))
        .unwrap();
    let before = (0..last)
        .rev()
        .find(|at| bytes[*at..].starts_with(&[0xF5, b'r', b'e', 0xC1]))
        .unwrap();
    // As long as a record may be: its end is behind the end of the file.
    bytes[before + 4..before + 6].copy_from_slice(&3000_u16.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    let (found, places) = device.read();
    assert_eq!((found.len(), places), (19, 1));
    assert_eq!(found.last(), Some(&(1, 20)));
}

#[test]
fn the_size_is_bounded_and_the_oldest_go_first() {
    let mut device = Device::new();
    let mut encoder = Encoder::new();
    let limit = 256 * 1024;
    let mut journal = device.start(limit);
    for number in 1..=5000 {
        append(&mut journal, &mut encoder, 1, number);
        journal.commit(number % 10 == 0);
        if number % 100 == 0 {
            let stored: u64 = list(&device.directory)
                .unwrap()
                .iter()
                .map(|(_, length)| length.div_ceil(4096) * 4096)
                .sum();
            assert!(stored <= limit, "{stored}");
            assert_eq!(device.counters.journal.bytes.get(), stored);
        }
    }
    drop(journal);
    let (found, _) = device.read();
    assert_eq!(found.last(), Some(&(1, 5000)));
    let first = found[0].1;
    assert!(first > 1 && found.len() > 500);
    assert!(found.iter().map(|(_, number)| *number).eq(first..=5000));
    assert!(device.counters.journal.segments_dropped.get() > 0);
}

#[test]
fn full_storage_is_waited_for_in_memory_and_then_written() {
    let mut device = Device::new();
    let mut encoder = Encoder::new();
    device.faults.lock().unwrap().full = true;
    let mut journal = device.start(1024 * 1024);
    for number in 1..=1000 {
        append(&mut journal, &mut encoder, 1, number);
        assert!(!journal.commit(true));
    }
    assert!(!journal.is_working());
    device.faults.lock().unwrap().full = false;
    assert!(!journal.commit(true), "it is tried again after a pause");
    journal.retry_now();
    assert!(journal.commit(true));
    drop(journal);
    let (found, _) = device.read();
    let lost = device.counters.journal.lost.get();
    assert!(lost > 0 && found.len() as u64 + lost == 1000, "{lost}");
    assert_eq!(found.last(), Some(&(1, 1000)));
    assert_eq!(device.counters.journal.written.get(), found.len() as u64);
}

#[test]
fn one_journal_has_one_writer() {
    let mut device = Device::new();
    let first = device.start(1024 * 1024);
    assert!(first.is_working());
    let second = device.start(1024 * 1024);
    assert!(!second.is_working());
    drop(first);
}

#[cfg(feature = "seal")]
#[test]
fn sealed_records_are_read_with_the_identity_also_behind_a_damaged_one() {
    let (identity, recipient) = Identity::generate().unwrap();
    let mut device = Device::new();
    device.recipient = Some(recipient);
    let mut encoder = Encoder::new();
    let mut journal = device.start(128 * 1024);
    for number in 1..=300 {
        append(&mut journal, &mut encoder, 1, number);
    }
    assert!(journal.commit(true));
    drop(journal);
    let segments = list(&device.directory).unwrap();
    assert!(segments.len() > 2);
    for (number, _) in &segments {
        let bytes = fs::read(segment_path(&device.directory, *number)).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains("record") && !text.contains("xxxx"));
    }
    let all = read(&device.directory, Some(&identity)).0;
    let path = segment_path(&device.directory, segments[1].0);
    let mut bytes = fs::read(&path).unwrap();
    bytes[super::segment::HEADER + 30] ^= 1;
    fs::write(&path, bytes).unwrap();
    let (found, damaged) = read(&device.directory, Some(&identity));
    assert_eq!((found.len(), damaged), (all.len() - 1, 1));
}

#[test]
fn a_storage_that_fails_again_and_again_costs_neither_old_records_nor_room() {
    let mut device = Device::new();
    let mut encoder = Encoder::new();
    let mut journal = device.start(128 * 1024);
    append(&mut journal, &mut encoder, 1, 1);
    assert!(journal.commit(true));
    drop(journal);
    let mut journal = device.start(128 * 1024);
    for number in 1..=200 {
        let mut faults = device.faults.lock().unwrap();
        faults.tear = number % 2 == 0;
        faults.fail_sync = !faults.tear;
        drop(faults);
        append(&mut journal, &mut encoder, 2, number);
        journal.retry_now();
        assert!(!journal.commit(true), "{number}");
    }
    assert!(list(&device.directory).unwrap().len() <= 2);
    journal.retry_now();
    assert!(journal.commit(true));
    drop(journal);
    let (found, _) = device.read();
    assert_eq!(found[0], (1, 1));
    assert_eq!(found.last(), Some(&(2, 200)));
}

#[test]
fn a_record_that_made_room_is_not_said_to_be_on_the_storage() {
    let mut device = Device::new();
    let mut encoder = Encoder::new();
    device.faults.lock().unwrap().full = true;
    let mut journal = device.start(1024 * 1024);
    append(&mut journal, &mut encoder, 1, 1);
    assert!(!journal.commit(true));
    device.faults.lock().unwrap().full = false;
    // What comes at once is more than memory holds, and then the storage works again.
    (2..=1000).for_each(|number| append(&mut journal, &mut encoder, 1, number));
    journal.retry_now();
    assert!(!journal.commit(true));
    assert!(journal.is_working() && device.counters.journal.lost.get() > 0);
    append(&mut journal, &mut encoder, 1, 1001);
    assert!(journal.commit(true));
}

/// Segments of any content, and files that are called as segments are.
#[test]
fn whatever_is_in_the_directory_is_read_to_its_end_and_written_behind() {
    let mut random = Random(0xF00D);
    let mut encoder = Encoder::new();
    for round in 0..300 {
        let mut device = Device::new();
        let mut journal = device.start(1024 * 1024);
        (1..=20).for_each(|number| append(&mut journal, &mut encoder, 1, number));
        drop(journal);
        let whole = fs::read(segment_path(&device.directory, 1)).unwrap();
        let names = [0, 1, 2, 7, u64::MAX - 1, u64::MAX];
        for number in &names[..1 + random.below(6) as usize] {
            let mut bytes = whole.clone();
            bytes.truncate(random.below(bytes.len() as u64 + 1) as usize);
            for _ in 0..random.below(20) {
                if !bytes.is_empty() {
                    let at = random.below(bytes.len() as u64) as usize;
                    bytes[at] = random.below(256) as u8;
                }
            }
            let from = random.below(bytes.len() as u64 + 1) as usize;
            let again = bytes[from..].to_vec();
            bytes.extend_from_slice(&again);
            fs::write(segment_path(&device.directory, *number), bytes).unwrap();
        }
        let mut reader = Reader::open(&device.directory, None);
        while let Some(found) = reader.next().unwrap() {
            if let Some(entry) = Entry::decode(found.record) {
                assert!(entry.fields().count() <= 1024);
            }
        }
        super::boots(&device.directory).unwrap();
        let mut journal = device.start(1024 * 1024);
        append(&mut journal, &mut encoder, device.runs, 1);
        assert!(journal.commit(true), "{round}");
    }
}
