//! Upstream's control plane, which `bench/run.sh --peer` measures beside ours.

use std::path::PathBuf;

use super::cache::Cache;
use super::packages::Apt;
use super::programs::{Tree, program_path};
use crate::run::Outcome;

/// The datastore's package, and where the program is in it.
const ETCD: &str = "etcd-server";
const ETCD_PROGRAM: &str = "usr/bin/etcd";

/// Builds what is missing and gives the folder that holds the programs.
pub fn build(cache: &Cache) -> Outcome<PathBuf> {
    let apt = Apt::new(cache)?;
    Tree::unpack(cache, &apt)?.build_control_plane()?;
    let etcd = apt.unpacked("etcd", &[ETCD], false)?.join(ETCD_PROGRAM);
    let place = program_path(cache, "etcd");
    std::fs::copy(&etcd, &place).map_err(|e| format!("copying {}: {e}", etcd.display()))?;
    Ok(cache.path("bin"))
}
