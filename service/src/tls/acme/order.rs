//! One order (RFC 8555, section 7.4): from the account to a certificate that has proved itself.

use std::sync::Arc;
use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, ChallengeHandle, ChallengeType, Error, Identifier, NewOrder,
    Order, OrderStatus, Problem, RetryPolicy,
};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use rustls::crypto::ring::sign::any_ecdsa_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use zeroize::Zeroizing;

use super::account::{AccountFile, Failed};
use super::http_client::AcmeHttpClient;
use super::proof;
use crate::config::{AcmeChallenge, AcmeConfig};
use crate::tls::Shared;

/// The largest chain that is taken, in bytes of PEM.
const MAX_CHAIN_BYTES: usize = 64 * 1024;
/// Within an order that is bounded as a whole, how long to ask whether it has come further: after half a second
/// first, then after twice the time before, or when the authority says.
const POLLS: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(500))
    .backoff(1.5)
    .timeout(Duration::from_secs(120));

/// What an order brought.
pub(super) struct Issued {
    /// In PEM: the device's certificate, its chain, and the key, which was made for this order and is known nowhere
    /// else.
    pub(super) bundle: Zeroizing<Vec<u8>>,
    /// The device's certificate.
    pub(super) leaf: CertificateDer<'static>,
}

/// Orders a certificate. What is shown to the authority is taken back at the end, however it comes.
pub(super) async fn issue(
    config: &AcmeConfig,
    client: &AcmeHttpClient,
    account_file: &mut AccountFile,
    tls: &Arc<Shared>,
) -> Result<Issued, String> {
    let mut order = new_order(config, client, account_file).await?;
    let shown = answer_challenges(config, &mut order, tls).await?;
    let ready = order.poll_ready(&POLLS).await;
    if !matches!(ready, Ok(OrderStatus::Ready)) {
        return Err(match why_invalid(&mut order).await {
            Some(problem) => problem,
            None => match ready {
                Ok(_) => String::from("the authority says that the order is invalid"),
                Err(error) => text(&error),
            },
        });
    }
    drop(shown);
    let key = KeyPair::generate().map_err(|error| error.to_string())?;
    order
        .finalize_csr(&request(config, &key)?)
        .await
        .map_err(|error| text(&error))?;
    let chain = order
        .poll_certificate(&POLLS)
        .await
        .map_err(|error| text(&error))?;
    take(config, chain, &key)
}

/// An order of the account, which is made anew if its authority has closed or forgotten it.
async fn new_order(
    config: &AcmeConfig,
    client: &AcmeHttpClient,
    account_file: &mut AccountFile,
) -> Result<Order, String> {
    let identifiers: Vec<Identifier> = config
        .names
        .iter()
        .map(|name| Identifier::Dns(name.to_ascii_lowercase()))
        .collect();
    let error = match try_order(config, client, account_file, &identifiers).await {
        Ok(order) => return Ok(order),
        Err(Failed::Acme(error)) if may_mean_no_account(&error) => error,
        Err(failed) => return Err(failed_text(&failed)),
    };
    // An authority that refuses these names may say the same; for that no account is given up.
    if account_file.is_accepted(config, client).await {
        return Err(text(&error));
    }
    log::warn!(
        "acme: {} no longer knows the account, a new one is made: {}",
        config.directory_url,
        text(&error)
    );
    account_file.forget();
    try_order(config, client, account_file, &identifiers)
        .await
        .map_err(|failed| failed_text(&failed))
}

async fn try_order(
    config: &AcmeConfig,
    client: &AcmeHttpClient,
    account_file: &mut AccountFile,
    identifiers: &[Identifier],
) -> Result<Order, Failed> {
    let account: Account = account_file.open(config, client).await?;
    Ok(account.new_order(&NewOrder::new(identifiers)).await?)
}

/// RFC 8555, section 7.3.6, and what is said of an account of which nothing is known.
pub(super) fn may_mean_no_account(error: &Error) -> bool {
    let Error::Api(problem) = error else {
        return false;
    };
    matches!(
        problem.r#type.as_deref(),
        Some(
            "urn:ietf:params:acme:error:accountDoesNotExist"
                | "urn:ietf:params:acme:error:unauthorized"
        )
    )
}

/// What is shown to the authority, until this is dropped.
struct Shown {
    tls: Arc<Shared>,
    tokens: Vec<String>,
    names: Vec<String>,
}

impl Drop for Shown {
    fn drop(&mut self) {
        for token in &self.tokens {
            self.tls.clear_http_challenge(token);
        }
        for name in &self.names {
            self.tls.clear_alpn_challenge(name);
        }
    }
}

async fn answer_challenges(
    config: &AcmeConfig,
    order: &mut Order,
    tls: &Arc<Shared>,
) -> Result<Shown, String> {
    let mut shown = Shown {
        tls: Arc::clone(tls),
        tokens: Vec::new(),
        names: Vec::new(),
    };
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization.map_err(|error| text(&error))?;
        match authorization.status {
            AuthorizationStatus::Pending => {}
            // The authority remembers an earlier order.
            AuthorizationStatus::Valid => continue,
            status => {
                return Err(format!(
                    "the authority's authorization for {} is {status:?}",
                    authorization.identifier()
                ));
            }
        }
        let Identifier::Dns(name) = authorization.identifier().identifier.clone() else {
            return Err(String::from(
                "the authority asks for something else than a name",
            ));
        };
        let kind = match config.challenge {
            AcmeChallenge::Http01 => ChallengeType::Http01,
            AcmeChallenge::TlsAlpn01 => ChallengeType::TlsAlpn01,
        };
        let mut challenge = authorization
            .challenge(kind)
            .ok_or_else(|| format!("the authority does not take tls.acme.challenge for {name}"))?;
        show(config.challenge, &challenge, name, &mut shown)?;
        challenge.set_ready().await.map_err(|error| text(&error))?;
    }
    Ok(shown)
}

