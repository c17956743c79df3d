//! Random numbers of the kernel.

use base64ct::{Base64UrlUnpadded, Encoding};
use ring::rand::{SecureRandom, SystemRandom};

/// Said where there are none.
pub(super) const NO_RANDOM: &str = "the kernel gives no random numbers";

pub(super) fn bytes<const N: usize>() -> Result<[u8; N], &'static str> {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| NO_RANDOM)?;
    Ok(bytes)
}

/// `N` random bytes as base64url without padding (RFC 4648, section 5).
pub(super) fn name<const N: usize>() -> Result<String, &'static str> {
    Ok(Base64UrlUnpadded::encode_string(&bytes::<N>()?))
}

/// `N` random bytes as hexadecimal digits.
pub(super) fn hex<const N: usize>() -> Result<String, &'static str> {
    let bytes = bytes::<N>()?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
