//! Whose certificates clients may show: trust anchors, and lists of what was revoked (RFC 5280, section 5).

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    SignatureScheme,
};
use serde::{Serialize, Serializer};
use x509_cert::crl::CertificateList;
use x509_cert::der::Decode;

use super::certificate::{Facts, check_algorithm, check_signature, rfc3339, rfc4514};
use super::identity::Source;

/// The largest file of trust anchors, and the largest of revocation lists, in bytes of PEM.
pub(crate) const MAX_TRUST_BYTES: usize = 256 * 1024;
/// The most trust anchors.
const MAX_ANCHORS: usize = 64;
/// The most revocation lists.
const MAX_CRLS: usize = 16;

/// Why trust anchors or revocation lists are not taken. Each text is one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TrustRefusal {
    #[error("it is larger than {MAX_TRUST_BYTES} bytes; is it the right file?")]
    TooLarge,
    #[error("it is no PEM: a section is cut off or is not base64 (RFC 7468)")]
    Pem,
    #[error("there is a private key in it; whoever signs keeps that, and it is compromised now")]
    PrivateKey,
    #[error("there is no certificate in it, no BEGIN CERTIFICATE")]
    NoCertificate,
    #[error(
        "there are more than {MAX_ANCHORS} certificates in it; send those who sign for clients"
    )]
    TooManyCertificates,
    #[error("certificate {0} cannot be read: it is damaged, or breaks RFC 5280")]
    MalformedCertificate(usize),
    #[error("certificate {0} is not a CA's: its basic constraints lack CA:TRUE")]
    NoCa(usize),
    #[error("certificate {0} is there twice")]
    Repeated(usize),
    #[error("there is no revocation list in it, no BEGIN X509 CRL")]
    NoCrl,
    #[error("there are more than {MAX_CRLS} revocation lists in it; send one for each issuer")]
    TooManyCrls,
    #[error("revocation list {0} cannot be read: it is damaged, or is a delta list")]
    MalformedCrl(usize),
    #[error("revocation list {0} is signed in a way that is not safe or not known, such as SHA-1")]
    CrlAlgorithm(usize),
    #[error("revocation list {0} is not signed by the trust anchor that it names as its issuer")]
    CrlSignature(usize),
    #[error("there are no trust anchors; install those first")]
    NoAnchors,
}

/// Who signs for clients.
#[derive(Clone, Debug)]
pub(super) struct Anchor {
    pub(super) der: CertificateDer<'static>,
    pub(super) facts: Facts,
}

/// What an issuer revoked.
#[derive(Clone, Debug)]
pub(super) struct Crl {
    pub(super) der: CertificateRevocationListDer<'static>,
    pub(super) facts: CrlFacts,
}

/// What a revocation list says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct CrlFacts {
    /// As RFC 4514 writes it.
    pub(crate) issuer: String,
    /// Seconds of Unix time; RFC 3339 where it is shown.
    #[serde(serialize_with = "as_rfc3339")]
    pub(crate) this_update: i64,
    /// Seconds of Unix time; RFC 3339 where it is shown.
    #[serde(serialize_with = "option_as_rfc3339")]
    pub(crate) next_update: Option<i64>,
    /// How many certificates it revokes.
    pub(crate) revoked: usize,
}

fn as_rfc3339<S: Serializer>(seconds: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&rfc3339(*seconds))
}

fn option_as_rfc3339<S: Serializer>(
    seconds: &Option<i64>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match seconds {
        Some(seconds) => as_rfc3339(seconds, serializer),
        None => serializer.serialize_none(),
    }
}

fn refuse_keys(pem: &[u8]) -> Result<(), TrustRefusal> {
    if pem.len() > MAX_TRUST_BYTES {
        return Err(TrustRefusal::TooLarge);
    }
    let is_key = |line: &[u8]| {
        line.starts_with(b"-----BEGIN ") && line.trim_ascii_end().ends_with(b"PRIVATE KEY-----")
    };
    if pem.split(|byte| matches!(byte, b'\n' | b'\r')).any(is_key) {
        return Err(TrustRefusal::PrivateKey);
    }
    Ok(())
}

/// Takes trust anchors out of `pem`; text around them is passed over.
pub(super) fn parse_anchors(pem: &[u8]) -> Result<Vec<Anchor>, TrustRefusal> {
    refuse_keys(pem)?;
    let mut anchors: Vec<Anchor> = Vec::new();
    let mut roots = RootCertStore::empty();
    for (der, position) in CertificateDer::pem_slice_iter(pem).zip(1..) {
        let der: CertificateDer<'static> = der.map_err(|_| TrustRefusal::Pem)?;
        if position > MAX_ANCHORS {
            return Err(TrustRefusal::TooManyCertificates);
        }
        let malformed = TrustRefusal::MalformedCertificate(position);
        let facts = Facts::read(&der).map_err(|_| malformed.clone())?;
        if !facts.is_ca {
            return Err(TrustRefusal::NoCa(position));
        }
        if anchors.iter().any(|known| known.der == der) {
            return Err(TrustRefusal::Repeated(position));
        }
        roots.add(der.clone()).map_err(|_| malformed)?;
        anchors.push(Anchor { der, facts });
    }
    if anchors.is_empty() {
        return Err(TrustRefusal::NoCertificate);
    }
    Ok(anchors)
}

