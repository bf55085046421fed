//! `conformance/RESULTS.md`: the newest result of each test, by area.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

use super::ContentType;
use super::cache::{Cache, entries, write as write_file};
use super::junit::{Case, Verdict};
use super::suite::{build, cases};
use crate::run::{Outcome, root};

/// What marks a test of the conformance suite, and how many there are.
const MARK: &str = "[Conformance]";
const MARKED: usize = 311;
/// How much of a commit's hash is shown.
const COMMIT_CHARS: usize = 12;
/// How much of a failure's reason is shown.
const MAX_REASON_CHARS: usize = 400;

/// Tests that contradict what the present Kubernetes does: a part of a test's name, ` | `, and
/// upstream's change.
pub struct Known {
    changes: Vec<(String, String)>,
}

impl Known {
    /// The table of the repository.
    pub fn read() -> Outcome<Self> {
        Self::of("conformance/changed.txt")
    }

    /// A file of such lines, by its path in the repository.
    pub fn of(file: &str) -> Outcome<Self> {
        let path = root().join(file);
        let text =
            std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        Self::parse(&text)
    }

    /// Reads such lines.
    pub fn parse(text: &str) -> Outcome<Self> {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let change = |line: &str| {
            let parts = line.split_once(" | ").ok_or_else(|| format!("no ` | ` in: {line}"))?;
            Ok((parts.0.trim().to_owned(), parts.1.trim().to_owned()))
        };
        Ok(Self { changes: lines.map(change).collect::<Outcome<_>>()? })
    }

    /// Upstream's change that this test contradicts.
    pub fn change(&self, test: &str) -> Option<&str> {
        let found = self.changes.iter().find(|(part, _)| test.contains(part.as_str()));
        found.map(|(_, change)| change.as_str())
    }
}

/// Writes the report of everything that the cache holds results of.
pub fn write(cache: &Cache) -> Outcome {
    let known = Known::read()?;
    let mut text = String::from(HEAD);
    for content_type in [ContentType::Protobuf, ContentType::Json] {
        let cases = newest(cache, content_type)?;
        if !cases.is_empty() {
            text += &section(content_type, &cases, &known);
        }
    }
    let path: PathBuf = root().join("conformance/RESULTS.md");
    write_file(&path, text)
}

const HEAD: &str = "# Upstream's own tests against Coracle

`cargo xtask conformance report` writes this file from the newest result of each test; CONTRIBUTING.md
says how they are run. The tests are Kubernetes 1.20's, the newest whose complete source a Debian stable
package carries; \"changed\" are tests that contradict what Kubernetes 1.36 does, each with upstream's
change (`conformance/changed.txt`). No test is tried again within a run; of several runs the newest counts,
and each part says of what commits its results are.
";

/// What a test came to, and the commit that it was run on, where that is known.
type Found = (Verdict, Option<String>);

/// The newest result of each test; folders are named by their time.
fn newest(cache: &Cache, content_type: ContentType) -> Outcome<BTreeMap<String, Found>> {
    let folder = cache.path("results").join(content_type.name());
    let mut newest = BTreeMap::new();
    if folder.is_dir() {
        for run in entries(&folder)? {
            let build = build(&run);
            cases(&run)?.into_iter().for_each(|case| note(&mut newest, case, build.clone()));
        }
    }
    // What the suite itself does before and after is no test.
    newest.retain(|name: &String, _| name.starts_with('['));
    Ok(newest)
}

/// Notes a later result. That a test passed says more than that it did not apply to a smaller cluster.
fn note(newest: &mut BTreeMap<String, Found>, case: Case, build: Option<String>) {
    let says_less = matches!(case.verdict, Verdict::Inapplicable(_));
    if !(says_less && matches!(newest.get(&case.name), Some((Verdict::Passed, _)))) {
        newest.insert(case.name, (case.verdict, build));
    }
}

/// Counts of an area, of marked tests and of others.
#[derive(Default)]
struct Area {
    passed: [usize; 2],
    failed: [usize; 2],
    changed: [usize; 2],
}

