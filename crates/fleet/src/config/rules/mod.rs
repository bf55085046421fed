//! What must hold in a `cluster.yaml` beyond its shape: names and addresses that are unique and
//! belong together, references that lead somewhere. Warnings are `plan`'s; what is here cannot work.

mod network;
mod power;
mod settings;

use std::collections::BTreeMap;
use std::fmt::Display;

use serde_json::Value;

use super::document::{Node, Path};
use super::problem::Problem;
use super::syntax::{self, needed};
use super::{Board, Cluster, Datastore, Role, Secret};
use crate::nearest;

/// Addresses for pods where none are named.
pub const DEFAULT_PODS: &str = "10.42.0.0/16";
/// Addresses for services where none are named.
pub const DEFAULT_SERVICES: &str = "10.43.0.0/16";
/// Says what is wrong with a flag's value.
pub type Refuses = fn(&str, &str, &Value) -> Option<String>;

/// Flags of the binary, which may be keys of `server`, `agent` and `config`. The crate does not know
/// them; without them keys are not checked.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// Of `coracle server`.
    pub server: Option<Vec<String>>,
    /// Of `coracle agent`.
    pub agent: Option<Vec<String>>,
    /// What is wrong with a value, by the command's name (`server`, `agent`) and the flag's.
    pub refuses: Option<Refuses>,
}

impl Flags {
    fn of(&self, command: &str) -> Option<&Vec<String>> {
        match command {
            "server" => self.server.as_ref(),
            _ => self.agent.as_ref(),
        }
    }
}

/// Flags that other keys of the file decide, and which.
pub const DECIDED: &[(&str, &str)] = &[
    ("cluster-cidr", "network.pods"),
    ("cluster-init", "datastore"),
    ("config", "nothing: it is the file itself"),
    ("datastore-endpoint", "datastore.external"),
    ("node-ip", "the board's `address`"),
    ("node-label", "the board's `labels`"),
    ("node-name", "the board's `name`"),
    ("node-taint", "the board's `taints`"),
    ("server", "the boards' `roles`"),
    ("service-cidr", "network.services"),
    ("token", "token"),
    ("token-file", "token"),
    ("vip", "network.vip"),
];

/// The rules, over one cluster.
pub(super) struct Rules<'a> {
    cluster: &'a Cluster,
    document: &'a Node,
    flags: &'a Flags,
    problems: Vec<Problem>,
}

impl<'a> Rules<'a> {
    pub fn new(cluster: &'a Cluster, document: &'a Node, flags: &'a Flags) -> Self {
        Rules { cluster, document, flags, problems: Vec::new() }
    }

    /// All that is wrong.
    pub fn all(mut self) -> Vec<Problem> {
        let root = Path::default();
        self.name(&self.cluster.name, &root.key("name"));
        self.roles();
        for (position, board) in self.cluster.boards.iter().enumerate() {
            self.board(board, &root.key("boards").item(position));
        }
        self.unique("name", |board| Some(board.name.clone()));
        self.unique("address", |board| Some(board.address.to_string()));
        self.unique("mac", |board| board.mac.as_deref().and_then(syntax::mac));
        self.settings(&self.cluster.defaults, &root.key("defaults"));
        self.ssh(&self.cluster.ssh, &root.key("ssh"));
        self.subnet();
        self.taken();
        self.router();
        self.pod_networks();
        self.datastore();
        self.power();
        self.hardware();
        self.options(&self.cluster.server, "server", &root.key("server"));
        self.options(&self.cluster.agent, "agent", &root.key("agent"));
        self.problems
    }

    /// Files with secrets that others can read.
    pub fn secrets(mut self) -> Vec<Problem> {
        let root = Path::default();
        let mut named: Vec<(Path, &Secret)> = Vec::new();
        named.extend(self.cluster.token.iter().map(|secret| (root.key("token"), secret)));
        if let Datastore::External(secret) = &self.cluster.datastore {
            named.push((root.key("datastore").key("external"), secret));
        }
        let ssh = self.cluster.ssh.sudo_password.iter();
        named.extend(ssh.map(|secret| (root.key("ssh").key("sudoPassword"), secret)));
        let wifi = self.cluster.defaults.wifi.iter();
        named.extend(
            wifi.map(|w| (root.key("defaults").key("wifi").key("passphrase"), &w.passphrase)),
        );
        for (position, board) in self.cluster.boards.iter().enumerate() {
            let at = root.key("boards").item(position);
            let ssh = board.ssh.sudo_password.iter();
            named.extend(ssh.map(|secret| (at.key("ssh").key("sudoPassword"), secret)));
            let wifi = board.settings.wifi.iter();
            named.extend(wifi.map(|w| (at.key("wifi").key("passphrase"), &w.passphrase)));
        }
        for (at, secret) in named {
            let open = match secret {
                Secret::File(path) => {
                    Secret::File(self.cluster.path(path)).is_open(&self.cluster.folder)
                }
                _ => None,
            };
            if let Some(error) = open {
                self.note(&at, error.to_string());
            }
        }
        self.problems
    }

    fn note(&mut self, at: &Path, what: impl Into<String>) {
        self.problems.push(Problem::new(self.document.find(at), what));
    }

    fn hinted(&mut self, at: &Path, what: impl Into<String>, hint: impl Into<String>) {
        self.problems.push(Problem::new(self.document.find(at), what).hint(hint));
    }

