//! The server's side of SPDY/3.1, as far as Kubernetes' clients speak it: streams that the
//! client opens, data both ways, no flow control (the clients' library has none).
//!
//! Frames: <https://www.chromium.org/spdy/spdy-protocol/spdy-protocol-draft3-1/>.

use std::io;
use std::sync::LazyLock;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

/// Longest frame that is taken, in bytes; the format would allow 16 MiB.
const MAX_FRAME_BYTES: usize = 4 << 20;
/// Longest block of headers, in bytes, once it is unpacked.
const MAX_HEADERS_BYTES: usize = 64 << 10;
/// Longest data frame that is sent, in bytes.
const CHUNK_BYTES: usize = 32 << 10;
/// Streams that one connection may open.
const MAX_STREAMS: u32 = 10_000;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const FLAG_FIN: u8 = 1;

/// Words that header blocks are packed with (section 2.6.10.1): first with their length, then
/// as one text.
static DICTIONARY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    const WORDS: &str = "options head post put delete trace accept accept-charset accept-encoding \
        accept-language accept-ranges age allow authorization cache-control connection \
        content-base content-encoding content-language content-length content-location \
        content-md5 content-range content-type date etag expect expires from host if-match \
        if-modified-since if-none-match if-range if-unmodified-since last-modified location \
        max-forwards pragma proxy-authenticate proxy-authorization range referer retry-after \
        server te trailer transfer-encoding upgrade user-agent vary via warning \
        www-authenticate method get status 200_OK version HTTP/1.1 url public set-cookie \
        keep-alive origin";
    const TEXT: &str = "100101201202205206300302303304305306307402405406407408409410411412413414\
        415416417502504505203 Non-Authoritative Information204 No Content301 Moved Permanently400 \
        Bad Request401 Unauthorized403 Forbidden404 Not Found500 Internal Server Error501 Not \
        Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec \
        00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,\
        image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivate\
        max-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";
    let mut out = Vec::new();
    for word in WORDS.split_whitespace() {
        let word = word.replace('_', " ");
        out.extend_from_slice(&(word.len() as u32).to_be_bytes());
        out.extend_from_slice(word.as_bytes());
    }
    out.extend_from_slice(TEXT.as_bytes());
    out
});

/// What a client does.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// It has opened a stream, with these headers (names in lower case).
    Open(u32, Vec<(String, String)>),
    /// It has sent data.
    Data(u32, Bytes),
    /// It will send no more on this stream.
    End(u32),
}

/// What a server does.
#[derive(Debug)]
pub enum Command {
    /// Sends data on a stream.
    Data(u32, Bytes),
    /// Sends no more on a stream.
    End(u32),
}

/// Carries frames until the client leaves or nobody sends commands any more.
pub async fn carry(
    io: impl AsyncRead + AsyncWrite,
    events: mpsc::Sender<Event>,
    mut commands: mpsc::Receiver<Command>,
) -> io::Result<()> {
    let (read, mut write) = tokio::io::split(io);
    let mut read = Box::pin(read);
    let mut decoder = Decoder::default();
    let mut encoder = Encoder::default();
    let mut buffer = BytesMut::new();
    let mut waiting = std::collections::VecDeque::new();
    loop {
        while waiting.is_empty()
            && let Some(frame) = decoder.next(&mut buffer)?
        {
            match frame {
                Frame::Syn(id, headers, ended) => {
                    write.write_all(&encoder.reply(id)?).await?;
                    waiting.push_back(Event::Open(id, headers));
                    waiting.extend(ended.then_some(Event::End(id)));
                }
                Frame::Data(id, data, ended) => {
                    waiting.extend((!data.is_empty()).then_some(Event::Data(id, data)));
                    waiting.extend(ended.then_some(Event::End(id)));
                }
                Frame::Reset(id) => waiting.push_back(Event::End(id)),
                Frame::Ping(content) => write.write_all(&ping(&content)).await?,
                Frame::GoAway => return Ok(()),
                Frame::Other => {}
            }
        }
        tokio::select! {
            command = commands.recv() => match command {
                Some(Command::Data(id, data)) => {
                    for chunk in data.chunks(CHUNK_BYTES) {
                        write.write_all(&data_frame(id, 0, chunk)).await?;
                    }
                }
                Some(Command::End(id)) => write.write_all(&data_frame(id, FLAG_FIN, &[])).await?,
                None => return write.shutdown().await,
            },
            // Output goes on while the other side cannot take more input.
            permit = events.reserve(), if !waiting.is_empty() => {
                let Ok(permit) = permit else { waiting.clear(); continue };
                if let Some(event) = waiting.pop_front() {
                    permit.send(event);
                }
            }
            n = read.read_buf(&mut buffer), if waiting.is_empty() => {
                if n? == 0 {
                    return Ok(());
                }
            }
        }
    }
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("SPDY: {text}"))
}

