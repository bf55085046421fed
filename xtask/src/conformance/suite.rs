//! Running the tests.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::Run;
use super::cache::{Cache, entries, make_folder, write};
use super::cluster::Cluster;
use super::junit::{self, Case, Verdict};
use super::packages::Apt;
use super::programs::{Tree, program_path};
use super::report::Known;
use crate::run::{Outcome, read, run as start};

/// Tests that would disturb others, which run when nothing else does.
const ALONE: &str = "[Serial]";
/// The file among a run's results that says what it was a run of.
const BUILD: &str = "build";
/// What CI runs: one expression of what to run and one of what not, a line each.
const FAST: &str = include_str!("../../../conformance/fast.txt");

/// Runs tests as `options` say and keeps their JUnit files; fails where a test failed of which
/// that is not known to be upstream's change since.
pub fn run(cache: &Cache, options: &Run) -> Outcome {
    let images = super::build(cache)?;
    let kubectl = {
        let apt = Apt::new(cache)?;
        apt.unpacked("kubectl", &["kubernetes-client"], false)?.join("usr/bin/kubectl")
    };
    let (focus, skip) = selection(options)?;
    let results = results_folder(cache, options)?;
    let suite = Suite { cache, options, kubectl, results };
    let alone = match options.parallel {
        1 => Vec::new(),
        _ => chosen(cache, &focus, skip.as_deref())?,
    };
    let cluster = Cluster::start(cache, options.nodes, &images)?;
    suite.note_build(&cluster)?;
    let mut outcome = Ok(());
    for pass in passes(&focus, skip.as_deref(), options.parallel, &alone) {
        // The tests' own verdict is in their files.
        outcome = suite.pass(&cluster, &pass);
    }
    cluster.keep_logs(&suite.results);
    drop(cluster);
    let cases = cases(&suite.results)?;
    if cases.is_empty() {
        outcome?;
        return Err(format!("no test ran; its log is in {}", suite.results.display()));
    }
    judge(&cases, &suite.results)
}

/// One call of the suite.
#[derive(Debug, PartialEq, Eq)]
struct Pass {
    name: &'static str,
    focus: String,
    skip: Option<String>,
    parallel: u8,
}

/// Several tests at a time, then those that have to be alone, by their names: an expression cannot
/// say that two others both match.
fn passes(focus: &str, skip: Option<&str>, parallel: u8, all: &[String]) -> Vec<Pass> {
    let skip = skip.map(str::to_owned);
    if parallel == 1 {
        return vec![Pass { name: "all", focus: focus.into(), skip, parallel }];
    }
    let (alone, others): (Vec<_>, Vec<_>) = all.iter().partition(|name| name.contains(ALONE));
    let mut passes = Vec::new();
    if !others.is_empty() {
        let skip = skip.map_or(literal(ALONE), |skip| format!("{}|{skip}", literal(ALONE)));
        passes.push(Pass { name: "parallel", focus: focus.into(), skip: Some(skip), parallel });
    }
    if !alone.is_empty() {
        let names: Vec<_> = alone.iter().map(|name| literal(name)).collect();
        passes.push(Pass { name: "serial", focus: names.join("|"), skip: None, parallel: 1 });
    }
    passes
}

/// An expression that matches just this.
fn literal(text: &str) -> String {
    let mut out = String::new();
    for letter in text.chars() {
        if letter.is_ascii_punctuation() {
            out.push('\\');
        }
        out.push(letter);
    }
    out
}

/// The names of the tests that would run.
fn chosen(cache: &Cache, focus: &str, skip: Option<&str>) -> Outcome<Vec<String>> {
    let folder = cache.path("dry-run").join(std::process::id().to_string());
    make_folder(&folder)?;
    let mut line = Command::new(program_path(cache, "e2e.test"));
    line.args(["-ginkgo.dryRun", "-ginkgo.noColor", "-provider=skeleton"]);
    line.arg(format!("-ginkgo.focus={focus}"));
    line.args(skip.map(|skip| format!("-ginkgo.skip={skip}")));
    line.arg("-kubeconfig=/dev/null").arg(format!("-report-dir={}", folder.display()));
    read(line)?;
    let mut cases = Vec::new();
    for file in entries(&folder)? {
        cases.extend(junit::read(&file)?);
    }
    fs::remove_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    cases.retain(|case| case.verdict == Verdict::Passed);
    Ok(cases.into_iter().map(|case| case.name).collect())
}

fn selection(options: &Run) -> Outcome<(String, Option<String>)> {
    if !options.fast {
        return Ok((options.focus.clone(), options.skip.clone()));
    }
    let lines = |start: &str| {
        let lines = FAST.lines().filter_map(|line| line.strip_prefix(start));
        lines.map(str::trim).collect::<Vec<_>>().join("|")
    };
    Ok((lines("run "), Some(lines("not ")).filter(|skip| !skip.is_empty())))
}

