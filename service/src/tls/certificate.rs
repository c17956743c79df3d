//! What a certificate says (RFC 5280), read once and kept.

use std::fmt::Write;
use std::net::IpAddr;

use ring::digest::{SHA256, digest};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use x509_cert::Certificate;
use x509_cert::der::asn1::{ObjectIdentifier, OctetString};
use x509_cert::der::{Decode, Encode, Header, Reader, SliceReader};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{
    BasicConstraints, ExtendedKeyUsage, KeyUsage, KeyUsages, SubjectAltName,
};
use x509_cert::name::Name;
use x509_cert::spki::SubjectPublicKeyInfoOwned;

use super::clock;

const SERVER_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.1");
const ANY_PURPOSE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37.0");
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const P521: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.35");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    /// As RFC 4514 writes it.
    pub(crate) subject: String,
    /// As RFC 4514 writes it.
    pub(crate) issuer: String,
    /// The host names (dNSName) in lower case.
    pub(crate) names: Vec<String>,
    /// The addresses (iPAddress).
    pub(crate) addresses: Vec<IpAddr>,
    /// Seconds of Unix time.
    pub(crate) not_before: i64,
    /// Seconds of Unix time.
    pub(crate) not_after: i64,
    /// Such as `ECDSA P-256`.
    pub(crate) key_type: KeyType,
    /// SHA-256 of the certificate, in hexadecimal with colons, as browsers show it.
    pub(crate) fingerprint_sha256: String,
    /// SHA-256 of the public key (SubjectPublicKeyInfo), likewise: what a pin holds on to over a renewal.
    pub(crate) key_sha256: String,
    /// The URIs (uniformResourceIdentifier), as they stand there.
    pub(super) uris: Vec<String>,
    pub(super) is_ca: bool,
    /// Whether it may sign handshakes.
    pub(super) may_sign: bool,
    /// Whether it may be a server's.
    pub(super) may_serve: bool,
    /// Whether subject and issuer are the same.
    pub(super) self_issued: bool,
}

/// The kind of a public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyType {
    /// With the length of its modulus in bits.
    Rsa(usize),
    EcdsaP256,
    EcdsaP384,
    EcdsaP521,
    Ed25519,
    Other,
}

impl std::fmt::Display for KeyType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Rsa(bits) => write!(f, "RSA {bits}"),
            Self::EcdsaP256 => f.write_str("ECDSA P-256"),
            Self::EcdsaP384 => f.write_str("ECDSA P-384"),
            Self::EcdsaP521 => f.write_str("ECDSA P-521"),
            Self::Ed25519 => f.write_str("Ed25519"),
            Self::Other => f.write_str("of an unknown kind"),
        }
    }
}

/// A time as people and programs read it.
pub(super) fn rfc3339(seconds: i64) -> String {
    OffsetDateTime::from_unix_timestamp(seconds)
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_else(|| seconds.to_string())
}

/// A certificate that is none, or says something twice.
#[derive(Debug)]
pub(super) struct Malformed;

impl From<x509_cert::der::Error> for Malformed {
    fn from(_: x509_cert::der::Error) -> Self {
        Self
    }
}

impl Facts {
    pub(super) fn read(der: &CertificateDer<'_>) -> Result<Self, Malformed> {
        let certificate = Certificate::from_der(der)?;
        let tbs = certificate.tbs_certificate();
        let validity = tbs.validity();
        let key = tbs.subject_public_key_info();
        let mut names = Vec::new();
        let mut addresses = Vec::new();
        let mut uris = Vec::new();
        if let Some((_, SubjectAltName(all))) = tbs.get_extension::<SubjectAltName>()? {
            for name in all {
                match name {
                    GeneralName::DnsName(name) => names.push(name.as_str().to_ascii_lowercase()),
                    GeneralName::IpAddress(octets) => addresses.push(address(&octets)?),
                    GeneralName::UniformResourceIdentifier(uri) => {
                        uris.push(uri.as_str().to_owned());
                    }
                    _ => {}
                }
            }
        }
        let basic = tbs.get_extension::<BasicConstraints>()?;
        let usage = tbs.get_extension::<KeyUsage>()?;
        let purposes = tbs.get_extension::<ExtendedKeyUsage>()?;
        Ok(Self {
            subject: rfc4514(tbs.subject())?,
            issuer: rfc4514(tbs.issuer())?,
            names,
            addresses,
            not_before: seconds(validity.not_before),
            not_after: seconds(validity.not_after),
            key_type: key_type(key),
            fingerprint_sha256: sha256_hex(der),
            key_sha256: sha256_hex(&key.to_der()?),
            uris,
            is_ca: basic.is_some_and(|(_, basic)| basic.ca),
            may_sign: usage.is_none_or(|(_, usage)| usage.0.contains(KeyUsages::DigitalSignature)),
            may_serve: purposes.is_none_or(|(_, ExtendedKeyUsage(purposes))| {
                purposes.contains(&SERVER_AUTH) || purposes.contains(&ANY_PURPOSE)
            }),
            self_issued: tbs.subject() == tbs.issuer(),
        })
    }

    /// From when on it is valid, as RFC 3339 writes it.
    pub(crate) fn begin(&self) -> String {
        rfc3339(self.not_before)
    }

    /// When it ends, as RFC 3339 writes it.
    pub(crate) fn end(&self) -> String {
        rfc3339(self.not_after)
    }

    /// Whole days until it ends; negative when it has.
    pub(crate) fn days_left(&self) -> i64 {
        clock::days_left(self.not_after, clock::now())
    }
}

