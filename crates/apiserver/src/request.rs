//! A request as the chain understands it: verb, resource, namespace, name.

use bytes::Bytes;
use http::Method;
use percent_encoding::percent_decode_str;

use crate::authz::Selectors;

/// Any error, as bodies carry it.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// A body of any origin: a connection, an in-process caller, a watch.
pub type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, BoxError>;
/// A request with such a body.
pub type Request = http::Request<Body>;
/// A response with such a body.
pub type Response = http::Response<Body>;

/// What a request asks for, read from its method and path alone, as upstream's
/// `RequestInfoFactory` does (k8s.io/apiserver/pkg/endpoints/request).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    /// get, list, watch, create, update, patch, delete, deletecollection or proxy; for a
    /// path that is no resource the HTTP method in lower case.
    pub verb: String,
    /// Whether the path names a resource (`/api/v1/...`, `/apis/GROUP/VERSION/...`).
    pub is_resource: bool,
    /// API group, empty for the core group.
    pub group: String,
    /// API version, for instance `v1`.
    pub version: String,
    /// Plural name of the resource.
    pub resource: String,
    /// Subresource (`status`, `log`), empty for the object itself.
    pub subresource: String,
    /// Namespace, empty for cluster scope and for requests over all namespaces. For the
    /// resource `namespaces` itself it is the object's name.
    pub namespace: String,
    /// Name of the object. Also set for a list or watch whose field selector pins
    /// `metadata.name`, so that rules with resourceNames apply; such a request stays a
    /// list or watch.
    pub name: String,
    /// Which objects of a list are meant.
    pub selectors: Selectors,
    /// The path as sent, percent-encoding undone.
    pub path: String,
    /// The path's segments from the resource on; `[3..]` is the rest behind a subresource.
    pub parts: Vec<String>,
}

const NAMESPACE_SUBRESOURCES: [&str; 2] = ["status", "finalize"];

impl RequestInfo {
    /// Reads method, path and query. A special verb without a resource behind it is
    /// an error with upstream's wording.
    pub fn parse(method: &Method, uri: &http::Uri) -> Result<RequestInfo, String> {
        let path = percent_decode_str(uri.path()).decode_utf8_lossy().into_owned();
        let mut info = RequestInfo {
            verb: method.as_str().to_ascii_lowercase(),
            path: path.clone(),
            ..RequestInfo::default()
        };
        let all: Vec<&str> = split(&path);
        let mut parts = match all.as_slice() {
            ["api", rest @ ..] if rest.len() >= 2 => rest,
            ["apis", group, rest @ ..] if rest.len() >= 2 => {
                info.group = (*group).to_owned();
                rest
            }
            _ => return Ok(info),
        };
        info.is_resource = true;
        info.version = parts[0].to_owned();
        parts = &parts[1..];

        if matches!(parts[0], "proxy" | "watch") {
            if parts.len() < 2 {
                return Err(format!("unable to determine kind and namespace from url, {path}"));
            }
            info.verb = parts[0].to_owned();
            parts = &parts[1..];
        } else {
            info.verb = verb_of(method).to_owned();
        }

        if parts[0] == "namespaces" && parts.len() > 1 {
            info.namespace = parts[1].to_owned();
            if parts.len() > 2 && !NAMESPACE_SUBRESOURCES.contains(&parts[2]) {
                parts = &parts[2..];
            }
        }
        info.resource = parts[0].to_owned();
        info.name = parts.get(1).copied().unwrap_or_default().to_owned();
        // The legacy prefixes know no subresources: what follows a name belongs to the proxy.
        if parts.len() > 2 && !matches!(info.verb.as_str(), "proxy" | "watch") {
            info.subresource = parts[2].to_owned();
        }
        info.parts = parts.iter().map(|part| (*part).to_owned()).collect();
        info.settle_collection_verb(uri.query().unwrap_or(""));
        Ok(info)
    }

    /// Turns `get` and `delete` without a name into their collection verbs, and takes the
    /// name from a field selector that pins it.
    fn settle_collection_verb(&mut self, query: &str) {
        if !self.name.is_empty() {
            return;
        }
        let is_old_watch = self.verb == "watch";
        match self.verb.as_str() {
            "get" if query_true(query, "watch") => self.verb = "watch".to_owned(),
            "get" => self.verb = "list".to_owned(),
            "delete" => self.verb = "deletecollection".to_owned(),
            "watch" => {}
            _ => return,
        }
        if let Some(name) = name_from_selector(query) {
            self.name = name;
        }
        // Upstream gives authorizers none of the watches by path, which read selectors in part.
        if !is_old_watch {
            let value = |key| query_value(query, key).unwrap_or_default();
            self.selectors = Selectors::of_query(&value("fieldSelector"), &value("labelSelector"));
        }
    }

    /// `resource/subresource`, as rules and metrics name it.
    pub fn resource_path(&self) -> String {
        if self.subresource.is_empty() {
            self.resource.clone()
        } else {
            format!("{}/{}", self.resource, self.subresource)
        }
    }

    /// Whether the answer may take as long as the client stays: watches, logs, exec,
    /// attach, port forwarding and proxies.
    pub fn is_long_running(&self) -> bool {
        self.is_resource
            && (matches!(self.verb.as_str(), "watch" | "proxy")
                || matches!(
                    self.subresource.as_str(),
                    "log" | "exec" | "attach" | "portforward" | "proxy"
                ))
    }
}

fn split(path: &str) -> Vec<&str> {
    let path = path.trim_matches('/');
    if path.is_empty() { Vec::new() } else { path.split('/').collect() }
}

