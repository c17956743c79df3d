//! Secrets that a message should never have had.
//!
//! Nothing in this crate logs one, and a test looks for them. Other programs are less careful: what their
//! messages show of passwords and tokens is taken out before any sink sees it. This is a net with holes,
//! not a wall.

use std::borrow::Cow;

/// What stands in a secret's place.
const MASK: &str = "***";
/// The ends of names whose value is a secret, in lower case.
const NAMES: [&str; 13] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "authorization",
    "api_key",
    "apikey",
    "access_key",
    "private_key",
    "cookie",
    "credentials",
    "pwd",
];
/// Words before a secret (RFC 9110, section 11.4).
const SCHEMES: [&str; 2] = ["bearer", "basic"];
/// The shortest thing after such a word that is taken for a secret.
const MIN_CREDENTIALS: usize = 8;
const PEM: &str = "PRIVATE KEY-----";

/// Whether a field of that name holds a secret.
pub(super) fn is_secret_name(name: &str) -> bool {
    NAMES
        .iter()
        .any(|secret| ends_with_ignore_case(name.as_bytes(), secret.as_bytes()))
}

/// `text` without the secrets that can be told.
pub(super) fn redact(text: &str) -> Cow<'_, str> {
    let mut out = String::new();
    let mut copied = 0;
    let mut at = 0;
    let bytes = text.as_bytes();
    while at < bytes.len() {
        let Some((start, end)) = secret_behind(bytes, at) else {
            at += 1;
            continue;
        };
        out.push_str(&text[copied..start]);
        out.push_str(MASK);
        copied = end;
        at = end.max(at + 1);
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(&text[copied..]);
    Cow::Owned(out)
}

/// Where the secret lies that the byte at `at` leads to: `=` or `:` after a name, a space after a scheme.
fn secret_behind(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    let before = &bytes[..at];
    match bytes[at] {
        b'=' | b':' => {
            let name = trim_end(before, b"\"' \\");
            if NAMES
                .iter()
                .any(|secret| ends_with_ignore_case(name, secret.as_bytes()))
            {
                let start = at + 1 + count(&bytes[at + 1..], b" \"'\\");
                // The scheme stays: it says what kind of secret there was.
                let value = &bytes[start..];
                let scheme = SCHEMES
                    .iter()
                    .find(|scheme| starts_with_ignore_case(value, scheme.as_bytes()))
                    .filter(|scheme| value.get(scheme.len()) == Some(&b' '));
                let start = start + scheme.map_or(0, |scheme| scheme.len() + 1);
                return value_at(bytes, start, 1);
            }
            if bytes[at..].starts_with(b"://") {
                let rest = &bytes[at + 3..];
                let authority = &rest[..until(rest, b"/ ?#\"'")];
                let end = authority.iter().rposition(|byte| *byte == b'@')?;
                let colon = authority[..end].iter().position(|byte| *byte == b':')?;
                return Some((at + 3 + colon + 1, at + 3 + end));
            }
            None
        }
        b' ' => SCHEMES
            .iter()
            .any(|scheme| ends_with_ignore_case(before, scheme.as_bytes()))
            .then(|| value_at(bytes, at + 1, MIN_CREDENTIALS))?,
        b'-' if before.ends_with(&PEM.as_bytes()[..PEM.len() - 1]) => {
            (at + 1 < bytes.len()).then_some((at + 1, bytes.len()))
        }
        _ => None,
    }
}

fn value_at(bytes: &[u8], start: usize, least: usize) -> Option<(usize, usize)> {
    let rest = bytes.get(start..)?;
    let length = until(rest, b" \"'&,;\\)}]");
    let is_masked = rest.starts_with(MASK.as_bytes());
    (length >= least && !is_masked).then_some((start, start + length))
}

fn until(bytes: &[u8], ends: &[u8]) -> usize {
    bytes
        .iter()
        .position(|byte| ends.contains(byte))
        .unwrap_or(bytes.len())
}

fn count(bytes: &[u8], these: &[u8]) -> usize {
    bytes
        .iter()
        .position(|byte| !these.contains(byte))
        .unwrap_or(bytes.len())
}

fn trim_end<'a>(bytes: &'a [u8], these: &[u8]) -> &'a [u8] {
    let end = bytes
        .iter()
        .rposition(|byte| !these.contains(byte))
        .map_or(0, |last| last + 1);
    &bytes[..end]
}

fn starts_with_ignore_case(bytes: &[u8], start: &[u8]) -> bool {
    bytes
        .get(..start.len())
        .is_some_and(|bytes| bytes.eq_ignore_ascii_case(start))
}

fn ends_with_ignore_case(bytes: &[u8], end: &[u8]) -> bool {
    bytes.len() >= end.len() && bytes[bytes.len() - end.len()..].eq_ignore_ascii_case(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_masked_and_the_rest_is_left() {
        for (text, expected) in [
            ("nothing here: all = well", "nothing here: all = well"),
            ("password=hunter2", "password=***"),
            (
                "new_password = hunter2, user=ann",
                "new_password = ***, user=ann",
            ),
            ("{\"Password\":\"hun ter2\"}", "{\"Password\":\"*** ter2\"}"),
            (
                "{\\\"token\\\": \\\"abc\\\"}",
                "{\\\"token\\\": \\\"***\\\"}",
            ),
            ("GET /x?token=abc&y=1 200", "GET /x?token=***&y=1 200"),
            ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
            (
                "sent Bearer eyJhbGciOiJIUzI1NiJ9 to it",
                "sent Bearer *** to it",
            ),
            (
                "Set-Cookie: id=secretvalue; Path=/",
                "Set-Cookie: ***; Path=/",
            ),
            (
                "a bearer of news, basic facts",
                "a bearer of news, basic facts",
            ),
            (
                "mqtt://ann:hunter2@broker:1883/",
                "mqtt://ann:***@broker:1883/",
            ),
            ("http://broker:1883/ and a@b", "http://broker:1883/ and a@b"),
            (
                "-----BEGIN PRIVATE KEY-----\\nMIIE",
                "-----BEGIN PRIVATE KEY-----***",
            ),
            ("password=", "password="),
            ("password=*** token=ü", "password=*** token=***"),
            ("ü password: ü ü", "ü password: *** ü"),
        ] {
            assert_eq!(redact(text), expected);
            assert_eq!(redact(expected), expected, "once is enough");
        }
        assert!(is_secret_name("mqtt_password") && !is_secret_name("pass"));
    }
}
