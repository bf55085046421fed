//! JUnit files, as the suite writes them.

use std::path::Path;

use roxmltree::{Document, Node};

use crate::run::Outcome;

/// What a test came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It ran, and all was as it expects.
    Passed,
    /// It ran and failed; the text that it failed with.
    Failed(String),
    /// It decided itself that it does not apply to this cluster, and said why.
    Inapplicable(String),
}

/// A test and what it came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// Its full name, such as `[sig-cli] Kubectl client ...`.
    pub name: String,
    /// What it came to.
    pub verdict: Verdict,
}

/// The tests of a file that were run, in its order. Tests that the run left out are not among them.
pub fn read(path: &Path) -> Outcome<Vec<Case>> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    parse(&text).map_err(|e| format!("{}: {e}", path.display()))
}

fn parse(text: &str) -> Outcome<Vec<Case>> {
    let document = Document::parse(text).map_err(|e| e.to_string())?;
    let cases = document.descendants().filter(|node| node.has_tag_name("testcase"));
    Ok(cases.filter_map(case).collect())
}

fn case(node: Node) -> Option<Case> {
    let name = node.attribute("name")?.to_owned();
    let said = |tag: &str| node.children().find(|child| child.has_tag_name(tag)).map(message);
    let verdict = match (said("failure"), said("skipped")) {
        (Some(reason), _) => Verdict::Failed(reason),
        // What focus and skip left out has taken no time, and nothing is said of it. What a test says
        // when it ends itself is not always in the file.
        (None, Some(reason)) if reason.is_empty() && !took_time(node) => return None,
        (None, Some(reason)) => Verdict::Inapplicable(reason),
        (None, None) => Verdict::Passed,
    };
    Some(Case { name, verdict })
}

fn took_time(case: Node) -> bool {
    let seconds = case.attribute("time").and_then(|time| time.parse::<f64>().ok());
    seconds.is_some_and(|seconds| seconds > 0.0)
}

fn message(node: Node) -> String {
    let text = node.text().or(node.attribute("message")).unwrap_or_default();
    text.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_left_out_is_no_case() {
        let text = r#"<?xml version="1.0" encoding="UTF-8"?>
            <testsuite name="Kubernetes e2e suite" tests="4" failures="1" errors="0" time="1.0">
              <testcase name="[sig-cli] a [Conformance]" classname="x" time="0.5"></testcase>
              <testcase name="[sig-cli] b" classname="x" time="0.5">
                <failure type="Failure">/src/x.go:1&#xA;Expected&#xA;  &lt;int&gt;: 1</failure>
                <system-out>much</system-out>
              </testcase>
              <testcase name="[sig-cli] c" classname="x" time="0"><skipped></skipped></testcase>
              <testcase name="[sig-cli] c2" classname="x" time="0.3"><skipped></skipped></testcase>
              <testcase name="[sig-cli] d" classname="x" time="0">
                <skipped>Only for gce</skipped></testcase>
            </testsuite>"#;
        let verdicts: Vec<Verdict> = parse(text).unwrap().into_iter().map(|c| c.verdict).collect();
        let failed = Verdict::Failed("/src/x.go:1\nExpected\n  <int>: 1".into());
        let inapplicable = Verdict::Inapplicable("Only for gce".into());
        let ended = Verdict::Inapplicable(String::new());
        assert_eq!(verdicts, [Verdict::Passed, failed, ended, inapplicable]);
    }
}
