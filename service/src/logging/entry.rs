//! One record of the log, and the bytes that every buffer, ring and segment holds it as.
//!
//! Layout, little-endian: sequence number u64, wall time i64 (ns since 1970), monotonic time u64 (ns
//! since boot), process id u32, severity u8, length of target u8, length of fields u16; then target,
//! fields (length u8, key, length u8, value, again and again) and, to the end, the message.

use super::escape;
use super::severity::Severity;

/// The longest target, in bytes. Module paths are shorter.
pub(super) const MAX_TARGET: usize = 96;
/// The longest message, in bytes, before its end is cut off. Syslog daemons cut at 1024 to 8192.
pub(super) const MAX_MESSAGE: usize = 2048;
/// In place of the process id of another program that did not say it.
pub(super) const UNKNOWN_PID: u32 = u32::MAX;
/// The longest key and the longest value of a field, in bytes.
const MAX_FIELD: usize = 255;
/// All fields of a record together, in bytes; what does not fit is left out.
const MAX_FIELDS: usize = 1024;
/// Everything before the target.
const HEAD: usize = 32;
/// The longest encoded record, in bytes; a cut message ends in an ellipsis.
pub(super) const MAX_ENCODED: usize = HEAD + MAX_TARGET + MAX_FIELDS + MAX_MESSAGE + 8;

/// A record, as its bytes have it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Entry<'a> {
    /// Its number in this run of the program, from 1.
    pub seq: u64,
    /// Wall time in ns since 1970; a device without a clock may be wrong about it.
    pub wall_ns: i64,
    /// Time since the device was started, in ns.
    pub monotonic_ns: u64,
    /// The process that said it: 0 for this one, 4294967295 for one that is not known.
    pub pid: u32,
    /// How bad it is.
    pub severity: Severity,
    /// The module that said it, or another program's tag.
    pub target: &'a str,
    fields: &'a [u8],
    /// What it said: one line without control characters.
    pub message: &'a str,
}

impl<'a> Entry<'a> {
    /// The key-values of the record.
    pub fn fields(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let mut rest = self.fields;
        std::iter::from_fn(move || {
            let key = take_text(&mut rest)?;
            let value = take_text(&mut rest)?;
            Some((key, value))
        })
    }

    /// Another record of this process, at the same time.
    #[cfg(feature = "syslog")]
    pub(super) fn in_its_place<'b>(&self, severity: Severity, message: &'b str) -> Entry<'b> {
        Entry {
            seq: self.seq,
            wall_ns: self.wall_ns,
            monotonic_ns: self.monotonic_ns,
            pid: 0,
            severity,
            target: "edgeweb::logging",
            fields: &[],
            message,
        }
    }

    /// Reads what [`Encoder`] wrote; `None` when it was something else.
    pub(super) fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (head, rest) = bytes.split_first_chunk::<HEAD>()?;
        let target_length = usize::from(head[29]);
        let fields_length = usize::from(u16::from_le_bytes([head[30], head[31]]));
        let (target, rest) = rest.split_at_checked(target_length)?;
        let (fields, message) = rest.split_at_checked(fields_length)?;
        Some(Self {
            seq: u64::from_le_bytes(head[..8].try_into().ok()?),
            wall_ns: i64::from_le_bytes(head[8..16].try_into().ok()?),
            monotonic_ns: u64::from_le_bytes(head[16..24].try_into().ok()?),
            pid: u32::from_le_bytes(head[24..28].try_into().ok()?),
            severity: Severity::from_number(head[28])?,
            target: std::str::from_utf8(target).ok()?,
            fields,
            message: std::str::from_utf8(message).ok()?,
        })
    }
}

/// The severity of an encoded record, without reading the rest.
pub(super) fn severity_of(bytes: &[u8]) -> Severity {
    bytes
        .get(28)
        .and_then(|number| Severity::from_number(*number))
        .unwrap_or(Severity::Debug)
}

/// The sequence number of an encoded record, without reading the rest.
pub(super) fn seq_of(bytes: &[u8]) -> u64 {
    bytes
        .first_chunk()
        .map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

fn take_text<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let (length, after) = rest.split_first()?;
    let (text, after) = after.split_at_checked(usize::from(*length))?;
    *rest = after;
    std::str::from_utf8(text).ok()
}

/// Writes records into a buffer that is used again and again, so that a short one allocates nothing.
#[derive(Default)]
pub(super) struct Encoder {
    bytes: Vec<u8>,
}

/// When a record was made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) wall_ns: i64,
    pub(super) monotonic_ns: u64,
}

impl Encoder {
    pub(super) const fn new() -> Self {
        Self { bytes: Vec::new() }
    }

