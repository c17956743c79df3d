//! Asking for records: the newest in memory, those of a boot in the journal, and those to come.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::entry::{Entry, UNKNOWN_PID};
use super::escape;
use super::journal::{self, Copies, Reader};
use super::origin::Origin;
use super::recent::Follower;
use super::seal::Identity;
use super::severity::Severity;

/// The most records that one question is answered with.
pub const MAX_LIMIT: usize = 1000;

/// Which records are wanted.
#[derive(Clone, Debug)]
pub struct Query {
    /// This severity and what is worse.
    pub severity: Severity,
    /// Only of this target or what is below it, as `edgeweb::server` is below `edgeweb`; empty: of all.
    pub target: String,
    /// Only from this time on, in ns since 1970.
    pub since_ns: Option<i64>,
    /// The newest so many, at most [`MAX_LIMIT`].
    pub limit: usize,
}

impl Default for Query {
    fn default() -> Self {
        Self {
            severity: Severity::Debug,
            target: String::new(),
            since_ns: None,
            limit: 100,
        }
    }
}

impl Query {
    /// Whether `entry` is wanted.
    #[must_use]
    pub fn wants(&self, entry: &Entry<'_>) -> bool {
        let below = || {
            entry
                .target
                .strip_prefix(&self.target)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        };
        entry.severity <= self.severity
            && self.since_ns.is_none_or(|since| entry.wall_ns >= since)
            && (self.target.is_empty() || below())
    }
}

/// Reads a time as RFC 3339 writes it, in ns since 1970.
///
/// # Errors
/// A sentence that shows how it is written.
pub fn parse_time(text: &str) -> Result<i64, String> {
    OffsetDateTime::parse(text, &Rfc3339)
        .map(|time| {
            let ns = time.unix_timestamp_nanos();
            // Beyond 1677 and 2262, where there are no records.
            i64::try_from(ns).unwrap_or(if ns < 0 { i64::MIN } else { i64::MAX })
        })
        .map_err(|_| format!("{text:?} is no time as in 2026-11-23T07:00:00Z (RFC 3339)"))
}

/// A record as people and programs outside of the process see it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct LogLine {
    /// Names the record among all: which start of the program, and its number in it.
    pub id: String,
    /// Which start of the device it belongs to, as the kernel names it.
    pub boot: String,
    /// Wall time, RFC 3339, UTC.
    pub time: String,
    /// Seconds since the device was started.
    pub uptime: f64,
    /// How bad it is.
    pub severity: Severity,
    /// The module that said it, or another program's tag.
    pub target: String,
    /// The other program's process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// What it said.
    pub message: String,
    /// Its key-values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<String, String>,
}

impl LogLine {
    /// Escaped again: a journal from elsewhere may hold anything.
    fn new(entry: &Entry<'_>, origin: Origin) -> Self {
        Self {
            id: format!("{}-{}", origin.run, entry.seq),
            boot: origin.boot.to_string(),
            time: time_text(entry.wall_ns),
            uptime: (entry.monotonic_ns / 1000) as f64 / 1e6,
            severity: entry.severity,
            target: escape::line(entry.target),
            pid: (entry.pid != 0 && entry.pid != UNKNOWN_PID).then_some(entry.pid),
            message: escape::line(entry.message),
            fields: entry
                .fields()
                .map(|(key, value)| (escape::line(key), escape::line(value)))
                .collect(),
        }
    }
}

/// With microseconds; the edge of the calendar for what is beyond it.
fn time_text(wall_ns: i64) -> String {
    let whole = i128::from(wall_ns / 1000 * 1000);
    OffsetDateTime::from_unix_timestamp_nanos(whole)
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_default()
}

/// Why there is no answer. Each text is one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// There is no logger of this crate in the process.
    #[error("this program has another logger; its records are not here")]
    NoLog,
    /// The journal has no record of that boot.
    #[error("the journal has no boot {number}; it has records of {boots} boots")]
    NoSuchBoot {
        /// What was asked for.
        number: i32,
        /// How many there are.
        boots: usize,
    },
    /// The records are sealed.
    #[error(
        "the journal is sealed: only who has the identity reads it, with edgeweb logs decrypt --identity FILE {}",
        .0.display()
    )]
    Sealed(PathBuf),
    /// The identity does not fit.
    #[error("{}: the identity does not open these records", .0.display())]
    WrongIdentity(PathBuf),
    /// The journal is turned off.
    #[error("the journal is turned off: log.journal.enabled")]
    NoJournal,
    /// The journal cannot be read.
    #[error("{}: the journal cannot be read: {error}", path.display())]
    Unreadable {
        /// Its directory.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

/// The newest records in memory, the oldest of them first.
///
/// # Errors
/// [`QueryError::NoLog`].
pub fn recent(query: &Query) -> Result<Vec<LogLine>, QueryError> {
    let path = super::path().ok_or(QueryError::NoLog)?;
    let mut lines = Newest::new(query.limit);
    path.recent.each(|entry| {
        if query.wants(entry) {
            lines.push(LogLine::new(entry, path.origin));
        }
    });
    Ok(lines.0.into())
}

/// What the running process's journal has of a boot: 0 is this one, -1 the one before. Reads files.
///
/// # Errors
/// [`QueryError`].
pub fn boot(number: i32, query: &Query) -> Result<Vec<LogLine>, QueryError> {
    let path = super::path().ok_or(QueryError::NoLog)?;
    let config = path
        .journal
        .read()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    if !config.enabled {
        return Err(QueryError::NoJournal);
    }
    boot_in(&config.directory, number, query)
}

/// What the journal in `directory` has of a boot, whether a process writes it or not.
///
/// # Errors
/// [`QueryError`].
pub fn boot_in(directory: &Path, number: i32, query: &Query) -> Result<Vec<LogLine>, QueryError> {
    let unreadable = |error| QueryError::Unreadable {
        path: directory.to_owned(),
        error,
    };
    let boots = match journal::boots(directory) {
        // Nothing was ever written.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        boots => boots.map_err(unreadable)?,
    };
    let origin = Origin::of_this_process();
    let Some(boot) = journal::numbered_boot(&boots, number, origin) else {
        if number == 0 {
            return Ok(Vec::new());
        }
        return Err(QueryError::NoSuchBoot {
            number,
            boots: boots.len(),
        });
    };
    if boot.sealed {
        return Err(QueryError::Sealed(directory.to_owned()));
    }
    let mut lines = Newest::new(query.limit);
    let mut copies = Copies::default();
    let from = journal::Position {
        segment: boot.first,
        offset: 0,
    };
    let mut reader = Reader::open(directory, Some(from));
    while let Some(found) = reader.next().map_err(unreadable)? {
        if found.at.segment > boot.last {
            break;
        }
        let origin = found.header.origin;
        if let Some(entry) = Entry::decode(found.record)
            && query.wants(&entry)
            && !copies.is_copy(origin.run, found.record)
        {
            lines.push(LogLine::new(&entry, origin));
        }
    }
    Ok(lines.0.into())
}

/// What [`decrypt`] found.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Decrypted {
    /// Records that were shown.
    pub records: u64,
    /// Records that the identity does not open, and places that hold none but should.
    pub damaged: u64,
}

