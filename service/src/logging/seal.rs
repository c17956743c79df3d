//! Journal records that only the maker can read.
//!
//! HPKE (RFC 9180), base mode, DHKEM(X25519, HKDF-SHA256) and HKDF-SHA256, gives each segment a key of its
//! own: the encapsulated half stands in the segment's header, and the exported secret is the key of
//! ChaCha20-Poly1305 (RFC 8439). A record's nonce is its place in the segment, at which nothing else is ever
//! written, so that a reader can open any of them without those before it.

/// How much longer a sealed record is: Poly1305's tag.
pub(super) const OVERHEAD: usize = 16;

/// Why a key is not one. Its text is one line and does not tell the key.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct KeyError(&'static str);

#[cfg(feature = "seal")]
pub(super) use with_hpke::SegmentSealer;
#[cfg(feature = "seal")]
pub use with_hpke::{Identity, Recipient};
#[cfg(not(feature = "seal"))]
pub(super) use without::SegmentSealer;
#[cfg(not(feature = "seal"))]
pub use without::{Identity, Recipient};

#[cfg(feature = "seal")]
mod with_hpke {
    use base64ct::{Base64, Encoding};
    use chacha20poly1305::aead::{Aead, KeyInit, Payload};
    use chacha20poly1305::{ChaCha20Poly1305, Nonce};
    use hpke::aead::ExportOnlyAead;
    use hpke::kdf::HkdfSha256;
    use hpke::kem::X25519HkdfSha256;
    use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable, setup_receiver, setup_sender};

    use super::KeyError;
    use crate::logging::journal::KEY;

    type Kem25519 = X25519HkdfSha256;
    /// What a key is for: another program's records never open with it.
    const INFO: &[u8] = b"edgeweb journal segment 1";
    /// The name under which the segment's secret is exported.
    const EXPORT: &[u8] = b"record key";

    /// The public half: who has only this can seal, and not open.
    #[derive(Clone, Debug)]
    pub struct Recipient(<Kem25519 as Kem>::PublicKey);

    /// The private half. It stays with the maker.
    pub struct Identity(<Kem25519 as Kem>::PrivateKey);

    impl Recipient {
        /// Reads what [`Recipient::encode`] gave.
        ///
        /// # Errors
        /// [`KeyError`] when `text` is not 32 bytes in base64 (RFC 4648, section 4).
        pub fn decode(text: &str) -> Result<Self, KeyError> {
            <Kem25519 as Kem>::PublicKey::from_bytes(&key_bytes(text)?)
                .map(Self)
                .map_err(|_| KeyError("is no X25519 key"))
        }

        /// The key in base64.
        #[must_use]
        pub fn encode(&self) -> String {
            Base64::encode_string(&self.0.to_bytes())
        }

        pub(in crate::logging) fn sealer(&self) -> Option<SegmentSealer> {
            let (key, context) =
                setup_sender::<ExportOnlyAead, HkdfSha256, Kem25519>(&OpModeS::Base, &self.0, INFO)
                    .ok()?;
            let mut secret = [0; 32];
            context.export(EXPORT, &mut secret).ok()?;
            Some(SegmentSealer {
                key: key.to_bytes().into(),
                cipher: ChaCha20Poly1305::new(&secret.into()),
            })
        }
    }

    impl Identity {
        /// A new pair of keys.
        ///
        /// # Errors
        /// [`KeyError`] when the system has no random numbers.
        pub fn generate() -> Result<(Self, Recipient), KeyError> {
            let mut seed = [0; 32];
            std::fs::File::open("/dev/urandom")
                .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut seed))
                .map_err(|_| KeyError("/dev/urandom cannot be read"))?;
            let (private, public) = Kem25519::derive_keypair(&seed);
            Ok((Self(private), Recipient(public)))
        }

        /// Reads what [`Identity::encode`] gave.
        ///
        /// # Errors
        /// [`KeyError`] when `text` is not 32 bytes in base64 (RFC 4648, section 4).
        pub fn decode(text: &str) -> Result<Self, KeyError> {
            <Kem25519 as Kem>::PrivateKey::from_bytes(&key_bytes(text)?)
                .map(Self)
                .map_err(|_| KeyError("is no X25519 key"))
        }

        /// The key in base64: a secret.
        #[must_use]
        pub fn encode(&self) -> String {
            Base64::encode_string(&self.0.to_bytes())
        }

        pub(in crate::logging) fn opener(&self, key: &[u8; KEY]) -> Option<SegmentOpener> {
            let key = <Kem25519 as Kem>::EncappedKey::from_bytes(key).ok()?;
            let context = setup_receiver::<ExportOnlyAead, HkdfSha256, Kem25519>(
                &OpModeR::Base,
                &self.0,
                &key,
                INFO,
            )
            .ok()?;
            let mut secret = [0; 32];
            context.export(EXPORT, &mut secret).ok()?;
            Some(SegmentOpener(ChaCha20Poly1305::new(&secret.into())))
        }
    }

    fn key_bytes(text: &str) -> Result<[u8; KEY], KeyError> {
        let mut bytes = [0; KEY];
        match Base64::decode(text.trim(), &mut bytes) {
            Ok(decoded) if decoded.len() == KEY => Ok(bytes),
            _ => Err(KeyError("is not a key: 32 bytes in base64, 44 characters")),
        }
    }

    /// Seals the records of one segment.
    pub(in crate::logging) struct SegmentSealer {
        pub(in crate::logging) key: [u8; KEY],
        cipher: ChaCha20Poly1305,
    }

    impl SegmentSealer {
        /// Seals the record whose frame begins at `offset`.
        pub(in crate::logging) fn seal(&self, offset: u64, record: &[u8]) -> Option<Vec<u8>> {
            self.cipher
                .encrypt(&nonce(offset), Payload::from(record))
                .ok()
        }
    }

    /// Opens the records of one segment.
    pub(in crate::logging) struct SegmentOpener(ChaCha20Poly1305);

    impl SegmentOpener {
        /// Opens the record whose frame begins at `offset`.
        pub(in crate::logging) fn open(&self, offset: u64, sealed: &[u8]) -> Option<Vec<u8>> {
            self.0.decrypt(&nonce(offset), Payload::from(sealed)).ok()
        }
    }

    fn nonce(offset: u64) -> Nonce {
        let mut nonce = [0; 12];
        nonce[..8].copy_from_slice(&offset.to_le_bytes());
        nonce.into()
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn what_is_sealed_opens_with_the_identity_and_at_its_place_only() {
            let (identity, recipient) = Identity::generate().unwrap();
            let (other, _) = Identity::generate().unwrap();
            let recipient = Recipient::decode(&recipient.encode()).unwrap();
            let identity = Identity::decode(&identity.encode()).unwrap();
            let sealer = recipient.sealer().unwrap();
            let sealed = sealer.seal(92, b"the pump stopped").unwrap();
            assert_eq!(sealed.len(), 16 + super::super::OVERHEAD);
            let opener = identity.opener(&sealer.key).unwrap();
            assert_eq!(opener.open(92, &sealed).unwrap(), b"the pump stopped");
            assert_eq!(opener.open(93, &sealed), None);
            let mut changed = sealed.clone();
            changed[3] ^= 1;
            assert_eq!(opener.open(92, &changed), None);
            let opener = other.opener(&sealer.key).unwrap();
            assert_eq!(opener.open(92, &sealed), None);
            assert_ne!(recipient.sealer().unwrap().key, sealer.key);
        }

        #[test]
        fn what_is_no_key_is_refused() {
            for text in [
                "",
                "AAAA",
                "not base64 at all, but long enough to be it",
                "ä",
            ] {
                assert!(Recipient::decode(text).is_err(), "{text}");
                assert!(Identity::decode(text).is_err(), "{text}");
            }
        }
    }
}

