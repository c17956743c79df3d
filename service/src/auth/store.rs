//! The file that keeps users and tokens: `auth.json` in the state directory, 0600.
//!
//! Its first line is `edgeweb-auth 1 crc32c=XXXXXXXX`, the checksum being that of the version and of all that
//! follows. Before each change the good file becomes `auth.json.previous`, which takes its place when it is
//! damaged or gone. Who changes it, service or command, holds `auth.lock` while reading and writing.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crc::{CRC_32_ISCSI, Crc};
use rustix::fs::OFlags;

use super::state::State;
use super::{AuthError, now};
use crate::atomic_file;

const FILE: &str = "auth.json";
const PREVIOUS: &str = "auth.json.previous";
const BAD: &str = "auth.json.bad";
const PREVIOUS_BAD: &str = "auth.json.previous.bad";
const LOCK: &str = "auth.lock";
/// What the first line begins with.
const MAGIC: &str = "edgeweb-auth ";
/// The version that is written.
const VERSION: u32 = 1;
/// From an older version to the next one, in order: what is said of the one is made to say it in the other.
const MIGRATIONS: [fn(&mut serde_json::Map<String, serde_json::Value>); VERSION as usize] =
    [from_0];
const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);
/// The largest file that is read, in bytes. Its bounds allow a fifth of that.
const MAX_FILE: u64 = 512 * 1024;
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o750;
/// How long another program may take to make its change, and how often one looks.
const LOCK_LIMIT: Duration = Duration::from_secs(5);
const LOCK_POLL: Duration = Duration::from_millis(20);

/// Version 0 had neither API tokens nor log-outs that outlive a restart. No release wrote it.
fn from_0(members: &mut serde_json::Map<String, serde_json::Value>) {
    for name in ["tokens", "revoked"] {
        members
            .entry(name)
            .or_insert_with(|| serde_json::Value::Array(Vec::new()));
    }
}

/// Tells whoever is in charge, the log or a person, what was found and mended.
pub(super) type Report = fn(log::Level, &str);

/// The directory in which everything is.
pub(super) struct Store {
    directory: PathBuf,
    report: Report,
}

/// By what a changed file is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stamp {
    /// Not that of any file.
    None,
    Absent,
    Unreadable(io::ErrorKind),
    Present {
        inode: (u64, u64),
        size: u64,
        modified: (i64, i64),
        changed: (i64, i64),
    },
}

/// What is there.
#[derive(Debug)]
pub(super) enum Found {
    /// Neither the file nor a previous one.
    Nothing,
    /// A good file.
    Good(State),
    /// The previous file is good, the newest one is not; the reason.
    Previous(State, String),
    /// Neither is good; the reason.
    Bad(String),
}

/// What one file holds.
enum Content {
    Absent,
    Good(State),
    Damaged(String),
}

/// What to do where no good file is left.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum WhenLost {
    /// Nothing: it stays closed.
    Refuse,
    /// Begin anew; what is there is kept under another name.
    StartAnew,
}

