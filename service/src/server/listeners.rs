//! The sockets that the service listens on: bound before anything else is started.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use serde::Serialize;
use socket2::{Domain, Protocol, Socket, Type};

use super::port_owner;
use crate::config::{ClientCertificates, Config, PortWhenBusy, TlsMode};

/// Connections that the kernel keeps until they are accepted.
const BACKLOG: i32 = 128;

/// What is spoken on a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// HTTP/1.1 in clear.
    Http,
    /// HTTP/2 and HTTP/1.1 over TLS.
    Https,
}

/// Why a socket could not be had. Each text is one line that says which one and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another process has the port.
    #[error(
        "{address} is taken{}; free it, or set {table}.port or {table}.port_when_busy",
        by(owner)
    )]
    Busy {
        /// The table of the configuration that asks for it.
        table: &'static str,
        /// The address.
        address: SocketAddr,
        /// Process id and name, where `/proc` shows them.
        owner: Option<(u32, String)>,
    },
    /// Every port of the range is taken.
    #[error(
        "{address} and every port from {first} to {last} are taken; free one, or set {table}.port_when_busy"
    )]
    RangeBusy {
        /// The table of the configuration that asks for it.
        table: &'static str,
        /// The address that was asked for first.
        address: SocketAddr,
        /// The range's first port.
        first: u16,
        /// The range's last port.
        last: u16,
    },
    /// The system refused for another reason.
    #[error("{address} cannot be listened on: {source}{}", hint(source))]
    Refused {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The run-time directory or the socket in it cannot be made.
    #[error("{}: {source}; create the directory for this user, or set server.runtime_dir", path.display())]
    RuntimeDir {
        /// The path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another service answers on the socket in the run-time directory.
    #[error("{}: another service is running here; stop it, or set server.runtime_dir", path.display())]
    AlreadyRunning {
        /// The socket.
        path: PathBuf,
    },
    /// systemd passed something that is not a TCP listener.
    #[error(
        "systemd passed socket {index}, which is no TCP listener: {source}; use ListenStream= with a port"
    )]
    Passed {
        /// Its number, counted from 0.
        index: usize,
        /// What the system said.
        source: io::Error,
    },
}

fn by(owner: &Option<(u32, String)>) -> String {
    owner.as_ref().map_or_else(String::new, |(pid, name)| {
        format!(" by {name} (process {pid})")
    })
}

fn hint(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::PermissionDenied {
        "; ports below 1024 need CAP_NET_BIND_SERVICE"
    } else {
        ""
    }
}

/// A listener as a configuration wants it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Wanted {
    /// The table of the configuration that asks for it.
    table: &'static str,
    address: SocketAddr,
    port_when_busy: PortWhenBusy,
    speaks: Speaks,
}

/// What is spoken on a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speaks {
    /// HTTP/1.1 in clear.
    Http,
    /// HTTP over TLS, with or without certificates of clients.
    Https(ClientCertificates),
}

impl Speaks {
    pub(super) fn scheme(self) -> Scheme {
        match self {
            Self::Http => Scheme::Http,
            Self::Https(_) => Scheme::Https,
        }
    }
}

/// Every listener that `config` asks for, the one in clear first.
pub(super) fn wanted(config: &Config) -> Vec<Wanted> {
    let mut all = Vec::new();
    if config.http.enabled && config.tls.mode == TlsMode::Permissive {
        all.push(Wanted {
            table: "http",
            address: config.http.socket_addr(),
            port_when_busy: config.http.port_when_busy,
            speaks: Speaks::Http,
        });
    }
    if config.https.enabled {
        all.push(Wanted {
            table: "https",
            address: config.https.socket_addr(),
            port_when_busy: config.https.port_when_busy,
            speaks: Speaks::Https(config.https.client_certificates),
        });
    }
    all.extend(config.listener.iter().map(|listener| Wanted {
        table: "listener",
        address: listener.socket_addr(),
        port_when_busy: listener.port_when_busy,
        speaks: Speaks::Https(listener.client_certificates),
    }));
    all
}

/// A bound TCP socket.
pub(super) struct Listener {
    pub(super) socket: TcpListener,
    pub(super) address: SocketAddr,
    pub(super) speaks: Speaks,
    /// What it was bound for; none for systemd's, which a reload leaves where they are.
    wanted: Option<Wanted>,
}

impl Listener {
    fn new(socket: TcpListener, speaks: Speaks, wanted: Option<Wanted>) -> io::Result<Self> {
        let address = socket.local_addr()?;
        Ok(Self {
            socket,
            address,
            speaks,
            wanted,
        })
    }

    /// Whether systemd passed it.
    pub(super) fn is_passed(&self) -> bool {
        self.wanted.is_none()
    }

    /// The same socket once more.
    fn again(&self) -> io::Result<Self> {
        Ok(Self {
            socket: self.socket.try_clone()?,
            address: self.address,
            speaks: self.speaks,
            wanted: self.wanted.clone(),
        })
    }
}

/// Binds every listener that `config` asks for; those of `open` that it asks for, too, are taken on.
pub(super) fn bind_all(config: &Config, open: &[Listener]) -> Result<Vec<Listener>, ListenError> {
    wanted(config)
        .into_iter()
        .map(|wanted| {
            let is_open = |listener: &&Listener| listener.wanted.as_ref() == Some(&wanted);
            match open.iter().find(is_open) {
                Some(listener) => listener.again().map_err(|source| ListenError::Refused {
                    address: wanted.address,
                    source,
                }),
                None => bind_wanted(wanted),
            }
        })
        .collect()
}

