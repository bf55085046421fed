use std::sync::Arc;

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::Node;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};
use serde_json::{Value, json};

use super::approve::{Verdict, judge};
use super::sign::signed;
use super::*;
use crate::fixture::check;
use crate::signer::{Authority, Signer, SigningRequest};

const CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const SERVING: &str = "kubernetes.io/kubelet-serving";

/// A request's PEM for this name, these groups and these names.
fn pem(name: &str, groups: &[&str], sans: &[&str]) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    for group in groups {
        params.distinguished_name.push(DnType::OrganizationName, *group);
    }
    params.subject_alt_names = sans
        .iter()
        .map(|san| match san.parse() {
            Ok(ip) => SanType::IpAddress(ip),
            Err(_) if san.contains('@') => SanType::Rfc822Name((*san).try_into().unwrap()),
            Err(_) => SanType::DnsName((*san).try_into().unwrap()),
        })
        .collect();
    let key = KeyPair::generate().unwrap();
    params.serialize_request(&key).unwrap().pem().unwrap()
}

fn csr(
    signer: &str,
    user: &str,
    pem: &str,
    usages: &[&str],
    conditions: Value,
) -> CertificateSigningRequest {
    use k8s_openapi::ByteString;
    let mut csr: CertificateSigningRequest = serde_json::from_value(json!({
        "metadata": {"name": "a", "creationTimestamp": "2026-01-01T11:30:00Z"},
        "spec": {"request": "", "signerName": signer, "usages": usages, "username": user,
                 "groups": ["system:nodes"]},
        "status": {"conditions": conditions},
    }))
    .unwrap();
    csr.spec.request = ByteString(pem.as_bytes().to_vec());
    csr
}

fn node() -> Arc<Node> {
    let node = json!({"metadata": {"name": "pi"}, "status": {"addresses": [
        {"type": "InternalIP", "address": "10.0.0.1"}, {"type": "ExternalIP", "address": "10.0.0.9"}, {"type": "Hostname", "address": "pi.lan"}]}});
    Arc::new(serde_json::from_value(node).unwrap())
}

fn judged(csr: &CertificateSigningRequest) -> Verdict {
    let is_server = |own: &str, what: &str| own == "pi" && what == "10.0.0.9";
    judge(csr, |name| (name == "pi").then(node), is_server)
}

#[test]
fn node_certificates_are_recognized() {
    let usages = ["client auth", "digital signature"];
    let good = pem("system:node:pi", &["system:nodes"], &[]);
    let of = |user: &str, pem: &str, usages: &[&str]| match judged(&csr(
        CLIENT,
        user,
        pem,
        usages,
        json!([]),
    )) {
        Verdict::IfAllowed(subresource, _) => subresource.to_owned(),
        other => format!("{other:?}"),
    };
    assert_eq!(of("system:node:pi", &good, &usages), "selfnodeclient");
    let new = pem("system:node:new", &["system:nodes"], &[]);
    assert_eq!(of("system:bootstrap:abcdef", &new, &usages), "nodeclient");
    let taken = "Wait(\"there is a node pi already\")";
    assert_eq!(of("system:bootstrap:abcdef", &good, &usages), taken);
    let mut sponsored = csr(CLIENT, "system:admin", &good, &usages, json!([]));
    sponsored.spec.groups = Some(vec!["system:masters".into()]);
    assert!(matches!(judged(&sponsored), Verdict::IfAllowed("nodeclient", _)));
    let more = ["client auth", "digital signature", "key encipherment"];
    assert_eq!(of("system:node:pi", &good, &more), "selfnodeclient");
    for (pem, usages) in [
        (pem("system:node:pi", &["system:nodes", "system:masters"], &[]), &usages[..]),
        (pem("system:node:pi", &["system:masters"], &[]), &usages),
        (pem("root", &["system:nodes"], &[]), &usages),
        (pem("system:node:", &["system:nodes"], &[]), &usages),
        (pem("system:node:pi", &["system:nodes"], &["10.0.0.1"]), &usages),
        (good.clone(), &["client auth", "digital signature", "server auth"]),
        (good.clone(), &["client auth"]),
        ("nonsense".to_owned(), &usages),
    ] {
        assert_eq!(of("system:node:pi", &pem, usages), "Pass");
    }
    let decided = json!([{"type": "Denied", "status": "True"}]);
    assert_eq!(judged(&csr(CLIENT, "system:node:pi", &good, &usages, decided)), Verdict::Pass);
}

#[test]
fn a_serving_certificate_is_for_own_names_only() {
    let usages = ["digital signature", "server auth"];
    let of = |name: &str, user: &str, sans: &[&str]| {
        let pem = pem(&format!("system:node:{name}"), &["system:nodes"], sans);
        match judged(&csr(SERVING, &format!("system:node:{user}"), &pem, &usages, json!([]))) {
            Verdict::Approve(_) => "approved".to_owned(),
            Verdict::Wait(lacking) => lacking,
            other => format!("{other:?}"),
        }
    };
    for (name, user, sans, expected) in [
        ("pi", "pi", &["pi", "10.0.0.1", "pi.lan"][..], "approved"),
        ("pi", "pi", &["10.0.0.2"], "node pi has no address 10.0.0.2"),
        ("pi", "pi", &["pi", "other"], "node pi has no address other"),
        ("pi", "pi", &["10.0.0.1", "10.0.0.9"], "10.0.0.9 is a server's"),
        ("new", "new", &["new"], "there is no node new"),
        ("pi", "evil", &["pi"], "Pass"),
        ("pi", "pi", &["a@b.example"], "Pass"),
        ("pi", "pi", &[], "Pass"),
    ] {
        assert_eq!(of(name, user, sans), expected, "{name} {user} {sans:?}");
    }
}

