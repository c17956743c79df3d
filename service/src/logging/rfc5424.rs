//! A record as RFC 5424 writes it, for a collector and for a syslog daemon that reads it.

use std::io::Write;

use time::OffsetDateTime;

use super::entry::{Entry, UNKNOWN_PID};
use super::origin::Origin;
use crate::config::Facility;

/// The longest HOSTNAME, APP-NAME and SD-NAME (sections 6.2.4, 6.2.5 and 6.3.2), in bytes.
const MAX_HOSTNAME: usize = 255;
const MAX_APP_NAME: usize = 48;
const MAX_SD_NAME: usize = 32;
/// What says that the text after it is UTF-8 (section 6.4).
const BOM: &[u8] = b"\xEF\xBB\xBF";

/// What is the same for every record of this device.
pub(super) struct Formatter {
    facility: u8,
    hostname: String,
    tag: String,
}

/// What tells a record from every other one, and how often it was sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Identity {
    /// The number of this sending, 1 to 2147483647 and again from 1 (section 7.3.1).
    pub(super) sequence_id: u32,
    /// The run of the program that made the record; with the record's own number it is unique.
    pub(super) origin: Origin,
}

/// The name that the kernel has for this device.
pub(super) fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default()
}

impl Formatter {
    /// `tag` is the APP-NAME of this program's own records.
    pub(super) fn new(facility: Facility, tag: &str, hostname: &str) -> Self {
        Self {
            facility: facility.number(),
            hostname: name(hostname, MAX_HOSTNAME),
            tag: name(tag, MAX_APP_NAME),
        }
    }

    /// Appends `entry` to `out`. `pid` is this program's own process, where it is known.
    pub(super) fn write(
        &self,
        out: &mut Vec<u8>,
        entry: &Entry<'_>,
        pid: Option<u32>,
        identity: Option<Identity>,
    ) {
        let priority = self.facility * 8 + entry.severity as u8;
        push(out, format_args!("<{priority}>1 "));
        push_timestamp(out, entry.wall_ns);
        push(out, format_args!(" {} ", self.hostname));
        if entry.pid == 0 {
            push(out, format_args!("{} ", self.tag));
        } else {
            // Another program's record: its target is that program's tag.
            push_name(out, entry.target, MAX_APP_NAME);
            out.push(b' ');
        }
        let pid = if entry.pid == 0 { pid } else { Some(entry.pid) };
        match pid.filter(|pid| *pid != UNKNOWN_PID) {
            Some(pid) => push(out, format_args!("{pid}")),
            None => out.push(b'-'),
        }
        out.extend_from_slice(b" - ");
        let before = out.len();
        if let Some(identity) = identity {
            push_identity(out, entry, identity);
        }
        push_fields(out, entry);
        if out.len() == before {
            out.push(b'-');
        }
        out.push(b' ');
        if !entry.message.is_ascii() {
            out.extend_from_slice(BOM);
        }
        out.extend_from_slice(entry.message.as_bytes());
    }
}

fn push_identity(out: &mut Vec<u8>, entry: &Entry<'_>, identity: Identity) {
    push(
        out,
        format_args!(
            "[meta sequenceId=\"{}\"][edgeweb@32473 run=\"{}\" seq=\"{}\" boot=\"{}",
            identity.sequence_id, identity.origin.run, entry.seq, identity.origin.boot
        ),
    );
    if entry.pid == 0 {
        out.extend_from_slice(b"\" target=\"");
        push_value(out, entry.target);
    }
    out.extend_from_slice(b"\"]");
}

fn push_fields(out: &mut Vec<u8>, entry: &Entry<'_>) {
    let mut open = false;
    for (key, value) in entry.fields() {
        if !open {
            out.extend_from_slice(b"[fields@32473");
            open = true;
        }
        out.push(b' ');
        push_name(out, key, MAX_SD_NAME);
        out.extend_from_slice(b"=\"");
        push_value(out, value);
        out.push(b'"');
    }
    if open {
        out.push(b']');
    }
}

/// TIMESTAMP (section 6.2.3): UTC with microseconds, `-` for a year that has no four digits.
fn push_timestamp(out: &mut Vec<u8>, wall_ns: i64) {
    let Ok(time) = OffsetDateTime::from_unix_timestamp_nanos(i128::from(wall_ns)) else {
        return out.push(b'-');
    };
    push(
        out,
        format_args!(
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z",
            time.year(),
            u8::from(time.month()),
            time.day(),
            time.hour(),
            time.minute(),
            time.second(),
            time.microsecond()
        ),
    );
}

