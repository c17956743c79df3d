//! Which severity a line of another program says with its first characters.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::severity::Severity;
use crate::config::{ConfigError, parse_toml, read_text};

/// The longest prefix, in bytes.
const MAX_PREFIX: usize = 32;
/// How many prefixes a map may have.
const MAX_PREFIXES: usize = 256;

/// Words that stand in brackets, in capitals or not.
const WORDS: [(&str, Severity); 14] = [
    ("emerg", Severity::Emergency),
    ("alert", Severity::Alert),
    ("crit", Severity::Critical),
    ("critical", Severity::Critical),
    ("fatal", Severity::Critical),
    ("err", Severity::Error),
    ("error", Severity::Error),
    ("warn", Severity::Warning),
    ("warning", Severity::Warning),
    ("notice", Severity::Notice),
    ("info", Severity::Info),
    ("dbg", Severity::Debug),
    ("debug", Severity::Debug),
    ("trace", Severity::Debug),
];

/// As logcat's `brief` and `tag` have it.
const LOGCAT: [(&str, Severity); 6] = [
    ("F/", Severity::Critical),
    ("E/", Severity::Error),
    ("W/", Severity::Warning),
    ("I/", Severity::Info),
    ("D/", Severity::Debug),
    ("V/", Severity::Debug),
];

/// What begins like logcat's and means something else.
const PLAIN: [&str; 4] = ["I/O", "D/A", "W/O", "W/o"];

/// Which severity a line says with its first characters. The default knows `[ERR]` and its like in
/// capitals or not, `<0>` to `<7>` as in sd-daemon(3), and `E/`, `W/`, `I/`, `D/` as in logcat.
#[derive(Clone, Debug)]
pub struct Prefixes {
    /// The longest first. Without a severity it is no prefix but a word of the message.
    known: Vec<(String, Option<Severity>)>,
}

/// What a map file says of a prefix.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Meaning(Option<Severity>);

impl TryFrom<String> for Meaning {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        if name == "none" {
            return Ok(Self(None));
        }
        name.parse().map(|severity| Self(Some(severity))).map_err(
            |error: super::UnknownSeverity| format!("{error}, or none for what is no prefix"),
        )
    }
}

/// A prefix in a map file.
#[derive(Deserialize, Eq, Ord, PartialEq, PartialOrd)]
#[serde(try_from = "String")]
struct Prefix(String);

impl TryFrom<String> for Prefix {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if (1..=MAX_PREFIX).contains(&text.len()) && !text.contains(char::is_control) {
            Ok(Self(text))
        } else {
            Err(format!(
                "the prefix {text:?} has not 1 to {MAX_PREFIX} bytes, or a control character"
            ))
        }
    }
}

impl Default for Prefixes {
    fn default() -> Self {
        let bracketed = WORDS.iter().flat_map(|(word, severity)| {
            [word.to_uppercase(), (*word).to_owned()]
                .map(|word| (format!("[{word}]"), Some(*severity)))
        });
        let numbered = Severity::ALL
            .into_iter()
            .enumerate()
            .map(|(number, severity)| (format!("<{number}>"), Some(severity)));
        let logcat = LOGCAT.map(|(prefix, severity)| (prefix.to_owned(), Some(severity)));
        let plain = PLAIN.map(|word| (word.to_owned(), None));
        Self::new(bracketed.chain(numbered).chain(logcat).chain(plain))
    }
}

impl Prefixes {
    fn new(known: impl IntoIterator<Item = (String, Option<Severity>)>) -> Self {
        let mut known: Vec<_> = known.into_iter().collect();
        known.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        Self { known }
    }

