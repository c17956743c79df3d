//! Passwords: what a new one must be, and how they are hashed.
//!
//! Argon2id (RFC 9106) with the parameters that OWASP's Password Storage Cheat Sheet gives as equal to its
//! first choice for the least memory: 7 MiB, 5 passes, one lane. They are what a Cortex-A15 does in less than
//! half a second within 8 MiB.
//!
//! A password is what its UTF-8 is: no Unicode normalisation is done, so that somebody whose keyboards write
//! `é` in two ways has two passwords.

use std::fmt;

use argon2::password_hash::phc::{Output, PasswordHash};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use base64ct::{Base64Unpadded, Encoding};
use serde::Deserialize;

use super::random;

/// Memory of one hash, in KiB.
const MEMORY_KIB: u32 = 7168;
/// Passes over that memory.
const PASSES: u32 = 5;
/// Bytes of salt and of hash.
const SALT: usize = 16;
const HASH: usize = 32;
/// What somebody else's hash may cost: memory in KiB, passes, lanes.
const MOST: (u32, u32, u32) = (64 * 1024, 16, 4);
/// Characters of a password.
const LEAST_CHARS: usize = 12;
const MOST_CHARS: usize = 256;
/// Bytes of a password; nothing longer is hashed.
const MOST_BYTES: usize = 1024;
/// The longest sequence whose repetition is no password, in characters.
const MOST_PERIOD: usize = 4;
/// The shortest user name that a password must not contain: shorter ones stand in half of all words.
const LEAST_NAME: usize = 3;

/// Passwords of 12 characters and more that are tried first, one a line, in lower case.
const COMMON: &str = include_str!("common_passwords.txt");

/// How many blocks of 1 KiB of address space a hash has, whatever it uses of them. glibc takes up to 32 MiB from a
/// heap that it keeps, once it has given such a piece back; what is larger it always gives back to the kernel.
#[cfg(all(target_env = "gnu", target_pointer_width = "64"))]
const RESERVED: usize = 33 * 1024;
#[cfg(not(all(target_env = "gnu", target_pointer_width = "64")))]
const RESERVED: usize = 0;

/// The hash of a password that nobody knows, for users who do not exist: same parameters, same time.
const NOBODYS: &str = "$argon2id$v=19$m=7168,t=5,p=1$SHp8Y/WrRMXump1jrVhzqw$9/STVu678nobz7jz0+KdH5nRwabDOvPdiqF2bN3MI9A";

/// A password as somebody typed it. Its `Debug` does not show it.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct Password(String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(***)")
    }
}

impl From<String> for Password {
    fn from(text: String) -> Self {
        Self(text)
    }
}

/// Why something is not taken as a new password. Its text is one line and does not show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PasswordError {
    /// Too short or too long.
    #[error(
        "a password has {LEAST_CHARS} to {MOST_CHARS} characters and at most {MOST_BYTES} bytes"
    )]
    Length,
    /// Somebody who guesses tries it first.
    #[error("this password is on the list of common ones; take another")]
    Common,
    /// It contains the user's name.
    #[error("a password must not contain the user's name")]
    ContainsName,
    /// It is one character or a short sequence again and again.
    #[error("this password is a repetition; take another")]
    Repetition,
}

impl Password {
    /// Whether it may be the new password of `user`.
    ///
    /// # Errors
    /// [`PasswordError`] says why not.
    pub fn check(&self, user: &str) -> Result<(), PasswordError> {
        let lower: Vec<char> = self.0.to_lowercase().chars().collect();
        let chars = self.0.chars().count();
        if !(LEAST_CHARS..=MOST_CHARS).contains(&chars) || self.0.len() > MOST_BYTES {
            return Err(PasswordError::Length);
        }
        let text: String = lower.iter().collect();
        if COMMON.lines().any(|common| common == text) {
            return Err(PasswordError::Common);
        }
        if user.len() >= LEAST_NAME && text.contains(&user.to_lowercase()) {
            return Err(PasswordError::ContainsName);
        }
        let repeats = |period: usize| lower.iter().zip(&lower[period..]).all(|(a, b)| a == b);
        if (1..=MOST_PERIOD).any(repeats) {
            return Err(PasswordError::Repetition);
        }
        Ok(())
    }

