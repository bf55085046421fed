//! Trouble as data: what is wrong with cables, plugs and clocks, kept in the sandbox's folder so
//! that a board that is switched on again finds its cable as it was.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Nobody waits longer for a packet.
const MAX_DELAY_MS: u32 = 60_000;
/// Losses are counted in this many parts of a packet stream.
pub(crate) const LOSS_PARTS: u32 = 10_000;

/// Frames that one board sends and another never gets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cut {
    /// Who sends; a board's name.
    pub from: String,
    /// Who gets nothing.
    pub to: String,
}

/// A bad cable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wire {
    /// What a round trip takes longer.
    pub delay_ms: u32,
    /// By how much that varies, up and down.
    pub jitter_ms: u32,
    /// How many of 10,000 packets are lost, each way.
    pub loss: u32,
}

impl Wire {
    fn is_good(&self) -> bool {
        *self == Wire::default()
    }
}

/// Everything that is wrong at the moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Faults {
    /// Boards whose cable is pulled.
    pub unplugged: BTreeSet<String>,
    /// Boards that hear but are not heard.
    pub mute: BTreeSet<String>,
    /// Pairs that do not reach each other.
    pub cuts: BTreeSet<Cut>,
    /// Bad cables.
    pub wires: BTreeMap<String, Wire>,
    /// By how many seconds boards' clocks are wrong.
    pub clocks: BTreeMap<String, i64>,
}

impl Faults {
    /// Cuts a board off, or two from each other (`a:b`).
    pub fn cut(&mut self, what: &str, one_way: bool) {
        match (what.split_once(':'), one_way) {
            (None, false) => {
                self.unplugged.insert(what.to_owned());
            }
            (None, true) => {
                self.mute.insert(what.to_owned());
            }
            (Some((a, b)), _) => {
                self.cuts.insert(Cut { from: a.to_owned(), to: b.to_owned() });
                if !one_way {
                    self.cuts.insert(Cut { from: b.to_owned(), to: a.to_owned() });
                }
            }
        }
    }

    /// Changes a board's cable; one that is good again is forgotten.
    pub fn wire(&mut self, board: &str, change: impl FnOnce(&mut Wire)) {
        let wire = self.wires.entry(board.to_owned()).or_default();
        change(wire);
        if wire.is_good() {
            self.wires.remove(board);
        }
    }

    /// Takes away what is wrong with a board's network, or with everybody's. Clocks stay wrong
    /// until they are set.
    pub fn heal(&mut self, board: Option<&str>) {
        let Some(board) = board else {
            *self = Faults { clocks: std::mem::take(&mut self.clocks), ..Faults::default() };
            return;
        };
        self.unplugged.remove(board);
        self.mute.remove(board);
        self.wires.remove(board);
        self.cuts.retain(|cut| cut.from != board && cut.to != board);
    }

    /// What is wrong with a board, in words.
    pub fn of(&self, board: &str) -> Vec<String> {
        let mut words = Vec::new();
        if self.unplugged.contains(board) {
            words.push("unplugged".to_owned());
        }
        if self.mute.contains(board) {
            words.push("not heard".to_owned());
        }
        for cut in self.cuts.iter().filter(|cut| cut.from == board) {
            words.push(format!("cut from {}", cut.to));
        }
        if let Some(wire) = self.wires.get(board) {
            if wire.delay_ms > 0 {
                words.push(format!("slow by {} ms", wire.delay_ms));
            }
            if wire.loss > 0 {
                words.push(format!("loses {} %", f64::from(wire.loss) / 100.0));
            }
        }
        if let Some(seconds) = self.clocks.get(board).filter(|seconds| **seconds != 0) {
            words.push(format!("clock {seconds:+} s"));
        }
        words
    }
}

/// Reads `200ms`, `1.5s`, `2m`, `1h`, with a sign where one is given, as milliseconds.
pub fn parse_duration_ms(text: &str) -> Result<i64> {
    let wrong = || {
        Error::new(format!("{text:?} is no time")).with_hint("write it as 200ms, 1.5s, 10m or 1h")
    };
    let split = text.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(split);
    let scale = match unit {
        "ms" => 1.0,
        "s" => 1e3,
        "m" => 60e3,
        "h" => 3_600e3,
        "d" => 86_400e3,
        _ => return Err(wrong()),
    };
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let ms = number * scale;
    // More than a century is a mistake, and what is exact in a double is exact here.
    match ms.is_finite() && ms.abs() < 3.2e12 {
        true => Ok(ms as i64),
        false => Err(wrong()),
    }
}

/// Reads a delay: a time that is not negative and not absurd.
pub(crate) fn delay_ms(text: &str) -> Result<u32> {
    let ms = parse_duration_ms(text)?;
    u32::try_from(ms).ok().filter(|ms| *ms <= MAX_DELAY_MS).ok_or_else(|| {
        Error::new(format!("{text:?} is no delay of a cable"))
            .with_hint("use a time of up to a minute, such as 200ms")
    })
}

/// Reads `5%` as parts of 10,000.
pub fn parse_loss(text: &str) -> Result<u32> {
    let percent = text.strip_suffix('%').unwrap_or(text).parse::<f64>().ok();
    let valid = percent.filter(|percent| (0.0..=100.0).contains(percent));
    let percent = valid.ok_or_else(|| {
        Error::new(format!("{text:?} is no share of packets")).with_hint("write it as 5%")
    })?;
    Ok((percent * f64::from(LOSS_PARTS) / 100.0).round() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_shares_are_read() {
        for (text, ms) in [("200ms", 200), ("1.5s", 1500), ("-10m", -600_000), ("+1h", 3_600_000)] {
            assert_eq!(parse_duration_ms(text).ok(), Some(ms), "{text}");
        }
        for text in ["", "5", "h", "1y", "1e300h", "nans"] {
            assert!(parse_duration_ms(text).is_err(), "{text}");
        }
        assert!(delay_ms("-1s").is_err() && delay_ms("2m").is_err());
        assert_eq!(parse_loss("5%").ok(), Some(500));
        assert_eq!(parse_loss("0.01%").ok(), Some(1));
        assert!(parse_loss("101%").is_err() && parse_loss("x").is_err());
    }

    #[test]
    fn faults_add_up_and_heal() {
        let mut faults = Faults::default();
        faults.cut("a", false);
        faults.cut("a:b", false);
        faults.cut("c:b", true);
        faults.wire("a", |wire| wire.delay_ms = 200);
        faults.wire("a", |wire| wire.loss = 500);
        faults.clocks.insert("a".into(), 3600);
        assert_eq!(
            faults.of("a").join(", "),
            "unplugged, cut from b, slow by 200 ms, loses 5 %, clock +3600 s"
        );
        assert_eq!(faults.of("b").join(", "), "cut from a");
        faults.heal(Some("a"));
        assert_eq!(faults.of("a").join(", "), "clock +3600 s");
        assert_eq!(faults.of("c").join(", "), "cut from b");
        faults.heal(None);
        assert_eq!(faults.cuts.len() + faults.wires.len(), 0);
        faults.wire("a", |wire| wire.delay_ms = 0);
        assert!(faults.wires.is_empty());
    }
}
