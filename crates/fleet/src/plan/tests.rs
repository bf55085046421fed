use std::path::{Path, PathBuf};

use super::*;
use crate::config::Flags;

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name)
}

fn plan_of(name: &str) -> Plan {
    let cluster = Cluster::read(&example(name), &Flags::default());
    Plan::of(&cluster.unwrap_or_else(|problems| panic!("{problems}")))
}

fn plan(text: &str) -> Plan {
    let cluster = Cluster::parse(text, "cluster.yaml", &Flags::default());
    Plan::of(&cluster.unwrap_or_else(|problems| panic!("{problems}")))
}

/// Compares with the text beside an example, or writes that with CORACLE_GENERATE=1.
fn reads_as(file: &str, told: &str) {
    let path = example(file);
    if std::env::var_os("CORACLE_GENERATE").is_some() {
        return std::fs::write(path, told).expect("written");
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(expected == told, "{} is not as expected:\n{told}", path.display());
}

#[test]
fn what_is_the_same_on_several_boards_is_said_once() {
    let text = "name: a\nboards:\n- {name: a, address: 10.0.0.1, roles: [server]}\n\
                - {name: b, address: 10.0.0.2}\n";
    let plan = plan(text);
    let unknown = |about: &str| format!("warning: {about}: nothing is known of its processor");
    let told = plan.report(Style::Text);
    assert!(told.contains(&unknown("a, b")) && !told.contains(&unknown("b")), "{told}");
    assert_eq!(plan.findings.iter().filter(|f| f.reason.starts_with("nothing")).count(), 2);
}

#[test]
fn examples_read_as_the_texts_beside_them() {
    for name in ["five-boards", "three-masters", "router-and-seven", "poe-with-sticks"] {
        let plan = plan_of(&format!("{name}.yaml"));
        assert!(!plan.fails(), "{name}: {:?}", plan.findings);
        reads_as(&format!("{name}.txt"), &plan.report(Style::Text));
    }
    let markdown = plan_of("five-boards.yaml").report(Style::Markdown);
    reads_as("five-boards.md", &markdown);
}

#[test]
fn five_boards_take_what_their_builder_reckoned() {
    let power = plan_of("five-boards.yaml").power;
    assert_eq!((power.average_watts, power.maximum_watts), (37.25, 59.0));
}

#[test]
fn three_boards_at_full_load_take_13_31_kilowatt_hours_a_month() {
    assert_eq!(plan_of("three-masters.yaml").power.month.maximum_kwh, 13.31);
}

#[test]
fn boards_of_which_nothing_is_known_take_nothing_and_no_less() {
    let text = plan("name: a\nboards: [{name: n, address: 10.0.0.1, roles: [server]}]\n")
        .report(Style::Text);
    let all = text.lines().find(|line| line.trim_start().starts_with("all ")).expect("a sum");
    assert_eq!(all.split_whitespace().collect::<Vec<_>>(), ["all", "0", "W", "0", "W"]);
}

/// A cluster of so many servers, and whatever else is said.
fn servers(count: usize, further: &str) -> String {
    let board = |i: usize| {
        format!(
            "- {{name: n{i}, address: 10.0.0.{i}, roles: [server], model: raspberry-pi-4-4gb}}\n"
        )
    };
    let boards: String = (1..=count).map(board).collect();
    format!(
        "name: x\nnetwork: {{subnet: 10.0.0.0/24, addressing: static, vip: 10.0.0.99}}\n\
         defaults: {{storage: {{kind: ssd, size: 240GB}}}}\n{further}boards:\n{boards}"
    )
}

#[test]
fn a_majority_is_more_than_half() {
    let expected = [
        (1, 1, 0, "nothing: two servers need each other; three servers bear one failure"),
        (2, 2, 0, "of 3 servers 1 may fail"),
        (3, 2, 1, "nothing: of 4 servers 1 may fail, too"),
        (4, 3, 1, "of 5 servers 2 may fail"),
        (5, 3, 2, "nothing: of 6 servers 2 may fail, too"),
    ];
    for (count, majority, may_fail, one_more) in expected {
        let quorum = plan(&servers(count, "")).quorum;
        assert_eq!((quorum.majority, quorum.may_fail), (majority, may_fail), "{count} servers");
        assert_eq!(quorum.one_more, one_more, "{count} servers");
    }
    let external = plan(&servers(2, "datastore: {external: {env: URL}}\n")).quorum;
    assert_eq!((external.majority, external.may_fail), (1, 1));
}

/// What a cluster's findings are about, and how they begin.
fn findings(text: &str) -> Vec<String> {
    let one = |f: &Finding| format!("{:?} {}: {}", f.level, f.about, f.reason);
    plan(text).findings.iter().map(one).collect()
}

#[track_caller]
fn finds(text: &str, expected: &str) {
    let found = findings(text);
    assert!(found.iter().any(|finding| finding.starts_with(expected)), "{expected}: {found:#?}");
}

#[test]
fn nothing_is_found_where_nothing_is_wrong() {
    assert_eq!(findings(&servers(3, "")), Vec::<String>::new());
}

#[test]
fn what_does_not_work_is_found_before_it_is_bought() {
    let with = |part: &str, instead: &str| servers(3, "").replacen(part, instead, 1);
    let model = |model: &str| with("raspberry-pi-4-4gb", model);
    let fed = |supply: &str| {
        let power = format!("power: {{supplies: [{supply}]}}\n");
        servers(1, &power).replace("roles:", "poweredBy: s, roles:")
    };
    finds(&servers(2, ""), "Warning cluster: two servers need each other");
    finds(&servers(4, ""), "Warning cluster: of 4 servers 1 may fail, as of 3");
    finds(&servers(7, ""), "Warning cluster: every write waits for 4 of 7 servers");
    finds(&servers(1, ""), "Warning network: a virtual address of one server goes nowhere");
    finds(&with(", vip: 10.0.0.99", ""), "Warning cluster: clients and agents know one server's");
    finds(&with("addressing: static, ", ""), "Warning network: the boards' addresses come from");
    finds(
        &with("subnet:", "pods: 10.42.0.0/23, subnet:"),
        "Error network: 10.42.0.0/23 has 2 blocks",
    );
    finds(&model("raspberry-pi-zero-w"), "Error n1: its processor is an ARMv6");
    finds(&model("raspberry-pi-2"), "Warning n1: its processor is a 32-bit ARMv7");
    finds(&model("raspberry-pi-zero-2-w"), "Warning n1: 114 MiB are left for pods");
    finds(
        &with(", model: raspberry-pi-4-4gb", ""),
        "Warning n1: nothing is known of its processor",
    );
    finds(&with("kind: ssd", "kind: sd-card"), "Warning n1: etcd wants 50 durable writes");
    finds(
        &with("size: 240GB", "size: 240GB, endurance: 1TB"),
        "Warning n1: its SSD lasts about 3.0 years at 9 MiB an hour",
    );
    finds(&fed("{name: s, watts: 7}"), "Error s: it gives 7 W, and what it feeds takes 8 W");
    finds(
        &fed("{name: s, watts: 9}"),
        "Warning s: it gives 9 W, and what it feeds takes 8 W at the most: 11 %",
    );
    finds(&fed("{name: s, watts: 20, wattsPerPort: 7}"), "Error n1: with its parts it takes 8 W");
    finds(&fed("{name: s, watts: 20, ports: 0}"), "Error s: it has 0 ports for 1 boards");
    finds(&fed("{name: s, watts: 20, poe: true}"), "Warning n1: s gives Power over Ethernet");
    let dear = "power: {pricePerKwh: 10, cloudPricePerMonth: 5}\n";
    finds(
        &servers(1, dear),
        "Warning power: electricity alone is 21.90 EUR a month, and the cloud",
    );
}

#[test]
fn a_disk_that_is_not_described_is_not_taken_for_a_card() {
    let storage = "storage: {kind: ssd, size: 240GB}";
    let years = |instead: &str| plan(&servers(1, "").replace(storage, instead)).storage[0].lasts();
    assert_eq!(years("timezone: UTC"), "22 years");
    assert_eq!(years("data: {device: /dev/sda}"), "?");
    assert_eq!(years("data: {device: card}"), "22 years");
    assert_eq!(years("storage: {kind: hdd}"), "does not wear by writing");
}

#[test]
fn warnings_come_before_errors() {
    let text = servers(2, "").replacen("raspberry-pi-4-4gb", "raspberry-pi-1", 1);
    let levels: Vec<Level> = plan(&text).findings.iter().map(|finding| finding.level).collect();
    assert!(levels.is_sorted() && levels.contains(&Level::Error) && levels[0] == Level::Warning);
}

#[test]
fn programs_read_the_same_as_people() {
    let plan = plan_of("three-masters.yaml");
    let json = serde_json::to_value(&plan).expect("JSON");
    assert_eq!(json["quorum"]["majority"], 2);
    assert_eq!(json["power"]["month"]["maximumKwh"], 13.31);
    assert_eq!(json["network"]["api"], "https://192.168.1.40:6443");
    assert_eq!(json["boards"][0]["architecture"], "arm64");
}
