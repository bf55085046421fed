//! A plan as people read it.

use super::boards::{BoardPlan, KEPT_FREE_MIB, SYSTEM_MIB, SYSTEM_MILLICORES};
use super::money::{figure, money};
use super::render::{Section, Style, render};
use super::{Finding, Level, Plan, storage};
use crate::config::{Architecture, Role};

impl Plan {
    /// The plan for people.
    pub fn report(&self, style: Style) -> String {
        let mut sections =
            vec![self.roles(), self.left(), self.wear(), self.addresses(), self.watts()];
        sections.extend([self.supplies(), self.month(), self.found(style)].into_iter().flatten());
        let head = match style {
            Style::Text => format!("Plan of the cluster {}\n\n", self.cluster),
            Style::Markdown => format!("# Plan of the cluster {}\n\n", self.cluster),
        };
        head + &render(&sections, style)
    }

    fn roles(&self) -> Section {
        let quorum = &self.quorum;
        let mut section = Section::new("Roles");
        let servers = quorum.servers.len();
        section.lines = vec![
            format!(
                "servers: {servers} ({}), agents: {}",
                quorum.servers.join(", "),
                quorum.agents
            ),
            format!("datastore: {}", quorum.datastore),
            format!(
                "majority: {} of {servers}; servers that may fail: {}",
                quorum.majority, quorum.may_fail
            ),
            format!("one server more: {}", quorum.one_more),
        ];
        let others = self.boards.iter();
        let routers = others.clone().filter(|board| board.roles.contains(&Role::Router));
        section.lines.extend(routers.map(|board| format!("router: {}", board.name)));
        let switches = others.filter(|board| board.switches_power);
        section.lines.extend(switches.map(|board| format!("switches power: {}", board.name)));
        section
    }

    fn left(&self) -> Section {
        let mut section = Section::new("Left for workloads");
        let head =
            ["board", "roles", "model", "processor", "memory", "Coracle", "left", "CPU left"];
        section.row(head.map(str::to_owned));
        for board in &self.boards {
            let roles = board.roles.iter().map(|role| role_name(*role)).collect::<Vec<_>>();
            let or_unknown = |text: Option<String>| text.unwrap_or_else(|| "?".into());
            section.row([
                board.name.clone(),
                roles.join(", "),
                or_unknown(board.model.clone()),
                or_unknown(processor(board)),
                or_unknown(board.memory_mib.map(|mib| format!("{mib} MiB"))),
                format!("{} MiB", board.coracle_mib),
                or_unknown(board.left_mib.map(|mib| format!("{mib} MiB"))),
                or_unknown(board.left_millicores.map(|left| format!("{left}m"))),
            ]);
        }
        section.notes = vec![
            format!(
                "The system is taken as {SYSTEM_MIB} MiB and {SYSTEM_MILLICORES}m, and \
                 {KEPT_FREE_MIB} MiB are kept free; Coracle as it was measured at idle, an agent as \
                 promised."
            ),
            "arm64 is what boards can: their system has to be a 64-bit one, too. The kernel has to \
             have the memory control group on; `coracle image prepare` and `coracle up` see to it."
                .into(),
        ];
        section
    }

    fn wear(&self) -> Section {
        let mut section = Section::new("Storage");
        let head = ["board", "storage", "size", "may be written", "writes an hour", "lasts"];
        section.row(head.map(str::to_owned));
        for wear in &self.storage {
            let endurance = wear.endurance_gb.map(|gb| {
                let sort = if wear.rated { "rated" } else { "guess" };
                format!("{} TB ({sort})", figure(gb as f64 / 1000.0))
            });
            section.row([
                wear.board.clone(),
                wear.kind.map_or("?", storage::name).to_owned(),
                wear.size.clone().unwrap_or_else(|| "?".into()),
                endurance.unwrap_or_else(|| "?".into()),
                format!("{} MiB", wear.writes_mib_per_hour),
                wear.lasts(),
            ]);
        }
        section.notes.push(
            "Coracle's own writes at idle; small durable writes count 4 to 16 times, since flash \
             rewrites whole blocks. What workloads write comes on top."
                .into(),
        );
        section
    }

    fn addresses(&self) -> Section {
        let network = &self.network;
        let mut section = Section::new("Network");
        let moves = if network.moves { ", on one server at any time" } else { "" };
        section.lines.push(format!("API: {}{moves}", network.api));
        if let Some(subnet) = network.subnet {
            let gateway = network.gateway.map(|gateway| format!(", gateway {gateway}"));
            let gateway = gateway.unwrap_or_default();
            section.lines.push(format!("boards: {subnet}{gateway}"));
        }
        if let Some((first, last)) = network.dynamic {
            section.lines.push(format!("other hosts: {first} to {last}, by the router board"));
        }
        section.lines.push(format!(
            "pods: {} ({} boards of 256 addresses), services: {}",
            network.pods, network.pod_blocks, network.services
        ));
        section.row(["address", "name", "how"].map(str::to_owned));
        for entry in &network.addresses {
            section.row([entry.address.to_string(), entry.name.clone(), entry.how.to_owned()]);
        }
        section
    }

