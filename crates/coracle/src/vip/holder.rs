//! The process that holds the address: this binary, entered with [`ARGUMENT`].

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use net::VipStatus;
use tokio::io::{AsyncBufReadExt, BufReader, Lines, Stdin};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::timeout;

use super::{Brief, PRIORITY_UNWELL};
use crate::child;
use crate::failure::{Failure, Hint, Outcome, While};

/// The first argument that makes the executable a holder.
pub const ARGUMENT: &str = "vip-holder";
/// A server that says nothing for so long is unwell.
const SILENCE: Duration = Duration::from_secs(5);

/// Holds the address until standard input ends.
pub fn main() -> ExitCode {
    child::be_spared(c"coracle-vip");
    child::run(hold())
}

async fn hold() -> Outcome {
    let mut words = BufReader::new(tokio::io::stdin()).lines();
    let first = words.next_line().await.doing(|| "reading what is to be held".into())?;
    let Brief { config, log } = first
        .and_then(|line| serde_json::from_str(&line).ok())
        .ok_or_else(|| Failure::new("this command is for `coracle server` to call"))?;
    crate::start_logging(&log)?;
    let (tell, priority) = watch::channel(Some(PRIORITY_UNWELL));
    let listening = listen(words, tell);
    let holding = net::vip::run(config, priority, Arc::new(say));
    let (held, ()) = tokio::join!(holding, listening);
    held.doing(|| "holding the virtual address".into()).hint(|| {
        "`ip address` shows what this board has; choose another --vip or --vip-interface".into()
    })
}

/// Passes the priority on until the server is gone or we are to end.
async fn listen(mut words: Lines<BufReader<Stdin>>, tell: watch::Sender<Option<u8>>) {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return;
    };
    loop {
        let word = tokio::select! {
            word = timeout(SILENCE, words.next_line()) => word,
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            () = tell.closed() => break,
        };
        let priority = match word {
            Ok(Ok(Some(line))) => line.trim().parse().unwrap_or(PRIORITY_UNWELL),
            Ok(_) => break,
            Err(_silence) => PRIORITY_UNWELL,
        };
        tell.send_if_modified(|before| before.replace(priority) != Some(priority));
    }
    tell.send_replace(None);
}

/// Tells the server, which may be gone.
fn say(status: VipStatus) {
    use std::io::Write;
    if let Ok(mut line) = serde_json::to_vec(&status) {
        line.push(b'\n');
        let mut out = std::io::stdout();
        let _ = out.write_all(&line).and_then(|()| out.flush());
    }
}
