//! The cluster in the person's own kubeconfig, beside what else is there.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use fleet::ssh::{Remote, Target, Work};
use serde_json::{Value, json};

use super::crew::Crew;
use crate::commands::kubeconfig::to_yaml;
use crate::failure::{Failure, Outcome, While};
use crate::files;

/// The API's port unless the file names another.
const PORT: u16 = 6443;

/// Where kubectl looks: the first file of `KUBECONFIG`, or the one in the home.
pub fn path(named: Option<&Path>) -> Outcome<PathBuf> {
    if let Some(path) = named {
        return Ok(path.to_owned());
    }
    let variable = std::env::var_os("KUBECONFIG").filter(|value| !value.is_empty());
    if let Some(first) = variable.as_ref().and_then(|v| std::env::split_paths(v).next()) {
        return Ok(first);
    }
    let home = std::env::var_os("HOME").map(PathBuf::from);
    home.map(|home| home.join(".kube/config")).ok_or_else(|| {
        Failure::new("there is no HOME to keep a kubeconfig in")
            .hint("name a file with --kubeconfig")
    })
}

/// Takes the admin's kubeconfig from a server and merges it; whether that changed anything.
pub fn merge_from(crew: &Crew, seed: &Target, path: &Path) -> Outcome<bool> {
    let script = "cat /var/lib/coracle/server/cred/admin.kubeconfig";
    let text = crew.system.run(seed, &Work::new("reading the kubeconfig", script))?.out;
    let admin: Value = serde_saphyr::from_str(&text).doing(|| "reading the kubeconfig".into())?;
    let cluster = &crew.cluster;
    let seed = cluster.board(&seed.name).map(|board| board.address);
    let Some(address) = cluster.network.vip.or(seed) else { return Ok(false) };
    let port = cluster.server.get("https-listen-port").and_then(Value::as_u64);
    let port = port.and_then(|port| u16::try_from(port).ok()).unwrap_or(PORT);
    let server = format!("https://{}", SocketAddr::new(address, port));
    let doing = || format!("merging the cluster into {}", path.display());
    let before: Value = match std::fs::read_to_string(path) {
        Ok(text) if text.trim().is_empty() => json!({}),
        Ok(text) => serde_saphyr::from_str(&text).doing(doing)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => json!({}),
        Err(error) => return Err(error).doing(doing),
    };
    let after = merged(before.clone(), &cluster.name, &server, &admin);
    if after == before {
        return Ok(false);
    }
    files::make_folder(path.parent().unwrap_or(Path::new(".")), true).doing(doing)?;
    files::write_atomically(path, to_yaml(&after)?.as_bytes(), 0o600).doing(doing)?;
    Ok(true)
}

/// The file with cluster, user and context of this name in it; all else stays as it is.
fn merged(mut file: Value, name: &str, server: &str, admin: &Value) -> Value {
    if !file.is_object() {
        file = json!({});
    }
    let authority = &admin["clusters"][0]["cluster"]["certificate-authority-data"];
    let cluster = json!({ "certificate-authority-data": authority, "server": server });
    let user = admin["users"][0]["user"].clone();
    let context = json!({ "cluster": name, "user": name });
    for (list, key, value) in [
        ("clusters", "cluster", cluster),
        ("users", "user", user),
        ("contexts", "context", context),
    ] {
        if !file[list].is_array() {
            file[list] = json!([]);
        }
        let entries = file[list].as_array_mut().expect("made an array above");
        match entries.iter_mut().find(|entry| entry["name"] == name) {
            // What a person has put beside it (a namespace) stays.
            Some(entry) if entry[key].is_object() && key == "context" => {
                entry[key]["cluster"] = json!(name);
                entry[key]["user"] = json!(name);
            }
            Some(entry) => entry[key] = value,
            None => entries.push(json!({ "name": name, key: value })),
        }
    }
    let set_once = [("apiVersion", "v1"), ("kind", "Config"), ("current-context", name)];
    for (key, value) in set_once {
        if file[key].as_str().is_none_or(str::is_empty) {
            file[key] = json!(value);
        }
    }
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cluster_comes_beside_others_and_comes_once() {
        let admin = json!({
            "clusters": [{ "name": "default", "cluster": { "certificate-authority-data": "CA" } }],
            "users": [{ "name": "default", "user": { "client-key-data": "KEY" } }],
        });
        let before = json!({
            "clusters": [{ "name": "work", "cluster": { "server": "https://work" } }],
            "contexts": [{ "name": "home", "context": { "cluster": "home", "user": "me", "namespace": "web" } }],
            "current-context": "work",
        });
        let after = merged(before, "home", "https://10.0.0.9:6443", &admin);
        assert_eq!(after["current-context"], "work");
        assert_eq!(after["clusters"][0]["cluster"]["server"], "https://work");
        let ours = json!({ "certificate-authority-data": "CA", "server": "https://10.0.0.9:6443" });
        assert_eq!(after["clusters"][1], json!({ "name": "home", "cluster": ours }));
        let context = json!({ "cluster": "home", "user": "home", "namespace": "web" });
        assert_eq!(after["contexts"], json!([{ "name": "home", "context": context }]));
        assert_eq!(merged(after.clone(), "home", "https://10.0.0.9:6443", &admin), after);
        assert_eq!(merged(json!(null), "home", "x", &admin)["current-context"], "home");
    }
}
