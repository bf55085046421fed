//! Port forwarding over SPDY: the client opens a pair of streams (`data`, `error`) for each
//! connection to a port. The connection is made inside the pod's network namespace, so that
//! servers that listen on loopback only are reached as well.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use nix::sched::{CloneFlags, setns};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::spdy::{self, Command, Event};
use super::websocket::{Message, Opcode, Reader, close, frame};

/// How long a connection inside the pod may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How much is read at once, in bytes.
const CHUNK_BYTES: usize = 32 << 10;
/// How many pieces wait for a slow port at most.
const MAX_WAITING_PIECES: usize = 64;
/// Ports that one connection with channels may ask for.
const MAX_CHANNEL_PORTS: usize = 64;
/// Room between the WebSocket and the frames it carries, in bytes.
const TUNNEL_BYTES: usize = 64 << 10;

/// Forwards connections until the client leaves.
pub async fn carry(
    io: impl AsyncRead + AsyncWrite + Send + 'static,
    netns: Option<PathBuf>,
) -> io::Result<()> {
    let (events, mut seen) = mpsc::channel(MAX_WAITING_PIECES);
    let (commands, receiver) = mpsc::channel(MAX_WAITING_PIECES);
    let mut frames = Box::pin(spdy::carry(io, events, receiver));
    let mut pairs = Pairs { netns, commands, error_streams: HashMap::new(), open: HashMap::new() };
    loop {
        tokio::select! {
            result = &mut frames => return result,
            event = seen.recv() => match event {
                Some(event) => pairs.handle(event).await,
                None => return Ok(()),
            },
        }
    }
}

struct Pairs {
    netns: Option<PathBuf>,
    commands: mpsc::Sender<Command>,
    /// Error streams by request id.
    error_streams: HashMap<String, u32>,
    /// Ways to the sockets by data stream.
    open: HashMap<u32, mpsc::Sender<Bytes>>,
}

impl Pairs {
    async fn handle(&mut self, event: Event) {
        match event {
            Event::Open(id, headers) => self.open(id, &headers),
            Event::Data(id, data) => {
                if let Some(to) = self.open.get(&id)
                    && to.send(data).await.is_err()
                {
                    self.open.remove(&id);
                }
            }
            Event::End(id) => {
                self.open.remove(&id);
            }
        }
    }

    fn open(&mut self, id: u32, headers: &[(String, String)]) {
        let get = |name: &str| headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
        let port = get("port").unwrap_or_default();
        // Old clients number their requests by the stream alone: the error stream comes first.
        let request = get("requestid").unwrap_or_else(|| port.clone());
        match get("streamtype").as_deref() {
            Some("error") => {
                self.error_streams.insert(request, id);
            }
            Some("data") => {
                let (sender, receiver) = mpsc::channel(MAX_WAITING_PIECES);
                self.open.insert(id, sender);
                let error_stream = self.error_streams.remove(&request);
                let (netns, commands) = (self.netns.clone(), self.commands.clone());
                tokio::spawn(async move {
                    let result = forward(netns, &port, id, receiver, &commands).await;
                    let _ = commands.send(Command::End(id)).await;
                    let Some(error_stream) = error_stream else { return };
                    if let Err(error) = result {
                        let text = format!("error forwarding port {port} to pod: {error}");
                        let _ = commands.send(Command::Data(error_stream, text.into())).await;
                    }
                    let _ = commands.send(Command::End(error_stream)).await;
                });
            }
            _ => {}
        }
    }
}

async fn forward(
    netns: Option<PathBuf>,
    port: &str,
    id: u32,
    mut from: mpsc::Receiver<Bytes>,
    to: &mpsc::Sender<Command>,
) -> io::Result<()> {
    let port: u16 =
        port.parse().map_err(|_| io::Error::other(format!("{port:?} is not a port")))?;
    let (mut read, mut write) = connect(netns, port).await?.into_split();
    let upstream = async {
        while let Some(data) = from.recv().await {
            write.write_all(&data).await?;
        }
        write.shutdown().await
    };
    let downstream = async {
        let mut buffer = BytesMut::with_capacity(CHUNK_BYTES);
        loop {
            buffer.reserve(CHUNK_BYTES);
            if read.read_buf(&mut buffer).await? == 0 {
                return io::Result::Ok(());
            }
            if to.send(Command::Data(id, buffer.split().freeze())).await.is_err() {
                return Ok(());
            }
        }
    };
    // The server's end closes the connection; the client's end only its direction.
    tokio::pin!(upstream, downstream);
    tokio::select! {
        result = &mut downstream => result,
        result = &mut upstream => match result {
            Ok(()) => downstream.await,
            Err(error) => Err(error),
        },
    }
}

