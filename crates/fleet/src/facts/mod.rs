//! What a board is, as one script finds it that needs no Coracle there.

mod clock;
mod identity;
mod script;

use std::collections::BTreeMap;
use std::net::IpAddr;

pub use clock::Offset;
pub use identity::Identity;
pub use script::{Questions, script};

use crate::board::Service;

/// What was found on a board. What it could not say is not there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    values: BTreeMap<String, String>,
    /// How its clock differs from ours.
    pub clock: Option<Offset>,
}

/// A device that data can lie on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Disk {
    /// Such as `/dev/sda1`.
    pub path: String,
    /// `disk` or `part`.
    pub sort: String,
    /// Its size.
    pub bytes: u64,
    /// Its file system; empty where it has none.
    pub filesystem: String,
    /// The file system's label.
    pub label: String,
    /// Where it is mounted.
    pub mounted: String,
    /// The maker's name of it.
    pub model: String,
}

impl Facts {
    /// Reads what the script printed; none where it was cut short.
    pub fn parse(text: &str) -> Option<Self> {
        let mut values = BTreeMap::new();
        for line in text.lines() {
            let Some((key, value)) = line.split_once('=') else { continue };
            match key.strip_suffix(':') {
                Some(key) => {
                    let bytes = base64_decoded(value)?;
                    values.insert(key.to_owned(), String::from_utf8_lossy(&bytes).into_owned());
                }
                None => {
                    values.insert(key.to_owned(), value.trim().to_owned());
                }
            }
        }
        (values.remove("done").as_deref() == Some("yes")).then_some(Self { values, clock: None })
    }

    /// A value; empty where there is none.
    pub fn get(&self, key: &str) -> &str {
        self.values.get(key).map_or("", String::as_str)
    }

    /// Whether there is a value.
    pub fn has(&self, key: &str) -> bool {
        !self.get(key).is_empty()
    }

    fn number<T: std::str::FromStr>(&self, key: &str) -> Option<T> {
        self.get(key).parse().ok()
    }

    /// Architecture, in Rust's and the kernel's words.
    pub fn arch(&self) -> &str {
        self.get("arch")
    }

    /// The system's name for people.
    pub fn os(&self) -> String {
        let line = self.get("os").lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
        line.unwrap_or("unknown").trim_matches('"').to_owned()
    }

    fn of_meminfo(&self, key: &str) -> Option<u64> {
        let line = self.get("meminfo").lines().find(|line| line.starts_with(key))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
    }

    /// Memory in bytes.
    pub fn memory(&self) -> Option<u64> {
        self.of_meminfo("MemTotal:")
    }

    /// Memory that could be given out, in bytes.
    pub fn memory_available(&self) -> Option<u64> {
        self.of_meminfo("MemAvailable:")
    }

    /// Whether the kernel can limit this.
    pub fn controls(&self, controller: &str) -> bool {
        self.get("controllers").split_whitespace().any(|word| word == controller)
    }

    /// Whether it is a container, whose kernel is somebody else's.
    pub fn is_container(&self) -> bool {
        !matches!(self.get("container"), "" | "none")
    }

    /// Devices that swap is on.
    pub fn swaps(&self) -> Vec<&str> {
        let lines = self.get("swaps").lines().skip(1);
        lines.filter_map(|line| line.split_whitespace().next()).collect()
    }

    /// Whether `/etc/fstab` brings swap back at the next start.
    pub fn fstab_swaps(&self) -> bool {
        self.get("fstab").lines().any(|line| {
            !line.trim_start().starts_with('#') && line.split_whitespace().nth(2) == Some("swap")
        })
    }

    /// Addresses by interface, without those of the machine alone.
    pub fn addresses(&self) -> Vec<(String, IpAddr)> {
        let parsed = self.get("addresses").lines().filter_map(|line| {
            let mut words = line.split_whitespace().skip(1);
            let device = words.next()?.to_owned();
            let address = words.nth(1)?.split('/').next()?.parse().ok()?;
            Some((device, address))
        });
        parsed.filter(|(_, address): &(_, IpAddr)| !address.is_loopback()).collect()
    }

