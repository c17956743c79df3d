//! A certificate with its key, and where it comes from.

use std::fmt;
use std::sync::Arc;

use rustls::sign::CertifiedKey;
use serde::Serialize;
use x509_cert::der::pem::{LineEnding, encode_string};

use super::certificate::Facts;

/// Where the certificate in force comes from. A later one takes the place of an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Source {
    /// The device made it for itself.
    Own,
    /// Somebody installed it: `PUT /api/admin/certificate`.
    Installed,
    /// An authority issued it (ACME).
    Acme,
    /// It is in the files of `tls.directory`.
    Provisioned,
}

impl Source {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Installed => "installed",
            Self::Acme => "acme",
            Self::Provisioned => "provisioned",
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A certificate with its key.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) source: Source,
    pub(crate) facts: Facts,
    pub(super) certified: Arc<CertifiedKey>,
}

impl Identity {
    pub(super) fn new(source: Source, certified: Arc<CertifiedKey>, facts: Facts) -> Self {
        Self {
            source,
            facts,
            certified,
        }
    }

    /// How many certificates a handshake sends.
    pub(crate) fn chain_length(&self) -> usize {
        self.certified.cert.len()
    }

    /// Whether the same is presented, wherever it comes from.
    pub(super) fn presents_the_same_as(&self, other: &Self) -> bool {
        self.certified.cert == other.certified.cert
    }

    /// The first certificate in PEM.
    pub(super) fn leaf_pem(&self) -> String {
        let leaf = self.certified.cert.first();
        leaf.and_then(|leaf| encode_string("CERTIFICATE", LineEnding::LF, leaf).ok())
            .unwrap_or_default()
    }
}
