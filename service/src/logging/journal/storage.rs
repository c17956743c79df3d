//! Where segments are kept: files in a directory, or what a test puts in their place.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

/// The ending of a segment's file; before it stands its number, 16 hexadecimal digits.
const ENDING: &str = ".seg";
/// Held by the process that writes.
const LOCK: &str = "lock";

/// A segment that is being written.
pub(super) trait SegmentFile: Send {
    /// Appends all of `bytes`.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Returns when everything appended is on the storage.
    fn sync(&mut self) -> io::Result<()>;
}

/// A place for segments.
pub(super) trait Storage: Send {
    /// Makes the place ready for one writer, this one.
    fn open(&mut self) -> io::Result<()>;
    /// The segments there are, by number, with their lengths in bytes; the oldest first.
    fn list(&self) -> io::Result<Vec<(u64, u64)>>;
    /// The whole content of a segment.
    fn read(&self, number: u64) -> io::Result<Vec<u8>>;
    /// A new segment, whose name is on the storage when this returns.
    fn create(&mut self, number: u64) -> io::Result<Box<dyn SegmentFile>>;
    /// Cuts a segment's end off.
    fn truncate(&mut self, number: u64, length: u64) -> io::Result<()>;
    /// Removes a segment.
    fn remove(&mut self, number: u64) -> io::Result<()>;
}

/// Files in a directory.
pub(super) struct Directory {
    path: PathBuf,
    lock: Option<File>,
}

impl Directory {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            lock: None,
        }
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    /// Whether the lock in the directory is the one that is held: the directory may have been removed since.
    fn has_lock(&self) -> io::Result<bool> {
        let Some(lock) = &self.lock else {
            return Ok(false);
        };
        let held = lock.metadata()?;
        match fs::metadata(self.path.join(LOCK)) {
            Ok(there) => Ok((there.dev(), there.ino()) == (held.dev(), held.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// The file of a segment in `directory`.
pub(super) fn segment_path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:016x}{ENDING}"))
}

/// The segments in `directory`, the oldest first; what is no segment is passed over.
pub(super) fn list(directory: &Path) -> io::Result<Vec<(u64, u64)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name
            .to_str()
            .and_then(|name| name.strip_suffix(ENDING))
            .filter(|digits| digits.len() == 16)
            .and_then(|digits| u64::from_str_radix(digits, 16).ok())
            // No journal counts that far, and there is always a next one.
            .filter(|number| *number <= u64::MAX / 2);
        if let Some(number) = number {
            // Removed by the writer since it was listed: it is not there.
            match entry.metadata() {
                Ok(metadata) => found.push((number, metadata.len())),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Whether the storage cannot give back what a segment holds, while it may well take others.
pub(super) fn is_unreadable(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::IO | Errno::ISDIR | Errno::BADMSG | Errno::UCLEAN)
    )
}

impl Storage for Directory {
    fn open(&mut self) -> io::Result<()> {
        let missing = self.path.ancestors().take_while(|path| !path.exists());
        let missing = missing.count();
        DirBuilder::new()
            .recursive(true)
            .mode(0o750)
            .create(&self.path)?;
        // A new directory outlives a power cut when the one above it is on the storage.
        for above in self.path.ancestors().skip(1).take(missing) {
            File::open(above)?.sync_all()?;
        }
        if !self.has_lock()? {
            let lock = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .mode(0o600)
                .open(self.path.join(LOCK))?;
            lock.try_lock().map_err(|error| match error {
                fs::TryLockError::WouldBlock => io::Error::new(
                    io::ErrorKind::ResourceBusy,
                    "another process writes this journal",
                ),
                fs::TryLockError::Error(error) => error,
            })?;
            self.lock = Some(lock);
        }
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<(u64, u64)>> {
        list(&self.path)
    }

    fn read(&self, number: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(segment_path(&self.path, number))?
            .take(2 * super::MAX_SEGMENT)
            .read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn create(&mut self, number: u64) -> io::Result<Box<dyn SegmentFile>> {
        let file = OpenOptions::new()
            .create_new(true)
            .append(true)
            .mode(0o640)
            .open(segment_path(&self.path, number))?;
        self.sync()?;
        Ok(Box::new(file))
    }

    fn truncate(&mut self, number: u64, length: u64) -> io::Result<()> {
        let file = OpenOptions::new()
            .write(true)
            .open(segment_path(&self.path, number))?;
        file.set_len(length)?;
        file.sync_all()
    }

    fn remove(&mut self, number: u64) -> io::Result<()> {
        fs::remove_file(segment_path(&self.path, number))
    }
}

impl SegmentFile for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()?;
        // What is in it then goes with the last one who has it open.
        if self.metadata()?.nlink() == 0 {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                "the segment was removed",
            ));
        }
        Ok(())
    }
}
