//! Streams: the frames of exec and port-forward, and snapshots.

use std::io::Cursor;
use tokio::io::AsyncWriteExt;
use tokio::runtime::Builder;
use tokio::sync::mpsc;

/// What the form of snapshots names of its neighbour.
mod age {
    /// Why nothing can be decrypted.
    #[derive(Clone, Copy, Debug, thiserror::Error)]
    #[error("age")]
    pub enum AgeError {
        WrongPassphrase,
        OtherRecipient,
        TooMuchWork(u8),
        Other,
    }
}
#[path = "../../crates/coracle/src/snapshot/format.rs"]
mod form;
#[path = "../../crates/agent/src/server/spdy.rs"]
mod frames;
#[path = "../../crates/agent/src/server/websocket.rs"]
mod messages;

pub fn snapshot(data: &[u8]) {
    if let Ok(reader) = form::Reader::new(Cursor::new(data)) {
        let _ = reader.check();
    }
}

pub fn websocket(data: &[u8]) {
    let runtime = Builder::new_current_thread().build().expect("a runtime");
    let mut reader = messages::Reader::new(data);
    while let Ok(Some(_)) = runtime.block_on(reader.next()) {}
}

pub fn spdy(data: &[u8]) {
    let runtime = Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        // What the client sends fits at once, and nobody reads what it is sent.
        let (mut client, server) = tokio::io::duplex(data.len().max(1 << 16));
        let (events, mut seen) = mpsc::channel(4);
        let (_commands, receiver) = mpsc::channel(1);
        client.write_all(data).await.expect("room for all of it");
        client.shutdown().await.expect("an open end");
        let reads = async { while seen.recv().await.is_some() {} };
        // An endless answer fills the pipe: what is left then is what a slow client leaves too.
        tokio::select! {
            _ = frames::carry(server, events, receiver) => {}
            () = reads => {}
        }
    });
}
