//! Against a real dbus-daemon, on a bus of its own, where the test plays logind and systemd.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use futures::StreamExt;
use zbus::message::Type;
use zbus::{Fd, MessageStream, Variant};

use super::*;

const GRACE: Duration = Duration::from_secs(30);
/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(10);

/// A bus that goes with the test.
struct Bus {
    daemon: Child,
    address: String,
    _folder: tempfile::TempDir,
}

impl Bus {
    fn start() -> Bus {
        let folder = tempfile::tempdir().expect("a folder");
        let config = folder.path().join("bus.conf");
        let socket = folder.path().join("bus");
        let text = format!(
            "<busconfig><type>session</type><listen>unix:path={}</listen><auth>EXTERNAL</auth>\
             <policy context=\"default\"><allow send_destination=\"*\" eavesdrop=\"true\"/>\
             <allow eavesdrop=\"true\"/><allow own=\"*\"/></policy></busconfig>",
            socket.display()
        );
        std::fs::write(&config, text).expect("a configuration");
        let mut daemon = Command::new("dbus-daemon")
            .arg(format!("--config-file={}", config.display()))
            .args(["--nofork", "--print-address=1"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("dbus-daemon of the package dbus-daemon");
        let mut address = String::new();
        let stdout = daemon.stdout.take().expect("its output");
        BufReader::new(stdout).read_line(&mut address).expect("an address");
        Bus { daemon, address: address.trim().to_owned(), _folder: folder }
    }

    async fn connect(&self) -> zbus::Result<Connection> {
        zbus::connection::Builder::address(self.address.as_str()).build().await
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

/// Plays logind and systemd: gives out locks and says that the machine is stopping.
struct Fake {
    connection: Connection,
    /// The other ends of the locks that were given out.
    locks: tokio::sync::mpsc::UnboundedReceiver<std::io::PipeReader>,
}

impl Fake {
    async fn start(bus: &Bus) -> Fake {
        let connection = bus.connect().await.expect("the bus");
        let mut calls = MessageStream::from(&connection);
        for name in ["org.freedesktop.login1", "org.freedesktop.systemd1"] {
            connection.request_name(name).await.expect("the name");
        }
        let (given, locks) = tokio::sync::mpsc::unbounded_channel();
        let answering = connection.clone();
        tokio::spawn(async move {
            while let Some(Ok(call)) = calls.next().await {
                let header = call.header();
                if header.message_type() != Type::MethodCall {
                    continue;
                }
                let member = header.member().map(|m| m.to_string()).unwrap_or_default();
                let sent = match member.as_str() {
                    "Inhibit" => {
                        let (ours, theirs) = std::io::pipe().expect("a pipe");
                        let _ = given.send(ours);
                        answering
                            .reply(&header, &Fd::from(std::os::fd::OwnedFd::from(theirs)))
                            .await
                    }
                    "Get" => {
                        let body = call.body();
                        let (_, name): (String, String) = body.deserialize().expect("two names");
                        let value = match name.as_str() {
                            "SystemState" => Variant::from("stopping"),
                            _ => Variant::from(5_000_000u64),
                        };
                        answering.reply(&header, &value).await
                    }
                    _ => Ok(()),
                };
                sent.expect("an answer that can be sent");
            }
        });
        Fake { connection, locks }
    }

    async fn say(&self, going_down: bool) {
        let (path, interface) = ("/org/freedesktop/login1", "org.freedesktop.login1.Manager");
        self.connection
            .emit_signal(None::<&str>, path, interface, "PrepareForShutdown", &going_down)
            .await
            .expect("a signal");
    }

    async fn lock(&mut self) -> std::io::PipeReader {
        let lock = tokio::time::timeout(PATIENCE, self.locks.recv()).await.expect("in time");
        lock.expect("a lock")
    }
}

async fn heard(logind: &mut Logind) -> Heard {
    tokio::time::timeout(PATIENCE, logind.next()).await.expect("something is heard")
}

/// Waits until the lock's last holder has let go.
async fn released(mut lock: std::io::PipeReader) {
    let reading = tokio::task::spawn_blocking(move || lock.read(&mut [0]));
    let end = tokio::time::timeout(PATIENCE, reading).await.expect("released in time");
    assert_eq!(end.expect("a read").expect("a pipe"), 0);
}

#[tokio::test]
async fn a_shutdown_waits_until_the_lock_is_released() {
    let bus = Bus::start();
    let mut fake = Fake::start(&bus).await;
    let mut logind = Logind::over(bus.connect(), GRACE).await.expect("logind");
    let first = fake.lock().await;
    fake.say(true).await;
    assert_eq!(heard(&mut logind).await, Heard::GoingDown);
    logind.release();
    released(first).await;
    fake.say(false).await;
    assert_eq!(heard(&mut logind).await, Heard::Cancelled);
    logind.hold().await;
    let second = fake.lock().await;
    drop(logind);
    released(second).await;
}

#[tokio::test]
async fn a_bus_that_goes_is_noticed() {
    let mut bus = Bus::start();
    let _fake = Fake::start(&bus).await;
    let mut logind = Logind::over(bus.connect(), GRACE).await.expect("logind");
    bus.daemon.kill().expect("a daemon that runs");
    assert_eq!(heard(&mut logind).await, Heard::Broken);
}

#[tokio::test]
async fn without_logind_or_a_bus_nothing_happens() {
    let bus = Bus::start();
    assert!(Logind::over(bus.connect(), GRACE).await.is_none());
    assert!(!is_stopping(bus.connect()).await);
    let nowhere = zbus::connection::Builder::address("unix:path=/nonexistent/bus").build();
    assert!(Logind::over(nowhere, GRACE).await.is_none());
    let _fake = Fake::start(&bus).await;
    assert!(is_stopping(bus.connect()).await);
}