#[cfg(not(feature = "seal"))]
mod without {
    use super::KeyError;
    use crate::logging::journal::KEY;

    const MISSING: KeyError = KeyError("cannot be used: this build has no seal feature");

    /// The public half of a pair of keys; there is none in a build without the feature `seal`.
    #[derive(Clone, Debug)]
    pub enum Recipient {}

    /// The private half; there is none in a build without the feature `seal`.
    pub enum Identity {}

    impl Recipient {
        /// # Errors
        /// Always.
        pub fn decode(_: &str) -> Result<Self, KeyError> {
            Err(MISSING)
        }

        /// The key in base64.
        #[must_use]
        pub fn encode(&self) -> String {
            match *self {}
        }

        pub(in crate::logging) fn sealer(&self) -> Option<SegmentSealer> {
            match *self {}
        }
    }

    impl Identity {
        /// # Errors
        /// Always.
        pub fn generate() -> Result<(Self, Recipient), KeyError> {
            Err(MISSING)
        }

        /// # Errors
        /// Always.
        pub fn decode(_: &str) -> Result<Self, KeyError> {
            Err(MISSING)
        }

        /// The key in base64.
        #[must_use]
        pub fn encode(&self) -> String {
            match *self {}
        }

        pub(in crate::logging) fn opener(&self, _: &[u8; KEY]) -> Option<SegmentOpener> {
            match *self {}
        }
    }

    pub(in crate::logging) struct SegmentSealer {
        pub(in crate::logging) key: [u8; KEY],
        never: std::convert::Infallible,
    }

    impl SegmentSealer {
        pub(in crate::logging) fn seal(&self, _: u64, _: &[u8]) -> Option<Vec<u8>> {
            match self.never {}
        }
    }

    pub(in crate::logging) enum SegmentOpener {}

    impl SegmentOpener {
        pub(in crate::logging) fn open(&self, _: u64, _: &[u8]) -> Option<Vec<u8>> {
            match *self {}
        }
    }
}
