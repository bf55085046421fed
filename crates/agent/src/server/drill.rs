//! Faults on purpose, for `coracle drill`: this board cuts itself off for a while. The API server
//! passes on what an administrator asks for (`nodes/proxy`); a board may refuse altogether.

use std::time::Duration;

use http::{Method, Response, StatusCode};
use net::{LONGEST_OUTAGE, MAX_OUTAGE_PORTS, Outage};
use serde_json::json;

use super::request::Call;
use super::{Body, json as answer_json, text};
use crate::config::Config;

/// Time for the answer to leave the board before it is cut off.
const BEFORE: Duration = Duration::from_millis(500);

/// Says what the board would do (GET), begins a fault (POST), or ends it early (DELETE).
pub async fn answer(config: &Config, method: &Method, call: &Call) -> Response<Body> {
    let Some(bridge) = &config.drill_bridge else {
        return text(StatusCode::FORBIDDEN, "this board takes part in no drill (--disable-drill)");
    };
    match *method {
        Method::GET => answer_json(&json!({"addresses": addresses()})),
        Method::DELETE => match Outage::end().await {
            Ok(()) => answer_json(&json!({})),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &base::chain(&error)),
        },
        Method::POST => match parse(call, bridge) {
            Ok((outage, lasting)) => {
                tokio::spawn(begin(outage, lasting));
                let before = u64::try_from(BEFORE.as_millis()).unwrap_or_default();
                answer_json(&json!({"beginsInMilliseconds": before, "seconds": lasting.as_secs()}))
            }
            Err(message) => text(StatusCode::BAD_REQUEST, &message),
        },
        _ => text(StatusCode::METHOD_NOT_ALLOWED, "GET, POST or DELETE"),
    }
}

async fn begin(outage: Outage, lasting: Duration) {
    tokio::time::sleep(BEFORE).await;
    tracing::warn!(?outage, seconds = lasting.as_secs(), "a drill cuts this board off");
    if let Err(error) = outage.begin(lasting).await {
        tracing::error!(error = %base::chain(&error), "the drill's fault did not begin");
        return;
    }
    // The kernel ends it; what is left of it is only tidied up.
    tokio::time::sleep(lasting + BEFORE).await;
    if let Err(error) = Outage::end().await {
        tracing::debug!(error = %base::chain(&error), "the drill's table stays");
    }
}

/// What is to be cut, and for how long.
fn parse(call: &Call, bridge: &str) -> Result<(Outage, Duration), String> {
    let seconds = call.get("seconds").and_then(|text| text.parse().ok());
    let lasting = seconds.map(Duration::from_secs).filter(|d| !d.is_zero() && *d <= LONGEST_OUTAGE);
    let longest = LONGEST_OUTAGE.as_secs();
    let lasting = lasting.ok_or_else(|| format!("seconds must be a number from 1 to {longest}"))?;
    let outage = match call.get("scope") {
        Some("network") => Outage::Network { bridge: bridge.to_owned() },
        Some("ports") => {
            let ports = call.get("ports").unwrap_or_default().split(',').map(str::parse);
            let ports: Vec<u16> =
                ports.collect::<Result<_, _>>().map_err(|_| "ports must be numbers".to_owned())?;
            if ports.len() > MAX_OUTAGE_PORTS {
                return Err(format!("at most {MAX_OUTAGE_PORTS} ports can be cut"));
            }
            Outage::Ports(ports)
        }
        _ => return Err("scope must be network or ports".to_owned()),
    };
    Ok((outage, lasting))
}

/// All addresses of the board: who holds the virtual one is seen from them.
fn addresses() -> Vec<String> {
    let Ok(all) = nix::ifaddrs::getifaddrs() else { return Vec::new() };
    let mut out: Vec<String> = all
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|a| a.ip().to_string());
            v4.or_else(|| address.as_sockaddr_in6().map(|a| a.ip().to_string()))
        })
        .collect();
    out.sort_unstable();
    out.dedup();
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bounded_faults_are_taken() {
        let parse = |query: &str| {
            let uri = format!("/v1-coracle/drill?{query}").parse().expect("a target");
            super::parse(&Call::parse(&uri).expect("a call"), "br0")
        };
        let seconds = Duration::from_secs;
        let bridge = "br0".to_owned();
        let network = Outage::Network { bridge };
        assert_eq!(parse("scope=network&seconds=20"), Ok((network, seconds(20))));
        let ports = Outage::Ports(vec![6443, 2380]);
        assert_eq!(parse("scope=ports&ports=6443,2380&seconds=1"), Ok((ports, seconds(1))));
        for bad in [
            "scope=network",
            "scope=network&seconds=0",
            "scope=network&seconds=181",
            "scope=disk&seconds=5",
            "scope=ports&seconds=5",
            "scope=ports&ports=70000&seconds=5",
            "scope=ports&ports=1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17&seconds=5",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
