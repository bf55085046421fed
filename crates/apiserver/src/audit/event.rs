//! One event of the audit log (audit.k8s.io/v1), as upstream writes it.

use std::collections::BTreeMap;

use http::header;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::policy::{Decision, Level, Stage};
use crate::authn::Peer;
use crate::request::{Request, RequestInfo};
use crate::reviews::user_info;
use crate::user::User;

/// A user agent's length in characters, beyond which it is cut, as upstream does.
const AGENT_CHARS_MAX: usize = 1024;
const CUT: &str = "...TRUNCATED";
const TIME: &str = "%Y-%m-%dT%H:%M:%S%.6fZ";

/// What is known of a request so far.
pub(super) struct Draft {
    pub info: RequestInfo,
    pub user: User,
    pub impersonated: Option<User>,
    pub decision: Option<Decision>,
    pub code: u16,
    id: String,
    uri: String,
    agent: String,
    sources: Vec<String>,
    received: Timestamp,
    annotations: BTreeMap<String, String>,
    request: Option<Value>,
    response: Option<Value>,
    /// `Status` of the answer, where it was one.
    status: Option<Value>,
}

impl Draft {
    pub(super) fn new(info: &RequestInfo, request: &Request, id: &str) -> Self {
        let headers = request.headers();
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let agent = text(header::USER_AGENT.as_str()).unwrap_or_default();
        let agent = match agent.char_indices().nth(AGENT_CHARS_MAX) {
            Some((at, _)) => format!("{}{CUT}", &agent[..at]),
            None => agent.to_owned(),
        };
        let mut sources: Vec<String> = Vec::new();
        let forwarded = text("x-forwarded-for").unwrap_or_default().split(',');
        let peer = request.extensions().get::<Peer>().map(|peer| peer.address.ip().to_string());
        let own = peer.unwrap_or_else(|| "127.0.0.1".to_owned());
        let said = forwarded.chain(text("x-real-ip")).map(str::trim);
        for source in said.filter(|one| one.parse::<std::net::IpAddr>().is_ok()).chain([&*own]) {
            if !sources.iter().any(|known| known == source) {
                sources.push(source.to_owned());
            }
        }
        let uri = request.uri().path_and_query().map_or("", |uri| uri.as_str()).to_owned();
        Draft {
            info: info.clone(),
            user: User::default(),
            impersonated: None,
            decision: None,
            code: 0,
            id: id.to_owned(),
            uri,
            agent,
            sources,
            received: Timestamp::now(),
            annotations: BTreeMap::new(),
            request: None,
            response: None,
            status: None,
        }
    }

    /// Notes a fact; the first of a key stays.
    pub(super) fn annotate(&mut self, key: &str, value: &str) {
        self.annotations.entry(key.to_owned()).or_insert_with(|| value.to_owned());
    }

    /// What the request carries; `Err` where it is too large to be written.
    pub(super) fn carries(&mut self, object: Result<Value, ()>) {
        match object {
            Ok(object) => self.request = Some(object),
            Err(()) => self.annotate("audit.k8s.io/truncated", "true"),
        }
    }

    /// What the answer holds; `whole` where the object is to be written too.
    pub(super) fn answers(&mut self, object: Result<Value, ()>, whole: bool) {
        match object {
            Ok(object) => {
                if object["kind"] == "Status" && object["apiVersion"] == "v1" {
                    self.status = Some(object.clone());
                }
                if whole {
                    self.response = Some(object);
                }
            }
            Err(()) => self.annotate("audit.k8s.io/truncated", "true"),
        }
    }

    /// The event of a stage.
    pub(super) fn event(&self, decision: &Decision, stage: Stage, now: Timestamp) -> Value {
        let mut event = json!({
            "kind": "Event",
            "apiVersion": "audit.k8s.io/v1",
            "level": decision.level,
            "auditID": self.id,
            "stage": stage,
            "requestURI": self.uri,
            "verb": self.info.verb,
            "user": user_info(&self.user),
        });
        if let Some(other) = &self.impersonated {
            event["impersonatedUser"] = user_info(other);
        }
        event["sourceIPs"] = json!(self.sources);
        if !self.agent.is_empty() {
            event["userAgent"] = self.agent.as_str().into();
        }
        if self.info.is_resource {
            event["objectRef"] = self.reference();
        }
        if stage != Stage::RequestReceived {
            event["responseStatus"] = self.response_status();
            let strip = decision.omit_managed_fields;
            let levels = [
                ("requestObject", &self.request, Level::Request),
                ("responseObject", &self.response, Level::RequestResponse),
            ];
            for (member, object, level) in levels {
                if let Some(object) = object
                    && decision.level >= level
                    && !object.is_null()
                {
                    event[member] = if strip { stripped(object) } else { object.clone() };
                }
            }
        }
        event["requestReceivedTimestamp"] = self.received.strftime(TIME).to_string().into();
        event["stageTimestamp"] = now.strftime(TIME).to_string().into();
        if stage != Stage::RequestReceived && !self.annotations.is_empty() {
            event["annotations"] = json!(self.annotations);
        }
        event
    }

    fn reference(&self) -> Value {
        let info = &self.info;
        let sent = |member: &str| {
            let metadata = self.request.as_ref().map(|object| &object["metadata"][member]);
            metadata.and_then(Value::as_str).unwrap_or_default()
        };
        let or_sent = |own: &str, member: &str| match own {
            "" => sent(member).to_owned(),
            own => own.to_owned(),
        };
        let mut reference = Map::new();
        for (member, value) in [
            ("resource", info.resource.clone()),
            ("namespace", or_sent(&info.namespace, "namespace")),
            ("name", or_sent(&info.name, "name")),
            ("uid", sent("uid").to_owned()),
            ("apiGroup", info.group.clone()),
            ("apiVersion", info.version.clone()),
            ("resourceVersion", sent("resourceVersion").to_owned()),
            ("subresource", info.subresource.clone()),
        ] {
            if !value.is_empty() {
                reference.insert(member.to_owned(), value.into());
            }
        }
        reference.into()
    }

    fn response_status(&self) -> Value {
        let mut status = json!({"metadata": {}});
        for member in ["status", "message", "reason", "details"] {
            let found = self.status.as_ref().map(|status| &status[member]);
            if let Some(value) = found.filter(|value| !value.is_null()) {
                status[member] = value.clone();
            }
        }
        status["code"] = self.code.into();
        status
    }
}

/// An object, or the items of a list, without their managed fields.
fn stripped(object: &Value) -> Value {
    let mut object = object.clone();
    let strip = |one: &mut Value| {
        if let Some(metadata) = one.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
    };
    strip(&mut object);
    if let Some(items) = object.get_mut("items").and_then(Value::as_array_mut) {
        items.iter_mut().for_each(strip);
    }
    object
}
