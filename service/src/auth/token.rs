//! Tokens: JWT (RFC 7519) in the compact form of JWS (RFC 7515), signed with HMAC SHA-512 (`HS512`).
//!
//! SECURITY: the header of a token must be, byte for byte, what this device writes for one of its keys. That
//! decides on algorithm, key and extensions before anything is parsed: there is no `alg` to choose, no `crit`
//! to understand and no `kid` to look up. The claims are parsed only when the signature is right.

use base64ct::{Base64UrlUnpadded, Encoding};
use ring::hmac;
use serde::{Deserialize, Serialize};

use super::Role;

/// The longest token, in bytes.
pub(super) const MAX_TOKEN: usize = 1024;
/// Who issues the tokens.
pub(super) const ISSUER: &str = "edgeweb";
/// How far the clock may be behind the one that a token was made by, in seconds: it may have been set back.
const LEEWAY: u64 = 60;
/// Bytes of HMAC SHA-512.
const MAC: usize = 64;
/// Bytes of a key: as many as the hash has (RFC 7518, section 3.2).
pub(super) const KEY: usize = 64;

/// A key in the form in which it is used.
pub(super) struct Key {
    /// The encoded header of every token that this key signs.
    header: String,
    kid: String,
    mac: hmac::Key,
}

impl Key {
    pub(super) fn new(kid: &str, secret: &[u8; KEY]) -> Self {
        let header = format!(r#"{{"alg":"HS512","typ":"JWT","kid":"{kid}"}}"#);
        Self {
            header: Base64UrlUnpadded::encode_string(header.as_bytes()),
            kid: String::from(kid),
            mac: hmac::Key::new(hmac::HMAC_SHA512, secret),
        }
    }

    pub(super) fn kid(&self) -> &str {
        &self.kid
    }

    /// A token that says `claims`.
    pub(super) fn sign(&self, claims: &Claims<'_>) -> String {
        // Plain members always serialise.
        let claims = serde_json::to_vec(claims).unwrap_or_default();
        let mut token = format!(
            "{}.{}",
            self.header,
            Base64UrlUnpadded::encode_string(&claims)
        );
        let mac = hmac::sign(&self.mac, token.as_bytes());
        token.push('.');
        token.push_str(&Base64UrlUnpadded::encode_string(mac.as_ref()));
        token
    }
}

/// What a token says (RFC 7519, section 4.1). Times are seconds since 1970.
#[derive(Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Claims<'a> {
    /// [`ISSUER`].
    pub(super) iss: &'a str,
    /// The device, as its state names it.
    pub(super) aud: &'a str,
    /// The user, or the API token's name.
    pub(super) sub: &'a str,
    pub(super) role: Role,
    pub(super) iat: u64,
    pub(super) nbf: u64,
    pub(super) exp: u64,
    /// Names this token among all.
    pub(super) jti: &'a str,
    /// The user's generation, from 1; 0 in API tokens, which therefore never pass for a user's.
    #[serde(rename = "gen")]
    pub(super) generation: u64,
}

/// A token that is not good. Which of its parts is wrong is nobody's business.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused;

/// Checks everything about `token` that needs no list: form, signature, issuer, audience and times. The claims
/// are in `buffer` then.
pub(super) fn verify<'k, 'b>(
    keys: impl IntoIterator<Item = &'k Key>,
    audience: &str,
    now: u64,
    token: &str,
    buffer: &'b mut [u8; MAX_TOKEN],
) -> Result<(&'k Key, Claims<'b>), Refused> {
    if token.len() > MAX_TOKEN {
        return Err(Refused);
    }
    let (signed, mac) = token.rsplit_once('.').ok_or(Refused)?;
    let (header, claims) = signed.split_once('.').ok_or(Refused)?;
    let key = keys
        .into_iter()
        .find(|key| key.header == header)
        .ok_or(Refused)?;
    let mut bytes = [0; MAC];
    let mac = Base64UrlUnpadded::decode(mac, &mut bytes).map_err(|_| Refused)?;
    hmac::verify(&key.mac, signed.as_bytes(), mac).map_err(|_| Refused)?;
    let claims = Base64UrlUnpadded::decode(claims, buffer).map_err(|_| Refused)?;
    let claims: Claims<'b> = serde_json::from_slice(claims).map_err(|_| Refused)?;
    let good = claims.iss == ISSUER
        && claims.aud == audience
        && claims.nbf <= now.saturating_add(LEEWAY)
        && claims.exp > now;
    if good {
        Ok((key, claims))
    } else {
        Err(Refused)
    }
}

