//! From the bytes that another program writes to lines that are log messages.

use super::escape;
use super::prefixes::Prefixes;
use super::severity::Severity;

/// The longest message, in bytes, with the marks of its continuation. What is longer goes on in the next.
pub(super) const MAX_LINE: usize = 2048;
/// At the end of a message that goes on, and at the start of the one that it goes on in.
const MARK: &str = "…";
/// How much of a line waits for its end before it is looked at, in bytes; longer than any prefix.
const MAX_RAW: usize = 1024;

/// Makes messages of one stream. Bytes that are no text, and characters that would do something instead of
/// being shown, are written out; a line without anything in it is none.
pub(super) struct Lines {
    /// The severity of a line without a prefix.
    default: Severity,
    /// The end of what was read, as it was read.
    raw: Vec<u8>,
    /// What is known of the line that is being read: its severity, and its text since the last message.
    begun: Option<Severity>,
    text: String,
}

impl Lines {
    pub(super) fn new(default: Severity) -> Self {
        Self {
            default,
            raw: Vec::with_capacity(MAX_RAW),
            begun: None,
            text: String::new(),
        }
    }

    /// Takes the next bytes and shows `out` each message that is complete with them.
    pub(super) fn feed(
        &mut self,
        prefixes: &Prefixes,
        mut bytes: &[u8],
        out: &mut dyn FnMut(Severity, &str),
    ) {
        while !bytes.is_empty() {
            let (piece, rest) = bytes.split_at(bytes.len().min(MAX_RAW - self.raw.len()));
            if let Some(end) = piece.iter().position(|byte| *byte == b'\n') {
                self.raw.extend_from_slice(&piece[..end]);
                self.end_line(prefixes, out);
                bytes = &bytes[end + 1..];
            } else {
                self.raw.extend_from_slice(piece);
                bytes = rest;
                if self.raw.len() == MAX_RAW {
                    let whole = MAX_RAW - unfinished(&self.raw);
                    self.take(prefixes, whole, out);
                }
            }
        }
    }

    /// The stream has ended; a last line without a line feed is one, too.
    pub(super) fn finish(&mut self, prefixes: &Prefixes, out: &mut dyn FnMut(Severity, &str)) {
        self.end_line(prefixes, out);
    }

    fn end_line(&mut self, prefixes: &Prefixes, out: &mut dyn FnMut(Severity, &str)) {
        while self.raw.last() == Some(&b'\r') {
            self.raw.pop();
        }
        self.take(prefixes, self.raw.len(), out);
        if let Some(severity) = self.begun.take() {
            if !self.text.trim().is_empty() {
                out(severity, &self.text);
            }
            self.text.clear();
        }
    }

    /// Moves the first `length` raw bytes over to the text.
    fn take(&mut self, prefixes: &Prefixes, length: usize, out: &mut dyn FnMut(Severity, &str)) {
        let mut raw = std::mem::take(&mut self.raw);
        let mut bytes = &raw[..length];
        let severity = *self
            .begun
            .get_or_insert_with(|| match prefixes.split(bytes) {
                // A prefix and nothing else is all that there is to say.
                Some((severity, message)) => {
                    bytes = if message.is_empty() { bytes } else { message };
                    severity
                }
                None => self.default,
            });
        for chunk in bytes.utf8_chunks() {
            self.push_text(severity, chunk.valid(), out);
            for byte in chunk.invalid() {
                self.push(severity, &format!("\\x{byte:02x}"), out);
            }
        }
        raw.drain(..length);
        self.raw = raw;
    }

    fn push_text(&mut self, severity: Severity, text: &str, out: &mut dyn FnMut(Severity, &str)) {
        // Most lines are plain and short.
        if text.len() + self.text.len() + MARK.len() <= MAX_LINE
            && !text.contains(escape::is_active)
        {
            return self.text.push_str(text);
        }
        let mut buffer = [0; 4];
        for c in text.chars() {
            if escape::is_active(c) {
                self.push(severity, &c.escape_default().to_string(), out);
            } else {
                self.push(severity, c.encode_utf8(&mut buffer), out);
            }
        }
    }

    /// Appends what must stay in one piece.
    fn push(&mut self, severity: Severity, piece: &str, out: &mut dyn FnMut(Severity, &str)) {
        if self.text.len() + piece.len() + MARK.len() > MAX_LINE {
            self.text.push_str(MARK);
            out(severity, &self.text);
            self.text.clear();
            self.text.push_str(MARK);
        }
        self.text.push_str(piece);
    }
}

