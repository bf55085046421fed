//! What every server of a cluster must know and nobody else may: keys, tokens, and the settings
//! that must be the same everywhere.

use std::fs;
use std::path::Path;

use base::kept;
use base64::Engine;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::token::{hex, random_secret};
use crate::failure::{Failure, Hint, Outcome, While};
use crate::files;
use crate::pki::{AuthorityKeys, Older, new_key};
use crate::server::node::Facts;

/// The file in which a server keeps the cluster's secrets, in `server/cred`.
const FILE: &str = "cluster.json";
const FRONT_PROXY_CA: &str = "coracle-request-header-ca";
/// Retired service-account keys that are still accepted.
const RETIRED_KEYS_MAX: usize = 4;

/// The cluster's secrets. Each change makes a new generation.
#[derive(Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Secrets {
    /// Counts the changes.
    pub generation: u64,
    /// Signs what servers show.
    pub server_ca: AuthorityKeys,
    /// Signs what clients show.
    pub client_ca: AuthorityKeys,
    /// Signs what etcd's members and clients show.
    pub etcd_ca: AuthorityKeys,
    /// Signs what API servers show to aggregated ones; clusters of before there was any have none
    /// until a server of theirs starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub front_proxy_ca: Option<AuthorityKeys>,
    /// Signs service-account tokens; PKCS#8 PEM, P-256.
    pub service_account_key: String,
    /// Public keys that older service-account tokens may be signed with, SPKI PEM.
    #[serde(default)]
    pub retired_service_account_keys: Vec<String>,
    /// What servers join with.
    pub server_token: String,
    /// What agents join with.
    pub agent_token: String,
    /// Leaves made before this second since 1970 are to be made anew.
    #[serde(default)]
    pub renew_after: i64,
    /// What must be the same on all servers.
    pub settings: Equal,
}

/// The settings that must be the same on all servers, each as its flag is written.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Equal {
    /// `--cluster-cidr`
    pub cluster_cidr: String,
    /// `--service-cidr`
    pub service_cidr: String,
    /// `--cluster-dns`
    pub cluster_dns: String,
    /// `--cluster-domain`
    pub cluster_domain: String,
    /// `--vxlan-vni`; clusters of before it was kept have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vxlan_vni: Option<u32>,
    /// `--vxlan-port`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vxlan_port: Option<u16>,
}

/// A private key is not shown, nor anything beside it.
impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secrets").field("generation", &self.generation).finish_non_exhaustive()
    }
}

/// A file of secrets: the secrets, and the sealed form that they were read from.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// SHA-256 of the datastore's entry, so that it need not be opened again; empty where there
    /// was none.
    #[serde(default)]
    entry: String,
    /// SHA-256 of the secrets: a card that forgets a bit must not change a key unseen. Empty in
    /// files of before it was kept.
    #[serde(default)]
    sum: String,
    secrets: Secrets,
}

fn sum_of(secrets: &Secrets) -> String {
    let text = serde_json::to_vec(secrets).unwrap_or_default();
    hex(ring::digest::digest(&ring::digest::SHA256, &text).as_ref())
}

impl Secrets {
    /// The secrets of a new cluster.
    pub fn new(settings: Equal, server: Option<String>, agent: Option<String>) -> Outcome<Self> {
        Ok(Secrets {
            generation: 1,
            server_ca: AuthorityKeys::new("coracle-server-ca")?,
            client_ca: AuthorityKeys::new("coracle-client-ca")?,
            etcd_ca: AuthorityKeys::new("coracle-etcd-ca")?,
            front_proxy_ca: Some(AuthorityKeys::new(FRONT_PROXY_CA)?),
            service_account_key: new_key()?.serialize_pem(),
            retired_service_account_keys: Vec::new(),
            server_token: server.map_or_else(random_secret, Ok)?,
            agent_token: agent.map_or_else(random_secret, Ok)?,
            renew_after: 0,
            settings,
        })
    }

    /// The authorities with the names of their files.
    pub fn authorities(&self) -> impl Iterator<Item = (&'static str, &AuthorityKeys)> {
        let front_proxy = self.front_proxy_ca.iter().map(|ca| ("request-header-ca", ca));
        [("server-ca", &self.server_ca), ("client-ca", &self.client_ca), ("etcd-ca", &self.etcd_ca)]
            .into_iter()
            .chain(front_proxy)
    }