fn show(
    kind: AcmeChallenge,
    challenge: &ChallengeHandle<'_>,
    name: String,
    shown: &mut Shown,
) -> Result<(), String> {
    let answer = challenge.key_authorization();
    match kind {
        AcmeChallenge::Http01 => {
            shown
                .tls
                .set_http_challenge(&challenge.token, answer.as_str())
                .map_err(|error| error.to_string())?;
            shown.tokens.push(challenge.token.clone());
        }
        AcmeChallenge::TlsAlpn01 => {
            let key = alpn_certificate(&name, answer.digest().as_ref())?;
            shown
                .tls
                .set_alpn_challenge(&name, Arc::new(key))
                .map_err(|error| error.to_string())?;
            shown.names.push(name);
        }
    }
    Ok(())
}

/// RFC 8737, section 3: self-signed, for the one name, with the digest of the key authorization.
fn alpn_certificate(name: &str, digest: &[u8]) -> Result<CertifiedKey, String> {
    let mut params = CertificateParams::new([name.to_owned()]).map_err(|e| e.to_string())?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let key = KeyPair::generate().map_err(|error| error.to_string())?;
    let certificate = params
        .self_signed(&key)
        .map_err(|error| error.to_string())?;
    let signer = any_ecdsa_type(&der(&key)).map_err(|error| error.to_string())?;
    Ok(CertifiedKey::new(vec![certificate.der().clone()], signer))
}

fn der(key: &KeyPair) -> PrivateKeyDer<'static> {
    PrivatePkcs8KeyDer::from(key.serialize_der()).into()
}

/// The certificate signing request for the names of `config`.
fn request(config: &AcmeConfig, key: &KeyPair) -> Result<Vec<u8>, String> {
    let names: Vec<String> = config
        .names
        .iter()
        .map(|n| n.to_ascii_lowercase())
        .collect();
    let mut params = CertificateParams::new(names).map_err(|error| error.to_string())?;
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(key).map_err(|e| e.to_string())?;
    Ok(request.der().to_vec())
}

/// Takes what the authority sent if it does what it was ordered for.
fn take(config: &AcmeConfig, chain: String, key: &KeyPair) -> Result<Issued, String> {
    let refused = |reason: &str| format!("what the authority sent is not taken: {reason}");
    if chain.len() > MAX_CHAIN_BYTES {
        return Err(refused(&format!(
            "it is larger than {MAX_CHAIN_BYTES} bytes"
        )));
    }
    let certificates = CertificateDer::pem_slice_iter(chain.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| refused(&error.to_string()))?;
    let leaf = certificates
        .first()
        .ok_or_else(|| refused("there is no certificate in it"))?
        .clone();
    proof::prove(certificates, der(key), &config.names).map_err(|error| refused(&error))?;
    let key = Zeroizing::new(key.serialize_pem());
    // Growing would leave a copy of the key behind.
    let mut bundle = Zeroizing::new(Vec::with_capacity(chain.len() + 1 + key.len()));
    bundle.extend_from_slice(chain.as_bytes());
    bundle.push(b'\n');
    bundle.extend_from_slice(key.as_bytes());
    Ok(Issued { bundle, leaf })
}

/// What the authority says about the first name that it does not believe.
async fn why_invalid(order: &mut Order) -> Option<String> {
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let state = authorization.refresh().await.ok()?;
        let problem = state.challenges.iter().find_map(|c| c.error.as_ref());
        if let Some(problem) = problem.map(problem_text) {
            return Some(format!("{}: {problem}", authorization.identifier()));
        }
    }
    None
}

fn failed_text(failed: &Failed) -> String {
    match failed {
        Failed::Acme(error) => text(error),
        Failed::Storage(reason) => reason.clone(),
    }
}

fn text(error: &Error) -> String {
    match error {
        Error::Api(problem) => problem_text(problem),
        Error::Timeout(_) => String::from("the authority has not decided in time"),
        Error::Json(error) => format!("what the authority sent is not understood: {error}"),
        error => error.to_string(),
    }
}

/// Type and detail (RFC 9457), and what is said of each name.
fn problem_text(problem: &Problem) -> String {
    let mut text = said(problem.detail.as_deref(), problem.r#type.as_deref());
    for part in &problem.subproblems {
        text.push_str("; ");
        text.push_str(&said(part.detail.as_deref(), part.r#type.as_deref()));
    }
    text
}

fn said(detail: Option<&str>, kind: Option<&str>) -> String {
    let kind = kind.unwrap_or("no type given");
    let kind = kind
        .strip_prefix("urn:ietf:params:acme:error:")
        .unwrap_or(kind);
    format!("{kind}: {}", detail.unwrap_or("no reason given"))
}