    /// Begins a record. Fields come next, then the message.
    pub(super) fn begin(&mut self, times: Times, pid: u32, severity: Severity, target: &str) {
        self.bytes.clear();
        self.bytes.extend_from_slice(&[0; 8]);
        self.bytes.extend_from_slice(&times.wall_ns.to_le_bytes());
        self.bytes
            .extend_from_slice(&times.monotonic_ns.to_le_bytes());
        self.bytes.extend_from_slice(&pid.to_le_bytes());
        // Target and fields say their lengths when they are there.
        self.bytes.extend_from_slice(&[severity as u8, 0, 0, 0]);
        escape::push(&mut self.bytes, target, MAX_TARGET);
        self.bytes[29] = (self.bytes.len() - HEAD) as u8;
    }

    /// Adds a field, if there is room for it.
    pub(super) fn field(&mut self, key: &str, value: std::fmt::Arguments<'_>) {
        let before = self.bytes.len();
        self.bytes.push(0);
        escape::push(&mut self.bytes, key, MAX_FIELD - 4);
        self.bytes[before] = (self.bytes.len() - before - 1) as u8;
        let value_at = self.bytes.len();
        self.bytes.push(0);
        escape::push_arguments(&mut self.bytes, value, MAX_FIELD - 4);
        self.bytes[value_at] = (self.bytes.len() - value_at - 1) as u8;
        let start = HEAD + usize::from(self.bytes[29]);
        let fields = self.bytes.len() - start;
        if fields > MAX_FIELDS {
            self.bytes.truncate(before);
        } else {
            self.bytes[30..32].copy_from_slice(&(fields as u16).to_le_bytes());
        }
    }

    /// Ends the record with its message, on one line and without control characters.
    pub(super) fn message(&mut self, message: std::fmt::Arguments<'_>) {
        escape::push_arguments(&mut self.bytes, message, MAX_MESSAGE);
    }

    /// The record, once it has a message.
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Gives an encoded record its sequence number.
pub(super) fn set_seq(bytes: &mut [u8], seq: u64) {
    if let Some(place) = bytes.first_chunk_mut() {
        *place = seq.to_le_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: Times = Times {
        wall_ns: -5,
        monotonic_ns: 7,
    };

    #[test]
    fn what_is_encoded_is_decoded() {
        let mut encoder = Encoder::new();
        for _ in 0..2 {
            encoder.begin(TIMES, 9, Severity::Critical, "pump::valve");
            encoder.field("pressure", format_args!("{}", 4.5));
            encoder.field("state", format_args!("shut\n"));
            encoder.message(format_args!("two\n{}", "lines"));
            set_seq(encoder.bytes_mut(), 77);
        }
        assert_eq!(seq_of(encoder.bytes()), 77);
        assert_eq!(severity_of(encoder.bytes()), Severity::Critical);
        let entry = Entry::decode(encoder.bytes()).unwrap();
        assert_eq!(
            (entry.seq, entry.wall_ns, entry.monotonic_ns, entry.pid),
            (77, -5, 7, 9)
        );
        assert_eq!(entry.target, "pump::valve");
        assert_eq!(entry.message, "two\\nlines");
        assert_eq!(
            entry.fields().collect::<Vec<_>>(),
            [("pressure", "4.5"), ("state", "shut\\n")]
        );
    }

    #[test]
    fn nothing_grows_beyond_its_bound() {
        let mut encoder = Encoder::new();
        let long = "ü\n".repeat(10_000);
        encoder.begin(TIMES, 0, Severity::Info, &long);
        for _ in 0..100 {
            encoder.field(&long, format_args!("{long}"));
        }
        encoder.message(format_args!("{long}{long}"));
        assert!(
            encoder.bytes().len() <= MAX_ENCODED,
            "{}",
            encoder.bytes().len()
        );
        let entry = Entry::decode(encoder.bytes()).unwrap();
        assert!(entry.message.ends_with('…'));
        assert!(entry.fields().count() > 0);
        assert!(
            entry
                .fields()
                .all(|(key, value)| key.len() <= 255 && value.len() <= 255)
        );
    }

    #[test]
    fn what_is_no_record_is_refused() {
        let mut encoder = Encoder::new();
        encoder.begin(TIMES, 0, Severity::Info, "target");
        encoder.field("k", format_args!("v"));
        encoder.message(format_args!("text"));
        let whole = encoder.bytes().to_vec();
        let text_starts = whole.len() - "text".len();
        for length in 0..text_starts {
            assert_eq!(Entry::decode(&whole[..length]), None, "{length}");
        }
        let mut wrong = whole.clone();
        wrong[28] = 8;
        assert_eq!(Entry::decode(&wrong), None);
        let mut wrong = whole;
        wrong[HEAD] = 0xFF;
        assert_eq!(Entry::decode(&wrong), None);
    }
}
