//! The images that the tests run, under the names that the tests ask for.
//!
//! Upstream's come from registries. These are made of the same test programs, built from the same
//! tree, and of Debian's packages on a base of one static busybox. Images of which an account at a
//! registry is tested are not made: the tests expect that they cannot be pulled.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::archive::{Layer, save};
use super::cache::{Cache, make_folder};
use super::packages::Apt;
use super::programs::{Tree, bytes};
use crate::run::{Outcome, read};

/// Registries whose images have to be missing.
const CLOSED: [&str; 3] =
    ["invalid.com/", "gcr.io/k8s-authenticated-test/", "gcr.io/authenticated-image-pulling/"];
/// The search path of every image.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What an image is made of, above the base.
#[derive(Debug, Default)]
struct Recipe {
    /// The last part of the names that it is imported under.
    name: &'static str,
    /// Debian packages, with all that they need.
    packages: &'static [&'static str],
    /// Programs of the tree: name, path in the image, mode.
    programs: &'static [(&'static str, &'static str, u32)],
    /// Files of the tree: path there, path in the image.
    files: &'static [(&'static str, &'static str)],
    /// Small texts: path in the image, what it says. A path that ends in `/` is a folder.
    texts: &'static [(&'static str, &'static str)],
    /// Symbolic links: path, target.
    links: &'static [(&'static str, &'static str)],
    entrypoint: &'static [&'static str],
    cmd: &'static [&'static str],
    user: &'static str,
}

const fn bare(name: &'static str) -> Recipe {
    Recipe {
        name,
        packages: &[],
        programs: &[],
        files: &[],
        texts: &[],
        links: &[],
        entrypoint: &[],
        cmd: &["/bin/sh"],
        user: "",
    }
}

/// Modules are loaded by hand, since Debian's own arrangement is made when the package is set up.
const APACHE: &str = "ServerRoot /usr/local/apache2
ServerName localhost
Listen 80
PidFile /tmp/httpd.pid
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule dir_module /usr/lib/apache2/modules/mod_dir.so
LoadModule mime_module /usr/lib/apache2/modules/mod_mime.so
TypesConfig /usr/local/apache2/conf/mime.types
User nobody
Group nogroup
DocumentRoot /usr/local/apache2/htdocs
ErrorLog /proc/self/fd/2
";
const APACHE_START: &str =
    "#!/bin/sh\nexec /usr/sbin/apache2 -DFOREGROUND -f /usr/local/apache2/conf/httpd.conf\n";
const NGINX: &str = "daemon off;
error_log /dev/stderr;
pid /tmp/nginx.pid;
events {}
http {
  access_log /dev/stdout;
  server { listen 80; root /usr/share/nginx/html; index index.html; }
}
";
const WELCOME: &str = "<html><body><h1>It works!</h1></body></html>\n";
const WELCOME_NGINX: &str = "<html><head><title>Welcome to nginx!</title></head></html>\n";
/// A test has the image's CoreDNS answer for the `hosts` of a Corefile (`-conf FILE`).
const COREDNS: &str = "#!/bin/sh
grep -E '^[[:space:]]+[0-9]+[.]' \"$2\" >/tmp/hosts
exec /usr/sbin/dnsmasq -k -C /dev/null -u root -R -h -H /tmp/hosts --log-facility=-
";
const AGNHOST: (&str, &str, u32) = ("agnhost", "agnhost", 0o755);