/// Signs nothing, and says what it was asked.
#[derive(Debug)]
struct Scribe;

impl Signer for Scribe {
    fn sign(&self, request: &SigningRequest<'_>) -> Result<String, String> {
        assert!(request.pem.contains("CERTIFICATE REQUEST"));
        match request.authority {
            Authority::Serving => Err("no such authority".into()),
            Authority::Client => {
                Ok(format!("{} {}", request.usages.join("+"), request.life.as_secs()))
            }
        }
    }
}

#[test]
fn what_is_approved_and_in_order_is_signed() {
    let now: Timestamp = crate::fixture::NOW.parse().unwrap();
    let approved = json!([{"type": "Approved", "status": "True"}]);
    let of =
        |signer: &str, pem: &str, usages: &[&str], conditions: &Value, seconds: Option<i32>| {
            let mut csr = csr(signer, "u", pem, usages, conditions.clone());
            csr.spec.expiration_seconds = seconds;
            match signed(&csr, &Scribe, now) {
                None => "nothing".to_owned(),
                Some(Err(why)) => why,
                Some(Ok(status)) => match status.certificate {
                    Some(pem) => String::from_utf8(pem.0).unwrap(),
                    None => status.conditions.unwrap_or_default().pop().unwrap().message.unwrap(),
                },
            }
        };
    let good = pem("system:node:pi", &["system:nodes"], &[]);
    let usages = ["client auth", "digital signature"];
    for (signer, pem, usages, conditions, seconds, expected) in [
        (CLIENT, &good, &usages[..], &approved, Some(600), "client auth+digital signature 600"),
        (
            CLIENT,
            &good,
            &usages,
            &approved,
            Some(i32::MAX),
            "client auth+digital signature 31536000",
        ),
        (CLIENT, &good, &usages, &approved, None, "client auth+digital signature 31536000"),
        (CLIENT, &good, &usages, &json!([]), None, "nothing"),
        ("example.com/mine", &good, &usages, &approved, None, "nothing"),
        (
            CLIENT,
            &good,
            &["server auth"],
            &approved,
            None,
            "usages did not match [\"client auth\", \"digital signature\"]",
        ),
        (
            CLIENT,
            &pem("x", &["system:nodes"], &[]),
            &usages,
            &approved,
            None,
            "subject common name does not begin with system:node: ",
        ),
        (
            SERVING,
            &good,
            &["digital signature", "server auth"],
            &approved,
            None,
            "DNS or IP subjectAltName is required",
        ),
        (
            SERVING,
            &pem("system:node:pi", &["system:nodes"], &["pi"]),
            &["digital signature", "server auth"],
            &approved,
            None,
            "no such authority",
        ),
        (
            "kubernetes.io/kube-apiserver-client",
            &pem("ann", &["devs"], &[]),
            &["client auth"],
            &approved,
            None,
            "client auth 31536000",
        ),
        (
            "kubernetes.io/kube-apiserver-client",
            &pem("ann", &["devs"], &[]),
            &["client auth", "server auth"],
            &approved,
            None,
            "usage \"server auth\" is not allowed",
        ),
    ] {
        assert_eq!(of(signer, pem, usages, conditions, seconds), expected, "{signer} {usages:?}");
    }
}

#[test]
fn requests_go_when_nobody_needs_them() {
    let case = |made: &str, status: &str| {
        format!(
            "kind: CertificateSigningRequest\nmetadata: {{name: a, creationTimestamp: '{made}'}}\nspec: {{request: '', signerName: a.b/c}}\nstatus: {status}"
        )
    };
    let (old, new) = ("2025-12-31T11:59:00Z", "2026-01-01T11:30:00Z");
    let at = |kind: &str, time: &str, rest: &str| {
        format!(
            "{{conditions: [{{type: {kind}, status: 'True', lastUpdateTime: '{time}'}}]{rest}}}"
        )
    };
    for (yaml, gone) in [
        (case(new, "{}"), false),
        (case(old, "{}"), true),
        (case(old, &at("Approved", new, "")), false),
        (case(old, &at("Approved", "2026-01-01T10:59:00Z", ", certificate: AA==")), true),
        (case(old, &at("Approved", "2026-01-01T10:59:00Z", "")), false),
        (case(new, &at("Denied", "2026-01-01T10:59:00Z", "")), true),
        (case(new, &at("Failed", "2026-01-01T11:30:00Z", "")), false),
    ] {
        let expected = if gone { "delete CertificateSigningRequest a" } else { "" };
        check(&CLEANER, "a", &yaml, expected);
    }
}
