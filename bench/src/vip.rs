//! How long the virtual address is away when the board that holds it dies: its cable is out and
//! its processes are killed in the same moment. Two members a group, a client that asks every 5 ms.
//! Our group and one of keepalived with its default timers run side by side.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::Outcome;
use crate::figures::Figures;

const VIP: &str = "192.0.2.40";
const PORT: u16 = 7;
/// How often the client asks.
const ASK_EVERY: Duration = Duration::from_millis(5);
/// So many answers missing in a row are an outage; fewer are the scheduler's.
const OUTAGE_PROBES: usize = 4;
/// How long a member that came back is let be before the next kill.
const SETTLE: Duration = Duration::from_millis(1500);
/// How long a take-over may take before the measurement is given up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Measures both, and their ratios.
pub fn run(figures: &mut Figures, coracle: &str, keepalived: &str, kills: u32) -> Outcome {
    let group = |name: &'static str, program: &str| {
        let (program, member) = (program.to_owned(), name);
        thread::spawn(move || Stage::new(name)?.measure(member, &program, kills))
    };
    let ours = group("ours", coracle);
    let theirs = Path::new(keepalived).exists().then(|| group("keepalived", keepalived));
    let join = |thread: thread::JoinHandle<Outcome<Vec<Duration>>>| {
        thread.join().unwrap_or_else(|_| Err("a measuring thread panicked".into()))
    };
    // Both to their ends, so that both clean up.
    let (ours, theirs) = (join(ours), theirs.map(join));
    figures.set_quantiles("vip_away", ours?)?;
    let Some(theirs) = theirs else {
        eprintln!("  there is no {keepalived}: no yardstick");
        return Ok(());
    };
    figures.set_quantiles("vip_keepalived_away", theirs?)?;
    for quantile in ["p50", "p99"] {
        let of = |name: &str| figures.get(&format!("{name}_{quantile}"));
        if let (Some(ours), Some(theirs)) = (of("vip_away"), of("vip_keepalived_away")) {
            figures.set(&format!("vip_ratio_{quantile}"), theirs / ours)?;
        }
    }
    Ok(())
}

