//! What must hold in a `cluster.yaml` beyond its shape: names and addresses that are unique and
//! belong together, references that lead somewhere. Warnings are `plan`'s; what is here cannot work.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use super::document::{Node, Path};
use super::problem::Problem;
use super::syntax::{self, needed};
use super::{
    Addressing, Board, CARD, Cluster, DataDisk, Datastore, Role, Secret, Settings, Storage, Supply,
    Wifi,
};
use crate::{hardware, nearest};

/// Addresses for pods where none are named.
pub const DEFAULT_PODS: &str = "10.42.0.0/16";
/// Addresses for services where none are named.
pub const DEFAULT_SERVICES: &str = "10.43.0.0/16";
/// Longest label of an ext4 file system.
const MAX_LABEL_BYTES: usize = 16;

/// Flags of the binary, which may be keys of `server`, `agent` and `config`. The crate does not know
/// them; without them keys are not checked.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// Of `coracle server`.
    pub server: Option<Vec<String>>,
    /// Of `coracle agent`.
    pub agent: Option<Vec<String>>,
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
        self.subnet();
        self.router();
        self.pod_networks();
        self.datastore();
        self.power();
        self.hardware();
        self.options(&self.cluster.server, self.flags.server.as_ref(), &root.key("server"));
        self.options(&self.cluster.agent, self.flags.agent.as_ref(), &root.key("agent"));
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
        self.must(syntax::dns_label(name), name, at);
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
        let flags = if board.is_server() { &self.flags.server } else { &self.flags.agent };
        self.options(&board.config, flags.as_ref(), &at.key("config"));
        self.settings(&board.settings, at);
        self.when(board.ssh.port == Some(0), "0", "a port", &at.key("ssh").key("port"));
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

    fn settings(&mut self, settings: &Settings, at: &Path) {
        if let Some(data) = &settings.data {
            self.data(data, &at.key("data"));
        }
        if let Some(storage) = &settings.storage {
            self.storage(storage, &at.key("storage"));
        }
        if let Some(wifi) = &settings.wifi {
            self.wifi(wifi, &at.key("wifi"));
        }
        if let Some(journal) = &settings.journal {
            self.size(journal, &at.key("journal"));
        }
        if let Some(zone) = &settings.timezone {
            let fits = syntax::word(zone, "/_+-") && !zone.starts_with('/');
            self.when(!fits, zone, "a time zone such as Europe/Berlin", &at.key("timezone"));
        }
        let words = |rules: &mut Self, key: &str, list: &[String], further: &str, wanted| {
            for (position, text) in list.iter().enumerate() {
                let at = at.key(key).item(position);
                rules.when(!syntax::word(text, further), text, wanted, &at);
            }
        };
        words(self, "ntp", &settings.ntp, ".:-", "a name or an address");
        words(self, "packages", &settings.packages, ".+-:", "the name of a package");
        for (key, value) in &settings.sysctl {
            let at = at.key("sysctl").key(key);
            self.when(!syntax::word(key, "._-/*"), key, "the name of a kernel setting", &at);
            self.when(value.contains('\n'), value, "one line", &at);
        }
    }

    fn data(&mut self, data: &DataDisk, at: &Path) {
        let fits = data.device.starts_with("/dev/") && syntax::word(&data.device, "/._:+-");
        let fits = fits || data.device == CARD;
        self.when(!fits, &data.device, "a device such as /dev/sda1, or card", &at.key("device"));
        let fits = data.label.len() <= MAX_LABEL_BYTES && syntax::word(&data.label, "._-");
        let wanted = "a label of letters, digits, `.`, `_` and `-`, 16 at the most,";
        self.when(!fits, &data.label, wanted, &at.key("label"));
    }

    fn storage(&mut self, storage: &Storage, at: &Path) {
        for (key, value) in [("size", &storage.size), ("endurance", &storage.endurance)] {
            if let Some(value) = value {
                self.size(value, &at.key(key));
            }
        }
    }

    fn size(&mut self, text: &str, at: &Path) {
        let wrong = syntax::bytes(text).is_none();
        self.when(wrong, text, "an amount such as 64M, 32GB or 20TB", at);
    }

    fn wifi(&mut self, wifi: &Wifi, at: &Path) {
        let fits = wifi.country.len() == 2 && wifi.country.chars().all(|c| c.is_ascii_uppercase());
        self.when(
            !fits,
            &wifi.country,
            "a country in two letters, such as DE,",
            &at.key("country"),
        );
        let fits = (1..=32).contains(&wifi.ssid.len()) && !wifi.ssid.contains(['\n', '\0']);
        self.when(!fits, &wifi.ssid, "a name of 1 to 32 bytes", &at.key("ssid"));
    }

    fn subnet(&mut self) {
        let network = &self.cluster.network;
        let at = Path::default().key("network");
        let Some(subnet) = network.subnet else {
            if network.addressing == Addressing::Static {
                let what = "fixed addresses need to know the network that they are in";
                self.hinted(&at, what, "write `subnet: 192.168.1.0/24` under `network`");
            }
            return;
        };
        if subnet != subnet.trunc() {
            let what = format!("{subnet} is one address of a network, and the network is needed");
            self.hinted(&at.key("subnet"), what, format!("did you mean `{}`?", subnet.trunc()));
        }
        let further = [("gateway", network.gateway), ("vip", network.vip)];
        for (key, address) in further {
            if let Some(address) = address {
                self.inside(subnet, address, &at.key(key));
            }
        }
        for (position, board) in self.cluster.boards.iter().enumerate() {
            let at = Path::default().key("boards").item(position).key("address");
            self.inside(subnet, board.address, &at);
        }
        self.taken();
    }

    /// Notes an address that no host of the subnet can have.
    fn inside(&mut self, subnet: IpNet, address: IpAddr, at: &Path) {
        let last = subnet.prefix_len() + 1 >= subnet.max_prefix_len();
        let v4 = address.is_ipv4();
        let what = match () {
            () if !subnet.contains(&address) => "is not in",
            () if address == subnet.network() && !last => "is the network itself of",
            () if address == subnet.broadcast() && v4 && !last => "is the broadcast address of",
            () => return,
        };
        self.note(at, format!("{address} {what} the boards' network {subnet}"));
    }

    /// Notes boards on the gateway's address or the virtual one.
    fn taken(&mut self) {
        let network = &self.cluster.network;
        let vip = Path::default().key("network").key("vip");
        if network.vip.is_some() && network.vip == network.gateway {
            self.note(&vip, "the virtual address is the gateway's");
        }
        for (position, board) in self.cluster.boards.iter().enumerate() {
            let at = Path::default().key("boards").item(position).key("address");
            if network.gateway == Some(board.address) && !board.is_router() {
                let what = format!("{} is the gateway's address", board.address);
                self.hinted(&at, what, "only a board of role `router` can have it");
            }
            if network.vip == Some(board.address) {
                let what = format!("{} is the virtual address, and no board's own", board.address);
                self.note(&at, what);
            }
        }
    }

    fn router(&mut self) {
        let at = Path::default().key("network").key("router");
        let boards = Path::default().key("boards");
        let router = self.cluster.boards.iter().position(Board::is_router);
        let (settings, position) = match (&self.cluster.network.router, router) {
            (Some(settings), Some(position)) => (settings, position),
            (None, None) => return,
            (Some(_), None) => {
                let hint = "write `roles: [router]` at the board that routes";
                return self.hinted(&at, "no board is a router", hint);
            }
            (None, Some(position)) => {
                let hint = "write `router:` with `uplink` and `inside` under `network`";
                let at = boards.item(position).key("roles");
                return self.hinted(&at, "a router needs to know its two interfaces", hint);
            }
        };
        let network = &self.cluster.network;
        let Some(subnet) = network.subnet else {
            let hint = "write `subnet: 10.9.0.0/24` under `network`";
            return self.hinted(&at, "a router needs to know the network that it gives", hint);
        };
        let own = self.cluster.boards[position].address;
        if network.gateway.is_some_and(|gateway| gateway != own) {
            let gateway = Path::default().key("network").key("gateway");
            let what = "the gateway is not the router board";
            self.hinted(&gateway, what, format!("write `gateway: {own}`, or leave it out"));
        }
        for (key, name) in [("uplink", &settings.uplink), ("inside", &settings.inside)] {
            let fits = syntax::word(name, "._-") && name.len() <= 15;
            self.when(!fits, name, "the name of an interface", &at.key(key));
        }
        if settings.uplink == settings.inside {
            self.note(&at.key("inside"), "both interfaces are the same");
        }
        if let Some(domain) = &settings.domain {
            let fits = domain.split('.').all(|label| syntax::dns_label(label).is_ok());
            self.when(!fits, domain, "a domain such as cluster.home", &at.key("domain"));
        }
        if let Some(ingress) = settings.ingress {
            self.inside(subnet, ingress, &at.key("ingress"));
        }
        self.dynamic(settings.dynamic, subnet, &at.key("dynamic"));
        self.reservations(position);
    }

    /// Hosts without a reservation must not be given what others have.
    fn dynamic(&mut self, range: Option<(IpAddr, IpAddr)>, subnet: IpNet, at: &Path) {
        let Some((first, last)) = range else { return };
        self.inside(subnet, first, at);
        self.inside(subnet, last, at);
        if first > last {
            self.note(at, format!("{first} comes after {last}"));
        }
        let within = |address: &IpAddr| (first..=last).contains(address);
        let network = &self.cluster.network;
        let router = self.cluster.router().map(|board| board.address);
        for address in [network.vip, network.gateway, router].into_iter().flatten().filter(within) {
            self.note(at, format!("{address} is in use and would be given to others"));
            break;
        }
    }

    /// A router gives boards their addresses by their hardware addresses.
    fn reservations(&mut self, router: usize) {
        if self.cluster.network.addressing == Addressing::Static {
            return;
        }
        for (position, board) in self.cluster.boards.iter().enumerate() {
            if position != router && board.mac.is_none() {
                let at = Path::default().key("boards").item(position);
                let what = format!(
                    "{} has no `mac`, which the router gives it its address by",
                    board.name
                );
                self.hinted(&at, what, "add it, or write `addressing: static` under `network`");
            }
        }
    }

    fn pod_networks(&mut self) {
        let network = &self.cluster.network;
        let at = Path::default().key("network");
        let mut seen: Vec<(&str, IpNet)> = network
            .subnet
            .map(|subnet| ("the boards' network", subnet.trunc()))
            .into_iter()
            .collect();
        let default = |text: &str| text.parse::<IpNet>().expect("a network");
        let both = [
            ("pods", network.pods.unwrap_or_else(|| default(DEFAULT_PODS))),
            ("services", network.services.unwrap_or_else(|| default(DEFAULT_SERVICES))),
        ];
        for (key, net) in both {
            let at = at.key(key);
            let fits = matches!(net, IpNet::V4(_)) && (8..=28).contains(&net.prefix_len());
            if !fits || net != net.trunc() {
                let what =
                    format!("`{at}` is {net}, and an IPv4 network of 8 to 28 bits is needed");
                self.hinted(&at, what, format!("write it as {}", net.trunc()));
            }
            if let Some((other, with)) = seen.iter().find(|(_, other)| overlap(*other, net)) {
                let what = format!("the {key}' addresses {net} overlap with {other} {with}");
                let hint = format!("write `{key}: ` with another network under `network`");
                self.hinted(&at, what, hint);
            }
            seen.push((if key == "pods" { "the pods' addresses" } else { "" }, net.trunc()));
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

    fn power(&mut self) {
        let at = Path::default().key("power").key("supplies");
        let supplies = &self.cluster.power.supplies;
        for (position, supply) in supplies.iter().enumerate() {
            let at = at.item(position);
            let watts = [Some(supply.watts), supply.watts_per_port];
            if watts.into_iter().flatten().any(|watts| watts <= 0.0) {
                self.note(&at, format!("the supply {} gives no power", supply.name));
            }
            if supplies[..position].iter().any(|other| other.name == supply.name) {
                self.note(&at.key("name"), format!("two supplies have the name {}", supply.name));
            }
        }
        let mut ports: BTreeMap<&str, &str> = BTreeMap::new();
        for (position, board) in self.cluster.boards.iter().enumerate() {
            let Some(fed) = board.powered_by.as_deref() else { continue };
            let at = Path::default().key("boards").item(position).key("poweredBy");
            if let Some(other) = ports.insert(fed, &board.name)
                && fed.contains('/')
            {
                self.note(&at, format!("{other} is fed from the port {fed}, too"));
            }
            self.fed(fed, supplies, &at);
        }
    }

    /// Models and parts must be known, or the plan would leave them out without a word.
    fn hardware(&mut self) {
        let root = Path::default();
        let mut named: Vec<(Path, &str, bool)> = Vec::new();
        let parts = |at: Path, list: &'a [String]| {
            let items = list.iter().enumerate();
            items.map(|(i, part)| (at.item(i), part.as_str(), false)).collect::<Vec<_>>()
        };
        for (position, board) in self.cluster.boards.iter().enumerate() {
            let at = root.key("boards").item(position);
            named.extend(board.model.iter().map(|model| (at.key("model"), model.as_str(), true)));
            named.extend(parts(at.key("parts"), &board.parts));
        }
        let power = root.key("power");
        for (position, supply) in self.cluster.power.supplies.iter().enumerate() {
            named.extend(parts(power.key("supplies").item(position).key("parts"), &supply.parts));
        }
        named.extend(parts(power.key("parts"), &self.cluster.power.parts));
        for (at, name, is_board) in named {
            if hardware::find(self.cluster, name).is_some() {
                continue;
            }
            let own = self.cluster.hardware.keys().map(String::as_str);
            let table = hardware::TABLE.iter().filter(|known| known.is_board() == is_board);
            let known = own.chain(table.map(|known| known.name));
            let otherwise = "`coracle plan --models` lists those that are known; describe others \
                             under `hardware`";
            let sort = if is_board { "model" } else { "part" };
            let hint = suggestion(name, known, otherwise);
            self.hinted(&at, format!("no {sort} {name:?} is known"), hint);
        }
        for (name, own) in &self.cluster.hardware {
            let at = root.key("hardware").key(name);
            if let Some(memory) = &own.memory {
                self.size(memory, &at.key("memory"));
            }
            if own.average_watts < 0.0 || own.maximum_watts < own.average_watts {
                self.note(&at, format!("{name} takes more on average than at the most"));
            }
        }
    }

    fn fed(&mut self, fed: &str, supplies: &[Supply], at: &Path) {
        let (name, port) = match fed.split_once('/') {
            Some((name, port)) => (name, Some(port)),
            None => (fed, None),
        };
        let Some(supply) = supplies.iter().find(|supply| supply.name == name) else {
            let names = supplies.iter().map(|supply| supply.name.as_str());
            let hint = suggestion(name, names, "name it under `power.supplies`");
            return self.hinted(at, format!("there is no supply {name:?}"), hint);
        };
        let Some(port) = port else { return };
        let number = port.parse::<u32>().ok().filter(|number| *number > 0);
        match (number, supply.ports) {
            (None, _) => self.note(at, format!("{port:?} is no port; they are counted from 1")),
            (Some(number), Some(ports)) if number > ports => {
                self.note(at, format!("{name} has {ports} ports, and {number} is none of them"));
            }
            _ => {}
        }
    }

    fn options(&mut self, keys: &BTreeMap<String, Value>, flags: Option<&Vec<String>>, at: &Path) {
        for (key, value) in keys {
            let at = at.key(key);
            if let Some((_, by)) = DECIDED.iter().find(|(decided, _)| decided == key) {
                self.note(&at, format!("`{key}` is decided by {}", decider(by)));
            } else if let Some(flags) = flags
                && !flags.contains(key)
            {
                let known = flags.iter().map(String::as_str);
                let hint = suggestion(key, known, "`coracle server --help` lists all");
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

/// Whether two networks have an address in common.
fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}
