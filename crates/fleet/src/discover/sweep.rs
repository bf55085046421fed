//! Asks many addresses at once for SSH.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// How many are asked at a time.
const AT_ONCE: usize = 64;
/// Longest first line of an SSH server (RFC 4253, section 4.2).
const BANNER_BYTES_MAX: usize = 255;

/// The addresses where SSH answers, and what it says first.
pub(super) fn sweep(addresses: &[Ipv4Addr], port: u16, wait: Duration) -> Vec<(Ipv4Addr, String)> {
    let next = AtomicUsize::new(0);
    let found = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(addresses.len()) {
            scope.spawn(|| {
                while let Some(address) = addresses.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Some(banner) = banner(*address, port, wait)
                        && let Ok(mut found) = found.lock()
                    {
                        found.push((*address, banner));
                    }
                }
            });
        }
    });
    let mut found = found.into_inner().unwrap_or_default();
    found.sort_unstable();
    found
}

/// An SSH server speaks first; whoever is silent or speaks otherwise is none.
fn banner(address: Ipv4Addr, port: u16, wait: Duration) -> Option<String> {
    let to = SocketAddr::from((address, port));
    let mut stream = TcpStream::connect_timeout(&to, wait).ok()?;
    stream.set_read_timeout(Some(wait)).ok()?;
    let mut bytes = [0; BANNER_BYTES_MAX];
    let mut filled = 0;
    while filled < bytes.len() && !bytes[..filled].contains(&b'\n') {
        match stream.read(&mut bytes[filled..]) {
            Ok(0) | Err(_) => break,
            Ok(count) => filled += count,
        }
    }
    let text = String::from_utf8_lossy(&bytes[..filled]);
    let line = text.lines().next()?.trim();
    let printable = line.chars().all(|c| c.is_ascii_graphic() || c == ' ');
    (line.starts_with("SSH-") && printable).then(|| line.to_owned())
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn whoever_speaks_ssh_is_found_and_nobody_else() {
        let first = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 2), 0)).expect("bound");
        let port = first.local_addr().expect("an address").port();
        let second = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 3), port)).expect("bound");
        let speak = |listener: TcpListener, text: &'static [u8]| {
            std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().expect("accepted");
                stream.write_all(text).expect("written");
            })
        };
        let speakers = [
            speak(first, b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n"),
            speak(second, b"HTTP/1.0 400 Bad Request\r\n"),
        ];
        let addresses: Vec<Ipv4Addr> = (1..6).map(|last| Ipv4Addr::new(127, 0, 0, last)).collect();
        let found = sweep(&addresses, port, Duration::from_secs(5));
        assert_eq!(found, [(addresses[1], "SSH-2.0-OpenSSH_9.2p1 Debian-2".to_owned())]);
        for speaker in speakers {
            speaker.join().expect("ended");
        }
    }
}
