//! Questions from sockets and answers into them. hickory's own server was turned down here: it
//! gives up what it is working on when it is to stop, and cluster DNS changes hands while it is
//! being asked.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{sleep, timeout};

use super::handler::{Handler, Transport};

/// The longest question that is read over UDP.
const QUESTION_BYTES_MAX: usize = 4096;
/// A TCP client that is silent for this long, or does not read, is hung up on.
const TCP_IDLE: Duration = Duration::from_secs(10);
/// TCP clients at the same time; more wait until one has left.
const TCP_CLIENTS_MAX: usize = 256;
/// Pause after a socket failed, as it does when descriptors run out.
const RETRY: Duration = Duration::from_millis(50);

/// Held by whatever is being answered: when all are gone, nothing is left to do.
pub(super) type Busy = mpsc::Sender<Infallible>;

/// What each socket's loop knows.
#[derive(Clone)]
pub(super) struct Loop {
    pub handler: Arc<Handler>,
    /// Turns true when no more is to be read.
    pub stop: watch::Receiver<bool>,
    #[allow(dead_code, reason = "held, not looked at")]
    pub busy: Busy,
}

impl Loop {
    /// Waits for the word to stop.
    async fn stopped(&mut self) {
        // A sender that is gone means the same.
        let _ = self.stop.wait_for(|stop| *stop).await;
    }

    /// Answers datagrams, each by a task of its own since some wait for somebody else. How many
    /// may wait is limited by the forwarder.
    pub(super) async fn datagrams(mut self, socket: Arc<UdpSocket>) {
        let mut packet = [0; QUESTION_BYTES_MAX];
        loop {
            let received = tokio::select! {
                biased;
                () = self.stopped() => return,
                received = socket.recv_from(&mut packet) => received,
            };
            match received {
                Ok((length, client)) => {
                    let question = packet[..length].to_vec();
                    tokio::spawn(datagram(self.clone(), socket.clone(), question, client));
                }
                Err(error) => {
                    tracing::debug!(%error, "cannot receive a DNS question");
                    sleep(RETRY).await;
                }
            }
        }
    }

    /// Answers TCP clients.
    pub(super) async fn clients(mut self, listener: Arc<TcpListener>) {
        let free = Arc::new(Semaphore::new(TCP_CLIENTS_MAX));
        loop {
            let next = async {
                let permit = free.clone().acquire_owned().await;
                (listener.accept().await, permit)
            };
            let (accepted, permit) = tokio::select! {
                biased;
                () = self.stopped() => return,
                next = next => next,
            };
            match accepted {
                Ok((stream, client)) => {
                    let this = self.clone();
                    tokio::spawn(async move {
                        let _permit = permit;
                        if let Err(error) = conversation(&this, stream).await {
                            tracing::debug!(%client, %error, "a DNS client was hung up on");
                        }
                    });
                }
                Err(error) => {
                    tracing::debug!(%error, "cannot accept a DNS client");
                    sleep(RETRY).await;
                }
            }
        }
    }
}

async fn datagram(this: Loop, socket: Arc<UdpSocket>, question: Vec<u8>, client: SocketAddr) {
    let Some(answer) = this.handler.answer(&question, Transport::Udp).await else { return };
    if let Err(error) = socket.send_to(&answer, client).await {
        tracing::debug!(%client, %error, "cannot send a DNS answer");
    }
}

/// One question after the other, until the client has no more.
async fn conversation(this: &Loop, mut stream: TcpStream) -> io::Result<()> {
    loop {
        let Ok(length) = timeout(TCP_IDLE, stream.read_u16()).await? else { return Ok(()) };
        let mut question = vec![0; length.into()];
        timeout(TCP_IDLE, stream.read_exact(&mut question)).await??;
        let answer = this.handler.answer(&question, Transport::Tcp).await;
        let Some(answer) = answer else { return Ok(()) };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        let whole = [&length.to_be_bytes()[..], &answer].concat();
        timeout(TCP_IDLE, stream.write_all(&whole)).await??;
    }
}