    fn watts(&self) -> Section {
        let power = &self.power;
        let mut section = Section::new("Power");
        let mut sources: Vec<&str> = Vec::new();
        section.row(["part", "count", "average", "maximum", "source"].map(str::to_owned));
        for draw in &power.draws {
            let times = |watts: f64| format!("{} W", figure(watts * draw.count as f64));
            let known = sources.iter().position(|source| *source == draw.source);
            let source = known.unwrap_or_else(|| {
                sources.push(&draw.source);
                sources.len() - 1
            });
            section.row([
                draw.name.clone(),
                draw.count.to_string(),
                times(draw.average_watts),
                times(draw.maximum_watts),
                format!("[{}]", source + 1),
            ]);
        }
        let watts = |watts: f64| format!("{} W", figure(watts));
        let (average, maximum) = (watts(power.average_watts), watts(power.maximum_watts));
        section.row(["all".into(), String::new(), average, maximum, String::new()]);
        let numbered = sources.iter().enumerate();
        section.notes = numbered.map(|(i, source)| format!("[{}] {source}", i + 1)).collect();
        section.notes.push("What supplies lose themselves, 10 to 20 %, comes on top.".into());
        section
    }

    fn supplies(&self) -> Option<Section> {
        let mut section = Section::new("Supplies");
        let head = ["supply", "gives", "average", "maximum", "spare", "port", "busiest", "boards"];
        section.row(head.map(str::to_owned));
        for fed in &self.power.supplies {
            let watts = |watts: f64| format!("{} W", figure(watts));
            section.row([
                fed.supply.clone(),
                watts(fed.watts),
                watts(fed.average_watts),
                watts(fed.maximum_watts),
                format!("{} %", figure(fed.headroom_percent.round())),
                fed.port_watts.map_or_else(|| "-".into(), watts),
                watts(fed.port_maximum_watts),
                fed.boards.join(", "),
            ]);
        }
        (!self.power.supplies.is_empty()).then_some(section)
    }

    fn month(&self) -> Option<Section> {
        let month = &self.power.month;
        let mut section = Section::new("A month of 730 hours");
        let cost = |cost: Option<f64>| {
            cost.map(|cost| format!(", {}", money(cost, &month.currency))).unwrap_or_default()
        };
        section.lines = vec![
            format!("on average: {:.2} kWh{}", month.average_kwh, cost(month.average_cost)),
            format!("at full load: {:.2} kWh{}", month.maximum_kwh, cost(month.maximum_cost)),
        ];
        if let Some(cloud) = month.cloud_cost {
            let saved = month.average_cost.map(|own| {
                let (sum, word) = match cloud - own {
                    less if less >= 0.0 => (less, "less"),
                    more => (-more, "more"),
                };
                format!("; electricity here is {} {word}", money(sum, &month.currency))
            });
            let saved = saved.unwrap_or_default();
            section.lines.push(format!("cloud: {}{saved}", money(cloud, &month.currency)));
        }
        (self.power.average_watts > 0.0).then_some(section)
    }

    fn found(&self, style: Style) -> Option<Section> {
        let mut section = Section::new("Warnings and errors");
        section.lines = joined(&self.findings).iter().map(|finding| finding.line(style)).collect();
        (!self.findings.is_empty()).then_some(section)
    }
}

/// Findings with what is the same on several boards said once.
fn joined(findings: &[Finding]) -> Vec<Finding> {
    let mut list: Vec<Finding> = Vec::new();
    for finding in findings {
        let same = |other: &&mut Finding| {
            Finding { about: finding.about.clone(), ..(**other).clone() } == *finding
        };
        match list.iter_mut().find(same) {
            Some(other) => other.about = format!("{}, {}", other.about, finding.about),
            None => list.push(finding.clone()),
        }
    }
    list
}

impl Finding {
    /// One finding on one line, which `render` breaks where it must.
    fn line(&self, style: Style) -> String {
        let Finding { level, about, reason, advice } = self;
        let level = match level {
            Level::Warning => "warning",
            Level::Error => "error",
        };
        match style {
            Style::Text => format!("{level}: {about}: {reason}. To do: {advice}."),
            Style::Markdown => format!("**{level}**: {about}: {reason}. To do: {advice}."),
        }
    }
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Server => "server",
        Role::Agent => "agent",
        Role::Router => "router",
    }
}

fn processor(board: &BoardPlan) -> Option<String> {
    let name = architecture(board.architecture?);
    Some(board.cores.map_or_else(|| name.to_owned(), |cores| format!("{cores} x {name}")))
}

fn architecture(one: Architecture) -> &'static str {
    match one {
        Architecture::Arm64 => "arm64",
        Architecture::Armv7 => "armv7",
        Architecture::Armv6 => "armv6",
        Architecture::Amd64 => "amd64",
    }
}