/// Connects to a port on loopback of the namespace.
async fn connect(netns: Option<PathBuf>, port: u16) -> io::Result<TcpStream> {
    // A thread of its own, ended afterwards: it stays in the other namespace.
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let work = move || -> io::Result<std::net::TcpStream> {
        if let Some(path) = netns {
            setns(std::fs::File::open(path)?, CloneFlags::CLONE_NEWNET)?;
        }
        let to = |ip: std::net::IpAddr| {
            std::net::TcpStream::connect_timeout(&SocketAddr::new(ip, port), CONNECT_TIMEOUT)
        };
        to(Ipv4Addr::LOCALHOST.into()).or_else(|error| {
            to(Ipv6Addr::LOCALHOST.into()).map_err(|_| {
                let refused = error.kind() == io::ErrorKind::ConnectionRefused;
                let text =
                    if refused { "connection refused".to_owned() } else { error.to_string() };
                io::Error::new(error.kind(), format!("dial tcp4 127.0.0.1:{port}: connect: {text}"))
            })
        })
    };
    std::thread::Builder::new().name("port-forward".to_owned()).spawn(move || {
        let _ = sender.send(work());
    })?;
    let stream =
        receiver.await.map_err(|_| io::Error::other("the connecting thread has died"))??;
    stream.set_nonblocking(true)?;
    TcpStream::from_std(stream)
}

