//! Which crate may use which: the arrows of ARCHITECTURE.md, checked against the manifests.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::run::{Outcome, command, read};

/// A crate, the crates of ours that it may use, and the outside crates that it must not.
/// Everything may use `base`; dev-dependencies may also be on `testkit`.
const ALLOWED: &[(&str, &[&str], &[&str])] = &[
    ("base", &[], &["tokio", "hyper", "kube"]),
    ("api", &["expression"], &["tokio", "hyper", "http", "kube"]),
    ("trust", &[], &["tokio", "hyper", "kube"]),
    ("store", &["trust"], &["hyper", "kube", "k8s-openapi"]),
    ("expression", &[], &["tokio", "hyper", "kube"]),
    ("apiserver", &["api", "expression", "store", "trust"], &["kube"]),
    ("client", &["api"], &[]),
    ("controllers", &["client", "api"], &[]),
    ("scheduler", &["client", "api"], &[]),
    ("runtime", &[], &["kube", "k8s-openapi"]),
    ("net", &[], &["kube", "k8s-openapi"]),
    ("sandbox", &[], &["kube", "k8s-openapi", "hyper"]),
    ("fleet", &["api"], &["kube", "k8s-openapi", "hyper"]),
    ("agent", &["api", "client", "runtime", "net", "trust"], &[]),
    (
        "testkit",
        &["api", "apiserver", "client", "controllers", "runtime", "scheduler", "store"],
        &[],
    ),
    (
        "coracle",
        &[
            "agent",
            "api",
            "apiserver",
            "client",
            "controllers",
            "fleet",
            "net",
            "runtime",
            "sandbox",
            "scheduler",
            "store",
            "trust",
        ],
        &[],
    ),
    ("xtask", &["api"], &[]),
    ("bench", &[], &["kube"]),
];

/// Fails where a crate uses what it must not know of, and names every such use.
pub fn check() -> Outcome {
    let metadata =
        read(command("cargo", &["metadata", "--no-deps", "--format-version=1", "--locked"]))?;
    let metadata: Value = serde_json::from_slice(&metadata).map_err(|e| e.to_string())?;
    let packages = metadata["packages"].as_array().cloned().unwrap_or_default();
    let wrong = violations(&packages);
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(format!(
            "crates use what they must not know of:\n  {}\nsee \"Crates\" in ARCHITECTURE.md",
            wrong.join("\n  ")
        )),
    }
}

fn violations(packages: &[Value]) -> Vec<String> {
    let rules: BTreeMap<&str, (&[&str], &[&str])> =
        ALLOWED.iter().map(|(name, may, never)| (*name, (*may, *never))).collect();
    let mut wrong = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let Some((may, never)) = rules.get(name) else {
            wrong.push(format!("{name}: has no line in xtask/src/directions.rs"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let used = dependency["name"].as_str().unwrap_or_default();
            let for_tests = dependency["kind"] == "dev";
            let ours = rules.contains_key(used);
            let allowed = used == "base" || may.contains(&used) || for_tests;
            if (ours && !allowed) || never.contains(&used) {
                wrong.push(format!("{name} -> {used}"));
            }
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_wrong_arrow_is_named() {
        let package = |name: &str, uses: &[&str]| {
            let uses: Vec<Value> =
                uses.iter().map(|u| json!({ "name": u, "kind": null })).collect();
            json!({ "name": name, "dependencies": uses })
        };
        let packages = [
            package("agent", &["client", "store", "tokio"]),
            package("api", &["base", "tokio"]),
            package("net", &["base", "nlink"]),
        ];
        assert_eq!(violations(&packages), ["agent -> store", "api -> tokio"]);
    }
}