    /// Makes what clusters of an older release lack.
    pub fn complete(&mut self) -> Outcome {
        if self.front_proxy_ca.is_none() {
            self.front_proxy_ca = Some(AuthorityKeys::new(FRONT_PROXY_CA)?);
        }
        Ok(())
    }

    /// Whether nothing is lacking that this release needs.
    pub fn is_complete(&self) -> bool {
        self.front_proxy_ca.is_some()
    }

    /// The secrets kept below `server`, with the digest of the entry that they came from; `None`
    /// where there are none. A folder of before they were kept together is read as well.
    pub fn read(server: &Path, settings: &Equal) -> Outcome<Option<(Secrets, String)>> {
        if let Some(kept) = Kept::read(server)? {
            return Ok(Some((kept.secrets, kept.entry)));
        }
        let tls = server.join("tls");
        let found = ["server-ca.crt", "server-ca.key"].map(|file| tls.join(file).exists());
        match found.contains(&true) {
            true => Ok(Some((Secrets::import(&tls, settings)?, String::new()))),
            false => Ok(None),
        }
    }

    /// The secrets kept below `server`, for commands beside a server that has run.
    pub fn kept(server: &Path) -> Outcome<Option<Secrets>> {
        Ok(Kept::read(server)?.map(|kept| kept.secrets))
    }

    /// Keeps the secrets below `server`. `entry` is the digest of the datastore's form of them.
    pub fn write(&self, server: &Path, entry: &str) -> Outcome {
        let folder = server.join("cred");
        let path = folder.join(FILE);
        let doing = || format!("writing {}", path.display());
        files::make_folder(&folder, true).doing(doing)?;
        let kept = Kept { entry: entry.to_owned(), sum: sum_of(self), secrets: self.clone() };
        let content = serde_json::to_vec_pretty(&kept).doing(doing)?;
        kept::write(&path, &content).doing(doing)
    }

    /// Takes authorities that lie in a folder in k3s' layout. Half a pair is an error: a new
    /// authority in the place of a lost one would lock every node out.
    fn import(tls: &Path, settings: &Equal) -> Outcome<Secrets> {
        let mut secrets = Secrets::new(settings.clone(), None, None)?;
        for (name, authority) in [
            ("server-ca", &mut secrets.server_ca),
            ("client-ca", &mut secrets.client_ca),
            ("etcd-ca", &mut secrets.etcd_ca),
        ] {
            let (cert, key) = (tls.join(format!("{name}.crt")), tls.join(format!("{name}.key")));
            match (cert.exists(), key.exists()) {
                (false, false) if name == "etcd-ca" => continue,
                (true, true) => {}
                (there, _) => {
                    let (there, missing) = if there { (cert, key) } else { (key, cert) };
                    return Err(Failure::new(format!(
                        "{} is there, but {} is not",
                        there.display(),
                        missing.display()
                    ))
                    .hint("restore it from a backup; a new authority would lock every node out"));
                }
            }
            let bundle = read(&cert)?;
            let mut certs = split(&bundle).into_iter();
            authority.cert = certs.next().ok_or_else(|| {
                Failure::new(format!("{} holds no certificate", cert.display()))
                    .hint("restore it from a backup")
            })?;
            authority.key = read(&key)?;
            authority.older = certs.map(|cert| Older { cert, cross: String::new() }).collect();
        }
        if tls.join("service.key").exists() {
            secrets.service_account_key = read(&tls.join("service.key"))?;
        }
        Ok(secrets)
    }

    /// New authorities and a new key for service accounts; the old ones stay trusted until
    /// [`Secrets::finish`].
    pub fn rotate_authorities(&mut self) -> Outcome {
        self.server_ca = self.server_ca.renewed("coracle-server-ca")?;
        self.client_ca = self.client_ca.renewed("coracle-client-ca")?;
        self.etcd_ca = self.etcd_ca.renewed("coracle-etcd-ca")?;
        self.front_proxy_ca = match &self.front_proxy_ca {
            Some(ca) => Some(ca.renewed(FRONT_PROXY_CA)?),
            None => Some(AuthorityKeys::new(FRONT_PROXY_CA)?),
        };
        let old = rcgen::KeyPair::from_pem(&self.service_account_key)
            .doing(|| "reading the service-account key".into())?;
        self.retired_service_account_keys.insert(0, old.public_key_pem());
        self.retired_service_account_keys.truncate(RETIRED_KEYS_MAX);
        self.service_account_key = new_key()?.serialize_pem();
        Ok(())
    }