impl Store {
    pub(super) fn new(directory: &Path, report: Report) -> Self {
        Self {
            directory: directory.to_owned(),
            report,
        }
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn file(&self) -> PathBuf {
        self.directory.join(FILE)
    }

    /// Costs one system call.
    pub(super) fn stamp(&self) -> Stamp {
        match fs::symlink_metadata(self.file()) {
            Ok(metadata) => Stamp::Present {
                inode: (metadata.dev(), metadata.ino()),
                size: metadata.size(),
                modified: (metadata.mtime(), metadata.mtime_nsec()),
                changed: (metadata.ctime(), metadata.ctime_nsec()),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Stamp::Absent,
            Err(error) => Stamp::Unreadable(error.kind()),
        }
    }

    /// Reads what is there. Changes nothing but loose permissions.
    ///
    /// # Errors
    /// [`AuthError::File`] when a file cannot be read, or is of a newer version: that is not the same as absent.
    pub(super) fn read(&self) -> Result<Found, AuthError> {
        let lost = match self.read_file(FILE)? {
            Content::Good(state) => return Ok(Found::Good(state)),
            Content::Absent => None,
            Content::Damaged(reason) => Some(reason),
        };
        let previous = self.read_file(PREVIOUS)?;
        let reason = lost.clone().unwrap_or_else(|| String::from("it is gone"));
        Ok(match (lost, previous) {
            (None, Content::Absent) => Found::Nothing,
            (_, Content::Good(state)) => Found::Previous(state, reason),
            (_, Content::Absent) => Found::Bad(format!("{reason}; there is no {PREVIOUS}")),
            (_, Content::Damaged(other)) => Found::Bad(format!("{reason}; {PREVIOUS}: {other}")),
        })
    }

    fn read_file(&self, name: &str) -> Result<Content, AuthError> {
        let path = self.directory.join(name);
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
            .open(&path);
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Content::Absent),
            Err(error) => return Err(file_error(&path, &format!("cannot be read: {error}"))),
        };
        let mut bytes = Vec::new();
        file.metadata()
            .and_then(|metadata| {
                if metadata.is_file() {
                    Ok(metadata)
                } else {
                    Err(io::Error::other("it is no file"))
                }
            })
            .and_then(|metadata| self.tighten(&file, &metadata, &path))
            .and_then(|()| (&file).take(MAX_FILE + 1).read_to_end(&mut bytes))
            .map_err(|error| file_error(&path, &format!("cannot be read: {error}")))?;
        decode(&bytes).map_err(|reason| file_error(&path, &reason))
    }

    /// Takes away from others what they may do with the file.
    fn tighten(&self, file: &File, metadata: &fs::Metadata, path: &Path) -> io::Result<()> {
        let directory = fs::metadata(&self.directory)?;
        let mut what = Vec::new();
        let owners = [directory.uid(), rustix::process::geteuid().as_raw()];
        if !owners.contains(&metadata.uid()) {
            fchown(file, Some(directory.uid()), Some(directory.gid())).map_err(|error| {
                let owner = metadata.uid();
                io::Error::other(format!(
                    "it belongs to user {owner}, who could have written it, and cannot be taken over: {error}"
                ))
            })?;
            what.push(format!("belonged to user {}", metadata.uid()));
        }
        if metadata.mode() & 0o077 != 0 {
            file.set_permissions(fs::Permissions::from_mode(FILE_MODE))?;
            what.push(format!("had mode {:04o}", metadata.mode() & 0o7777));
        }
        if !what.is_empty() {
            (self.report)(
                log::Level::Warn,
                &format!(
                    "{}: {}; it is {FILE_MODE:04o} again. Who could read it can make tokens: look at the users, \
                     and run edgeweb user rotate-key --now",
                    path.display(),
                    what.join(" and ")
                ),
            );
        }
        Ok(())
    }

    /// Reads, changes and writes under the lock. An error of `change` leaves everything as it is, but for
    /// damage, which is mended first. Returns what `change` did, what is kept
    /// now, and by what that is known.
    ///
    /// # Errors
    /// Those of `change`, and [`AuthError::File`] with what the system said.
    pub(super) fn change<T>(
        &self,
        when_lost: WhenLost,
        change: impl FnOnce(&mut State) -> Result<T, AuthError>,
    ) -> Result<(T, State, Stamp), AuthError> {
        self.make_directory()?;
        let _lock = self.lock()?;
        let (mut state, good) = match self.read()? {
            Found::Good(state) => (state, true),
            Found::Nothing => (State::default(), false),
            Found::Previous(state, reason) => (self.recover(state, &reason)?, true),
            Found::Bad(reason) if when_lost == WhenLost::Refuse => {
                return Err(file_error(&self.file(), &reason));
            }
            Found::Bad(reason) => {
                self.begin_anew(&reason)?;
                (State::default(), false)
            }
        };
        let before = state.clone();
        let result = change(&mut state)?;
        state.tidy(now())?;
        state
            .check()
            .map_err(|reason| file_error(&self.file(), reason))?;
        if !good || state != before {
            self.write(&state, good)?;
        }
        Ok((result, state, self.stamp()))
    }