fn section(content_type: ContentType, cases: &BTreeMap<String, Found>, known: &Known) -> String {
    let mut areas: BTreeMap<&str, Area> = BTreeMap::new();
    let (mut failures, mut changes) = (String::new(), String::new());
    for (name, (verdict, _)) in cases {
        let area = areas.entry(area(name)).or_default();
        let column = usize::from(!name.contains(MARK));
        match (verdict, known.change(name)) {
            (Verdict::Passed, _) => area.passed[column] += 1,
            (Verdict::Failed(_), Some(change)) => {
                area.changed[column] += 1;
                let _ = writeln!(changes, "- {name}: {change}");
            }
            (Verdict::Failed(reason), None) => {
                area.failed[column] += 1;
                let _ = writeln!(failures, "- {name}\n  `{}`", shortened(reason));
            }
            (Verdict::Inapplicable(_), _) => {}
        }
    }
    let mut text = format!("\n## With {}\n{TABLE}", content_type.name());
    let mut all = Area::default();
    for (name, area) in &areas {
        let _ = writeln!(text, "{}", row(name, area));
        for column in 0..2 {
            all.passed[column] += area.passed[column];
            all.failed[column] += area.failed[column];
            all.changed[column] += area.changed[column];
        }
    }
    let _ = writeln!(text, "{}", row("all", &all));
    let run = all.passed[0] + all.failed[0] + all.changed[0];
    let _ = writeln!(text, "\n{run} of the {MARKED} marked {MARK} were run.");
    for (marked, what) in [(true, MARK), (false, "The others")] {
        let results = cases.iter().filter(|(name, (verdict, _))| {
            name.contains(MARK) == marked && !matches!(verdict, Verdict::Inapplicable(_))
        });
        let _ = writeln!(text, "{what}: {}.", builds(results.map(|(_, (_, build))| build)));
    }
    for (title, list) in [("Failed", failures), ("Changed upstream", changes)] {
        if !list.is_empty() {
            let _ = write!(text, "\n### {title}\n{list}");
        }
    }
    text
}

/// Of what commits results are, most of them first.
fn builds<'a>(builds: impl Iterator<Item = &'a Option<String>>) -> String {
    let mut counts: BTreeMap<_, usize> = BTreeMap::new();
    for build in builds {
        *counts.entry(build).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let named = counts.into_iter().map(|(build, count)| match build {
        Some(commit) => format!("{count} on {}", &commit[..commit.len().min(COMMIT_CHARS)]),
        None => format!("{count} on commits that were not noted"),
    });
    named.collect::<Vec<_>>().join(", ")
}

const TABLE: &str = "
| area | [Conformance] passed | failed | changed | others passed | failed | changed |
|---|---|---|---|---|---|---|
";

fn row(name: &str, area: &Area) -> String {
    let column =
        |n: usize| format!("{} | {} | {}", area.passed[n], area.failed[n], area.changed[n]);
    format!("| {name} | {} | {} |", column(0), column(1))
}

/// The special interest group that a test's name begins with.
fn area(name: &str) -> &str {
    name.strip_prefix('[').and_then(|rest| rest.split(']').next()).unwrap_or("none")
}

/// A reason on one line, without the places in upstream's source that it names.
fn shortened(reason: &str) -> String {
    let lines = reason.lines().map(str::trim);
    let telling = lines.filter(|line| !line.is_empty() && !line.starts_with('/'));
    let line = telling.collect::<Vec<_>>().join(" ").replace('`', "'");
    match line.char_indices().nth(MAX_REASON_CHARS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_that_did_not_apply_takes_no_success_away() {
        let mut newest = BTreeMap::new();
        let inapplicable = Verdict::Inapplicable("Requires at least 2 nodes".into());
        for (verdict, left) in [
            (Verdict::Failed("no".into()), Verdict::Failed("no".into())),
            (inapplicable.clone(), inapplicable.clone()),
            (Verdict::Passed, Verdict::Passed),
            (inapplicable, Verdict::Passed),
        ] {
            note(&mut newest, Case { name: "[sig-a] x".into(), verdict }, None);
            assert_eq!(newest["[sig-a] x"].0, left);
        }
    }

    #[test]
    fn a_failure_that_is_a_change_is_counted_apart() {
        let known = Known::parse("# why\nold API | removed in 1.22\n").unwrap();
        let failed = |why: &str| Verdict::Failed(format!("/x.go:1\n{why}"));
        let cases: BTreeMap<String, Found> = [
            ("[sig-a] fine [Conformance]", Verdict::Passed, Some("0123456789abcdef")),
            ("[sig-a] old API", failed("no"), None),
            ("[sig-b] broken [Conformance]", failed("Expected\n  1"), Some("0123456789abcdef")),
        ]
        .map(|(name, verdict, build)| (name.to_owned(), (verdict, build.map(str::to_owned))))
        .into();
        let text = section(ContentType::Json, &cases, &known);
        assert!(text.contains("| sig-a | 1 | 0 | 0 | 0 | 0 | 1 |"), "{text}");
        assert!(text.contains("| all | 1 | 1 | 0 | 0 | 0 | 1 |"), "{text}");
        assert!(text.contains("2 of the 311"), "{text}");
        assert!(text.contains("[Conformance]: 2 on 0123456789ab.\n"), "{text}");
        assert!(text.contains("The others: 1 on commits that were not noted.\n"), "{text}");
        assert!(text.contains("[sig-b] broken [Conformance]\n  `Expected 1`"), "{text}");
        assert!(text.contains("- [sig-a] old API: removed in 1.22"), "{text}");
    }
}