    /// Its hash, as a PHC string with a new salt. Takes 7 MiB and some hundred milliseconds.
    ///
    /// # Errors
    /// What is missing: random numbers or memory.
    pub fn hash(&self) -> Result<String, &'static str> {
        let salt: [u8; SALT] = random::bytes()?;
        let params =
            Params::new(MEMORY_KIB, PASSES, 1, Some(HASH)).map_err(|_| "bad parameters")?;
        let mut hash = [0; HASH];
        self.fill(params, &salt, &mut hash)?;
        Ok(format!(
            "$argon2id$v=19$m={MEMORY_KIB},t={PASSES},p=1${}${}",
            Base64Unpadded::encode_string(&salt),
            Base64Unpadded::encode_string(&hash)
        ))
    }

    /// Whether `hash` is this password's; of a user who does not exist there is none, which takes as long.
    pub(super) fn matches(&self, hash: Option<&PasswordHash>) -> bool {
        if self.0.len() > MOST_BYTES {
            return false;
        }
        let nobodys = hash.is_none().then(|| parse(NOBODYS).ok()).flatten();
        let Some(known) = hash.or(nobodys.as_ref()) else {
            return false;
        };
        let (Ok(params), Some(salt), Some(expected)) =
            (Params::try_from(known), known.salt, known.hash)
        else {
            return false;
        };
        let mut output = [0; Output::MAX_LENGTH];
        let output = &mut output[..expected.len()];
        // Output's comparison takes the same time whatever differs.
        let same = self.fill(params, salt.as_ref(), output).is_ok()
            && Output::new(output).is_ok_and(|output| output == expected);
        same && hash.is_some()
    }

    fn fill(&self, params: Params, salt: &[u8], output: &mut [u8]) -> Result<(), &'static str> {
        let mut memory: Vec<Block> = Vec::new();
        let blocks = params.block_count();
        memory
            .try_reserve_exact(blocks.max(RESERVED))
            .map_err(|_| "no memory for hashing a password")?;
        memory.resize(blocks, Block::new());
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into_with_memory(self.0.as_bytes(), salt, output, &mut memory)
            .map_err(|_| "the password cannot be hashed")
    }
}

/// Reads a PHC string of Argon2id within bounds.
///
/// # Errors
/// Why it is not taken.
pub(super) fn parse(hash: &str) -> Result<PasswordHash, &'static str> {
    let hash = PasswordHash::new(hash).map_err(|_| "is no PHC string")?;
    if hash.algorithm.as_str() != "argon2id" || hash.version != Some(19) {
        return Err("is not Argon2id of version 19");
    }
    let params = Params::try_from(&hash).map_err(|_| "has parameters that Argon2id has not")?;
    if hash.salt.is_none() || hash.hash.is_none() {
        return Err("has no salt or no hash");
    }
    if params.m_cost() > MOST.0 || params.t_cost() > MOST.1 || params.p_cost() > MOST.2 {
        return Err("costs more than 64 MiB, 16 passes and 4 lanes");
    }
    Ok(hash)
}

