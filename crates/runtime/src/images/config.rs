//! Manifests and configurations: the few fields that matter, by the OCI image specification and
//! Docker's older form of the same.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::unpack::digest_text;

/// Names a blob.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    pub media_type: String,
    /// `sha256:...`.
    pub digest: String,
    /// Bytes.
    pub size: u64,
    /// In an index: what machine it is for.
    pub platform: Option<Platform>,
    /// In an archive's index: its name.
    pub annotations: BTreeMap<String, String>,
}

/// A machine an image is for.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Platform {
    /// Go's name of the processor.
    pub architecture: String,
    /// `linux`.
    pub os: String,
    /// `v6`, `v7`, `v8`.
    pub variant: String,
}

/// A manifest or an index of manifests.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Manifest {
    /// What it is; may be missing.
    pub media_type: String,
    /// Of an image: its configuration.
    pub config: Option<Descriptor>,
    /// Of an image: its layers, lowest first.
    pub layers: Vec<Descriptor>,
    /// Of an index: its entries.
    pub manifests: Vec<Descriptor>,
}

/// An image's configuration.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageConfig {
    /// How to run it.
    pub config: RunConfig,
    /// Its layers.
    pub rootfs: RootFs,
    /// Processor.
    pub architecture: String,
}

/// How to run an image if nothing else is said.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct RunConfig {
    /// User, `name`, `uid`, `name:group` or `uid:gid`.
    pub user: String,
    /// `NAME=value`.
    #[serde(deserialize_with = "null_default")]
    pub env: Vec<String>,
    /// Program and first arguments.
    #[serde(deserialize_with = "null_default")]
    pub entrypoint: Vec<String>,
    /// Arguments.
    #[serde(deserialize_with = "null_default")]
    pub cmd: Vec<String>,
    /// Working directory.
    pub working_dir: String,
    /// Labels.
    #[serde(deserialize_with = "null_default")]
    pub labels: BTreeMap<String, String>,
    /// Ports, as keys.
    #[serde(deserialize_with = "null_default")]
    pub exposed_ports: BTreeMap<String, serde_json::Value>,
    /// Signal that stops it.
    pub stop_signal: String,
    /// Folders that want storage of their own, as keys.
    #[serde(deserialize_with = "null_default")]
    pub volumes: BTreeMap<String, serde_json::Value>,
}

/// The layers of a configuration.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RootFs {
    /// Digests of the plain tar archives, lowest first.
    pub diff_ids: Vec<String>,
}

fn null_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// Digest of bytes.
pub fn digest(bytes: &[u8]) -> String {
    digest_text(&Sha256::digest(bytes))
}

/// The chain ids of layers: each names a layer together with all below it, by the OCI image
/// specification.
pub fn chain_ids(diff_ids: &[String]) -> Vec<String> {
    let mut chain: Vec<String> = Vec::with_capacity(diff_ids.len());
    for id in diff_ids {
        chain.push(match chain.last() {
            None => id.clone(),
            Some(below) => digest(format!("{below} {id}").as_bytes()),
        });
    }
    chain
}

/// Picks the entry of an index that fits this machine best.
pub fn choose<'a>(entries: &'a [Descriptor], machine: &Platform) -> Option<&'a Descriptor> {
    let score = |entry: &Descriptor| -> Option<u32> {
        let Some(platform) = &entry.platform else { return Some(1) };
        if platform.os != machine.os {
            return None;
        }
        let version = |v: &str| v.trim_start_matches('v').parse::<u32>().ok();
        match (platform.architecture.as_str(), machine.architecture.as_str()) {
            ("arm64", "arm64") => Some(100),
            // A 64-bit ARM processor runs 32-bit programs, as the boards' own system does.
            ("arm", "arm64") => Some(10 + version(&platform.variant).unwrap_or(7)),
            ("arm", "arm") => {
                let (has, can) = (
                    version(&platform.variant).unwrap_or(7),
                    version(&machine.variant).unwrap_or(7),
                );
                (has <= can).then_some(50 + has)
            }
            // amd64/v3 and its like need newer processors than may be here.
            (a, b) if a == b => match version(&platform.variant) {
                None | Some(1) => Some(100),
                Some(_) => None,
            },
            _ => None,
        }
    };
    entries.iter().filter_map(|e| score(e).map(|s| (s, e))).max_by_key(|(s, _)| *s).map(|(_, e)| e)
}

/// The machine this program was built for.
pub fn this_machine() -> Platform {
    let (architecture, variant) = match std::env::consts::ARCH {
        "x86_64" => ("amd64", ""),
        "aarch64" => ("arm64", "v8"),
        "arm" => ("arm", "v7"),
        other => (other, ""),
    };
    Platform { architecture: architecture.into(), os: "linux".into(), variant: variant.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains() {
        let ids = ["sha256:a".to_owned(), "sha256:b".to_owned()];
        let chain = chain_ids(&ids);
        assert_eq!(chain[0], "sha256:a");
        assert_eq!(chain[1], digest(b"sha256:a sha256:b"));
    }

    #[test]
    fn platforms() {
        let entry = |architecture: &str, variant: &str, digest: &str| Descriptor {
            digest: digest.into(),
            platform: Some(Platform {
                architecture: architecture.into(),
                os: "linux".into(),
                variant: variant.into(),
            }),
            ..Descriptor::default()
        };
        let all = [
            entry("amd64", "v3", "new"),
            entry("amd64", "", "amd"),
            entry("arm", "v6", "arm6"),
            entry("arm", "v7", "arm7"),
            entry("unknown", "", "attestation"),
        ];
        let machine = |architecture: &str, variant: &str| Platform {
            architecture: architecture.into(),
            os: "linux".into(),
            variant: variant.into(),
        };
        let got = |a, v| choose(&all, &machine(a, v)).map(|d| d.digest.as_str());
        assert_eq!(got("amd64", ""), Some("amd"));
        assert_eq!(got("arm64", "v8"), Some("arm7"));
        assert_eq!(got("arm", "v6"), Some("arm6"));
        assert_eq!(got("riscv64", ""), None);
    }

    #[test]
    fn configurations_with_nulls() {
        let config: ImageConfig = serde_json::from_str(
            r#"{"config":{"Env":null,"Cmd":["sh"],"Entrypoint":null,"Labels":null}}"#,
        )
        .unwrap();
        assert_eq!(config.config.cmd, ["sh"]);
    }
}
