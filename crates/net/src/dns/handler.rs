//! One question in, one answer out.

use std::sync::Arc;

use arc_swap::ArcSwap;
use hickory_proto::ProtoError;
use hickory_proto::op::{
    Edns, Header, Message, MessageType, Metadata, OpCode, Query, ResponseCode,
};
use hickory_proto::rr::{DNSClass, Name, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder, BinEncodable, BinEncoder};

use super::Zone;
use super::answer::{Answer, Origin, answer};
use super::forward::{Forwarder, UDP_PAYLOAD_BYTES};

/// Aliases followed inside the cluster's zone.
const ALIASES_MAX: usize = 8;
/// The least that every client takes over UDP (RFC 1035).
const UDP_PAYLOAD_BYTES_MIN: u16 = 512;

/// How a question came, which says how long its answer may be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Udp,
    Tcp,
}

/// Answers questions: from the zone if it is ours, else with what upstream says.
pub(super) struct Handler {
    pub origin: Origin,
    pub zone: Arc<ArcSwap<Zone>>,
    pub forwarder: Forwarder,
}

/// A whole response, whoever it came from.
#[derive(Default)]
struct Response {
    code: ResponseCode,
    authoritative: bool,
    answers: Vec<Record>,
    authorities: Vec<Record>,
    additionals: Vec<Record>,
}

impl Response {
    fn failure(code: ResponseCode) -> Self {
        Self { code, ..Self::default() }
    }
}

impl Handler {
    /// The answer to a packet; none to what is no question at all.
    pub(super) async fn answer(&self, packet: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let header = Header::read(&mut BinDecoder::new(packet)).ok()?;
        // Two servers that answer each other's answers would never stop.
        if header.metadata.message_type == MessageType::Response {
            return None;
        }
        let (request, response) = match Message::from_vec(packet) {
            Ok(request) => {
                let response = self.respond(&request).await;
                (request, response)
            }
            Err(_) => {
                let metadata = header.metadata;
                let request = Message::new(metadata.id, MessageType::Query, metadata.op_code);
                (request, Response::failure(ResponseCode::FormErr))
            }
        };
        let message = message(&request, response);
        encode(&message, transport)
            .or_else(|error| {
                tracing::debug!(%error, "cannot write a DNS answer");
                encode(&bare(&request, ResponseCode::ServFail), transport)
            })
            .ok()
    }

    async fn respond(&self, request: &Message) -> Response {
        let [question] = request.queries.as_slice() else {
            return Response::failure(ResponseCode::FormErr);
        };
        if request.metadata.op_code != OpCode::Query {
            return Response::failure(ResponseCode::NotImp);
        }
        if request.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
            return Response::failure(ResponseCode::BADVERS);
        }
        let transfer = matches!(question.query_type(), RecordType::AXFR | RecordType::IXFR);
        if transfer || question.query_class() != DNSClass::IN {
            return Response::failure(ResponseCode::Refused);
        }
        let signed = request.edns.as_ref().is_some_and(|edns| edns.flags().dnssec_ok);
        self.resolve(question, signed).await
    }

    /// Answers from the zone, follows aliases in and out of it, or forwards.
    async fn resolve(&self, question: &Query, signed: bool) -> Response {
        let kind = question.query_type();
        let zone = self.zone.load_full();
        let Some(first) = answer(&self.origin, &zone, question.name(), kind) else {
            return self.forward(question, signed).await;
        };
        let mut alias = first.alias.clone();
        let mut response = from_zone(first);
        if kind == RecordType::CNAME {
            return response;
        }
        for _ in 0..ALIASES_MAX {
            let Some(target) = alias.take() else { return response };
            match answer(&self.origin, &zone, &target, kind) {
                Some(next) => {
                    alias.clone_from(&next.alias);
                    let next = from_zone(next);
                    response.code = next.code;
                    response.answers.extend(next.answers);
                    response.authorities = next.authorities;
                    response.additionals = next.additionals;
                }
                None => {
                    self.append_foreign(&mut response, target, kind, signed).await;
                    return response;
                }
            }
        }
        Response::failure(ResponseCode::ServFail)
    }

    /// The records of an alias's target. When nobody can be asked the alias alone is answered,
    /// with the failure beside it, so that the client tries again.
    async fn append_foreign(
        &self,
        response: &mut Response,
        target: Name,
        kind: RecordType,
        signed: bool,
    ) {
        let foreign = self.forward(&Query::query(target, kind), signed).await;
        response.code = foreign.code;
        response.answers.extend(foreign.answers);
        response.authorities = foreign.authorities;
    }

    async fn forward(&self, question: &Query, signed: bool) -> Response {
        match self.forwarder.ask(question, signed).await {
            Ok(message) => from_upstream(message),
            Err(error) => {
                tracing::debug!(name = %question.name(), %error, "cannot forward a DNS question");
                Response::failure(ResponseCode::ServFail)
            }
        }
    }
}

fn from_zone(answer: Answer) -> Response {
    Response {
        code: answer.code,
        authoritative: true,
        answers: answer.answers,
        authorities: answer.authorities,
        additionals: answer.additionals,
    }
}

fn from_upstream(message: Message) -> Response {
    Response {
        code: message.metadata.response_code,
        authoritative: false,
        answers: message.answers,
        authorities: message.authorities,
        additionals: message.additionals,
    }
}

/// The answer without a record.
fn bare(request: &Message, code: ResponseCode) -> Message {
    let asked = &request.metadata;
    let mut message = Message::new(asked.id, MessageType::Response, asked.op_code);
    message.metadata = Metadata::response_from_request(asked);
    message.metadata.response_code = code;
    message.metadata.recursion_available = true;
    message.queries.clone_from(&request.queries);
    message
}

fn message(request: &Message, response: Response) -> Message {
    let mut message = bare(request, response.code);
    message.metadata.authoritative = response.authoritative;
    message.answers = response.answers;
    message.authorities = response.authorities;
    message.additionals = response.additionals;
    message.edns = request.edns.as_ref().map(|asked| {
        let mut edns = Edns::new();
        // What the client takes bounds what is sent to it; we say no more than we take.
        let payload = asked.max_payload().clamp(UDP_PAYLOAD_BYTES_MIN, UDP_PAYLOAD_BYTES);
        edns.set_max_payload(payload).set_version(0).set_dnssec_ok(asked.flags().dnssec_ok);
        edns
    });
    message
}

/// The bytes, cut and marked so where they would be too many.
fn encode(message: &Message, transport: Transport) -> Result<Vec<u8>, ProtoError> {
    let mut bytes = Vec::with_capacity(UDP_PAYLOAD_BYTES_MIN.into());
    let mut encoder = BinEncoder::new(&mut bytes);
    encoder.set_max_size(match (transport, &message.edns) {
        (Transport::Tcp, _) => u16::MAX,
        (Transport::Udp, Some(edns)) => edns.max_payload(),
        (Transport::Udp, None) => UDP_PAYLOAD_BYTES_MIN,
    });
    message.emit(&mut encoder)?;
    Ok(bytes)
}
