use super::*;

/// The schema as the model says it.
fn made() -> serde_json::Value {
    let settings = schemars::generate::SchemaSettings::draft2020_12();
    let schema = settings.into_generator().into_root_schema_for::<Cluster>();
    let mut schema = schema.to_value();
    tidy(&mut schema);
    schema["title"] = "cluster.yaml of Coracle".into();
    schema
}

/// Unknown keys are mistakes everywhere (serde cannot say so of a board, whose settings are
/// flattened), line breaks of doc comments mean nothing, and whole defaults say nothing.
fn tidy(schema: &mut serde_json::Value) {
    match schema {
        serde_json::Value::Array(items) => items.iter_mut().for_each(tidy),
        serde_json::Value::Object(keys) => {
            if keys.get("properties").is_some_and(serde_json::Value::is_object)
                && !keys.contains_key("additionalProperties")
            {
                keys.insert("additionalProperties".into(), false.into());
            }
            if keys.get("default").is_some_and(|d| d.is_object() || d.is_null() || d.is_array()) {
                keys.shift_remove("default");
            }
            if keys.get("additionalProperties") == Some(&serde_json::json!({"type": "string"})) {
                let scalars = serde_json::json!({"type": ["string", "number", "boolean"]});
                keys.insert("additionalProperties".into(), scalars);
            }
            if let Some(serde_json::Value::String(text)) = keys.get_mut("description") {
                *text = plain(text);
            }
            keys.values_mut().for_each(tidy);
        }
        _ => {}
    }
}

/// A doc comment as a person outside of Rust reads it.
fn plain(text: &str) -> String {
    let text = text.replace('\n', " ");
    let links = [
        ("[`Cluster::ssh`]", "`ssh` of the cluster"),
        ("[`Cluster::defaults`]", "`defaults`"),
        ("[`Power::supplies`]", "`power.supplies`"),
    ];
    links.iter().fold(text, |text, (link, plain)| text.replace(link, plain))
}

#[test]
fn the_schema_is_what_the_model_says() {
    let made = serde_json::to_string_pretty(&made()).expect("JSON") + "\n";
    if std::env::var_os("CORACLE_GENERATE").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/config/cluster.schema.json");
        std::fs::write(path, &made).expect("written");
    } else {
        assert!(made == SCHEMA, "run this test again with CORACLE_GENERATE=1 to write it anew");
    }
    assert!(!made.contains("[`"), "a link that means nothing outside of Rust");
}

/// A cluster in which nothing is wrong, and which has something of everything.
const FINE: &str = "\
name: home
network: {subnet: 192.168.1.0/24, gateway: 192.168.1.1, vip: 192.168.1.40}
token: {file: token}
defaults: {timezone: Europe/Berlin, sysctl: {vm.swappiness: 10}, journal: 0, ntp: [pool.ntp.org]}
power:
  supplies: [{name: switch, watts: 60, wattsPerPort: 15.4, ports: 4, poe: true}]
server: {disable-agent: true}
boards:
  - name: pi1
    roles: [server]
    address: 192.168.1.11
    mac: dc:a6:32:00:00:01
    poweredBy: switch/1
    labels: {disk: ssd, rack: 1}
    ntp: [192.168.1.1]
    sysctl: {net.core.somaxconn: '4096'}
  - name: pi2
    address: 192.168.1.12
    taints: ['gpu=yes:NoSchedule']
    wifi: {ssid: home, passphrase: {env: WIFI}, country: NO}
    ssh: {user: pi}
";

fn flags() -> Flags {
    let of = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
    Flags {
        server: of(&["disable-agent", "max-pods", "node-name"]),
        agent: of(&["max-pods"]),
        refuses: None,
    }
}

fn parse(text: &str) -> Result<Cluster, String> {
    Cluster::parse(text, "cluster.yaml", &flags()).map_err(|problems| problems.to_string())
}

