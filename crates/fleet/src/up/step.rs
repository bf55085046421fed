use std::fmt;
use std::net::IpAddr;

use super::{NodeChange, address, wireless};
use crate::board::{File, Service, paths};
use crate::config::DataDisk;
use crate::image::Change;
use crate::ssh::quoted;

/// One thing to be done on a board. Its text says what, its script does it.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// The host gets another name.
    Hostname {
        /// What it is called now.
        from: String,
        /// What it will be called.
        to: String,
    },
    /// `/etc/hosts` names the boards.
    Hosts(String),
    /// Keys that may log in.
    AuthorizedKeys {
        /// The account's home.
        home: String,
        /// Lines that are not there yet.
        add: Vec<String>,
    },
    /// Swap goes off, now and for good.
    Swap {
        /// Services that make it.
        services: Vec<String>,
        /// `/etc/fstab` without it, where it stands there.
        fstab: Option<String>,
    },
    /// Another time zone.
    Timezone(String),
    /// Time is kept by somebody.
    TimeSync,
    /// A file of ours.
    File {
        /// The file.
        file: File,
        /// Whether there was another.
        replaces: bool,
    },
    /// Packages are installed.
    Packages {
        /// Their names.
        names: Vec<String>,
        /// Services of theirs that must not run.
        masked: Vec<&'static str>,
    },
    /// The disk for the data is made and mounted.
    DataDisk {
        /// The disk.
        disk: DataDisk,
        /// Whether it is formatted.
        format: bool,
        /// `/etc/fstab` with it.
        fstab: String,
    },
    /// The kernel's command line.
    Flags {
        /// The file.
        path: String,
        /// What it holds then.
        content: String,
        /// What is new in it.
        added: Vec<&'static str>,
    },
    /// A router board's Wi-Fi towards the world.
    Wireless {
        /// The interface.
        device: String,
        /// The network's name.
        ssid: String,
        /// The files.
        changes: Vec<Change>,
        /// The commands by which they count at once.
        take_up: String,
    },
    /// The board's address is set down in its own files, for its next start.
    Address {
        /// The interface.
        device: String,
        /// The address, and how much of it the subnet has in common.
        subnet: String,
        /// The files.
        changes: Vec<Change>,
    },
    /// The board starts again.
    Reboot,
    /// The board was reached at its fixed address, which stays.
    KeepAddress(IpAddr),
    /// The binary, copied from here.
    Binary {
        /// The architecture.
        arch: String,
        /// SHA-256.
        sum: String,
        /// The release that is there.
        from: String,
    },
    /// The configuration of the service.
    Config {
        /// The file.
        content: String,
        /// The keys that differ.
        keys: Vec<String>,
        /// Whether the service must start again.
        restart: bool,
    },
    /// The token that the board joins with. What it is, is known to nobody but who brings it.
    Token(TokenKind),
    /// The service is started, or started again.
    Service {
        /// Which.
        service: Service,
        /// It runs already.
        again: bool,
    },
    /// The Node's labels and taints, by the API.
    Node {
        /// Its name.
        name: String,
        /// What changes.
        change: NodeChange,
    },
}

/// Whose token a board gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// The one that `cluster.yaml` names.
    Named,
    /// The one that servers join with.
    Server,
    /// The one that agents join with.
    Agent,
}

/// Before each script: one `up` at a time, and files that are whole or not there.
const PRELUDE: &str = r#"set -eu
export LC_ALL=C DEBIAN_FRONTEND=noninteractive PATH="$PATH:/usr/sbin:/sbin"
exec 9>/run/coracle-up.lock
flock -w 60 9 || { echo "another coracle up is at work here" >&2; exit 1; }
put() {
    mkdir -p "$(dirname "$1")"
    rm -f "$1.new"
    (umask 077 && base64 -d >"$1.new")
    chmod "$2" "$1.new"
    sync "$1.new"
    mv -f "$1.new" "$1"
}
mark() {
    mkdir -p /etc/coracle
    : >/etc/coracle/.restart
}
"#;

/// How long a service may take until it has joined.
const START_SECONDS: u32 = 240;

impl Step {
    /// Whether it belongs to the board's joining, which is one board's turn after the other's; all
    /// else is done on all boards at once.
    pub fn joins(&self) -> bool {
        matches!(
            self,
            Step::Config { .. } | Step::Token(_) | Step::Service { .. } | Step::Node { .. }
        )
    }

