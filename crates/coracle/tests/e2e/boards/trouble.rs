//! Partitions, bad cables and wrong clocks, with a history of what clients saw that is judged at
//! the end: no acknowledged write is lost, revisions are linear, watches have no gap.

use std::time::Duration;

use testkit::history::{History, Run, Workload, judge};

use crate::harness::{Boards, RECOVERY, Stack, eventually_some, within};

/// The seed of a workload; the environment replays another.
pub fn seed() -> u64 {
    std::env::var("CORACLE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_121)
}

/// Between two looks whether the trouble is over; the clients go on meanwhile.
const PAUSE: Duration = Duration::from_millis(20);

/// Runs `trouble` under a workload that calls all servers, and judges what was seen.
pub fn judged(boards: &impl Boards, trouble: impl FnOnce(&Run) + Send) -> History {
    judged_at(boards, usize::MAX, trouble)
}

/// As `judged`, with a workload that calls the first `servers` only.
pub fn judged_at(
    boards: &impl Boards,
    servers: usize,
    trouble: impl FnOnce(&Run) + Send,
) -> History {
    println!("seed {}", seed());
    let history = boards.laptop().run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let run = runtime
            .block_on(async {
                let mut clients = boards.clients().await;
                clients.truncate(servers);
                Workload::new(seed(), clients).start().await
            })
            .expect("a cluster that is well");
        std::thread::scope(|scope| {
            let maker = scope.spawn(|| trouble(&run));
            runtime.block_on(async {
                while !maker.is_finished() {
                    tokio::time::sleep(PAUSE).await;
                }
            });
            maker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        });
        runtime.block_on(run.finish(RECOVERY)).expect("a cluster that is well again")
    });
    let wrong = judge(&history);
    assert!(wrong.is_empty(), "seed {}: {wrong:#?}", seed());
    println!("{} calls, nothing wrong with what they saw", history.operations.len());
    history
}

/// Waits until more writes are acknowledged.
pub fn until_served(run: &Run, writes: usize) {
    let wanted = run.acknowledged() + writes;
    within(RECOVERY, "writes are acknowledged again", || match run.acknowledged() {
        now if now >= wanted => Ok(()),
        now => Err(format!("{now} of {wanted}")),
    });
}

/// The server whose etcd leads, by what etcd says itself.
fn etcd_leader(stack: &Stack) -> usize {
    eventually_some("some etcd leads", || {
        let all: Vec<(usize, String)> = (1..=3).map(|n| (n, etcd_status(stack, n))).collect();
        let leads = |(_, text): &&(usize, String)| text.contains("etcd_server_is_leader 1");
        all.iter().find(leads).map(|(n, _)| *n).ok_or(all.clone())
    })
}

/// etcd's own metrics; the supervisor lets it tell them on the board's loopback.
fn etcd_status(stack: &Stack, server: usize) -> String {
    let (_, said) = stack.run(&format!(
        "exec server-{server} -- curl -s --max-time 2 http://127.0.0.1:2381/metrics"
    ));
    said.lines().filter(|line| line.starts_with("etcd_server_is_leader")).collect()
}

/// The server whose controllers act.
fn leader(stack: &Stack) -> usize {
    let kubectl = stack.kubectl();
    let line = "get lease coracle-controller-manager -n kube-system -o \
                'jsonpath={.spec.holderIdentity}'";
    let holder = kubectl.until_that(line, |holder| holder.contains("server-"));
    (1..=3).find(|n| holder.contains(&format!("server-{n}"))).expect("a server")
}

const ALL: [&str; 3] = ["server-1", "server-2", "server-3"];

fn others(server: usize) -> Vec<usize> {
    (1..=3).filter(|n| *n != server).collect()
}

#[test]
fn the_history_is_right_through_partitions_and_bad_cables() {
    let stack = Stack::up("--servers 3 --agents 0 --server-arg node-monitor-grace-period=20");
    judged(&stack, |run| {
        until_served(run, 50);
        let at = leader(&stack);
        println!("the server that leads the controllers is alone: server-{at}");
        cut_off(&stack, at);
        until_served(run, 100);
        heal(&stack, run);

        let at = etcd_leader(&stack);
        println!("the etcd leader is alone: server-{at}");
        cut_off(&stack, at);
        until_served(run, 100);
        heal(&stack, run);

        let [one, other] = others(etcd_leader(&stack))[..] else { panic!("three servers") };
        println!("one way only: server-{one} is not heard by server-{other}, then by nobody");
        stack.ok(&format!("cut server-{one}:server-{other} --one-way"));
        until_served(run, 100);
        stack.ok(&format!("cut server-{one} --one-way"));
        until_served(run, 50);
        heal(&stack, run);

        println!("200 ms and 5 % on every cable");
        for server in ALL {
            stack.ok(&format!("slow {server} 200ms --jitter 20ms"));
            stack.ok(&format!("lose {server} 5%"));
        }
        until_served(run, 20);
        heal(&stack, run);
    });
    stack.until_ready(&ALL);
}

fn cut_off(stack: &Stack, server: usize) {
    for other in others(server) {
        stack.ok(&format!("cut server-{server}:server-{other}"));
    }
}

fn heal(stack: &Stack, run: &Run) {
    stack.ok("heal");
    until_served(run, 100);
}

#[test]
fn the_history_is_right_through_clock_jumps_and_a_full_disk() {
    let stack = Stack::up("--servers 3 --agents 0 --disk 1024");
    judged(&stack, |run| {
        for (server, offset) in [(1, "+1h"), (2, "-1h"), (3, "+20m")] {
            stack.ok(&format!("clock server-{server} {offset}"));
            until_served(run, 100);
        }
        for server in ALL {
            stack.ok(&format!("clock {server} 0s"));
        }
        until_served(run, 100);
        stack.until_ready(&ALL);

        println!("the disk of server-2 is full");
        stack.ok("fill server-2");
        until_served(run, 200);
        stack.ok("heal server-2");
        until_served(run, 100);
    });
    stack.until_ready(&ALL);
}
