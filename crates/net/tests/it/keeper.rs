//! Cluster DNS that outlives whoever feeds it: real processes and real sockets. The process that
//! answers is this test program, entered by [`the_process`].

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use hickory_proto::rr::RecordType;
use net::dns::{Keeper, KeeperConfig, Names, ZoneService, ZoneTarget};
use net::{DnsConfig, Upstreams};

use crate::dns::{addresses, try_ask};

/// The variable that makes this program a process that answers.
const HOLD: &str = "CORACLE_TEST_HOLD_DNS";
const WEB: &str = "web.default.svc.cluster.local.";
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn the_process() {
    if std::env::var_os(HOLD).is_none() {
        return;
    }
    let control = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    let nothing = std::fs::File::open("/dev/null").unwrap();
    nix::unistd::dup2_stdin(nothing).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (_report, reports) = tokio::sync::mpsc::channel(1);
    runtime.block_on(net::dns::hold(control, reports)).unwrap();
}

/// Between two looks at a condition.
#[expect(clippy::disallowed_methods, reason = "the pause between two looks at a condition")]
fn pause() {
    thread::sleep(Duration::from_millis(2));
}

/// A board's DNS: where it answers, and the processes that were started for it.
struct Stage {
    folder: tempfile::TempDir,
    address: SocketAddr,
    started: Arc<Mutex<Vec<Child>>>,
}

impl Stage {
    fn new() -> Self {
        static COUNT: AtomicU16 = AtomicU16::new(1);
        let [high, low] = COUNT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        // An address that no other test has, so that the port need not be searched for.
        let [.., third, fourth] = std::process::id().to_be_bytes();
        let ip = Ipv4Addr::new(127, third | 0x80, fourth, low.max(high));
        Self {
            folder: tempfile::tempdir().unwrap(),
            address: (ip, 5353).into(),
            started: Arc::default(),
        }
    }

    fn config(&self, release: &str) -> KeeperConfig {
        let started = self.started.clone();
        KeeperConfig {
            dns: DnsConfig {
                listen: vec![self.address],
                upstreams: Upstreams::Servers(Vec::new()),
                ..DnsConfig::default()
            },
            socket: self.folder.path().join("dns.sock"),
            release: release.to_owned(),
            launch: Arc::new(move |control, _| {
                let mut command = Command::new("/proc/self/exe");
                command.args(["--exact", "keeper::the_process", "--nocapture"]).env(HOLD, "1");
                let child = command.stdin(control).stdout(Stdio::null()).spawn()?;
                started.lock().unwrap().push(child);
                Ok(())
            }),
        }
    }

    /// A feeder with a runtime of its own: dropping it is its death.
    fn feed(&self, config: KeeperConfig, web: [u8; 4]) -> Feeder {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.unwrap();
        let keeper = runtime.block_on(Keeper::open(config)).unwrap();
        keeper.update(names(web));
        Feeder { keeper, _runtime: runtime }
    }

    fn until_it_answers(&self, expected: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = try_ask(self.address, WEB, RecordType::A).map(|m| addresses(&m));
            if found.as_ref().is_ok_and(|found| found == &[expected]) {
                return;
            }
            assert!(Instant::now() < deadline, "not {expected} but {found:?}");
        }
    }

    /// Those that have not ended.
    fn alive(&self) -> Vec<u32> {
        let mut started = self.started.lock().unwrap();
        started.iter_mut().filter_map(|c| c.try_wait().unwrap().is_none().then(|| c.id())).collect()
    }

    fn until_alive(&self, count: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.alive().len() != count {
            assert!(Instant::now() < deadline, "{:?} are alive, not {count}", self.alive());
            pause();
        }
    }

    /// Asks again and again while `work` runs; how many answers came, and what went wrong.
    fn under_load(&self, work: impl FnOnce()) -> (usize, Vec<String>) {
        let (over, answers) = (AtomicBool::new(false), AtomicUsize::new(0));
        let failures = Mutex::new(Vec::new());
        thread::scope(|scope| {
            for client in 0..4 {
                let (over, answers, failures) = (&over, &answers, &failures);
                scope.spawn(move || {
                    while !over.load(Ordering::Relaxed) {
                        let asked = match client {
                            0 => crate::dns::try_ask_tcp(self.address, WEB, RecordType::A),
                            _ => try_ask(self.address, WEB, RecordType::A),
                        };
                        match asked {
                            Ok(answer) if answer.answers.len() == 1 => {
                                answers.fetch_add(1, Ordering::Relaxed);
                            }
                            other => failures.lock().unwrap().push(format!("{client}: {other:?}")),
                        }
                    }
                });
            }
            let more = || {
                let (before, deadline) =
                    (answers.load(Ordering::Relaxed), Instant::now() + PATIENCE);
                while answers.load(Ordering::Relaxed) < before + 20 && Instant::now() < deadline {
                    pause();
                }
            };
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                more();
                work();
                more();
            }));
            over.store(true, Ordering::Relaxed);
            outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        });
        (answers.into_inner(), failures.into_inner().unwrap())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for child in self.started.lock().unwrap().iter_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

