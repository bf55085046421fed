//! Debian packages, binary and source, through an apt configuration of its own on the machine's
//! own mirror. The machine's package lists and what is installed on it are not touched.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::cache::{Cache, entries, fresh_folder, make_folder, write};
use crate::run::{Outcome, command, exists, read, run};

/// The release that carries the source package.
const RELEASE: &str = "bookworm";
/// Keys that the mirror's lists are signed with.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Packages that a dependency names and no image needs to run, by the start of their names: what
/// sets packages up.
const LEFT_OUT: [&str; 23] = [
    "adduser",
    "apache2-",
    "base-files",
    "debconf",
    "debianutils",
    "dpkg",
    "gcc-12-base",
    "init-system-helpers",
    "libaudit",
    "libfile-find-rule-perl",
    "libnumber-compare-perl",
    "libpam",
    "libperl5",
    "libsemanage",
    "libsepol",
    "libtext-glob-perl",
    "lsb-base",
    "mawk",
    "passwd",
    "perl",
    "sysvinit-utils",
    "tar",
    "usrmerge",
];
/// Folders that no program in an image needs, by the end of their path.
const UNREAD: [&str; 7] = [
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/lintian",
    "usr/share/info",
    "usr/lib/x86_64-linux-gnu/gconv",
    "usr/share/bash-completion",
];

/// apt with lists of its own.
pub struct Apt<'a> {
    cache: &'a Cache,
    options: Vec<String>,
}

impl<'a> Apt<'a> {
    /// Writes the configuration; the lists are fetched when something is asked for.
    pub fn new(cache: &'a Cache) -> Outcome<Self> {
        let home = cache.path("apt");
        for folder in ["lists/partial", "cache/archives/partial", "etc"] {
            make_folder(&home.join(folder))?;
        }
        let home = home.display();
        let options = [
            format!("Dir::Etc::sourcelist={home}/etc/sources.list"),
            "Dir::Etc::sourceparts=/dev/null".into(),
            "Dir::Etc::preferencesparts=/dev/null".into(),
            "Dir::Etc::preferences=/dev/null".into(),
            format!("Dir::State::lists={home}/lists"),
            // Nothing counts as installed: a package comes with all that it needs.
            "Dir::State::status=/dev/null".into(),
            format!("Dir::Cache={home}/cache"),
            "APT::Sandbox::User=root".into(),
            "APT::Install-Recommends=false".into(),
            "Acquire::Languages=none".into(),
        ];
        let options = options.into_iter().flat_map(|option| ["-o".to_owned(), option]).collect();
        Ok(Self { cache, options })
    }

    fn get(&self, arguments: &[&str]) -> Command {
        let mut line = command("apt-get", &[]);
        line.args(&self.options).args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
        line
    }

    fn update(&self) -> Outcome {
        let listed = read(command(
            "apt-get",
            &["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"],
        ))?;
        let listed = String::from_utf8_lossy(&listed);
        let mirror = listed.lines().find(|line| !line.contains("security"));
        let mirror = mirror.ok_or("apt knows no mirror: run apt-get update")?;
        let source = format!("[signed-by={KEYRING}] {mirror} {RELEASE} main");
        let list = format!("deb {source}\ndeb-src {source}\n");
        self.cache.once("apt-lists", &list, || {
            write(&self.cache.path("apt/etc/sources.list"), &list)?;
            run(self.get(&["update", "-q"]))
        })
    }

    /// A source package's files, downloaded into an empty folder.
    pub fn source(&self, name: &str, folder: &Path) -> Outcome {
        self.update()?;
        fresh_folder(folder)?;
        let mut line = self.get(&["source", "--download-only", "-q", name]);
        line.current_dir(folder);
        run(line)
    }

    /// Packages unpacked into a folder of the cache, with all that they depend on where `whole`.
    pub fn unpacked(&self, name: &str, packages: &[&str], whole: bool) -> Outcome<PathBuf> {
        let folder = self.cache.path("packages").join(name);
        let recipe = format!("{packages:?} {whole} {LEFT_OUT:?}");
        self.cache.once(&format!("packages-{name}"), &recipe, || {
            self.update()?;
            let wanted = if whole { self.closure(packages)? } else { owned(packages) };
            fresh_folder(&folder)?;
            let downloads = self.cache.path("downloads");
            fresh_folder(&downloads)?;
            let mut line = self.get(&["download", "-q"]);
            line.args(&wanted).current_dir(&downloads);
            run(line)?;
            for package in entries(&downloads)? {
                let mut line = command("dpkg", &["-x"]);
                line.arg(package).arg(&folder);
                run(line)?;
            }
            for unread in UNREAD {
                let _ = std::fs::remove_dir_all(folder.join(unread));
            }
            Ok(())
        })?;
        Ok(folder)
    }

    /// Packages and what they depend on.
    fn closure(&self, packages: &[&str]) -> Outcome<Vec<String>> {
        let mut line = self.get(&["install", "--print-uris", "-y", "-qq"]);
        line.args(packages);
        let told = read(line)?;
        Ok(names(&String::from_utf8_lossy(&told), packages))
    }
}

/// The packages that `apt-get install --print-uris` names, without those that nobody needs.
fn names(told: &str, asked: &[&str]) -> Vec<String> {
    let files = told.lines().filter_map(|line| line.split(' ').nth(1));
    let names = files.filter_map(|file| file.split('_').next());
    let needed =
        |name: &&str| asked.contains(name) || !LEFT_OUT.iter().any(|start| name.starts_with(start));
    names.filter(needed).map(str::to_owned).collect()
}

fn owned(packages: &[&str]) -> Vec<String> {
    packages.iter().map(|&name| name.to_owned()).collect()
}

/// Fails with the next step where a program that the build needs is not there.
pub fn need(program: &str, package: &str) -> Outcome {
    match exists(program, &["--version"]) {
        true => Ok(()),
        false => Err(format!("{program} is missing: apt-get install {package}")),
    }
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn what_sets_packages_up_is_left_out_unless_it_was_asked_for() {
        let told = "'http://m/p/libc6.deb' libc6_2.36-9_amd64.deb 2759320 SHA256:a\n\
                    'http://m/p/dpkg.deb' dpkg_1.21.23_amd64.deb 1567804 SHA256:b\n\
                    'http://m/p/perl.deb' perl-base_5.36.0-7_amd64.deb 1607712 SHA256:c\n\n";
        assert_eq!(names(told, &["nginx"]), ["libc6"]);
        assert_eq!(names(told, &["perl-base"]), ["libc6", "perl-base"]);
    }
}
