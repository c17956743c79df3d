//! Pages on the device's own storage, served by actix-files; no path leaves the directory.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use actix_files::NamedFile;
use actix_web::HttpRequest;
use actix_web::http::header;
use actix_web::web::block;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;

use super::{Found, cache_control, with_index};

/// Does not wait for the other end of a pipe, which somebody may have put there.
const OPEN: OFlags = OFlags::RDONLY
    .union(OFlags::CLOEXEC)
    .union(OFlags::NONBLOCK);

enum Opened {
    File(File),
    Directory,
}

pub(super) async fn find(root: &Path, request: &HttpRequest, path: &str) -> Found {
    let name = with_index(path);
    let root: PathBuf = root.to_owned();
    let relative = name.clone();
    // A cancelled task only happens when the service stops.
    let opened = match block(move || open_beneath(&root, &relative)).await {
        Ok(Ok(opened)) => opened,
        Ok(Err(error)) => {
            if error.kind() != io::ErrorKind::NotFound {
                log::debug!("overlay: {name}: {error}");
            }
            return Found::Nothing;
        }
        Err(_) => return Found::Nothing,
    };
    match opened {
        Opened::Directory => Found::Directory,
        Opened::File(file) => match NamedFile::from_file(file, &name) {
            Ok(file) => {
                let mut response = file
                    .disable_content_disposition()
                    .prefer_utf8(true)
                    .into_response(request);
                response.headers_mut().insert(
                    header::CACHE_CONTROL,
                    header::HeaderValue::from_static(cache_control(&name)),
                );
                Found::Answer(response)
            }
            Err(_) => Found::Nothing,
        },
    }
}

/// Opens a regular file under `root`.
///
/// SECURITY: the kernel resolves the path with `RESOLVE_BENEATH` (Linux 5.6), so that neither `..` nor
/// a symbolic link leaves the directory, not even one that is swapped in at the same moment. An older
/// kernel gets a walk that follows no link at all.
fn open_beneath(root: &Path, relative: &str) -> io::Result<Opened> {
    let directory = openat(
        CWD,
        root,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let flags = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let file = match openat2(&directory, relative, OPEN, Mode::empty(), flags) {
        // A sandbox that does not know the call answers EPERM.
        Err(Errno::NOSYS | Errno::PERM) => open_without_links(root, relative)?,
        file => file?,
    };
    regular(File::from(file))
}

/// For kernels before 5.6: one segment after the other, none of them a symbolic link.
fn open_without_links(root: &Path, relative: &str) -> io::Result<std::os::fd::OwnedFd> {
    let mut current = openat(
        CWD,
        root,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let mut segments = relative.split('/').peekable();
    while let Some(segment) = segments.next() {
        if segment.is_empty() || segment == "." || segment == ".." {
            return Err(io::ErrorKind::NotFound.into());
        }
        let flags = if segments.peek().is_some() {
            OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
        } else {
            OPEN | OFlags::NOFOLLOW
        };
        current = openat(&current, segment, flags, Mode::empty())?;
    }
    Ok(current)
}

fn regular(file: File) -> io::Result<Opened> {
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        Ok(Opened::Directory)
    } else if metadata.is_file() {
        Ok(Opened::File(file))
    } else {
        Err(io::Error::other("is no regular file"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The walk for old kernels, which no test of the binary reaches on a new one.
    #[test]
    fn without_openat2_no_link_is_followed() {
        let root = std::env::temp_dir().join(format!("edgeweb-links-{}", std::process::id()));
        std::fs::create_dir_all(root.join("sub")).unwrap();
        std::fs::write(root.join("sub/page.html"), "page").unwrap();
        std::os::unix::fs::symlink("/etc", root.join("etc")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", root.join("passwd")).unwrap();
        assert!(open_without_links(&root, "sub/page.html").is_ok());
        for path in [
            "passwd",
            "etc/passwd",
            "../x",
            "sub/../sub/page.html",
            "sub//page.html",
            "",
        ] {
            assert!(open_without_links(&root, path).is_err(), "{path}");
        }
        std::fs::remove_dir_all(&root).unwrap();
    }
}
