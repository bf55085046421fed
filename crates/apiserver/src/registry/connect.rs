//! Admission of connections: exec, attach, port forwarding and proxies. Nothing is stored; the
//! options in the query are the object that webhooks and policies see.

use api::status::Status;
use serde_json::{Map, Value, json};

use super::{Outcome, Registry};
use crate::admission::{Attributes, Operation};
use crate::request::{RequestInfo, is_on};
use crate::user::User;

/// Options of the query by their form; all others are texts.
const FLAGS: [&str; 4] = ["stdin", "stdout", "stderr", "tty"];
const NUMBERS: &str = "ports";
const LISTS: &str = "command";

impl Registry {
    /// Asks whether somebody may connect to what the path names.
    pub(crate) async fn connect(
        &self,
        info: &RequestInfo,
        user: &User,
        query: &str,
    ) -> Outcome<()> {
        let target = self.target(info)?;
        let resource = &*target.resource;
        let sub = resource.subresource(&info.subresource).ok_or_else(Status::unknown_path)?;
        let attributes = Attributes {
            operation: Operation::Connect,
            resource,
            version: &target.version,
            subresource: &info.subresource,
            namespace: &target.namespace,
            name: &target.name,
            user,
            old: None,
            dry_run: false,
            options: Value::Null,
            cluster: self,
            translations: Default::default(),
        };
        let mut object = options(&sub.kind, &target.version, query);
        self.admission.pass(&attributes, &mut object).await
    }
}

/// The query as an object of the connection's kind.
fn options(kind: &str, version: &str, query: &str) -> Value {
    let mut options = Map::new();
    options.insert("kind".to_owned(), kind.into());
    options.insert("apiVersion".to_owned(), version.into());
    if matches!(kind, "PodExecOptions" | "PodAttachOptions") {
        options.insert("stdout".to_owned(), true.into());
        options.insert("stderr".to_owned(), true.into());
    }
    let mut push = |name: &str, value: Value| {
        let list = options.entry(name).or_insert_with(|| json!([]));
        if let Some(list) = list.as_array_mut() {
            list.push(value);
        }
    };
    let mut plain = Vec::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            LISTS => push(LISTS, value.into()),
            NUMBERS => {
                let numbers = value.split(',').filter_map(|port| port.parse::<u16>().ok());
                numbers.for_each(|port| push(NUMBERS, port.into()));
            }
            flag if FLAGS.contains(&flag) => {
                plain.push((name.into_owned(), is_on(&value).into()));
            }
            "container" | "path" => plain.push((name.into_owned(), Value::from(value))),
            _ => {}
        }
    }
    options.extend(plain);
    Value::Object(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_becomes_options() {
        assert_eq!(
            options("PodExecOptions", "v1", "command=ls&command=-l&stderr=false&tty=true&x=1"),
            json!({"kind": "PodExecOptions", "apiVersion": "v1", "stdout": true, "stderr": false,
                   "command": ["ls", "-l"], "tty": true})
        );
        assert_eq!(
            options("PodPortForwardOptions", "v1", "ports=80,81"),
            json!({"kind": "PodPortForwardOptions", "apiVersion": "v1", "ports": [80, 81]})
        );
    }
}
