//! Where a request comes from.

use std::fmt;
use std::net::IpAddr;

/// Where a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    /// The client's address; `None` is the device itself, over its own socket.
    pub(crate) address: Option<IpAddr>,
    /// Whether what is said can only be read by the two sides of it.
    pub(crate) private: bool,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => address.to_canonical().fmt(f),
            None => f.write_str("the device itself"),
        }
    }
}
