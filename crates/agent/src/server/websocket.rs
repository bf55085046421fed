//! The server's side of WebSocket (RFC 6455): handshake and frames, no extensions.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Longest message that is taken, in bytes: clients send 32 KiB at a time.
const MAX_MESSAGE_BYTES: usize = 4 << 20;
/// What a key is joined with before it is hashed (RFC 6455, section 1.3).
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// True for a request that wants to become a WebSocket.
pub fn wanted(headers: &HeaderMap) -> bool {
    let is = |name, value: &str| {
        let text = headers.get(name).and_then(|v: &HeaderValue| v.to_str().ok());
        text.is_some_and(|t| t.split(',').any(|part| part.trim().eq_ignore_ascii_case(value)))
    };
    is(header::UPGRADE, "websocket") && is(header::CONNECTION, "upgrade")
}

/// The first of `known` that the client offers; `None` when it offers none of them. A client that
/// names no protocol at all speaks `unnamed`.
pub fn choose(
    headers: &HeaderMap,
    known: &[&'static str],
    unnamed: Option<&'static str>,
) -> Option<&'static str> {
    if !headers.contains_key(header::SEC_WEBSOCKET_PROTOCOL) {
        return unnamed;
    }
    let offered: Vec<&str> = headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(',').map(str::trim))
        .collect();
    known.iter().copied().find(|protocol| offered.contains(protocol))
}

/// The answer that switches protocols. A client that named none would not know what to make of one.
pub fn accept<B: Default>(headers: &HeaderMap, protocol: Option<&str>) -> Response<B> {
    use base64::Engine;
    let mut response = Response::new(B::default());
    let Some(key) = headers.get(header::SEC_WEBSOCKET_KEY) else {
        *response.status_mut() = StatusCode::BAD_REQUEST;
        return response;
    };
    let joined = [key.as_bytes(), GUID.as_bytes()].concat();
    let digest = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, &joined);
    let answer = base64::engine::general_purpose::STANDARD.encode(digest);
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let out = response.headers_mut();
    out.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    out.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    if let Ok(answer) = HeaderValue::from_str(&answer) {
        out.insert(header::SEC_WEBSOCKET_ACCEPT, answer);
    }
    let protocol = protocol.filter(|_| headers.contains_key(header::SEC_WEBSOCKET_PROTOCOL));
    if let Some(Ok(protocol)) = protocol.map(HeaderValue::from_str) {
        out.insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    response
}

/// What a client has sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Message {
    /// Data, text or binary.
    Data(Bytes),
    /// To be answered with the same content.
    Ping(Bytes),
    /// The end.
    Close,
}

/// Kinds of frames (RFC 6455, section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// Text.
    Text = 1,
    /// Bytes.
    Binary = 2,
    /// The end.
    Close = 8,
    /// An answer to a ping.
    Pong = 10,
}

/// Reads messages.
pub struct Reader<R> {
    inner: R,
    buffer: BytesMut,
    message: BytesMut,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    /// Nothing read yet.
    pub fn new(inner: R) -> Self {
        Reader { inner, buffer: BytesMut::new(), message: BytesMut::new() }
    }

    /// The next message; `None` at the end of the connection. Safe to cancel.
    pub async fn next(&mut self) -> io::Result<Option<Message>> {
        loop {
            while let Some(frame) = take_frame(&mut self.buffer)? {
                if let Some(message) = self.add(frame)? {
                    return Ok(Some(message));
                }
            }
            if self.inner.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        }
    }

    fn add(&mut self, frame: Frame) -> io::Result<Option<Message>> {
        match frame.opcode {
            0..=2 => {
                if self.message.len() + frame.payload.len() > MAX_MESSAGE_BYTES {
                    return Err(invalid("message is too long"));
                }
                self.message.extend_from_slice(&frame.payload);
                Ok(frame.last.then(|| Message::Data(self.message.split().freeze())))
            }
            8 => Ok(Some(Message::Close)),
            9 => Ok(Some(Message::Ping(frame.payload.freeze()))),
            10 => Ok(None),
            _ => Err(invalid("unknown kind of frame")),
        }
    }
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("websocket: {text}"))
}

struct Frame {
    last: bool,
    opcode: u8,
    payload: BytesMut,
}

