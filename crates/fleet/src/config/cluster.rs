//! Reading a `cluster.yaml`, and what follows from it for single boards.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use serde_json::Value;

use super::document::Node;
use super::problem::{Problem, Problems, Spot};
use super::rules::{Flags, Rules};
use super::shape::Shape;
use super::{Board, Cluster, Hidden, Role, Secret, SecretError, Settings, Ssh};

/// A description of a stack is some pages of text; more is a mistake.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// The JSON schema (2020-12) of `cluster.yaml`, made from the model; a test keeps the two in step.
pub const SCHEMA: &str = include_str!("cluster.schema.json");

static PARSED_SCHEMA: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(SCHEMA).expect("the schema is JSON; a test reads it"));

impl Cluster {
    /// Reads and checks a file, and the rights of the files with secrets that it names.
    pub fn read(path: &Path, flags: &Flags) -> Result<Cluster, Problems> {
        let whole =
            |what: String| Problems::new(path, "", vec![Problem::new(Spot::default(), what)]);
        let length = std::fs::metadata(path).map_err(|error| whole(error.to_string()))?.len();
        if length > MAX_FILE_BYTES {
            return Err(whole("it is larger than 1 MiB".into()));
        }
        let text = std::fs::read_to_string(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::InvalidData => whole("it is not written in UTF-8".into()),
            _ => whole(error.to_string()),
        })?;
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        parse(&text, path, flags, Some(folder))
    }

    /// Reads and checks a text; `file` is what messages call it. Files with secrets are not looked at.
    pub fn parse(text: &str, file: &str, flags: &Flags) -> Result<Cluster, Problems> {
        parse(text, Path::new(file), flags, None)
    }

    /// A board's settings: its own, and the cluster's where it says nothing. Lists are replaced,
    /// kernel settings are joined.
    pub fn settings(&self, board: &Board) -> Settings {
        let (own, common) = (&board.settings, &self.defaults);
        let mut sysctl = common.sysctl.clone();
        sysctl.extend(own.sysctl.clone());
        Settings {
            swap: own.swap.or(common.swap),
            data: own.data.clone().or_else(|| common.data.clone()),
            storage: own.storage.clone().or_else(|| common.storage.clone()),
            wifi: own.wifi.clone().or_else(|| common.wifi.clone()),
            timezone: own.timezone.clone().or_else(|| common.timezone.clone()),
            ntp: first_filled(&own.ntp, &common.ntp),
            sysctl,
            packages: first_filled(&own.packages, &common.packages),
            journal: own.journal.clone().or_else(|| common.journal.clone()),
        }
    }

    /// How a board is reached: as it says itself, and as the cluster says where it does not. Paths
    /// are made absolute.
    pub fn ssh(&self, board: &Board) -> Ssh {
        let (own, common) = (&board.ssh, &self.ssh);
        let path = |own: &Option<PathBuf>, common: &Option<PathBuf>| {
            own.as_ref().or(common.as_ref()).map(|path| self.path(path))
        };
        Ssh {
            user: own.user.clone().or_else(|| common.user.clone()),
            port: own.port.or(common.port),
            host: own.host.clone().or_else(|| common.host.clone()),
            key: path(&own.key, &common.key),
            jump: own.jump.clone().or_else(|| common.jump.clone()),
            known_hosts: path(&own.known_hosts, &common.known_hosts),
            authorized_keys: first_filled(&own.authorized_keys, &common.authorized_keys),
            sudo_password: own.sudo_password.clone().or_else(|| common.sudo_password.clone()),
        }
    }

    /// A path that the file names: relative to its folder, `~/` is the user's home.
    pub fn path(&self, named: &Path) -> PathBuf {
        match (named.strip_prefix("~"), std::env::var_os("HOME")) {
            (Ok(rest), Some(home)) => Path::new(&home).join(rest),
            _ => self.folder.join(named),
        }
    }

    /// Reads a secret that the file names.
    pub fn secret(&self, secret: &Secret) -> Result<Hidden, SecretError> {
        match secret {
            Secret::File(path) => Secret::File(self.path(path)).read(&self.folder),
            other => other.read(&self.folder),
        }
    }

    /// The boards that run the control plane, in order.
    pub fn servers(&self) -> impl Iterator<Item = &Board> {
        self.boards.iter().filter(|board| board.is_server())
    }

    /// The boards that run pods and no control plane, in order.
    pub fn agents(&self) -> impl Iterator<Item = &Board> {
        self.boards.iter().filter(|board| board.is_agent())
    }

    /// The router board, if there is one.
    pub fn router(&self) -> Option<&Board> {
        self.boards.iter().find(|board| board.is_router())
    }

    /// The board of a name.
    pub fn board(&self, name: &str) -> Option<&Board> {
        self.boards.iter().find(|board| board.name == name)
    }

    /// Whether the servers keep the cluster in an etcd of their own.
    pub fn runs_etcd(&self) -> bool {
        match &self.datastore {
            super::Datastore::Auto => self.servers().count() > 1,
            super::Datastore::Etcd => true,
            super::Datastore::Sqlite | super::Datastore::External(_) => false,
        }
    }
}

impl Board {
    /// It runs the control plane, and pods.
    pub fn is_server(&self) -> bool {
        self.roles.contains(&Role::Server)
    }

    /// It runs pods for servers elsewhere; what a board does that says nothing.
    pub fn is_agent(&self) -> bool {
        self.roles.contains(&Role::Agent) || self.roles.is_empty()
    }

    /// It routes between the boards and the world.
    pub fn is_router(&self) -> bool {
        self.roles.contains(&Role::Router)
    }
}

fn first_filled(own: &[String], common: &[String]) -> Vec<String> {
    if own.is_empty() { common.to_vec() } else { own.to_vec() }
}

fn parse(
    text: &str,
    file: &Path,
    flags: &Flags,
    folder: Option<PathBuf>,
) -> Result<Cluster, Problems> {
    let failed = |list| Problems::new(file, text, list);
    let document = Node::parse(text).map_err(|problem| failed(vec![problem]))?;
    let mut shape = Shape::new(&PARSED_SCHEMA);
    let value = shape.read(&document);
    let mut problems = shape.problems;
    // What can be decoded in spite of its problems is checked for all others, too.
    match serde_json::from_value::<Cluster>(value) {
        Ok(mut cluster) => {
            cluster.folder = folder.clone().unwrap_or_default();
            problems.extend(Rules::new(&cluster, &document, flags).all());
            if folder.is_some() {
                problems.extend(Rules::new(&cluster, &document, flags).secrets());
            }
            if problems.is_empty() {
                return Ok(cluster);
            }
        }
        Err(error) if problems.is_empty() => {
            problems.push(Problem::new(document.at, error.to_string()));
        }
        Err(_) => {}
    }
    Err(failed(problems))
}
