use std::sync::Mutex;

use super::*;
use crate::board::Service;
use crate::config::{Board, Cluster, Flags, Hidden};
use crate::facts::Facts;
use crate::ssh::{Answer, Refusal, Remote, SshError, Target, Work};

const STACK: &str = "
name: home
boards:
  - {name: a, address: 10.0.0.1, roles: [server]}
  - {name: b, address: 10.0.0.2}
  - {name: c, address: 10.0.0.3, labels: {disk: ssd}}
";
const ARM: &str = "aarch64";

fn stack(text: &str) -> Cluster {
    let flags = Flags::default();
    Cluster::parse(text, "cluster.yaml", &flags).unwrap_or_else(|problems| panic!("{problems}"))
}

/// A board as it comes from its maker, with lines of the test's own that come first.
fn bare(own: &str) -> Facts {
    let lines = "arch=aarch64\nkernel=6.1.0\nhostname=raspberrypi\ncgroup=2\ntimesync=systemd-timesyncd\n\
                 controllers=cpuset cpu io memory pids\ndone=yes\n";
    let keys = |line: &str| line.split('=').next().unwrap_or_default().to_owned();
    let mine: Vec<String> = own.lines().map(keys).collect();
    let rest = lines.lines().filter(|line| !mine.contains(&keys(line)));
    let text: Vec<&str> = own.lines().chain(rest).collect();
    Facts::parse(&text.join("\n")).expect("facts")
}

fn binaries() -> Binaries {
    let binary = Binary { path: "/bin/coracle".into(), sum: "5um".into(), bytes: 50 << 20 };
    Binaries::just(ARM, binary)
}

fn found<'a>(board: &'a Board, facts: Result<Facts, Refusal>) -> Found<'a> {
    let target = Target::new(board, &crate::config::Ssh::default());
    let facts = facts.map_err(|refusal| SshError::new(&board.name, refusal, "gone"));
    Found { board, target, facts }
}

fn base64(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text)
}

fn authority(name: &str) -> String {
    let pem = format!("-----BEGIN CERTIFICATE-----\n{name}\n-----END CERTIFICATE-----\n");
    format!("server-authority:={}\n", base64(&pem))
}

fn planned(cluster: &Cluster, facts: Vec<Result<Facts, Refusal>>) -> Result<Plan, Vec<String>> {
    let found: Vec<Found> =
        cluster.boards.iter().zip(facts).map(|(board, facts)| found(board, facts)).collect();
    let secrets = Secrets::default();
    plan(cluster, &found, &binaries(), &secrets, &[])
        .map_err(|list| list.iter().map(ToString::to_string).collect())
}

fn all_bare() -> Vec<Result<Facts, Refusal>> {
    vec![Ok(bare("")), Ok(bare("")), Ok(bare(""))]
}

#[test]
fn bare_boards_become_a_cluster() {
    let plan = planned(&stack(STACK), all_bare()).expect("a plan");
    let text = plan.print();
    let of = |name: &str| {
        let lines = text.lines().skip_while(|line| *line != format!("{name}:")).skip(1);
        lines
            .take_while(|line| line.starts_with("  "))
            .map(str::trim)
            .collect::<Vec<_>>()
            .join("\n")
    };
    assert_eq!(
        of("a"),
        "+ host name: raspberrypi -> a\n+ hosts file: the boards' names\n\
         + write /etc/sysctl.d/90-coracle.conf\n\
         + write /etc/systemd/journald.conf.d/coracle.conf\n\
         + write /etc/systemd/logind.conf.d/coracle.conf\n\
         + write /etc/systemd/system/coracle.service\n+ binary for aarch64\n\
         + configuration: 2 keys\n+ start coracle.service"
    );
    assert!(
        of("c").ends_with("+ token\n+ start coracle-agent.service\n+ node: disk=ssd"),
        "{text}"
    );
    assert!(!text.contains("reboot"), "{text}");
}

#[test]
fn a_board_without_the_memory_controller_is_restarted_with_flags() {
    let boot = format!(
        "controllers=cpu cpuset pids\nboot=/boot/firmware/cmdline.txt\nboot-cmdline:={}\n",
        base64("root=/dev/mmcblk0p2 rootwait\n")
    );
    let mut facts = all_bare();
    facts[1] = Ok(bare(&boot));
    let text = planned(&stack(STACK), facts).expect("a plan").print();
    let flags =
        "/boot/firmware/cmdline.txt: cgroup_enable=cpuset cgroup_enable=memory cgroup_memory=1";
    assert!(text.contains(&format!("+ {flags}\n  + ")), "{text}");
    assert!(text.contains("+ reboot\n  + configuration: 4 keys"), "{text}");
}