/// PARAM-VALUE (section 6.3.3).
fn push_value(out: &mut Vec<u8>, value: &str) {
    for byte in value.bytes() {
        if matches!(byte, b'"' | b'\\' | b']') {
            out.push(b'\\');
        }
        out.push(byte);
    }
}

/// Printable ASCII, without what has a meaning in structured data; `-` where nothing is left.
fn push_name(out: &mut Vec<u8>, name: &str, limit: usize) {
    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '=' | ']' | '"');
    out.extend(
        name.chars()
            .take(limit)
            .map(|c| if plain(c) { c as u8 } else { b'_' }),
    );
    if name.is_empty() {
        out.push(b'-');
    }
}

fn name(text: &str, limit: usize) -> String {
    let mut out = Vec::new();
    push_name(&mut out, text.trim(), limit);
    String::from_utf8(out).unwrap_or_default() // ASCII
}

fn push(out: &mut Vec<u8>, arguments: std::fmt::Arguments<'_>) {
    // Writing to a Vec cannot fail.
    let _ = out.write_fmt(arguments);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logging::entry::{Encoder, Times, set_seq};
    use crate::logging::origin::{BootId, RunId};
    use crate::logging::severity::Severity;

    fn written(
        pid: u32,
        target: &str,
        fields: &[(&str, &str)],
        message: &str,
        identity: Option<Identity>,
    ) -> String {
        let mut encoder = Encoder::new();
        let times = Times {
            wall_ns: 1_700_000_000_123_456_789,
            monotonic_ns: 1,
        };
        encoder.begin(times, pid, Severity::Error, target);
        for (key, value) in fields {
            encoder.field(key, format_args!("{value}"));
        }
        encoder.message(format_args!("{message}"));
        set_seq(encoder.bytes_mut(), 12);
        let entry = Entry::decode(encoder.bytes()).unwrap();
        let mut out = Vec::new();
        Formatter::new(Facility::Local3, "pump", "device 7\n").write(
            &mut out,
            &entry,
            Some(99),
            identity,
        );
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_record_has_every_part_in_its_place() {
        let identity = Identity {
            sequence_id: 5,
            origin: Origin {
                run: RunId(0xAB),
                boot: BootId([0xCD; 16]),
            },
        };
        let expected = format!(
            "<155>1 2023-11-14T22:13:20.123456Z device_7 pump 99 - [meta sequenceId=\"5\"]\
             [edgeweb@32473 run=\"00000000000000ab\" seq=\"12\" boot=\"{}\" target=\"pump::valve\"]\
             [fields@32473 bar=\"4.5\"] shut",
            "cd".repeat(16)
        );
        assert_eq!(
            written(0, "pump::valve", &[("bar", "4.5")], "shut", Some(identity)),
            expected
        );
    }

    #[test]
    fn another_programs_record_has_its_name_and_process() {
        assert_eq!(
            written(41, "motor d", &[], "zu heiß", None),
            "<155>1 2023-11-14T22:13:20.123456Z device_7 motor_d 41 - - \u{feff}zu heiß"
        );
    }

    #[test]
    fn what_ends_a_value_is_escaped_and_names_are_made_fit() {
        let long = "k".repeat(40);
        let line = written(
            0,
            "t",
            &[("a=b \"]ü", "1\"2\\3]4"), ("", "empty"), (&long, "ä")],
            "",
            None,
        );
        let expected = format!(
            "[fields@32473 a_b____=\"1\\\"2\\\\3\\]4\" -=\"empty\" {}=\"ä\"] ",
            "k".repeat(32)
        );
        assert!(line.ends_with(&expected), "{line}");
    }

    #[test]
    fn names_of_the_header_have_their_bounds() {
        let long = "h".repeat(300);
        let formatter = Formatter::new(Facility::Kern, &long, &long);
        assert_eq!(formatter.hostname.len(), MAX_HOSTNAME);
        assert_eq!(formatter.tag.len(), MAX_APP_NAME);
        assert_eq!(Formatter::new(Facility::Kern, "t", "\n").hostname, "-");
    }

    #[test]
    fn a_clock_that_is_wrong_still_gives_a_time() {
        for (wall_ns, expected) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (1_999, "1970-01-01T00:00:00.000001Z"),
            (-1, "1969-12-31T23:59:59.999999Z"),
            (i64::MIN, "1677-09-21T00:12:43.145224Z"),
            (i64::MAX, "2262-04-11T23:47:16.854775Z"),
        ] {
            let mut out = Vec::new();
            push_timestamp(&mut out, wall_ns);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }
}
