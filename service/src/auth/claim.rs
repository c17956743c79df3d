//! The one-time code with which the first caller becomes the administrator.

use std::time::{Duration, Instant};

use ring::hmac;

use super::random;

/// Crockford's base 32: no letter that could be read as another.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// Characters of the code, 5 bits each, and of each of its groups.
const LENGTH: usize = 12;
const GROUP: usize = 4;
/// Wrong tries that end it.
const TRIES: u32 = 10;

/// A code that waits for its use.
pub(super) struct Claim {
    code: String,
    /// By the monotonic clock: that a device learns the time of day is no reason to end it.
    end: Instant,
    left: u32,
}

/// What came of a try.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Tried {
    Right,
    Wrong,
    /// It was the last.
    Ended,
}

impl Claim {
    pub(super) fn new(lasts: Duration, now: Instant) -> Result<Self, &'static str> {
        let bytes: [u8; LENGTH] = random::bytes()?;
        let code = bytes.iter().enumerate().map(|(at, byte)| {
            let hyphen = at > 0 && at % GROUP == 0;
            let letter = char::from(ALPHABET[usize::from(byte % 32)]);
            if hyphen {
                format!("-{letter}")
            } else {
                String::from(letter)
            }
        });
        Ok(Self {
            code: code.collect(),
            end: now + lasts,
            left: TRIES,
        })
    }

    /// The code in groups of four.
    pub(super) fn code(&self) -> &str {
        &self.code
    }

    pub(super) fn is_open(&self, now: Instant) -> bool {
        self.left > 0 && now < self.end
    }

    /// Tries `code`, in which hyphens, blanks and the case of letters do not matter. The time that this takes
    /// does not tell how much of it is right.
    pub(super) fn try_code(&mut self, code: &str, now: Instant) -> Tried {
        if !self.is_open(now) {
            return Tried::Ended;
        }
        let Ok(secret) = random::bytes::<32>() else {
            return Tried::Wrong;
        };
        let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        let tag = hmac::sign(&key, plain(&self.code).as_bytes());
        if code.len() <= 64 && hmac::verify(&key, plain(code).as_bytes(), tag.as_ref()).is_ok() {
            return Tried::Right;
        }
        self.left -= 1;
        if self.left == 0 {
            Tried::Ended
        } else {
            Tried::Wrong
        }
    }
}

fn plain(code: &str) -> String {
    code.chars()
        .filter(|letter| !matches!(letter, '-' | ' '))
        .map(|letter| match letter.to_ascii_uppercase() {
            // As Crockford has it: what somebody may have read.
            'O' => '0',
            'I' | 'L' => '1',
            letter => letter,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_code_is_read_as_people_type_it() {
        let now = Instant::now();
        let mut claim = Claim::new(HOUR, now).unwrap();
        let code = claim.code().to_owned();
        assert_eq!(code.len(), 14);
        assert!(code.split('-').all(|group| group.len() == 4
            && group.bytes().all(|byte| ALPHABET.contains(&byte))));
        for typed in [
            code.clone(),
            code.to_lowercase(),
            code.replace('-', ""),
            code.replace('-', " "),
        ] {
            assert_eq!(claim.try_code(&typed, now), Tried::Right, "{typed}");
        }
        assert_ne!(Claim::new(HOUR, now).unwrap().code(), code);
    }

    #[test]
    fn ten_wrong_tries_or_an_hour_end_it() {
        let now = Instant::now();
        let mut claim = Claim::new(HOUR, now).unwrap();
        let code = claim.code().to_owned();
        assert_eq!(claim.try_code(&code, now + HOUR), Tried::Ended);
        for wrong in [
            "",
            "----",
            &code[1..],
            &format!("{code}0"),
            &"0".repeat(1000),
        ] {
            assert_eq!(claim.try_code(wrong, now), Tried::Wrong, "{wrong}");
        }
        for _ in 0..4 {
            assert_eq!(claim.try_code("0000-0000-0000", now), Tried::Wrong);
        }
        assert_eq!(claim.try_code(&code, now), Tried::Right);
        assert_eq!(claim.try_code("0000-0000-0000", now), Tried::Ended);
        assert_eq!(claim.try_code(&code, now), Tried::Ended);
        assert!(!claim.is_open(now));
    }
}