#[test]
fn what_stands_in_the_way_is_said_before_anything_is_begun() {
    let cluster = stack(STACK);
    let of = |change: Result<Facts, Refusal>, which: usize| {
        let mut facts = all_bare();
        facts[which] = change;
        planned(&cluster, facts).expect_err("refused").join("; ")
    };
    for (change, which, said) in [
        (Ok(bare("arch=armv7l\n")), 1, "b: armv7l: there is no binary for armv7l"),
        (Ok(bare("arch=x86_64\n")), 1, "b is of x86_64, and there is no binary for that here"),
        (Ok(bare(&authority("other"))), 1, "b is in another cluster already"),
        (Ok(bare("active.coracle.service=active\n")), 1, "b runs coracle.service already"),
        (
            Ok(bare(&format!("space:={}\n", base64("Filesystem\n/dev/a 9 9 1024 99% /\n")))),
            1,
            "b has 1 MiB free, and needs 150 for the binary",
        ),
        (
            Ok(bare(&format!("listening:={}\n", base64("00000000:280A\n")))),
            1,
            "b: somebody else listens on 10250",
        ),
        (
            Ok(bare(&format!("addresses:={}\n", base64("2: eth0 inet 10.0.0.7/24 x\n")))),
            1,
            "b: has 10.0.0.7, and not 10.0.0.2",
        ),
        (Ok(bare("release=0.9.0\n")), 1, "b runs release 0.9.0, which is too far from"),
        (Err(Refusal::ChangedHostKey), 1, "the host key of b has changed"),
        (Err(Refusal::UnknownHostKey), 1, "the host key of b is not known"),
        (Err(Refusal::Denied), 1, "b does not let us in"),
        (
            Err(Refusal::Unreachable),
            0,
            "a cannot be reached, and no other server is in the cluster yet",
        ),
    ] {
        let seen = of(change, which);
        assert!(seen.contains(said), "{seen}\n{said}");
    }
}

#[test]
fn a_board_that_is_away_leaves_the_others() {
    let mut facts = all_bare();
    facts[1] = Err(Refusal::Unreachable);
    let plan = planned(&stack(STACK), facts).expect("a plan");
    let names: Vec<&str> = plan.boards.iter().map(|board| board.name.as_str()).collect();
    assert_eq!(names, ["a", "c"]);
    assert_eq!(plan.away.len(), 1);
}

#[test]
fn a_board_whose_address_was_changed_in_the_file_is_told_from_one_that_is_off() {
    let cluster = stack(STACK);
    let hosts = "# begin coracle\n10.0.0.22 b\n10.0.0.3 c\n# end coracle\n";
    let there = Ok(bare(&format!("hosts:={}", base64(hosts))));
    let facts = [there, Err(Refusal::Unreachable), Err(Refusal::Unreachable)];
    let mut all: Vec<Found> =
        cluster.boards.iter().zip(facts).map(|(board, facts)| found(board, facts)).collect();
    super::survey::explain(&mut all);
    let error = |which: usize| all[which].facts.as_ref().expect_err("it is away");
    let said = "b cannot be reached: nobody is at 10.0.0.2, and the others know it at 10.0.0.22";
    assert_eq!(error(1).to_string(), said);
    assert!(error(1).refusal.is_away() && error(1).hint().contains("put the old one back"));
    assert_eq!(error(2).refusal, Refusal::Unreachable, "it is where it should be, and off");
    // The first server is looked for in vain.
    all[0].facts = Err(SshError::new("a", Refusal::Elsewhere, "nobody is there"));
    let trouble = plan(&cluster, &all, &binaries(), &Secrets::default(), &[]).expect_err("refused");
    assert_eq!(trouble[0].to_string(), "a cannot be reached: nobody is there");
}