/// Shows every record of the journal in `directory`: the sealed ones with `identity`.
///
/// # Errors
/// [`QueryError`], and what `show` says.
pub fn decrypt(
    directory: &Path,
    identity: &Identity,
    query: &Query,
    mut show: impl FnMut(&LogLine) -> io::Result<()>,
) -> Result<Decrypted, QueryError> {
    let unreadable = |error| QueryError::Unreadable {
        path: directory.to_owned(),
        error,
    };
    let mut reader = Reader::open(directory, None);
    let mut copies = Copies::default();
    let mut done = Decrypted::default();
    let mut refused = 0;
    let mut opener = None;
    while let Some(found) = reader.next().map_err(unreadable)? {
        let opened = match &found.header.key {
            None => None,
            Some(key) => {
                if opener.as_ref().is_none_or(|(known, _)| known != key) {
                    opener = Some((*key, identity.opener(key)));
                }
                let opened = opener
                    .as_ref()
                    .and_then(|(_, opener)| opener.as_ref()?.open(found.at.offset, found.record));
                if opened.is_none() {
                    refused += 1;
                    continue;
                }
                opened
            }
        };
        let record = opened.as_deref().unwrap_or(found.record);
        let origin = found.header.origin;
        if let Some(entry) = Entry::decode(record)
            && query.wants(&entry)
            && !copies.is_copy(origin.run, record)
        {
            show(&LogLine::new(&entry, origin)).map_err(unreadable)?;
            done.records += 1;
        }
    }
    if refused > 0 && done.records == 0 {
        return Err(QueryError::WrongIdentity(directory.to_owned()));
    }
    done.damaged = refused + reader.damaged();
    Ok(done)
}

/// The last so many lines.
struct Newest(VecDeque<LogLine>, usize);

impl Newest {
    fn new(limit: usize) -> Self {
        Self(VecDeque::new(), limit.min(MAX_LIMIT))
    }

    fn push(&mut self, line: LogLine) {
        if self.1 == 0 {
            return;
        }
        if self.0.len() == self.1 {
            self.0.pop_front();
        }
        self.0.push_back(line);
    }
}

/// One who reads the log as it is written.
pub(crate) struct Live {
    follower: Follower,
    query: Query,
    origin: Origin,
}

/// Why nobody can read along.
#[derive(Debug)]
pub(crate) enum NoPlace {
    /// There is no logger of this crate.
    NoLog,
    /// As many as may read along already do.
    Taken,
}

/// The reader was slower than the log; what it missed is gone.
#[derive(Debug)]
pub(crate) struct TooSlow;

impl Live {
    /// Begins after the record of that id, or with what comes next when there is none. After an id of
    /// another start of the program, everything that is in memory is new.
    pub(crate) fn begin(query: Query, last_id: Option<&str>) -> Result<Self, NoPlace> {
        let path = super::path().ok_or(NoPlace::NoLog)?;
        let origin = path.origin;
        let after = match last_id {
            None => path.recent.newest(),
            Some(id) => id
                .split_once('-')
                .filter(|(of, _)| of.parse() == Ok(origin.run))
                .and_then(|(_, seq)| seq.parse().ok())
                .unwrap_or(0),
        };
        let follower = path.recent.follow(after).ok_or(NoPlace::Taken)?;
        Ok(Self {
            follower,
            query,
            origin,
        })
    }

    /// Whether records after the one to begin with are no longer there.
    pub(crate) fn has_missed(&self) -> bool {
        self.follower.has_missed()
    }

    /// Shows what is new, until `show` says that it is enough for now.
    pub(crate) fn read(&mut self, mut show: impl FnMut(&LogLine) -> bool) -> Result<(), TooSlow> {
        let (query, origin) = (&self.query, self.origin);
        self.follower
            .read(|entry| !query.wants(entry) || show(&LogLine::new(entry, origin)))
            .map_err(|_| TooSlow)
    }

    /// Waits until there is something new.
    pub(crate) async fn wait(&mut self) {
        self.follower.wait().await;
    }
}