/// Takes revocation lists out of `pem`, the newest first: where two are of the same issuer, the first one counts.
pub(super) fn parse_crls(pem: &[u8]) -> Result<Vec<Crl>, TrustRefusal> {
    refuse_keys(pem)?;
    let mut crls: Vec<Crl> = Vec::new();
    for (der, position) in CertificateRevocationListDer::pem_slice_iter(pem).zip(1..) {
        let der: CertificateRevocationListDer<'static> = der.map_err(|_| TrustRefusal::Pem)?;
        if position > MAX_CRLS {
            return Err(TrustRefusal::TooManyCrls);
        }
        let malformed = || TrustRefusal::MalformedCrl(position);
        let facts = CrlFacts::read(&der).ok_or_else(malformed)?;
        // A list whose signature cannot be checked would make every handshake fail.
        check_algorithm(&der).map_err(|_| TrustRefusal::CrlAlgorithm(position))?;
        crls.push(Crl { der, facts });
    }
    if crls.is_empty() {
        return Err(TrustRefusal::NoCrl);
    }
    crls.sort_by_key(|crl| std::cmp::Reverse(crl.facts.this_update));
    Ok(crls)
}

impl CrlFacts {
    fn read(der: &[u8]) -> Option<Self> {
        let list: CertificateList = CertificateList::from_der(der).ok()?;
        let list = list.tbs_cert_list;
        let seconds = |time: x509_cert::time::Time| {
            i64::try_from(time.to_unix_duration().as_secs()).unwrap_or(i64::MAX)
        };
        Some(Self {
            issuer: rfc4514(&list.issuer).ok()?,
            this_update: seconds(list.this_update),
            next_update: list.next_update.map(seconds),
            revoked: list.revoked_certificates.map_or(0, |revoked| revoked.len()),
        })
    }
}

/// Checks the lists of issuers that are trust anchors themselves; what an intermediate signed shows in a handshake.
pub(super) fn check_crls(crls: &[Crl], anchors: &[Anchor]) -> Result<(), TrustRefusal> {
    if anchors.is_empty() {
        return Err(TrustRefusal::NoAnchors);
    }
    for (crl, position) in crls.iter().zip(1..) {
        let mut issuers = anchors
            .iter()
            .filter(|anchor| anchor.facts.subject == crl.facts.issuer)
            .peekable();
        // A CA that changed its key has two anchors of one name.
        if issuers.peek().is_some()
            && !issuers.any(|issuer| check_signature(&crl.der, &issuer.der).is_ok())
        {
            return Err(TrustRefusal::CrlSignature(position));
        }
    }
    Ok(())
}

/// How clients' certificates are verified.
#[derive(Clone)]
pub(super) struct Trust {
    pub(super) anchors: Vec<Anchor>,
    pub(super) anchors_from: Option<Source>,
    pub(super) crls: Vec<Crl>,
    pub(super) crls_from: Option<Source>,
    /// Where clients may show certificates; `None`: they are not asked, for there is nobody to trust.
    pub(super) optional: Option<Arc<dyn ClientCertVerifier>>,
    /// Where they must.
    pub(super) required: Arc<dyn ClientCertVerifier>,
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust")
            .field("anchors", &self.anchors.len())
            .field("crls", &self.crls.len())
            .finish_non_exhaustive()
    }
}

impl Trust {
    /// Nobody is trusted because there is nobody to trust: who must show a certificate is refused.
    pub(super) fn nobody() -> Self {
        Self {
            anchors: Vec::new(),
            anchors_from: None,
            crls: Vec::new(),
            crls_from: None,
            optional: None,
            required: Arc::new(RefuseAll { mandatory: true }),
        }
    }

    /// Nobody is trusted because it is not known whom to trust: every certificate that a client shows is refused.
    pub(super) fn unknown() -> Self {
        Self {
            optional: Some(Arc::new(RefuseAll { mandatory: false })),
            ..Self::nobody()
        }
    }

    /// Who has a certificate by one of `anchors` that is on none of `crls`.
    ///
    /// An issuer without a list revokes nothing, and a list is not refused because its next one is overdue: a device
    /// whose network or manager fails must not lock out those who repair it. The log says that it is overdue.
    pub(super) fn new(anchors: Vec<Anchor>, crls: Vec<Crl>) -> Result<Self, String> {
        if anchors.is_empty() {
            return Ok(Self::nobody());
        }
        let mut roots = RootCertStore::empty();
        for anchor in &anchors {
            roots
                .add(anchor.der.clone())
                .map_err(|error| error.to_string())?;
        }
        let builder = WebPkiClientVerifier::builder_with_provider(
            Arc::new(roots),
            Arc::new(default_provider()),
        )
        .with_crls(crls.iter().map(|crl| crl.der.clone()))
        .allow_unknown_revocation_status();
        let optional = builder.clone().allow_unauthenticated().build();
        let optional = optional.map_err(|error| error.to_string())?;
        let required = builder.build().map_err(|error| error.to_string())?;
        Ok(Self {
            anchors,
            crls,
            optional: Some(optional),
            required,
            ..Self::nobody()
        })
    }
}

/// Refuses every certificate; a handshake without one, too, where one must be shown. rustls makes no verifier without
/// trust anchors, and to ask for nothing instead would let everybody in.
#[derive(Debug)]
struct RefuseAll {
    mandatory: bool,
}

impl ClientCertVerifier for RefuseAll {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Err(CertificateError::UnknownIssuer.into())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(CertificateError::BadSignature.into())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(CertificateError::BadSignature.into())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
