//! A board, two pods and a client in network namespaces of their own.
//!
//! ```text
//!  client 192.0.2.2 --- 192.0.2.1 node 10.42.0.1 === coracle0 === pods 10.42.0.2, 10.42.0.3
//! ```

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use net::{Attachment, PodNetwork, PodNetworkConfig};
use nix::sched::{CloneFlags, setns};
use nlink::netlink::link::VethLink;
use nlink::netlink::route::Ipv4Route;
use nlink::netlink::{Connection, Route, namespace};

/// How long a connection may take that is meant to work.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long silence is waited for where silence is right.
const SILENCE: Duration = Duration::from_millis(600);

/// A network namespace that goes with the value.
pub struct Netns(String);

impl Netns {
    pub fn new(role: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("cor-net-{}-{count}-{role}", std::process::id());
        namespace::create(&name).expect("making a network namespace takes root");
        Self(name)
    }

    pub fn path(&self) -> PathBuf {
        PathBuf::from("/var/run/netns").join(&self.0)
    }

    /// Runs `work` in the namespace, on a thread of its own: a namespace belongs to a thread.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                enter(&self.path());
                work()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// As `run`, for async work.
    pub fn block_on<T: Send>(&self, work: impl AsyncFnOnce() -> T + Send) -> T {
        self.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(work())
        })
    }

    /// A TCP server that tells each client who serves and where the client seems to be.
    pub fn serve_tcp(&self, name: &'static str, address: &str) {
        let listener = self.run(|| TcpListener::bind(address).unwrap());
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let peer = stream.peer_addr().map(|peer| peer.ip().to_string());
                let _ = write!(stream, "{name} {}", peer.unwrap_or_default());
            }
        });
    }

    /// A TCP server that gives every client the same bytes.
    pub fn serve_bytes(&self, bytes: &[u8], address: &str) {
        let listener = self.run(|| TcpListener::bind(address).unwrap());
        let bytes = bytes.to_vec();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let _ = stream.write_all(&bytes);
            }
        });
    }

    /// A UDP server that answers every datagram with its name.
    pub fn serve_udp(&self, name: &'static str, address: &str) {
        let socket = self.run(|| UdpSocket::bind(address).unwrap());
        thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(name.as_bytes(), peer);
            }
        });
    }

    /// Drops what ARP has told this namespace.
    pub fn forget_neighbours(&self) {
        let ip = Command::new("ip").args(["-n", &self.0, "neigh", "flush", "all"]).status();
        assert!(ip.unwrap().success(), "ip neigh flush");
    }

    /// What a TCP server says; how it went wrong otherwise.
    pub fn fetch(&self, address: &str) -> Result<String, io::ErrorKind> {
        self.fetch_within(address, PATIENCE)
    }

    /// As `fetch`, where silence is expected.
    pub fn fetch_silence(&self, address: &str) -> Result<String, io::ErrorKind> {
        self.fetch_within(address, SILENCE)
    }

    fn fetch_within(&self, address: &str, patience: Duration) -> Result<String, io::ErrorKind> {
        let bytes = self.fetch_bytes_within(address, patience)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// All that a TCP server sends.
    pub fn fetch_bytes(&self, address: &str) -> Result<Vec<u8>, io::ErrorKind> {
        self.fetch_bytes_within(address, PATIENCE)
    }

    fn fetch_bytes_within(
        &self,
        address: &str,
        patience: Duration,
    ) -> Result<Vec<u8>, io::ErrorKind> {
        let address: SocketAddr = address.parse().unwrap();
        let fetch = || {
            let mut stream = TcpStream::connect_timeout(&address, patience)?;
            stream.set_read_timeout(Some(patience))?;
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        self.run(|| fetch().map_err(|error: io::Error| error.kind()))
    }

    /// A UDP socket of this namespace, connected to `address`.
    pub fn udp(&self, address: &str) -> UdpSocket {
        self.run(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.connect(address).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket
        })
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = namespace::delete(&self.0);
    }
}

/// One question and its answer over a UDP socket.
pub fn exchange(socket: &UdpSocket) -> Result<String, io::ErrorKind> {
    let talk = || {
        socket.send(b"?")?;
        let mut buffer = [0; 64];
        let length = socket.recv(&mut buffer)?;
        Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
    };
    talk().map_err(|error: io::Error| error.kind())
}

pub fn enter(path: &std::path::Path) {
    setns(File::open(path).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
}

/// The whole stage.
pub struct Lab {
    pub node: Netns,
    pub client: Netns,
    pub pods: Vec<Netns>,
    pub state: tempfile::TempDir,
}

impl Lab {
    /// Node and client joined by a cable, and two namespaces for pods, not attached yet.
    pub fn new() -> Self {
        let lab = Self {
            node: Netns::new("node"),
            client: Netns::new("client"),
            pods: vec![Netns::new("pod0"), Netns::new("pod1")],
            state: tempfile::tempdir().unwrap(),
        };
        let client = File::open(lab.client.path()).unwrap();
        lab.node.block_on(async || {
            let netlink = Connection::<Route>::new().unwrap();
            netlink.set_link_up("lo").await.unwrap();
            let cable = VethLink::new("uplink", "eth0").peer_netns_fd(&client);
            netlink.add_link(cable).await.unwrap();
            let ip: IpAddr = "192.0.2.1".parse().unwrap();
            netlink.add_address_by_name("uplink", ip, 24).await.unwrap();
            netlink.set_link_up("uplink").await.unwrap();
            let route = Ipv4Route::default_route().gateway("192.0.2.2".parse().unwrap());
            netlink.add_route(route).await.unwrap();
        });
        lab.client.block_on(async || {
            let netlink = Connection::<Route>::new().unwrap();
            netlink.set_link_up("lo").await.unwrap();
            let ip: IpAddr = "192.0.2.2".parse().unwrap();
            netlink.add_address_by_name("eth0", ip, 24).await.unwrap();
            netlink.set_link_up("eth0").await.unwrap();
            let route = Ipv4Route::new("10.43.0.0".parse().unwrap(), 16);
            netlink.add_route(route.gateway("192.0.2.1".parse().unwrap())).await.unwrap();
        });
        lab
    }

    pub fn pod_config(&self) -> PodNetworkConfig {
        PodNetworkConfig {
            pod_cidrs: vec!["10.42.0.0/24".parse().unwrap()],
            cluster_cidrs: vec!["10.42.0.0/16".parse().unwrap()],
            state_dir: self.state.path().to_owned(),
            ..PodNetworkConfig::default()
        }
    }

    /// Attaches both pods; they get 10.42.0.2 and 10.42.0.3.
    pub fn attach(&self) -> Vec<Attachment> {
        let config = self.pod_config();
        self.node.block_on(async || {
            let network = PodNetwork::open(config).await.unwrap();
            let mut attachments = Vec::new();
            for (index, pod) in self.pods.iter().enumerate() {
                let name = format!("sandbox-{index}");
                attachments.push(network.attach(&name, &pod.path()).await.unwrap());
            }
            attachments
        })
    }
}
