//! Where a proxied request goes, found from the stored objects.

use std::net::IpAddr;
use std::sync::Arc;

use api::status::{Status, go_quote};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use store::Store;

use super::forward;
use crate::request::{RequestInfo, is_on};
use crate::server::Context;
use crate::{endpoints, objects};

/// What stays as it is in a path segment.
const SEGMENT: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b':');

/// Where to connect, and what to ask for there.
#[derive(Clone)]
pub(crate) struct Target {
    /// Address or name of the host.
    pub host: String,
    pub port: u16,
    /// How to speak TLS; plain HTTP without.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// Path and query.
    pub path: String,
    /// The name that the host's certificate must have; `host` without.
    pub server_name: Option<String>,
}

impl Target {
    /// `https://HOST:PORT/PATH`, as messages name it.
    pub(crate) fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}{}", self.authority(), self.path)
    }

    /// `HOST:PORT`, with brackets around an IPv6 address.
    pub(super) fn authority(&self) -> String {
        match self.host.parse::<IpAddr>() {
            Ok(IpAddr::V6(_)) => format!("[{}]:{}", self.host, self.port),
            _ => format!("{}:{}", self.host, self.port),
        }
    }

    /// The kubelet of a node.
    pub(super) fn kubelet(context: &Context, node: &str, path: String) -> Result<Target, Status> {
        let Some(client) = &context.config.kubelet else {
            return Err(Status::unavailable("this server has no certificate to reach nodes with"));
        };
        let object = objects::object(&context.store, "nodes", "", node)
            .ok_or_else(|| Status::not_found(("", "nodes"), node))?;
        let host = node_address(&object).ok_or_else(|| {
            Status::internal_error(&format!(
                "no preferred addresses found; known addresses: []: node {node}"
            ))
        })?;
        let port = kubelet_port(&object).ok_or_else(|| {
            Status::internal_error(&format!("node {node} has no kubelet endpoint"))
        })?;
        Ok(Target { host, port, tls: Some(Arc::clone(&client.tls)), path, server_name: None })
    }
}

fn node_address(node: &Value) -> Option<String> {
    let addresses = node["status"]["addresses"].as_array()?;
    ["InternalIP", "ExternalIP", "Hostname"].iter().find_map(|kind| {
        let found = addresses.iter().find(|address| address["type"] == *kind)?;
        Some(found["address"].as_str()?.to_owned())
    })
}

fn kubelet_port(node: &Value) -> Option<u16> {
    let port = node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64()?;
    u16::try_from(port).ok().filter(|port| *port > 0)
}

/// A stored pod.
pub(super) fn pod(store: &Store, info: &RequestInfo) -> Result<Value, Status> {
    objects::object(store, "pods", &info.namespace, &info.name)
        .ok_or_else(|| Status::not_found(("", "pods"), &info.name))
}

/// The container that is meant: the one that is named, or the only one there is.
pub(super) fn container(pod: &Value, asked: &str) -> Result<String, Status> {
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let names = |list: &str| -> Vec<&str> {
        let list = pod["spec"][list].as_array().into_iter().flatten();
        list.filter_map(|container| container["name"].as_str()).collect()
    };
    let (own, init) = (names("containers"), names("initContainers"));
    if !asked.is_empty() {
        let there = own.contains(&asked)
            || init.contains(&asked)
            || names("ephemeralContainers").contains(&asked);
        if there {
            return Ok(asked.to_owned());
        }
        return Err(Status::bad_request(format!("container {asked} is not valid for pod {name}")));
    }
    match own.as_slice() {
        [one] => Ok((*one).to_owned()),
        [] => {
            Err(Status::bad_request(format!("a container name must be specified for pod {name}")))
        }
        many => {
            let mut message = format!(
                "a container name must be specified for pod {name}, choose one of: [{}]",
                many.join(" ")
            );
            if !init.is_empty() {
                message += &format!(" or one of the init containers: [{}]", init.join(" "));
            }
            Err(Status::bad_request(message))
        }
    }
}

/// Segments of a path, percent-encoded where needed.
pub(super) fn path_of(segments: &[&str]) -> String {
    segments.iter().fold(String::new(), |mut path, segment| {
        path.push('/');
        path.extend(utf8_percent_encode(segment, SEGMENT));
        path
    })
}