enum Frame {
    Syn(u32, Vec<(String, String)>, bool),
    Data(u32, Bytes, bool),
    Reset(u32),
    Ping(Bytes),
    GoAway,
    Other,
}

/// Takes frames off a buffer; header blocks of a connection are one zlib stream.
struct Decoder {
    inflate: Decompress,
    opened: u32,
}

impl Default for Decoder {
    fn default() -> Self {
        Decoder { inflate: Decompress::new(true), opened: 0 }
    }
}

impl Decoder {
    fn next(&mut self, buffer: &mut BytesMut) -> io::Result<Option<Frame>> {
        if buffer.len() < 8 {
            return Ok(None);
        }
        let length = u32::from_be_bytes([0, buffer[5], buffer[6], buffer[7]]) as usize;
        if length > MAX_FRAME_BYTES {
            return Err(invalid("frame is too long"));
        }
        if buffer.len() < 8 + length {
            return Ok(None);
        }
        let (head, flags) = (buffer.get_u32(), buffer.get_u8());
        buffer.advance(3);
        let mut body = buffer.split_to(length).freeze();
        let ended = flags & FLAG_FIN != 0;
        if head & 0x8000_0000 == 0 {
            return Ok(Some(Frame::Data(head, body, ended)));
        }
        let need = |n: usize| if length < n { Err(invalid("frame is too short")) } else { Ok(()) };
        Ok(Some(match head as u16 {
            SYN_STREAM => {
                need(10)?;
                let id = body.get_u32() & 0x7fff_ffff;
                body.advance(6);
                self.opened += 1;
                if self.opened > MAX_STREAMS {
                    return Err(invalid("too many streams"));
                }
                Frame::Syn(id, parse_headers(self.inflate(&body)?)?, ended)
            }
            RST_STREAM => {
                need(4)?;
                Frame::Reset(body.get_u32() & 0x7fff_ffff)
            }
            PING => Frame::Ping(body),
            GOAWAY => Frame::GoAway,
            // A block of headers that we do not need still belongs to the zlib stream.
            kind @ (SYN_REPLY | 8) => {
                need(4)?;
                body.advance(4);
                let _ = (kind, self.inflate(&body)?);
                Frame::Other
            }
            _ => Frame::Other,
        }))
    }

    fn inflate(&mut self, mut block: &[u8]) -> io::Result<Bytes> {
        let mut out = Vec::with_capacity(1024);
        while !block.is_empty() || out.len() == out.capacity() {
            if out.len() >= MAX_HEADERS_BYTES {
                return Err(invalid("headers are too long"));
            }
            out.reserve(1024);
            let (before, written) = (self.inflate.total_in(), out.len());
            match self.inflate.decompress_vec(block, &mut out, FlushDecompress::Sync) {
                Ok(Status::StreamEnd) => return Err(invalid("the header stream has ended")),
                Ok(_) => {}
                Err(error) if error.needs_dictionary().is_some() => {
                    self.inflate.set_dictionary(&DICTIONARY).map_err(io::Error::other)?;
                }
                Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            }
            let used = (self.inflate.total_in() - before) as usize;
            block = &block[used.min(block.len())..];
            if block.is_empty() && out.len() == written {
                break;
            }
        }
        Ok(out.into())
    }
}

fn parse_headers(mut block: Bytes) -> io::Result<Vec<(String, String)>> {
    fn text(block: &mut Bytes) -> Option<String> {
        let length = block.try_get_u32().ok()? as usize;
        (length <= block.len())
            .then(|| String::from_utf8_lossy(&block.split_to(length)).into_owned())
    }
    // The count needs no limit of its own: the block has one.
    let count = block.try_get_u32().map_err(|_| invalid("headers are cut short"))?;
    let mut out = Vec::new();
    for _ in 0..count {
        match (text(&mut block), text(&mut block)) {
            (Some(name), Some(value)) => out.push((name, value)),
            _ => return Err(invalid("headers are cut short")),
        }
    }
    Ok(out)
}

/// Writes what a server sends; its header blocks are one zlib stream as well.
struct Encoder {
    deflate: Compress,
}

impl Default for Encoder {
    fn default() -> Self {
        let mut deflate = Compress::new(Compression::fast(), true);
        // Fails only on a stream that has begun, and this one is new.
        let _ = deflate.set_dictionary(&DICTIONARY);
        Encoder { deflate }
    }
}