struct Feeder {
    keeper: Keeper,
    _runtime: tokio::runtime::Runtime,
}

fn names(web: [u8; 4]) -> Arc<Names> {
    let target = ZoneTarget::Cluster { ips: vec![IpAddr::from(web)], ports: Vec::new() };
    let web = ZoneService { namespace: "default".to_owned(), name: "web".to_owned(), target };
    Arc::new(Names { namespaces: Vec::new(), services: vec![web] })
}

#[test]
fn names_are_answered_while_their_feeder_is_dead() {
    let stage = Stage::new();
    let feeder = stage.feed(stage.config("1"), [10, 43, 0, 1]);
    stage.until_it_answers("10.43.0.1");
    let (answers, failures) = stage.under_load(|| {
        drop(feeder);
        stage.until_it_answers("10.43.0.1");
        // The next one finds the process, which goes on with what it has until it is told more.
        let feeder = stage.feed(stage.config("1"), [10, 43, 0, 2]);
        stage.until_it_answers("10.43.0.2");
        feeder.keeper.update(names([10, 43, 0, 3]));
        stage.until_it_answers("10.43.0.3");
    });
    assert!(answers > 0 && failures.is_empty(), "{} of {answers}: {failures:?}", failures.len());
    assert_eq!(stage.alive().len(), 1);
    assert_eq!(stage.started.lock().unwrap().len(), 1);
}

#[test]
fn a_killed_process_is_replaced_at_once() {
    let stage = Stage::new();
    let feeder = stage.feed(stage.config("1"), [10, 43, 0, 1]);
    stage.until_it_answers("10.43.0.1");
    for round in 2..5 {
        stage.started.lock().unwrap().last_mut().unwrap().kill().unwrap();
        // The names that are told next reach whoever answers then.
        feeder.keeper.update(names([10, 43, 0, round]));
        stage.until_it_answers(&format!("10.43.0.{round}"));
    }
    stage.until_alive(1);
}

#[test]
fn another_release_takes_over_without_a_question_lost() {
    let stage = Stage::new();
    let mut feeder = stage.feed(stage.config("0"), [10, 43, 0, 1]);
    stage.until_it_answers("10.43.0.1");
    let (answers, failures) = stage.under_load(|| {
        for round in 1..6 {
            drop(feeder);
            feeder = stage.feed(stage.config(&round.to_string()), [10, 43, 0, round + 1]);
            stage.until_it_answers(&format!("10.43.0.{}", round + 1));
        }
    });
    println!("replaced five times under {answers} questions");
    assert!(answers > 0 && failures.is_empty(), "{} of {answers}: {failures:?}", failures.len());
    stage.until_alive(1);
    assert_eq!(stage.started.lock().unwrap().len(), 6);
}

#[test]
fn a_new_process_without_names_leaves_the_old_one_alone() {
    let stage = Stage::new();
    let feeder = stage.feed(stage.config("1"), [10, 43, 0, 1]);
    stage.until_it_answers("10.43.0.1");
    drop(feeder);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let keeper = runtime.block_on(Keeper::open(stage.config("2"))).unwrap();
    stage.until_alive(2);
    stage.until_it_answers("10.43.0.1");
    // Its feeder dies before it has told any.
    drop((keeper, runtime));
    stage.until_alive(1);
    stage.until_it_answers("10.43.0.1");
}

#[test]
fn a_process_that_stands_still_is_replaced() {
    let stage = Stage::new();
    let feeder = stage.feed(stage.config("1"), [10, 43, 0, 1]);
    stage.until_it_answers("10.43.0.1");
    drop(feeder);
    let stuck = stage.alive()[0].cast_signed();
    // SAFETY: a plain system call on a child that has not been waited for.
    unsafe { libc::kill(stuck, libc::SIGSTOP) };
    let _feeder = stage.feed(stage.config("1"), [10, 43, 0, 2]);
    stage.until_it_answers("10.43.0.2");
    stage.until_alive(1);
}

#[test]
fn what_cannot_be_listened_on_is_said() {
    let stage = Stage::new();
    let _other = std::net::UdpSocket::bind(stage.address).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let error = runtime.block_on(Keeper::open(stage.config("1"))).err().unwrap().to_string();
    let expected = format!("listening for DNS on {} (udp): Address", stage.address);
    assert!(error.starts_with(&expected), "{error}");
    stage.until_alive(0);
}
