//! The raw sockets: one for advertisements, one for the frames that announce addresses.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg,
};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::announce::Mac;
use super::packet::{
    Datagram, GROUP_V4, GROUP_V6, Malformed, PACKET_BYTES_MAX, PROTOCOL, Packet, TTL,
};

/// The longest IPv4 header.
const IP_HEADER_BYTES_MAX: usize = 60;
/// "Internetwork control", what routing protocols mark their packets with.
const TRAFFIC_CLASS: i32 = 0xc0;

/// An advertisement that has come in.
#[derive(Debug)]
pub(super) struct Received {
    /// Who sent it.
    pub source: IpAddr,
    /// What it says, or why it says nothing.
    pub packet: Result<Packet, Refused>,
}

/// Why a packet was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("its TTL is {0}, so it has passed a router or was made elsewhere")]
    Travelled(u8),
}

/// Sends and receives advertisements on one interface, in one family.
pub(super) struct Adverts {
    /// Not UDP at all: what is needed of it is to be told when there is something to read.
    socket: UdpSocket,
    v4: bool,
    index: u32,
}

impl Adverts {
    /// Opens the socket and joins the multicast group.
    pub(super) fn open(v4: bool, interface: &str, index: u32) -> io::Result<Self> {
        let domain = if v4 { Domain::IPV4 } else { Domain::IPV6 };
        let protocol = Protocol::from(i32::from(PROTOCOL));
        let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
        socket.set_nonblocking(true)?;
        socket.bind_device(Some(interface.as_bytes()))?;
        if v4 {
            socket.join_multicast_v4_n(&GROUP_V4, &InterfaceIndexOrAddress::Index(index))?;
            socket.set_multicast_loop_v4(false)?;
            socket.set_multicast_ttl_v4(u32::from(TTL))?;
            socket.set_ttl_v4(u32::from(TTL))?;
            socket.set_tos_v4(TRAFFIC_CLASS.unsigned_abs())?;
        } else {
            socket.join_multicast_v6(&GROUP_V6, index)?;
            socket.set_multicast_if_v6(index)?;
            socket.set_multicast_loop_v6(false)?;
            socket.set_multicast_hops_v6(u32::from(TTL))?;
            socket.set_unicast_hops_v6(u32::from(TTL))?;
            nix::sys::socket::setsockopt(
                &socket,
                nix::sys::socket::sockopt::Ipv6TClass,
                &TRAFFIC_CLASS,
            )?;
            socket.set_recv_hoplimit_v6(true)?;
            nix::sys::socket::setsockopt(
                &socket,
                nix::sys::socket::sockopt::Ipv6RecvPacketInfo,
                &true,
            )?;
        }
        Ok(Self { socket: UdpSocket::from_std(socket.into())?, v4, index })
    }

    /// The multicast group.
    pub(super) fn group(&self) -> IpAddr {
        if self.v4 { GROUP_V4.into() } else { GROUP_V6.into() }
    }

    /// Sends an advertisement; the source is said, since the kernel could choose the very address
    /// that is being advertised.
    pub(super) fn send(&self, packet: &Packet, source: IpAddr, to: IpAddr) -> io::Result<()> {
        let bytes = packet.encode(source, to);
        let iov = [io::IoSlice::new(&bytes)];
        let fd = self.socket.as_raw_fd();
        let sent = match (source, to) {
            (IpAddr::V4(source), IpAddr::V4(to)) => {
                let mut info = in_pktinfo(self.index);
                info.ipi_spec_dst.s_addr = u32::from_ne_bytes(source.octets());
                let target = SockaddrStorage::from(SocketAddr::V4(SocketAddrV4::new(to, 0)));
                let control = [ControlMessage::Ipv4PacketInfo(&info)];
                sendmsg(fd, &iov, &control, MsgFlags::empty(), Some(&target))
            }
            (IpAddr::V6(source), IpAddr::V6(to)) => {
                let info = libc::in6_pktinfo {
                    ipi6_addr: libc::in6_addr { s6_addr: source.octets() },
                    ipi6_ifindex: self.index,
                };
                let target = SocketAddr::V6(SocketAddrV6::new(to, 0, 0, self.index));
                let target = SockaddrStorage::from(target);
                let control = [ControlMessage::Ipv6PacketInfo(&info)];
                sendmsg(fd, &iov, &control, MsgFlags::empty(), Some(&target))
            }
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        };
        Ok(sent.map(drop)?)
    }

