//! One board in network and mount namespaces of its own: the real API server over a store in
//! memory, the real runtime and network, and the agent under test.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use agent::{NetworkParts, NodeNetwork};
use apiserver::{ApiServer, JsonCodec, KubeletClient, Limits, ServiceAccountConfig, User, Version};
use base64::Engine;
use client::Informers;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Pod, ServiceAccount};
use kube::api::{DeleteParams, LogParams, PostParams};
use kube::{Api, Client};
use net::dns::{Keeper, KeeperConfig};
use net::{DnsConfig, PodNetwork, PodNetworkConfig, ProxyConfig, ServiceAddress, ServiceProxy};
use runtime::{Native, NativeConfig, Runtime};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// What is waited for happens within this, also on a busy machine.
const SOON: Duration = Duration::from_secs(30);
/// The image of all test pods.
pub const BUSYBOX: &str = "test.local/busybox:1";
const NODE_IP: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Address of cluster DNS.
const DNS_IP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 43, 0, 10));

pub struct Rig {
    pub client: Client,
    folder: PathBuf,
    native: Native,
    native_config: NativeConfig,
    network: Arc<PodNetwork>,
    tls: Arc<rustls::ServerConfig>,
    port: u16,
    running: Option<(CancellationToken, tokio::task::JoinHandle<()>)>,
}

