//! The cluster in the person's own kubeconfig, beside what else is there.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use clap::Args;
use fleet::config::Cluster;
use fleet::ssh::{Remote, Target, Work};
use serde_json::{Value, json};

use super::crew::Crew;
use crate::commands::kubeconfig::to_yaml;
use crate::failure::{Failure, Hint, Outcome, While};
use crate::files;

/// The API's port unless the file names another.
const PORT: u16 = 6443;

/// Which kubeconfig of the person's is meant.
#[derive(Debug, Args)]
pub struct Kubeconfig {
    /// The kubeconfig that has the cluster's context [default: $KUBECONFIG or ~/.kube/config]
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
    /// Leave kubeconfigs alone
    #[arg(long, conflicts_with = "kubeconfig")]
    pub no_kubeconfig: bool,
}

impl Kubeconfig {
    /// Refuses a file that could not be written anew later, when the boards are up.
    pub fn must_be_one(&self) -> Outcome {
        match self.no_kubeconfig {
            true => Ok(()),
            false => read(&self.path()?).map(drop),
        }
    }

    /// The admin's kubeconfig is taken from a server and merged into the person's.
    pub fn merge(&self, crew: &Crew, seed: &Target) -> Outcome {
        if self.no_kubeconfig {
            return Ok(());
        }
        let path = self.path()?;
        let name = &crew.cluster.name;
        if merge_from(crew, seed, &path)? {
            println!("kubectl: --context {name} ({})", path.display());
        }
        Ok(())
    }

    /// Takes out what [`merge`](Self::merge) put in, once the cluster is no more.
    pub fn take_out(&self, cluster: &Cluster) -> Outcome {
        if self.no_kubeconfig {
            return Ok(());
        }
        let (path, name) = (self.path()?, &cluster.name);
        match without(read(&path)?, name, &servers(cluster)) {
            Without::Nothing => {}
            Without::Elsewhere(server) => println!(
                "kubectl: context {name} stays in {}, it leads to {server}",
                path.display()
            ),
            Without::These(file) => {
                write(&path, &file)?;
                println!("kubectl: context {name} is out of {}", path.display());
            }
        }
        Ok(())
    }

    /// Where kubectl looks: the first file of `KUBECONFIG`, or the one in the home.
    fn path(&self) -> Outcome<PathBuf> {
        if let Some(path) = &self.kubeconfig {
            return Ok(path.clone());
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
}

/// Takes the admin's kubeconfig from a server and merges it; whether that changed anything.
fn merge_from(crew: &Crew, seed: &Target, path: &Path) -> Outcome<bool> {
    let script = "cat /var/lib/coracle/server/cred/admin.kubeconfig";
    let text = crew.system.run(seed, &Work::new("reading the kubeconfig", script))?.out;
    let admin: Value = serde_saphyr::from_str(&text).doing(|| "reading the kubeconfig".into())?;
    let cluster = &crew.cluster;
    let seed = cluster.board(&seed.name).map(|board| board.address);
    let Some(address) = cluster.network.vip.or(seed) else { return Ok(false) };
    let before = read(path)?;
    let after = merged(before.clone(), &cluster.name, &server(cluster, address), &admin);
    if after == before {
        return Ok(false);
    }
    write(path, &after)?;
    Ok(true)
}

/// The API as a kubeconfig names it.
fn server(cluster: &Cluster, address: IpAddr) -> String {
    let port = cluster.server.get("https-listen-port").and_then(Value::as_u64);
    let port = port.and_then(|port| u16::try_from(port).ok()).unwrap_or(PORT);
    format!("https://{}", SocketAddr::new(address, port))
}

/// Every form in which `up` may have named it.
fn servers(cluster: &Cluster) -> Vec<String> {
    let boards = cluster.boards.iter().filter(|board| board.is_server());
    let addresses = cluster.network.vip.into_iter().chain(boards.map(|board| board.address));
    addresses.map(|address| server(cluster, address)).collect()
}

/// A kubeconfig; one that is not there is empty, and what is none is left as it is.
fn read(path: &Path) -> Outcome<Value> {
    let doing = || format!("reading the kubeconfig {}", path.display());
    let hint = || "name another with --kubeconfig, or use --no-kubeconfig".to_owned();
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(json!({})),
        read => read.doing(doing).hint(hint)?,
    };
    match serde_saphyr::from_str(&text).doing(doing).hint(hint)? {
        Value::Null => Ok(json!({})),
        file @ Value::Object(_) => Ok(file),
        _ => Err(Failure::new(format!("{} is no kubeconfig", path.display())).hint(hint())),
    }
}

/// Writes a kubeconfig; where a link leads to it, the link stays.
fn write(path: &Path, file: &Value) -> Outcome {
    let doing = || format!("writing the kubeconfig {}", path.display());
    let real = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    files::make_folder(real.parent().unwrap_or(Path::new(".")), true).doing(doing)?;
    files::write_atomically(&real, to_yaml(file)?.as_bytes(), 0o600).doing(doing)
}

/// A kubeconfig without a cluster.
#[derive(Debug, PartialEq)]
enum Without {
    /// It is not there.
    Nothing,
    /// Another is called so, with this server.
    Elsewhere(String),
    /// It is out.
    These(Value),
}

/// Takes out cluster, user and context of this name, if the cluster is at one of these servers. A
/// context that a person has led to something else stays, and so does everything of another name.
fn without(mut file: Value, name: &str, servers: &[String]) -> Without {
    let named = |file: &Value, list: &str| {
        let entries = file[list].as_array();
        entries.and_then(|entries| entries.iter().find(|entry| entry["name"] == name)).cloned()
    };
    let Some(cluster) = named(&file, "clusters") else { return Without::Nothing };
    let server = cluster["cluster"]["server"].as_str().unwrap_or_default();
    if !servers.iter().any(|ours| ours == server) {
        return Without::Elsewhere(server.to_owned());
    }
    let context = named(&file, "contexts").unwrap_or_default();
    let is_ours = context["context"]["cluster"] == name && context["context"]["user"] == name;
    for list in ["clusters", "users", "contexts"] {
        if (list != "contexts" || is_ours)
            && let Some(entries) = file[list].as_array_mut()
        {
            entries.retain(|entry| entry["name"] != name);
        }
    }
    if is_ours && file["current-context"] == name {
        // Empty is how kubectl writes that there is none.
        file["current-context"] = json!("");
    }
    Without::These(file)
}

/// The file with cluster, user and context of this name in it; all else stays as it is.
fn merged(mut file: Value, name: &str, server: &str, admin: &Value) -> Value {
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
        assert_eq!(merged(json!({}), "home", "x", &admin)["current-context"], "home");
    }