    /// The interface on which an address is somebody's loan, as a DHCP server's is.
    pub fn leased(&self, address: IpAddr) -> Option<String> {
        let mut own = self.get("addresses").lines().filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let is_it = words.get(3)?.split('/').next()?.parse() == Ok(address);
            (is_it && words.contains(&"dynamic")).then(|| words[1].to_owned())
        });
        own.next()
    }

    /// Paths that set the network up, with the content of those that may be changed.
    pub fn network_files(&self) -> Vec<(&str, String)> {
        let lines = self.get("network").lines();
        let parts = lines.map(|line| line.split_once(' ').unwrap_or((line, "")));
        let decoded = |content: &str| base64_decoded(content).unwrap_or_default();
        let text = |content: &str| String::from_utf8_lossy(&decoded(content)).into_owned();
        parts.map(|(path, content)| (path, text(content))).collect()
    }

    /// Interfaces with their hardware addresses; none of Coracle's, whose names begin with `cor`.
    pub fn interfaces(&self) -> Vec<(String, String)> {
        let parsed = self.get("links").lines().filter_map(|line| {
            let name = line.split_whitespace().nth(1)?.trim_end_matches(':');
            let name = name.split('@').next()?.to_owned();
            let mut words = line.split_whitespace().skip_while(|word| *word != "link/ether");
            Some((name, words.nth(1)?.to_owned()))
        });
        parsed.filter(|(name, _)| !name.starts_with("cor")).collect()
    }

    /// The largest packet of the interface that carries an address.
    pub fn mtu(&self, address: IpAddr) -> Option<u32> {
        let (device, _) = self.addresses().into_iter().find(|(_, own)| *own == address)?;
        let line = self.get("links").lines().find(|line| {
            let name = line.split_whitespace().nth(1).unwrap_or_default().trim_end_matches(':');
            name.split('@').next() == Some(&device)
        })?;
        let mut words = line.split_whitespace().skip_while(|word| *word != "mtu");
        words.nth(1)?.parse().ok()
    }

    /// TCP ports that somebody listens on.
    pub fn ports(&self) -> std::collections::BTreeSet<u16> {
        let port = |line: &str| u16::from_str_radix(line.split(':').nth(1)?, 16).ok();
        self.get("listening").lines().filter_map(port).collect()
    }

    /// The disks and their parts.
    pub fn disks(&self) -> Vec<Disk> {
        let disk = |line: &str| {
            let value = |key: &str| quoted_value(line, key).unwrap_or_default();
            let path = value("PATH");
            let holds = |key: &str, other: &str| match value(key) {
                empty if empty.is_empty() => self.of_blkid(&path, other),
                known => known,
            };
            Disk {
                sort: value("TYPE"),
                bytes: value("SIZE").parse().unwrap_or(0),
                filesystem: holds("FSTYPE", "TYPE"),
                label: holds("LABEL", "LABEL"),
                path: path.clone(),
                mounted: value("MOUNTPOINT"),
                model: value("MODEL").trim().to_owned(),
            }
        };
        self.get("disks").lines().map(disk).collect()
    }

    fn of_blkid(&self, path: &str, key: &str) -> String {
        let mut lines = self.get("blkid").lines();
        let line = lines.find_map(|line| line.strip_prefix(path)?.strip_prefix(':'));
        line.and_then(|line| quoted_value(line, key)).unwrap_or_default()
    }

    /// The device that is mounted at exactly this folder.
    pub fn mounted_at(&self, folder: &str) -> Option<&str> {
        let mounts = self.get("mounts").lines().rev();
        let mut fields = mounts.map(|line| (line.split(' ').next(), line.split(' ').nth(1)));
        fields.find(|(_, point)| *point == Some(folder))?.0
    }

    /// Bytes that are free where the data will lie.
    pub fn free(&self) -> Option<u64> {
        let table = if self.has("data-space") { "data-space" } else { "space" };
        let line = self.get(table).lines().last()?;
        line.split_whitespace().nth(3)?.parse::<u64>().ok().map(|kib| kib * 1024)
    }

    /// A file's permissions and checksum.
    pub fn file(&self, path: &str) -> Option<(u32, &str)> {
        let (mode, sum) = self.get(&format!("file.{path}")).split_once(' ')?;
        Some((u32::from_str_radix(mode, 8).ok()?, sum))
    }

    /// Whether a package is installed.
    pub fn has_package(&self, name: &str) -> bool {
        self.get(&format!("package.{name}")) == "installed"
    }

    /// What tells a token from another, without telling it.
    pub fn token(&self, path: &str) -> &str {
        self.get(&format!("token.{path}"))
    }

    /// Whether a service runs.
    pub fn is_active(&self, service: Service) -> bool {
        self.get(&format!("active.{}", service.unit())) == "active"
    }

    /// Whether a service starts with the board.
    pub fn is_enabled(&self, service: Service) -> bool {
        self.get(&format!("enabled.{}", service.unit())) == "enabled"
    }

    /// The cluster that the board is in.
    pub fn identity(&self) -> Option<Identity> {
        Identity::of(self.get("server-authority"), self.get("agent-cluster"))
    }

    /// Degrees Celsius of the processor.
    pub fn temperature(&self) -> Option<f64> {
        self.number::<f64>("temperature").map(|thousandths| thousandths / 1000.0)
    }

    /// The firmware's complaints, as its bits.
    pub fn throttled(&self) -> Option<u32> {
        u32::from_str_radix(self.get("throttled").trim_start_matches("0x"), 16).ok()
    }

    /// Tells one start of the board from the next.
    pub fn boot(&self) -> (&str, &str) {
        (self.get("boot-id"), self.get("init"))
    }
}

