//! Who calls, and what they may: the API server and administrators by their client certificates,
//! everybody else by certificate or token and as the API server's reviews say, as with a kubelet whose
//! authentication and authorization modes are `Webhook`.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::{HeaderMap, Method, StatusCode, header};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::Api;
use kube::api::PostParams;
use rustls::ServerConnection;
use x509_parser::prelude::{FromDer, X509Certificate};

/// How long a token is known without asking again: the kubelet's default.
const TOKEN_LIFE: Duration = Duration::from_secs(120);
/// How long a permission holds without asking again, and a refusal.
const ALLOWED_LIFE: Duration = Duration::from_secs(300);
const DENIED_LIFE: Duration = Duration::from_secs(30);
/// Most answers that are kept of either kind.
const ANSWERS_MAX: usize = 1024;
/// How long the API server may take for a review.
const PATIENCE: Duration = Duration::from_secs(10);

/// The identity of a caller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Client {
    name: String,
    uid: Option<String>,
    groups: Vec<String>,
    extra: Option<BTreeMap<String, Vec<String>>>,
}

/// The client of a connection by its certificate, whose signature the handshake has checked; nobody
/// when it brought none.
pub fn client(connection: &ServerConnection) -> Client {
    let first = connection.peer_certificates().and_then(|chain| chain.first());
    first.map(|der| parse(der)).unwrap_or_default()
}

fn parse(der: &[u8]) -> Client {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else { return Client::default() };
    let subject = certificate.subject();
    let name = subject.iter_common_name().next().and_then(|cn| cn.as_str().ok());
    let groups = subject.iter_organization().filter_map(|o| o.as_str().ok());
    Client {
        name: name.unwrap_or_default().to_owned(),
        groups: groups.map(str::to_owned).collect(),
        ..Client::default()
    }
}

impl Client {
    /// Whether it may use the whole API without a question: an administrator, or one of `names`.
    fn is_trusted(&self, names: &[String]) -> bool {
        self.groups.iter().any(|g| g == "system:masters")
            || (!self.name.is_empty() && names.contains(&self.name))
    }
}

/// Why a call is not answered.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused {
    /// 401 or 403, or 500 where the API server does not say.
    pub status: StatusCode,
    /// The kubelet's words.
    pub message: String,
}

/// The subresources of `nodes` that allow a path, any of them (KEP-2862).
fn subresources(path: &str) -> &'static [&'static str] {
    let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    match first {
        "stats" => &["stats"],
        "metrics" => &["metrics"],
        "logs" => &["log"],
        "checkpoint" => &["checkpoint"],
        "pods" | "runningpods" => &["pods", "proxy"],
        "configz" => &["configz", "proxy"],
        _ => &["proxy"],
    }
}

fn verb(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "get",
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim()).filter(|token| !token.is_empty())
}

/// Answers that hold for a while.
struct Remembered<V>(Mutex<HashMap<String, (Instant, V)>>);

impl<V: Clone> Remembered<V> {
    fn new() -> Self {
        Self(Mutex::default())
    }

    fn get(&self, key: &str) -> Option<V> {
        let answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        answers.get(key).filter(|(until, _)| *until > Instant::now()).map(|(_, v)| v.clone())
    }

    fn put(&self, key: String, value: V, life: Duration) {
        let now = Instant::now();
        let mut answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.len() >= ANSWERS_MAX {
            answers.retain(|_, (until, _)| *until > now);
        }
        if answers.len() >= ANSWERS_MAX {
            answers.clear();
        }
        answers.insert(key, (now + life, value));
    }
}

/// Decides who may call.
pub struct Access {
    api: kube::Client,
    node: String,
    trusted: Vec<String>,
    callers: Remembered<Client>,
    verdicts: Remembered<bool>,
}

impl Access {
    /// For the node of this name; those of the names `trusted` are not asked about.
    pub fn new(api: kube::Client, node: String, trusted: Vec<String>) -> Self {
        let (callers, verdicts) = (Remembered::new(), Remembered::new());
        Self { api, node, trusted, callers, verdicts }
    }