impl Encoder {
    /// Accepts a stream, with no headers.
    fn reply(&mut self, id: u32) -> io::Result<Bytes> {
        let mut block = Vec::with_capacity(64);
        let none = 0_u32.to_be_bytes();
        self.deflate
            .compress_vec(&none, &mut block, FlushCompress::Sync)
            .map_err(io::Error::other)?;
        let mut out = control(SYN_REPLY, 0, 4 + block.len());
        out.put_u32(id);
        out.put_slice(&block);
        Ok(out.freeze())
    }
}

fn control(kind: u16, flags: u8, length: usize) -> BytesMut {
    let mut out = BytesMut::with_capacity(8 + length);
    out.put_u16(0x8003);
    out.put_u16(kind);
    // Our own frames are far shorter than the 24 bits of the length.
    out.put_u32(u32::from(flags) << 24 | length as u32);
    out
}

fn ping(content: &[u8]) -> Bytes {
    let mut out = control(PING, 0, content.len());
    out.put_slice(content);
    out.freeze()
}

fn data_frame(id: u32, flags: u8, data: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(8 + data.len());
    out.put_u32(id & 0x7fff_ffff);
    out.put_u32(u32::from(flags) << 24 | data.len() as u32);
    out.put_slice(data);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client's SYN_STREAM frames, packed by one zlib stream.
    struct Client(Compress);

    impl Client {
        fn new() -> Self {
            let mut deflate = Compress::new(Compression::best(), true);
            assert_eq!(
                deflate.set_dictionary(&DICTIONARY).unwrap(),
                0xe3c6_a7c2,
                "the standard's checksum"
            );
            Client(deflate)
        }

        fn open(&mut self, id: u32, headers: &[(&str, &str)]) -> Vec<u8> {
            let mut plain = (headers.len() as u32).to_be_bytes().to_vec();
            for (name, value) in headers {
                for text in [name, value] {
                    plain.extend((text.len() as u32).to_be_bytes());
                    plain.extend(text.as_bytes());
                }
            }
            let mut block = Vec::with_capacity(4096);
            self.0.compress_vec(&plain, &mut block, FlushCompress::Sync).unwrap();
            let mut out = control(SYN_STREAM, 0, 10 + block.len());
            out.put_u32(id);
            out.put_u32(0);
            out.put_u16(0);
            out.put_slice(&block);
            out.to_vec()
        }
    }

    #[tokio::test]
    async fn streams_data_and_pings() {
        let (mut client, server) = tokio::io::duplex(1 << 16);
        let (events, mut seen) = mpsc::channel(8);
        let (commands, receiver) = mpsc::channel(8);
        let task = tokio::spawn(carry(server, events, receiver));
        let mut packer = Client::new();
        let first = packer.open(1, &[("streamtype", "data"), ("port", "80")]);
        let second = packer.open(3, &[("streamtype", "error")]);
        let sent = [
            first,
            second,
            data_frame(1, 0, b"hi").to_vec(),
            data_frame(1, FLAG_FIN, b"").to_vec(),
            ping(&[0, 0, 0, 7]).to_vec(),
        ];
        for part in sent.concat().chunks(7) {
            client.write_all(part).await.unwrap();
        }
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            seen.recv().await,
            Some(Event::Open(1, vec![pair("streamtype", "data"), pair("port", "80")]))
        );
        assert_eq!(seen.recv().await, Some(Event::Open(3, vec![pair("streamtype", "error")])));
        assert_eq!(seen.recv().await, Some(Event::Data(1, "hi".into())));
        assert_eq!(seen.recv().await, Some(Event::End(1)));
        commands.send(Command::Data(1, "yo".into())).await.unwrap();
        commands.send(Command::End(1)).await.unwrap();
        drop(commands);
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        task.await.unwrap().unwrap();
        assert_eq!(&answer[..4], [0x80, 3, 0, 2], "a reply to the first stream");
        let tail = [data_frame(1, 0, b"yo"), data_frame(1, FLAG_FIN, b"")].concat();
        assert!(answer.ends_with(&tail));
        assert!(answer.windows(12).any(|w| *w == ping(&[0, 0, 0, 7])[..]));
    }

    #[test]
    fn nonsense_is_refused() {
        let mut decoder = Decoder::default();
        let mut long = BytesMut::from(&[0, 0, 0, 1, 0, 0xff, 0xff, 0xff][..]);
        assert!(decoder.next(&mut long).is_err());
        let mut garbage = control(SYN_STREAM, 0, 14);
        garbage.put_slice(&[0xff; 14]);
        assert!(decoder.next(&mut garbage).is_err());
    }
}