    #[test]
    fn what_was_put_in_comes_out_again_and_nothing_else() {
        let admin = json!({
            "clusters": [{ "name": "default", "cluster": { "certificate-authority-data": "CA" } }],
            "users": [{ "name": "default", "user": { "client-key-data": "KEY" } }],
        });
        let (url, other) = ("https://10.0.0.9:6443".to_owned(), "https://10.0.0.1:6443".to_owned());
        let servers = [other.clone(), url.clone()];
        let before = json!({
            "apiVersion": "v1", "kind": "Config", "preferences": { "colors": true },
            "clusters": [{ "name": "work", "cluster": { "server": "https://work" } }],
            "users": [{ "name": "work", "user": { "token": "t" } }],
            "contexts": [{ "name": "work", "context": { "cluster": "work", "user": "work" } }],
            "current-context": "work",
        });
        let with = merged(before.clone(), "home", &url, &admin);
        assert_eq!(without(with.clone(), "home", &servers), Without::These(before.clone()));
        assert_eq!(without(before, "home", &servers), Without::Nothing);
        assert_eq!(without(with.clone(), "home", &[other]), Without::Elsewhere(url.clone()));

        let Without::These(left) =
            without(merged(json!({}), "home", &url, &admin), "home", &servers)
        else {
            panic!("it was put in")
        };
        let empty = json!({ "apiVersion": "v1", "kind": "Config", "current-context": "",
            "clusters": [], "users": [], "contexts": [] });
        assert_eq!(left, empty);

        // A person's own: the name leads to another cluster by now, and is the current one.
        let mut led = with;
        led["contexts"][1]["context"]["cluster"] = json!("work");
        led["current-context"] = json!("home");
        let Without::These(left) = without(led.clone(), "home", &servers) else { panic!("{led}") };
        assert_eq!(
            (&left["contexts"], &left["current-context"]),
            (&led["contexts"], &json!("home"))
        );
        assert_eq!(left["clusters"].as_array().map(Vec::len), Some(1));
    }

    #[test]
    fn what_is_no_kubeconfig_is_left_as_it_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("config");
        assert_eq!(read(&path).expect("not there"), json!({}));
        for (text, fine) in [
            ("", true),
            ("# nothing yet\n", true),
            ("kind: Config\n", true),
            ("- a\n- list\n", false),
            ("words\n", false),
            ("clusters: [\n", false),
        ] {
            std::fs::write(&path, text).expect("written");
            let said = read(&path);
            assert_eq!(said.is_ok(), fine, "{text:?}");
            let hint = said.err().and_then(|error| error.next_step().map(str::to_owned));
            assert_eq!(hint.is_some_and(|hint| hint.contains("--kubeconfig")), !fine, "{text:?}");
        }
    }

    #[test]
    fn a_link_to_a_kubeconfig_stays_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let (link, file) = (folder.path().join("config"), folder.path().join("dotfiles"));
        std::fs::write(&file, "").expect("written");
        std::os::unix::fs::symlink(&file, &link).expect("linked");
        write(&link, &json!({ "kind": "Config" })).expect("written");
        assert!(link.is_symlink());
        assert_eq!(read(&file).expect("read"), json!({ "kind": "Config" }));
    }
}
