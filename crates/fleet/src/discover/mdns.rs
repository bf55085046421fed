//! Asks hosts for their names by multicast DNS (RFC 6762): one packet with a reverse question for each
//! address, from a port of its own, which makes answers come straight back.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, RData, RecordType};
use socket2::SockRef;

/// How many questions go into one packet, so that it fits into a frame.
const QUESTIONS_A_PACKET: usize = 32;
/// Largest answer.
const PACKET_BYTES_MAX: usize = 9000;

/// The names that hosts give themselves, without `.local`.
pub(super) fn names(
    at: SocketAddrV4,
    own: Ipv4Addr,
    addresses: &[Ipv4Addr],
    wait: Duration,
) -> io::Result<BTreeMap<Ipv4Addr, String>> {
    let socket = UdpSocket::bind((own, 0))?;
    if at.ip().is_multicast() {
        SockRef::from(&socket).set_multicast_if_v4(&own)?;
    }
    for some in addresses.chunks(QUESTIONS_A_PACKET) {
        let mut message = Message::query();
        message.add_queries(some.iter().map(|address| question(*address)));
        let bytes = message.to_vec().map_err(io::Error::other)?;
        socket.send_to(&bytes, at)?;
    }
    let mut names = BTreeMap::new();
    let until = Instant::now() + wait;
    let mut bytes = vec![0; PACKET_BYTES_MAX];
    while let Some(left) = until.checked_duration_since(Instant::now()).filter(|l| !l.is_zero()) {
        socket.set_read_timeout(Some(left))?;
        let Ok((length, _)) = socket.recv_from(&mut bytes) else { break };
        if let Ok(answer) = Message::from_vec(&bytes[..length]) {
            names.extend(answered(&answer).filter(|(address, _)| addresses.contains(address)));
        }
        if names.len() == addresses.len() {
            break;
        }
    }
    Ok(names)
}

fn question(address: Ipv4Addr) -> Query {
    Query::query(Name::from(IpAddr::from(address)), RecordType::PTR)
}

fn answered(message: &Message) -> impl Iterator<Item = (Ipv4Addr, String)> {
    message.answers.iter().filter_map(|record| {
        let RData::PTR(name) = &record.data else { return None };
        let IpAddr::V4(address) = record.name.parse_arpa_name().ok()?.addr() else { return None };
        let name = name.0.to_utf8();
        let name = name.trim_end_matches('.').trim_end_matches(".local").to_lowercase();
        (!name.is_empty()).then_some((address, name))
    })
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::Record;
    use hickory_proto::rr::rdata::PTR;

    use super::*;

    #[test]
    fn a_host_that_is_asked_says_its_name() {
        let responder = UdpSocket::bind("127.0.0.1:0").expect("bound");
        let at = match responder.local_addr().expect("an address") {
            std::net::SocketAddr::V4(at) => at,
            other => panic!("{other}"),
        };
        let thread = std::thread::spawn(move || {
            let mut bytes = [0; 1500];
            let (length, from) = responder.recv_from(&mut bytes).expect("a question");
            let asked = Message::from_vec(&bytes[..length]).expect("a message");
            let mut answer = asked.clone().into_response();
            for (query, name) in asked.queries.iter().zip(["Pi-1.local.", "pi2.local."]) {
                let name = Name::from_ascii(name).expect("a name");
                let data = RData::PTR(PTR(name));
                answer.add_answer(Record::from_rdata(query.name().clone(), 120, data));
            }
            responder.send_to(&answer.to_vec().expect("bytes"), from).expect("answered");
        });
        let asked = [Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2)];
        let names = names(at, Ipv4Addr::LOCALHOST, &asked, Duration::from_secs(5)).expect("names");
        let told: Vec<&str> = names.values().map(String::as_str).collect();
        assert_eq!(told, ["pi-1", "pi2"]);
        thread.join().expect("ended");
    }
}
