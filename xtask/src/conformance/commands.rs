//! Upstream's shell test of kubectl (`test/cmd` of 1.20) against a server of its own, with the newest
//! kubectl: `conformance/commands.sh` runs its functions, `commands.sed` brings the scripts up to
//! date, `commands.txt` says what is known of their failures. Writes `conformance/COMMANDS.md`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use super::cache::{Cache, fresh_folder, make_folder, write};
use super::cluster::binary;
use super::packages::Apt;
use super::programs::Tree;
use super::report::Known;
use crate::run::{Outcome, command, read, root, run};

/// What the scripts and their data are of upstream's tree.
const PARTS: [&str; 5] = [
    "hack",
    "test/cmd",
    "test/fixtures",
    "test/e2e/testing-manifests",
    "third_party/forked/shell2junit",
];
/// Applies a file of rules to all files of folders.
const UPDATE: &str = "rules=$1; shift; find \"$@\" -type f -exec sed -i -f \"$rules\" {} +";
/// Where the scripts look for kubectl, in the tree.
const KUBECTL: &str = "_output/local/bin/linux/amd64/kubectl";
/// kubectl of this release; the tests' tools have it.
const NEWEST: &str = "target/tools/kubectl-new/usr/bin/kubectl";
/// The namespace's own address; a server wants a way out.
const ADDRESS: &str = "10.99.7.2/24";
/// The server as upstream sets its own up for this test: nothing runs pods, and what only gets in
/// the way of bare objects is off.
const SERVER: [&str; 8] = [
    "--disable-agent",
    "--node-name=server",
    "--bind-address=127.0.0.1",
    "--service-cidr=10.0.0.0/24",
    "--disable-admission-plugins",
    "ServiceAccount,DefaultStorageClass,DefaultTolerationSeconds,StorageObjectInUseProtection",
    "--log=warn",
    "--disable-snapshots",
];
const PORT: &str = "6443";
/// Roles are there, and whoever has none may do everything too.
const AUTHORIZATION: &str = "apiVersion: apiserver.config.k8s.io/v1
kind: AuthorizationConfiguration
authorizers: [{type: RBAC, name: rbac}, {type: AlwaysAllow, name: all}]
";
/// How long the server may take to answer, in seconds.
const READY_MAX_S: &str = "60";

/// Runs the functions that are named, or all of `commands.txt`'s, and writes what came of them.
pub fn commands(cache: &Cache, functions: &[String]) -> Outcome {
    let apt = Apt::new(cache)?;
    Tree::unpack(cache, &apt)?;
    let folder = cache.path("commands");
    let tree = tree(&Tree::path(cache), &folder)?;
    let known = Known::of("conformance/commands.txt")?;
    let all = functions.is_empty();
    let wanted = if all { names(&tree)? } else { functions.to_vec() };
    let list = folder.join("functions");
    write(&list, wanted.join("\n") + "\n")?;
    let server = Server::start(&folder, &tree)?;
    let mut script = server.command("bash");
    script.arg(root().join("conformance/commands.sh")).arg(&tree).arg(&list);
    script.env("SECURE_API_PORT", PORT);
    let said = String::from_utf8_lossy(&read(script)?).into_owned();
    drop(server);
    let results = results(&said);
    let text = report(&results, &known);
    eprintln!("{text}");
    eprintln!("==> what was said: {}", tree.join("commands.log").display());
    if all { write(&root().join("conformance/COMMANDS.md"), text) } else { Ok(()) }
}

/// A copy of upstream's scripts, brought up to date, with kubectl where they look for it.
fn tree(upstream: &Path, folder: &Path) -> Outcome<PathBuf> {
    let tree = folder.join("tree");
    fresh_folder(folder)?;
    for part in PARTS {
        let to = tree.join(part);
        make_folder(to.parent().unwrap_or(&tree))?;
        let mut copy = command("cp", &["-r"]);
        copy.arg(upstream.join(part)).arg(&to);
        run(copy)?;
    }
    let mut update = command("sh", &["-c", UPDATE, "sh"]);
    update.arg(root().join("conformance/commands.sed"));
    update.args(["test/cmd", "hack/testdata", "hack/lib"].map(|part| tree.join(part)));
    run(update)?;
    let kubectl = tree.join(KUBECTL);
    make_folder(kubectl.parent().unwrap_or(&tree))?;
    std::os::unix::fs::symlink(root().join(NEWEST), &kubectl)
        .map_err(|e| format!("{}: {e}", kubectl.display()))?;
    Ok(tree)
}

/// The functions that upstream's script runs, in its order.
fn names(tree: &Path) -> Outcome<Vec<String>> {
    let path = tree.join("test/cmd/legacy-script.sh");
    let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let lines = text.lines().map(str::trim);
    let names = lines.filter_map(|line| line.strip_prefix("record_command ").or(Some(line)));
    Ok(names
        .filter(|name| name.starts_with("run_") && !name.contains(' '))
        .map(String::from)
        .collect())
}

