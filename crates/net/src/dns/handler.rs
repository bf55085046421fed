//! One question in, one answer out.

use std::sync::Arc;

use arc_swap::ArcSwap;
use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, Record, RecordType};
use hickory_server::net::runtime::Time;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;

use super::Zone;
use super::answer::{Answer, Origin, answer};
use super::forward::{Forwarder, UDP_PAYLOAD_BYTES};

/// Aliases followed inside the cluster's zone.
const ALIASES_MAX: usize = 8;
/// The least that every client takes over UDP (RFC 1035).
const UDP_PAYLOAD_BYTES_MIN: u16 = 512;

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
    async fn respond(&self, request: &Request) -> Response {
        let Ok(info) = request.request_info() else {
            return Response::failure(ResponseCode::FormErr);
        };
        let question = info.query;
        if request.metadata.message_type != MessageType::Query
            || request.metadata.op_code != OpCode::Query
        {
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
        self.resolve(question.original(), signed).await
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

#[async_trait::async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut response_handle: R,
    ) -> ResponseInfo {
        let response = self.respond(request).await;
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.response_code = response.code;
        metadata.authoritative = response.authoritative;
        metadata.recursion_available = true;
        let edns = request.edns.as_ref().map(|asked| {
            let mut edns = Edns::new();
            // What the client takes bounds what is sent to it; we say no more than we take.
            let payload = asked.max_payload().clamp(UDP_PAYLOAD_BYTES_MIN, UDP_PAYLOAD_BYTES);
            edns.set_max_payload(payload)
                .set_version(0)
                .set_rcode_high(response.code.high())
                .set_dnssec_ok(asked.flags().dnssec_ok);
            edns
        });
        let message = MessageResponseBuilder::new(&request.queries, edns.as_ref()).build(
            metadata,
            &response.answers,
            &response.authorities,
            [],
            &response.additionals,
        );
        match response_handle.send_response(message).await {
            Ok(info) => info,
            Err(error) => {
                // The client is gone; there is nobody to tell.
                tracing::debug!(%error, "cannot send a DNS answer");
                let header = hickory_proto::op::Header { metadata, counts: Default::default() };
                header.into()
            }
        }
    }
}
