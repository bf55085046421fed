use serde::Serialize;

use super::Finding;
use crate::config::{self, Board, CARD, Cluster, Storage, StorageKind};

/// What is written to a board's storage, and how long it lasts.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Wear {
    /// The board.
    pub board: String,
    /// What it writes to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<StorageKind>,
    /// Its size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
    /// What may be written to it over its life.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endurance_gb: Option<u64>,
    /// Whether the maker says so, or it is a guess by kind and size.
    pub rated: bool,
    /// What Coracle writes in an hour at idle.
    pub writes_mib_per_hour: f64,
    /// How many years that takes to wear it out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub years: Option<f64>,
}

/// A server on SQLite, at idle: the promise, kept so far (bench/RESULTS.md).
const SQLITE_MIB_PER_HOUR: f64 = 1.0;
/// A server with etcd, at idle, measured (bench/RESULTS-boards.md).
const ETCD_MIB_PER_HOUR: f64 = 9.0;
/// A board that only runs pods: leases are the server's; what containers log is not counted.
const AGENT_MIB_PER_HOUR: f64 = 0.1;
const HOURS_A_YEAR: f64 = 8766.0;
/// Cards and disks are rather replaced than lived with to their last day.
const SHORT_YEARS: f64 = 5.0;
/// Who asks how long a disk lasts does not mean generations.
const LONG_YEARS: f64 = 100.0;

/// What a board has where nothing is said.
fn assumed() -> Storage {
    Storage { kind: StorageKind::SdCard, size: Some("32GB".into()), endurance: None }
}

/// How storage of a kind bears writing. All of it is a careful guess where the maker says nothing:
/// `cycles` is how often the whole of it may be written, and `amplification` how much more is written
/// inside than was asked for, since small durable writes rewrite whole blocks.
struct Bearing {
    cycles: f64,
    amplification: f64,
}

fn bearing(kind: StorageKind) -> Option<Bearing> {
    let (cycles, amplification) = match kind {
        StorageKind::SdCard | StorageKind::UsbStick => (100.0, 16.0),
        StorageKind::EnduranceSdCard => (500.0, 16.0),
        StorageKind::Emmc => (1000.0, 8.0),
        StorageKind::Ssd | StorageKind::Nvme => (300.0, 4.0),
        StorageKind::Hdd => return None,
    };
    Some(Bearing { cycles, amplification })
}

pub(super) fn plan(cluster: &Cluster, findings: &mut Vec<Finding>) -> Vec<Wear> {
    let boards = cluster.boards.iter().filter(|board| board.is_server() || board.is_agent());
    let plan = |board| {
        let wear = one(cluster, board);
        judge(cluster, board, &wear, findings);
        wear
    };
    boards.map(plan).collect()
}

fn one(cluster: &Cluster, board: &Board) -> Wear {
    let settings = cluster.settings(board);
    let own_disk = settings.data.is_some_and(|data| data.device != CARD);
    // A disk that is not described may be anything; a card is a card.
    let storage = settings.storage.or_else(|| (!own_disk).then(assumed));
    let writes = match (board.is_server(), cluster.runs_etcd()) {
        (true, true) => ETCD_MIB_PER_HOUR,
        (true, false) => SQLITE_MIB_PER_HOUR,
        (false, _) => AGENT_MIB_PER_HOUR,
    };
    let bytes = |text: &Option<String>| text.as_deref().and_then(config::bytes).map(|n| n as f64);
    let bearing = storage.as_ref().and_then(|storage| bearing(storage.kind));
    let rated = storage.as_ref().and_then(|storage| bytes(&storage.endurance));
    let size = storage.as_ref().and_then(|storage| storage.size.clone());
    let guessed = bytes(&size).zip(bearing.as_ref()).map(|(size, b)| size * b.cycles);
    let endurance = rated.or(guessed);
    let inside = writes * bearing.map_or(1.0, |bearing| bearing.amplification);
    Wear {
        board: board.name.clone(),
        kind: storage.map(|storage| storage.kind),
        size,
        endurance_gb: endurance.map(|bytes| (bytes / 1e9).round() as u64),
        rated: rated.is_some(),
        writes_mib_per_hour: writes,
        years: endurance.map(|bytes| bytes / (inside * 1024.0 * 1024.0 * HOURS_A_YEAR)),
    }
}

fn judge(cluster: &Cluster, board: &Board, wear: &Wear, findings: &mut Vec<Finding>) {
    let Some(kind) = wear.kind else { return };
    let on_flash =
        matches!(kind, StorageKind::SdCard | StorageKind::EnduranceSdCard | StorageKind::UsbStick);
    if board.is_server() && cluster.runs_etcd() && on_flash {
        let reason = "etcd wants 50 durable writes a second at the least and 500 under load; cards \
                      and sticks often give some 30, and then the servers elect leaders instead of \
                      working";
        let advice = "give servers an SSD (`data` for /var/lib/coracle, described by `storage`), \
                      and look with `coracle check`";
        findings.push(Finding::warning(&board.name, reason, advice));
    }
    if let Some(years) = wear.years.filter(|years| *years < SHORT_YEARS) {
        let reason = format!(
            "its {} lasts about {years:.1} years at {} MiB an hour{}",
            name(kind),
            wear.writes_mib_per_hour,
            if wear.rated { "" } else { ", by a careful guess" }
        );
        let advice = "take a larger one, one made for endurance, or an SSD; or say its maker's \
                      `endurance`";
        findings.push(Finding::warning(&board.name, reason, advice));
    }
}

/// What a kind of storage is called.
pub(super) fn name(kind: StorageKind) -> &'static str {
    match kind {
        StorageKind::SdCard => "SD card",
        StorageKind::EnduranceSdCard => "SD card for endurance",
        StorageKind::Emmc => "eMMC",
        StorageKind::UsbStick => "USB stick",
        StorageKind::Ssd => "SSD",
        StorageKind::Nvme => "NVMe disk",
        StorageKind::Hdd => "hard disk",
    }
}

impl Wear {
    /// How long it lasts, in words.
    pub(super) fn lasts(&self) -> String {
        match self.years {
            None if self.kind.is_none() => "?".into(),
            None => "does not wear by writing".into(),
            Some(years) if years >= LONG_YEARS => "over 100 years".into(),
            Some(years) if years >= 10.0 => format!("{years:.0} years"),
            Some(years) => format!("{years:.1} years"),
        }
    }
}