fn results_folder(cache: &Cache, options: &Run) -> Outcome<PathBuf> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|e| e.to_string())?;
    let name = format!("results/{}/{}", options.content_type.name(), now.as_secs());
    let folder = cache.path(&name);
    make_folder(&folder)?;
    Ok(folder)
}

struct Suite<'a> {
    cache: &'a Cache,
    options: &'a Run,
    kubectl: PathBuf,
    results: PathBuf,
}

impl Suite<'_> {
    /// Notes of what commit the server says that it is.
    fn note_build(&self, cluster: &Cluster) -> Outcome {
        let mut line = cluster.command(&self.kubectl);
        line.arg("--kubeconfig").arg(cluster.kubeconfig()).args(["get", "--raw", "/version"]);
        let version: Value = serde_json::from_slice(&read(line)?).map_err(|e| e.to_string())?;
        let commit = version["gitCommit"].as_str().unwrap_or_default();
        write(&self.results.join(BUILD), commit)
    }

    fn pass(&self, cluster: &Cluster, pass: &Pass) -> Outcome {
        let folder = self.results.join(pass.name);
        make_folder(&folder)?;
        let log = folder.join("log");
        eprintln!("==> {} tests; what they say goes to {}", pass.name, log.display());
        let mut line = self.line(cluster, pass, &folder);
        let file = File::create(&log).map_err(|e| format!("{}: {e}", log.display()))?;
        let copy = file.try_clone().map_err(|e| format!("{}: {e}", log.display()))?;
        line.stdout(file).stderr(copy);
        start(line)
    }

    fn line(&self, cluster: &Cluster, pass: &Pass, folder: &Path) -> Command {
        let mut line = cluster.command(program_path(self.cache, "ginkgo"));
        // What kubectl remembers of another run's cluster at the same address is not true of this one.
        line.env("HOME", cluster.home());
        line.arg("-noColor").arg(format!("-nodes={}", pass.parallel));
        line.arg(format!("-focus={}", pass.focus));
        if let Some(skip) = &pass.skip {
            line.arg(format!("-skip={skip}"));
        }
        line.arg(program_path(self.cache, "e2e.test")).arg("--");
        let flag = |name: &str, path: &Path| format!("-{name}={}", path.display());
        line.args([
            flag("kubeconfig", &cluster.kubeconfig()),
            flag("repo-root", &Tree::path(self.cache)),
            flag("kubectl-path", &self.kubectl),
            flag("report-dir", folder),
            format!("-kube-api-content-type={}", self.options.content_type.media_type()),
            format!("-num-nodes={}", self.options.nodes),
        ]);
        // Service accounts have had no token Secrets since 1.24.
        line.args(["-provider=skeleton", "-e2e-verify-service-account=false"]);
        line.args(["-disable-log-dump=true", "-dump-logs-on-failure=false"]);
        line
    }
}

/// The commit that the server of a run was built of; none where that is not known.
pub fn build(results: &Path) -> Option<String> {
    let commit = fs::read_to_string(results.join(BUILD)).ok()?;
    Some(commit.trim().to_owned()).filter(|commit| !commit.is_empty())
}

/// All tests of a run that ran.
pub fn cases(results: &Path) -> Outcome<Vec<Case>> {
    let mut cases = Vec::new();
    for pass in entries(results)?.iter().filter(|path| path.is_dir()) {
        for file in entries(pass)? {
            if file.extension().is_some_and(|end| end == "xml") {
                cases.extend(junit::read(&file)?);
            }
        }
    }
    Ok(cases)
}

/// Shows what failed; an error where that is not upstream's change.
fn judge(cases: &[Case], results: &Path) -> Outcome {
    let known = Known::read()?;
    let mut unexpected = 0;
    for case in cases {
        let Verdict::Failed(reason) = &case.verdict else { continue };
        match known.change(&case.name) {
            Some(change) => eprintln!("changed: {}\n    {change}", case.name),
            None => {
                unexpected += 1;
                eprintln!("FAILED: {}\n    {}", case.name, reason.replace('\n', "\n    "));
            }
        }
    }
    let passed = cases.iter().filter(|case| case.verdict == Verdict::Passed).count();
    let applied = cases.iter().filter(|case| !matches!(case.verdict, Verdict::Inapplicable(_)));
    eprintln!("{passed} of {} passed, {unexpected} failed", applied.count());
    match unexpected {
        0 => Ok(()),
        _ => Err(format!("{unexpected} tests failed; more is in {}", results.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_must_be_alone_comes_last() {
        let all = ["a [Serial] (b)".to_owned(), "c".to_owned()];
        let one = passes("Conformance", Some("slow"), 1, &[]);
        assert_eq!(one.len(), 1);
        let two = passes("Conformance", Some("slow"), 4, &all);
        assert_eq!(two[0].skip.as_deref(), Some(r"\[Serial\]|slow"));
        assert_eq!(two[1].parallel, 1);
        assert_eq!(two[1].focus, r"a \[Serial\] \(b\)");
        let quick = passes("Conformance", None, 4, &all[1..]);
        assert_eq!(quick.len(), 1, "nothing is alone");
    }
}
