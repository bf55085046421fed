//! What came of a drill, for a person and for a program.

use serde::Serialize;

use super::meter::Away;
use super::plan::Kind;

/// What came of one step.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Result {
    /// What was taken out.
    pub kind: Kind,
    /// Of which board.
    pub board: String,
    /// For how long, in seconds.
    pub outage_seconds: u64,
    /// The API at the address of the kubeconfig.
    pub api: Away,
    /// The API by whichever server answers.
    pub any_server: Away,
    /// The virtual address.
    pub address: Option<Away>,
    /// The probe, asked of the boards that were left in turn.
    pub service: Away,
    /// When the cluster called the board not ready, in seconds after the beginning.
    pub not_ready_after: Option<u64>,
    /// When as many pods of the probe were ready elsewhere again, in seconds after the beginning.
    pub pods_back_after: Option<u64>,
    /// When everything was as before and answered steadily, in seconds after the beginning.
    pub healed_after: Option<u64>,
}

impl Result {
    /// Whether the cluster took it: it healed by itself.
    pub fn passed(&self) -> bool {
        self.healed_after.is_some()
    }
}

/// The table.
pub fn table(results: &[Result]) -> String {
    let head = [
        "TAKEN OUT",
        "BOARD",
        "FOR",
        "API AWAY",
        "ANY SERVER",
        "ADDRESS",
        "SERVICE",
        "FAILED",
        "NOT READY",
        "PODS BACK",
        "HEALED",
        "",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(results.iter().map(row));
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

fn row(result: &Result) -> Vec<String> {
    let away =
        |away: &Away| format!("{}.{:01} s", away.longest_ms / 1000, away.longest_ms % 1000 / 100);
    let after = |seconds: Option<u64>| seconds.map_or("-".to_owned(), |s| format!("{s} s"));
    vec![
        result.kind.to_string(),
        result.board.clone(),
        format!("{} s", result.outage_seconds),
        away(&result.api),
        away(&result.any_server),
        result.address.as_ref().map_or("-".to_owned(), away),
        away(&result.service),
        format!("{}/{}", result.service.failed, result.service.asked),
        after(result.not_ready_after),
        after(result.pods_back_after),
        after(result.healed_after),
        if result.passed() { "ok" } else { "FAILED" }.to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_to_read() {
        let away = |longest_ms| Away { longest_ms, failed: 3, asked: 200, back: true };
        let result = Result {
            kind: Kind::Network,
            board: "pi3".into(),
            outage_seconds: 90,
            api: away(1_240),
            any_server: away(0),
            address: None,
            service: away(2_000),
            not_ready_after: Some(51),
            pods_back_after: Some(58),
            healed_after: Some(93),
        };
        let expected = "\
TAKEN OUT  BOARD  FOR   API AWAY  ANY SERVER  ADDRESS  SERVICE  FAILED  NOT READY  PODS BACK  HEALED
network    pi3    90 s  1.2 s     0.0 s       -        2.0 s    3/200   51 s       58 s       93 s    ok
";
        assert_eq!(table(&[result]), expected);
    }
}
