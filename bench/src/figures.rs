//! The figures measured so far, one `name value` a line.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::Outcome;

/// A file of figures, written whole after every change.
pub struct Figures {
    path: PathBuf,
    values: BTreeMap<String, f64>,
}

impl Figures {
    /// Reads what is there already; a file that is missing is empty.
    pub fn open(path: &str) -> Outcome<Self> {
        let text = fs::read_to_string(path).unwrap_or_default();
        let mut values = BTreeMap::new();
        for line in text.lines() {
            if let Some((name, value)) = line.split_once(' ') {
                values.insert(name.to_owned(), value.parse()?);
            }
        }
        Ok(Figures { path: path.into(), values })
    }

    /// Notes a figure, and shows it as progress.
    pub fn set(&mut self, name: &str, value: f64) -> Outcome {
        eprintln!("  {name} {value:.3}");
        self.values.insert(name.to_owned(), value);
        let lines = self.values.iter().map(|(name, value)| format!("{name} {value}\n"));
        Ok(fs::write(&self.path, lines.collect::<String>())?)
    }

    /// Notes `NAME_p50` and `NAME_p99`, in milliseconds.
    pub fn set_quantiles(&mut self, name: &str, mut took: Vec<Duration>) -> Outcome {
        took.sort_unstable();
        for (suffix, quantile) in [("p50", 0.50), ("p99", 0.99)] {
            let at = (took.len() as f64 * quantile) as usize;
            let Some(value) = took.get(at.min(took.len().saturating_sub(1))) else { continue };
            self.set(&format!("{name}_{suffix}"), value.as_secs_f64() * 1e3)?;
        }
        Ok(())
    }

    /// A figure noted earlier.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.values.get(name).copied()
    }
}

/// With as many digits as say something.
pub fn rounded(value: f64) -> String {
    let places = match value.abs() {
        v if v >= 1000.0 => 0,
        v if v >= 10.0 => 1,
        v if v >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.places$}")
}
