//! That a new certificate and its key do what they are for, before they take the place of the old ones.

use std::io::Read;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, ClientConnection, ConnectionCommon, DigitallySignedStruct,
    Error, ServerConfig, ServerConnection, SideData, SignatureScheme,
};

/// Flights of a handshake, both directions counted, and some more.
const MAX_FLIGHTS: usize = 16;

/// Makes a handshake in memory with `chain` and `key`, as a client that asks for each of `names`.
pub(super) fn prove(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    names: &[String],
) -> Result<(), String> {
    let leaf = chain.first().ok_or("it is empty")?.clone();
    let provider = Arc::new(ring::default_provider());
    let mut server_names = Vec::new();
    for name in names {
        let name = ServerName::try_from(name.clone()).map_err(|error| error.to_string())?;
        server_names.push(name);
    }
    let first = server_names.first().ok_or("it has no names")?.clone();
    let client = client_config(&provider, leaf, server_names).map_err(|e| e.to_string())?;
    let server = server_config(&provider, chain, key).map_err(|error| error.to_string())?;
    let mut client = ClientConnection::new(Arc::new(client), first).map_err(|e| e.to_string())?;
    let mut server = ServerConnection::new(Arc::new(server)).map_err(|e| e.to_string())?;
    for _ in 0..MAX_FLIGHTS {
        pass(&mut client, &mut server)?;
        pass(&mut server, &mut client)?;
        if !client.is_handshaking() && !server.is_handshaking() {
            return Ok(());
        }
    }
    Err(String::from("a handshake with it does not end"))
}

fn server_config(
    provider: &Arc<CryptoProvider>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, Error> {
    ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)
}

fn client_config(
    provider: &Arc<CryptoProvider>,
    leaf: CertificateDer<'static>,
    names: Vec<ServerName<'static>>,
) -> Result<ClientConfig, Error> {
    let verifier = ExactlyThis {
        leaf,
        names,
        algorithms: provider.signature_verification_algorithms,
    };
    Ok(ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth())
}

/// What one side has to say, to the other.
fn pass<A: SideData, B: SideData>(
    from: &mut ConnectionCommon<A>,
    to: &mut ConnectionCommon<B>,
) -> Result<(), String> {
    let mut flight = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut flight).map_err(|e| e.to_string())?;
    }
    let mut rest = flight.as_slice();
    while !rest.is_empty() {
        to.read_tls(&mut rest.by_ref()).map_err(|e| e.to_string())?;
        to.process_new_packets()
            .map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Takes one certificate only, whoever signed it: who did is for the device's clients to judge.
#[derive(Debug)]
struct ExactlyThis {
    leaf: CertificateDer<'static>,
    names: Vec<ServerName<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for ExactlyThis {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if *leaf != self.leaf {
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        let parsed = ParsedCertificate::try_from(leaf)?;
        for name in &self.names {
            verify_server_name(&parsed, name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair};
    use rustls::pki_types::PrivatePkcs8KeyDer;

    fn made(names: &[&str]) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| String::from(*name)).collect();
        let certificate = CertificateParams::new(names).unwrap();
        let certificate = certificate.self_signed(&key).unwrap();
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        (vec![certificate.der().clone()], key.into())
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| String::from(*name)).collect()
    }

    #[test]
    fn a_certificate_with_its_key_is_good_for_its_names_only() {
        let (chain, key) = made(&["a.test", "b.test"]);
        for (asked, good) in [
            (&["a.test"][..], true),
            (&["a.test", "b.test"][..], true),
            (&["a.test", "c.test"][..], false),
            (&[][..], false),
        ] {
            let proved = prove(chain.clone(), key.clone_key(), &names(asked));
            assert_eq!(proved.is_ok(), good, "{asked:?}: {proved:?}");
        }
    }

    #[test]
    fn another_key_or_none_at_all_is_refused() {
        let (chain, _) = made(&["a.test"]);
        let (_, other) = made(&["a.test"]);
        assert!(prove(chain, other.clone_key(), &names(&["a.test"])).is_err());
        assert!(prove(Vec::new(), other, &names(&["a.test"])).is_err());
    }
}