#[test]
fn settings_are_joined_with_what_all_have_in_common() {
    let cluster = parse(FINE).expect("fine");
    let [first, second] = cluster.boards.as_slice() else { panic!("two boards") };
    let own = cluster.settings(first);
    assert_eq!(own.timezone.as_deref(), Some("Europe/Berlin"));
    assert_eq!(own.journal.as_deref(), Some("0"));
    assert_eq!(own.ntp, ["192.168.1.1"]);
    let sysctl: Vec<_> = own.sysctl.iter().map(|(key, value)| format!("{key}={value}")).collect();
    assert_eq!(sysctl, ["net.core.somaxconn=4096", "vm.swappiness=10"]);
    assert_eq!(cluster.settings(second).ntp, ["pool.ntp.org"]);
    // No is a country, whatever YAML thinks of it.
    assert_eq!(cluster.settings(second).wifi.expect("wifi").country, "NO");
    assert_eq!(cluster.ssh(second).user.as_deref(), Some("pi"));
    assert!(first.is_server() && !first.is_agent() && second.is_agent());
    assert_eq!(first.labels["rack"], "1");
    assert!(!cluster.runs_etcd());
}

#[test]
fn what_is_written_reads_as_the_same() {
    let cluster = parse(FINE).expect("fine");
    let written = serde_saphyr::to_string(&cluster).expect("written");
    assert_eq!(parse(&written), Ok(cluster));
}

#[test]
fn all_mistakes_are_told_at_once_with_their_places() {
    let text = "\
name: Home
netwrok: {}
boards:
  - name: pi1
    rolls: [server]
    adress: 192.168.1.11
  - name: pi2
    roles: master
    address: 192.168.1
    swap: maybe
  - hostname: pi3
    roles: [sever]
    ssh: {port: 70000}
";
    let expected = r#"cluster.yaml:2:1: `netwrok` is no key
  2 | netwrok: {}
    | ^
  did you mean `network`?
cluster.yaml:5:5: `rolls` is no key in `boards[0]`
  5 |     rolls: [server]
    |     ^
  did you mean `roles`?
cluster.yaml:6:5: `adress` is no key in `boards[0]`
  6 |     adress: 192.168.1.11
    |     ^
  did you mean `address`?
cluster.yaml:8:12: `boards[1].roles` is "master", and a list is needed
  8 |     roles: master
    |            ^
  did you mean `[server]`?
cluster.yaml:9:14: `boards[1].address` is "192.168.1", and an IP address is needed
  9 |     address: 192.168.1
    |              ^
  write it as 192.168.1.11
cluster.yaml:10:11: `boards[1].swap` is "maybe", and true or false is needed
  10 |     swap: maybe
     |           ^
cluster.yaml:11:5: `hostname` is no key in `boards[2]`
  11 |   - hostname: pi3
     |     ^
  did you mean `name`?
cluster.yaml:11:5: `boards[2]`: `address` is missing
  11 |   - hostname: pi3
     |     ^
cluster.yaml:12:13: `boards[2].roles[0]` is "sever", which it cannot be
  12 |     roles: [sever]
     |             ^
  did you mean `server`?
cluster.yaml:13:17: `boards[2].ssh.port` is `70000`, and a whole number of 0 to 65535 is needed
  13 |     ssh: {port: 70000}
     |                 ^"#;
    assert_eq!(parse(text).expect_err("wrong"), expected);
}

#[test]
fn an_unknown_key_does_not_hide_what_the_rules_find() {
    let text = FINE.replace("token:", "tokn:").replace("192.168.1.12", "192.168.1.11");
    let told = parse(&text).expect_err("wrong");
    assert!(told.contains("did you mean `token`?"), "{told}");
    assert!(
        told.contains("18:14: two boards have the address 192.168.1.11; the first is on line 11"),
        "{told}"
    );
}

#[test]
fn what_a_slip_was_meant_to_be_is_checked_too() {
    let told = parse(&FINE.replace("address: 192.168.1.12", "adress: 192.168.1.11"));
    let told = told.expect_err("wrong");
    assert!(!told.contains("is missing"), "{told}");
    // There is no `address`; the board that lacks it is the nearest place.
    assert!(told.contains("17:5: two boards have the address 192.168.1.11"), "{told}");
}