/// The value of `KEY="value"` in a line of such.
fn quoted_value(line: &str, key: &str) -> Option<String> {
    let start = format!("{key}=\"");
    let mut at = line.match_indices(&start).map(|(at, _)| at);
    let at = at.find(|at| *at == 0 || line.as_bytes()[at - 1] == b' ')?;
    let rest = &line[at + start.len()..];
    Some(rest[..rest.find('"')?].to_owned())
}

/// Decodes base64 with padding, as coreutils writes it.
fn base64_decoded(text: &str) -> Option<Vec<u8>> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.decode(text.trim()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(lines: &[(&str, &str)]) -> Facts {
        use base64::Engine;
        let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        let lines = lines.iter().map(|(key, value)| match key.strip_suffix(':') {
            Some(_) => format!("{key}={}\n", encode(value)),
            None => format!("{key}={value}\n"),
        });
        Facts::parse(&(lines.collect::<String>() + "done=yes\n")).expect("whole")
    }

    #[test]
    fn what_was_cut_short_is_nothing() {
        assert_eq!(Facts::parse("arch=x86_64\n"), None);
        assert_eq!(facts(&[("arch", "x86_64")]).arch(), "x86_64");
    }

    #[test]
    fn what_tools_print_is_read() {
        let facts = facts(&[
            (
                "addresses:",
                "1: lo    inet 127.0.0.1/8 scope host lo\n2: eth0    inet 10.0.0.5/24 brd 10.0.0.255 scope global eth0\n",
            ),
            (
                "links:",
                "1: lo: <UP> mtu 65536 x\n2: eth0@if3: <UP> mtu 1400 qdisc noqueue state UP\n",
            ),
            ("blkid:", "/dev/sdb: LABEL=\"coracle\" UUID=\"1-2\" TYPE=\"ext4\"\n"),
            ("listening:", "0100007F:0016\n00000000:192B\n"),
            ("swaps:", "Filename Type Size Used Priority\n/var/swap file 102396 0 -2\n"),
            ("fstab:", "# /x none swap sw 0 0\n/var/swap none swap sw 0 0\n"),
            (
                "disks:",
                "PATH=\"/dev/sda1\" TYPE=\"part\" SIZE=\"1000\" FSTYPE=\"ext4\" LABEL=\"my data\" MOUNTPOINT=\"/mnt\" MODEL=\"\" RO=\"0\"\nPATH=\"/dev/sdb\" TYPE=\"disk\" FSTYPE=\"\" LABEL=\"\"\n",
            ),
            (
                "space:",
                "Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/a 10 5 4 50% /\n",
            ),
            ("meminfo:", "MemTotal:        1024 kB\n"),
            ("file./etc/x", "600 abc"),
            ("throttled", "0x50005"),
        ]);
        let own: IpAddr = "10.0.0.5".parse().expect("an address");
        assert_eq!(facts.addresses(), [("eth0".to_owned(), own)]);
        assert_eq!(facts.mtu(own), Some(1400));
        assert_eq!(facts.ports().into_iter().collect::<Vec<_>>(), [22, 6443]);
        assert_eq!(facts.swaps(), ["/var/swap"]);
        assert!(facts.fstab_swaps());
        assert_eq!(facts.disks()[0].label, "my data");
        let other = &facts.disks()[1];
        assert_eq!((other.filesystem.as_str(), other.label.as_str()), ("ext4", "coracle"));
        assert_eq!(facts.free(), Some(4096));
        assert_eq!(facts.memory(), Some(1 << 20));
        assert_eq!(facts.file("/etc/x"), Some((0o600, "abc")));
        assert_eq!(facts.throttled(), Some(0x50005));
    }
}