const RECIPES: [Recipe; 18] = [
    bare("busybox"),
    Recipe {
        packages: &[
            "bind9-dnsutils",
            "curl",
            "netcat-openbsd",
            "iproute2",
            "iperf",
            "bash",
            "libc-bin",
            "wget",
            "dnsmasq-base",
        ],
        programs: &[AGNHOST],
        files: &[
            ("test/images/agnhost/porter/localhost.crt", "localhost.crt"),
            ("test/images/agnhost/porter/localhost.key", "localhost.key"),
        ],
        texts: &[("uploads/", ""), ("coredns", COREDNS)],
        // Tests of services pass options that busybox's nc does not know, and its shell takes its own
        // applets before programs.
        links: &[
            ("agnhost-2", "agnhost"),
            ("usr/local/bin/iperf", "/usr/bin/iperf"),
            ("bin/nc", "/bin/nc.openbsd"),
            // Busybox's is linked statically and dies of the libraries of other packages.
            ("bin/wget", "/usr/bin/wget"),
            ("bin/sh", "/bin/bash"),
        ],
        entrypoint: &["/agnhost"],
        cmd: &["pause"],
        ..bare("agnhost")
    },
    Recipe {
        programs: &[AGNHOST],
        files: &[
            ("test/images/nautilus/html/nautilus.jpg", "nautilus.jpg"),
            ("test/images/nautilus/html/data.json", "data.json"),
        ],
        entrypoint: &["/agnhost"],
        cmd: &["test-webserver"],
        ..bare("nautilus")
    },
    Recipe {
        programs: &[AGNHOST],
        files: &[
            ("test/images/kitten/html/kitten.jpg", "kitten.jpg"),
            ("test/images/kitten/html/data.json", "data.json"),
        ],
        entrypoint: &["/agnhost"],
        cmd: &["test-webserver"],
        ..bare("kitten")
    },
    Recipe { packages: &["bind9-dnsutils", "libc-bin", "bash"], ..bare("jessie-dnsutils") },
    Recipe {
        programs: &[("sample-apiserver", "sample-apiserver", 0o755)],
        entrypoint: &["/sample-apiserver"],
        cmd: &[],
        ..bare("sample-apiserver")
    },
    Recipe {
        packages: &["etcd-server", "etcd-client"],
        links: &[("usr/local/bin/etcd", "/usr/bin/etcd")],
        cmd: &["/usr/local/bin/etcd"],
        ..bare("etcd")
    },
    Recipe {
        packages: &["apache2-bin"],
        texts: &[
            ("usr/local/apache2/htdocs/index.html", WELCOME),
            ("usr/local/apache2/conf/httpd.conf", APACHE),
            ("usr/local/apache2/conf/mime.types", "text/html html\nimage/jpeg jpg\n"),
            ("usr/local/bin/httpd-foreground", APACHE_START),
            // Debian's busybox has none.
            ("usr/local/bin/printenv", "#!/bin/sh\nenv | sed -n \"s/^$1=//p\"\n"),
        ],
        cmd: &["httpd-foreground"],
        ..bare("httpd")
    },
    Recipe {
        packages: &["nginx-light"],
        texts: &[
            ("usr/share/nginx/html/index.html", WELCOME_NGINX),
            ("etc/nginx/nginx.conf", NGINX),
            ("var/lib/nginx/", ""),
            ("var/log/nginx/", ""),
        ],
        cmd: &["nginx"],
        ..bare("nginx")
    },
    Recipe { packages: &["redis-server"], cmd: &["redis-server"], ..bare("redis") },
    Recipe { packages: &["perl-base"], cmd: &["perl", "-de0"], ..bare("perl") },
    Recipe { packages: &["util-linux"], ..bare("ipc-utils") },
    Recipe {
        programs: &[("pause", "pause", 0o755)],
        entrypoint: &["/pause"],
        cmd: &[],
        ..bare("pause")
    },
    Recipe {
        programs: &[("nnp", "usr/local/bin/nnp", 0o4755)],
        cmd: &["nnp"],
        ..bare("nonewprivs")
    },
    Recipe { user: "1234", ..bare("nonroot") },
    Recipe {
        packages: &["stress"],
        programs: &[("consumer", "consumer", 0o755), ("consume-cpu", "consume-cpu", 0o755)],
        entrypoint: &["/consumer"],
        cmd: &[],
        ..bare("resource-consumer")
    },
    Recipe {
        programs: &[("regression-issue-74839", "regression-issue-74839", 0o755)],
        // The tests ask for the image's first version, which found its address by itself.
        texts: &[("start", "#!/bin/sh\nPOD_IP=$(hostname -i) exec /regression-issue-74839\n")],
        entrypoint: &["/start"],
        cmd: &[],
        ..bare("regression-issue-74839-amd64")
    },
    Recipe { packages: &["iptables", "conntrack"], ..bare("debian-iptables") },
];

/// Packs every image that is missing; their archives.
pub fn build(cache: &Cache, apt: &Apt, tree: &Tree) -> Outcome<Vec<PathBuf>> {
    let folder = cache.path("images");
    make_folder(&folder)?;
    let asked = asked_for(tree)?;
    let mut archives = Vec::new();
    for recipe in &RECIPES {
        let names = names(&asked, recipe.name);
        if names.is_empty() {
            continue;
        }
        let archive = folder.join(format!("{}.tar", recipe.name));
        cache.once(&format!("image-{}", recipe.name), &format!("{recipe:?} {names:?}"), || {
            let layers = layers(recipe, apt, tree)?;
            save(&archive, &names, &layers, &config(recipe))
        })?;
        archives.push(archive);
    }
    Ok(archives)
}