/// Forwards ports over the channels of a plain WebSocket (`v4.channel.k8s.io`): port number i has
/// channel 2i for data and 2i + 1 for errors, and each begins with the port as two bytes.
pub async fn channels(
    io: impl AsyncRead + AsyncWrite,
    ports: Vec<u16>,
    netns: Option<PathBuf>,
) -> io::Result<()> {
    let (read, mut write) = tokio::io::split(io);
    let mut reader = Reader::new(Box::pin(read));
    let (commands, mut answers) = mpsc::channel(MAX_WAITING_PIECES);
    let mut inputs = Vec::new();
    let channel = |index: usize| u8::try_from(2 * index).unwrap_or(u8::MAX - 1);
    for (index, port) in ports.into_iter().enumerate().take(MAX_CHANNEL_PORTS) {
        for channel in [channel(index), channel(index) + 1] {
            let [low, high] = port.to_le_bytes();
            write.write_all(&frame(Opcode::Binary, &[channel, low, high])).await?;
        }
        let (sender, receiver) = mpsc::channel(MAX_WAITING_PIECES);
        inputs.push(sender);
        let (netns, commands, id) = (netns.clone(), commands.clone(), u32::from(channel(index)));
        tokio::spawn(async move {
            if let Err(error) = forward(netns, &port.to_string(), id, receiver, &commands).await {
                let text = format!("error forwarding port {port} to pod: {error}");
                let _ = commands.send(Command::Data(id + 1, text.into())).await;
            }
        });
    }
    drop(commands);
    let mut waiting: Option<(mpsc::Sender<Bytes>, Bytes)> = None;
    loop {
        let to = waiting.as_ref().map(|(to, _)| to.clone());
        let hand_on = async move {
            match to {
                Some(to) => to.reserve_owned().await.ok(),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            answer = answers.recv() => match answer {
                Some(Command::Data(id, data)) => {
                    let payload = [&[id as u8], &data[..]].concat();
                    write.write_all(&frame(Opcode::Binary, &payload)).await?;
                }
                Some(Command::End(_)) => {}
                None => return close(&mut write).await,
            },
            permit = hand_on => {
                let data = waiting.as_ref().map(|(_, data)| data.clone()).unwrap_or_default();
                if let Some(permit) = permit {
                    permit.send(data);
                }
                waiting = None;
            }
            message = reader.next(), if waiting.is_none() => match message? {
                Some(Message::Data(mut data)) if !data.is_empty() => {
                    let channel = data.split_to(1)[0];
                    let to = inputs.get(usize::from(channel / 2)).filter(|_| channel % 2 == 0);
                    waiting = to.map(|to| (to.clone(), data));
                }
                Some(Message::Data(_)) => {}
                Some(Message::Ping(data)) => write.write_all(&frame(Opcode::Pong, &data)).await?,
                Some(Message::Close) | None => return Ok(()),
            },
        }
    }
}

/// Carries a byte stream in the messages of a WebSocket (`SPDY/3.1+portforward.k8s.io`).
pub fn tunnel(io: impl AsyncRead + AsyncWrite + Send + 'static) -> tokio::io::DuplexStream {
    let (ours, theirs) = tokio::io::duplex(TUNNEL_BYTES);
    tokio::spawn(async move {
        let (read, mut write) = tokio::io::split(io);
        let mut reader = Reader::new(Box::pin(read));
        let (mut inner_read, mut inner_write) = tokio::io::split(ours);
        let (pongs, mut pings) = mpsc::channel::<Bytes>(4);
        let inbound = async move {
            while let Ok(Some(message)) = reader.next().await {
                match message {
                    Message::Data(data) if inner_write.write_all(&data).await.is_err() => break,
                    Message::Data(_) => {}
                    Message::Ping(data) => {
                        let _ = pongs.send(data).await;
                    }
                    Message::Close => break,
                }
            }
            let _ = inner_write.shutdown().await;
        };
        let outbound = async move {
            let mut buffer = BytesMut::with_capacity(CHUNK_BYTES);
            loop {
                buffer.reserve(CHUNK_BYTES);
                tokio::select! {
                    n = inner_read.read_buf(&mut buffer) => match n {
                        Ok(n) if n > 0 => {
                            let data = buffer.split();
                            if write.write_all(&frame(Opcode::Binary, &data)).await.is_err() {
                                break;
                            }
                        }
                        _ => break,
                    },
                    Some(data) = pings.recv() => {
                        if write.write_all(&frame(Opcode::Pong, &data)).await.is_err() {
                            break;
                        }
                    }
                }
            }
            let _ = close(&mut write).await;
        };
        tokio::join!(inbound, outbound);
    });
    theirs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_is_reached_and_a_closed_one_told() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut seen = Vec::new();
            stream.read_to_end(&mut seen).await.unwrap();
            stream.write_all(b"pong").await.unwrap();
            seen
        });
        let (sender, receiver) = mpsc::channel(4);
        let (commands, mut answers) = mpsc::channel(4);
        sender.send("ping".into()).await.unwrap();
        drop(sender);
        forward(None, &port, 1, receiver, &commands).await.unwrap();
        assert_eq!(server.await.unwrap(), b"ping");
        assert!(matches!(answers.recv().await, Some(Command::Data(1, data)) if data == "pong"));
        let (_sender, receiver) = mpsc::channel(4);
        let error = forward(None, &port, 1, receiver, &commands).await.unwrap_err();
        assert!(error.to_string().ends_with("connect: connection refused"), "{error}");
    }

    #[tokio::test]
    async fn channels_carry_data_both_ways() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut seen = [0; 4];
            stream.read_exact(&mut seen).await.unwrap();
            stream.write_all(&seen).await.unwrap();
        });
        let (mut client, server) = tokio::io::duplex(1024);
        let task = tokio::spawn(channels(server, vec![port], None));
        let [low, high] = port.to_le_bytes();
        let mut hello = [0; 10];
        client.read_exact(&mut hello).await.unwrap();
        assert_eq!(hello, [0x82, 3, 0, low, high, 0x82, 3, 1, low, high]);
        client.write_all(&[0x82, 0x85, 0, 0, 0, 0, 0, b'p', b'i', b'n', b'g']).await.unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert!(answer.starts_with(&[0x82, 5, 0, b'p', b'i', b'n', b'g']), "{answer:?}");
        task.await.unwrap().unwrap();
    }
}