/// A token that is good is the one that the device writes for what it says, and of the key.
#[cfg(fuzzing)]
fn check(token: &str) {
    let key = Key::new("k1", &[7; KEY]);
    let mut buffer = [0; MAX_TOKEN];
    if let Ok((_, claims)) = verify([&key], "device", 1_800_000_000, token, &mut buffer) {
        assert_eq!(claims.iss, ISSUER);
        assert!(claims.exp > 1_800_000_000 && claims.nbf <= 1_800_000_060);
        // What is written back is read back the same.
        let again = key.sign(&claims);
        let mut buffer = [0; MAX_TOKEN];
        if again.len() <= MAX_TOKEN {
            let (_, read) = verify([&key], "device", 1_800_000_000, &again, &mut buffer).unwrap();
            assert_eq!(read, claims);
        }
    }
}

/// For [`crate::fuzzing::token`]: nobody guesses a signature, so the only good one is that of the corpus.
#[cfg(fuzzing)]
pub(crate) fn fuzz_token(token: &str) {
    check(token);
    let other = Key::new("k1", &[8; KEY]);
    let mut buffer = [0; MAX_TOKEN];
    assert!(verify([&other], "device", 1_800_000_000, token, &mut buffer).is_err());
}

/// For [`crate::fuzzing::claims`].
#[cfg(fuzzing)]
pub(crate) fn fuzz_claims(claims: &[u8]) {
    let key = Key::new("k1", &[7; KEY]);
    let text = format!(
        "{}.{}",
        key.header,
        Base64UrlUnpadded::encode_string(claims)
    );
    let mac = hmac::sign(&key.mac, text.as_bytes());
    check(&format!(
        "{text}.{}",
        Base64UrlUnpadded::encode_string(mac.as_ref())
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn key() -> Key {
        Key::new("k1", &[7; KEY])
    }

    fn claims() -> Claims<'static> {
        Claims {
            iss: ISSUER,
            aud: "device",
            sub: "ann",
            role: Role::Admin,
            iat: NOW,
            nbf: NOW,
            exp: NOW + 3600,
            jti: "0123456789abcdefghijkl",
            generation: 1,
        }
    }

    fn is_good(token: &str) -> bool {
        let keys = [key(), Key::new("k2", &[8; KEY])];
        verify(&keys, "device", NOW, token, &mut [0; MAX_TOKEN]).is_ok()
    }

    fn encode(text: &str) -> String {
        Base64UrlUnpadded::encode_string(text.as_bytes())
    }

    /// A token with a right signature, whatever it says.
    fn signed(header: &str, claims: &str) -> String {
        let text = format!("{}.{}", encode(header), encode(claims));
        let mac = hmac::sign(&key().mac, text.as_bytes());
        format!("{text}.{}", Base64UrlUnpadded::encode_string(mac.as_ref()))
    }

    const HEADER: &str = r#"{"alg":"HS512","typ":"JWT","kid":"k1"}"#;

    fn claims_text() -> String {
        serde_json::to_string(&claims()).unwrap()
    }

    #[test]
    fn a_token_says_what_it_was_told() {
        let token = key().sign(&claims());
        let keys = [key()];
        let mut buffer = [0; MAX_TOKEN];
        let (used, read) = verify(&keys, "device", NOW, &token, &mut buffer).unwrap();
        assert_eq!((used.kid(), read), ("k1", claims()));
        assert_eq!(token, signed(HEADER, &claims_text()), "as the helper signs");
    }

    #[test]
    fn another_header_is_another_token_even_with_a_right_signature() {
        assert!(is_good(&signed(HEADER, &claims_text())));
        for header in [
            r#"{"alg":"none","typ":"JWT","kid":"k1"}"#,
            r#"{"alg":"None","typ":"JWT","kid":"k1"}"#,
            r#"{"alg":"HS256","typ":"JWT","kid":"k1"}"#,
            r#"{"alg":"HS384","typ":"JWT","kid":"k1"}"#,
            r#"{"alg":"RS256","typ":"JWT","kid":"k1"}"#,
            r#"{"alg":"ES512","typ":"JWT","kid":"k1"}"#,
            r#"{"alg":"hs512","typ":"JWT","kid":"k1"}"#,
            r#"{"alg":"HS512","typ":"JWT"}"#,
            r#"{"alg":"HS512","typ":"JWT","kid":""}"#,
            r#"{"alg":"HS512","typ":"JWT","kid":"k2"}"#,
            r#"{"alg":"HS512","typ":"JWT","kid":"k3"}"#,
            r#"{"alg":"HS512","typ":"JWT","kid":"../../../dev/null"}"#,
            r#"{"alg":"HS512","typ":"JWT","kid":"k1' OR 1=1"}"#,
            r#"{"alg":"HS512","typ":"JWT","kid":"k1","crit":["exp"]}"#,
            r#"{"alg":"HS512","typ":"JWT","kid":"k1","jwk":{"kty":"oct","k":"AAAA"}}"#,
            r#"{"alg":"HS512","typ":"JWT","kid":"k1","jku":"https://example.org/"}"#,
            r#"{"alg":"HS512","typ":"JWT","kid":"k1","b64":false}"#,
            r#"{"alg":"HS512","alg":"none","typ":"JWT","kid":"k1"}"#,
            r#"{"typ":"JWT","alg":"HS512","kid":"k1"}"#,
            r#"{"alg":"HS512","typ":"JWT","kid":"k1"} "#,
            r#"{ "alg":"HS512","typ":"JWT","kid":"k1"}"#,
            "{}",
            "",
        ] {
            assert!(!is_good(&signed(header, &claims_text())), "{header}");
        }
    }

    #[test]
    fn another_algorithm_with_the_same_key_signs_nothing() {
        for (name, algorithm) in [
            ("HS256", hmac::HMAC_SHA256),
            ("HS384", hmac::HMAC_SHA384),
            ("HS512", hmac::HMAC_SHA256),
        ] {
            let header = HEADER.replace("HS512", name);
            let text = format!("{}.{}", encode(&header), encode(&claims_text()));
            let mac = hmac::sign(&hmac::Key::new(algorithm, &[7; KEY]), text.as_bytes());
            let mac = Base64UrlUnpadded::encode_string(mac.as_ref());
            assert!(!is_good(&format!("{text}.{mac}")), "{name}");
            assert!(!is_good(&format!("{text}.")), "{name} without a signature");
        }
    }

    #[test]
    fn no_byte_of_a_token_can_be_changed_left_out_or_added() {
        let token = key().sign(&claims());
        assert!(is_good(&token));
        for at in 0..token.len() {
            assert!(!is_good(&token[..at]), "cut at {at}");
            for other in *b"A_.=+ \n" {
                let mut bytes = token.clone().into_bytes();
                if bytes[at] == other {
                    continue;
                }
                bytes[at] = other;
                assert!(
                    !is_good(std::str::from_utf8(&bytes).unwrap()),
                    "{other} at {at}"
                );
            }
        }
        for extra in [".", "=", "==", "A", ".A", "\0", " ", "\r\n"] {
            assert!(!is_good(&format!("{token}{extra}")), "{extra:?} behind");
            assert!(!is_good(&format!("{extra}{token}")), "{extra:?} before");
        }
        let padded = token.replace('.', "==.");
        assert!(!is_good(&padded));
        assert!(!is_good(&token.repeat(4)));
        for text in ["", ".", "..", "...", "a.b.c", "a.b", "a.b.c.d.e"] {
            assert!(!is_good(text), "{text}");
        }
    }

    #[test]
    fn bits_that_nobody_reads_must_be_zero() {
        // 64 bytes end in two letters of which the last has four bits that are not used.
        let token = key().sign(&claims());
        let (start, last) = token.split_at(token.len() - 1);
        const LETTERS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let good: Vec<char> = LETTERS
            .chars()
            .filter(|letter| is_good(&format!("{start}{letter}")))
            .collect();
        assert_eq!(good, last.chars().collect::<Vec<_>>());
    }

    #[test]
    fn claims_are_those_that_this_device_makes_and_no_others() {
        let good = claims_text();
        let swap = |from: &str, to: &str| {
            assert!(good.contains(from), "{from}");
            good.replace(from, to)
        };
        for text in [
            swap("\"iss\":\"edgeweb\"", "\"iss\":\"other\""),
            swap("\"iss\":\"edgeweb\",", ""),
            swap("\"aud\":\"device\"", "\"aud\":\"another\""),
            swap("\"aud\":\"device\"", "\"aud\":[\"device\"]"),
            swap("\"exp\":1800003600", "\"exp\":1800000000"),
            swap("\"exp\":1800003600", "\"exp\":1799999999"),
            swap("\"exp\":1800003600", "\"exp\":-1"),
            swap("\"exp\":1800003600", "\"exp\":1e99"),
            swap("\"exp\":1800003600", "\"exp\":\"1800003600\""),
            swap("\"exp\":1800003600", "\"exp\":null"),
            swap("\"exp\":1800003600,", ""),
            swap("\"nbf\":1800000000", "\"nbf\":1800000061"),
            swap("\"role\":\"admin\"", "\"role\":\"root\""),
            swap("\"role\":\"admin\"", "\"role\":\"user\",\"role\":\"admin\""),
            swap("\"gen\":1", "\"gen\":1,\"gen\":2"),
            swap("\"gen\":1", "\"gen\":1,\"x\":1"),
            swap("{", "[").replace('}', "]"),
            format!("{good}{good}"),
            String::from("null"),
            String::new(),
        ] {
            assert!(!is_good(&signed(HEADER, &text)), "{text}");
        }
        for text in [
            swap("\"nbf\":1800000000", "\"nbf\":1800000060"),
            swap("\"exp\":1800003600", "\"exp\":1800000001"),
        ] {
            assert!(is_good(&signed(HEADER, &text)), "{text}");
        }
    }

    #[test]
    fn a_token_that_is_too_long_is_not_looked_at() {
        let long = claims_text().replace("ann", &"a".repeat(1000));
        assert!(signed(HEADER, &long).len() > MAX_TOKEN);
        assert!(!is_good(&signed(HEADER, &long)));
        assert!(!is_good(&"a".repeat(1 << 20)));
    }
}