    /// The default ones and those of a map file on top: TOML, `"PREFIX" = "severity"` a line, where the
    /// severity `none` says that a line with it is one without a prefix. At most 256, of 1 to 32 bytes.
    ///
    /// # Errors
    /// [`ConfigError`] when the file cannot be read, is not TOML, or has a prefix or a severity that is wrong.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::parse(&read_text(path)?, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let map: BTreeMap<Prefix, Meaning> = parse_toml(text, path)?;
        if map.len() > MAX_PREFIXES {
            return Err(ConfigError::OutOfRange {
                origin: path.display().to_string(),
                key: "-",
                reason: format!("{} prefixes; at most {MAX_PREFIXES}, please", map.len()),
            });
        }
        let mut known: BTreeMap<_, _> = Self::default().known.into_iter().collect();
        known.extend(
            map.into_iter()
                .map(|(prefix, meaning)| (prefix.0, meaning.0)),
        );
        Ok(Self::new(known))
    }

    /// The severity that the line says, and what stands after its prefix; `None` when it says none.
    pub(super) fn split<'a>(&self, line: &'a [u8]) -> Option<(Severity, &'a [u8])> {
        let (severity, rest) = self.known.iter().find_map(|(prefix, severity)| {
            let rest = line.strip_prefix(prefix.as_bytes())?;
            Some((*severity, rest))
        })?;
        Some((severity?, rest.trim_ascii_start()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Prefixes, String> {
        Prefixes::parse(text, Path::new("map.toml")).map_err(|error| error.to_string())
    }

    fn split<'a>(prefixes: &Prefixes, line: &'a str) -> Option<(Severity, &'a str)> {
        let (severity, rest) = prefixes.split(line.as_bytes())?;
        Some((severity, std::str::from_utf8(rest).unwrap()))
    }

    #[test]
    fn the_default_prefixes() {
        let prefixes = Prefixes::default();
        for (line, severity, rest) in [
            ("[EMERG] x", Severity::Emergency, "x"),
            ("[ALERT]x", Severity::Alert, "x"),
            ("[CRIT] x", Severity::Critical, "x"),
            ("[CRITICAL] x", Severity::Critical, "x"),
            ("[ERR]  x", Severity::Error, "x"),
            ("[ERROR] [WARN] x", Severity::Error, "[WARN] x"),
            ("[WARN]\tx", Severity::Warning, "x"),
            ("[WARNING] x", Severity::Warning, "x"),
            ("[notice] x", Severity::Notice, "x"),
            ("[info] x", Severity::Info, "x"),
            ("[DBG] x", Severity::Debug, "x"),
            ("[DEBUG]", Severity::Debug, ""),
            ("<0>x", Severity::Emergency, "x"),
            ("<7> x", Severity::Debug, "x"),
            ("E/pump( 12): x", Severity::Error, "pump( 12): x"),
            ("W/pump: x", Severity::Warning, "pump: x"),
            ("I/pump: x", Severity::Info, "pump: x"),
            ("D/pump: x", Severity::Debug, "pump: x"),
        ] {
            assert_eq!(split(&prefixes, line), Some((severity, rest)), "{line}");
        }
        for line in [
            "",
            "x",
            " [ERR] x",
            "[ERR x",
            "[Err] x",
            "<8>x",
            "<30>x",
            "<3",
            "I/O error",
            "D/A: x",
            "e/x",
            "x [ERR]",
            "[]",
        ] {
            assert_eq!(split(&prefixes, line), None, "{line}");
        }
    }

    #[test]
    fn a_map_adds_replaces_and_takes_out() {
        let map =
            "\"!!\" = \"critical\"\n\"!!!\" = \"emerg\"\n\"[ERR]\" = \"warn\"\n\"E/\" = \"none\"";
        let prefixes = parse(map).unwrap();
        for (line, expected) in [
            ("!! x", Some((Severity::Critical, "x"))),
            ("!!! x", Some((Severity::Emergency, "x"))),
            ("[ERR] x", Some((Severity::Warning, "x"))),
            ("[ERROR] x", Some((Severity::Error, "x"))),
            ("E/x", None),
        ] {
            assert_eq!(split(&prefixes, line), expected, "{line}");
        }
    }

    #[test]
    fn a_mistake_is_named_with_file_line_key_and_reason() {
        let long = format!("a = \"info\"\n{:?} = \"info\"", "x".repeat(33));
        for (map, expected) in [
            (
                "\n\"[X]\" = \"loud\"",
                "map.toml:2: [X]: \"loud\" is no severity; emergency, ",
            ),
            (
                "x = 3",
                "map.toml:1: x: invalid type: integer `3`, expected a string",
            ),
            ("x = ", "map.toml:1: -: "),
            ("\"\" = \"info\"", "map.toml:1: "),
            (&long, "map.toml:2: "),
        ] {
            let error = parse(map).expect_err(map);
            assert!(error.starts_with(expected), "{map:?}: {error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
        let many: String = (0..257).map(|n| format!("p{n} = \"info\"\n")).collect();
        assert_eq!(
            parse(&many).unwrap_err(),
            "map.toml: -: 257 prefixes; at most 256, please"
        );
    }
}