    /// Whether an authority is trusted that a newer one has taken the place of.
    pub fn is_rotating(&self) -> bool {
        self.authorities().any(|(_, authority)| !authority.older.is_empty())
    }

    /// Ends the trust in what was replaced.
    pub fn finish(&mut self) {
        self.server_ca.older.clear();
        self.client_ca.older.clear();
        self.etcd_ca.older.clear();
        if let Some(ca) = &mut self.front_proxy_ca {
            ca.older.clear();
        }
        self.retired_service_account_keys.clear();
    }

    /// Has every leaf made anew.
    pub fn renew_leaves(&mut self) {
        self.renew_after = Timestamp::now().as_second();
    }
}

impl Kept {
    fn read(server: &Path) -> Outcome<Option<Kept>> {
        let path = server.join("cred").join(FILE);
        let doing = || format!("reading {}", path.display());
        let hint = || "restore it from a backup, or remove it: the datastore has it too".to_owned();
        let Some(content) = kept::read(&path).doing(doing)? else { return Ok(None) };
        let kept: Kept = serde_json::from_slice(&content).doing(doing).hint(hint)?;
        match kept.sum.is_empty() || kept.sum == sum_of(&kept.secrets) {
            true => Ok(Some(kept)),
            false => {
                Err(Failure::new(format!("{} does not match its own checksum", path.display()))
                    .hint(hint()))
            }
        }
    }
}

impl Equal {
    /// The settings as they stand on this server.
    pub fn of(facts: &Facts) -> Self {
        Equal {
            cluster_cidr: facts.cluster_cidr.to_string(),
            service_cidr: facts.service_cidr.to_string(),
            cluster_dns: facts.cluster_dns.to_string(),
            cluster_domain: facts.cluster_domain.clone(),
            vxlan_vni: facts.vxlan_vni,
            vxlan_port: facts.vxlan_port,
        }
    }

    /// What a node must know of the cluster.
    pub fn facts(&self) -> Outcome<Facts> {
        let doing = || "reading the cluster's settings".to_owned();
        Ok(Facts {
            cluster_cidr: self.cluster_cidr.parse().doing(doing)?,
            service_cidr: self.service_cidr.parse().doing(doing)?,
            cluster_dns: self.cluster_dns.parse().doing(doing)?,
            cluster_domain: self.cluster_domain.clone(),
            vxlan_vni: self.vxlan_vni,
            vxlan_port: self.vxlan_port,
        })
    }

    /// Refuses settings that are not the cluster's, naming the flag.
    pub fn must_be(&self, cluster: &Equal) -> Outcome {
        for ((flag, own), (_, theirs)) in self.flags().into_iter().zip(cluster.flags()) {
            let (Some(own), Some(theirs)) = (own, theirs) else { continue };
            if own != theirs {
                return Err(Failure::new(format!(
                    "{flag} is {own} here, but {theirs} in the cluster"
                ))
                .hint(format!("start this server with {flag} {theirs}")));
            }
        }
        Ok(())
    }
}

impl Equal {
    /// Each flag and its value, where it is known.
    fn flags(&self) -> [(&'static str, Option<String>); 6] {
        [
            ("--cluster-cidr", Some(self.cluster_cidr.clone())),
            ("--service-cidr", Some(self.service_cidr.clone())),
            ("--cluster-dns", Some(self.cluster_dns.clone())),
            ("--cluster-domain", Some(self.cluster_domain.clone())),
            ("--vxlan-vni", self.vxlan_vni.map(|vni| vni.to_string())),
            ("--vxlan-port", self.vxlan_port.map(|port| port.to_string())),
        ]
    }
}

fn read(path: &Path) -> Outcome<String> {
    fs::read_to_string(path).doing(|| format!("reading {}", path.display()))
}

/// The certificates of a bundle, each as PEM in one form, so that equal ones have equal texts.
pub fn split(bundle: &str) -> Vec<String> {
    const WIDTH: usize = 64;
    let pems = x509_parser::pem::Pem::iter_from_buffer(bundle.as_bytes());
    pems.flatten()
        .filter(|pem| pem.label == "CERTIFICATE")
        .map(|pem| {
            let text = base64::engine::general_purpose::STANDARD.encode(&pem.contents);
            let lines: Vec<&str> =
                text.as_bytes().chunks(WIDTH).filter_map(|l| std::str::from_utf8(l).ok()).collect();
            format!(
                "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
                lines.join("\n")
            )
        })
        .collect()
}