/// Part of the file, what stands there instead, and what is told about it.
const WRONG: &[(&str, &str, &str)] = &[
    ("name: home", "name: my home", "1:7: `name` is \"my home\", and small letters, digits"),
    ("name: home", "name: My_home", "did you mean `my-home`?"),
    ("name: pi2", "name: pi1", "17:11: two boards have the name pi1; the first is on line 9"),
    ("dc:a6:32:00:00:01", "dc:a6:32", "12:10: `boards[0].mac` is \"dc:a6:32\", and a board's own"),
    ("[server]", "[agent]", "9:3: no board is a server"),
    ("[server]", "[server, agent]", "10:12: a server runs pods as agents do"),
    ("192.168.1.12", "192.168.2.12", "18:14: 192.168.2.12 is not in the boards' network"),
    ("192.168.1.12", "192.168.1.255", "18:14: 192.168.1.255 is the broadcast address of"),
    ("192.168.1.12", "192.168.1.0", "18:14: 192.168.1.0 is the network itself of"),
    ("192.168.1.12", "192.168.1.1", "18:14: 192.168.1.1 is the gateway's address"),
    ("192.168.1.12", "192.168.1.40", "18:14: 192.168.1.40 is the virtual address"),
    ("vip: 192.168.1.40", "vip: 10.0.0.1", "2:62: 10.0.0.1 is not in the boards' network"),
    ("vip: 192.168.1.40", "vip: 192.168.1.1", "2:62: the virtual address is the gateway's"),
    ("192.168.1.0/24", "192.168.1.5/24", "2:19: 192.168.1.5/24 is one address of a network"),
    (
        "vip: 192.168.1.40",
        "pods: 192.168.0.0/16",
        "2:63: the pods' addresses 192.168.0.0/16 overlap",
    ),
    (
        "vip: 192.168.1.40",
        "services: 10.42.128.0/17",
        "the services' addresses 10.42.128.0/17 overlap",
    ),
    ("vip: 192.168.1.40", "pods: 10.42.0.1/16", "and an IPv4 network of 8 to 24 bits is needed"),
    ("vip: 192.168.1.40", "router: {uplink: wlan0, inside: eth0}", "no board is a router"),
    (
        "    taints",
        "    roles: [router]\n    taints",
        "19:12: a router needs to know its two interfaces",
    ),
    ("switch/1", "swich", "13:16: there is no supply \"swich\""),
    ("switch/1", "switch/5", "13:16: switch has 4 ports, and 5 is none of them"),
    ("switch/1", "switch/x", "13:16: \"x\" is no port"),
    ("watts: 60", "watts: 0", "the supply switch gives no power"),
    ("disk: ssd", "disk: s s d", "14:20: `boards[0].labels.disk` is \"s s d\", and letters"),
    (
        "gpu=yes:NoSchedule",
        "gpu=yes",
        "19:14: `boards[1].taints[0]` is \"gpu=yes\", and `key=value:effect`",
    ),
    ("Europe/Berlin", "../etc", "`defaults.timezone` is \"../etc\", and a time zone"),
    ("journal: 0", "journal: much", "`defaults.journal` is \"much\", and an amount"),
    ("country: NO", "country: nope", "`boards[1].wifi.country` is \"nope\", and a country"),
    ("{disable-agent: true}", "{disable-agnt: true}", "7:24: `disable-agnt` is no flag of Coracle"),
    ("{disable-agent: true}", "{node-name: x}", "`node-name` is decided by the board's `name`"),
    ("{disable-agent: true}", "{max-pods: {a: b}}", "a list of these is needed"),
    (
        "token: {file: token}",
        "datastore: {external: {env: X, file: y}}",
        "is a map, and one key is needed",
    ),
    ("token: {file: token}", "token: fil", "did you mean `file`?"),
    ("token: {file: token}", "datastore: sqllite", "did you mean `sqlite`?"),
    ("vip: 192.168.1.40", "pods: 10.9.0.0/25", "and an IPv4 network of 8 to 24 bits is needed"),
    ("vip: 192.168.1.40", "services: 10.9.0.0/29", "and an IPv4 network of 8 to 28 bits is"),
    ("vip: 192.168.1.40", "pods: 10.43.0.0/16", "the services' addresses 10.43.0.0/16 overlap"),
    ("user: pi", "user: pi, host: -oProxyCommand=x", "and a name or an address is needed"),
    ("user: pi", "user: pi, jump: 'a b'", "`boards[1].ssh.jump` is \"a b\""),
    ("user: pi", "user: pi, port: 0", "and a port is needed"),
    ("name: home", "name: home\n---\nname: b", "there are several documents in it"),
    ("name: home", "name: home\nname: house", "this is no YAML: duplicate mapping key: name\n"),
    ("  - name: pi2\n    a", "  - name: pi2\n\ta", "line 18 begins with a tab: use spaces"),
    ("name: home", "name: [", "this is no YAML"),
];

