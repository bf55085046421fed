//! Coracle end to end: the real binary, the real kubectl, real containers.
//!
//! `./test.sh tools build e2e` runs all of it; `E2E_FILTER=hello ./test.sh e2e` a part.

mod bad_input;
mod basics;
mod boards;
mod clients;
mod datastore;
mod drain;
#[expect(dead_code, reason = "the store's tests do more with them")]
#[path = "../../../store/tests/it/etcds.rs"]
mod etcds;
mod fleet;
mod harness;
mod hello;
mod images;
mod impostor;
mod joining;
mod planning;
mod power_cuts;
#[path = "../../../store/tests/it/process.rs"]
mod process;
mod rollouts;
mod snapshots;
#[expect(dead_code, reason = "the store's tests do more with them")]
#[path = "../../../store/tests/it/sqls.rs"]
mod sqls;
mod streams;
mod survive;
mod systemd;
mod tiers;
mod uninstall;
mod upgrade;
mod vip;
mod volumes;