    /// Puts the previous file in the place of the newest. What was ended since must not come back to life.
    fn recover(&self, mut state: State, reason: &str) -> Result<State, AuthError> {
        self.keep_as(FILE, BAD)?;
        state.end_all_tokens()?;
        state.tidy(now())?;
        self.write(&state, false)?;
        (self.report)(
            log::Level::Error,
            &format!(
                "{}: {reason}; the previous file is in force, and all tokens have ended. The last change to users \
                 may be missing; the damaged file, if there was one, is {BAD}",
                self.file().display()
            ),
        );
        Ok(state)
    }

    fn begin_anew(&self, reason: &str) -> Result<(), AuthError> {
        self.keep_as(FILE, BAD)?;
        self.keep_as(PREVIOUS, PREVIOUS_BAD)?;
        (self.report)(
            log::Level::Error,
            &format!(
                "{}: {reason}; begun anew without users, the damaged files are {BAD} and {PREVIOUS_BAD}",
                self.file().display()
            ),
        );
        Ok(())
    }

    /// Keeps a file under another name as well. It stays where it is until it is replaced: a power cut in
    /// between must not look like a first start.
    fn keep_as(&self, name: &str, other: &str) -> Result<(), AuthError> {
        let path = self.directory.join(name);
        match link_over(&path, &self.directory.join(other), self.owner()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(file_error(&path, &format!("cannot be kept: {error}")))
            }
            _ => Ok(()),
        }
    }

    /// Writes `state`; a `good` file becomes the previous one before.
    fn write(&self, state: &State, good: bool) -> Result<(), AuthError> {
        let path = self.file();
        let previous = self.directory.join(PREVIOUS);
        let owner = self.owner();
        let content = encode(state);
        let written = (|| {
            if good {
                link_over(&path, &previous, owner)?;
            }
            atomic_file::write_for(&path, &content, FILE_MODE, owner)?;
            if !good {
                // From the first change on there are two.
                atomic_file::write_for(&previous, &content, FILE_MODE, owner)?;
            }
            Ok::<_, io::Error>(())
        })();
        written.map_err(|error| file_error(&path, &format!("cannot be written: {error}")))
    }

    /// Whose the files shall be: root writes them for whoever the directory belongs to.
    fn owner(&self) -> Option<(u32, u32)> {
        let root = rustix::process::geteuid().is_root();
        let directory = root.then(|| fs::metadata(&self.directory).ok())??;
        Some((directory.uid(), directory.gid()))
    }

    fn make_directory(&self) -> Result<(), AuthError> {
        let made = DirBuilder::new()
            .recursive(true)
            .mode(DIRECTORY_MODE)
            .create(&self.directory);
        made.map_err(|error| {
            let reason = format!("cannot be made: {error}; make it, or set server.state_dir");
            file_error(&self.directory, &reason)
        })
    }

    fn lock(&self) -> Result<File, AuthError> {
        let path = self.directory.join(LOCK);
        let failed = |error: &io::Error| file_error(&path, &format!("cannot be locked: {error}"));
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(FILE_MODE)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(&path)
            .map_err(|error| failed(&error))?;
        if let Some((user, group)) = self.owner() {
            // SECURITY: whose directory it is may have put another name of somebody else's file here.
            let links = file.metadata().map_err(|error| failed(&error))?.nlink();
            if links > 1 {
                return Err(failed(&io::Error::other("it has another name; remove it")));
            }
            fchown(&file, Some(user), Some(group)).map_err(|error| failed(&error))?;
        }
        let end = Instant::now() + LOCK_LIMIT;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::Error(error)) => return Err(failed(&error)),
                Err(TryLockError::WouldBlock) if Instant::now() >= end => {
                    let seconds = LOCK_LIMIT.as_secs();
                    let reason = format!("another program has held it for {seconds} s; try again");
                    return Err(file_error(&path, &reason));
                }
                Err(TryLockError::WouldBlock) => thread::sleep(LOCK_POLL),
            }
        }
    }
}

