//! The priority that follows the health of the API beside us.

use std::time::Duration;

use http::Request;
use kube::Client;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::PRIORITY_UNWELL;

/// How often the API is asked.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// How long it may take to answer.
const ANSWER_PATIENCE: Duration = Duration::from_secs(2);
/// Failures in a row that make unwell.
const FAILURES: u32 = 2;
/// Successes in a row that make well again: an API that comes and goes is to keep away.
const SUCCESSES: u32 = 5;

/// What the answers so far amount to. Pure.
#[derive(Debug, PartialEq, Eq)]
enum Health {
    /// Not ready yet, for the first time.
    New,
    /// Ready, with so many failures since the last success.
    Well(u32),
    /// Not ready, with so many successes since the last failure.
    Unwell(u32),
}

impl Health {
    fn after(self, ready: bool) -> Self {
        match (self, ready) {
            (Health::New | Health::Well(_), true) => Health::Well(0),
            (Health::New, false) => Health::New,
            (Health::Well(failures), false) if failures + 1 >= FAILURES => Health::Unwell(0),
            (Health::Well(failures), false) => Health::Well(failures + 1),
            (Health::Unwell(successes), true) if successes + 1 >= SUCCESSES => Health::Well(0),
            (Health::Unwell(successes), true) => Health::Unwell(successes + 1),
            (Health::Unwell(_), false) => Health::Unwell(0),
        }
    }

    fn priority(&self, well: u8) -> u8 {
        if matches!(self, Health::Well(_)) { well } else { PRIORITY_UNWELL }
    }
}

/// Asks until nobody wants to know; `well` is the priority of a healthy server.
pub fn follow(client: Client, well: u8) -> watch::Receiver<u8> {
    let (tell, priority) = watch::channel(PRIORITY_UNWELL);
    tokio::spawn(async move {
        let mut health = Health::New;
        let mut ask = interval(ASK_EVERY);
        ask.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !tell.is_closed() {
            ask.tick().await;
            health = health.after(is_ready(&client).await);
            let now = health.priority(well);
            let changed = tell.send_if_modified(|before| std::mem::replace(before, now) != now);
            if changed && now == PRIORITY_UNWELL {
                tracing::warn!("the API is not ready: the virtual address goes to another server");
            }
        }
    });
    priority
}

async fn is_ready(client: &Client) -> bool {
    let Ok(request) = Request::get("/readyz").body(Vec::new()) else { return false };
    matches!(timeout(ANSWER_PATIENCE, client.request_text(request)).await, Ok(Ok(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failure_is_borne_and_recovery_is_proven() {
        let mut health = Health::New;
        let told: Vec<u8> = "..+++-+---+-+++++++"
            .chars()
            .map(|answer| {
                health = std::mem::replace(&mut health, Health::New).after(answer == '+');
                health.priority(9)
            })
            .collect();
        assert_eq!(told, [1, 1, 9, 9, 9, 9, 9, 9, 1, 1, 1, 1, 1, 1, 1, 1, 9, 9, 9]);
    }
}
