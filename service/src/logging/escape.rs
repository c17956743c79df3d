//! Log text that cannot forge a record or move a terminal's cursor.

use std::fmt::Write;

/// The longest message that is passed on, in bytes. Syslog daemons cut at 1024 to 8192.
const MAX_LINE: usize = 2048;

/// `text` on one line: control characters written out, the end cut off where it is too long.
pub(super) fn line(text: &str) -> String {
    let mut line = String::with_capacity(text.len().min(MAX_LINE));
    for c in text.chars() {
        if line.len() >= MAX_LINE {
            line.push('…');
            break;
        }
        if c.is_control() {
            // Writing to a String cannot fail.
            let _ = write!(line, "{}", c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
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
        ] {
            assert_eq!(line(text), expected);
        }
        let long = line(&"x".repeat(10_000));
        assert_eq!(long.len(), MAX_LINE + '…'.len_utf8());
    }
}