fn file_error(path: &Path, reason: &str) -> AuthError {
    AuthError::File {
        path: path.to_owned(),
        reason: String::from(reason),
    }
}

/// Makes `to` the same file as `from`, in place of what is there; a copy where there are no hard links.
fn link_over(from: &Path, to: &Path, owner: Option<(u32, u32)>) -> io::Result<()> {
    let temporary = to.with_extension("tmp");
    let _ = fs::remove_file(&temporary); // left by a power cut
    if fs::hard_link(from, &temporary).is_ok() {
        return fs::rename(&temporary, to);
    }
    let mut content = Vec::new();
    // SECURITY: no link is followed, by which root would copy what is somebody else's.
    OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(from)?
        .take(MAX_FILE + 1)
        .read_to_end(&mut content)?;
    atomic_file::write_for(to, &content, FILE_MODE, owner)
}

fn checksum(version: u32, body: &[u8]) -> u32 {
    let mut digest = CRC.digest();
    digest.update(format!("{MAGIC}{version}\n").as_bytes());
    digest.update(body);
    digest.finalize()
}

fn encode(state: &State) -> Vec<u8> {
    // Plain members always serialise.
    let body = serde_json::to_vec_pretty(state).unwrap_or_default();
    let sum = checksum(VERSION, &body);
    let mut content = format!("{MAGIC}{VERSION} crc32c={sum:08x}\n").into_bytes();
    content.extend_from_slice(&body);
    content
}

/// What a file says. An error is a file that is whole, but not for this version.
fn decode(bytes: &[u8]) -> Result<Content, String> {
    if bytes.len() as u64 > MAX_FILE {
        return Ok(damaged("it is larger than 512 KiB"));
    }
    let Some((version, body)) = read_head(bytes) else {
        return Ok(damaged("it is truncated or damaged"));
    };
    if version > VERSION {
        return Err(format!(
            "is of version {version}, and this edgeweb knows {VERSION}; run the newer one again"
        ));
    }
    // What serde says may show what it found; the file is full of secrets.
    let Ok(mut members) = serde_json::from_slice::<serde_json::Map<_, _>>(body) else {
        return Ok(damaged("it is not JSON"));
    };
    for migrate in &MIGRATIONS[version as usize..] {
        migrate(&mut members);
    }
    let state = serde_json::from_value::<State>(serde_json::Value::Object(members));
    Ok(match state {
        Err(_) => damaged("its members are not those of its version"),
        Ok(state) => match state.check() {
            Err(reason) => damaged(reason),
            Ok(()) => Content::Good(state),
        },
    })
}

fn damaged(reason: &str) -> Content {
    Content::Damaged(String::from(reason))
}

