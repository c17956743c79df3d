//! What an identity must be before a handshake presents it.

use std::fmt;
use std::sync::Arc;

use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::{PemObject, SectionKind};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_cert::der::pem::{LineEnding, encode_string};
use zeroize::Zeroizing;

use super::certificate::{
    Facts, KeyType, SignatureError, check_algorithm, check_signature, rfc3339,
};

/// The longest chain and key together, in bytes of PEM.
pub(crate) const MAX_BUNDLE_BYTES: usize = 64 * 1024;
/// The longest chain, in certificates.
const MAX_CHAIN: usize = 8;
/// The least modulus of an RSA key, in bits.
const MIN_RSA: usize = 2048;
/// The largest modulus of an RSA key that *ring* signs with, in bits.
const MAX_RSA: usize = 4096;

/// Why a chain and key are not taken. Each text is one line, and none has anything of a key in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("it is larger than {MAX_BUNDLE_BYTES} bytes; is it the right file?")]
    TooLarge,
    #[error("it is no PEM: a section is cut off or is not base64 (RFC 7468)")]
    Pem,
    #[error("there is no certificate in it, no BEGIN CERTIFICATE")]
    NoCertificate,
    #[error("there are more than {MAX_CHAIN} certificates in it; a chain needs two or three")]
    TooManyCertificates,
    #[error("there is more than one private key in it; send the one of the first certificate")]
    TooManyKeys,
    #[error(
        "the private key is encrypted, and nobody is there to type its password; \
         decrypt it first: openssl pkey -in FILE"
    )]
    EncryptedKey,
    #[error(
        "the private key is of a kind that is not taken; PKCS#8, SEC1 (EC) and PKCS#1 (RSA) are"
    )]
    KeyForm,
    #[error("certificate {0} cannot be read: it is damaged, or breaks RFC 5280")]
    Malformed(usize),
    #[error("certificate {0} is there twice")]
    Repeated(usize),
    #[error(
        "the key of certificate {position} is {kind}; \
         ECDSA P-256 and P-384, Ed25519 and RSA of {MIN_RSA} to {MAX_RSA} bits are taken"
    )]
    KeyKind { position: usize, kind: KeyType },
    #[error(
        "certificate {0} is signed in a way that is not safe or not known; \
         SHA-256, SHA-384 or SHA-512 with RSA or ECDSA, and Ed25519 are taken, SHA-1 and MD5 are not"
    )]
    SignatureAlgorithm(usize),
    #[error(
        "the first certificate is a CA's; the device's own comes first, then each one's issuer"
    )]
    LeafIsCa,
    #[error(
        "the first certificate names neither a host nor an address (subjectAltName); \
         clients do not look at its common name"
    )]
    NoNames,
    #[error("the first certificate is not for servers: its extended key usage lacks serverAuth")]
    NotForServers,
    #[error("the first certificate may not sign: its key usage lacks digitalSignature")]
    MayNotSign,
    #[error(
        "certificate {0} is not issued by the one after it; \
         the device's own comes first, then each one's issuer"
    )]
    Order(usize),
    #[error("the signature of certificate {0} does not hold; was it changed or cut together?")]
    Signature(usize),
    #[error("certificate {0} signs the one before it, but is not a CA's")]
    IssuerIsNoCa(usize),
    #[error(
        "no private key came with it, and it is not for the key of this device; send the key as well, \
         or the certificate for a request of POST /api/admin/certificate/request"
    )]
    NoKey,
    #[error("the private key is not that of the first certificate")]
    KeyMismatch,
    #[error(
        "the private key cannot be used: it is damaged, or of a kind or size that is not taken"
    )]
    KeyUnusable,
    #[error("certificate {position} ended on {when}")]
    Expired { position: usize, when: String },
    #[error("certificate {position} is valid from {when} on, which is not yet")]
    NotYetValid { position: usize, when: String },
}

/// What stands in a PEM file: a chain, and perhaps its key.
pub(crate) struct Bundle {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: Option<PrivateKey>,
}

/// A private key, overwritten when it is dropped.
pub(super) type PrivateKey = Zeroizing<PrivateKeyDer<'static>>;

impl fmt::Debug for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bundle")
            .field("chain", &self.chain.len())
            .finish_non_exhaustive()
    }
}

