//! What the device shows an ACME authority while a certificate is being issued (RFC 8555, section 8).

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::sign::CertifiedKey;

/// The protocol of a handshake that an authority makes (RFC 8737, section 3).
pub(crate) const ACME_TLS_ALPN: &[u8] = b"acme-tls/1";
/// Challenges of each kind at a time: as many as a certificate may have names.
const MAX_CHALLENGES: usize = 16;
/// The longest token that is taken, in characters; authorities use 43.
const MAX_TOKEN: usize = 128;
/// The longest key authorization: a token, a dot and a thumbprint, in characters.
const MAX_KEY_AUTHORIZATION: usize = 256;

/// A challenge that cannot be taken up.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ChallengeError {
    /// There are as many as a certificate has names.
    #[error("there are {MAX_CHALLENGES} challenges already")]
    TooMany,
    /// Something else than the base64url that RFC 8555, section 8.3, has.
    #[error("the authority's token is not 1 to {MAX_TOKEN} characters of base64url")]
    Token,
}

/// The challenges that wait for their authority.
#[derive(Debug, Default)]
pub(super) struct Challenges {
    /// By server name, in lower case.
    alpn: RwLock<BTreeMap<String, Arc<CertifiedKey>>>,
    /// By token.
    http: RwLock<BTreeMap<String, String>>,
}

impl Challenges {
    pub(super) fn set_alpn(
        &self,
        name: &str,
        key: Arc<CertifiedKey>,
    ) -> Result<(), ChallengeError> {
        insert(&self.alpn, name.to_ascii_lowercase(), key)
    }

    pub(super) fn clear_alpn(&self, name: &str) {
        let mut alpn = self.alpn.write().unwrap_or_else(PoisonError::into_inner);
        alpn.remove(&name.to_ascii_lowercase());
    }

    /// The certificate that answers the challenge for `name`.
    pub(super) fn alpn(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let alpn = self.alpn.read().unwrap_or_else(PoisonError::into_inner);
        alpn.get(&name.to_ascii_lowercase()).cloned()
    }

    /// Whether any handshake of an authority is waited for.
    pub(super) fn any_alpn(&self) -> bool {
        let alpn = self.alpn.read().unwrap_or_else(PoisonError::into_inner);
        !alpn.is_empty()
    }

    pub(super) fn set_http(
        &self,
        token: &str,
        key_authorization: &str,
    ) -> Result<(), ChallengeError> {
        if !is_token(token) || key_authorization.len() > MAX_KEY_AUTHORIZATION {
            return Err(ChallengeError::Token);
        }
        insert(&self.http, token.to_owned(), key_authorization.to_owned())
    }

    pub(super) fn clear_http(&self, token: &str) {
        let mut http = self.http.write().unwrap_or_else(PoisonError::into_inner);
        http.remove(token);
    }

    /// What `GET /.well-known/acme-challenge/{token}` answers.
    pub(super) fn http(&self, token: &str) -> Option<String> {
        let http = self.http.read().unwrap_or_else(PoisonError::into_inner);
        http.get(token).cloned()
    }
}

fn insert<T>(
    map: &RwLock<BTreeMap<String, T>>,
    key: String,
    value: T,
) -> Result<(), ChallengeError> {
    let mut map = map.write().unwrap_or_else(PoisonError::into_inner);
    if map.len() >= MAX_CHALLENGES && !map.contains_key(&key) {
        return Err(ChallengeError::TooMany);
    }
    map.insert(key, value);
    Ok(())
}

fn is_token(token: &str) -> bool {
    (1..=MAX_TOKEN).contains(&token.len())
        && token
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_bounded_in_number_and_form() {
        let challenges = Challenges::default();
        for token in ["", "a/b", "a.b", "a=", "ä", &"a".repeat(MAX_TOKEN + 1)] {
            assert_eq!(challenges.set_http(token, "x"), Err(ChallengeError::Token));
        }
        let long = "a".repeat(MAX_KEY_AUTHORIZATION + 1);
        assert_eq!(challenges.set_http("a", &long), Err(ChallengeError::Token));
        for number in 0..MAX_CHALLENGES {
            challenges
                .set_http(&format!("t-{number}"), "answer")
                .unwrap();
        }
        assert_eq!(
            challenges.set_http("one-more", "x"),
            Err(ChallengeError::TooMany)
        );
        // One that is there already may change.
        challenges.set_http("t-0", "other").unwrap();
        assert_eq!(challenges.http("t-0").as_deref(), Some("other"));
        challenges.clear_http("t-0");
        assert_eq!(challenges.http("t-0"), None);
        challenges.set_http("one-more", "x").unwrap();
    }
}