    /// Waits for the next packet. Cancel-safe.
    pub(super) async fn receive(&self) -> io::Result<Received> {
        loop {
            self.socket.readable().await?;
            match self.socket.try_io(Interest::READABLE, || self.read()) {
                Ok(Some(received)) => return Ok(received),
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn read(&self) -> io::Result<Option<Received>> {
        let mut buffer = [0; IP_HEADER_BYTES_MAX + PACKET_BYTES_MAX];
        let mut control = nix::cmsg_space!(libc::c_int, libc::in6_pktinfo);
        let mut iov = [IoSliceMut::new(&mut buffer)];
        let fd = self.socket.as_raw_fd();
        let message =
            match recvmsg::<SockaddrStorage>(fd, &mut iov, Some(&mut control), MsgFlags::empty()) {
                Err(Errno::EAGAIN) => return Err(io::ErrorKind::WouldBlock.into()),
                other => other?,
            };
        let (mut hops, mut destination) = (0, None);
        for control in message.cmsgs()? {
            match control {
                ControlMessageOwned::Ipv6HopLimit(limit) => hops = u8::try_from(limit).unwrap_or(0),
                ControlMessageOwned::Ipv6PacketInfo(info) => {
                    destination = Some(IpAddr::from(info.ipi6_addr.s6_addr));
                }
                _ => {}
            }
        }
        let source = message.address.as_ref().and_then(SockaddrStorage::as_sockaddr_in6);
        let source = source.map(|source| IpAddr::V6(source.ip()));
        let length = message.bytes;
        let bytes = &buffer[..length.min(buffer.len())];
        Ok(match self.v4 {
            true => Datagram::decode(bytes).map(|datagram| {
                let (source, to) = (datagram.source.into(), datagram.destination.into());
                judge(datagram.payload, source, to, datagram.ttl)
            }),
            false => source.zip(destination).map(|(source, to)| judge(bytes, source, to, hops)),
        })
    }
}

fn judge(payload: &[u8], source: IpAddr, destination: IpAddr, ttl: u8) -> Received {
    let packet = match ttl {
        TTL => Packet::decode(payload, source, destination).map_err(Refused::Malformed),
        other => Err(Refused::Travelled(other)),
    };
    Received { source, packet }
}

fn in_pktinfo(index: u32) -> libc::in_pktinfo {
    libc::in_pktinfo {
        ipi_ifindex: i32::try_from(index).unwrap_or(0),
        ipi_spec_dst: libc::in_addr { s_addr: 0 },
        ipi_addr: libc::in_addr { s_addr: 0 },
    }
}

/// Sends whole Ethernet frames on one interface.
pub(super) struct Frames {
    socket: Socket,
    index: u32,
}

impl Frames {
    /// Opens a socket that receives nothing.
    pub(super) fn open(index: u32) -> io::Result<Self> {
        let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, index })
    }

    /// Sends a frame, whose first bytes are the hardware address it goes to.
    pub(super) fn send(&self, frame: &[u8]) -> io::Result<()> {
        let mac: Mac = frame.get(..6).and_then(|mac| mac.try_into().ok()).unwrap_or([0xff; 6]);
        let mut target = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: u16::from_ne_bytes([frame[12], frame[13]]),
            sll_ifindex: i32::try_from(self.index).unwrap_or(0),
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 6,
            sll_addr: [0; 8],
        };
        target.sll_addr[..6].copy_from_slice(&mac);
        // SAFETY: the pointers are to a slice and to a `sockaddr_ll` that both live through the
        // call, with their lengths beside them; no safe wrapper makes an address of a frame's
        // target (nix's `LinkAddr` can only be received).
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                (&raw const target).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}
