//! What each command does.

mod admin;
pub mod agent;
pub mod certificate;
pub mod datastore;
pub mod fleet;
pub mod image;
pub mod install;
pub mod kubeconfig;
pub mod sandbox;
pub mod snapshot;
pub mod token;
pub mod uninstall;
mod unit;

/// Rows below a head, in columns that are as wide as they must be.
fn columns<const N: usize>(head: &[String; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let rows: Vec<[String; N]> = std::iter::once(head.clone()).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..N).map(|column| width(column).unwrap_or(0)).collect();
    let lines = rows.iter().map(|row| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}   "));
        cells.collect::<String>().trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}
