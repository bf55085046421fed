//! How etcd is started: a pure function from what was decided to a command line.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use crate::server::EtcdOptions;

/// Entries of the log between two snapshots. etcd keeps as many in memory; upstream's 100,000
/// would be most of what it uses.
const SNAPSHOT_ENTRIES: u32 = 5000;
/// How long changes are gathered before the database is synced, which rewrites some ten pages
/// for whatever has changed. The log, which is what makes a write durable, is synced each time; the
/// database may lag and is caught up from it. Before entries leave the log it is synced too.
const BACKEND_BATCH_INTERVAL: &str = "300s";
/// How many changes are gathered at most, some two for each write: they are in memory until then,
/// and what a start after a crash catches up.
const BACKEND_BATCH_CHANGES: u32 = 1000;
/// How old files are kept. One segment of the log is 64 MB.
const FILES_KEPT: u32 = 2;
/// What counts as slow: on an SD card 100 ms, etcd's default, is nothing to write about.
const SLOW_APPLY: &str = "1s";
/// How often members compare what they hold.
const CORRUPT_CHECK: &str = "12h";
/// What the collector of etcd's language is told: a smaller heap for a little more work.
const GC_PERCENT: u32 = 50;
/// Beyond this the collector works harder rather than taking more.
const MEMORY_GOAL: &str = "96MiB";

/// Certificates in files, since etcd reads them anew for each connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Whom members and clients trust.
    pub ca: PathBuf,
    /// What this member shows, as a server and as a client.
    pub cert: PathBuf,
    /// The key of that.
    pub key: PathBuf,
}

/// How a member begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// As the first of a new cluster.
    New,
    /// As one more of a cluster whose members (name and peer URL, itself among them) are these.
    Joining(Vec<(String, String)>),
    /// With the data it has.
    Again,
    /// With the data it has, and without the others.
    Alone,
}

/// A member of etcd on this board.
#[derive(Debug, Clone)]
pub struct Line<'a> {
    /// The member's folder.
    pub folder: &'a Path,
    /// The member's name, which is the node's.
    pub name: &'a str,
    /// The address that other members reach it at.
    pub ip: IpAddr,
    /// Ports, times and limits.
    pub options: &'a EtcdOptions,
    /// Certificates.
    pub tls: &'a TlsFiles,
}

/// The URL of a port of etcd's.
pub fn url(ip: IpAddr, port: u16) -> String {
    format!("https://{}", SocketAddr::new(ip, port))
}