#[test]
fn what_lasts_as_long_as_a_cluster_is_not_changed_under_it() {
    let there = |own: &str, config: &str| {
        let config = base64(&format!("node-name: \"{own}\"\n{config}"));
        Ok(bare(&format!("{}config:={config}\nactive.coracle.service=active\n", authority("ours"))))
    };
    let refused = |network: &str, first: Result<Facts, Refusal>| {
        let cluster = stack(&STACK.replace("home\n", &format!("home\nnetwork: {{{network}}}\n")));
        let planned = planned(&cluster, vec![first, Ok(bare("")), Ok(bare(""))]);
        planned.err().map(|list| list[0].to_string()).unwrap_or_default()
    };
    for (network, first, expected) in [
        ("", there("a", ""), ""),
        ("pods: 10.42.0.0/16", there("a", ""), ""),
        ("", there("a", "cluster-cidr: \"10.42.0.0/16\"\n"), ""),
        ("pods: 10.50.0.0/16", Ok(bare("")), ""),
        (
            "pods: 10.50.0.0/16",
            there("a", ""),
            "a has cluster-cidr \"10.42.0.0/16\" in its cluster, and not \"10.50.0.0/16\"",
        ),
        ("", there("attic", ""), "a has node-name \"attic\" in its cluster, and not \"a\""),
    ] {
        assert_eq!(refused(network, first), expected);
    }
}

#[test]
fn a_first_server_that_was_set_up_anew_joins_the_others() {
    let text = STACK.replace("address: 10.0.0.2", "address: 10.0.0.2, roles: [server]");
    let cluster = stack(&text);
    let there = format!("{}active.coracle.service=active\n", authority("ours"));
    let facts = vec![Ok(bare("")), Ok(bare(&there)), Ok(bare(""))];
    let plan = planned(&cluster, facts).expect("a plan");
    assert_eq!(plan.seed.name, "b");
    let first = plan.boards.iter().find(|board| board.name == "a").expect("planned");
    let config = first.steps.iter().find_map(|step| match step {
        Step::Config { content, .. } => Some(content.as_str()),
        _ => None,
    });
    let config = config.expect("a configuration");
    assert!(config.contains("server: \"https://10.0.0.2:6443\""), "{config}");
    assert!(!config.contains("cluster-init"), "{config}");
}

/// Takes what boards are told for done, but for what `fails` names.
#[derive(Default)]
struct Recorder {
    said: Mutex<Vec<String>>,
    fails: &'static str,
}

impl Remote for Recorder {
    fn enter(&self, _: &Target, _: Option<String>) -> Result<(), SshError> {
        Ok(())
    }

    fn run(&self, target: &Target, work: &Work) -> Result<Answer, SshError> {
        let line = format!("{}: {}", target.name, work.what);
        self.said.lock().expect("no panic").push(line.clone());
        if !self.fails.is_empty() && line.contains(self.fails) {
            return Err(SshError::new(&target.name, Refusal::Failed, "no"));
        }
        let ready = |name: &str| Node { name: name.into(), ready: true, ..Node::default() };
        let nodes = serde_json::to_string(&["a", "b", "c"].map(ready)).expect("JSON");
        Ok(Answer { out: if work.what.contains("nodes") { nodes } else { String::new() } })
    }

    fn forget(&self, _: &Target) {}
}

fn driven(fails: &'static str) -> (Outcome, Vec<String>) {
    taken(planned(&stack(STACK), all_bare()).expect("a plan"), fails)
}

fn taken(plan: Plan, fails: &'static str) -> (Outcome, Vec<String>) {
    let recorder = Recorder { fails, ..Recorder::default() };
    let secrets = Secrets { token: Some(Hidden::new("s3cret")), ..Secrets::default() };
    let (remote, binaries) = (&recorder, &binaries());
    let driver = Driver { remote, plan: &plan, binaries, secrets: &secrets, progress: &Lines };
    let outcome = driver.run();
    (outcome, recorder.said.into_inner().expect("no panic"))
}

#[test]
fn agents_join_when_the_server_is_ready() {
    let (outcome, said) = driven("");
    assert!(outcome.failed.is_empty() && outcome.left.is_empty());
    let at = |line: &str| said.iter().position(|s| s == line).unwrap_or_else(|| panic!("{line}"));
    let ready = at("a: asking for the nodes");
    assert!(at("a: start coracle.service") < ready);
    for board in ["b", "c"] {
        assert!(at(&format!("{board}: binary for aarch64")) < at("a: start coracle.service"));
        assert!(ready < at(&format!("{board}: start coracle-agent.service")));
    }
    assert!(at("a: node: disk=ssd") > ready, "labels are given where the API is");
}

