//! A bad cable: a process that passes frames between two links, later than they came and not all
//! of them. The kernel's netem would do as well, but many kernels are built without it.
//!
//! Frames keep their order, each way has half of the delay, and what the kernel left undone in a
//! frame (checksums, segmentation) is passed on with it.

use std::collections::VecDeque;
use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::fault::{LOSS_PARTS, Wire};

/// The first argument that makes the binary a cable.
pub const ARGUMENT: &str = "sandbox-wire";
/// The longest frame: a segment of 64 KiB that the kernel has yet to cut, and its headers.
const FRAME_BYTES_MAX: usize = 66 << 10;
/// What is on its way in one direction; a fast link of 100 Mbit/s holds so much in a second.
const QUEUE_BYTES_MAX: usize = 16 << 20;
/// `PACKET_IGNORE_OUTGOING` of linux/if_packet.h, which libc does not name.
const PACKET_IGNORE_OUTGOING: i32 = 23;

/// Runs the relay for `LINK LINK DELAY_MS JITTER_MS LOSS` until one of the links is gone.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let words: Vec<String> = arguments.map(|a| a.to_string_lossy().into_owned()).collect();
    let [one, other, numbers @ ..] = &words[..] else { return ExitCode::FAILURE };
    let numbers: Vec<u32> = numbers.iter().filter_map(|word| word.parse().ok()).collect();
    let [delay_ms, jitter_ms, loss] = numbers[..] else { return ExitCode::FAILURE };
    match relay(one, other, Wire { delay_ms, jitter_ms, loss }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the relay between {one} and {other} has ended: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The arguments of a relay.
pub(crate) fn arguments(one: &str, other: &str, wire: &Wire) -> Vec<String> {
    let numbers = [wire.delay_ms, wire.jitter_ms, wire.loss].map(|number| number.to_string());
    [ARGUMENT, one, other].map(str::to_owned).into_iter().chain(numbers).collect()
}

/// Frames on their way in one direction.
struct Lane {
    wire: Wire,
    random: fastrand::Rng,
    frames: VecDeque<(Instant, Vec<u8>)>,
    bytes: usize,
}

impl Lane {
    fn new(wire: Wire, seed: u64) -> Self {
        let random = fastrand::Rng::with_seed(seed);
        Lane { wire, random, frames: VecDeque::new(), bytes: 0 }
    }

    /// Takes a frame in, or loses it.
    fn take(&mut self, frame: &[u8], now: Instant) {
        if self.random.u32(..LOSS_PARTS) < self.wire.loss
            || self.bytes + frame.len() > QUEUE_BYTES_MAX
        {
            return;
        }
        let due = now + self.delay();
        // A cable never turns the order round.
        let due = self.frames.back().map_or(due, |(last, _)| due.max(*last));
        self.bytes += frame.len();
        self.frames.push_back((due, frame.to_vec()));
    }

    fn delay(&mut self) -> Duration {
        let half = |ms: u32| i64::from(ms) * 500;
        let jitter = half(self.wire.jitter_ms);
        let micros = half(self.wire.delay_ms) + self.random.i64(-jitter..=jitter);
        Duration::from_micros(micros.max(0).unsigned_abs())
    }

    /// The next frame that has arrived.
    fn arrived(&mut self, now: Instant) -> Option<Vec<u8>> {
        if self.frames.front()?.0 > now {
            return None;
        }
        let (_, frame) = self.frames.pop_front()?;
        self.bytes -= frame.len();
        Some(frame)
    }

    fn next(&self) -> Option<Instant> {
        self.frames.front().map(|(due, _)| *due)
    }
}

fn relay(one: &str, other: &str, wire: Wire) -> io::Result<()> {
    let ends = [open(one)?, open(other)?];
    let mut lanes = [Lane::new(wire, fastrand::u64(..)), Lane::new(wire, fastrand::u64(..))];
    let mut buffer = vec![0; FRAME_BYTES_MAX];
    loop {
        let next = lanes.iter().filter_map(Lane::next).min();
        wait(&ends, next)?;
        let now = Instant::now();
        for side in [0, 1] {
            while let Some(length) = receive(&ends[side], &mut buffer)? {
                lanes[side].take(&buffer[..length], now);
            }
            while let Some(frame) = lanes[side].arrived(now) {
                send(&ends[1 - side], &frame)?;
            }
        }
    }
}

fn wait(ends: &[OwnedFd; 2], until: Option<Instant>) -> io::Result<()> {
    let mut fds = [0, 1].map(|side| PollFd::new(ends[side].as_fd(), PollFlags::POLLIN));
    let left = until.map(|until| until.saturating_duration_since(Instant::now()));
    // Poll counts whole milliseconds: rounding up keeps it from spinning.
    let timeout = left.map_or(PollTimeout::NONE, |left| {
        PollTimeout::try_from(left + Duration::from_micros(999)).unwrap_or(PollTimeout::MAX)
    });
    poll(&mut fds, timeout)?;
    Ok(())
}

/// A socket that sees and sends whole frames of a link, with what the kernel left undone in them.
fn open(link: &str) -> io::Result<OwnedFd> {
    let all = u16::try_from(libc::ETH_P_ALL).unwrap_or(3).to_be();
    let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // Protocol 0: nothing is seen before the socket is bound to its link.
    // SAFETY: a plain system call.
    let fd = checked(unsafe { libc::socket(libc::AF_PACKET, kind, 0) })?;
    // SAFETY: the descriptor is new and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let name = CString::new(link)?;
    // SAFETY: the name ends in NUL.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    let index = i32::try_from(index).ok().filter(|index| *index > 0);
    let index = index.ok_or_else(io::Error::last_os_error)?;
    option(&socket, libc::PACKET_VNET_HDR, &1)?;
    option(&socket, PACKET_IGNORE_OUTGOING, &1)?;
    let promiscuous = libc::packet_mreq {
        mr_ifindex: index,
        mr_type: u16::try_from(libc::PACKET_MR_PROMISC).unwrap_or(1),
        mr_alen: 0,
        mr_address: [0; 8],
    };
    option(&socket, libc::PACKET_ADD_MEMBERSHIP, &promiscuous)?;
    // SAFETY: an address of all zeros is valid; what matters is set below.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).unwrap_or(17);
    address.sll_protocol = all;
    address.sll_ifindex = index;
    let length = u32::try_from(size_of::<libc::sockaddr_ll>()).unwrap_or(20);
    let pointer = (&raw const address).cast::<libc::sockaddr>();
    // SAFETY: the pointer is to an address of the length that is given.
    checked(unsafe { libc::bind(socket.as_raw_fd(), pointer, length) })?;
    Ok(socket)
}

fn option<T>(socket: &OwnedFd, name: i32, value: &T) -> io::Result<()> {
    let length = u32::try_from(size_of::<T>()).unwrap_or(0);
    let pointer = std::ptr::from_ref(value).cast();
    // SAFETY: the pointer is to a value of the length that is given.
    let set =
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_PACKET, name, pointer, length) };
    checked(set).map(drop)
}

