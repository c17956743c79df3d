//! The way to the collector: a socket that is never waited for longer than a limit.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustls::ClientConnection;
use socket2::{SockRef, TcpKeepalive};

use super::tls;
use crate::config::{Transport, UplinkConfig};

/// How long the name's addresses may take together to accept a connection, and then TLS to be agreed on.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// How long the collector may take nothing, and how long TCP waits for an answer to what it has sent. TCP
/// itself sees to it: that the socket takes no more says nothing, on a slow way.
const WRITE_LIMIT: Duration = Duration::from_secs(10);
/// How long an idle connection is trusted before TCP asks whether the other side is still there.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// What a collector may say at a time; nobody listens to it, in reads of 512 bytes.
const MAX_READS: usize = 64;

/// Why records do not get to the collector.
#[derive(Debug, PartialEq)]
pub(super) enum Failure {
    /// It has closed the connection, in order and without a word.
    Closed,
    /// Something went wrong.
    Broken(String),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Closed => f.write_str("it closed the connection"),
            Self::Broken(reason) => f.write_str(reason),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Broken(error.to_string())
    }
}

impl From<String> for Failure {
    fn from(reason: String) -> Self {
        Self::Broken(reason)
    }
}

/// A way that is open.
pub(super) struct Connection {
    stream: Stream,
    /// What waits to be written together, a turn's records at most; not for UDP.
    batch: Vec<u8>,
    /// How much of it was written.
    written: usize,
    config: UplinkConfig,
}

enum Stream {
    Udp(UdpSocket),
    Tcp(TcpStream),
    Tls(TcpStream, Box<ClientConnection>),
}

impl Connection {
    /// Connects and agrees on TLS, within [`CONNECT_LIMIT`] for each and what the resolver takes.
    pub(super) fn open(config: &UplinkConfig) -> Result<Self, Failure> {
        // A file that is wrong is said without bothering the collector.
        let tls = match config.transport {
            Transport::Tls => Some(tls::connection(config)?),
            Transport::Tcp | Transport::Udp => None,
        };
        let addresses: Vec<SocketAddr> = config
            .host_and_port()
            .ok_or_else(|| String::from("log.uplink.server has no name and port"))?
            .to_socket_addrs()
            .map_err(|error| format!("its name cannot be resolved: {error}"))?
            .collect();
        let stream = match (config.transport, tls) {
            (Transport::Udp, _) => Stream::Udp(open_udp(&addresses)?),
            (_, Some(tls)) => {
                let mut stream = Stream::Tls(open_tcp(&addresses)?, Box::new(tls));
                stream.shake_hands(config)?;
                stream
            }
            (_, None) => Stream::Tcp(open_tcp(&addresses)?),
        };
        Ok(Self {
            stream,
            batch: Vec::new(),
            written: 0,
            config: config.clone(),
        })
    }

    /// How long after it has left this device a record counts as delivered if no error came back: longer
    /// than TCP waits for an answer; for UDP, long enough for the word that nobody is there.
    pub(super) fn confirm_wait(&self) -> Duration {
        match self.stream {
            Stream::Udp(_) => Duration::from_secs(2),
            Stream::Tcp(_) | Stream::Tls(..) => WRITE_LIMIT + Duration::from_secs(2),
        }
    }

    /// Takes a record for the next [`Connection::flush`]; in TCP and TLS with its length before it (RFC 6587,
    /// section 3.4.1). In UDP it is sent at once.
    pub(super) fn send(&mut self, record: &[u8]) -> Result<(), Failure> {
        if let Stream::Udp(socket) = &self.stream {
            return send_datagram(socket, record);
        }
        write!(self.batch, "{} ", record.len())?;
        self.batch.extend_from_slice(record);
        Ok(())
    }