fn seconds(time: x509_cert::time::Time) -> i64 {
    i64::try_from(time.to_unix_duration().as_secs()).unwrap_or(i64::MAX)
}

fn address(octets: &OctetString) -> Result<IpAddr, Malformed> {
    let octets = octets.as_bytes();
    if let Ok(v4) = <[u8; 4]>::try_from(octets) {
        return Ok(v4.into());
    }
    <[u8; 16]>::try_from(octets)
        .map(IpAddr::from)
        .map_err(|_| Malformed)
}

/// A name as RFC 4514 writes it: `CN=ops,O=Maker`, what is special in a value escaped.
pub(super) fn rfc4514(name: &Name) -> Result<String, Malformed> {
    let mut text = String::new();
    write!(text, "{name}").map_err(|_| Malformed)?;
    Ok(text)
}

/// SHA-256 in hexadecimal with colons.
pub(super) fn sha256_hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(95);
    for (index, byte) in digest(&SHA256, bytes).as_ref().iter().enumerate() {
        let colon = if index == 0 { "" } else { ":" };
        // Writing to a String cannot fail.
        let _ = write!(text, "{colon}{byte:02X}");
    }
    text
}

fn key_type(key: &SubjectPublicKeyInfoOwned) -> KeyType {
    let curve = || {
        let parameters = key.algorithm.parameters.as_ref()?;
        parameters.decode_as::<ObjectIdentifier>().ok()
    };
    match key.algorithm.oid {
        RSA => KeyType::Rsa(modulus_bits(key.subject_public_key.raw_bytes()).unwrap_or(0)),
        ED25519 => KeyType::Ed25519,
        EC => match curve() {
            Some(P256) => KeyType::EcdsaP256,
            Some(P384) => KeyType::EcdsaP384,
            Some(P521) => KeyType::EcdsaP521,
            _ => KeyType::Other,
        },
        _ => KeyType::Other,
    }
}

/// Of an RSAPublicKey (RFC 8017, appendix A.1.1).
fn modulus_bits(key: &[u8]) -> Option<usize> {
    let mut reader = SliceReader::new(key).ok()?;
    Header::decode(&mut reader).ok()?;
    let modulus = x509_cert::der::asn1::UintRef::decode(&mut reader).ok()?;
    let bytes = modulus.as_bytes();
    let leading = bytes.first()?.leading_zeros() as usize;
    Some(bytes.len() * 8 - leading)
}

/// Why a signature does not hold.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum SignatureError {
    /// Not made in a way that is still safe, such as with SHA-1 or MD5, or not known here.
    Algorithm,
    /// Made by somebody else, or for something else.
    Wrong,
    /// What it stands in cannot be read.
    Malformed,
}

impl From<x509_cert::der::Error> for SignatureError {
    fn from(_: x509_cert::der::Error) -> Self {
        Self::Malformed
    }
}

/// What is signed, how, and the signature: a certificate (RFC 5280, section 4.1) or a CRL (section 5.1).
struct Signed<'a> {
    content: &'a [u8],
    /// AlgorithmIdentifier without its tag and length.
    algorithm: &'a [u8],
    signature: &'a [u8],
}

impl<'a> Signed<'a> {
    /// The bytes as they were signed; to encode again what was decoded might give others.
    fn read(der: &'a [u8]) -> Result<Self, SignatureError> {
        let mut reader = SliceReader::new(der)?;
        Header::decode(&mut reader)?;
        let content = reader.tlv_bytes()?;
        let algorithm = value(reader.tlv_bytes()?)?;
        let signature = value(reader.tlv_bytes()?)?;
        // A BIT STRING says first how many bits of its last byte are unused.
        match signature.split_first() {
            Some((0, signature)) => Ok(Self {
                content,
                algorithm,
                signature,
            }),
            _ => Err(SignatureError::Malformed),
        }
    }
}

/// What follows tag and length.
fn value(tlv: &[u8]) -> Result<&[u8], SignatureError> {
    let mut reader = SliceReader::new(tlv)?;
    let header = Header::decode(&mut reader)?;
    Ok(reader.read_slice(header.length())?)
}

/// Whether what signed `signed`, a certificate or a CRL, can be checked at all.
pub(super) fn check_algorithm(signed: &[u8]) -> Result<(), SignatureError> {
    let signed = Signed::read(signed)?;
    let known = default_provider().signature_verification_algorithms.all;
    if known
        .iter()
        .any(|known| known.signature_alg_id().as_ref() == signed.algorithm)
    {
        Ok(())
    } else {
        Err(SignatureError::Algorithm)
    }
}

/// Whether the key of `issuer` signed `signed`, a certificate or a CRL.
pub(super) fn check_signature(
    signed: &[u8],
    issuer: &CertificateDer<'_>,
) -> Result<(), SignatureError> {
    let signed = Signed::read(signed)?;
    let issuer = Certificate::from_der(issuer)?;
    let key = issuer.tbs_certificate().subject_public_key_info();
    let key_algorithm = key.algorithm.to_der()?;
    let key_algorithm = value(&key_algorithm)?;
    let mut known_algorithm = false;
    for algorithm in default_provider().signature_verification_algorithms.all {
        if algorithm.signature_alg_id().as_ref() != signed.algorithm {
            continue;
        }
        known_algorithm = true;
        if algorithm.public_key_alg_id().as_ref() == key_algorithm
            && algorithm
                .verify_signature(
                    key.subject_public_key.raw_bytes(),
                    signed.content,
                    signed.signature,
                )
                .is_ok()
        {
            return Ok(());
        }
    }
    Err(if known_algorithm {
        SignatureError::Wrong
    } else {
        SignatureError::Algorithm
    })
}
