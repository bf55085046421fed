use super::*;

/// Answers in their order, and keeps what it was told.
struct Script<'a> {
    answers: Vec<&'a str>,
    told: Vec<String>,
}

impl Ask for Script<'_> {
    fn ask(&mut self, _: &str, _: &str) -> io::Result<Option<String>> {
        Ok((!self.answers.is_empty()).then(|| self.answers.remove(0).to_owned()))
    }

    fn tell(&mut self, what: &str) {
        self.told.push(what.to_owned());
    }
}

fn script<'a>(answers: &[&'a str]) -> Script<'a> {
    Script { answers: answers.to_vec(), told: Vec::new() }
}

fn board(text: &str) -> NewBoard {
    text.parse().expect("a board")
}

fn cluster(text: &str) -> Cluster {
    Cluster::parse(text, "cluster.yaml", &Flags::default()).expect("a cluster")
}

#[test]
fn answers_become_a_cluster() {
    let mut script = script(&[
        "attic",
        "pi1=192.168.7.11",
        "pi2=192.168.7.12",
        "pi3=192.168.7.13",
        "",
        "",
        "",
        "",
        "192.168.7.40",
        "",
        "",
        "debian",
    ]);
    let text = compose(Given::default(), Some(&mut script)).expect("composed");
    assert_eq!(script.told, Vec::<String>::new());
    let cluster = cluster(&text);
    assert_eq!(cluster.name, "attic");
    assert_eq!(cluster.servers().count(), 3);
    assert_eq!(
        cluster.network.subnet.map(|net| net.to_string()).as_deref(),
        Some("192.168.7.0/24")
    );
    assert_eq!(cluster.network.vip, Some("192.168.7.40".parse().expect("an address")));
    assert_eq!(cluster.network.gateway, Some("192.168.7.1".parse().expect("an address")));
    assert_eq!(cluster.boards[0].model.as_deref(), Some("raspberry-pi-4-4gb"));
    assert_eq!(cluster.ssh.user.as_deref(), Some("debian"));
}

#[test]
fn an_answer_that_cannot_be_is_asked_for_again() {
    let mut script =
        script(&["My Cluster", "attic", "", "pi1", "pi1=10.0.0.1", "", "", "", "0", "1"]);
    let given =
        Given { model: Some("raspberry-pi-2".into()), user: Some("pi".into()), ..Given::default() };
    let given = Given { addressing: Some(Addressing::Static), ..given };
    compose(given, Some(&mut script)).expect_err("the gateway is the only board's address");
    assert_eq!(script.told.len(), 4, "{:?}", script.told);
    assert!(script.told[1].contains("one board at the least"), "{:?}", script.told);
}

#[test]
fn input_that_ends_is_told_with_the_question() {
    let trouble = compose(Given::default(), Some(&mut script(&["attic"]))).expect_err("open");
    assert!(trouble.to_string().contains("Board 1"), "{trouble}");
}

#[test]
fn flags_alone_are_enough_where_nobody_can_be_asked() {
    let given = Given {
        boards: vec![board("a=10.0.0.11"), board("b=10.0.0.12")],
        subnet: Some("10.0.0.0/24".parse().expect("a network")),
        ..Given::default()
    };
    let cluster = cluster(&compose(given, None).expect("composed"));
    assert_eq!((cluster.servers().count(), cluster.agents().count()), (1, 1));
    assert_eq!(cluster.network.addressing, Addressing::Static);
    let trouble = compose(Given::default(), None).expect_err("no boards");
    assert!(trouble.hint().contains("--board"), "{trouble}");
}

#[test]
fn what_makes_no_cluster_is_not_written() {
    let boards = vec![board("a=10.0.0.11"), board("a=10.0.0.11")];
    let trouble = compose(Given { boards, ..Given::default() }, None).expect_err("twice");
    assert!(trouble.to_string().contains("two boards have the name a"), "{trouble}");
    let given = Given { boards: vec![board("a=10.0.0.11")], servers: Some(5), ..Given::default() };
    let trouble = compose(given, None).expect_err("five of one");
    assert!(trouble.to_string().contains("more servers than boards: 5, and 1 board"), "{trouble}");
}

#[test]
fn a_file_that_is_there_stays() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("cluster.yaml");
    write(&path, "first").expect("written");
    let trouble = write(&path, "second").expect_err("refused");
    assert!(trouble.to_string().contains("is there already"), "{trouble}");
    assert_eq!(std::fs::read_to_string(&path).expect("read"), "first");
}