#[test]
fn boards_that_run_restart_in_their_turn_for_an_address_of_their_own() {
    let text = STACK.replace(
        "name: home\n",
        "name: home\nnetwork: {subnet: 10.0.0.0/24, addressing: static}\n",
    );
    let cluster = stack(&text.replace("address: 10.0.0.2", "address: 10.0.0.2, roles: [server]"));
    let lent = |last: u8| {
        let wants = "/etc/systemd/system/multi-user.target.wants/systemd-networkd.service\n";
        let address = format!("2: eth0 inet 10.0.0.{last}/24 scope global dynamic eth0\n");
        let unit = if last == 3 { Service::Agent } else { Service::Server }.unit();
        let ours = authority("ours");
        let (address, wants) = (base64(&address), base64(wants));
        Ok(bare(&format!("addresses:={address}\nnetwork:={wants}\nactive.{unit}=active\n{ours}")))
    };
    let plan = planned(&cluster, vec![lent(1), lent(2), lent(3)]).expect("a plan");
    let text = plan.print();
    let steps =
        "+ address: 10.0.0.1/24 fixed on eth0, no longer by DHCP\n  + reboot\n  + address: kept\n";
    assert!(text.contains(steps), "{text}");
    let (outcome, said) = taken(plan, "");
    assert!(outcome.failed.is_empty(), "{said:?}");
    let at = |line: &str| said.iter().position(|s| s == line).unwrap_or_else(|| panic!("{line}"));
    assert!(at("a: address: 10.0.0.1/24 fixed on eth0, no longer by DHCP") < at("a: reboot"));
    assert!(at("a: reboot") < at("a: address: kept"));
    let ready = at("a: asking for the nodes");
    assert!(at("a: address: kept") < ready && ready < at("b: reboot"), "{said:?}");
    assert!(at("b: reboot") < at("c: reboot"));
}

#[test]
fn the_first_that_fails_ends_it() {
    let (outcome, said) = driven("a: start");
    assert_eq!(outcome.failed.len(), 1);
    assert_eq!(outcome.left, ["b", "c"]);
    assert!(
        !said.iter().any(|line| line.contains("coracle-agent.service: ") || line == "b: token")
    );
    let (outcome, _) = driven("b: start");
    assert_eq!((outcome.failed[0].board.as_str(), outcome.left.len()), ("b", 0));
    assert_eq!(["a", "b", "c"].map(|name| outcome.is_done(name)), [true, false, true]);
    let (outcome, _) = driven("b: binary");
    assert!(!outcome.is_done("a"), "it was not begun: {:?}", outcome.left);
}

#[test]
fn what_is_as_it_should_be_is_left_alone() {
    let cluster = stack(STACK);
    let plan = planned(&cluster, all_bare()).expect("a plan");
    // A board on which every file of the plan has been written.
    let board = plan.boards.iter().find(|board| board.name == "b").expect("planned");
    let mut lines = format!("hostname=b\nbinary=5um\ntoken.{}=x\n", crate::board::paths::TOKEN);
    lines.push_str(&authority("ours"));
    for step in &board.steps {
        match step {
            Step::File { file, .. } => {
                let sum = binaries::sum(&file.content);
                lines.push_str(&format!("file.{}={:o} {sum}\n", file.path, file.mode));
            }
            Step::Config { content, .. } => {
                let sum = binaries::sum(content);
                lines.push_str(&format!("file.{}=600 {sum}\n", crate::board::paths::CONFIG));
                lines.push_str(&format!("config:={}\n", base64(content)));
            }
            Step::Hosts(content) => lines.push_str(&format!("hosts:={}\n", base64(content))),
            _ => {}
        }
    }
    let unit = Service::Agent.unit();
    lines.push_str(&format!("active.{unit}=active\nenabled.{unit}=enabled\n"));
    let again = |more: &str| {
        let server = format!("{}active.coracle.service=active\n", authority("ours"));
        let facts = vec![Ok(bare(&server)), Ok(bare(&format!("{lines}{more}"))), Ok(bare(""))];
        let plan = planned(&cluster, facts).expect("a plan");
        let board = plan.boards.into_iter().find(|board| board.name == "b").expect("planned");
        // The Node's labels need a server that answers.
        let steps = board.steps.iter().filter(|step| !matches!(step, Step::Node { .. }));
        steps.map(ToString::to_string).collect::<Vec<_>>().join("; ")
    };
    assert_eq!(again(""), "");
    assert_eq!(again("restart=yes\n"), "restart coracle-agent.service", "an earlier run was cut");
    assert_eq!(again("hostname=other\n"), "host name: other -> b");
}