    /// The script; none for what the driver does itself.
    pub fn script(&self) -> Option<String> {
        let body = match self {
            Step::Hostname { to, .. } => format!(
                "hostnamectl set-hostname {0} || {{ echo {0} >/etc/hostname; hostname {0}; }}",
                quoted(to)
            ),
            Step::Hosts(content) => put("/etc/hosts", 0o644, content),
            Step::AuthorizedKeys { home, add } => authorized(home, add),
            Step::Swap { services, fstab } => swap(services, fstab.as_deref()),
            Step::Timezone(zone) => format!("timedatectl set-timezone {}", quoted(zone)),
            Step::TimeSync => "timedatectl set-ntp true 2>/dev/null || \
                 apt-get install -y -q -o DPkg::Lock::Timeout=120 systemd-timesyncd >&2"
                .into(),
            Step::File { file, .. } => {
                let mark = if file.after.restarts() { "mark\n" } else { "" };
                let after = file.after.script();
                format!("{mark}{}\n{after}", put(&file.path, file.mode, &file.content))
            }
            Step::Packages { names, masked } => packages(names, masked),
            Step::DataDisk { disk, format, fstab } => super::disk::script(disk, *format, fstab),
            Step::Flags { path, content, .. } => flags(path, content),
            Step::Wireless { changes, take_up, .. } => wireless::script(changes, take_up),
            Step::Address { changes, .. } => address::script(changes),
            Step::KeepAddress(own) => address::keep(*own),
            // What holds the connection must end before the board does.
            Step::Reboot => "sync\n(sleep 1; systemctl reboot) >/dev/null 2>&1 9>&- &".into(),
            Step::Config { content, restart, .. } => {
                let mark = if *restart { "mark\n" } else { "" };
                format!("{mark}{}", put(paths::CONFIG, 0o600, content))
            }
            Step::Service { service, again } => start(*service, *again),
            Step::Node { name, change } => {
                let change = serde_json::to_string(change).unwrap_or_default();
                format!("{} board node {name} <<'END'\n{change}\nEND", paths::BINARY)
            }
            Step::Binary { .. } | Step::Token(_) => return None,
        };
        Some(format!("{PRELUDE}{body}"))
    }

    /// The script that takes a binary from its standard input. It is an argument, and holds nothing
    /// secret.
    pub fn receive(sum: &str) -> String {
        format!("{PRELUDE}mark\n{}", take_in(paths::BINARY, sum))
    }

    /// The script that puts a token in place.
    pub fn token(token: &str) -> String {
        format!("{PRELUDE}mark\n{}", put(paths::TOKEN, 0o600, &format!("{}\n", token.trim())))
    }
}

/// The script that takes a program in. Whatever ends it, nothing of half a program takes up a board's room.
fn take_in(program: &str, sum: &str) -> String {
    format!(
        "new={program}.new\ntrap 'rm -f \"$new\"' EXIT\nmkdir -p \"$(dirname \"$new\")\"\ncat >\"$new\"\n\
         [ \"$(sha256sum <\"$new\" | cut -d' ' -f1)\" = {sum} ] || \
         {{ echo 'the binary was damaged on the way' >&2; exit 1; }}\n\
         chmod 755 \"$new\"\n\
         \"$new\" version >/dev/null || {{ echo 'the binary does not run here' >&2; exit 1; }}\n\
         sync \"$new\"\nmv -f \"$new\" {program}"
    )
}

/// The script that makes a file whole or not at all.
pub(super) fn put(path: &str, mode: u32, content: &str) -> String {
    use base64::Engine;
    let content = base64::engine::general_purpose::STANDARD.encode(content);
    format!("put {} {mode:o} <<'END'\n{content}\nEND", quoted(path))
}

fn authorized(home: &str, add: &[String]) -> String {
    let lines: Vec<String> = add.iter().map(|line| quoted(line)).collect();
    format!(
        "home={}\nowner=$(stat -c %u:%g \"$home\")\nfolder=$home/.ssh\n\
         [ -d \"$folder\" ] || {{ mkdir -m 700 \"$folder\"; chown \"$owner\" \"$folder\"; }}\n\
         file=$folder/authorized_keys\nnew=$file.new\n\
         {{ [ ! -e \"$file\" ] || sed -e '$a\\' \"$file\"; printf '%s\\n' {}; }} >\"$new\"\n\
         chmod 600 \"$new\"\nchown \"$owner\" \"$new\"\nmv -f \"$new\" \"$file\"",
        quoted(home),
        lines.join(" ")
    )
}

fn swap(services: &[String], fstab: Option<&str>) -> String {
    let mut lines = Vec::new();
    lines
        .extend(services.iter().map(|name| format!("systemctl disable -q --now {}", quoted(name))));
    lines.extend(fstab.map(|content| put("/etc/fstab", 0o644, content)));
    lines.push("swapoff -a".into());
    lines.join("\n")
}

fn packages(names: &[String], masked: &[&str]) -> String {
    let names: Vec<String> = names.iter().map(|name| quoted(name)).collect();
    let mask = match masked.is_empty() {
        true => String::new(),
        false => format!("systemctl mask -q {}\n", masked.join(" ")),
    };
    let install = format!(
        "apt-get install -y -q --no-install-recommends -o DPkg::Lock::Timeout=120 \
         -o Dpkg::Options::=--force-confold {} 9>&-",
        names.join(" ")
    );
    // One that was interrupted is finished first; lists may be older than what the mirror has.
    format!(
        "{mask}dpkg --configure -a >&2\n\
         {install} >/run/coracle-apt.log 2>&1 || {{ apt-get update -q >&2; {install} >/run/coracle-apt.log 2>&1; }} || \
         {{ tail -n 3 /run/coracle-apt.log >&2; exit 1; }}"
    )
}

