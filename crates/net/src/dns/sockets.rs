//! The sockets of cluster DNS: bound here, or taken over from whoever has served them so far.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use socket2::{Socket, Type};
use tokio::net::{TcpListener, UdpSocket};

use super::DnsError;

/// Tries for a port that is free over UDP and TCP alike, where any port is right.
const ATTEMPTS: usize = 16;

/// One address, listened on.
pub(super) struct Pair {
    pub local: SocketAddr,
    pub udp: Arc<UdpSocket>,
    pub tcp: Arc<TcpListener>,
}

/// Listens on each address. `given` are sockets that somebody else serves: where one of them has
/// the address already a copy is used, so that what waits in it is not lost.
pub(super) fn open(listen: &[SocketAddr], given: &[OwnedFd]) -> Result<Vec<Pair>, DnsError> {
    listen.iter().map(|address| one(*address, given)).collect()
}

/// All sockets, for handing copies of them over.
pub(super) fn descriptors(pairs: &[Pair]) -> Vec<BorrowedFd<'_>> {
    pairs.iter().flat_map(|pair| [pair.udp.as_fd(), pair.tcp.as_fd()]).collect()
}

/// Both sockets of an address. For port 0 the port that UDP was given is tried for TCP, and both
/// anew if another program has it.
fn one(address: SocketAddr, given: &[OwnedFd]) -> Result<Pair, DnsError> {
    let failed = |protocol| move |source| DnsError::Listen { address, protocol, source };
    let mut attempt = 1;
    loop {
        let udp = match take(given, address, Type::DGRAM) {
            Some(udp) => udp,
            None => std::net::UdpSocket::bind(address).map_err(failed("udp"))?.into(),
        };
        let local = local(&udp).map_err(failed("udp"))?;
        let tcp = match take(given, local, Type::STREAM) {
            Some(tcp) => Ok(tcp),
            None => std::net::TcpListener::bind(local).map(Socket::from),
        };
        match tcp {
            Ok(tcp) => return pair(local, udp, tcp).map_err(failed("udp")),
            Err(_) if address.port() == 0 && attempt < ATTEMPTS => attempt += 1,
            Err(error) => return Err(failed("tcp")(error)),
        }
    }
}

fn take(given: &[OwnedFd], address: SocketAddr, kind: Type) -> Option<Socket> {
    given.iter().find_map(|given| {
        let socket = Socket::from(given.try_clone().ok()?);
        let fits = socket.r#type().ok()? == kind && local(&socket).ok()? == address;
        fits.then_some(socket)
    })
}

fn local(socket: &Socket) -> io::Result<SocketAddr> {
    let address = socket.local_addr()?;
    address.as_socket().ok_or_else(|| io::ErrorKind::Unsupported.into())
}

fn pair(local: SocketAddr, udp: Socket, tcp: Socket) -> io::Result<Pair> {
    udp.set_nonblocking(true)?;
    tcp.set_nonblocking(true)?;
    Ok(Pair {
        local,
        udp: Arc::new(UdpSocket::from_std(udp.into())?),
        tcp: Arc::new(TcpListener::from_std(tcp.into())?),
    })
}
