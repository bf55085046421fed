use super::{Verdict, Verdicts};
use crate::board::{Service, cmdline};
use crate::facts::Facts;

/// The oldest kernel: rules by nftables' sets of verdicts and cgroups' kill come with it.
const KERNEL_MIN: (u32, u32) = (5, 4);
const KERNEL_GOOD: (u32, u32) = (5, 14);
/// Memory with which a server or an agent is of use.
const SERVER_MEMORY_MIN: u64 = 450 << 20;
const AGENT_MEMORY_MIN: u64 = 220 << 20;
/// Free room for images.
const FREE_MIN: u64 = 1 << 30;
const FREE_GOOD: u64 = 4 << 30;
/// How far a clock may be off: joining is refused at 300 s, certificates and logs suffer before.
const CLOCK_WARN_MS: i64 = 2_000;
const CLOCK_FAIL_MS: i64 = 240_000;
/// Degrees from which Raspberry Pis slow down.
const HOT: f64 = 80.0;
const WARM: f64 = 70.0;
/// Ports that must be free, or Coracle's own.
const SERVER_PORTS: [u16; 1] = [6443];
const ETCD_PORTS: [u16; 2] = [2379, 2380];
const AGENT_PORTS: [u16; 1] = [10250];

/// The firmware's complaints: now in the lower half, since the start in the upper.
const COMPLAINTS: [(u32, &str); 4] = [
    (0, "under-voltage"),
    (1, "frequency capped"),
    (2, "throttled"),
    (3, "soft temperature limit"),
];

/// Looks at one board by itself. `service` is what it is to run, `etcd` whether beside one.
pub fn check_board(
    name: &str,
    facts: &Facts,
    service: Option<Service>,
    etcd: bool,
) -> Vec<Verdict> {
    let mut verdicts = Verdicts::of(name);
    arch(&mut verdicts, facts);
    kernel(&mut verdicts, facts);
    controllers(&mut verdicts, facts);
    memory(&mut verdicts, facts, service);
    swap(&mut verdicts, facts);
    clock(&mut verdicts, facts);
    ports(&mut verdicts, facts, service, etcd);
    room(&mut verdicts, facts);
    card(&mut verdicts, facts);
    power(&mut verdicts, facts);
    heat(&mut verdicts, facts);
    verdicts.list
}

fn arch(verdicts: &mut Verdicts, facts: &Facts) {
    let model = facts.get("model");
    let what = format!("{} {model}", facts.arch()).trim().to_owned();
    match facts.arch() {
        "x86_64" | "aarch64" => verdicts.ok("architecture", what),
        "armv6l" => verdicts.fail(
            "architecture",
            format!("{what}: ARMv6 cannot run Coracle"),
            "use a Raspberry Pi 3 or newer with a 64-bit system",
        ),
        other => verdicts.fail(
            "architecture",
            format!("{what}: there is no binary for {other}"),
            "install the 64-bit system (Raspberry Pi 3 and newer take it)",
        ),
    }
}

fn kernel(verdicts: &mut Verdicts, facts: &Facts) {
    let release = facts.get("kernel");
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let what = format!("Linux {release}, {}", facts.os());
    if version < KERNEL_MIN {
        verdicts.fail("kernel", format!("{what}: older than 5.4"), "install a newer system");
    } else if version < KERNEL_GOOD {
        let what = format!("{what}: older than 5.14, pods are ended process by process");
        verdicts.warn("kernel", what, "install a newer system when there is time");
    } else {
        verdicts.ok("kernel", what);
    }
}

fn controllers(verdicts: &mut Verdicts, facts: &Facts) {
    let missing: Vec<&str> =
        cmdline::CONTROLLERS.into_iter().filter(|name| !facts.controls(name)).collect();
    let version = facts.get("cgroup");
    if missing.is_empty() {
        verdicts.ok("control groups", format!("version {version}, with all controllers"));
    } else if facts.has("boot") {
        let flags = cmdline::missing(facts.get("boot-cmdline")).join(" ");
        let next = match flags.is_empty() {
            true => format!("{} says so already: reboot", facts.get("boot")),
            false => format!("`coracle up` adds {flags} to {} and reboots", facts.get("boot")),
        };
        verdicts.fail("control groups", format!("the kernel has no {}", missing.join(", ")), next);
    } else {
        let next = "add `cgroup_enable=memory` to the kernel's command line and reboot";
        verdicts.fail("control groups", format!("the kernel has no {}", missing.join(", ")), next);
    }
}

fn memory(verdicts: &mut Verdicts, facts: &Facts, service: Option<Service>) {
    let Some(bytes) = facts.memory() else { return };
    let needed =
        if service == Some(Service::Server) { SERVER_MEMORY_MIN } else { AGENT_MEMORY_MIN };
    let what = format!("{} MiB", bytes >> 20);
    match bytes < needed {
        true => {
            let what = format!("{what}: pods would find little beside the system");
            verdicts.warn("memory", what, format!("{} MiB and more are of use", needed >> 20));
        }
        false => verdicts.ok("memory", what),
    }
}

