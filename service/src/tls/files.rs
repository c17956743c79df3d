//! Files of certificates and keys: read within bounds, and looked at again when they change.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use zeroize::Zeroizing;

/// What only the service may read or enter.
const GROUP_AND_OTHERS: u32 = 0o077;

/// The content of `path`, or `None` where there is no such file. It is overwritten when it is dropped.
///
/// # Errors
/// What the system said, or that it is no file or larger than `limit` bytes.
pub(super) fn read(path: &Path, limit: usize) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    match open(path) {
        Ok(file) => read_open(file, limit).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// As [`read`], for a file with a private key of the service's own: who else may read it, may not any more.
pub(super) fn read_secret(path: &Path, limit: usize) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    let file = match open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mode = file.metadata()?.mode() & 0o7777;
    if mode & GROUP_AND_OTHERS != 0 {
        match file.set_permissions(Permissions::from_mode(0o600)) {
            Ok(()) => log::warn!(
                "{}: mode {mode:04o} let others read the private key; it is 0600 now. \
                 If somebody may have copied it, replace it",
                path.display()
            ),
            Err(error) => log::error!(
                "{}: mode {mode:04o} lets others read the private key, and cannot be changed: {error}",
                path.display()
            ),
        }
    }
    read_open(file, limit).map(Some)
}

/// A pipe that somebody put there is not waited for.
fn open(path: &Path) -> io::Result<File> {
    #[allow(clippy::cast_possible_wrap)] // a flag, whose type is another in each place
    let nonblock = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    OpenOptions::new()
        .read(true)
        .custom_flags(nonblock)
        .open(path)
}

fn read_open(file: File, limit: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let too_large = || {
        io::Error::other(format!(
            "it is larger than {limit} bytes; is it the right file?"
        ))
    };
    let length = usize::try_from(metadata.len()).map_err(|_| too_large())?;
    if length > limit {
        return Err(too_large());
    }
    // One byte of room more than the file has: what is read does not move, and leaves no copies behind.
    let mut content = Zeroizing::new(Vec::with_capacity(length + 1));
    file.take(limit as u64 + 1).read_to_end(&mut content)?;
    if content.len() > limit {
        return Err(too_large());
    }
    Ok(content)
}

/// Makes the directory of the device's own keys, 0700, or makes it so.
pub(super) fn make_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    let mode = fs::metadata(path)?.mode() & 0o7777;
    if mode & GROUP_AND_OTHERS != 0 {
        fs::set_permissions(path, Permissions::from_mode(0o700))?;
        log::warn!(
            "{}: mode {mode:04o} let others in; it is 0700 now",
            path.display()
        );
    }
    Ok(())
}

/// Removes a file, which may not be there.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// What changes when a file is written or replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        Some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

/// What became of watched files since they were last looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Nothing.
    Same,
    /// Something, and perhaps it goes on: a certificate comes before its key.
    Changed,
    /// Nothing any more after a change that was not taken up.
    Settled,
}

/// Files that others put there and replace.
#[derive(Debug, Default)]
pub(super) struct Watched {
    stamps: Vec<Option<Stamp>>,
    pending: bool,
}

impl Watched {
    pub(super) fn look(&mut self, paths: &[impl AsRef<Path>]) -> Look {
        let stamps: Vec<_> = paths.iter().map(|path| Stamp::of(path.as_ref())).collect();
        if stamps != self.stamps {
            self.stamps = stamps;
            self.pending = true;
            Look::Changed
        } else if std::mem::take(&mut self.pending) {
            Look::Settled
        } else {
            Look::Same
        }
    }

    /// What changed was taken up: it need not settle.
    pub(super) fn taken_up(&mut self) {
        self.pending = false;
    }
}