/// All names that the tests ask for.
fn asked_for(tree: &Tree) -> Outcome<String> {
    let mut line = std::process::Command::new(tree.program("e2e.test"));
    line.arg("--list-images");
    Ok(String::from_utf8_lossy(&read(line)?).into_owned())
}

/// Those of the names that end in this one, whatever their registry and version.
fn names(asked: &str, name: &str) -> Vec<String> {
    let is_it = |reference: &&str| {
        let last = reference.rsplit('/').next().unwrap_or_default();
        let open = !CLOSED.iter().any(|closed| reference.starts_with(closed));
        open && last.split([':', '@']).next() == Some(name)
    };
    let mut names: Vec<String> =
        asked.lines().map(str::trim).filter(is_it).map(str::to_owned).collect();
    names.sort();
    names
}

fn config(recipe: &Recipe) -> Value {
    let mut config = Map::new();
    config.insert("Env".into(), json!([PATH]));
    for (key, line) in [("Entrypoint", recipe.entrypoint), ("Cmd", recipe.cmd)] {
        if !line.is_empty() {
            config.insert(key.into(), json!(line));
        }
    }
    if !recipe.user.is_empty() {
        config.insert("User".into(), json!(recipe.user));
    }
    Value::Object(config)
}

fn layers(recipe: &Recipe, apt: &Apt, tree: &Tree) -> Outcome<Vec<Vec<u8>>> {
    let busybox = apt.unpacked("busybox-static", &["busybox-static"], false)?;
    let mut layers = vec![base(&busybox.join("bin/busybox"))?];
    if !recipe.packages.is_empty() {
        let mut layer = Layer::new();
        layer.folder(&apt.unpacked(recipe.name, recipe.packages, true)?)?;
        layers.push(layer.finish()?);
    }
    let mut layer = Layer::new();
    for (program, path, mode) in recipe.programs {
        layer.file(path, *mode, &bytes(&tree.program(program))?)?;
    }
    for (from, path) in recipe.files {
        layer.file(path, 0o644, &bytes(&tree.file(from))?)?;
    }
    for (path, text) in recipe.texts {
        match path.strip_suffix('/') {
            Some(folder) => layer.directory(folder, 0o777)?,
            None => layer.file(path, 0o755, text.as_bytes())?,
        }
    }
    for (path, target) in recipe.links {
        layer.link(path, target)?;
    }
    layers.push(layer.finish()?);
    Ok(layers)
}

/// A static busybox with a link for every applet, and the few files that a C library looks for.
fn base(busybox: &Path) -> Outcome<Vec<u8>> {
    let mut list = std::process::Command::new(busybox);
    list.arg("--list");
    let applets = read(list)?;
    let mut layer = Layer::new();
    for (folder, mode) in [("bin", 0o755), ("etc", 0o755), ("tmp", 0o1777), ("root", 0o700)] {
        layer.directory(folder, mode)?;
    }
    layer.file("bin/busybox", 0o755, &bytes(busybox)?)?;
    for applet in String::from_utf8_lossy(&applets).lines().filter(|name| *name != "busybox") {
        layer.link(&format!("bin/{applet}"), "busybox")?;
    }
    let passwd = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n";
    layer.file("etc/passwd", 0o644, passwd.as_bytes())?;
    layer.file("etc/group", 0o644, b"root:x:0:\nnogroup:x:65534:\n")?;
    layer.finish()
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn an_image_is_found_under_every_version_of_open_registries() {
        let asked = "docker.io/library/httpd:2.4.38-alpine\ndocker.io/library/httpd:2.4.39-alpine\n\
                     gcr.io/k8s-authenticated-test/agnhost:2.6\nk8s.gcr.io/e2e/agnhost:2.21\n";
        assert_eq!(names(asked, "httpd").len(), 2);
        assert_eq!(names(asked, "agnhost"), ["k8s.gcr.io/e2e/agnhost:2.21"]);
        assert!(names(asked, "http").is_empty());
    }
}
