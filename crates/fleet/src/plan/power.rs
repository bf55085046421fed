use serde::Serialize;

use super::Finding;
use super::money::{figure, money};
use crate::config::{Board, Cluster, Supply};
use crate::hardware::{self, Found};

/// What is drawn, from what, and what it costs.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PowerPlan {
    /// What draws power, each model and part once.
    pub draws: Vec<Draw>,
    /// All together, on average.
    pub average_watts: f64,
    /// All together, at the most.
    pub maximum_watts: f64,
    /// What each supply feeds.
    pub supplies: Vec<Fed>,
    /// What a month takes and costs.
    pub month: Running,
}

/// Boards or parts of one sort.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Draw {
    /// Model or part.
    pub name: String,
    /// How many there are.
    pub count: usize,
    /// What one takes on average.
    pub average_watts: f64,
    /// What one takes at the most.
    pub maximum_watts: f64,
    /// Where the figures are from.
    pub source: String,
}

/// What a supply feeds, in total and at its busiest port.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Fed {
    /// The supply.
    pub supply: String,
    /// What it gives.
    pub watts: f64,
    /// The boards that it feeds.
    pub boards: Vec<String>,
    /// What it feeds on average.
    pub average_watts: f64,
    /// What it feeds at the most.
    pub maximum_watts: f64,
    /// What it could give beyond that, in percent of what it gives; below zero it is too small.
    pub headroom_percent: f64,
    /// What one port gives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port_watts: Option<f64>,
    /// What the board that takes most takes at the most.
    pub port_maximum_watts: f64,
}

/// What a month takes and costs.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Running {
    /// At average power.
    pub average_kwh: f64,
    /// At full load all month.
    pub maximum_kwh: f64,
    /// What the average costs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub average_cost: Option<f64>,
    /// What full load costs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maximum_cost: Option<f64>,
    /// Of which currency.
    pub currency: String,
    /// What the same costs at the cloud that the file names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cloud_cost: Option<f64>,
}

/// A month as clouds bill it: a twelfth of 8,760 hours.
const HOURS_A_MONTH: f64 = 730.0;
/// A supply at its limit runs hot and sags; boards then throttle.
const HEADROOM_PERCENT: f64 = 20.0;

impl PowerPlan {
    pub(super) fn of(cluster: &Cluster, findings: &mut Vec<Finding>) -> PowerPlan {
        let draws = draws(cluster);
        // The sum of nothing is -0 otherwise.
        let sum =
            |of: fn(&Draw) -> f64| draws.iter().fold(0.0, |sum, d| sum + of(d) * d.count as f64);
        let (average, maximum) = (sum(|draw| draw.average_watts), sum(|draw| draw.maximum_watts));
        let supplies: Vec<Fed> =
            cluster.power.supplies.iter().map(|supply| fed(cluster, supply)).collect();
        supplies.iter().for_each(|supply| judge(supply, findings));
        ports(cluster, findings);
        PowerPlan {
            average_watts: rounded(average),
            maximum_watts: rounded(maximum),
            month: Running::of(cluster, average, maximum, findings),
            supplies,
            draws,
        }
    }
}

impl Running {
    fn of(cluster: &Cluster, average: f64, maximum: f64, findings: &mut Vec<Finding>) -> Running {
        let kwh = |watts: f64| rounded(watts * HOURS_A_MONTH / 1000.0);
        let power = &cluster.power;
        let cost = |kwh: f64| power.price_per_kwh.map(|price| rounded(kwh * price));
        let running = Running {
            average_kwh: kwh(average),
            maximum_kwh: kwh(maximum),
            average_cost: cost(average * HOURS_A_MONTH / 1000.0),
            maximum_cost: cost(maximum * HOURS_A_MONTH / 1000.0),
            currency: power.currency.clone().unwrap_or_else(|| "EUR".into()),
            cloud_cost: power.cloud_price_per_month,
        };
        if let (Some(cost), Some(cloud)) = (running.average_cost, running.cloud_cost)
            && cost > cloud
        {
            let (cost, cloud) = (money(cost, &running.currency), money(cloud, &running.currency));
            let reason = format!("electricity alone is {cost} a month, and the cloud is {cloud}");
            let advice = "switch boards off that idle, or take it as the price of your own";
            findings.push(Finding::warning("power", reason, advice));
        }
        running
    }
}

/// A board's model and parts.
fn of_board<'a>(board: &'a Board) -> impl Iterator<Item = &'a str> + use<'a> {
    board.model.iter().chain(&board.parts).map(String::as_str)
}