impl Rig {
    pub async fn new() -> Rig {
        let folder = PathBuf::from(format!("/var/tmp/cor-agent-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let mut native_config = NativeConfig::new(folder.join("runtime"), folder.join("run"));
        native_config.cgroup_prefix = format!("/cor-agent-{}", std::process::id());
        let native = Native::open(native_config.clone()).await.unwrap();
        let archive = folder.join("busybox.tar");
        docker_archive(&archive);
        native.import_archive(&archive).await.unwrap();
        let network = PodNetwork::open(PodNetworkConfig {
            pod_cidrs: vec!["10.42.0.0/24".parse().unwrap()],
            cluster_cidrs: vec!["10.42.0.0/16".parse().unwrap()],
            state_dir: folder.join("net"),
            ..PodNetworkConfig::default()
        })
        .await
        .unwrap();
        ServiceAddress::open("coracle-dns", &[DNS_IP]).await.unwrap();
        let (server_tls, client_tls) = certificates(&folder);
        let api = api_server(client_tls).await;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:6443").await.unwrap();
        let tls = rustls::ServerConfig::clone(&server_tls);
        tokio::spawn(api.clone().serve(listener, tls, CancellationToken::new()));
        let client = client::in_process(api.in_process(User::admin()));
        let rig = Rig {
            client,
            folder,
            native,
            native_config,
            network: Arc::new(network),
            tls: server_tls,
            port: 10250,
            running: None,
        };
        let account: ServiceAccount =
            serde_json::from_value(json!({"metadata": {"name": "default"}})).unwrap();
        let accounts: Api<ServiceAccount> = Api::namespaced(rig.client.clone(), "default");
        accounts.create(&PostParams::default(), &account).await.unwrap();
        let bundle = json!({"metadata": {"name": "kube-root-ca.crt"}, "data": {"ca.crt": "x"}});
        let maps: Api<ConfigMap> = Api::namespaced(rig.client.clone(), "default");
        maps.create(&PostParams::default(), &serde_json::from_value(bundle).unwrap())
            .await
            .unwrap();
        rig
    }

    /// The service proxy and cluster DNS, as the binary opens them.
    async fn services(&self) -> NetworkParts {
        let proxy = ServiceProxy::open(ProxyConfig {
            cluster_cidrs: vec!["10.42.0.0/16".parse().unwrap()],
            ..ProxyConfig::default()
        });
        let dns = Keeper::open(KeeperConfig {
            dns: DnsConfig {
                listen: vec![SocketAddr::new(DNS_IP, 53)],
                service_ips: vec![DNS_IP],
                ..DnsConfig::default()
            },
            socket: self.folder.join("dns.sock"),
            release: "test".to_owned(),
            launch: Arc::new(|control, _| {
                std::thread::spawn(move || hold_dns(control));
                Ok(())
            }),
        });
        NetworkParts {
            proxy: Some(proxy.await.unwrap()),
            dns: Some(dns.await.unwrap()),
            proxy_health: None,
            proxy_metrics: None,
            own_addresses: vec![DNS_IP],
        }
    }

    /// Starts an agent.
    pub async fn start(&mut self) {
        let mut config = agent::Config::new("board", vec![NODE_IP], self.tls.clone());
        config.data_dir = self.folder.join("agent");
        config.run_dir = self.folder.join("run-agent");
        config.log_dir = self.folder.join("logs");
        config.listen.set_port(self.port);
        config.cluster_dns = Some(DNS_IP);
        // How full this machine's disk is is none of the tests' business.
        config.eviction.disk_available_percent = 0;
        config.eviction.inodes_free_percent = 0;
        let network = NodeNetwork { pods: self.network.clone(), services: self.services().await };
        let stop = CancellationToken::new();
        let runtime: Arc<dyn Runtime> = Arc::new(self.native.clone());
        let agent =
            agent::run(config, Informers::new(self.client.clone()), runtime, network, stop.clone());
        let task = tokio::spawn(async move { agent.await.unwrap() });
        self.running = Some((stop, task));
    }

    /// Stops the agent; containers are left alone.
    pub async fn stop(&mut self) {
        if let Some((stop, task)) = self.running.take() {
            stop.cancel();
            task.await.unwrap();
        }
    }

    /// The runtime as a new process would find it.
    pub async fn reopen_runtime(&mut self) {
        self.native = Native::open(self.native_config.clone()).await.unwrap();
    }

    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), "default")
    }

    pub async fn create(&self, name: &str, spec: Value) {
        let mut spec = spec;
        spec["nodeName"] = json!("board");
        if spec["terminationGracePeriodSeconds"].is_null() {
            spec["terminationGracePeriodSeconds"] = json!(1);
        }
        let pod = json!({"metadata": {"name": name, "labels": {"app": name}}, "spec": spec});
        let pod: Pod = serde_json::from_value(pod).unwrap();
        self.pods().create(&PostParams::default(), &pod).await.unwrap();
    }

    /// Waits until a pod is as wanted; gives it as JSON.
    pub async fn until(&self, name: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + SOON;
        loop {
            let pod = self.pods().get_opt(name).await.unwrap();
            let pod = serde_json::to_value(pod).unwrap();
            if wanted(&pod) {
                return pod;
            }
            if Instant::now() > deadline {
                let events: Api<k8s_openapi::api::core::v1::Event> = Api::all(self.client.clone());
                for event in events.list(&Default::default()).await.unwrap() {
                    println!("  {:?}: {:?}", event.reason, event.message);
                }
                panic!("{name} never was {what}: {:#}", pod["status"]);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits for an event on a pod.
    pub async fn event(&self, pod: &str, reason: &str, text: &str) {
        let events: Api<Event> = Api::namespaced(self.client.clone(), "default");
        let deadline = Instant::now() + SOON;
        loop {
            let all = events.list(&Default::default()).await.unwrap();
            let found = all.iter().any(|event| {
                event.involved_object.name.as_deref() == Some(pod)
                    && event.reason.as_deref() == Some(reason)
                    && event.message.as_deref().is_some_and(|m| m.contains(text))
            });
            if found {
                return;
            }
            let seen: Vec<_> = all.iter().map(|e| (&e.reason, &e.message)).collect();
            assert!(Instant::now() < deadline, "{pod} never had {reason} {text:?}: {seen:#?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn phase(&self, name: &str, phase: &str) -> Value {
        self.until(name, phase, |pod| pod["status"]["phase"] == phase).await
    }

    pub async fn logs(&self, name: &str, params: LogParams) -> String {
        self.pods().logs(name, &params).await.unwrap()
    }

    pub async fn delete(&self, name: &str) {
        self.pods().delete(name, &DeleteParams::default()).await.unwrap();
        self.until(name, "gone", Value::is_null).await;
    }

    /// What belongs to this test alone.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Kills the shim of a pod, as the kernel would when memory runs out.
    pub async fn kill_shim(&self, uid: &str) {
        let sandboxes = self.native.list_sandboxes(Default::default()).await.unwrap();
        let sandbox = sandboxes.iter().find(|s| s.config.uid == uid).unwrap();
        let pid = self.native.sandbox_status(&sandbox.id).await.unwrap().pid.unwrap();
        let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    }

    /// A kubeconfig of an administrator.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }

    /// Ends everything and clears up.
    pub async fn finish(mut self) {
        self.stop().await;
        for sandbox in self.native.list_sandboxes(Default::default()).await.unwrap_or_default() {
            let _ = self.native.remove_sandbox(&sandbox.id).await;
        }
        let folder = self.folder.clone();
        let cgroup = self.native_config.cgroup_prefix.clone();
        drop(self);
        for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            remove_cgroups(&hierarchy.path().join(cgroup.trim_start_matches('/')));
        }
        remove_cgroups(&Path::new("/sys/fs/cgroup").join(cgroup.trim_start_matches('/')));
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let points = table.lines().filter_map(|l| l.split(' ').nth(4));
        for point in
            points.filter(|p| Path::new(p).starts_with(&folder)).collect::<Vec<_>>().iter().rev()
        {
            let _ = nix::mount::umount2(*point, nix::mount::MntFlags::MNT_DETACH);
        }
        let _ = fs::remove_dir_all(&folder);
    }
}

/// Removes a cgroup and all below it; nothing runs in them any more.
fn remove_cgroups(cgroup: &Path) {
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroups(&entry.path());
        }
    }
    let _ = fs::remove_dir(cgroup);
}

async fn api_server(kubelet: Arc<rustls::ClientConfig>) -> Arc<ApiServer> {
    let random = ring::rand::SystemRandom::new();
    let algorithm = &ring::signature::ECDSA_P256_SHA256_FIXED_SIGNING;
    let key = ring::signature::EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
    let key = base64::engine::general_purpose::STANDARD.encode(key);
    let config = apiserver::Config {
        version: Version {
            git_version: "v1.36.0".into(),
            git_commit: String::new(),
            build_date: "2026-11-21T00:00:00Z".into(),
            compiler: "rustc".into(),
        },
        advertise: "192.0.2.1:6443".parse().unwrap(),
        service_cidrs: vec!["10.43.0.0/16".parse().unwrap()],
        node_ports: (30000, 32767),
        cluster_domain: "cluster.local".into(),
        admission: Default::default(),
        service_account: ServiceAccountConfig {
            issuer: "https://kubernetes.default.svc.cluster.local".into(),
            audiences: Vec::new(),
            signing_key_pem: format!(
                "-----BEGIN PRIVATE KEY-----\n{key}\n-----END PRIVATE KEY-----\n"
            ),
            public_keys_pem: Vec::new(),
            max_expiration_seconds: 86_400,
        },
        kubelet: Some(KubeletClient { tls: kubelet }),
        client_ca_pem: String::new(),
        anonymous: true,
        tolerations: Default::default(),
        access: Default::default(),
        limits: Limits::default(),
    };
    let driver = store::Memory::default().driver();
    let (store, _) =
        store::Store::open(driver, Arc::new(JsonCodec), store::Options::default()).await.unwrap();
    let api = ApiServer::new(store, config).unwrap();
    api.bootstrap().await.unwrap();
    api
}

/// TLS of the kubelet's side and of the API server's side; a kubeconfig in `folder`.
fn certificates(folder: &Path) -> (Arc<rustls::ServerConfig>, Arc<rustls::ClientConfig>) {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let leaf = |name: &str| {
        let mut params =
            CertificateParams::new(vec!["127.0.0.1".to_owned(), name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &ca).unwrap();
        let key = rustls_pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        (vec![certificate.der().clone()], key)
    };
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca.der().clone()).unwrap();
    let roots = Arc::new(roots);
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
        roots.clone(),
        provider.clone(),
    )
    .build()
    .unwrap();
    let mut params = CertificateParams::new(vec!["admin".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, "admin");
    params.distinguished_name.push(DnType::OrganizationName, "system:masters");
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &ca).unwrap();
    let b64 = |text: String| base64::engine::general_purpose::STANDARD.encode(text);
    let kubeconfig = json!({"apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:6443", "certificate-authority-data": b64(ca.pem())}}],
        "users": [{"name": "c", "user": {"client-certificate-data": b64(certificate.pem()), "client-key-data": b64(key.serialize_pem())}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}]});
    fs::write(folder.join("kubeconfig"), kubeconfig.to_string()).unwrap();
    let (chain, key) = leaf("board");
    let server = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .unwrap();
    let (chain, key) = leaf("kube-apiserver-kubelet-client");
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .unwrap();
    (Arc::new(server), Arc::new(client))
}

