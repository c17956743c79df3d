//! Why nobody can be told from anybody else, or may not do what they asked for.

use std::path::PathBuf;
use std::time::Duration;

use super::PasswordError;

/// Why nobody can be told from anybody else, or may not do what they asked for. Each text is one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// A file cannot be read or written.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// The directory of the file cannot move while the service runs.
    #[error("server.state_dir cannot change while the service runs; restart it")]
    StateDir,
    /// What says who somebody is cannot be used; the reason.
    #[error("nobody can log in: {0}")]
    Closed(String),
    /// Something that every system has is missing.
    #[error("{0}")]
    Internal(&'static str),
    /// Too many want a password looked at.
    #[error("too many log in at this moment; try again in a few seconds")]
    Busy,
    /// Too many wrong passwords or codes.
    #[error("too many wrong attempts; try again in {} s", seconds(*.0))]
    Delayed(Duration),
    /// No such user, or another password.
    #[error("user name or password is wrong")]
    Refused,
    /// The claim code is another.
    #[error(
        "the claim code is wrong; the console and the log show it, and a restart makes a new one"
    )]
    WrongCode,
    /// The device has an owner, or the time to become it is over.
    #[error(
        "the device cannot be claimed: it has users, or its code has ended; a restart makes a new code if nobody exists"
    )]
    ClaimClosed,
    /// Not a name.
    #[error(
        "a name is 1 to 32 of a-z, 0-9, '.', '_' and '-', begins with a letter, and is neither guest nor local"
    )]
    Name,
    /// Not a password for anybody.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// Guests have no names.
    #[error("a role is user or admin; guests need neither name nor token")]
    GuestRole,
    /// The role is larger than that of who wants to give it.
    #[error("nobody gives a role that is larger than their own")]
    RoleTooLarge,
    /// The name is taken.
    #[error("that name is taken; choose another, or remove it first")]
    Exists,
    /// There is no such user.
    #[error("there is no user of that name")]
    NoSuchUser,
    /// There is no such API token.
    #[error("there is no API token of that name")]
    NoSuchToken,
    /// Nobody would be left who can administer the device.
    #[error("this is the last administrator; make another one first")]
    LastAdmin,
    /// A bound is reached; what to do.
    #[error("{0}")]
    Full(&'static str),
    /// The end of an API token is over or too far away.
    #[error(
        "an API token ends after 1 to {} days, in the future",
        super::accounts::MAX_DAYS
    )]
    Expiry,
    /// There is no session that could be ended or have a password changed.
    #[error("this is for somebody who logged in with a password")]
    NotASession,
    /// An API token must not make what would outlive it.
    #[error(
        "an API token may not change users, tokens, keys and whom the device trusts; log in with a password"
    )]
    NotForApiTokens,
    /// One's own password is changed with the old one.
    #[error(
        "one's own password is changed with PUT /api/user/password, which asks for the old one"
    )]
    OwnPassword,
}

/// Whole seconds that are not too few.
pub(crate) fn seconds(delay: Duration) -> u64 {
    delay.as_millis().div_ceil(1000).max(1) as u64
}