    /// Writes what the socket takes now. True when that was all.
    pub(super) fn flush(&mut self) -> Result<bool, Failure> {
        let written = match &mut self.stream {
            Stream::Udp(_) => return Ok(true),
            Stream::Tcp(stream) => write_tcp(stream, &self.batch, &mut self.written),
            Stream::Tls(stream, tls) => write_tls(stream, tls, &self.batch, &mut self.written),
        };
        match written {
            Ok(()) => {
                self.batch.clear();
                self.written = 0;
                Ok(true)
            }
            Err(error) if is_to_be_repeated(&error) => Ok(false),
            // TLS may have said why before the connection broke.
            Err(error) => Err(match self.listen() {
                Err(Failure::Broken(reason)) => Failure::Broken(reason),
                _ => error.into(),
            }),
        }
    }

    /// Looks whether the collector has closed or broken the connection.
    pub(super) fn listen(&mut self) -> Result<(), Failure> {
        let mut scratch = [0; 512];
        for _ in 0..MAX_READS {
            let read = match &mut self.stream {
                Stream::Udp(socket) => socket.recv(&mut scratch).map(|_| 1),
                Stream::Tcp(stream) => stream.read(&mut scratch),
                Stream::Tls(stream, tls) => {
                    let read = tls.read_tls(stream);
                    let state = tls
                        .process_new_packets()
                        .map_err(|error| tls::reason(&error, &self.config))?;
                    discard(tls, state.plaintext_bytes_to_read());
                    if state.peer_has_closed() {
                        return Err(Failure::Closed);
                    }
                    read
                }
            };
            match read {
                Ok(0) => return Err(Failure::Closed),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Whether everything has left this device; waits for `limit` until the socket takes more.
    pub(super) fn is_sent(&mut self, limit: Duration) -> Result<bool, Failure> {
        let all = self.flush()?;
        match &self.stream {
            Stream::Udp(_) => Ok(true),
            // With TCP_NOTSENT_LOWAT of 1, as set below, that is when there is nothing left to be sent.
            Stream::Tcp(stream) | Stream::Tls(stream, _) => {
                Ok(ready(stream, PollFlags::OUT, limit)? && all)
            }
        }
    }

    /// Says that nothing more comes, and waits until the collector has seen that. True when it closed its
    /// side as well, for which it must have read everything.
    pub(super) fn close(mut self, end: Instant) -> bool {
        self.try_close(end).unwrap_or(false)
    }

    fn flush_until(&mut self, end: Instant) -> Result<(), Failure> {
        while !self.flush()? {
            self.is_sent(left(end)?)?;
        }
        Ok(())
    }

    fn try_close(&mut self, end: Instant) -> Result<bool, Failure> {
        self.flush_until(end)?;
        if let Stream::Tls(_, tls) = &mut self.stream {
            tls.send_close_notify();
            self.flush_until(end)?;
        }
        match &self.stream {
            Stream::Udp(_) => return self.listen().map(|()| true),
            Stream::Tcp(stream) | Stream::Tls(stream, _) => stream.shutdown(Shutdown::Write)?,
        }
        let mut scratch = [0; 512];
        loop {
            // What TLS still has to say does not matter any more, only that TCP ends without a reset.
            let (Stream::Tcp(stream) | Stream::Tls(stream, _)) = &mut self.stream else {
                return Ok(false);
            };
            if !ready(stream, PollFlags::IN, left(end)?)? {
                return Ok(false);
            }
            match stream.read(&mut scratch) {
                Ok(0) => return Ok(true),
                Ok(_) => {}
                Err(error) if is_to_be_repeated(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Stream {
    fn shake_hands(&mut self, config: &UplinkConfig) -> Result<(), Failure> {
        let Self::Tls(stream, tls) = self else {
            return Ok(());
        };
        let end = Instant::now() + CONNECT_LIMIT;
        while tls.is_handshaking() || tls.wants_write() {
            let (flags, turn) = if tls.wants_write() {
                (PollFlags::OUT, tls.write_tls(stream))
            } else {
                (PollFlags::IN, tls.read_tls(stream))
            };
            match turn {
                Ok(0) => {
                    return Err(Failure::Broken(String::from(
                        "it closed the connection before TLS was agreed on; does it speak TLS?",
                    )));
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let left = end.saturating_duration_since(Instant::now());
                    if left.is_zero() || !ready(stream, flags, left)? {
                        return Err(Failure::Broken(format!(
                            "it has not agreed on TLS within {} s; does it speak TLS?",
                            CONNECT_LIMIT.as_secs()
                        )));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
            if let Err(error) = tls.process_new_packets() {
                // The collector's log should say why; whether that gets there matters to nobody here.
                let _ = tls.write_tls(stream);
                return Err(Failure::Broken(tls::reason(&error, config)));
            }
        }
        Ok(())
    }
}

/// Writes what of `bytes` is behind `written`; an error of the kind `WouldBlock` when the socket took a part.
fn write_tcp(stream: &mut TcpStream, bytes: &[u8], written: &mut usize) -> io::Result<()> {
    while *written < bytes.len() {
        *written += stream.write(&bytes[*written..])?;
    }
    Ok(())
}

/// The same, and what TLS itself has to say.
fn write_tls(
    stream: &mut TcpStream,
    tls: &mut ClientConnection,
    bytes: &[u8],
    written: &mut usize,
) -> io::Result<()> {
    loop {
        if *written < bytes.len() {
            // It takes a bounded amount before that is written.
            *written += tls.writer().write(&bytes[*written..])?;
        }
        if !tls.wants_write() {
            return Ok(());
        }
        tls.write_tls(stream)?;
    }
}

fn discard(tls: &mut ClientConnection, count: usize) {
    if count > 0 {
        // It is in memory already.
        let _ = io::copy(&mut tls.reader().take(count as u64), &mut io::sink());
    }
}

fn send_datagram(socket: &UdpSocket, record: &[u8]) -> Result<(), Failure> {
    loop {
        match socket.send(record) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if !ready(socket, PollFlags::OUT, WRITE_LIMIT)? {
                    return Err(error.into());
                }
            }
            // EMSGSIZE has no ErrorKind. Nothing makes this record shorter; the next ones may pass.
            Err(error) if error.raw_os_error() == Some(MESSAGE_TOO_LONG) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

const MESSAGE_TOO_LONG: i32 = rustix::io::Errno::MSGSIZE.raw_os_error();

fn open_udp(addresses: &[SocketAddr]) -> io::Result<UdpSocket> {
    first_of(addresses, |address| {
        let any: SocketAddr = match address {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any)?;
        socket.connect(address)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    })
}

fn open_tcp(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    // A name with an address that is dead is still a name with others.
    let share = CONNECT_LIMIT / addresses.len().max(1) as u32;
    first_of(addresses, |address| {
        let stream = TcpStream::connect_timeout(address, share)?;
        let socket = SockRef::from(&stream);
        socket.set_tcp_user_timeout(Some(WRITE_LIMIT))?;
        socket.set_tcp_keepalive(
            &TcpKeepalive::new()
                .with_time(KEEPALIVE)
                .with_interval(WRITE_LIMIT),
        )?;
        // The socket is ready for more only when all that it has was sent.
        socket.set_tcp_notsent_lowat(1)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(stream)
    })
}

/// Tries one address after the other; the last one's error counts.
fn first_of<T>(
    addresses: &[SocketAddr],
    mut open: impl FnMut(&SocketAddr) -> io::Result<T>,
) -> io::Result<T> {
    let mut last = io::Error::other("its name has no address");
    for address in addresses {
        match open(address) {
            Ok(opened) => return Ok(opened),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// What is left until `end`, as an error when that is nothing.
fn left(end: Instant) -> io::Result<Duration> {
    let left = end.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    Ok(left)
}

/// Waits until the socket can be read or written or is broken, which the next call then says.
fn ready(socket: &impl AsFd, flags: PollFlags, limit: Duration) -> io::Result<bool> {
    let end = Instant::now() + limit;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(socket, flags)], Some(&timeout)) {
            Ok(count) => return Ok(count > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn is_to_be_repeated(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}
