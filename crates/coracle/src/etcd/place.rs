//! This board's member before it runs: program, folder, name, address and certificates.

use std::net::{IpAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::admin::Admin;
use super::line::{Line, TlsFiles, url};
use crate::failure::{Failure, Hint, Outcome, While};
use crate::files;
use crate::pki::{Identity, Pki, Signer};
use crate::server::EtcdOptions;

/// The store keeps a connection for as long as the server runs, and etcd reads its certificate
/// anew for each; renewing at each start and every few hours leaves months to spare.
const LEAF_LIFE: Duration = Duration::from_secs(365 * 86_400);
/// Where Debian and others put programs; a service's PATH may be shorter.
const USUAL_FOLDERS: [&str; 4] = ["/usr/local/bin", "/usr/bin", "/usr/local/sbin", "/usr/sbin"];
/// How long an etcd of an earlier life of this server may take to be gone.
const PORT_PATIENCE: Duration = Duration::from_secs(5);
const PORT_RETRY: Duration = Duration::from_millis(100);

/// This board's member.
#[derive(Debug, Clone)]
pub struct Place {
    /// The program.
    pub binary: PathBuf,
    /// The server's data folder.
    pub data_dir: PathBuf,
    /// The member's folder.
    pub folder: PathBuf,
    /// The member's name: the node's.
    pub name: String,
    /// The board's address.
    pub ip: IpAddr,
    /// Ports, times and limits.
    pub options: EtcdOptions,
    /// Certificates.
    pub tls: TlsFiles,
}

impl Place {
    /// Finds the program and makes the certificate.
    pub fn new(
        data_dir: &Path,
        (name, ip): (&str, IpAddr),
        options: &EtcdOptions,
        pki: &Pki,
    ) -> Outcome<Self> {
        let binary = match &options.etcd_binary {
            Some(binary) => binary.clone(),
            None => find("etcd").ok_or_else(|| {
                Failure::new("several servers need the program etcd, and it is not in PATH").hint(
                    "`apt install etcd-server` brings it (then `systemctl disable --now etcd`: \
                     Coracle runs its own), or name it with --etcd-binary",
                )
            })?,
        };
        let file = |name: &str| pki.folder().join(name);
        let tls = TlsFiles {
            ca: file("etcd-ca.crt"),
            cert: file("etcd-member.crt"),
            key: file("etcd-member.key"),
        };
        let (folder, name) = (folder(data_dir), name.to_owned());
        let (data_dir, options) = (data_dir.to_owned(), options.clone());
        let place = Place { binary, data_dir, folder, name, ip, options, tls };
        place.certify(pki)?;
        Ok(place)
    }

    /// Makes the certificate, or makes it anew where that is due.
    pub fn certify(&self, pki: &Pki) -> Outcome {
        pki.leaf(identity(&self.name, self.ip)).map(drop)
    }

    /// Where other members reach it.
    pub fn peer_url(&self) -> String {
        url(self.ip, self.options.etcd_peer_port)
    }

    /// Where this server reaches it.
    pub fn local_url(&self) -> String {
        url(IpAddr::from([127, 0, 0, 1]), self.options.etcd_client_port)
    }

    /// A client of this member.
    pub async fn local(&self) -> Outcome<Admin> {
        Admin::new(&[self.local_url()], &self.tls).await
    }

    /// How it is started.
    pub fn line(&self) -> Line<'_> {
        Line {
            folder: &self.folder,
            name: &self.name,
            ip: self.ip,
            options: &self.options,
            tls: &self.tls,
        }
    }

    /// Waits for the ports to be free: one of them may still be held by the etcd of a server that
    /// was killed a moment ago.
    pub async fn await_ports(&self) -> Outcome {
        let options = &self.options;
        let loopback = IpAddr::from([127, 0, 0, 1]);
        for (ip, port, flag) in [
            (loopback, options.etcd_client_port, "client"),
            (self.ip, options.etcd_client_port, "client"),
            (self.ip, options.etcd_peer_port, "peer"),
            (loopback, options.etcd_metrics_port, "metrics"),
        ] {
            let free = async {
                while TcpListener::bind((ip, port)).is_err() {
                    tokio::time::sleep(PORT_RETRY).await;
                }
            };
            tokio::time::timeout(PORT_PATIENCE, free).await.map_err(|_| {
                Failure::new(format!("etcd's {flag} port {port} is in use on {ip}")).hint(format!(
                    "Debian's package starts an etcd of its own: `systemctl disable --now etcd`; \
                     `ss -ltnp sport = {port}` shows who it is; --etcd-{flag}-port chooses another \
                     port"
                ))
            })?;
        }
        Ok(())
    }

    /// Whether there is a log to go on from. etcd without one would begin a cluster of its own
    /// with the same data.
    pub fn has_log(&self) -> bool {
        let log = std::fs::read_dir(self.folder.join("member/wal"));
        log.into_iter()
            .flatten()
            .flatten()
            .any(|file| file.path().extension().is_some_and(|extension| extension == "wal"))
    }

    /// Moves the member's folder out of the way, and keeps it: the last one of a kind.
    pub fn set_aside(&self, kind: Aside) -> Outcome<PathBuf> {
        let (from, to) = (&self.folder, kind.folder(&self.data_dir));
        let doing = || format!("moving {} to {}", from.display(), to.display());
        if from.exists() {
            if to.exists() {
                std::fs::remove_dir_all(&to).doing(doing)?;
            }
            std::fs::rename(from, &to).doing(doing)?;
        }
        Ok(to)
    }
}

/// Why a member's folder is not used any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aside {
    /// Its files are damaged.
    Damaged,
    /// It was removed from the cluster.
    Removed,
}

impl Aside {
    /// Where the folder is kept.
    pub fn folder(self, data_dir: &Path) -> PathBuf {
        data_dir.join(match self {
            Aside::Damaged => "server/etcd.damaged",
            Aside::Removed => "server/etcd.removed",
        })
    }
}

/// Where a supervised etcd's files are.
pub fn folder(data_dir: &Path) -> PathBuf {
    data_dir.join("server/etcd")
}

/// Makes the folder of a member.
pub fn make_folder(folder: &Path) -> Outcome {
    files::make_folder(folder, true)
        .doing(|| format!("making {}", folder.display()))
        .hint(|| "see that the disk is writable and not full".into())
}

fn identity(name: &str, ip: IpAddr) -> Identity<'_> {
    Identity {
        file: "etcd-member",
        signer: Signer::Etcd,
        common_name: name,
        organization: None,
        names: vec![
            name.to_owned(),
            "localhost".to_owned(),
            "127.0.0.1".to_owned(),
            ip.to_string(),
        ],
        life: LEAF_LIFE,
    }
}

/// Finds a program of the distribution.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(USUAL_FOLDERS.map(PathBuf::from));
    folders.map(|folder| folder.join(program)).find(|path| path.is_file())
}
