//! `endpoints.json`: which addresses are in use, for whoever started the service with port 0.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use serde::Serialize;

use super::listeners::Scheme;
use crate::atomic_file;

/// One address that the service listens on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Endpoint {
    /// What is spoken there.
    pub scheme: Scheme,
    /// The address as it was bound; the unspecified one stands for every address of the device.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
}

impl Endpoint {
    pub(super) fn new(scheme: Scheme, address: SocketAddr) -> Self {
        Self {
            scheme,
            address: address.ip(),
            port: address.port(),
        }
    }

    /// Address and port together.
    #[must_use]
    pub fn socket_addr(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        write!(f, "{scheme}://{}", self.socket_addr())
    }
}

#[derive(Serialize)]
struct EndpointsFile<'a> {
    pid: u32,
    endpoints: &'a [Endpoint],
}

/// Writes the file, whole or not at all. It holds no secret: everybody on the device may read it.
pub(super) fn write(path: &Path, endpoints: &[Endpoint]) -> io::Result<()> {
    let content = serde_json::to_vec_pretty(&EndpointsFile {
        pid: std::process::id(),
        endpoints,
    })?;
    atomic_file::write(path, &content, 0o644)
}