/// An archive as `docker save` writes it, of the machine's static busybox.
fn docker_archive(path: &Path) {
    let header = |kind, size: usize, mode| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size as u64);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header
    };
    let program = fs::read("/bin/busybox").unwrap();
    let mut layer = tar::Builder::new(Vec::new());
    for folder in ["bin/", "etc/", "tmp/"] {
        let mut h = header(tar::EntryType::Directory, 0, 0o755);
        layer.append_data(&mut h, folder, std::io::empty()).unwrap();
    }
    let mut h = header(tar::EntryType::Regular, program.len(), 0o755);
    layer.append_data(&mut h, "bin/busybox", program.as_slice()).unwrap();
    for name in [
        "sh", "cat", "echo", "sleep", "ls", "env", "hostname", "httpd", "wget", "touch", "stat",
        "nslookup",
    ] {
        let mut h = header(tar::EntryType::Symlink, 0, 0o777);
        layer.append_link(&mut h, format!("bin/{name}"), "busybox").unwrap();
    }
    let layer = layer.into_inner().unwrap();
    let digest = ring::digest::digest(&ring::digest::SHA256, &layer);
    let hex: String = digest.as_ref().iter().map(|b| format!("{b:02x}")).collect();
    let config = json!({"architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux", "config": {"Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{hex}")]}});
    let config = config.to_string();
    let manifest =
        json!([{"Config": "config.json", "RepoTags": [BUSYBOX], "Layers": ["layer.tar"]}])
            .to_string();
    let mut archive = tar::Builder::new(fs::File::create(path).unwrap());
    for (name, data) in [
        ("config.json", config.as_bytes()),
        ("layer.tar", &layer),
        ("manifest.json", manifest.as_bytes()),
    ] {
        let mut h = header(tar::EntryType::Regular, data.len(), 0o644);
        archive.append_data(&mut h, name, data).unwrap();
    }
    archive.finish().unwrap();
}

/// Answers for cluster DNS: a thread here, for what is a process of its own in the binary.
fn hold_dns(control: OwnedFd) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (_report, reports) = tokio::sync::mpsc::channel(1);
    runtime.block_on(net::dns::hold(control, reports)).unwrap();
}