/// The firmware's file system has no permissions, and the old file stays beside the new one.
fn flags(path: &str, content: &str) -> String {
    use base64::Engine;
    let content = base64::engine::general_purpose::STANDARD.encode(content);
    let path = quoted(path);
    format!(
        "path={path}\n[ -e \"$path.bak\" ] || cp \"$path\" \"$path.bak\"\n\
         base64 -d >\"$path.new\" <<'END'\n{content}\nEND\n\
         [ \"$(wc -l <\"$path.new\")\" = 1 ]\nsync \"$path.new\"\nmv -f \"$path.new\" \"$path\"\nsync"
    )
}

fn start(service: Service, again: bool) -> String {
    let unit = service.unit();
    let verb = if again { "restart" } else { "start" };
    let restart = paths::RESTART;
    // Restarted even where systemd is just trying by itself: with what it had before.
    let verb = if again { verb } else { "restart" };
    format!(
        "systemctl daemon-reload\nsystemctl enable -q {unit}\n\
         timeout {START_SECONDS} systemctl {verb} {unit} || {{\n\
         journalctl -q --no-pager -n 20 -o cat -u {unit} | grep -i -e error -e hint | tail -n 2 | tr '\\n' ' ' >&2\n\
         echo \"{unit} did not start\" >&2\nexit 1\n}}\n\
         rm -f {restart}"
    )
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Hostname { from, to } => write!(f, "host name: {from} -> {to}"),
            Step::Hosts(_) => write!(f, "hosts file: the boards' names"),
            Step::AuthorizedKeys { add, .. } => {
                write!(f, "keys that may log in: {} more", add.len())
            }
            Step::Swap { .. } => write!(f, "swap: off"),
            Step::Timezone(zone) => write!(f, "time zone: {zone}"),
            Step::TimeSync => write!(f, "time synchronisation: on"),
            Step::File { file, replaces } => {
                write!(f, "{} {}", if *replaces { "change" } else { "write" }, file.path)
            }
            Step::Packages { names, .. } => write!(f, "packages: {}", names.join(" ")),
            Step::DataDisk { disk, format, .. } => {
                let verb = if *format { "format and mount" } else { "mount" };
                write!(f, "data disk: {verb} {} (label {})", disk.device, disk.label)
            }
            Step::Flags { path, added, .. } => write!(f, "{path}: {}", added.join(" ")),
            Step::Wireless { device, ssid, .. } => write!(f, "Wi-Fi: {device} to {ssid:?}"),
            Step::Address { device, subnet, .. } => {
                write!(f, "address: {subnet} fixed on {device}, no longer by DHCP")
            }
            Step::Reboot => write!(f, "reboot"),
            Step::KeepAddress(_) => write!(f, "address: kept"),
            Step::Binary { arch, from, .. } => match from.as_str() {
                "" => write!(f, "binary for {arch}"),
                from => write!(f, "binary for {arch}, in place of {from}"),
            },
            Step::Config { keys, .. } => write!(f, "configuration: {}", keys.join(", ")),
            Step::Token(_) => write!(f, "token"),
            Step::Service { service, again } => {
                write!(f, "{} {}", if *again { "restart" } else { "start" }, service.unit())
            }
            Step::Node { change, .. } => {
                let set = change.labels.iter().map(|(key, value)| format!("{key}={value}"));
                let taints = change.taints.iter().map(|taint| format!("taint {taint}"));
                let gone = change.remove_labels.iter().chain(&change.remove_taints);
                let gone = gone.map(|name| format!("{name}-"));
                let all: Vec<String> = set.chain(taints).chain(gone).collect();
                write!(f, "node: {}", all.join(", "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_program_is_taken_in_whole_or_leaves_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let program = folder.path().join("bin/coracle");
        let fine = format!("#!/bin/sh\n#{}\n", "x".repeat(4096));
        // A limit stands for a disk that is full: the shell's numbers are blocks of 512 bytes.
        for (limit, content, sum, expected) in [
            ("unlimited", &*fine, super::super::binaries::sum(&fine), true),
            ("4", &fine, super::super::binaries::sum(&fine), false),
            ("unlimited", &fine[1..], super::super::binaries::sum(&fine), false),
            ("unlimited", "exit 1\n", super::super::binaries::sum("exit 1\n"), false),
        ] {
            let _ = fs::remove_file(&program);
            let script = take_in(&program.display().to_string(), &sum);
            let script = format!("set -eu\nulimit -f {limit}\n{script}");
            let mut shell = Command::new("sh");
            shell.args(["-c", &script]).stdin(Stdio::piped()).stderr(Stdio::null());
            let mut shell = shell.spawn().expect("sh");
            let mut input = shell.stdin.take().expect("a pipe");
            // Who takes nothing more is told so by the end.
            let _ = input.write_all(content.as_bytes());
            drop(input);
            assert_eq!(shell.wait().expect("ended").success(), expected, "{limit}");
            let left = fs::read_dir(program.parent().expect("a folder")).expect("read").count();
            assert_eq!(left, usize::from(expected), "{limit}");
        }
    }
}
