//! Texts in paths, queries, headers and expressions.

use api::resource::RESOURCES;
use api::selector::{FieldSelector, LabelSelector};
use serde_json::json;

#[path = "../../crates/apiserver/src/authn/documents.rs"]
mod documents;
#[path = "../../crates/apiserver/src/registry/accept.rs"]
mod header;
#[path = "../../crates/apiserver/src/authn/jwt.rs"]
mod jwt;
#[path = "../../crates/apiserver/src/registry/continuation.rs"]
mod page;

/// Text of a header, a query or a path: what is no UTF-8 never gets so far.
fn text(data: &[u8]) -> &str {
    std::str::from_utf8(data).unwrap_or_default()
}

pub fn accept(data: &[u8]) {
    for clause in header::clauses(text(data)) {
        header::understand(clause);
    }
}

pub fn continuation(data: &[u8]) {
    if let Ok(token) = page::Continue::decode(text(data)) {
        assert_eq!(page::Continue::decode(&token.encode()).as_ref(), Ok(&token));
    }
}

pub fn label_selector(data: &[u8]) {
    if let Ok(selector) = LabelSelector::parse(text(data)) {
        selector.matches(|key| (key.len() < 3).then_some("b"));
        let object = json!({"metadata": {"labels": {"a": "b", "n": "5"}}});
        selector.matches_object(&object);
    }
    if let Ok(selector) = serde_json::from_slice(data) {
        let _ = LabelSelector::from_object(&selector);
    }
}

pub fn field_selector(data: &[u8]) {
    let Some((kind, data)) = data.split_first() else { return };
    let resource = &RESOURCES[usize::from(*kind) % RESOURCES.len()];
    if let Ok(selector) = FieldSelector::parse(text(data), resource) {
        selector.matches_key("ns", "name");
        selector.matches(&json!({"metadata": {"name": "a"}, "spec": {"nodeName": "b"}}));
    }
}

pub fn quantity(data: &[u8]) {
    if let Ok(quantity) = text(data).parse::<base::Quantity>() {
        let again: base::Quantity = quantity.to_string().parse().expect("what was written");
        assert_eq!(again.to_string(), quantity.to_string());
        (quantity.units(), quantity.millis(), quantity.as_f64());
    }
}

/// A token of another issuer, and keys that an issuer publishes.
pub fn token(data: &[u8]) {
    let keys = serde_json::from_slice(data).map(|document| jwt::Jwk::set(&document));
    let known = json!({"keys": [{"kty": "oct"}, {"kty": "EC", "crv": "P-256",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]});
    let keys = keys.unwrap_or_else(|_| jwt::Jwk::set(&known));
    if let Some(token) = jwt::Token::parse(text(data)) {
        for key in &keys {
            key.has_signed(&token);
        }
        token.text("iss");
        token.texts("aud");
        token.time("exp");
    }
}

/// What an issuer answers when it is asked for its description or its keys, and what a token says of
/// claims that others have.
pub fn issuer(data: &[u8]) {
    const SIGNED: &str = "eyJhbGciOiJFUzI1NiJ9.e30.AAAA";
    let Ok(document) = serde_json::from_slice::<serde_json::Value>(data) else { return };
    if let Ok(url) = documents::keys_url(&document, "https://i") {
        let _ = url.parse::<http::Uri>();
    }
    if let Some(token) = jwt::Token::parse(SIGNED) {
        for key in &jwt::Jwk::set(&document) {
            key.has_signed(&token);
        }
    }
    if let Some(claims) = document.as_object() {
        let _ = documents::Source::of("groups", claims).map(|found| found.map(|one| one.endpoint));
    }
}

/// Nothing is known of any size.
struct Unknown;

impl expression::Sizes for Unknown {
    fn most(&self, _: &[String]) -> Option<u64> {
        None
    }
}

pub fn expression(data: &[u8]) {
    use expression::Kind;
    let item = || Kind::object([("name", Kind::Text), ("n", Kind::Int)]);
    let fields = [
        ("a", Kind::Int),
        ("s", Kind::Text),
        ("items", Kind::list(item())),
        ("map", Kind::map(Kind::Text)),
    ];
    let this = Kind::object(fields);
    let variables =
        [("self", this.clone()), ("oldSelf", Kind::Optional(std::sync::Arc::new(this)))];
    let object = json!({"a": 3, "s": "text", "items": [{"name": "x", "n": 1}, {"name": "y"}],
        "map": {"k": "v"}});
    super::caught(|| {
        if let Ok(program) = expression::compile(text(data), &variables) {
            expression::estimate(&program, &Unknown);
            let _ = program.evaluate(&[("self", &object), ("oldSelf", &object)]);
        }
    });
}
