//! Faults on purpose with a real kernel.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use net::Outage;

use crate::lab::Lab;

/// How long the kernel is asked to cut the board off: longer than two connections are tried.
const LASTING: Duration = Duration::from_secs(12);
/// By when it must have let go.
const HEALED_BY: Duration = Duration::from_secs(40);

fn network() -> Outage {
    Outage::Network { bridge: "coracle0".to_owned() }
}

#[test]
fn a_board_without_network_comes_back_by_itself() {
    let lab = Lab::new();
    lab.attach();
    lab.pods[1].serve_tcp("pod1", "0.0.0.0:80");
    lab.client.serve_tcp("client", "0.0.0.0:82");
    assert!(lab.pods[0].fetch("192.0.2.2:82").is_ok());
    let began = Instant::now();
    lab.node.block_on(async || network().begin(LASTING).await).unwrap();
    assert!(lab.pods[0].fetch_silence("192.0.2.2:82").is_err());
    assert!(lab.node.fetch_silence("192.0.2.2:82").is_err());
    // Nobody says where the board is, as after its cable was pulled.
    lab.client.forget_neighbours();
    assert_eq!(lab.client.fetch("192.0.2.1:82"), Err(ErrorKind::HostUnreachable));
    // Nobody does anything from here on.
    while lab.node.fetch_silence("192.0.2.2:82").is_err() {
        assert!(began.elapsed() < HEALED_BY, "the board stays cut off");
    }
    assert!(began.elapsed() >= LASTING);
}

#[test]
fn only_the_ports_that_were_named_are_cut_and_an_end_is_an_end() {
    let lab = Lab::new();
    lab.attach();
    lab.client.serve_tcp("api", "0.0.0.0:6443");
    lab.client.serve_tcp("web", "0.0.0.0:82");
    lab.node.block_on(async || Outage::Ports(vec![6443]).begin(net::LONGEST_OUTAGE).await).unwrap();
    assert!(lab.node.fetch("192.0.2.2:6443").is_err());
    assert!(lab.node.fetch("192.0.2.2:82").is_ok());
    lab.node.block_on(async || Outage::end().await).unwrap();
    assert!(lab.node.fetch("192.0.2.2:6443").is_ok());
}
