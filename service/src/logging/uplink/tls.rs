//! What TLS needs: the certificates that are trusted, the device's own, and words for what went wrong.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{CertificateError, ClientConfig, ClientConnection, Error, RootCertStore};

use crate::config::UplinkConfig;

/// The largest file with certificates or a key that is read, in bytes.
const MAX_FILE_BYTES: u64 = 256 * 1024;

/// A connection that has not said anything yet (RFC 5425; TLS 1.2 and 1.3).
///
/// The files are read each time, so that one that was replaced is taken up.
pub(super) fn connection(config: &UplinkConfig) -> Result<ClientConnection, String> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots(&config.ca_file)?);
    let client = if config.certificate_file.as_os_str().is_empty() {
        builder.with_no_client_auth()
    } else {
        let chain = certificates(&config.certificate_file)?;
        builder
            .with_client_auth_cert(chain, key(&config.key_file)?)
            .map_err(|error| {
                format!(
                    "{} and {} do not fit together: {error}",
                    config.certificate_file.display(),
                    config.key_file.display()
                )
            })?
    };
    let name = config.expected_name();
    let name = ServerName::try_from(name.to_owned())
        .map_err(|error| format!("log.uplink.server_name: {name:?}: {error}"))?;
    ClientConnection::new(Arc::new(client), name).map_err(|error| error.to_string())
}

/// What went wrong between the two sides, and where to look.
pub(super) fn reason(error: &Error, config: &UplinkConfig) -> String {
    let ca = config.ca_file.display();
    match error {
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            format!("its certificate is not signed by one in {ca}")
        }
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => format!(
            "its certificate is not for {:?}; see log.uplink.server_name",
            config.expected_name()
        ),
        Error::InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        ) => String::from("its certificate has expired or is not valid yet; is the clock right?"),
        Error::InvalidCertificate(error) => {
            format!("its certificate does not do, with {ca}: {error}")
        }
        Error::AlertReceived(alert) => {
            let certificate = &config.certificate_file;
            if certificate.as_os_str().is_empty() {
                format!("it refused with {alert:?}; does it ask for a certificate?")
            } else {
                format!("it refused with {alert:?}; see {}", certificate.display())
            }
        }
        error => format!("TLS: {error}"),
    }
}

fn roots(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots
            .add(certificate)
            .map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(format!("{}: has no certificate in PEM", path.display())),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

/// The error names the file, and nothing of what is in it.
fn key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(&read(path)?)
        .map_err(|_| format!("{}: has no private key in PEM", path.display()))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let unreadable = |error| format!("{}: cannot be read: {error}", path.display());
    let mut text = Vec::new();
    File::open(path)
        .map_err(unreadable)?
        .take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut text)
        .map_err(unreadable)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(format!(
            "{}: is larger than {MAX_FILE_BYTES} bytes; is it the right file?",
            path.display()
        ));
    }
    Ok(text)
}