/// The version and what follows the first line, if the checksum is right.
fn read_head(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let (head, body) = (&bytes[..end], &bytes[end + 1..]);
    let head = std::str::from_utf8(head).ok()?.strip_prefix(MAGIC)?;
    let (version, sum) = head.split_once(" crc32c=")?;
    let version = version.parse().ok()?;
    let sum = u32::from_str_radix(sum, 16).ok()?;
    (checksum(version, body) == sum).then_some((version, body))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::auth::Role;

    const HASH: &str = "$argon2id$v=19$m=7168,t=5,p=1$c2FsdHNhbHRzYWx0c2FsdA$aGFzaGhhc2hoYXNoaGFzaGhhc2hoYXNoaGFzaGhhc2g";

    /// A directory that is gone with the test.
    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Self {
            let name = format!("edgeweb-store-{name}-{}", std::process::id());
            let path = std::env::temp_dir().join(name);
            let _ = fs::remove_dir_all(&path);
            Self(path)
        }

        fn store(&self) -> Store {
            Store::new(&self.0, |_, _| ())
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(&self.0).unwrap();
            let mut names: Vec<_> = entries
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        }

        fn read(&self, name: &str) -> Vec<u8> {
            fs::read(self.0.join(name)).unwrap()
        }

        fn write(&self, name: &str, content: impl AsRef<[u8]>) {
            fs::write(self.0.join(name), content).unwrap();
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn add(store: &Store, name: &str) -> Result<State, AuthError> {
        let change = |state: &mut State| state.add_user(name, Role::Admin, String::from(HASH), 1);
        store
            .change(WhenLost::Refuse, change)
            .map(|(_, state, _)| state)
    }

    fn names(found: &State) -> Vec<&str> {
        found.users.iter().map(|user| &*user.name).collect()
    }

    #[test]
    fn what_is_kept_is_read_again_and_its_predecessor_too() {
        let dir = Dir::new("kept");
        let store = dir.store();
        assert!(matches!(store.read(), Ok(Found::Nothing)));
        assert_eq!(store.stamp(), Stamp::Absent);
        let first = add(&store, "ann").unwrap();
        let stamp = store.stamp();
        let second = add(&store, "bob").unwrap();
        assert_ne!(store.stamp(), stamp);
        assert!(matches!(store.read(), Ok(Found::Good(found)) if found == second));
        assert_eq!(dir.names(), [FILE, PREVIOUS, LOCK]);
        assert!(matches!(store.read_file(PREVIOUS), Ok(Content::Good(found)) if found == first));
        for name in [FILE, PREVIOUS, LOCK] {
            let mode = fs::metadata(dir.0.join(name)).unwrap().mode();
            assert_eq!(mode & 0o7777, FILE_MODE, "{name}");
        }
        assert_eq!(
            fs::metadata(&dir.0).unwrap().mode() & 0o7777,
            DIRECTORY_MODE
        );
        // Nothing changed, nothing written.
        let stamp = store.stamp();
        store.change(WhenLost::Refuse, |_| Ok(())).unwrap();
        assert_eq!(store.stamp(), stamp);
        assert!(matches!(add(&store, "ann"), Err(AuthError::Exists)));
        assert_eq!(store.stamp(), stamp);
    }

    #[test]
    fn wherever_the_file_is_cut_or_changed_the_previous_one_is_in_force() {
        let dir = Dir::new("cut");
        let store = dir.store();
        add(&store, "ann").unwrap();
        add(&store, "bob").unwrap();
        let good = dir.read(FILE);
        let is_lost = |what: &str| match store.read() {
            Ok(Found::Previous(state, _)) => assert_eq!(names(&state), ["ann"], "{what}"),
            other => panic!("{what}: {other:?}"),
        };
        for at in 0..good.len() {
            dir.write(FILE, &good[..at]);
            is_lost(&format!("cut at {at}"));
            let mut other = good.clone();
            other[at] ^= 1;
            dir.write(FILE, &other);
            is_lost(&format!("changed at {at}"));
        }
        dir.write(FILE, [&good[..], b" "].concat());
        is_lost("longer");
        fs::remove_file(dir.0.join(FILE)).unwrap();
        is_lost("gone");
        dir.write(FILE, &good);
        assert!(matches!(store.read(), Ok(Found::Good(_))));
    }

    #[test]
    fn a_damaged_file_is_mended_by_the_next_change_and_no_token_comes_back() {
        static SAID: Mutex<Vec<String>> = Mutex::new(Vec::new());
        let dir = Dir::new("mended");
        let store = Store::new(&dir.0, |_, line| {
            SAID.lock().unwrap().push(String::from(line))
        });
        let first = add(&store, "ann").unwrap();
        add(&store, "bob").unwrap();
        dir.write(FILE, b"edgeweb-auth");
        let mended = add(&store, "cat").unwrap();
        assert_eq!(names(&mended), ["ann", "cat"]);
        assert_ne!(mended.keys[0].kid, first.keys[0].kid);
        assert_eq!(mended.keys.len(), 1);
        assert_eq!(mended.device, first.device);
        assert_eq!(dir.read(BAD), b"edgeweb-auth");
        assert!(SAID.lock().unwrap()[0].contains("the previous file is in force"));
        assert!(matches!(store.read(), Ok(Found::Good(found)) if found == mended));
        // From then on there are two good ones again.
        fs::remove_file(store.file()).unwrap();
        assert!(matches!(store.read(), Ok(Found::Previous(..))));
    }

    #[test]
    fn the_first_change_leaves_two_files_as_well() {
        let dir = Dir::new("first");
        let store = dir.store();
        add(&store, "ann").unwrap();
        dir.write(FILE, b"");
        assert!(matches!(store.read(), Ok(Found::Previous(state, _)) if names(&state) == ["ann"]));
    }

    #[test]
    fn without_a_good_file_nothing_is_changed_unless_somebody_begins_anew() {
        let dir = Dir::new("lost");
        let store = dir.store();
        add(&store, "ann").unwrap();
        dir.write(FILE, b"1");
        dir.write(PREVIOUS, b"2");
        assert!(matches!(store.read(), Ok(Found::Bad(_))));
        assert!(matches!(add(&store, "eve"), Err(AuthError::File { .. })));
        assert_eq!(
            (dir.read(FILE), dir.read(PREVIOUS)),
            (vec![b'1'], vec![b'2'])
        );
        fs::remove_file(dir.0.join(PREVIOUS)).unwrap();
        assert!(matches!(store.read(), Ok(Found::Bad(_))));
        dir.write(PREVIOUS, b"2");
        // A change that is refused leaves the damaged files where they are.
        let refused = store.change(WhenLost::StartAnew, |_| Err::<(), _>(AuthError::Name));
        assert!(refused.is_err());
        assert!(matches!(store.read(), Ok(Found::Bad(_))));
        let change = |state: &mut State| state.add_user("ann", Role::Admin, String::from(HASH), 1);
        store.change(WhenLost::StartAnew, change).unwrap();
        assert!(matches!(store.read(), Ok(Found::Good(_))));
        assert_eq!(
            (dir.read(BAD), dir.read(PREVIOUS_BAD)),
            (vec![b'1'], vec![b'2'])
        );
    }

    fn with_head(version: u32, body: &[u8]) -> Vec<u8> {
        let sum = checksum(version, body);
        let mut content = format!("{MAGIC}{version} crc32c={sum:08x}\n").into_bytes();
        content.extend_from_slice(body);
        content
    }

    fn body(content: &[u8]) -> &[u8] {
        read_head(content).unwrap().1
    }

    #[test]
    fn a_newer_version_is_left_alone_and_an_older_one_is_read() {
        let dir = Dir::new("version");
        let store = dir.store();
        add(&store, "ann").unwrap();
        let good = dir.read(FILE);
        let newer = with_head(2, body(&good));
        dir.write(FILE, &newer);
        let error = store.read().unwrap_err().to_string();
        assert!(error.contains("is of version 2"), "{error}");
        let change = |state: &mut State| state.add_user("eve", Role::Admin, String::from(HASH), 1);
        assert!(store.change(WhenLost::StartAnew, change).is_err());
        assert_eq!(dir.read(FILE), newer);

        let mut members: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(body(&good)).unwrap();
        members.remove("tokens");
        members.remove("revoked");
        let older = serde_json::to_vec(&members).unwrap();
        dir.write(FILE, with_head(1, &older));
        assert!(
            matches!(store.read(), Ok(Found::Previous(..))),
            "not of version 1"
        );
        dir.write(FILE, with_head(0, &older));
        assert!(matches!(store.read(), Ok(Found::Good(state)) if names(&state) == ["ann"]));
        add(&store, "bob").unwrap();
        assert!(dir.read(FILE).starts_with(b"edgeweb-auth 1 "));
        assert!(dir.read(PREVIOUS).starts_with(b"edgeweb-auth 0 "));
    }

    #[test]
    fn what_is_whole_but_wrong_is_damaged() {
        let dir = Dir::new("wrong");
        let store = dir.store();
        add(&store, "ann").unwrap();
        add(&store, "bob").unwrap();
        let good = String::from_utf8(body(&dir.read(FILE)).to_vec()).unwrap();
        for (from, to) in [
            ("\"ann\"", "\"Ann\""),
            ("\"ann\"", "\"bob\""),
            ("\"admin\"", "\"root\""),
            ("\"admin\"", "\"guest\""),
            ("argon2id", "argon2i"),
            ("m=7168", "m=99999999"),
            ("\"users\"", "\"user\""),
            ("\"generation\": ", "\"generation\": -"),
            ("\"secret\": \"", "\"secret\": \"AAAA"),
            ("\"keys\"", "\"more\": 1, \"keys\""),
        ] {
            assert!(good.contains(from), "{from}");
            dir.write(FILE, with_head(1, good.replacen(from, to, 1).as_bytes()));
            assert!(
                matches!(store.read(), Ok(Found::Previous(..))),
                "{from} {to}"
            );
        }
        dir.write(FILE, with_head(1, "[".repeat(100_000).as_bytes()));
        assert!(matches!(store.read(), Ok(Found::Previous(..))));
        dir.write(FILE, vec![b'x'; MAX_FILE as usize + 1]);
        assert!(matches!(store.read(), Ok(Found::Previous(..))));
    }

    #[test]
    fn what_cannot_be_read_is_not_absent() {
        let dir = Dir::new("unreadable");
        let store = dir.store();
        add(&store, "ann").unwrap();
        let other = dir.0.join("other");
        for (what, make) in [
            (
                "a link",
                (|path, other| std::os::unix::fs::symlink(other, path)) as fn(&Path, &Path) -> _,
            ),
            ("a directory", |path, _| fs::create_dir(path)),
            ("a socket", |path, _| {
                std::os::unix::net::UnixListener::bind(path).map(drop)
            }),
        ] {
            fs::rename(store.file(), &other).unwrap();
            make(&store.file(), &other).unwrap();
            let read = store.read();
            assert!(
                matches!(read, Err(AuthError::File { .. })),
                "{what}: {read:?}"
            );
            assert!(add(&store, "eve").is_err(), "{what}");
            let _ = fs::remove_file(store.file()).or_else(|_| fs::remove_dir(store.file()));
            fs::rename(&other, store.file()).unwrap();
        }
        assert!(matches!(store.read(), Ok(Found::Good(_))));
    }

    #[test]
    fn loose_permissions_are_tightened_and_told() {
        static SAID: Mutex<Vec<String>> = Mutex::new(Vec::new());
        let dir = Dir::new("loose");
        let store = Store::new(&dir.0, |_, line| {
            SAID.lock().unwrap().push(String::from(line))
        });
        add(&store, "ann").unwrap();
        fs::set_permissions(store.file(), fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(store.read(), Ok(Found::Good(_))));
        assert_eq!(
            fs::metadata(store.file()).unwrap().mode() & 0o7777,
            FILE_MODE
        );
        let said = SAID.lock().unwrap();
        assert_eq!(said.len(), 1);
        assert!(said[0].contains("had mode 0644"), "{said:?}");
    }

    #[test]
    fn changes_at_the_same_time_are_all_there() {
        let dir = Dir::new("together");
        let threads: Vec<_> = (0..8)
            .map(|n| {
                let store = dir.store();
                thread::spawn(move || add(&store, &format!("u{n}")).map(drop))
            })
            .collect();
        for thread in threads {
            thread.join().unwrap().unwrap();
        }
        assert!(matches!(dir.store().read(), Ok(Found::Good(state)) if state.users.len() == 8));
        assert_eq!(
            dir.names(),
            [FILE, PREVIOUS, LOCK],
            "no temporary file stays"
        );
    }
}