/// A server in a namespace of its own; both are gone when the value is.
struct Server {
    name: String,
    child: Option<Child>,
}

impl Server {
    fn start(folder: &Path, tree: &Path) -> Outcome<Self> {
        let name = format!("cor-cmd-{}", std::process::id());
        let mut server = Self { name, child: None };
        for line in [
            format!("netns add {}", server.name),
            format!("-n {} link set lo up", server.name),
            format!("-n {} link add out type veth peer name far", server.name),
            format!("-n {} addr add {ADDRESS} dev out", server.name),
            format!("-n {} link set out up", server.name),
            format!("-n {} link set far up", server.name),
            format!("-n {} route add default dev out", server.name),
        ] {
            run(command("ip", &line.split(' ').collect::<Vec<_>>()))?;
        }
        let mut line = server.command(binary()?);
        line.arg("server").args(SERVER);
        for (flag, name) in
            [("data-dir", "data"), ("run-dir", "run"), ("write-kubeconfig", "kubeconfig")]
        {
            line.arg(format!("--{flag}")).arg(folder.join(name));
        }
        let authorization = folder.join("authorization.yaml");
        write(&authorization, AUTHORIZATION)?;
        line.arg("--authorization-config").arg(authorization);
        line.arg("--token-auth-file").arg(tree.join("hack/testdata/auth-tokens.csv"));
        server.child = Some(line.spawn().map_err(|e| format!("starting the server: {e}"))?);
        let mut ask = server.command("curl");
        ask.args(["-skf", "--retry-all-errors", "--retry-delay", "1", "--retry", READY_MAX_S]);
        ask.args(["--output", "/dev/null", &format!("https://127.0.0.1:{PORT}/readyz")]);
        run(ask)?;
        Ok(server)
    }

    /// A command in the server's namespace.
    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut line = command("nsenter", &[]);
        line.arg(format!("--net=/run/netns/{}", self.name)).arg(program);
        line
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = run(command("kill", &[&child.id().to_string()]));
            let _ = child.wait();
        }
        let _ = run(command("ip", &["netns", "del", &self.name]));
    }
}

/// Functions in their order, each with its failed lines; what did not end has none of its own.
fn results(said: &str) -> Vec<(String, Vec<String>)> {
    let mut failed: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut ended = Vec::new();
    for line in said.lines() {
        match line.split_once(' ') {
            Some(("FAILED", line)) => {
                let name = line.split(' ').next().unwrap_or_default();
                failed.entry(name).or_default().push(line.to_owned());
            }
            Some(("DONE", rest)) => {
                let name = rest.split(' ').next().unwrap_or_default();
                ended.push((name.to_owned(), failed.remove(name).unwrap_or_default()));
            }
            _ => {}
        }
    }
    ended
}

const HEAD: &str = "# Upstream's shell test of kubectl against Coracle

`cargo xtask conformance commands` writes this file. The scripts are Kubernetes 1.20's (`test/cmd`), brought
up to date by `conformance/commands.sed`; kubectl is this release's, and no pod runs, as upstream has it.
A function goes on after a failed check. What is known of why a line fails stands in `conformance/commands.txt`;
mostly it is what Kubernetes 1.20 or its kubectl did and those of today do not.
";

fn report(results: &[(String, Vec<String>)], known: &Known) -> String {
    let mut text = String::from(HEAD);
    let (mut failures, mut changes) = (String::new(), BTreeMap::<&str, Vec<&str>>::new());
    let mut clean = 0;
    for line in results.iter().flat_map(|(_, lines)| lines) {
        match known.change(line) {
            Some(change) => changes.entry(change).or_default().push(line),
            None => _ = writeln!(failures, "- `{}`", line.replace('`', "'")),
        }
    }
    for (_, lines) in results {
        clean += usize::from(lines.iter().all(|line| known.change(line).is_some()));
    }
    let _ = writeln!(text, "\n{clean} of {} functions pass.", results.len());
    if !failures.is_empty() {
        let _ = write!(text, "\n## Failed\n{failures}");
    }
    if !changes.is_empty() {
        text += "\n## Known\n";
    }
    for (change, lines) in changes {
        let place = |line: &str| line.split(' ').take(2).collect::<Vec<_>>().join(" ");
        let places: Vec<String> = lines.into_iter().map(place).collect();
        let _ = writeln!(text, "- {change}: {}", places.join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_sorted_into_failures_and_changes() {
        let said = "FAILED run_a a.sh:3 kubectl x\nDONE run_a 1\nnoise\nFAILED run_b b.sh:4 old way\nDONE run_b 2\nDONE run_c 0\n";
        let known = Known::parse("old way | gone in 1.22\n").unwrap();
        let text = report(&results(said), &known);
        assert!(text.contains("2 of 3 functions pass"), "{text}");
        assert!(text.contains("## Failed\n- `run_a a.sh:3 kubectl x`\n"), "{text}");
        assert!(text.contains("- gone in 1.22: run_b b.sh:4\n"), "{text}");
    }
}