/// Takes certificates and a key out of `pem`. Other sections and text around them are passed over: OpenSSL writes
/// both. That what was found is good for anything is for [`check`] to say.
pub(crate) fn parse_bundle(pem: &[u8]) -> Result<Bundle, Refusal> {
    if pem.len() > MAX_BUNDLE_BYTES {
        return Err(Refusal::TooLarge);
    }
    // The parser passes over keys that it does not know, which here would look as if there were none.
    for line in pem.split(|byte| matches!(byte, b'\n' | b'\r')) {
        if line.starts_with(b"Proc-Type:") && line.ends_with(b"ENCRYPTED") {
            return Err(Refusal::EncryptedKey);
        }
        let Some(label) = line.strip_prefix(b"-----BEGIN ") else {
            continue;
        };
        let label = label.trim_ascii_end();
        if label.ends_with(b"PRIVATE KEY-----") {
            match label {
                b"PRIVATE KEY-----" | b"RSA PRIVATE KEY-----" | b"EC PRIVATE KEY-----" => {}
                b"ENCRYPTED PRIVATE KEY-----" => return Err(Refusal::EncryptedKey),
                _ => return Err(Refusal::KeyForm),
            }
        }
    }
    let mut chain = Vec::new();
    let mut key = None;
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem) {
        let (kind, der) = section.map_err(|_| Refusal::Pem)?;
        if kind == SectionKind::Certificate {
            if chain.len() == MAX_CHAIN {
                return Err(Refusal::TooManyCertificates);
            }
            chain.push(CertificateDer::from(der));
        } else if let Some(found) = PrivateKeyDer::from_pem(kind, der)
            && key.replace(Zeroizing::new(found)).is_some()
        {
            return Err(Refusal::TooManyKeys);
        }
    }
    if chain.is_empty() {
        return Err(Refusal::NoCertificate);
    }
    Ok(Bundle { chain, key })
}

/// A chain and its key that fit together.
pub(super) struct Checked {
    pub(super) certified: Arc<CertifiedKey>,
    pub(super) facts: Facts,
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKey,
}

impl fmt::Debug for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checked")
            .field("facts", &self.facts)
            .finish_non_exhaustive()
    }
}

impl Checked {
    /// Chain and key in one PEM file: there is no moment in which one is new and the other is old.
    pub(super) fn to_pem(&self) -> Zeroizing<Vec<u8>> {
        let mut pem = Zeroizing::new(Vec::new());
        for certificate in &self.chain {
            append(&mut pem, "CERTIFICATE", certificate);
        }
        let label = match &*self.key {
            PrivateKeyDer::Pkcs1(_) => "RSA PRIVATE KEY",
            PrivateKeyDer::Sec1(_) => "EC PRIVATE KEY",
            _ => "PRIVATE KEY",
        };
        append(&mut pem, label, self.key.secret_der());
        pem
    }
}

fn append(pem: &mut Zeroizing<Vec<u8>>, label: &str, der: &[u8]) {
    // It fails for what is larger than memory only.
    let text = Zeroizing::new(encode_string(label, LineEnding::LF, der).unwrap_or_default());
    // Growing would leave a copy behind.
    let mut grown = Zeroizing::new(Vec::with_capacity(pem.len() + text.len()));
    grown.extend_from_slice(pem);
    grown.extend_from_slice(text.as_bytes());
    *pem = grown;
}