/// All that draws power, each sort once, in the order of the file.
fn draws(cluster: &Cluster) -> Vec<Draw> {
    let of_supplies = cluster.power.supplies.iter().flat_map(|supply| &supply.parts);
    let loose = of_supplies.chain(&cluster.power.parts).map(String::as_str);
    let boards = cluster.boards.iter().filter_map(|board| board.model.as_deref());
    let parts = cluster.boards.iter().flat_map(|board| &board.parts).map(String::as_str);
    let mut draws: Vec<Draw> = Vec::new();
    for name in boards.chain(parts).chain(loose) {
        if let Some(draw) = draws.iter_mut().find(|draw| draw.name == name) {
            draw.count += 1;
        } else if let Some(found) = hardware::find(cluster, name) {
            let Found { average_watts, maximum_watts, source, .. } = found;
            let name = name.to_owned();
            draws.push(Draw { name, count: 1, average_watts, maximum_watts, source });
        }
    }
    draws
}

/// What models and parts take together, on average and at the most.
fn watts<'a>(cluster: &Cluster, names: impl Iterator<Item = &'a str>) -> (f64, f64) {
    let found = names.filter_map(|name| hardware::find(cluster, name));
    found.fold((0.0, 0.0), |(average, maximum), found| {
        (average + found.average_watts, maximum + found.maximum_watts)
    })
}

fn fed(cluster: &Cluster, supply: &Supply) -> Fed {
    let feeds = |board: &&Board| {
        let name = board.powered_by.as_deref().map(|by| by.split('/').next().unwrap_or(by));
        name == Some(supply.name.as_str())
    };
    let boards: Vec<&Board> = cluster.boards.iter().filter(feeds).collect();
    let parts = supply.parts.iter().map(String::as_str);
    let all = boards.iter().flat_map(|board| of_board(board)).chain(parts);
    let (average, maximum) = watts(cluster, all);
    let busiest = boards.iter().map(|board| watts(cluster, of_board(board)).1);
    Fed {
        supply: supply.name.clone(),
        watts: supply.watts,
        average_watts: rounded(average),
        maximum_watts: rounded(maximum),
        headroom_percent: rounded((supply.watts - maximum) / supply.watts * 100.0),
        port_watts: supply.watts_per_port,
        port_maximum_watts: rounded(busiest.fold(0.0, f64::max)),
        boards: boards.iter().map(|board| board.name.clone()).collect(),
    }
}

fn judge(fed: &Fed, findings: &mut Vec<Finding>) {
    let (most, gives) = (figure(fed.maximum_watts), figure(fed.watts));
    if fed.maximum_watts > fed.watts {
        let reason = format!("it gives {gives} W, and what it feeds takes {most} W at the most");
        let advice = "take a stronger one, or feed some of it from another";
        findings.push(Finding::error(&fed.supply, reason, advice));
    } else if fed.headroom_percent < HEADROOM_PERCENT {
        let spare = figure(fed.headroom_percent.round());
        let reason = format!(
            "it gives {gives} W, and what it feeds takes {most} W at the most: {spare} % are spare"
        );
        let advice = "leave a fifth, or supplies run hot, voltage sags and boards throttle";
        findings.push(Finding::warning(&fed.supply, reason, advice));
    }
}

/// What single boards take of single ports, and how many ports there are.
fn ports(cluster: &Cluster, findings: &mut Vec<Finding>) {
    for supply in &cluster.power.supplies {
        let feeds = |by: &str| by.split('/').next() == Some(supply.name.as_str());
        let fed = cluster.boards.iter().filter(|b| b.powered_by.as_deref().is_some_and(feeds));
        let fed: Vec<&Board> = fed.collect();
        if let Some(ports) = supply.ports.filter(|ports| fed.len() > *ports as usize) {
            let reason = format!("it has {ports} ports for {} boards", fed.len());
            let advice = "take one with more ports, or feed some boards from another";
            findings.push(Finding::error(&supply.name, reason, advice));
        }
        for board in fed {
            let maximum = watts(cluster, of_board(board)).1;
            if let Some(gives) = supply.watts_per_port.filter(|gives| maximum > *gives) {
                let reason = format!(
                    "with its parts it takes {} W at the most, and a port of {} gives {} W",
                    figure(maximum),
                    supply.name,
                    figure(gives)
                );
                let advice = "take a supply with stronger ports, or feed its disks by themselves";
                findings.push(Finding::error(&board.name, reason, advice));
            }
            if supply.poe && !board.parts.iter().any(|part| part.starts_with("poe-")) {
                let reason =
                    format!("{} gives Power over Ethernet, and it has no HAT for it", supply.name);
                let advice = "add `poe-hat` or `poe-plus-hat` to its `parts`";
                findings.push(Finding::warning(&board.name, reason, advice));
            }
        }
    }
}

/// To a hundredth: more would be noise of the arithmetic.
fn rounded(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}
