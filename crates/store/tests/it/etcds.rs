//! Real etcds.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use store::{EtcdOptions, TlsFiles};

use crate::process::{Folder, Process, Recipe, await_ready, free_port, tools};

/// An etcd of one or more members.
pub struct Etcds {
    pub members: Vec<Member>,
}

/// One member.
pub struct Member {
    pub url: String,
    recipe: Recipe,
    // Before the folder, which must outlive it.
    pub process: Option<Process>,
    folder: Folder,
}

impl Etcds {
    /// Starts members and waits for all of them.
    pub fn start(count: usize) -> Self {
        Self::start_with(count, &[])
    }

    /// The same with more flags.
    pub fn start_with(count: usize, more: &[String]) -> Self {
        let ports: Vec<(u16, u16)> = (0..count).map(|_| (free_port(), free_port())).collect();
        let peers: Vec<String> = ports
            .iter()
            .enumerate()
            .map(|(n, (_, peer))| format!("m{n}=http://127.0.0.1:{peer}"))
            .collect();
        let members = ports.iter().enumerate();
        let members = members.map(|(n, ports)| Member::new(n, *ports, &peers.join(","), more));
        let mut members: Vec<Member> = members.collect();
        let started = members.iter_mut().map(|member| {
            let (process, ready) = Process::start(&member.recipe, &member.folder.path);
            member.process = Some(process);
            ready
        });
        let started: Vec<_> = started.collect();
        for (ready, member) in started.iter().zip(&members) {
            await_ready(ready, &member.folder.path);
        }
        Self { members }
    }

    /// One that all tests share, each below a prefix of its own.
    pub fn shared() -> EtcdOptions {
        static SHARED: OnceLock<Etcds> = OnceLock::new();
        static PREFIXES: AtomicU32 = AtomicU32::new(0);
        let mut options = SHARED.get_or_init(|| Self::start(1)).options();
        options.prefix = format!("/test-{}", PREFIXES.fetch_add(1, Ordering::Relaxed));
        options
    }

    /// How to reach it, the first member first.
    pub fn options(&self) -> EtcdOptions {
        self.options_from(0)
    }

    /// The same, another member first.
    pub fn options_from(&self, first: usize) -> EtcdOptions {
        let mut urls: Vec<String> = self.members.iter().map(|m| m.url.clone()).collect();
        urls.rotate_left(first);
        EtcdOptions::new(urls, TlsFiles::default())
    }
}

impl Member {
    pub fn new(number: usize, (client, peer): (u16, u16), peers: &str, more: &[String]) -> Self {
        let folder = Folder::new(&format!("etcd{number}"));
        let scheme = if more.iter().any(|a| a.contains("cert")) { "https" } else { "http" };
        let (url, own) =
            (format!("{scheme}://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
        let data = folder.path.join("data").display().to_string();
        let name = format!("m{number}");
        let pairs = [
            ("name", &*name),
            ("data-dir", &*data),
            ("listen-client-urls", &*url),
            ("advertise-client-urls", &*url),
            ("listen-peer-urls", &*own),
            ("initial-advertise-peer-urls", &*own),
            ("initial-cluster", peers),
            ("heartbeat-interval", "100"),
            ("election-timeout", "1000"),
        ];
        let mut arguments: Vec<String> =
            pairs.iter().map(|(flag, value)| format!("--{flag}={value}")).collect();
        arguments.extend_from_slice(more);
        let program = tools("etcd/usr/bin/etcd");
        let ready = "ready to serve client requests";
        let environment = Vec::new();
        let recipe = Recipe { program, arguments, environment, ready, unprivileged: false };
        Self { url, recipe, process: None, folder }
    }

    pub fn port(&self) -> u16 {
        self.url.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port")
    }

    /// Kills it if it runs.
    pub fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill();
        }
    }

    /// Starts it again and does not wait: alone it cannot serve.
    pub fn start_alone(&mut self) {
        self.process = Some(Process::start(&self.recipe, &self.folder.path).0);
    }

    pub fn signal(&self, name: &str) {
        self.process.as_ref().expect("it runs").signal(name);
    }
}

/// What another client does to it.
impl Etcds {
    async fn client(&self) -> etcd_client::Client {
        let urls: Vec<&str> = self.members.iter().map(|m| &*m.url).collect();
        etcd_client::Client::connect(urls, None).await.expect("etcd answers")
    }

    /// Writes a key behind the back of every store.
    pub async fn put(&self, key: &str, value: &str) {
        self.client().await.put(key, value, None).await.expect("put");
    }

    /// Whether the history at a revision is forgotten.
    pub async fn is_compacted(&self, revision: u64) -> bool {
        let at = etcd_client::GetOptions::new().with_revision(revision.cast_signed());
        self.client().await.get("x", Some(at)).await.is_err()
    }
}