fn swap(verdicts: &mut Verdicts, facts: &Facts) {
    let swaps = facts.swaps();
    if swaps.is_empty() || facts.is_container() {
        return verdicts.ok("swap", "off");
    }
    let what = format!("on ({}): it wears cards out and hides what pods take", swaps.join(", "));
    verdicts.warn("swap", what, "`coracle up` switches it off; `swap: true` keeps it");
}

fn clock(verdicts: &mut Verdicts, facts: &Facts) {
    let next = "`timedatectl set-ntp true`, or name servers with `ntp`";
    if let Some(offset) = facts.clock {
        let apart = offset.at_least();
        let what = format!("{:.1} s {} this machine's", apart as f64 / 1000.0, {
            if offset.millis < 0 { "behind" } else { "ahead of" }
        });
        match apart {
            ms if ms > CLOCK_FAIL_MS => {
                return verdicts.fail("clock", format!("{what}: it could not join"), next);
            }
            ms if ms > CLOCK_WARN_MS => return verdicts.warn("clock", what, next),
            _ => {}
        }
    }
    let keeper = facts.get("timesync");
    match (keeper, facts.is_container()) {
        ("", false) => verdicts.warn("clock", "right, but nothing keeps it so", next),
        ("", true) => verdicts.ok("clock", "right, and kept by the machine around"),
        _ => verdicts.ok("clock", format!("right, kept by {keeper}")),
    }
}

fn ports(verdicts: &mut Verdicts, facts: &Facts, service: Option<Service>, etcd: bool) {
    let Some(service) = service else { return };
    if [Service::Server, Service::Agent].into_iter().any(|service| facts.is_active(service)) {
        return verdicts.ok("ports", "taken by Coracle");
    }
    let mut wanted = AGENT_PORTS.to_vec();
    if service == Service::Server {
        wanted.extend(SERVER_PORTS);
        wanted.extend(ETCD_PORTS.into_iter().filter(|_| etcd));
    }
    let taken = facts.ports();
    let taken: Vec<String> =
        wanted.iter().filter(|port| taken.contains(port)).map(u16::to_string).collect();
    match taken.is_empty() {
        true => verdicts.ok("ports", "free"),
        false => verdicts.fail(
            "ports",
            format!("somebody else listens on {}", taken.join(", ")),
            "see who by `ss -ltnp`, and stop it",
        ),
    }
}

fn room(verdicts: &mut Verdicts, facts: &Facts) {
    let Some(free) = facts.free() else { return };
    let what = format!("{:.1} GiB free for /var/lib/coracle", free as f64 / f64::from(1 << 30));
    let next = "use a larger card, or a disk for the data (`data`)";
    match free {
        free if free < FREE_MIN => verdicts.fail("disk room", what, next),
        free if free < FREE_GOOD => verdicts.warn("disk room", what, next),
        _ => verdicts.ok("disk room", what),
    }
}

/// eMMC says how much of its life is gone; SD cards say nothing.
fn card(verdicts: &mut Verdicts, facts: &Facts) {
    for name in ["mmcblk0", "mmcblk1", "mmcblk2"] {
        let words: Vec<&str> = facts.get(&format!("card.{name}")).split_whitespace().collect();
        let [maker, date, life @ ..] = &words[..] else { continue };
        let tenth = |text: &&str| u32::from_str_radix(text.trim_start_matches("0x"), 16).ok();
        let used = life.iter().take(2).filter_map(tenth).max().filter(|used| *used > 0);
        let Some(used) = used else {
            verdicts.ok("card", format!("{name} ({maker}, {date}) says nothing of its health"));
            continue;
        };
        let what = format!("{name} ({maker}, {date}): {} % of its life are gone", used * 10);
        match used {
            9.. => verdicts.fail("card", what, "replace it before it fails"),
            7..=8 => verdicts.warn("card", what, "have another at hand"),
            _ => verdicts.ok("card", what),
        }
    }
}

fn power(verdicts: &mut Verdicts, facts: &Facts) {
    let Some(bits) = facts.throttled() else { return };
    let said = |shift: u32| {
        let set = COMPLAINTS.iter().filter(|(bit, _)| bits & (1 << (bit + shift)) != 0);
        set.map(|(_, name)| *name).collect::<Vec<_>>().join(", ")
    };
    let next = "use a stronger supply and a thicker cable; see to the cooling";
    match (said(0), said(16)) {
        (now, _) if !now.is_empty() => verdicts.fail("power", format!("now: {now}"), next),
        (_, before) if !before.is_empty() => {
            verdicts.warn("power", format!("since the start: {before}"), next);
        }
        _ => verdicts.ok("power", "no under-voltage, no throttling"),
    }
}

fn heat(verdicts: &mut Verdicts, facts: &Facts) {
    let Some(degrees) = facts.temperature() else { return };
    let what = format!("{degrees:.0} °C");
    match degrees {
        d if d >= HOT => {
            let what = format!("{what}: the processor slows down");
            verdicts.fail("temperature", what, "give it a heat sink or a fan");
        }
        d if d >= WARM => verdicts.warn("temperature", what, "give it a heat sink or a fan"),
        _ => verdicts.ok("temperature", what),
    }
}