fn verb_of(method: &Method) -> &'static str {
    match method.as_str() {
        "POST" => "create",
        "GET" | "HEAD" => "get",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "",
    }
}

/// The first value of a query parameter, decoded.
pub(crate) fn query_value(query: &str, key: &str) -> Option<String> {
    form_urlencoded::parse(query.as_bytes())
        .find(|(name, _)| name == key)
        .map(|(_, value)| value.into_owned())
}

/// A boolean query parameter as upstream converts one: present is true unless it reads
/// `false` or `0`.
pub(crate) fn query_true(query: &str, key: &str) -> bool {
    query_value(query, key).is_some_and(|value| is_on(&value))
}

/// What a boolean query parameter that is there means.
pub(crate) fn is_on(value: &str) -> bool {
    !value.eq_ignore_ascii_case("false") && value != "0"
}

/// The value that a field selector pins a field to.
fn pinned(query: &str, field: &str) -> Option<String> {
    query_value(query, "fieldSelector")?.split(',').find_map(|term| {
        let (key, value) = term.split_once('=')?;
        (key == field).then(|| value.strip_prefix('=').unwrap_or(value).to_owned())
    })
}

fn name_from_selector(query: &str) -> Option<String> {
    let name = pinned(query, "metadata.name")?;
    let usable = !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '%']);
    usable.then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Verb, group/version, namespace, resource/subresource and name, as one line.
    fn line(method: &str, uri: &str) -> String {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        match RequestInfo::parse(&method, &uri.parse().unwrap()) {
            Err(error) => error,
            Ok(info) if !info.is_resource => format!("{} {}", info.verb, info.path),
            Ok(info) => format!(
                "{} {}/{} ns={} {} name={} parts={}",
                info.verb,
                info.group,
                info.version,
                info.namespace,
                info.resource_path(),
                info.name,
                info.parts.join(",")
            ),
        }
    }

    #[test]
    fn requests_are_read_as_upstream_reads_them() {
        for (method, uri, expected) in [
            ("GET", "/", "get /"),
            ("GET", "/api/v1", "get /api/v1"),
            ("GET", "/apis/apps/v1", "get /apis/apps/v1"),
            ("POST", "/healthz/ping", "post /healthz/ping"),
            ("GET", "/api/v1/pods", "list /v1 ns= pods name= parts=pods"),
            ("GET", "/api/v1/pods?watch=true", "watch /v1 ns= pods name= parts=pods"),
            ("GET", "/api/v1/pods?watch=0", "list /v1 ns= pods name= parts=pods"),
            ("GET", "/api/v1/namespaces/a/pods/p", "get /v1 ns=a pods name=p parts=pods,p"),
            ("HEAD", "/api/v1/namespaces/a/pods/p", "get /v1 ns=a pods name=p parts=pods,p"),
            ("GET", "/api/v1/namespaces/a", "get /v1 ns=a namespaces name=a parts=namespaces,a"),
            ("GET", "/api/v1/namespaces", "list /v1 ns= namespaces name= parts=namespaces"),
            (
                "PUT",
                "/api/v1/namespaces/a/finalize",
                "update /v1 ns=a namespaces/finalize name=a parts=namespaces,a,finalize",
            ),
            (
                "PATCH",
                "/apis/apps/v1/namespaces/a/deployments/d/scale",
                "patch apps/v1 ns=a deployments/scale name=d parts=deployments,d,scale",
            ),
            (
                "POST",
                "/apis/apps/v1/namespaces/a/deployments",
                "create apps/v1 ns=a deployments name= parts=deployments",
            ),
            (
                "DELETE",
                "/api/v1/namespaces/a/pods",
                "deletecollection /v1 ns=a pods name= parts=pods",
            ),
            ("DELETE", "/api/v1/nodes/n", "delete /v1 ns= nodes name=n parts=nodes,n"),
            ("GET", "/api/v1/watch/namespaces/a/pods", "watch /v1 ns=a pods name= parts=pods"),
            ("GET", "/api/v1/watch/namespaces/a/pods/p", "watch /v1 ns=a pods name=p parts=pods,p"),
            (
                "GET",
                "/api/v1/watch",
                "unable to determine kind and namespace from url, /api/v1/watch",
            ),
            (
                "GET",
                "/api/v1/proxy/namespaces/a/services/s/x/y",
                "proxy /v1 ns=a services name=s parts=services,s,x,y",
            ),
            (
                "GET",
                "/api/v1/namespaces/a/services/https:s:443/proxy/x%2Fy",
                "get /v1 ns=a services/proxy name=https:s:443 parts=services,https:s:443,proxy,x,y",
            ),
            (
                "GET",
                "/api/v1/secrets?fieldSelector=metadata.name%3Ds",
                "list /v1 ns= secrets name=s parts=secrets",
            ),
            (
                "GET",
                "/api/v1/secrets?fieldSelector=metadata.name!%3Ds",
                "list /v1 ns= secrets name= parts=secrets",
            ),
        ] {
            assert_eq!(line(method, uri), expected, "{method} {uri}");
        }
    }

    #[test]
    fn long_running_requests_have_no_deadline() {
        for (uri, long) in [
            ("/api/v1/pods?watch=1", true),
            ("/api/v1/namespaces/a/pods/p/exec", true),
            ("/api/v1/namespaces/a/pods/p/log", true),
            ("/api/v1/pods", false),
            ("/readyz", false),
        ] {
            let info = RequestInfo::parse(&Method::GET, &uri.parse().unwrap()).unwrap();
            assert_eq!(info.is_long_running(), long, "{uri}");
        }
    }
}
