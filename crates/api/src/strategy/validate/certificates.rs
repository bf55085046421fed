//! Rules for CertificateSigningRequests (k8s.io/kubernetes `pkg/apis/certificates/validation`).
//! What takes a parser for certificates is checked where there is one, in the API server.

use super::at::{At, Errors};
use super::formats;
use serde_json::Value;
use std::collections::BTreeSet;

const LEGACY: &str = "kubernetes.io/legacy-unknown";
const EXPIRATION_MIN_SECONDS: i64 = 600;
/// What a signer's name may be long: a domain, a slash, and labels joined by dots.
const SIGNER_NAME_MAX_BYTES: usize = 253 + 1 + 63 * 5 + 4;
const USAGES: &[&str] = &[
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];
/// Conditions that never go once they are there.
const FINAL: [&str; 3] = ["Approved", "Denied", "Failed"];

/// A new request.
pub(super) fn request(object: &At<'_>, out: &mut Errors) {
    let spec = object.get("spec");
    let usages = spec.get("usages");
    if usages.len() == 0 {
        out.required(&usages, "");
    }
    let mut seen = BTreeSet::new();
    for usage in usages.items() {
        if !USAGES.contains(&usage.text()) {
            out.not_supported(&usage, USAGES);
        }
        out.unique(&usage, &mut seen);
    }
    signer(&spec.get("signerName"), out);
    let expiration = spec.get("expirationSeconds");
    if expiration.is_set() && expiration.number() < EXPIRATION_MIN_SECONDS {
        out.invalid(&expiration, "may not specify a duration less than 600 seconds (10 minutes)");
    }
}

fn signer(at: &At<'_>, out: &mut Errors) {
    let name = at.text();
    if name == LEGACY {
        return out.invalid(at, "the legacy signerName is not allowed via this API version");
    }
    let segments: Vec<&str> = name.split('/').collect();
    let [domain, path] = segments.as_slice() else {
        return match name {
            "" => out.required(at, ""),
            _ => out.invalid(
                at,
                "must be a fully qualified domain and path of the form 'example.com/signer-name'",
            ),
        };
    };
    out.all(at, formats::dns_subdomain(domain));
    if domain.split('.').count() < 2 {
        out.invalid(at, "should be a domain with at least two segments separated by dots");
    }
    for label in path.split('.') {
        out.all(at, formats::dns_label(label));
    }
    if name.len() > SIGNER_NAME_MAX_BYTES {
        out.too_long(at, SIGNER_NAME_MAX_BYTES);
    }
}

/// A request whose metadata changed: there is nothing else that a plain update writes.
pub(super) fn unchanged(_: &At<'_>, _: &At<'_>, _: &mut Errors) {}

/// A request that was approved or denied.
pub(super) fn approval(new: &At<'_>, old: &At<'_>, out: &mut Errors) {
    conditions(new, out);
    lasting(new, old, out);
}

/// A request that a signer has dealt with.
pub(super) fn status(new: &At<'_>, old: &At<'_>, out: &mut Errors) {
    conditions(new, out);
    lasting(new, old, out);
    let (now, before) = (new.get("status.certificate"), old.get("status.certificate"));
    if before.len() + before.text().len() > 0 && now.value != before.value {
        out.forbidden(&now, "updates may not modify existing certificate content");
    }
}

/// What was decided stays decided.
fn lasting(new: &At<'_>, old: &At<'_>, out: &mut Errors) {
    let all = |at: &At<'_>, kind: &str| -> Vec<Value> {
        let items = at.get("status.conditions").items();
        items.filter(|c| c.value["type"] == kind).map(|c| c.value.clone()).collect()
    };
    let place = new.get("status.conditions");
    for kind in FINAL {
        if all(new, kind).len() < all(old, kind).len() {
            out.forbidden(&place, format!("updates may not remove a condition of type {kind:?}"));
        }
    }
}