impl Line<'_> {
    /// The arguments that start the member.
    pub fn arguments(&self, start: &Start) -> Vec<OsString> {
        let o = self.options;
        let (peer, client) = (url(self.ip, o.etcd_peer_port), url(self.ip, o.etcd_client_port));
        let loopback = IpAddr::from([127, 0, 0, 1]);
        let local = url(loopback, o.etcd_client_port);
        let heard = if self.ip == loopback { local } else { format!("{client},{local}") };
        let metrics = SocketAddr::new(loopback, o.etcd_metrics_port);
        let mut flags: Vec<(&str, String)> = vec![
            ("name", self.name.to_owned()),
            ("listen-peer-urls", peer.clone()),
            ("listen-client-urls", heard),
            ("advertise-client-urls", client),
            ("initial-advertise-peer-urls", peer.clone()),
            ("listen-metrics-urls", format!("http://{metrics}")),
            ("heartbeat-interval", o.etcd_heartbeat_interval.to_string()),
            ("election-timeout", o.etcd_election_timeout.to_string()),
            ("pre-vote", "true".to_owned()),
            // Who may join and leave is decided in `membership`, from what answers at that moment;
            // etcd's own check wants all members to have been connected for five seconds first.
            ("strict-reconfig-check", "false".to_owned()),
            ("snapshot-count", SNAPSHOT_ENTRIES.to_string()),
            ("max-snapshots", FILES_KEPT.to_string()),
            ("max-wals", FILES_KEPT.to_string()),
            ("backend-batch-interval", BACKEND_BATCH_INTERVAL.to_owned()),
            ("backend-batch-limit", BACKEND_BATCH_CHANGES.to_string()),
            ("quota-backend-bytes", (u64::from(o.etcd_quota) << 20).to_string()),
            ("auto-compaction-retention", "0".to_owned()),
            ("experimental-corrupt-check-time", CORRUPT_CHECK.to_owned()),
            ("experimental-warning-apply-duration", SLOW_APPLY.to_owned()),
            // A board with a second address, such as the virtual one, may talk from either.
            ("experimental-peer-skip-client-san-verification", "true".to_owned()),
            ("client-cert-auth", "true".to_owned()),
            ("peer-client-cert-auth", "true".to_owned()),
            ("logger", "zap".to_owned()),
            ("log-level", "warn".to_owned()),
            ("log-outputs", "stderr".to_owned()),
        ];
        match start {
            Start::New => {
                flags.push(("initial-cluster", format!("{}={peer}", self.name)));
                flags.push(("initial-cluster-state", "new".to_owned()));
            }
            Start::Joining(members) => {
                let members: Vec<String> =
                    members.iter().map(|(name, url)| format!("{name}={url}")).collect();
                flags.push(("initial-cluster", members.join(",")));
                flags.push(("initial-cluster-state", "existing".to_owned()));
            }
            Start::Again => {}
            Start::Alone => flags.push(("force-new-cluster", "true".to_owned())),
        }
        let files = [
            ("data-dir", self.folder),
            ("trusted-ca-file", &self.tls.ca),
            ("cert-file", &self.tls.cert),
            ("key-file", &self.tls.key),
            ("peer-trusted-ca-file", &self.tls.ca),
            ("peer-cert-file", &self.tls.cert),
            ("peer-key-file", &self.tls.key),
        ];
        let files = files.into_iter().map(|(name, path)| (name, path.as_os_str().to_owned()));
        let flags = flags.into_iter().map(|(name, value)| (name, OsString::from(value)));
        // What a person asks for comes last, and so wins.
        let own = o.etcd_arg.iter().map(|argument| OsString::from(format!("--{argument}")));
        flags.chain(files).map(|(name, value)| joined(name, value)).chain(own).collect()
    }

    /// The whole environment of the member: etcd takes every `ETCD_` variable for a flag, so
    /// none is inherited.
    pub fn environment() -> Vec<(&'static str, String)> {
        let mut environment =
            vec![("GOGC", GC_PERCENT.to_string()), ("GOMEMLIMIT", MEMORY_GOAL.to_owned())];
        // etcd 3.4 runs elsewhere than on amd64 only where it is asked to.
        let architecture = match std::env::consts::ARCH {
            "aarch64" => "arm64",
            "arm" => "arm",
            "riscv64" => "riscv64",
            _ => return environment,
        };
        environment.push(("ETCD_UNSUPPORTED_ARCH", architecture.to_owned()));
        environment
    }
}

fn joined(name: &str, value: OsString) -> OsString {
    let mut flag = OsString::from(format!("--{name}="));
    flag.push(value);
    flag
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Options {
        #[command(flatten)]
        etcd: EtcdOptions,
    }

    /// The arguments that contain one of `words`.
    fn shown(start: Start, flags: &str, words: &[&str]) -> String {
        let options = Options::parse_from(["x"].into_iter().chain(flags.split_whitespace())).etcd;
        let file = |name: &str| PathBuf::from(format!("/tls/{name}"));
        let tls = TlsFiles { ca: file("ca"), cert: file("cert"), key: file("key") };
        let line = Line {
            folder: Path::new("/data"),
            name: "a",
            ip: IpAddr::from([10, 0, 0, 1]),
            options: &options,
            tls: &tls,
        };
        let arguments = line.arguments(&start).into_iter();
        let arguments = arguments.map(|argument| argument.to_string_lossy().into_owned());
        let kept = arguments.filter(|argument| words.iter().any(|word| argument.contains(word)));
        kept.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn each_way_to_begin_has_its_flags() {
        let words = ["--initial-cluster", "--force"];
        for (start, expected) in [
            (Start::New, "--initial-cluster=a=https://10.0.0.1:2380 --initial-cluster-state=new"),
            (
                Start::Joining(vec![("b".into(), "x".into()), ("a".into(), "y".into())]),
                "--initial-cluster=b=x,a=y --initial-cluster-state=existing",
            ),
            (Start::Again, ""),
            (Start::Alone, "--force-new-cluster=true"),
        ] {
            assert_eq!(shown(start, "", &words), expected);
        }
    }

    #[test]
    fn flags_of_a_person_come_last() {
        let flags = "--etcd-client-port=4001 --etcd-arg=snapshot-count=9,log-level=info";
        assert_eq!(
            shown(Start::Again, flags, &["client-urls", "snapshot-count", "log-level"]),
            "--listen-client-urls=https://10.0.0.1:4001,https://127.0.0.1:4001 \
             --advertise-client-urls=https://10.0.0.1:4001 --snapshot-count=5000 \
             --log-level=warn --snapshot-count=9 --log-level=info"
        );
    }
}
