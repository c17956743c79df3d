//! The device's account at its authority, and what was issued to it: `acme-account.json`.

use std::fs::{self, File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use instant_acme::{Account, AccountCredentials, Error, NewAccount};
use serde::{Deserialize, Serialize};

use super::http_client::AcmeHttpClient;
use super::order::may_mean_no_account;
use crate::atomic_file;
use crate::config::AcmeConfig;

/// The file, in the directory of the device's identity. It holds the account's key.
const NAME: &str = "acme-account.json";
/// The largest file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// The file and what is in it.
pub(super) struct AccountFile {
    path: PathBuf,
    stored: Option<Stored>,
}

#[derive(Deserialize, Serialize)]
struct Stored {
    /// The URL of the authority's directory.
    directory: String,
    /// Whom the authority writes to, as it was told last.
    contact: Vec<String>,
    /// SHA-256 of the certificate that was issued last, in hexadecimal digits.
    certificate: Option<String>,
    /// As instant-acme writes them: the account's URL and its key.
    credentials: serde_json::Value,
}

impl AccountFile {
    /// Reads the account in `directory`. What is no account is kept beside it as `.bad`, and a new one is made with
    /// the next order.
    pub(super) fn load(directory: &Path) -> Self {
        let path = directory.join(NAME);
        let stored = match read(&path) {
            Ok(stored) => Some(stored),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                log::warn!(
                    "{}: {error}; kept as {NAME}.bad, the next order makes a new account",
                    path.display()
                );
                set_aside(&path);
                None
            }
        };
        Self { path, stored }
    }

    /// Whether the certificate with this digest came from this authority, by this account.
    pub(super) fn has_issued(&self, digest: &str, directory_url: &str) -> bool {
        self.stored.as_ref().is_some_and(|stored| {
            stored.directory == directory_url && stored.certificate.as_deref() == Some(digest)
        })
    }

    /// Notes which certificate was issued last.
    pub(super) fn set_issued(&mut self, digest: String) -> Result<(), String> {
        if let Some(stored) = &mut self.stored {
            stored.certificate = Some(digest);
        }
        self.write()
    }

    /// Gives the account up, because its authority no longer knows it.
    pub(super) fn forget(&mut self) {
        set_aside(&self.path);
        self.stored = None;
    }

    /// The account at the authority of `config`, which is made if there is none.
    pub(super) async fn open(
        &mut self,
        config: &AcmeConfig,
        client: &AcmeHttpClient,
    ) -> Result<Account, Failed> {
        let contact: Vec<&str> = config.contact.iter().map(String::as_str).collect();
        let known = self
            .stored
            .as_ref()
            .filter(|stored| stored.directory == config.directory_url);
        if let Some(stored) = known {
            let credentials = stored.credentials().ok_or("no account")?;
            let account = Account::builder_with_http(Box::new(client.clone()))
                .from_credentials(credentials)
                .await?;
            if stored.contact != config.contact {
                account.update_contacts(&contact).await?;
            }
            if let Some(stored) = &mut self.stored {
                stored.contact.clone_from(&config.contact);
            }
            // Also when nothing has changed: an order whose result cannot be stored shall not be made.
            self.write().map_err(Failed::Storage)?;
            return Ok(account);
        }
        let new = NewAccount {
            contact: &contact,
            terms_of_service_agreed: true,
            only_return_existing: false,
        };
        let (account, credentials) = Account::builder_with_http(Box::new(client.clone()))
            .create(&new, config.directory_url.clone(), None)
            .await?;
        self.stored = Some(Stored {
            directory: config.directory_url.clone(),
            contact: config.contact.clone(),
            certificate: None,
            credentials: serde_json::to_value(&credentials).map_err(Error::from)?,
        });
        self.write().map_err(Failed::Storage)?;
        log::info!("acme: a new account at {}", config.directory_url);
        Ok(account)
    }

    /// Whether the authority still takes what the account signs.
    pub(super) async fn is_accepted(&self, config: &AcmeConfig, client: &AcmeHttpClient) -> bool {
        let Some(credentials) = self.stored.as_ref().and_then(Stored::credentials) else {
            return false;
        };
        let account = Account::builder_with_http(Box::new(client.clone()))
            .from_credentials(credentials)
            .await;
        let contact: Vec<&str> = config.contact.iter().map(String::as_str).collect();
        match account {
            Ok(account) => match account.update_contacts(&contact).await {
                Ok(()) => true,
                Err(error) => !may_mean_no_account(&error),
            },
            // Nothing is known then.
            Err(_) => true,
        }
    }

    fn write(&self) -> Result<(), String> {
        let text = serde_json::to_vec_pretty(&self.stored).map_err(|error| error.to_string())?;
        atomic_file::write(&self.path, &text, 0o600).map_err(|error| {
            format!(
                "{}: cannot be written: {error}; make room, or set server.state_dir",
                self.path.display()
            )
        })
    }
}

impl Stored {
    fn credentials(&self) -> Option<AccountCredentials> {
        serde_json::from_value(self.credentials.clone()).ok()
    }
}

/// Why there is no account.
pub(super) enum Failed {
    /// The authority says so, or does not answer.
    Acme(Error),
    /// It cannot be kept.
    Storage(String),
}

impl From<&'static str> for Failed {
    fn from(error: &'static str) -> Self {
        Self::Acme(error.into())
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Acme(error)
    }
}

fn set_aside(path: &Path) {
    let mut bad = path.as_os_str().to_owned();
    bad.push(".bad");
    // What cannot be renamed is written over by the next account, or that says why not.
    let _ = fs::rename(path, bad);
}

fn read(path: &Path) -> io::Result<Stored> {
    let mut text = Vec::new();
    let file = File::open(path)?;
    let mode = file.metadata()?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        log::warn!(
            "{}: its mode was {mode:o}, others could read or change the account; now it is 600",
            path.display()
        );
        file.set_permissions(Permissions::from_mode(0o600))?;
    }
    file.take(MAX_FILE_BYTES).read_to_end(&mut text)?;
    // The error would quote what is there, the key perhaps.
    serde_json::from_slice(&text)
        .ok()
        .filter(|stored: &Stored| stored.credentials().is_some())
        .ok_or_else(|| io::Error::other("is no ACME account"))
}