fn conditions(object: &At<'_>, out: &mut Errors) {
    let mut seen = BTreeSet::new();
    let list = object.get("status.conditions");
    let has = |kind: &str| list.items().any(|c| c.value["type"] == kind);
    let both = has("Approved") && has("Denied");
    for condition in list.items() {
        let (kind, status) = (condition.get("type"), condition.get("status"));
        out.needed(&kind);
        match (kind.text(), status.text()) {
            (_, "") => out.required(&status, ""),
            (kind, "True") if FINAL.contains(&kind) => {}
            (kind, _) if FINAL.contains(&kind) => out.not_supported(&status, &["True"]),
            (_, "True" | "False" | "Unknown") => {}
            _ => out.not_supported(&status, &["True", "False", "Unknown"]),
        }
        if both && kind.text() == "Denied" {
            out.invalid(&kind, "Approved and Denied conditions are mutually exclusive");
        }
        out.unique(&kind, &mut seen);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::created;
    use crate::resource::find;
    use serde_json::{Value, json};

    const COLLECTION: &str = "certificates.k8s.io/certificatesigningrequests";

    #[test]
    fn new_requests() {
        created(
            COLLECTION,
            &[
                (
                    "spec: {request: LQ==, signerName: kubernetes.io/kubelet-serving, usages: [server auth]}",
                    "",
                ),
                (
                    "spec: {signerName: kubernetes.io/legacy-unknown, expirationSeconds: 599}",
                    r#"spec.usages: Required value
                       spec.signerName: Invalid value: "kubernetes.io/legacy-unknown": the legacy signerName is not allowed via this API version
                       spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 600 seconds (10 minutes)"#,
                ),
                (
                    "spec: {signerName: mine, usages: [fun, any, any]}",
                    r#"spec.usages[0]: Unsupported value: "fun": supported values: "any", "cert sign",…
                       spec.usages[2]: Duplicate value: "any"
                       spec.signerName: Invalid value: "mine": must be a fully qualified domain and path of the form 'example.com/signer-name'"#,
                ),
                (
                    "spec: {signerName: local/a.B, usages: [any]}",
                    r#"spec.signerName: Invalid value: "local/a.B": should be a domain with at least two segments separated by dots
                       spec.signerName: Invalid value: "local/a.B": …"#,
                ),
            ],
        );
    }

    fn view(subresource: &str, old: Value, new: Value) -> String {
        let resource = find("certificates.k8s.io", "v1", "certificatesigningrequests").unwrap();
        let object = |status: Value| json!({"metadata": {"name": "a"}, "spec": {"signerName": "a.b/c"}, "status": status});
        let (old, mut new) = (object(old), object(new));
        new["spec"]["signerName"] = json!("x.y/z");
        crate::strategy::prepare_update(resource, subresource, &mut new, &old);
        assert_eq!(new["spec"], old["spec"]);
        let errors = crate::strategy::validate_update(resource, subresource, &new, &old);
        match errors.first() {
            Some(error) => error.to_string(),
            None => new["status"].to_string(),
        }
    }

    #[test]
    fn who_approves_does_not_sign_and_the_other_way_round() {
        let condition = |kind: &str| json!({"type": kind, "status": "True", "reason": "r"});
        let approved = json!({"conditions": [condition("Approved")]});
        let signed = json!({"conditions": [condition("Approved")], "certificate": "AA=="});
        let both = json!({"conditions": [condition("Approved"), condition("Denied")]});
        let failed = json!({"conditions": [condition("Failed")]});
        for (subresource, old, new, expected) in [
            ("approval", json!({}), approved.clone(), approved.to_string()),
            ("approval", json!({}), signed.clone(), approved.to_string()),
            (
                "approval",
                json!({}),
                both,
                "status.conditions[1].type: Invalid value: \"Denied\": Approved and Denied conditions are mutually exclusive".into(),
            ),
            (
                "approval",
                approved.clone(),
                json!({"conditions": []}),
                "status.conditions: Forbidden: updates may not remove a condition of type \"Approved\"".into(),
            ),
            ("status", approved.clone(), signed.clone(), signed.to_string()),
            ("status", json!({}), approved.clone(), json!({"conditions": []}).to_string()),
            ("status", json!({}), failed.clone(), failed.to_string()),
            (
                "status",
                signed,
                json!({"conditions": [condition("Approved")], "certificate": "BB=="}),
                "status.certificate: Forbidden: updates may not modify existing certificate content".into(),
            ),
        ] {
            assert_eq!(view(subresource, old, new), expected, "{subresource}");
        }
    }
}