/// Takes one whole frame off the buffer.
fn take_frame(buffer: &mut BytesMut) -> io::Result<Option<Frame>> {
    let Some([first, second]) = buffer.get(..2).map(|b| [b[0], b[1]]) else { return Ok(None) };
    let (extra, masked) = (second & 0x7f, second & 0x80 != 0);
    if !masked {
        return Err(invalid("a client's frame must be masked"));
    }
    let size_bytes = match extra {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let header = 2 + size_bytes + 4;
    if buffer.len() < header {
        return Ok(None);
    }
    let length = match size_bytes {
        0 => u64::from(extra),
        n => buffer[2..2 + n].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
    };
    let length = usize::try_from(length).ok().filter(|l| *l <= MAX_MESSAGE_BYTES);
    let length = length.ok_or_else(|| invalid("frame is too long"))?;
    if buffer.len() < header + length {
        buffer.reserve(header + length - buffer.len());
        return Ok(None);
    }
    let mask: [u8; 4] =
        [buffer[header - 4], buffer[header - 3], buffer[header - 2], buffer[header - 1]];
    buffer.advance(header);
    let mut payload = buffer.split_to(length);
    payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
    Ok(Some(Frame { last: first & 0x80 != 0, opcode: first & 0x0f, payload }))
}

/// One frame of a server, which is never masked.
pub fn frame(opcode: Opcode, payload: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(payload.len() + 10);
    out.put_u8(0x80 | opcode as u8);
    match payload.len() {
        n @ 0..126 => out.put_u8(n as u8),
        n @ 126..65_536 => {
            out.put_u8(126);
            out.put_u16(n as u16);
        }
        n => {
            out.put_u8(127);
            out.put_u64(n as u64);
        }
    }
    out.put_slice(payload);
    out.freeze()
}

/// Sends a normal end (code 1000).
pub async fn close(writer: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    writer.write_all(&frame(Opcode::Close, &1000_u16.to_be_bytes())).await?;
    writer.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![first, 0x80 | payload.len() as u8, 1, 2, 3, 4];
        out.extend(payload.iter().zip([1, 2, 3, 4].iter().cycle()).map(|(b, m)| b ^ m));
        out
    }

    #[test]
    fn a_client_that_names_no_protocol_is_answered_without_one() {
        let asked = |named: Option<&'static str>| {
            let key = (header::SEC_WEBSOCKET_KEY, "a2V5".parse().unwrap());
            let named = named.map(|n| (header::SEC_WEBSOCKET_PROTOCOL, n.parse().unwrap()));
            let headers: HeaderMap = std::iter::once(key).chain(named).collect();
            let chosen = choose(&headers, &["new", "old"], Some("old"));
            let confirmed = accept::<()>(&headers, chosen);
            let confirmed = confirmed.headers().get(header::SEC_WEBSOCKET_PROTOCOL).cloned();
            (chosen, confirmed.map(|value| value.to_str().unwrap().to_owned()))
        };
        assert_eq!(asked(Some("old, new")), (Some("new"), Some("new".to_owned())));
        assert_eq!(asked(None), (Some("old"), None));
        assert_eq!(asked(Some("other")), (None, None));
    }

    #[tokio::test]
    async fn messages_in_pieces() {
        let bytes =
            [masked(0x02, b"he"), masked(0x89, b"?"), masked(0x80, b"llo"), masked(0x88, b"")]
                .concat();
        let (mut client, server) = tokio::io::duplex(3);
        let send = tokio::spawn(async move { client.write_all(&bytes).await });
        let mut reader = Reader::new(server);
        assert_eq!(reader.next().await.unwrap(), Some(Message::Ping("?".into())));
        assert_eq!(reader.next().await.unwrap(), Some(Message::Data("hello".into())));
        assert_eq!(reader.next().await.unwrap(), Some(Message::Close));
        send.await.unwrap().unwrap();
        assert_eq!(reader.next().await.unwrap(), None);
    }

    #[tokio::test]
    async fn unmasked_and_endless_frames_are_refused() {
        let mut reader = Reader::new(&[0x82, 0x01, b'x'][..]);
        assert!(reader.next().await.is_err());
        let mut reader = Reader::new(&[0x82, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..]);
        assert!(reader.next().await.is_err());
    }

    #[test]
    fn handshake_of_the_standard() {
        let mut headers = HeaderMap::new();
        headers.insert("sec-websocket-key", HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="));
        headers.insert(
            "sec-websocket-protocol",
            HeaderValue::from_static("v5.channel.k8s.io, v4.channel.k8s.io"),
        );
        let response: Response<String> =
            accept(&headers, choose(&headers, &["x", "v4.channel.k8s.io"], None));
        assert_eq!(response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(response.headers()["sec-websocket-protocol"], "v4.channel.k8s.io");
    }

    #[test]
    fn lengths_of_frames() {
        assert_eq!(&frame(Opcode::Binary, b"ab")[..2], [0x82, 2]);
        assert_eq!(&frame(Opcode::Binary, &[0; 200])[..4], [0x82, 126, 0, 200]);
        assert_eq!(
            &frame(Opcode::Binary, &[0; 70_000])[..10],
            [0x82, 127, 0, 0, 0, 0, 0, 1, 0x11, 0x70]
        );
    }
}
