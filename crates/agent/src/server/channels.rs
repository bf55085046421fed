//! The channel protocols over WebSocket: the first byte of a message names the channel
//! (`v5.channel.k8s.io`, `v4.channel.k8s.io`), or the first digit, with base64 behind it
//! (`v4.base64.channel.k8s.io`). The first version (`channel.k8s.io`) has the failure as plain text
//! in place of a status.

use std::io;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use super::remote::{self, ERROR, Incoming, Outgoing, RESIZE, STDIN, parse_size};
use super::websocket::{Message, Opcode, Reader, close, frame};

/// The protocols, the best first.
pub const PROTOCOLS: [&str; 5] = [
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "v4.base64.channel.k8s.io",
    FIRST,
    "base64.channel.k8s.io",
];
/// What a client speaks that names no protocol.
pub const FIRST: &str = "channel.k8s.io";
/// Pseudo-channel of version 5: the channel named in its first byte is closed.
const CLOSE: u8 = 255;

/// Carries messages between a WebSocket and a session's two ends until one of them ends.
pub async fn carry(
    io: impl AsyncRead + AsyncWrite,
    protocol: &str,
    incoming: mpsc::Sender<Incoming>,
    mut outgoing: mpsc::Receiver<Outgoing>,
) -> io::Result<()> {
    let base64 = protocol.contains("base64");
    let has_status = protocol.starts_with('v');
    let (read, mut write) = tokio::io::split(io);
    let mut reader = Reader::new(Box::pin(read));
    let mut waiting = None;
    loop {
        tokio::select! {
            message = outgoing.recv() => match message {
                Some(Outgoing::Data(ERROR, data)) if !has_status => {
                    if let Some(failure) = remote::failure_text(&data) {
                        write.write_all(&encode(ERROR, failure.as_bytes(), base64)).await?;
                    }
                }
                Some(Outgoing::Data(channel, data)) => write.write_all(&encode(channel, &data, base64)).await?,
                Some(Outgoing::End(_)) => {}
                None => return close(&mut write).await,
            },
            // While the session cannot take more the client is held back, but output goes on:
            // a process that echoes would otherwise wait for us and we for it.
            Ok(permit) = incoming.reserve(), if waiting.is_some() => {
                if let Some(message) = waiting.take() {
                    permit.send(message);
                }
            }
            message = reader.next(), if waiting.is_none() => match message? {
                Some(Message::Data(data)) => {
                    waiting = decode(data, base64).filter(|_| !incoming.is_closed());
                }
                Some(Message::Ping(data)) => write.write_all(&frame(Opcode::Pong, &data)).await?,
                Some(Message::Close) | None => return Ok(()),
            },
        }
    }
}

fn encode(channel: u8, data: &[u8], base64: bool) -> Bytes {
    if base64 {
        let text = format!("{channel}{}", BASE64.encode(data));
        return frame(Opcode::Text, text.as_bytes());
    }
    let mut payload = BytesMut::with_capacity(data.len() + 1);
    payload.put_u8(channel);
    payload.put_slice(data);
    frame(Opcode::Binary, &payload)
}

fn decode(mut data: Bytes, base64: bool) -> Option<Incoming> {
    let first = *data.first()?;
    let rest = data.split_off(1);
    let (channel, rest) = match base64 {
        true => (first.checked_sub(b'0')?, BASE64.decode(&rest).ok()?.into()),
        false => (first, rest),
    };
    match channel {
        STDIN => Some(Incoming::Stdin(rest)),
        RESIZE => parse_size(&rest),
        CLOSE if rest.first() == Some(&STDIN) => Some(Incoming::StdinClosed),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_in_both_encodings() {
        let plain = |data: &'static [u8]| decode(Bytes::from_static(data), false);
        assert_eq!(plain(b"\0hi"), Some(Incoming::Stdin("hi".into())));
        assert_eq!(plain(b"\xff\0"), Some(Incoming::StdinClosed));
        assert_eq!(plain(b"\x04{\"Width\":1,\"Height\":2}"), Some(Incoming::Resize(1, 2)));
        assert_eq!(plain(b""), None);
        assert_eq!(decode("0aGk=".into(), true), Some(Incoming::Stdin("hi".into())));
        assert_eq!(&encode(1, b"hi", false)[..], b"\x82\x03\x01hi");
        assert_eq!(&encode(1, b"hi", true)[..], b"\x81\x051aGk=");
    }
}