/// Checks everything that can be checked without knowing whom the clients trust.
///
/// `device_key` is what a bundle without a key must be for. `now` is the time in seconds of Unix time, `None` where it
/// is not known or shall not matter: then validity is not looked at.
///
/// A self-signed certificate that calls itself a CA, which is what `openssl req -x509` makes, is taken when it stands
/// alone: browsers and OpenSSL take it, and there is nobody else who could be fooled by it. As a part of a chain a CA
/// cannot come first.
pub(super) fn check(
    bundle: Bundle,
    device_key: Option<&PrivateKeyDer<'static>>,
    now: Option<i64>,
) -> Result<Checked, Refusal> {
    let Bundle { chain, key } = bundle;
    let facts = chain
        .iter()
        .zip(1..)
        .map(|(certificate, position)| {
            Facts::read(certificate).map_err(|_| Refusal::Malformed(position))
        })
        .collect::<Result<Vec<_>, _>>()?;
    for (index, certificate) in chain.iter().enumerate() {
        let position = index + 1;
        if chain[..index].contains(certificate) {
            return Err(Refusal::Repeated(position));
        }
        check_key_type(facts[index].key_type, position)?;
        check_algorithm(certificate).map_err(|error| at(error, position))?;
    }
    let leaf = &facts[0];
    check_leaf(leaf, chain.len())?;
    check_chain(&chain, &facts)?;
    let key = match (key, device_key) {
        (Some(key), _) => key,
        (None, Some(device)) => {
            let key = Zeroizing::new(device.clone_key());
            match certify(&chain, &key) {
                Err(Refusal::KeyMismatch) => return Err(Refusal::NoKey),
                _ => key,
            }
        }
        (None, None) => return Err(Refusal::NoKey),
    };
    let certified = certify(&chain, &key)?;
    if let Some(now) = now {
        for (facts, position) in facts.iter().zip(1..) {
            check_time(facts, position, now)?;
        }
    }
    Ok(Checked {
        certified,
        facts: leaf.clone(),
        chain,
        key,
    })
}

fn check_key_type(kind: KeyType, position: usize) -> Result<(), Refusal> {
    match kind {
        KeyType::EcdsaP256 | KeyType::EcdsaP384 | KeyType::Ed25519 => Ok(()),
        // The bound above is for keys that sign; whether the key of a CA can be checked, its signature shows.
        KeyType::Rsa(bits) if bits >= MIN_RSA && (bits <= MAX_RSA || position > 1) => Ok(()),
        kind => Err(Refusal::KeyKind { position, kind }),
    }
}

fn check_leaf(leaf: &Facts, chain_length: usize) -> Result<(), Refusal> {
    if leaf.is_ca && !(leaf.self_issued && chain_length == 1) {
        return Err(Refusal::LeafIsCa);
    }
    if leaf.names.is_empty() && leaf.addresses.is_empty() {
        return Err(Refusal::NoNames);
    }
    if !leaf.may_serve {
        return Err(Refusal::NotForServers);
    }
    if !leaf.may_sign {
        return Err(Refusal::MayNotSign);
    }
    Ok(())
}

