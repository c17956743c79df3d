//! Up to where in the journal the collector has everything, kept through a restart and a power cut.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::atomic_file;
use crate::logging::journal::Position;

/// The file, in the journal's directory.
const NAME: &str = "uplink.cursor";
/// How often it is written at most; a flash chip wears out. What it lags behind is sent twice.
const INTERVAL: Duration = Duration::from_secs(10);
/// The largest file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 256;

/// The file and what is in it.
pub(super) struct Cursor {
    path: PathBuf,
    stored: Option<Position>,
    next: Instant,
    /// Whether the log knows that it cannot be written.
    told: bool,
}

impl Cursor {
    /// Reads the cursor in `directory`. Without one the journal is sent from its oldest record.
    pub(super) fn load(directory: &Path) -> Self {
        let path = directory.join(NAME);
        let stored = match read(&path) {
            Ok(position) => Some(position),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                log::warn!(
                    "{}: {error}; the journal is sent from its oldest record",
                    path.display()
                );
                None
            }
        };
        Self {
            path,
            stored,
            next: Instant::now(),
            told: false,
        }
    }

    pub(super) const fn stored(&self) -> Option<Position> {
        self.stored
    }

    /// Stores `confirmed`, unless that was done lately.
    pub(super) fn store_in_time(&mut self, confirmed: Option<Position>, now: Instant) {
        if now >= self.next && confirmed != self.stored {
            self.next = now + INTERVAL;
            self.store(confirmed);
        }
    }

    /// Stores `confirmed` if it is new. A storage that takes no files costs duplicates, not records.
    pub(super) fn store(&mut self, confirmed: Option<Position>) {
        let Some(position) = confirmed.filter(|_| confirmed != self.stored) else {
            return;
        };
        let text = serde_json::to_vec(&position).unwrap_or_default(); // two numbers
        match atomic_file::write(&self.path, &text, 0o600) {
            Ok(()) => {
                self.stored = confirmed;
                self.told = false;
            }
            Err(error) if !self.told => {
                self.told = true;
                log::warn!(
                    "{}: cannot be written: {error}; after a restart the collector gets records again",
                    self.path.display()
                );
            }
            Err(_) => {}
        }
    }
}

fn read(path: &Path) -> io::Result<Position> {
    let mut text = Vec::new();
    File::open(path)?
        .take(MAX_FILE_BYTES)
        .read_to_end(&mut text)?;
    serde_json::from_slice(&text).map_err(|_| io::Error::other("is no cursor"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    const POSITION: Position = Position {
        segment: 7,
        offset: 1234,
    };

    fn directory(name: &str) -> PathBuf {
        let path =
            std::env::temp_dir().join(format!("edgeweb-cursor-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn what_is_stored_is_read_and_nothing_is_written_too_often() {
        let directory = directory("stored");
        let mut cursor = Cursor::load(&directory);
        assert_eq!(cursor.stored(), None);
        let now = Instant::now();
        cursor.store_in_time(Some(POSITION), now);
        assert_eq!(Cursor::load(&directory).stored(), Some(POSITION));
        let mode = fs::metadata(directory.join(NAME))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        let later = Position {
            offset: 5000,
            ..POSITION
        };
        cursor.store_in_time(Some(later), now + INTERVAL / 2);
        assert_eq!(Cursor::load(&directory).stored(), Some(POSITION));
        cursor.store_in_time(Some(later), now + INTERVAL);
        assert_eq!(Cursor::load(&directory).stored(), Some(later));
        cursor.store(Some(POSITION));
        assert_eq!(Cursor::load(&directory).stored(), Some(POSITION));
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_file_that_is_no_cursor_means_from_the_oldest() {
        let directory = directory("wrong");
        for text in ["", "{", "{\"segment\":-1,\"offset\":0}", &"9".repeat(1000)] {
            fs::write(directory.join(NAME), text).unwrap();
            assert_eq!(Cursor::load(&directory).stored(), None, "{text}");
        }
        fs::remove_dir_all(directory).unwrap();
    }
}