/// Whether a hash costs somebody who guesses less than a new one would.
pub(super) fn is_weaker(hash: &PasswordHash) -> bool {
    let cost = |memory: u32, passes: u32| u64::from(memory) * u64::from(passes);
    let salt = hash.salt.map_or(0, |salt| salt.len());
    let length = hash.hash.map_or(0, |hash| hash.len());
    Params::try_from(hash).map_or(true, |params| {
        cost(params.m_cost(), params.t_cost()) < cost(MEMORY_KIB, PASSES)
    }) || salt < SALT
        || length < HASH
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(password: &str, user: &str) -> Result<(), PasswordError> {
        Password(String::from(password)).check(user)
    }

    #[test]
    fn a_new_password_is_long_enough_and_not_the_first_that_one_tries() {
        use PasswordError::*;
        for (password, expected) in [
            ("correct horse", Ok(())),
            ("twelve chars", Ok(())),
            ("eleven char", Err(Length)),
            ("ünïcödé wörd", Ok(())),
            (&"é".repeat(11), Err(Length)),
            (&"ab c".repeat(64), Err(Repetition)),
            (&format!("{}x", "ab c".repeat(64)), Err(Length)),
            (&format!("{}x", "🙂".repeat(255)), Ok(())),
            (&format!("{}x", "🙂".repeat(256)), Err(Length)),
            ("Password1234", Err(Common)),
            ("PASSWORDPASSWORD", Err(Common)),
            ("123456789012", Err(Common)),
            ("aaaaaaaaaaaa", Err(Repetition)),
            ("abcABCabcABC", Err(Repetition)),
            ("wxyzwxyzwxyzw", Err(Repetition)),
            ("my name is Ann!", Err(ContainsName)),
        ] {
            assert_eq!(check(password, "ann"), expected, "{password}");
        }
        assert_eq!(check("a word with an a", "a"), Ok(()));
    }

    #[test]
    fn the_list_of_common_passwords_is_in_the_form_that_is_looked_for() {
        for line in COMMON.lines() {
            assert_eq!(line, line.to_lowercase());
            assert!(line.chars().count() >= LEAST_CHARS, "{line}");
        }
    }

    #[test]
    fn a_hash_is_its_passwords_and_no_others() {
        let password = Password(String::from("correct horse"));
        let hash = password.hash().unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=7168,t=5,p=1$"), "{hash}");
        let parsed = parse(&hash).unwrap();
        assert!(password.matches(Some(&parsed)));
        assert!(!is_weaker(&parsed));
        assert!(!Password(String::from("correct horsf")).matches(Some(&parsed)));
        assert!(!password.matches(None));
        assert_ne!(password.hash().unwrap(), hash, "a salt of its own");
        assert!(parse(NOBODYS).is_ok_and(|hash| !is_weaker(&hash)));
        assert_eq!(format!("{password:?}"), "Password(***)");
    }

    /// The hashes were made by argon2-cffi 25.1, `argon2.low_level.hash_secret`.
    #[test]
    fn hashes_of_other_programs_and_parameters_are_read() {
        for (hash, weaker) in OTHERS {
            let parsed = parse(hash).unwrap();
            assert!(
                Password(String::from("correct horse")).matches(Some(&parsed)),
                "{hash}"
            );
            assert_eq!(is_weaker(&parsed), weaker, "{hash}");
        }
    }

    const OTHERS: [(&str, bool); 2] = [
        (
            "$argon2id$v=19$m=1024,t=2,p=2$c2FsdHNhbHQ$Q3R4mehDUX554Xgh6rQKbw",
            true,
        ),
        (
            "$argon2id$v=19$m=19456,t=2,p=1$MDEyMzQ1Njc4OWFiY2RlZg$rk2Mi3E4dgRMg0fHaYaptWVZRKqs//6b6k3/nntqGJk",
            false,
        ),
    ];

    #[test]
    fn what_would_cost_too_much_or_is_no_argon2id_is_not_taken() {
        let salt = "c2FsdHNhbHRzYWx0c2FsdA$aGFzaGhhc2hoYXNoaGFzaGhhc2hoYXNoaGFzaGhhc2g";
        for start in [
            "$argon2id$v=19$m=65537,t=1,p=1",
            "$argon2id$v=19$m=7168,t=17,p=1",
            "$argon2id$v=19$m=7168,t=5,p=5",
            "$argon2id$v=16$m=7168,t=5,p=1",
            "$argon2i$v=19$m=7168,t=5,p=1",
            "$argon2d$v=19$m=7168,t=5,p=1",
            "$argon2id$v=19$m=7168,t=0,p=1",
            "$argon2id$m=7168,t=5,p=1",
            "$2b$12",
            "",
        ] {
            assert!(parse(&format!("{start}${salt}")).is_err(), "{start}");
        }
        assert!(parse("$argon2id$v=19$m=7168,t=5,p=1$c2FsdHNhbHRzYWx0c2FsdA").is_err());
        assert!(parse("correct horse").is_err());
    }
}