/// The client: asks, and prints every outage in nanoseconds. Entered in its own namespace.
#[expect(clippy::disallowed_methods, reason = "the client's clock")]
pub fn probe() -> Outcome {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect((VIP, PORT))?;
    socket.set_nonblocking(true)?;
    let mut asked: Vec<Instant> = Vec::new();
    let mut answered: Option<usize> = None;
    let mut next = Instant::now();
    loop {
        asked.push(Instant::now());
        let number = asked.len() - 1;
        // A refusal or a missing route is an answer that did not come.
        let _ = socket.send(&number.to_be_bytes());
        next += ASK_EVERY;
        while Instant::now() < next {
            let mut bytes = [0; 8];
            match socket.recv(&mut bytes) {
                Ok(8) => {
                    let number = usize::from_be_bytes(bytes);
                    let before = answered.replace(number.max(answered.unwrap_or(0)));
                    let lost = before.filter(|before| number > before + OUTAGE_PROBES);
                    if let Some(before) = lost {
                        let away = asked[number] - asked[before + 1];
                        println!("{}", away.as_nanos());
                    } else if before.is_none() {
                        println!("0");
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    thread::sleep(Duration::from_micros(300));
                }
                _ => {}
            }
        }
    }
}

/// A board's service: gives every datagram back. Entered in its own namespace.
pub fn echo() -> Outcome {
    // Bound to the address before it is there, since an answer must come from it.
    fs::write("/proc/sys/net/ipv4/ip_nonlocal_bind", "1")?;
    let socket = UdpSocket::bind((VIP, PORT))?;
    let mut bytes = [0; 64];
    loop {
        // Answering may fail while the cable is out.
        if let Ok((length, peer)) = socket.recv_from(&mut bytes) {
            let _ = socket.send_to(&bytes[..length], peer);
        }
    }
}

/// A switch, two boards and a client.
struct Stage {
    prefix: String,
    folder: String,
    helpers: Vec<Child>,
}

impl Stage {
    fn new(name: &str) -> Outcome<Self> {
        let prefix = format!("cor-vip-{}-{name}", std::process::id());
        let folder = format!("/dev/shm/{prefix}");
        fs::create_dir_all(&folder)?;
        let mut stage = Stage { prefix, folder, helpers: Vec::new() };
        for role in ["switch", "a", "b", "client"] {
            ip(&format!("netns add {}", stage.netns(role)))?;
            ip(&format!("-n {} link set lo up", stage.netns(role)))?;
        }
        stage.ip("switch", "link add switch type bridge")?;
        stage.ip("switch", "link set switch up")?;
        for (role, last) in [("a", 1), ("b", 2), ("client", 9)] {
            let to = stage.netns(role);
            stage.ip(
                "switch",
                &format!("link add name port-{role} type veth peer name eth0 netns {to}"),
            )?;
            stage.ip("switch", &format!("link set port-{role} master switch up"))?;
            stage.ip(role, &format!("addr add 192.0.2.{last}/24 dev eth0"))?;
            stage.ip(role, "link set eth0 up")?;
        }
        for role in ["a", "b"] {
            let echo = stage.inside(role, &own_program()?).args(["-", "vip-echo"]).spawn()?;
            stage.helpers.push(echo);
        }
        Ok(stage)
    }

    fn netns(&self, role: &str) -> String {
        format!("{}-{role}", self.prefix)
    }

    fn ip(&self, role: &str, arguments: &str) -> Outcome {
        ip(&format!("-n {} {arguments}", self.netns(role)))
    }

    fn inside(&self, role: &str, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.netns(role))).arg(program);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    #[expect(clippy::disallowed_methods, reason = "kills come at times of their own")]
    fn measure(mut self, member: &str, program: &str, kills: u32) -> Outcome<Vec<Duration>> {
        let start = |stage: &Stage, role: &str| match member {
            "ours" => stage.ours(role, program),
            _ => stage.keepalived(role, program),
        };
        let mut members = [("a", Some(start(&self, "a")?)), ("b", Some(start(&self, "b")?))];
        let outages = self.ask()?;
        outages.recv_timeout(PATIENCE).map_err(|_| "nobody took the address at the start")?;
        let mut took = Vec::new();
        for kill in 0..kills {
            // The phase of the advertisements must not be that of the kills.
            thread::sleep(SETTLE + ASK_EVERY * (kill * 37 % 200));
            let stray = outages.try_iter().count();
            if stray > 0 {
                eprintln!("  {member}: {stray} outages without a kill");
            }
            let holder = self.holder()?;
            let (role, process) = &mut members[usize::from(holder == "b")];
            self.ip("switch", &format!("link set port-{role} down"))?;
            self.kill(process.take())?;
            match outages.recv_timeout(PATIENCE) {
                Ok(away) => took.push(away),
                Err(RecvTimeoutError::Timeout) => return Err("no take-over".into()),
                Err(RecvTimeoutError::Disconnected) => return Err("the client ended".into()),
            }
            // A board that comes back has forgotten what its interfaces had.
            self.ip(role, &format!("addr flush dev eth0 to {VIP}"))?;
            self.ip("switch", &format!("link set port-{role} up"))?;
            *process = Some(start(&self, role)?);
        }
        for (_, process) in &mut members {
            self.kill(process.take())?;
        }
        Ok(took)
    }

    /// Which board has the address.
    fn holder(&self) -> Outcome<&'static str> {
        for role in ["a", "b"] {
            let out = Command::new("ip")
                .args(["-n", &self.netns(role), "addr", "show", "to", VIP])
                .output()?;
            if !out.stdout.is_empty() {
                return Ok(role);
            }
        }
        Err("nobody holds the address".into())
    }

    fn ask(&mut self) -> Outcome<Receiver<Duration>> {
        let mut probe = self
            .inside("client", &own_program()?)
            .args(["-", "vip-probe"])
            .stdout(Stdio::piped())
            .spawn()?;
        let lines = BufReader::new(probe.stdout.take().ok_or("the client has no output")?).lines();
        self.helpers.push(probe);
        let (tell, outages) = channel();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let away = line.parse().map(Duration::from_nanos);
                if away.is_ok_and(|away| tell.send(away).is_err()) {
                    return;
                }
            }
        });
        Ok(outages)
    }

    /// The process by which a server of ours takes part, with the defaults of its flags. The end
    /// of its input ends it, so the input stays open as long as the value.
    #[expect(clippy::disallowed_methods, reason = "a server's heartbeat")]
    fn ours(&self, role: &str, program: &str) -> Outcome<Child> {
        let mut holder =
            self.inside(role, program).arg("vip-holder").stdin(Stdio::piped()).spawn()?;
        let brief = serde_json::json!({"log": "error", "config": {
            "addresses": [VIP], "interface": "eth0", "router_id": 51, "interval": 20,
            "preempt": true, "preempt_delay": {"secs": 0, "nanos": 0}, "unicast_peers": []}});
        let mut words = holder.stdin.take().ok_or("the holder has no input")?;
        words.write_all(format!("{brief}\n100\n").as_bytes())?;
        thread::spawn(move || {
            // It wants to hear every second that its server is alive; it is gone some day.
            while words.write_all(b"100\n").is_ok() {
                thread::sleep(Duration::from_secs(1));
            }
        });
        Ok(holder)
    }

    fn keepalived(&self, role: &str, program: &str) -> Outcome<Child> {
        let file = |name: &str| format!("{}/{role}.{name}", self.folder);
        let text = format!(
            "global_defs {{\n vrrp_version 3\n}}\nvrrp_instance group {{\n state BACKUP\n nopreempt\n \
             interface eth0\n virtual_router_id 51\n priority 100\n advert_int 1\n \
             virtual_ipaddress {{\n {VIP}/32\n }}\n}}\n"
        );
        fs::write(file("conf"), text)?;
        for name in ["pid", "vrrp.pid"] {
            let _ = fs::remove_file(file(name));
        }
        let root = Path::new(program).ancestors().nth(3).unwrap_or(Path::new("/"));
        let libraries = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"]
            .map(|folder| root.join(folder).display().to_string());
        let mut command = self.inside(role, program);
        command
            .args(["--dont-fork", "--log-console", "--vrrp"])
            .arg(format!("--use-file={}", file("conf")))
            .arg(format!("--pid={}", file("pid")))
            .arg(format!("--vrrp_pid={}", file("vrrp.pid")))
            .env("LD_LIBRARY_PATH", libraries.join(":"))
            .stderr(Stdio::null());
        Ok(command.spawn()?)
    }

    /// SIGKILL, for a process and its children: keepalived works in a child.
    fn kill(&self, process: Option<Child>) -> Outcome {
        let Some(mut process) = process else { return Ok(()) };
        let path = format!("/proc/{0}/task/{0}/children", process.id());
        for child in fs::read_to_string(path).unwrap_or_default().split_whitespace() {
            Command::new("kill").args(["-9", child]).status()?;
        }
        process.kill()?;
        process.wait()?;
        Ok(())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for helper in &mut self.helpers {
            let _ = helper.kill();
            let _ = helper.wait();
        }
        // What still runs in the namespaces is ours: nothing else knows their names.
        for role in ["a", "b", "client", "switch"] {
            let name = self.netns(role);
            let pids = Command::new("ip").args(["netns", "pids", &name]).output();
            let pids = pids.map(|out| String::from_utf8_lossy(&out.stdout).into_owned());
            for pid in pids.unwrap_or_default().split_whitespace() {
                let _ = Command::new("kill").args(["-9", pid]).status();
            }
            let _ = ip(&format!("netns del {name}"));
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn own_program() -> Outcome<String> {
    Ok(std::env::current_exe()?.display().to_string())
}

fn ip(arguments: &str) -> Outcome {
    let out = Command::new("ip").args(arguments.split(' ')).output()?;
    match out.status.success() {
        true => Ok(()),
        false => Err(format!("ip {arguments}: {}", String::from_utf8_lossy(&out.stderr)).into()),
    }
}