/// Each is issued by the next; the last one may be anybody's.
fn check_chain(chain: &[CertificateDer<'_>], facts: &[Facts]) -> Result<(), Refusal> {
    for (index, certificate) in chain.iter().enumerate() {
        let position = index + 1;
        let issuer = match chain.get(position) {
            Some(issuer) => {
                if facts[index].issuer != facts[position].subject {
                    return Err(Refusal::Order(position));
                }
                if !facts[position].is_ca {
                    return Err(Refusal::IssuerIsNoCa(position + 1));
                }
                issuer
            }
            None if facts[index].self_issued => certificate,
            None => continue,
        };
        check_signature(certificate, issuer).map_err(|error| at(error, position))?;
    }
    Ok(())
}

fn at(error: SignatureError, position: usize) -> Refusal {
    match error {
        SignatureError::Algorithm => Refusal::SignatureAlgorithm(position),
        SignatureError::Wrong => Refusal::Signature(position),
        SignatureError::Malformed => Refusal::Malformed(position),
    }
}

/// The two as a handshake needs them.
pub(super) fn certify(
    chain: &[CertificateDer<'static>],
    key: &PrivateKeyDer<'static>,
) -> Result<Arc<CertifiedKey>, Refusal> {
    let key = any_supported_type(key).map_err(|_| Refusal::KeyUnusable)?;
    let certified = CertifiedKey::new(chain.to_vec(), key);
    certified.keys_match().map_err(|_| Refusal::KeyMismatch)?;
    Ok(Arc::new(certified))
}

/// Whether `facts` is valid at `now`.
pub(super) fn check_time(facts: &Facts, position: usize, now: i64) -> Result<(), Refusal> {
    if now >= facts.not_after {
        let when = rfc3339(facts.not_after);
        return Err(Refusal::Expired { position, when });
    }
    if now < facts.not_before {
        let when = rfc3339(facts.not_before);
        return Err(Refusal::NotYetValid { position, when });
    }
    Ok(())
}

/// For [`crate::fuzzing::pem_bundle`].
#[cfg(fuzzing)]
pub(crate) fn fuzz(pem: &[u8]) {
    let Ok(bundle) = parse_bundle(pem) else {
        return;
    };
    if let Ok(checked) = check(bundle, None, None) {
        let again = parse_bundle(&checked.to_pem()).unwrap();
        assert_eq!(again.chain, checked.chain);
        check(again, None, None).unwrap();
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use rcgen::{
        CertificateParams, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, SanType,
        SignatureAlgorithm,
    };
    use time::OffsetDateTime;

    use super::*;
    use crate::tls::clock::{self, DAY};
    use crate::tls::tests::{TempDir, ca, ca_params, intermediate, leaf_params};

    fn check_at_now(pem: &str) -> Result<Checked, Refusal> {
        check(parse_bundle(pem.as_bytes())?, None, Some(clock::now()))
    }

    /// Of a leaf that is changed a little, with its key.
    fn changed(change: impl FnOnce(&mut CertificateParams)) -> String {
        let key = KeyPair::generate().unwrap();
        let mut params = leaf_params("pump.example");
        change(&mut params);
        let leaf = params.signed_by(&key, &ca("root")).unwrap();
        leaf.pem() + &key.serialize_pem()
    }

    fn time(seconds: i64) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(seconds).unwrap()
    }

    fn openssl(directory: &TempDir, arguments: &str) {
        let output = Command::new("openssl")
            .args(arguments.split(' '))
            .current_dir(directory.path())
            .output()
            .expect("openssl of the package openssl");
        assert!(output.status.success(), "{arguments}: {output:?}");
    }

    /// What `openssl req` makes, in PEM: certificate and key.
    fn openssl_req(options: &str) -> String {
        let directory = TempDir::new();
        openssl(
            &directory,
            &format!(
                "req -x509 -nodes -subj /CN=pump -days 30 -keyout key.pem -out cert.pem \
                 -addext subjectAltName=DNS:pump {options}"
            ),
        );
        let read = |name| std::fs::read_to_string(directory.path().join(name)).unwrap();
        read("cert.pem") + &read("key.pem")
    }

    #[test]
    fn each_form_and_kind_of_key_is_taken() {
        let algorithms: [&'static SignatureAlgorithm; 3] = [
            &rcgen::PKCS_ECDSA_P256_SHA256,
            &rcgen::PKCS_ECDSA_P384_SHA384,
            &rcgen::PKCS_ED25519,
        ];
        for (algorithm, expected) in
            algorithms
                .into_iter()
                .zip([KeyType::EcdsaP256, KeyType::EcdsaP384, KeyType::Ed25519])
        {
            let key = KeyPair::generate_for(algorithm).unwrap();
            let leaf = leaf_params("pump").signed_by(&key, &ca("root")).unwrap();
            let checked = check_at_now(&(leaf.pem() + &key.serialize_pem())).unwrap();
            assert_eq!(checked.facts.key_type, expected);
        }
        for (bits, expected) in [(2048, KeyType::Rsa(2048)), (3072, KeyType::Rsa(3072))] {
            let pem = openssl_req(&format!("-newkey rsa:{bits}"));
            assert_eq!(check_at_now(&pem).unwrap().facts.key_type, expected);
        }
        // The old forms that many tools still write.
        for (options, convert, label) in [
            (
                "-newkey rsa:2048",
                "rsa -traditional",
                "BEGIN RSA PRIVATE KEY",
            ),
            (
                "-newkey ec -pkeyopt ec_paramgen_curve:P-256",
                "ec",
                "BEGIN EC PRIVATE KEY",
            ),
        ] {
            let directory = TempDir::new();
            directory.write("both.pem", openssl_req(options));
            openssl(&directory, &format!("{convert} -in both.pem -out key.pem"));
            let key = std::fs::read_to_string(directory.path().join("key.pem")).unwrap();
            assert!(key.contains(label), "{key}");
            let both = std::fs::read_to_string(directory.path().join("both.pem")).unwrap();
            let (certificate, _) = both.split_once("-----BEGIN PRIVATE").unwrap();
            let checked = check_at_now(&format!("{certificate}{key}")).unwrap();
            // What is kept is read again.
            let kept = checked.to_pem();
            let kept = std::str::from_utf8(&kept).unwrap();
            assert!(kept.contains(label));
            check_at_now(kept).unwrap();
        }
    }

    #[test]
    fn what_stands_around_a_section_is_passed_over() {
        let directory = TempDir::new();
        directory.write("both.pem", changed(|_| {}));
        // As openssl s_client, x509 -text and ecparam write it, from Windows.
        openssl(&directory, "x509 -in both.pem -text -out text.pem");
        openssl(&directory, "ecparam -name prime256v1 -out parameters.pem");
        let read = |name| std::fs::read_to_string(directory.path().join(name)).unwrap();
        let both = read("both.pem");
        let key = &both[both.find("-----BEGIN PRIVATE KEY").unwrap()..];
        let text = format!("{}{}{key}\n", read("text.pem"), read("parameters.pem"));
        check_at_now(&text).unwrap();
        check_at_now(&text.replace('\n', "\r\n")).unwrap();
        // In any order.
        let (certificate, key) = both.split_at(both.find("-----BEGIN PRIVATE KEY").unwrap());
        check_at_now(&format!("{key}{certificate}")).unwrap();
    }

    #[test]
    fn a_bundle_that_is_none_is_refused() {
        let good = changed(|_| {});
        let end = good.find("-----BEGIN PRIVATE KEY").unwrap();
        let (certificate, key) = good.split_at(end);
        let refusal = |pem: &str| check_at_now(pem).unwrap_err();
        assert_eq!(refusal(""), Refusal::NoCertificate);
        assert_eq!(refusal("rubbish\0\u{7f}"), Refusal::NoCertificate);
        assert_eq!(refusal(key), Refusal::NoCertificate);
        assert_eq!(refusal(certificate), Refusal::NoKey);
        assert_eq!(
            refusal(&format!(
                "{good}{}",
                KeyPair::generate().unwrap().serialize_pem()
            )),
            Refusal::TooManyKeys
        );
        assert_eq!(refusal(&certificate.repeat(2)), Refusal::Repeated(2));
        assert_eq!(
            refusal(&certificate.repeat(9)),
            Refusal::TooManyCertificates
        );
        let large = format!("{good}{}", " ".repeat(MAX_BUNDLE_BYTES));
        assert_eq!(refusal(&large), Refusal::TooLarge);
        assert_eq!(refusal(&good[..good.len() / 4]), Refusal::Pem);
        assert_eq!(refusal(&good.replacen("MII", "M!!", 1)), Refusal::Pem);
        let nothing = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
        assert_eq!(refusal(&format!("{nothing}{key}")), Refusal::Malformed(1));
        assert_eq!(
            refusal(&format!("{certificate}{nothing}{key}")),
            Refusal::Malformed(2)
        );
        let broken = "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n";
        assert_eq!(
            refusal(&format!("{certificate}{broken}")),
            Refusal::KeyUnusable
        );
    }

    #[test]
    fn a_key_that_does_not_do_is_refused() {
        let directory = TempDir::new();
        let good = changed(|_| {});
        directory.write("both.pem", &good);
        let (certificate, _) = good.split_once("-----BEGIN PRIVATE").unwrap();
        let read = |name| std::fs::read_to_string(directory.path().join(name)).unwrap();
        let with = |key: &str| check_at_now(&format!("{certificate}{key}")).unwrap_err();
        let other = KeyPair::generate().unwrap().serialize_pem();
        assert_eq!(with(&other), Refusal::KeyMismatch);
        openssl(
            &directory,
            "pkcs8 -topk8 -in both.pem -passout pass:secret -out pkcs8.pem",
        );
        assert_eq!(with(&read("pkcs8.pem")), Refusal::EncryptedKey);
        openssl(
            &directory,
            "ec -in both.pem -aes128 -passout pass:secret -out traditional.pem",
        );
        assert_eq!(with(&read("traditional.pem")), Refusal::EncryptedKey);
        let unknown =
            "-----BEGIN OPENSSH PRIVATE KEY-----\nMAA=\n-----END OPENSSH PRIVATE KEY-----\n";
        assert_eq!(with(unknown), Refusal::KeyForm);

        for (options, kind) in [
            ("-newkey rsa:1024", KeyType::Rsa(1024)),
            ("-newkey rsa:5120", KeyType::Rsa(5120)),
            (
                "-newkey ec -pkeyopt ec_paramgen_curve:P-521",
                KeyType::EcdsaP521,
            ),
            (
                "-newkey ec -pkeyopt ec_paramgen_curve:secp256k1",
                KeyType::Other,
            ),
            ("-newkey ed448", KeyType::Other),
        ] {
            assert_eq!(
                check_at_now(&openssl_req(options)).unwrap_err(),
                Refusal::KeyKind { position: 1, kind },
                "{options}"
            );
        }
        assert_eq!(
            check_at_now(&openssl_req("-newkey rsa:2048 -sha1")).unwrap_err(),
            Refusal::SignatureAlgorithm(1)
        );
        assert_eq!(
            check_at_now(&openssl_req("-newkey rsa:2048 -md5")).unwrap_err(),
            Refusal::SignatureAlgorithm(1)
        );
        // Also where the one who signed is not there to be asked.
        let directory = TempDir::new();
        for arguments in [
            "req -x509 -newkey rsa:2048 -nodes -subj /CN=root -keyout ca.key -out ca.crt",
            "req -newkey rsa:2048 -nodes -subj /CN=pump -addext subjectAltName=DNS:pump -keyout key.pem -out csr.pem",
            "x509 -req -in csr.pem -CA ca.crt -CAkey ca.key -CAcreateserial -copy_extensions copy -sha1 -out leaf.crt",
        ] {
            openssl(&directory, arguments);
        }
        let read = |name| std::fs::read_to_string(directory.path().join(name)).unwrap();
        assert_eq!(
            check_at_now(&(read("leaf.crt") + &read("key.pem"))).unwrap_err(),
            Refusal::SignatureAlgorithm(1)
        );
        // RSASSA-PSS, which is as safe.
        let pss = "-newkey rsa:2048 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:32";
        check_at_now(&openssl_req(pss)).unwrap();
    }

    #[test]
    fn a_leaf_that_does_not_do_is_refused() {
        let refusal =
            |change: fn(&mut CertificateParams)| check_at_now(&changed(change)).unwrap_err();
        assert_eq!(
            refusal(|params| params.subject_alt_names.clear()),
            Refusal::NoNames
        );
        assert_eq!(
            refusal(|params| {
                let mail = "a@b.example".try_into().unwrap();
                params.subject_alt_names = vec![SanType::Rfc822Name(mail)];
            }),
            Refusal::NoNames
        );
        assert_eq!(
            refusal(|params| {
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            }),
            Refusal::NotForServers
        );
        assert_eq!(
            refusal(|params| params.key_usages = vec![KeyUsagePurpose::KeyAgreement]),
            Refusal::MayNotSign
        );
        assert_eq!(
            refusal(|params| params.is_ca = ca_params("x").is_ca),
            Refusal::LeafIsCa
        );
        assert_eq!(
            refusal(|params| params.not_after = time(clock::now() - 1)),
            Refusal::Expired {
                position: 1,
                when: rfc3339(clock::now() - 1)
            }
        );
        assert!(matches!(
            refusal(|params| params.not_before = time(clock::now() + DAY)),
            Refusal::NotYetValid { position: 1, .. }
        ));
        for change in [
            (|params| params.extended_key_usages.clear()) as fn(&mut CertificateParams),
            |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any],
            |params| params.key_usages.clear(),
            |params| params.is_ca = rcgen::IsCa::NoCa,
            |params| {
                params.subject_alt_names = vec![SanType::IpAddress("192.0.2.1".parse().unwrap())];
            },
            |params| params.distinguished_name = rcgen::DistinguishedName::new(),
        ] {
            check_at_now(&changed(change)).unwrap();
        }
    }

    #[test]
    fn time_is_checked_where_it_is_known() {
        let ended = changed(|params| params.not_after = time(clock::now() - 1));
        let bundle = parse_bundle(ended.as_bytes()).unwrap();
        check(bundle, None, None).unwrap();
    }

    #[test]
    fn a_self_signed_ca_alone_is_what_openssl_makes() {
        let pem = openssl_req("-newkey ec -pkeyopt ec_paramgen_curve:P-256");
        let checked = check_at_now(&pem).unwrap();
        assert!(checked.facts.is_ca && checked.facts.self_issued);
        // With another one behind it, it is not alone.
        let two = format!("{pem}{}", ca("root").pem());
        assert_eq!(check_at_now(&two).unwrap_err(), Refusal::LeafIsCa);
    }

    #[test]
    fn a_chain_goes_from_each_to_its_issuer() {
        let root = ca("root");
        let upper = intermediate("upper", &root);
        let lower = intermediate("lower", &upper);
        let key = KeyPair::generate().unwrap();
        let leaf = leaf_params("pump").signed_by(&key, &lower).unwrap();
        let (leaf, key) = (leaf.pem(), key.serialize_pem());
        let [lower, upper, root] = [lower.pem(), upper.pem(), root.pem()];
        for good in [
            vec![&leaf],
            vec![&leaf, &lower],
            vec![&leaf, &lower, &upper],
            vec![&leaf, &lower, &upper, &root],
        ] {
            let chain: String = good.into_iter().map(String::as_str).collect();
            check_at_now(&(chain + &key)).unwrap();
        }
        let impostor = intermediate("lower", &ca("upper")).pem();
        for (chain, expected) in [
            (vec![&lower, &leaf], Refusal::LeafIsCa),
            (vec![&leaf, &upper], Refusal::Order(1)),
            (vec![&leaf, &upper, &lower], Refusal::Order(1)),
            (vec![&leaf, &lower, &root], Refusal::Order(2)),
            (vec![&leaf, &lower, &lower], Refusal::Repeated(3)),
            (vec![&leaf, &impostor], Refusal::Signature(1)),
        ] {
            let chain: String = chain.into_iter().map(String::as_str).collect();
            assert_eq!(check_at_now(&(chain + &key)).unwrap_err(), expected);
        }
    }

    #[test]
    fn who_signs_is_a_ca_whose_time_has_not_ended() {
        let root = ca("root");
        let mut params = ca_params("middle");
        params.is_ca = rcgen::IsCa::ExplicitNoCa;
        let refused = |params: CertificateParams| {
            let issuer =
                rcgen::CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), &root)
                    .unwrap();
            let key = KeyPair::generate().unwrap();
            let leaf = leaf_params("pump").signed_by(&key, &issuer).unwrap();
            let pem = leaf.pem() + &issuer.pem() + &key.serialize_pem();
            check_at_now(&pem).unwrap_err()
        };
        assert_eq!(refused(params), Refusal::IssuerIsNoCa(2));
        let mut params = ca_params("middle");
        params.not_after = time(clock::now() - 1);
        assert!(matches!(
            refused(params),
            Refusal::Expired { position: 2, .. }
        ));
    }

    #[test]
    fn a_signature_that_was_changed_does_not_hold() {
        let root = ca("root");
        let key = KeyPair::generate().unwrap();
        let leaf = leaf_params("pump").signed_by(&key, &root).unwrap();
        let mut der = leaf.der().to_vec();
        // One letter of its name.
        let name = der.windows(4).position(|bytes| bytes == b"pump").unwrap();
        der[name] = b'b';
        let mut pem = Zeroizing::new(Vec::new());
        append(&mut pem, "CERTIFICATE", &der);
        let pem = String::from_utf8(pem.to_vec()).unwrap() + &root.pem() + &key.serialize_pem();
        assert_eq!(check_at_now(&pem).unwrap_err(), Refusal::Signature(1));
    }

    #[test]
    fn no_refusal_has_a_line_end() {
        for refusal in [
            Refusal::EncryptedKey,
            Refusal::NoKey,
            Refusal::KeyKind {
                position: 1,
                kind: KeyType::Other,
            },
            Refusal::SignatureAlgorithm(1),
        ] {
            assert!(!refusal.to_string().contains('\n'));
        }
    }

    #[test]
    fn whatever_is_cut_or_changed_does_no_harm() {
        let good = changed(|_| {}).into_bytes();
        for length in 0..good.len() {
            let _ = parse_bundle(&good[..length]).and_then(|bundle| check(bundle, None, None));
        }
        for index in 0..good.len() {
            let mut bytes = good.clone();
            bytes[index] ^= 1 << (index % 8);
            let _ = parse_bundle(&bytes).and_then(|bundle| check(bundle, None, None));
        }
    }
}