/// What people write who have not read that a secret stands elsewhere.
#[test]
fn a_secret_in_the_file_itself_is_shown_to_nobody() {
    let at = "token: {file: token}";
    let places = "write one of {file: ...}, {env: ...}, {command: ...}";
    for (instead, expected) in [
        ("token: K10s3cret", places),
        ("token: {value: s3cret}", "it is one of file, env, command"),
        ("tokn: s3cret", "did you mean `token`?"),
        ("ssh: {usr: pi, sudoPassword: s3cret}", "did you mean `user`?"),
        ("ssh: {password: s3cret}", "did you mean `sudoPassword`?"),
        ("datastore: postgres://u:s3cret@h/d", "write one of auto, sqlite, etcd, {external: ...}"),
    ] {
        let told = parse(&FINE.replacen(at, instead, 1)).expect_err("wrong");
        assert!(told.contains(expected), "{told}");
        assert!(!told.contains("s3cret"), "{told}");
    }
    let told = parse(&FINE.replacen(at, "token: K10s3cret", 1)).expect_err("wrong");
    assert!(told.contains("\n  3 | token: [hidden]\n    |        ^\n  write one of"), "{told}");
    assert_eq!(parse("").expect_err("empty").lines().count(), 2);
}

#[test]
fn each_rule_points_at_what_breaks_it() {
    let mut missed = Vec::new();
    for (part, instead, expected) in WRONG {
        assert!(FINE.contains(part), "{part}");
        let told = parse(&FINE.replacen(part, instead, 1)).err().unwrap_or_default();
        if !told.contains(expected) {
            missed.push(format!("{instead}: {expected}\n{told}"));
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n\n"));
}

#[test]
fn two_servers_on_sqlite_and_fixed_addresses_of_no_network_are_refused() {
    let text = "name: a\ndatastore: sqlite\nnetwork: {addressing: static}\nboards:\n\
                - {name: a, address: 10.0.0.1, roles: [server]}\n\
                - {name: b, address: 10.0.0.2, roles: [server]}\n";
    let told = parse(text).expect_err("wrong");
    assert!(told.contains("SQLite is on one server, and 2 boards are servers"), "{told}");
    assert!(told.contains("fixed addresses need to know the network"), "{told}");
}

#[test]
fn addresses_are_looked_at_without_a_network_around_them_too() {
    for (network, board, expected) in [
        ("", "192.168.1.11", ""),
        ("", "'fd00::11'", ""),
        ("", "10.43.0.11", "3:31: 10.43.0.11 is one of the services' addresses 10.43.0.0/16"),
        (
            "pods: 192.168.0.0/16",
            "192.168.1.11",
            "3:31: 192.168.1.11 is one of the pods' addresses",
        ),
        ("vip: 10.42.0.9", "192.168.1.11", "2:16: 10.42.0.9 is one of the pods' addresses"),
        ("vip: 192.168.1.11", "192.168.1.11", "3:31: 192.168.1.11 is the virtual address"),
        ("", "127.0.0.1", "3:31: 127.0.0.1 is no address that others reach a board at"),
        ("", "0.0.0.0", "0.0.0.0 is no address"),
        ("", "224.0.0.1", "224.0.0.1 is no address"),
        ("", "255.255.255.255", "255.255.255.255 is no address"),
        ("", "'fe80::1'", "fe80::1 is no address"),
    ] {
        let text = format!(
            "name: home\nnetwork: {{{network}}}\nboards: [{{name: pi1, address: {board}, roles: [server]}}]\n"
        );
        let said = parse(&text).err().unwrap_or_default();
        assert!(said.contains(expected) && said.is_empty() == expected.is_empty(), "{text}{said}");
    }
    assert!(parse(&FINE.replace("name: pi2", "name: localhost")).is_err());
}

#[test]
fn what_the_binary_says_of_a_value_is_told_with_its_place() {
    let refuses: Refuses =
        |command, key, value| (value == "many").then(|| format!("{command} --{key} is odd"));
    let flags = Flags { refuses: Some(refuses), ..flags() };
    let text = FINE.replace("{disable-agent: true}", "{max-pods: many}");
    let told = Cluster::parse(&text, "cluster.yaml", &flags).expect_err("refused").to_string();
    assert!(told.contains("`server.max-pods`: server --max-pods is odd"), "{told}");
}

#[test]
fn a_router_reserves_addresses_and_gives_none_twice() {
    let text = "name: a\nnetwork:\n  subnet: 10.9.0.0/24\n  router:\n    uplink: wlan0\n    \
                inside: eth0\n    dynamic: [10.9.0.1, 10.9.0.200]\nboards:\n\
                - {name: r, address: 10.9.0.1, roles: [server, router]}\n\
                - {name: b, address: 10.9.0.2}\n";
    let told = parse(text).expect_err("wrong");
    assert!(told.contains("7:14: 10.9.0.1 is in use and would be given to others"), "{told}");
    assert!(told.contains("10:3: b has no `mac`"), "{told}");
    let reversed = parse(&text.replace("[10.9.0.1, 10.9.0.200]", "[10.9.0.200, 10.9.0.100]"));
    let told = reversed.expect_err("wrong");
    assert!(told.contains("7:14: 10.9.0.200 comes after 10.9.0.100"), "{told}");
    let mended = text
        .replace("[10.9.0.1,", "[10.9.0.100,")
        .replace("{name: b,", "{name: b, mac: 'dc:a6:32:00:00:02',");
    assert!(parse(&mended).is_ok());
}

#[test]
fn a_token_that_others_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    let (file, token) = (folder.path().join("cluster.yaml"), folder.path().join("token"));
    std::fs::write(&file, FINE).expect("written");
    // One that is not there yet is no concern of planning.
    assert_eq!(Cluster::read(&file, &flags()).expect("read").folder, folder.path());
    std::fs::write(&token, "K10x").expect("written");
    let mode = |mode| {
        std::fs::set_permissions(&token, std::fs::Permissions::from_mode(mode)).expect("mode");
    };
    mode(0o644);
    let told = Cluster::read(&file, &flags()).expect_err("refused").to_string();
    assert!(told.contains("cluster.yaml:3:8: others can read the secret in"), "{told}");
    mode(0o600);
    let cluster = Cluster::read(&file, &flags()).expect("read");
    let secret = cluster.token.as_ref().expect("a token");
    assert_eq!(cluster.secret(secret).expect("the token").expose(), "K10x");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let told =
        Cluster::read(std::path::Path::new("/none/cluster.yaml"), &flags()).expect_err("none");
    assert_eq!(told.to_string(), "/none/cluster.yaml: No such file or directory (os error 2)");
}

#[test]
fn half_a_file_is_told_and_nothing_panics() {
    let told = (1..FINE.len()).filter(|end| FINE.is_char_boundary(*end));
    let wrong = told.filter(|end| parse(&FINE[..*end]).is_err()).count();
    assert!(wrong > FINE.len() / 2, "{wrong} of {} beginnings are wrong", FINE.len());
}
