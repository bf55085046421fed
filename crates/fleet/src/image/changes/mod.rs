//! What makes a stock image one for a board: decided from what the cluster should be and from what there
//! is in the image, without touching either.

mod account;
mod draft;
mod kernel;
mod name;
mod network;
mod off;
mod quiet;
mod service;

use std::path::PathBuf;

use self::draft::Draft;
use self::network::Network;
pub use self::network::{Ip, Radio, connecting, fixed, fixing, wireless_files};
use super::change::Change;
use super::error::ImageError;
use super::layout::Layout;
use crate::board::{self, Desired, Joining};
use crate::config::{Board, Cluster, Settings};
use crate::program::Machine;
use crate::up::how_to_get;

/// Port of the API where the cluster's description names no other.
const API_PORT: u64 = 6443;

/// What does not stand in the cluster's description itself: secrets that were read, files that were
/// looked at.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Given {
    /// The account that people log in to.
    pub user: String,
    /// Lines of its `authorized_keys`.
    pub authorized_keys: Vec<String>,
    /// The token that boards join with.
    pub token: Option<String>,
    /// URL of a datastore of one's own.
    pub endpoint: Option<String>,
    /// Passphrase of the Wi-Fi.
    pub passphrase: Option<String>,
    /// The binary that is put in place, and its length.
    pub binary: (PathBuf, u64),
    /// The processor that the binary is for.
    pub machine: Option<Machine>,
}

/// Changes, and what a person should know of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// In the order in which they are made.
    pub changes: Vec<Change>,
    /// In sentences.
    pub warnings: Vec<String>,
}

struct Scene<'a> {
    board: &'a Board,
    settings: &'a Settings,
    desired: &'a Desired,
    network: &'a Network,
    given: &'a Given,
}

/// What makes a stock image one for a board.
pub fn changes(
    cluster: &Cluster,
    board: &Board,
    layout: &Layout,
    given: &Given,
) -> Result<Plan, ImageError> {
    right_machine(layout, given)?;
    let settings = cluster.settings(board);
    let joining = joining(cluster, board, given)?;
    let desired = board::desired(cluster, board, &settings, &joining);
    let network = Network::of(cluster, board, &settings, given)?;
    let scene = Scene { board, settings: &settings, desired: &desired, network: &network, given };
    let mut draft = Draft::new(layout);
    if !layout.has_unit("multi-user.target") {
        return Err(ImageError::refused(
            format!("{} has no systemd", layout.system()),
            "Raspberry Pi OS, Debian and Ubuntu have it",
        ));
    }
    name::changes(&mut draft, &scene);
    account::changes(&mut draft, &scene)?;
    off::changes(&mut draft);
    kernel::changes(&mut draft, &scene);
    network.changes(&mut draft);
    quiet::changes(&mut draft, &scene);
    service::changes(&mut draft, &scene)?;
    let (changes, warnings) = draft.finish();
    Ok(Plan { changes, warnings })
}

/// Paths beyond those that are always looked at.
pub fn further_paths(given: &Given) -> Vec<String> {
    let home = if given.user == "root" { "/root".into() } else { format!("/home/{}", given.user) };
    ["/etc/cloud", "/etc/default", "/etc/kernel/postinst.d"]
        .into_iter()
        .map(str::to_owned)
        .chain([format!("{home}/.ssh/authorized_keys")])
        .collect()
}

fn right_machine(layout: &Layout, given: &Given) -> Result<(), ImageError> {
    let unknown = || {
        ImageError::refused(
            "the image's /bin/sh is no program",
            "take an image of a whole system: Raspberry Pi OS, Debian or Ubuntu",
        )
    };
    let machine = layout.machine().ok_or_else(unknown)?;
    if given.machine == Some(machine) {
        return Ok(());
    }
    let binary = given.machine.map_or("no known machine".to_owned(), |known| known.to_string());
    let hint = match machine {
        Machine::Arm => "take the 64-bit image: there is no binary for 32-bit systems".to_owned(),
        _ => how_to_get(&machine.to_string()),
    };
    Err(ImageError::refused(
        format!("the image is for {machine}, and {} for {binary}", given.binary.0.display()),
        hint,
    ))
}

/// How a board comes into the cluster. The first server makes it; the others have its token.
fn joining(cluster: &Cluster, board: &Board, given: &Given) -> Result<Joining, ImageError> {
    let first = cluster.servers().next();
    let is_first = first.is_some_and(|first| first.name == board.name);
    let joins = !is_first && board::Service::of(board).is_some();
    let server =
        first.filter(|_| joins && given.endpoint.as_ref().is_none_or(|_| !board.is_server()));
    if joins && given.token.is_none() {
        return Err(ImageError::refused(
            format!("{} cannot join by itself: there is no token", board.name),
            "openssl rand -hex 24 > token && chmod 600 token, and token: {file: token} in \
             cluster.yaml",
        ));
    }
    let port = cluster.server.get("https-listen-port").and_then(serde_json::Value::as_u64);
    let url = |first: &Board| {
        // Servers are what holds the virtual address.
        let vip = cluster.network.vip.filter(|_| !board.is_server());
        let address = vip.unwrap_or(first.address);
        let host = match address.is_ipv6() {
            true => format!("[{address}]"),
            false => address.to_string(),
        };
        format!("https://{host}:{}", port.unwrap_or(API_PORT))
    };
    Ok(Joining {
        server: server.map(url),
        token: given.token.is_some(),
        endpoint: given.endpoint.clone().filter(|_| board.is_server()),
    })
}

#[cfg(test)]
mod tests;