/// The node, and the kubelet's path for exec, attach or portforward.
pub(super) fn stream(
    store: &Store,
    info: &RequestInfo,
    query: &str,
) -> Result<(String, String), Status> {
    let pod = pod(store, info)?;
    let pairs: Vec<(String, String)> =
        form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let mut asked = form_urlencoded::Serializer::new(String::new());
    let place: Vec<String> = if info.subresource == "portforward" {
        let ports: Vec<&str> =
            pairs.iter().filter(|(key, _)| key == "ports").map(|(_, port)| port.as_str()).collect();
        if !ports.is_empty() {
            asked.append_pair("port", &ports.join(","));
        }
        vec!["portForward".to_owned()]
    } else {
        let named = pairs.iter().find(|(key, _)| key == "container");
        let container = container(&pod, named.map_or("", |(_, name)| name))?;
        for (from, to) in
            [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")]
        {
            let value = pairs.iter().find(|(key, _)| key == from).map(|(_, value)| value.as_str());
            if value.is_some_and(is_on) {
                asked.append_pair(to, "1");
            }
        }
        if info.subresource == "exec" {
            for (_, word) in pairs.iter().filter(|(key, _)| key == "command") {
                asked.append_pair("command", word);
            }
        }
        vec![info.subresource.clone(), container]
    };
    let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
    if node.is_empty() {
        let message = format!("pod {} does not have a host assigned", info.name);
        return Err(Status::bad_request(message));
    }
    let mut segments = vec![place[0].as_str(), &info.namespace, &info.name];
    segments.extend(place.get(1).map(String::as_str));
    let query = asked.finish();
    let mark = if query.is_empty() { "" } else { "?" };
    Ok((node.to_owned(), format!("{}{mark}{query}", path_of(&segments))))
}

/// What follows `proxy` in a path, as it was sent.
pub(super) fn rest_of_path(path: &str, info: &RequestInfo) -> String {
    // /api/v1/namespaces/NS/KIND/NAME/proxy or /api/v1/nodes/NAME/proxy
    let before = if info.namespace.is_empty() { 5 } else { 7 };
    let Some((start, _)) = path.match_indices('/').nth(before) else { return String::new() };
    path[start..].to_owned()
}

/// The path that is asked for behind the proxy. A slash may come encoded: clients that are made from
/// the API's description take the whole rest for one parameter, and upstream decodes it for them.
pub(super) fn sent_path(rest: &str) -> String {
    if rest.is_empty() { "/".to_owned() } else { rest.replace("%2F", "/").replace("%2f", "/") }
}

/// Where pods/proxy, services/proxy and nodes/proxy lead.
pub(super) fn proxied(
    context: &Context,
    info: &RequestInfo,
    path: String,
) -> Result<Target, Status> {
    let kind = info.resource.trim_end_matches('s');
    let Some((scheme, name, port)) = split_name(&info.name) else {
        return Err(Status::bad_request(format!(
            "invalid {kind} request {}",
            go_quote(&info.name)
        )));
    };
    let (host, port) = match info.resource.as_str() {
        "pods" => pod_address(&context.store, &info.namespace, name, port)?,
        "services" => service_address(&context.store, &info.namespace, name, port)?,
        _ => return node_target(context, scheme, name, port, path),
    };
    let tls = (scheme == "https").then(forward::trusting_client);
    let port = port.unwrap_or(if tls.is_some() { 443 } else { 80 });
    Ok(Target { host, port, tls, path, server_name: None })
}

/// `[SCHEME:]NAME[:PORT]`.
fn split_name(id: &str) -> Option<(&str, &str, &str)> {
    let parts: Vec<&str> = id.split(':').collect();
    let (scheme, name, port) = match parts.as_slice() {
        [name] => ("", *name, ""),
        [name, port] => ("", *name, *port),
        [scheme, name, port] => (*scheme, *name, *port),
        _ => return None,
    };
    (matches!(scheme, "" | "http" | "https") && !name.is_empty()).then_some((scheme, name, port))
}

fn parse_port(port: &str) -> Option<u16> {
    port.parse().ok().filter(|port| *port > 0)
}

fn pod_address(
    store: &Store,
    namespace: &str,
    name: &str,
    port: &str,
) -> Result<(String, Option<u16>), Status> {
    let pod = objects::object(store, "pods", namespace, name)
        .ok_or_else(|| Status::not_found(("", "pods"), name))?;
    let host = proxyable(pod["status"]["podIP"].as_str().unwrap_or_default())?;
    if !port.is_empty() {
        let port = parse_port(port).ok_or_else(|| {
            Status::bad_request(format!("invalid pod request {}", go_quote(name)))
        })?;
        return Ok((host, Some(port)));
    }
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    let first = containers
        .filter_map(|container| container["ports"][0]["containerPort"].as_u64())
        .find_map(|port| u16::try_from(port).ok());
    Ok((host, first))
}

/// Addresses that are this host's own must not be reached through the API server.
fn proxyable(address: &str) -> Result<String, Status> {
    let allowed = address.parse::<IpAddr>().is_ok_and(|address| {
        let link_local = match address {
            IpAddr::V4(address) => address.is_link_local(),
            IpAddr::V6(address) => address.is_unicast_link_local(),
        };
        !(address.is_loopback() || address.is_unspecified() || address.is_multicast() || link_local)
    });
    if allowed { Ok(address.to_owned()) } else { Err(Status::bad_request("address not allowed")) }
}

fn service_address(
    store: &Store,
    namespace: &str,
    name: &str,
    port: &str,
) -> Result<(String, Option<u16>), Status> {
    let backends = endpoints::resolve(store, namespace, name, port)?;
    // Whichever comes next: upstream, too, picks one at random.
    let (address, port) = &backends[fastrand::usize(..backends.len())];
    Ok((proxyable(address)?, Some(*port)))
}

fn node_target(
    context: &Context,
    scheme: &str,
    name: &str,
    port: &str,
    path: String,
) -> Result<Target, Status> {
    let node = objects::object(&context.store, "nodes", "", name)
        .ok_or_else(|| Status::not_found(("", "nodes"), name))?;
    let own = kubelet_port(&node);
    if port.is_empty() || (own.is_some() && parse_port(port) == own) {
        return Target::kubelet(context, name, path);
    }
    let host = node_address(&node).ok_or_else(|| Status::bad_request("address not allowed"))?;
    let port = parse_port(port)
        .ok_or_else(|| Status::bad_request(format!("invalid node request {}", go_quote(name))))?;
    let tls = (scheme == "https").then(forward::trusting_client);
    Ok(Target { host: proxyable(&host)?, port, tls, path, server_name: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_container_is_named_or_the_only_one() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {
            "containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]}});
        let say = |asked: &str| match container(&pod, asked) {
            Ok(name) => name,
            Err(status) => status.message,
        };
        assert_eq!(say("b"), "b");
        assert_eq!(say("i"), "i");
        assert_eq!(say("x"), "container x is not valid for pod p");
        assert_eq!(
            say(""),
            "a container name must be specified for pod p, choose one of: [a b] or one of the init containers: [i]"
        );
        let one = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}]}});
        assert_eq!(container(&one, "").unwrap(), "a");
    }

    #[test]
    fn names_may_carry_scheme_and_port() {
        for (id, expected) in [
            ("web", Some(("", "web", ""))),
            ("web:http", Some(("", "web", "http"))),
            ("https:web:443", Some(("https", "web", "443"))),
            ("https:web:", Some(("https", "web", ""))),
            ("ftp:web:21", None),
            ("a:b:c:d", None),
            (":80", None),
        ] {
            assert_eq!(split_name(id), expected, "{id}");
        }
    }

    #[test]
    fn the_rest_of_a_path_stays_encoded_but_for_slashes() {
        for (path, expected, sent) in [
            ("/api/v1/namespaces/ns/pods/p:80/proxy/a%2Fb%3F/c/", "/a%2Fb%3F/c/", "/a/b%3F/c/"),
            ("/api/v1/namespaces/ns/services/s/proxy", "", "/"),
            ("/api/v1/namespaces/ns/services/s/proxy/", "/", "/"),
            ("/api/v1/nodes/n/proxy/stats%2fsummary", "/stats%2fsummary", "/stats/summary"),
        ] {
            let uri: http::Uri = path.parse().unwrap();
            let info = RequestInfo::parse(&http::Method::GET, &uri).unwrap();
            let rest = rest_of_path(path, &info);
            assert_eq!((rest.as_str(), sent_path(&rest).as_str()), (expected, sent), "{path}");
        }
    }

    #[test]
    fn own_addresses_are_not_reached() {
        for address in ["127.0.0.1", "::1", "169.254.169.254", "0.0.0.0", "fe80::1", ""] {
            assert!(proxyable(address).is_err(), "{address}");
        }
        assert!(proxyable("10.42.0.7").is_ok());
    }
}
