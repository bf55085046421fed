//! The admin's kubeconfig: written by the server, printed by `coracle kubeconfig`.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use base64::Engine;
use serde_json::{Value, json};

use crate::cli;
use crate::config::Common;
use crate::failure::{Failure, Hint, Outcome, While};
use crate::pki::Leaf;

/// Where a server keeps the admin's kubeconfig for its own commands.
pub fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("server/cred/admin.kubeconfig")
}

/// The kubeconfig of the admin for the API server at `server`, as YAML.
pub fn render(server: &str, ca: &str, admin: &Leaf) -> Outcome<String> {
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    to_yaml(&json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "default", "cluster": {
            "certificate-authority-data": encode(ca), "server": server } }],
        "users": [{ "name": "default", "user": {
            "client-certificate-data": encode(&admin.cert),
            "client-key-data": encode(&admin.key) } }],
        "contexts": [{ "name": "default", "context": { "cluster": "default", "user": "default" } }],
        "current-context": "default",
    }))
}

/// A kubeconfig as YAML.
pub fn to_yaml(config: &Value) -> Outcome<String> {
    serde_saphyr::to_string(config).doing(|| "writing the kubeconfig as YAML".into())
}

/// Prints the kubeconfig of the cluster whose data folder is given.
pub fn run(common: &Common, options: &cli::Kubeconfig) -> Outcome {
    let path = path(&common.data_dir);
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(Failure::new(format!(
                "no server has run in {}",
                common.data_dir.display()
            ))
            .hint("start one with `coracle server`, or name its folder with --data-dir"));
        }
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            return Err(error)
                .doing(|| format!("reading {}", path.display()))
                .hint(|| "the admin's key is for root only: use sudo".into());
        }
        other => other.doing(|| format!("reading {}", path.display()))?,
    };
    let Some(server) = &options.server else {
        print!("{text}");
        return Ok(());
    };
    print!("{}", with_server(&text, server)?);
    Ok(())
}

/// The same kubeconfig for an API server that is reached at another address.
pub fn with_server(text: &str, server: &str) -> Outcome<String> {
    let mut config: Value =
        serde_saphyr::from_str(text).doing(|| "reading the kubeconfig as YAML".into())?;
    config["clusters"][0]["cluster"]["server"] = json!(server);
    to_yaml(&config)
}