/// How many bytes at the end may be the beginning of something: of a character, or of a line's end.
fn unfinished(raw: &[u8]) -> usize {
    let returns = raw.iter().rev().take_while(|byte| **byte == b'\r').count();
    if returns > 0 {
        // All of them would be a line that never ends; then they are shown.
        return if returns < raw.len() { returns } else { 0 };
    }
    let tail = raw.len().saturating_sub(3);
    (tail..raw.len())
        .find(|start| {
            let end = std::str::from_utf8(&raw[*start..]);
            end.is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
        })
        .map_or(0, |start| raw.len() - start)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The messages of `bytes`, read in pieces of `size`.
    fn messages(bytes: &[u8], size: usize) -> Vec<(Severity, String)> {
        let prefixes = Prefixes::default();
        let mut lines = Lines::new(Severity::Info);
        let mut found = Vec::new();
        let mut out = |severity, text: &str| {
            assert!(text.len() <= MAX_LINE, "{}", text.len());
            found.push((severity, text.to_owned()));
        };
        for piece in bytes.chunks(size) {
            lines.feed(&prefixes, piece, &mut out);
            assert!(lines.raw.capacity() <= 2 * MAX_RAW);
        }
        lines.finish(&prefixes, &mut out);
        found
    }

    fn texts(bytes: &[u8], size: usize) -> Vec<String> {
        let found = messages(bytes, size);
        found.into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn lines_whatever_the_pieces() {
        for size in [1, 2, 3, 7, 4096] {
            for (bytes, expected) in [
                (&b""[..], &[][..]),
                (b"one\n", &["one"]),
                (b"one\ntwo", &["one", "two"]),
                (b"\n\none\n \n\r\n\ntwo\n\n", &["one", "two"]),
                (b"dos\r\nline\r\r\n", &["dos", "line"]),
                (b"a\rb\n", &["a\\rb"]),
                (b"tab\tbell\x07\x1b[31m\n", &["tab\\tbell\\u{7}\\u{1b}[31m"]),
                (b"nul\0\n", &["nul\\u{0}"]),
                ("grün €🚰\n".as_bytes(), &["grün €🚰"]),
                (b"latin1 gr\xfcn\n", &["latin1 gr\\xfcn"]),
                (b"cut \xe2\x82\nnext", &["cut \\xe2\\x82", "next"]),
                (
                    b"\xff\xfe\n\xf0\x9f\x9a",
                    &["\\xff\\xfe", "\\xf0\\x9f\\x9a"],
                ),
                ("turn \u{202e}round\n".as_bytes(), &["turn \\u{202e}round"]),
                ("C1 \u{9b}x\n".as_bytes(), &["C1 \\u{9b}x"]),
                (b"[ERR]\n[ERR] \n", &["[ERR]", "[ERR] "]),
                (b"  indented\n", &["  indented"]),
            ] {
                assert_eq!(texts(bytes, size), expected, "{size}");
            }
        }
    }

    #[test]
    fn severities() {
        let found = messages(b"plain\n[ERR] bad\nplain\n<2>worse\nmore [ERR]\n", 5);
        let expected = [
            (Severity::Info, "plain"),
            (Severity::Error, "bad"),
            (Severity::Info, "plain"),
            (Severity::Critical, "worse"),
            (Severity::Info, "more [ERR]"),
        ];
        assert_eq!(
            found,
            expected.map(|(severity, text)| (severity, text.to_owned()))
        );
    }

    /// Puts continued messages together again.
    fn joined(found: &[(Severity, String)]) -> String {
        let mut whole = String::new();
        for (number, (_, text)) in found.iter().enumerate() {
            let continuation = text.strip_prefix(MARK);
            assert_eq!(continuation.is_some(), number > 0);
            let text = continuation.unwrap_or(text);
            let end = text.strip_suffix(MARK);
            assert_eq!(end.is_some(), number + 1 < found.len());
            whole.push_str(end.unwrap_or(text));
        }
        whole
    }

    #[test]
    fn a_long_line_goes_on_in_further_messages_of_its_severity() {
        for size in [1, 1000, 4096, 100_000] {
            for length in [1023, 1024, 1025, 2045, 2046, 2047, 2048, 2049, 4096, 20_000] {
                for unit in ["x", "ü", "€", "🚰", "x€"] {
                    let text = unit.repeat(length / unit.len());
                    let found = messages(format!("[WARN] {text}\nnext").as_bytes(), size);
                    let (next, found) = found.split_last().unwrap();
                    assert_eq!(*next, (Severity::Info, String::from("next")));
                    assert!(found.iter().all(|(of, _)| *of == Severity::Warning));
                    assert_eq!(joined(found), text, "{size} {length} {unit}");
                    assert!(found.len() <= length / 2000 + 1, "{}", found.len());
                }
            }
        }
    }

    #[test]
    fn a_long_binary_line_is_whole_when_put_together() {
        let bytes = [0xff, 0xe2, 0x82, 0, b'x'].repeat(2000);
        for size in [1, 999, 65536] {
            let found = messages(&bytes, size);
            assert_eq!(joined(&found), "\\xff\\xe2\\x82\\u{0}x".repeat(2000));
            // No escape is torn in two.
            for (_, text) in &found {
                let text = text.trim_end_matches(MARK);
                assert!(!text.ends_with('\\') && !text.ends_with("\\x"), "{text}");
            }
        }
    }

    #[test]
    fn a_line_end_where_the_buffer_ends() {
        for length in MAX_RAW - 3..MAX_RAW + 3 {
            let text = "x".repeat(length);
            for end in ["\n", "\r\n", "\r\r\n"] {
                assert_eq!(
                    texts(format!("{text}{end}").as_bytes(), 4096),
                    [text.as_str()]
                );
            }
        }
        let returns = texts(&b"\r".repeat(5000), 4096);
        assert!(!returns.is_empty() && returns.iter().all(|text| text.contains("\\r")));
    }
}
