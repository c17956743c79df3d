//! Files that matter are whole or not there at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, fchown};
use std::path::Path;

/// Puts `content` at `path` with `mode`: temporary file beside it, fsync, rename, fsync of the directory.
///
/// # Errors
/// What the system said; the old file, if there was one, is then untouched and no temporary one stays.
pub(crate) fn write(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    write_for(path, content, mode, None)
}

/// As [`write`], for another user and group than the caller's, which takes root.
///
/// # Errors
/// As [`write`].
pub(crate) fn write_for(
    path: &Path,
    content: &[u8],
    mode: u32,
    owner: Option<(u32, u32)>,
) -> io::Result<()> {
    let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let temporary = directory.join(format!(
        ".{}.{}.tmp",
        name.to_string_lossy(),
        std::process::id()
    ));
    let written = (|| {
        // Left by a power cut, or a link that the directory's owner put there for root to follow.
        let _ = fs::remove_file(&temporary);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&temporary)?;
        if let Some((user, group)) = owner {
            fchown(&file, Some(user), Some(group))?;
        }
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(directory)?.sync_all()
    })();
    if written.is_err() {
        // The first error is the one to report; that the file to remove is not there is none.
        let _ = fs::remove_file(&temporary);
    }
    written
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn what_is_in_the_way_is_neither_followed_nor_kept() {
        let name = format!("edgeweb-atomic-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir(&directory).unwrap();
        let of_others = directory.join("others");
        fs::write(&of_others, "theirs").unwrap();
        let path = directory.join("ours");
        let temporary = format!(".ours.{}.tmp", std::process::id());
        symlink(&of_others, directory.join(temporary)).unwrap();
        write(&path, b"ours", 0o600).unwrap();
        assert_eq!(fs::read(&of_others).unwrap(), b"theirs");
        let metadata = fs::symlink_metadata(&path).unwrap();
        assert!(metadata.is_file());
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read(&path).unwrap(), b"ours");
        fs::remove_dir_all(&directory).unwrap();
    }
}