fn checked(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The next frame; `None` where there is none now. A link that is down for a while has none.
fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    // SAFETY: the buffer has the length that is given.
    let length =
        unsafe { libc::recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
    match usize::try_from(length) {
        Ok(length) => Ok(Some(length)),
        Err(_) => match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            error if error.raw_os_error() == Some(libc::ENETDOWN) => Ok(None),
            error => Err(error),
        },
    }
}

/// Sends a frame; one that the link cannot take now is lost, as on any cable.
fn send(socket: &OwnedFd, frame: &[u8]) -> io::Result<()> {
    // SAFETY: the frame has the length that is given.
    let sent = unsafe { libc::send(socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
    if sent >= 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::ENXIO | libc::ENODEV) => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_late_and_in_order() {
        let start = Instant::now();
        let mut lane = Lane::new(Wire { delay_ms: 200, jitter_ms: 100, loss: 0 }, 7);
        for number in 0..100u8 {
            lane.take(&[number], start);
        }
        assert_eq!(lane.arrived(start + Duration::from_millis(49)), None);
        let late = start + Duration::from_millis(151);
        let arrived: Vec<u8> = std::iter::from_fn(|| lane.arrived(late)).flatten().collect();
        assert_eq!(arrived, (0..100).collect::<Vec<u8>>());
        assert_eq!((lane.bytes, lane.next()), (0, None));
    }

    #[test]
    fn as_many_are_lost_as_asked_for() {
        let now = Instant::now();
        let mut lane = Lane::new(Wire { delay_ms: 0, jitter_ms: 0, loss: 500 }, 7);
        (0..10_000).for_each(|_| lane.take(&[0], now));
        let arrived = std::iter::from_fn(|| lane.arrived(now)).count();
        assert!((9_400..9_600).contains(&arrived), "{arrived}");
    }

    #[test]
    fn a_queue_has_an_end() {
        let now = Instant::now();
        let mut lane = Lane::new(Wire { delay_ms: 1000, jitter_ms: 0, loss: 0 }, 7);
        (0..300).for_each(|_| lane.take(&[0; FRAME_BYTES_MAX], now));
        assert!(lane.bytes <= QUEUE_BYTES_MAX && lane.frames.len() > 200);
    }
}