    /// Notes a text that is not written as it must be.
    fn must(&mut self, fits: Result<(), &'static str>, text: &str, at: &Path) {
        if let Err(wanted) = fits {
            self.note(at, needed(format_args!("`{at}`"), text, wanted));
        }
    }

    fn when(&mut self, wrong: bool, text: &str, wanted: &'static str, at: &Path) {
        self.must(if wrong { Err(wanted) } else { Ok(()) }, text, at);
    }

    fn name(&mut self, name: &str, at: &Path) {
        let Err(wanted) = syntax::dns_label(name) else { return };
        let what = needed(format_args!("`{at}`"), name, wanted);
        match syntax::as_dns_label(name) {
            Some(meant) => self.hinted(at, what, format!("did you mean `{meant}`?")),
            None => self.note(at, what),
        }
    }

    fn roles(&mut self) {
        let at = Path::default().key("boards");
        match self.cluster.boards.is_empty() {
            true => self.note(&at, "there are no boards"),
            false if self.cluster.servers().next().is_none() => {
                let hint = "write `roles: [server]` at one board, or at three";
                self.hinted(&at, "no board is a server", hint);
            }
            false => {}
        }
        let routers = self.cluster.boards.iter().enumerate().filter(|(_, board)| board.is_router());
        let second = routers.map(|(position, _)| at.item(position).key("roles")).nth(1);
        if let Some(second) = second {
            self.note(&second, "a second board is a router, and there can be one");
        }
    }

    fn board(&mut self, board: &Board, at: &Path) {
        self.name(&board.name, &at.key("name"));
        if board.name == "localhost" {
            self.note(&at.key("name"), "`localhost` is every board to itself");
        }
        if !network::is_hosts(board.address) {
            let what = format!("{} is no address that others reach a board at", board.address);
            self.hinted(&at.key("address"), what, "`ip address` on the board shows its own");
        }
        if board.is_server() && board.roles.contains(&Role::Agent) {
            let at = at.key("roles");
            self.hinted(&at, "a server runs pods as agents do", "leave out `agent`");
        }
        if let Some(mac) = &board.mac
            && syntax::mac(mac).is_none()
        {
            let wanted = "a board's own hardware address, such as dc:a6:32:01:02:03,";
            self.note(&at.key("mac"), needed(format_args!("`{}`", at.key("mac")), mac, wanted));
        }
        for (key, value) in &board.labels {
            let at = at.key("labels").key(key);
            self.must(syntax::label_key(key), key, &at);
            self.must(syntax::label_value(value), value, &at);
        }
        for (position, taint) in board.taints.iter().enumerate() {
            self.must(syntax::taint(taint), taint, &at.key("taints").item(position));
        }
        let command = if board.is_server() { "server" } else { "agent" };
        self.options(&board.config, command, &at.key("config"));
        self.settings(&board.settings, at);
        self.ssh(&board.ssh, &at.key("ssh"));
    }

    /// What no two boards may share.
    fn unique(&mut self, key: &str, of: impl Fn(&Board) -> Option<String>) {
        let mut first: BTreeMap<String, usize> = BTreeMap::new();
        for (position, board) in self.cluster.boards.iter().enumerate() {
            let Some(value) = of(board) else { continue };
            match first.get(&value) {
                Some(other) => {
                    let at = |position| Path::default().key("boards").item(position).key(key);
                    let line = self.document.find(&at(*other)).line;
                    let what =
                        format!("two boards have the {key} {value}; the first is on line {line}");
                    self.note(&at(position), what);
                }
                None => drop(first.insert(value, position)),
            }
        }
    }

    fn datastore(&mut self) {
        let at = Path::default().key("datastore");
        let servers = self.cluster.servers().count();
        if self.cluster.datastore == Datastore::Sqlite && servers > 1 {
            let what = format!("SQLite is on one server, and {servers} boards are servers");
            self.hinted(
                &at,
                what,
                "leave out `datastore`: several servers keep the cluster in etcd",
            );
        }
    }

    fn options(&mut self, keys: &BTreeMap<String, Value>, command: &str, at: &Path) {
        for (key, value) in keys {
            let at = at.key(key);
            if let Some((_, by)) = DECIDED.iter().find(|(decided, _)| decided == key) {
                self.note(&at, format!("`{key}` is decided by {}", decider(by)));
            } else if let Some(flags) = self.flags.of(command)
                && !flags.contains(key)
            {
                let known = flags.iter().map(String::as_str);
                let hint = suggestion(key, known, format!("`coracle {command} --help` lists all"));
                self.hinted(&at, format!("`{key}` is no flag of Coracle"), hint);
            }
            let is_plain = |value: &Value| !value.is_object() && !value.is_array();
            let fits = match value {
                Value::Array(items) => items.iter().all(is_plain),
                other => is_plain(other),
            };
            if !fits {
                let what = "a text, a number, true or false, or a list of these is needed";
                self.note(&at, format!("`{at}`: {what}"));
            } else if let Some(what) = self.flags.refuses.and_then(|says| says(command, key, value))
            {
                self.note(&at, format!("`{at}`: {what}"));
            }
        }
    }
}

fn decider(by: &str) -> String {
    if by.contains([' ', ':']) { by.to_owned() } else { format!("`{by}`") }
}

fn suggestion<'a>(
    word: &str,
    known: impl IntoIterator<Item = &'a str>,
    otherwise: impl Display,
) -> String {
    match nearest::meant(word, known) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => otherwise.to_string(),
    }
}
