//! Writing a first `cluster.yaml`: what the command line left open is asked, if there is somebody to
//! ask, and the text is checked by the same rules as any other before it is written.

mod ask;
#[cfg(test)]
mod tests;
mod text;

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;

use crate::Trouble;
use crate::config::{Addressing, Cluster, Flags};

pub use ask::Ask;
use ask::Questions;

/// What is known before anybody is asked.
#[derive(Debug, Clone, Default)]
pub struct Given {
    /// Name of the cluster.
    pub name: Option<String>,
    /// The boards.
    pub boards: Vec<NewBoard>,
    /// How many of them, from the first, are servers.
    pub servers: Option<usize>,
    /// Model of all boards.
    pub model: Option<String>,
    /// Their network.
    pub subnet: Option<IpNet>,
    /// The way out of it.
    pub gateway: Option<IpAddr>,
    /// Whether addresses are fixed or reserved.
    pub addressing: Option<Addressing>,
    /// One address that is on one server at any time.
    pub vip: Option<IpAddr>,
    /// Account on the boards.
    pub user: Option<String>,
}

/// A board of a new cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewBoard {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// Its hardware address.
    pub mac: Option<String>,
}

impl std::str::FromStr for NewBoard {
    type Err = String;

    /// `name=address`, as the command line takes it.
    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = || format!("{text:?} is no board; write pi1=192.168.1.11");
        let (name, address) = text.split_once('=').ok_or_else(wanted)?;
        let address = address.parse().map_err(|_| wanted())?;
        match name.is_empty() {
            true => Err(wanted()),
            false => Ok(NewBoard { name: name.to_owned(), address, mac: None }),
        }
    }
}

/// Makes the text of a `cluster.yaml`. Without somebody to ask, what is open is taken as is usual.
pub fn compose(given: Given, ask: Option<&mut dyn Ask>) -> Result<String, Trouble> {
    let settled = match ask {
        Some(ask) => Questions::new(ask).settle(given)?,
        None => usual(given)?,
    };
    let (boards, servers) = (settled.boards.len(), settled.servers.unwrap_or(1));
    if servers > boards {
        let what =
            format!("there cannot be more servers than boards: {servers}, and {boards} boards");
        return Err(Trouble::new(what, "name more boards with --board, or fewer --servers"));
    }
    let text = text::write(&settled);
    match Cluster::parse(&text, "cluster.yaml", &Flags::default()) {
        Ok(_) => Ok(text),
        Err(problems) => Err(Trouble::new(
            format!("what was said makes no cluster:\n{problems}"),
            "say it otherwise, or write the file by hand after one of the examples",
        )),
    }
}

/// Writes a new file; one that is there stays as it is.
pub fn write(path: &Path, text: &str) -> Result<(), Trouble> {
    let created = OpenOptions::new().write(true).create_new(true).open(path);
    created.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|error| {
        let path = path.display();
        match error.kind() {
            io::ErrorKind::AlreadyExists => Trouble::new(
                format!("{path} is there already, and is left as it is"),
                "name another with --file, or move that one away",
            ),
            _ => Trouble::new(format!("writing {path}: {error}"), "name another file with --file"),
        }
    })
}

/// Boards are what nobody can guess; all else has a usual value.
fn usual(mut given: Given) -> Result<Given, Trouble> {
    if given.boards.is_empty() {
        return Err(Trouble::new(
            "no boards are named, and there is no terminal to ask at",
            "name each with --board pi1=192.168.1.11, or look for them with --discover",
        ));
    }
    given.name.get_or_insert_with(|| "home".into());
    given.servers.get_or_insert(1);
    given.addressing.get_or_insert(match given.subnet {
        Some(_) => Addressing::Static,
        None => Addressing::Dhcp,
    });
    Ok(given)
}