    /// Whether a call is to be answered.
    pub async fn check(
        &self,
        peer: &Client,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<(), Refused> {
        if peer.is_trusted(&self.trusted) {
            return Ok(());
        }
        let caller = match (peer.name.is_empty(), bearer(headers)) {
            (false, _) => peer.clone(),
            (true, Some(token)) => self.of_token(token).await?,
            (true, None) => return Err(unauthorized()),
        };
        let (verb, subresources) = (verb(method), subresources(path));
        for subresource in subresources {
            if self.may(&caller, verb, subresource).await? {
                return Ok(());
            }
        }
        Err(Refused {
            status: StatusCode::FORBIDDEN,
            message: format!(
                "Forbidden (user={}, verb={verb}, resource=nodes, subresource(s)=[{}])\n",
                caller.name,
                subresources.join(" ")
            ),
        })
    }

    async fn of_token(&self, token: &str) -> Result<Client, Refused> {
        if let Some(known) = self.callers.get(token) {
            return Ok(known);
        }
        let spec = TokenReviewSpec { token: token.to_owned(), audiences: None };
        let review = TokenReview { spec, ..TokenReview::default() };
        let status = self.review(&review).await?.status.unwrap_or_default();
        let user = status.user.filter(|_| status.authenticated == Some(true));
        let user = user.ok_or_else(unauthorized)?;
        let client = Client {
            name: user.username.unwrap_or_default(),
            uid: user.uid,
            groups: user.groups.unwrap_or_default(),
            extra: user.extra,
        };
        self.callers.put(token.to_owned(), client.clone(), TOKEN_LIFE);
        Ok(client)
    }

    async fn may(&self, caller: &Client, verb: &str, subresource: &str) -> Result<bool, Refused> {
        let spec = SubjectAccessReviewSpec {
            user: Some(caller.name.clone()),
            uid: caller.uid.clone(),
            groups: Some(caller.groups.clone()),
            extra: caller.extra.clone(),
            resource_attributes: Some(ResourceAttributes {
                verb: Some(verb.to_owned()),
                version: Some("v1".to_owned()),
                resource: Some("nodes".to_owned()),
                subresource: Some(subresource.to_owned()),
                name: Some(self.node.clone()),
                ..ResourceAttributes::default()
            }),
            non_resource_attributes: None,
        };
        let key = serde_json::to_string(&spec).unwrap_or_default();
        if let Some(known) = self.verdicts.get(&key) {
            return Ok(known);
        }
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        let allowed = self.review(&review).await?.status.is_some_and(|status| status.allowed);
        self.verdicts.put(key, allowed, if allowed { ALLOWED_LIFE } else { DENIED_LIFE });
        Ok(allowed)
    }

    async fn review<K>(&self, review: &K) -> Result<K, Refused>
    where
        K: kube::Resource<DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + serde::Serialize
            + serde::de::DeserializeOwned,
    {
        let api: Api<K> = Api::all(self.api.clone());
        let params = PostParams::default();
        let asked = tokio::time::timeout(PATIENCE, api.create(&params, review)).await;
        let failed = |why: String| Refused {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            message: format!("Authorization error: asking the API server: {why}\n"),
        };
        asked
            .map_err(|_| failed(format!("no answer within {} s", PATIENCE.as_secs())))?
            .map_err(|error| failed(base::chain(&error).to_string()))
    }
}

fn unauthorized() -> Refused {
    Refused { status: StatusCode::UNAUTHORIZED, message: "Unauthorized".to_owned() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http::{Request, Response};
    use http_body_util::BodyExt;
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;

    fn named(name: &str, groups: &[&str]) -> Client {
        let groups = groups.iter().map(|g| (*g).to_owned()).collect();
        Client { name: name.into(), groups, ..Client::default() }
    }

    /// An API server that knows the token `good` of `scraper`, who may read metrics and nothing else.
    fn api(asked: Arc<AtomicUsize>) -> kube::Client {
        let service = tower::service_fn(move |request: Request<Body>| {
            asked.fetch_add(1, Ordering::Relaxed);
            async move {
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let mut review: Value = serde_json::from_slice(&body).unwrap();
                let spec = review["spec"].clone();
                review["status"] = match spec["token"].as_str() {
                    Some(token) => json!({"authenticated": token == "good",
                        "user": {"username": "scraper", "groups": ["g"]}}),
                    None => {
                        let wanted = &spec["resourceAttributes"];
                        let fits = spec["user"] == "scraper" && wanted["subresource"] == "metrics";
                        json!({"allowed": fits && wanted["name"] == "board" && wanted["verb"] == "get"})
                    }
                };
                let body = serde_json::to_vec(&review).unwrap();
                Ok::<_, std::convert::Infallible>(Response::new(Body::from(body)))
            }
        });
        kube::Client::new(service, "default")
    }

    #[tokio::test]
    async fn callers_are_asked_about_unless_they_are_trusted() {
        let asked = Arc::new(AtomicUsize::new(0));
        let access = Access::new(api(asked.clone()), "board".into(), vec!["api".into()]);
        let call = async |peer: &Client, method: Method, path: &str, token: &str| {
            let mut headers = HeaderMap::new();
            if !token.is_empty() {
                headers.insert(header::AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
            }
            access
                .check(peer, &method, path, &headers)
                .await
                .map_err(|r| (r.status.as_u16(), r.message))
        };
        let nobody = Client::default();
        for trusted in [named("api", &[]), named("x", &["system:masters"])] {
            assert_eq!(call(&trusted, Method::POST, "/exec/a/b/c", "").await, Ok(()));
        }
        assert_eq!(asked.load(Ordering::Relaxed), 0);
        for token in ["", "bad"] {
            let refused = call(&nobody, Method::GET, "/metrics", token).await;
            assert_eq!(refused, Err((401, "Unauthorized".into())), "{token:?}");
        }
        let before = asked.load(Ordering::Relaxed);
        for _ in 0..3 {
            assert_eq!(call(&nobody, Method::GET, "/metrics/resource", "good").await, Ok(()));
        }
        assert_eq!(asked.load(Ordering::Relaxed), before + 2, "what was answered is remembered");
        let refused = call(&nobody, Method::GET, "/pods", "good").await.unwrap_err();
        let words =
            "Forbidden (user=scraper, verb=get, resource=nodes, subresource(s)=[pods proxy])\n";
        assert_eq!(refused, (403, words.into()));
        let node = named("system:node:a", &["system:nodes"]);
        assert_eq!(call(&node, Method::POST, "/run", "").await.unwrap_err().0, 403);
    }

    #[test]
    fn no_more_answers_are_kept_than_allowed() {
        let known = Remembered::new();
        for at in 0..3 * ANSWERS_MAX {
            known.put(at.to_string(), at, TOKEN_LIFE);
        }
        assert!(known.0.lock().unwrap().len() <= ANSWERS_MAX);
        known.put("gone".into(), 0, Duration::ZERO);
        assert_eq!(known.get("gone"), None);
    }
}