/// The sockets of `open`, which systemd passed, as `config` wants them from now on: with or without certificates of
/// clients, and under STRICT none in clear.
pub(super) fn take_on_passed(
    config: &Config,
    open: &[Listener],
) -> Result<Vec<Listener>, ListenError> {
    let strict = config.tls.mode == TlsMode::Strict;
    let mut listeners = Vec::new();
    for listener in open {
        let speaks = match listener.speaks {
            Speaks::Http if strict => {
                log::warn!(
                    "systemd passed {} for HTTP in clear; tls.mode is STRICT, it is closed until the next start",
                    listener.address
                );
                continue;
            }
            Speaks::Http => Speaks::Http,
            Speaks::Https(_) => Speaks::Https(config.https.client_certificates),
        };
        let again = listener.again().map_err(|source| ListenError::Refused {
            address: listener.address,
            source,
        })?;
        listeners.push(Listener { speaks, ..again });
    }
    if listeners.is_empty() {
        return bind_all(config, &[]);
    }
    Ok(listeners)
}

/// Binds a listener by the policy for a busy port.
fn bind_wanted(wanted: Wanted) -> Result<Listener, ListenError> {
    let Wanted { table, address, .. } = wanted;
    let refused = |source| ListenError::Refused { address, source };
    let socket = match bind(address) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => match wanted.port_when_busy {
            PortWhenBusy::Fail => {
                let owner = port_owner::find(address.port());
                return Err(ListenError::Busy {
                    table,
                    address,
                    owner: owner.map(|owner| (owner.pid, owner.name)),
                });
            }
            PortWhenBusy::Any => bind(SocketAddr::new(address.ip(), 0)).map_err(refused)?,
            PortWhenBusy::Range(first, last) => bind_range(table, address, first, last)?,
        },
        socket => socket.map_err(refused)?,
    };
    Listener::new(socket, wanted.speaks, Some(wanted)).map_err(refused)
}

fn bind_range(
    table: &'static str,
    address: SocketAddr,
    first: u16,
    last: u16,
) -> Result<TcpListener, ListenError> {
    for port in first..=last {
        let candidate = SocketAddr::new(address.ip(), port);
        match bind(candidate) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(source) => {
                return Err(ListenError::Refused {
                    address: candidate,
                    source,
                });
            }
            Ok(socket) => return Ok(socket),
        }
    }
    Err(ListenError::RangeBusy {
        table,
        address,
        first,
        last,
    })
}

/// Binds one address. `::` takes IPv4 as well, and stands for `0.0.0.0` on a kernel without IPv6.
fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    match bind_exactly(address) {
        Err(error)
            if address.ip() == IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED) && no_ipv6(&error) =>
        {
            bind_exactly(SocketAddr::new(
                Ipv4Addr::UNSPECIFIED.into(),
                address.port(),
            ))
        }
        result => result,
    }
}

fn no_ipv6(error: &io::Error) -> bool {
    // EAFNOSUPPORT has no ErrorKind of its own; the kernel's number is the same on every Linux
    // but MIPS and SPARC, where a device without IPv6 names 0.0.0.0 itself.
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(97)
}

fn bind_exactly(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // A restart must not wait for the old connections' TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// The TCP listeners that systemd passed, in its order (`sd_listen_fds(3)`). One whose `FileDescriptorName=` is
/// `http` speaks in clear, every other one TLS.
#[cfg(feature = "systemd")]
pub(super) fn passed(config: &Config) -> Result<Vec<Listener>, ListenError> {
    // listenfd takes the variables out of the environment, and does not tell the names.
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let mut fds = listenfd::ListenFd::from_env();
    let mut listeners = Vec::new();
    for index in 0..fds.len() {
        let speaks = match names.next() {
            Some("http") => Speaks::Http,
            _ => Speaks::Https(config.https.client_certificates),
        };
        let socket = fds
            .take_tcp_listener(index)
            .map_err(|source| ListenError::Passed { index, source })?;
        if let Some(socket) = socket {
            if speaks == Speaks::Http && config.tls.mode == TlsMode::Strict {
                log::warn!(
                    "systemd passed socket {index} for HTTP in clear; tls.mode is STRICT, it is closed"
                );
                continue;
            }
            let listener = Listener::new(socket, speaks, None)
                .map_err(|source| ListenError::Passed { index, source })?;
            listeners.push(listener);
        }
    }
    Ok(listeners)
}

#[cfg(not(feature = "systemd"))]
pub(super) fn passed(_: &Config) -> Result<Vec<Listener>, ListenError> {
    Ok(Vec::new())
}

/// Binds the Unix socket on which the device itself asks. A socket that a dead service left is replaced.
pub(super) fn bind_control(path: &Path) -> Result<UnixListener, ListenError> {
    let failed = |source| ListenError::RuntimeDir {
        path: path.to_owned(),
        source,
    };
    if let Some(directory) = path.parent()
        && !directory.exists()
    {
        fs::create_dir(directory).map_err(|source| ListenError::RuntimeDir {
            path: directory.to_owned(),
            source,
        })?;
    }
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => {
            if UnixStream::connect(path).is_ok() {
                return Err(ListenError::AlreadyRunning {
                    path: path.to_owned(),
                });
            }
            fs::remove_file(path).map_err(failed)?;
        }
        Ok(_) => {
            return Err(failed(io::Error::other(
                "is in the way and is not a socket",
            )));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let socket = UnixListener::bind(path).map_err(failed)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o660)).map_err(failed)?;
    Ok(socket)
}
