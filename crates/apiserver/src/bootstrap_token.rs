//! Bootstrap tokens: `ID.SECRET`, held by a Secret `kube-system/bootstrap-token-ID`, for boards
//! that have no identity of their own yet (upstream's `bootstrap-token-secrets` format).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use serde_json::Value;
use store::Store;

use crate::objects;
use crate::token::TokenError;
use crate::user::User;

const NAMESPACE: &str = "kube-system";
const TYPE: &str = "bootstrap.kubernetes.io/token";
const GROUP: &str = "system:bootstrappers";
const ID_CHARS: usize = 6;
const SECRET_CHARS: usize = 16;
const GROUP_SUFFIX_MAX_CHARS: usize = 256;

/// The id and the secret in a token of this form.
pub(crate) fn parts(token: &str) -> Option<(&str, &str)> {
    let plain = |text: &str, chars: usize| {
        text.len() == chars && text.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase())
    };
    let (id, secret) = token.split_once('.')?;
    (plain(id, ID_CHARS) && plain(secret, SECRET_CHARS)).then_some((id, secret))
}

/// The user that a bootstrap token stands for.
pub(crate) fn user(
    store: &Store,
    (id, secret): (&str, &str),
    now: Timestamp,
) -> Result<User, TokenError> {
    let name = format!("bootstrap-token-{id}");
    let object = objects::object(store, "secrets", NAMESPACE, &name);
    let object = object.ok_or(TokenError::Bootstrap("there is no such token"))?;
    check(&object, id, secret, now).map_err(TokenError::Bootstrap)
}

fn check(object: &Value, id: &str, secret: &str, now: Timestamp) -> Result<User, &'static str> {
    let text = |key: &str| {
        let value = object["data"][key].as_str().unwrap_or_default();
        String::from_utf8(BASE64.decode(value).unwrap_or_default()).unwrap_or_default()
    };
    if object["type"] != TYPE {
        return Err("its Secret has another type");
    }
    if !object["metadata"]["deletionTimestamp"].is_null() {
        return Err("it is being deleted");
    }
    if !same(text("token-secret").as_bytes(), secret.as_bytes()) {
        return Err("its secret part is wrong");
    }
    if text("token-id") != id {
        return Err("its Secret holds another id");
    }
    let expiration = text("expiration");
    // What cannot be read has expired, as upstream sees it.
    let over = || expiration.parse::<Timestamp>().map_or(true, |until| until <= now);
    if !expiration.is_empty() && over() {
        return Err("it has expired");
    }
    if text("usage-bootstrap-authentication") != "true" {
        return Err("it is not meant for authentication");
    }
    let mut groups = vec![GROUP.to_owned()];
    let extra = text("auth-extra-groups");
    for group in extra.split(',').map(str::trim).filter(|group| !group.is_empty()) {
        if !is_bootstrap_group(group) {
            return Err("it names a group that does not begin with system:bootstrappers:");
        }
        groups.push(group.to_owned());
    }
    groups.sort();
    groups.dedup();
    Ok(User::new(&format!("system:bootstrap:{id}"), groups.iter().map(String::as_str)))
}

/// Compares without telling by the time taken how much was right.
fn same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}

fn is_bootstrap_group(group: &str) -> bool {
    let fine = |b: u8| b.is_ascii_digit() || b.is_ascii_lowercase();
    group.strip_prefix("system:bootstrappers:").is_some_and(|rest| {
        rest.len() <= GROUP_SUFFIX_MAX_CHARS
            && rest.bytes().all(|b| fine(b) || matches!(b, b':' | b'-'))
            && rest.bytes().last().is_some_and(fine)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_form_is_strict() {
        assert_eq!(parts("abc123.0123456789abcdef"), Some(("abc123", "0123456789abcdef")));
        for text in ["abc12.0123456789abcdef", "ABC123.0123456789abcdef", "abc123", "a.b.c", ""] {
            assert_eq!(parts(text), None, "{text}");
        }
    }

    #[test]
    fn a_token_is_as_good_as_its_secret() {
        let now: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
        let good = [
            ("token-id", "abc123"),
            ("token-secret", "0123456789abcdef"),
            ("usage-bootstrap-authentication", "true"),
            ("auth-extra-groups", "system:bootstrappers:coracle:default-node-token"),
            ("expiration", "2026-01-01T12:00:01Z"),
        ];
        let of = |changed: &[(&str, &str)]| {
            let mut data = json!({});
            for (key, value) in good.iter().chain(changed) {
                data[*key] = BASE64.encode(value).into();
            }
            let object = json!({"type": TYPE, "metadata": {}, "data": data});
            check(&object, "abc123", "0123456789abcdef", now)
        };
        let user = of(&[]).unwrap();
        assert_eq!(user.name, "system:bootstrap:abc123");
        assert_eq!(
            user.groups,
            [
                "system:bootstrappers",
                "system:bootstrappers:coracle:default-node-token",
                "system:authenticated"
            ]
        );
        for (changed, expected) in [
            (("token-secret", "0123456789abcdeX"), "its secret part is wrong"),
            (("token-id", "abc124"), "its Secret holds another id"),
            (("expiration", "2026-01-01T12:00:00Z"), "it has expired"),
            (("expiration", "tomorrow"), "it has expired"),
            (("usage-bootstrap-authentication", "yes"), "it is not meant for authentication"),
            (
                ("auth-extra-groups", "system:masters"),
                "it names a group that does not begin with system:bootstrappers:",
            ),
        ] {
            assert_eq!(of(&[changed]), Err(expected));
        }
        assert!(of(&[("expiration", "")]).is_ok());
    }
}
