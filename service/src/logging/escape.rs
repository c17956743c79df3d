//! Log text that cannot forge a record, move a terminal's cursor or turn its reading direction.

use std::fmt::{self, Write};

/// Appends `text` on one line: control characters written out, cut off with an ellipsis after `limit` bytes.
pub(super) fn push(out: &mut Vec<u8>, text: &str, limit: usize) {
    let mut line = Line {
        end: out.len() + limit,
        out,
        full: false,
    };
    // Writing to a Vec cannot fail; Line says so when it is full.
    let _ = line.write_str(text);
}

/// The same for what a formatting macro has.
pub(super) fn push_arguments(out: &mut Vec<u8>, arguments: fmt::Arguments<'_>, limit: usize) {
    let mut line = Line {
        end: out.len() + limit,
        out,
        full: false,
    };
    // A Display that fails has still said what it said before.
    let _ = line.write_fmt(arguments);
}

/// `text` on one line, whole.
pub(super) fn line(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    push(&mut out, text, usize::MAX >> 1);
    String::from_utf8(out).unwrap_or_default() // only whole characters are pushed
}

/// What would do something instead of being shown: Cc of Unicode, line separators and bidirectional controls.
pub(super) fn is_active(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

struct Line<'a> {
    out: &'a mut Vec<u8>,
    end: usize,
    full: bool,
}

impl Line<'_> {
    fn push_char(&mut self, c: char) {
        if self.full {
            return;
        }
        let mut buffer = [0; 4];
        if !is_active(c) {
            let text = c.encode_utf8(&mut buffer);
            if self.out.len() + text.len() > self.end {
                self.cut();
            } else {
                self.out.extend_from_slice(text.as_bytes());
            }
            return;
        }
        let escaped = c.escape_default();
        if self.out.len() + escaped.len() > self.end {
            self.cut();
        } else {
            self.out.extend(escaped.map(|c| c as u8)); // ASCII
        }
    }

    fn cut(&mut self) {
        self.full = true;
        self.out.extend_from_slice("…".as_bytes());
    }
}

impl Write for Line<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.full {
            return Err(fmt::Error);
        }
        // Nearly all text is plain ASCII, which is copied whole.
        let room = self.end - self.out.len();
        if text.len() <= room && text.bytes().all(|byte| (b' '..0x7f).contains(&byte)) {
            self.out.extend_from_slice(text.as_bytes());
            return Ok(());
        }
        text.chars().for_each(|c| self.push_char(c));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_without_control_characters() {
        for (text, expected) in [
            ("plain, with ümlaut", "plain, with ümlaut"),
            ("two\nlines\r\n", "two\\nlines\\r\\n"),
            ("\u{1b}[2J\0\u{7f}", "\\u{1b}[2J\\u{0}\\u{7f}"),
            ("C1 \u{9b}31m", "C1 \\u{9b}31m"),
            ("\u{202e}gpj.exe\u{2028}", "\\u{202e}gpj.exe\\u{2028}"),
            ("\u{61c}letter mark", "\\u{61c}letter mark"),
        ] {
            assert_eq!(line(text), expected);
        }
    }

    #[test]
    fn what_is_too_long_is_cut_between_characters() {
        for (text, limit, expected) in [
            ("abcdef", 6, "abcdef"),
            ("abcdefg", 6, "abcdef…"),
            ("üüü", 5, "üü…"),
            ("abc\n\n", 6, "abc\\n…"),
            ("\u{1b}", 3, "…"),
        ] {
            let mut out = b"before ".to_vec();
            push(&mut out, text, limit);
            assert_eq!(
                String::from_utf8(out).unwrap(),
                format!("before {expected}")
            );
        }
        let mut out = Vec::new();
        push_arguments(&mut out, format_args!("{}{}{}", "abc", "def", "ghi"), 5);
        assert_eq!(String::from_utf8(out).unwrap(), "abcde…");
    }
}
