//! Upstream's tree and what is compiled from it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::cache::{Cache, entries, fresh_folder, make_folder, write};
use super::packages::{Apt, need};
use crate::run::{Outcome, command, run};

/// The source package, and the version that its programs say they are.
const SOURCE: &str = "kubernetes";
const VERSION: &str = "v1.20.2";
/// The compiler: newer ones refuse a tree without modules.
const COMPILER: [&str; 2] = ["golang-1.19-go", "golang-1.19-src"];
/// Where the compiler is, below the folder that its packages are unpacked in.
const GOROOT: &str = "usr/lib/go-1.19";
/// Where a tree without modules has to be.
const TREE: &str = "gopath/src/k8s.io/kubernetes";
/// How much nicer than others a compiler run is.
const NICE: &str = "10";

/// Stands in for test files that upstream's build compiles into the tests; these come from
/// `-repo-root` instead.
const NOTHING_EMBEDDED: &str = "package generated

import \"fmt\"

// Asset finds nothing.
func Asset(name string) ([]byte, error) { return nil, fmt.Errorf(\"%s is not embedded\", name) }

// AssetNames is empty.
func AssetNames() []string { return nil }
";

/// A program of the tree: its name, its package, and whether it is a package's tests.
struct Program {
    name: &'static str,
    package: &'static str,
    test: bool,
}

const fn program(name: &'static str, package: &'static str) -> Program {
    Program { name, package, test: false }
}

const PROGRAMS: [Program; 8] = [
    program("agnhost", "./test/images/agnhost"),
    program("nnp", "./test/images/nonewprivs"),
    program("consumer", "./test/images/resource-consumer"),
    program("consume-cpu", "./test/images/resource-consumer/consume-cpu"),
    program("regression-issue-74839", "./test/images/regression-issue-74839"),
    program("sample-apiserver", "./vendor/k8s.io/sample-apiserver"),
    program("ginkgo", "./vendor/github.com/onsi/ginkgo/ginkgo"),
    Program { name: "e2e.test", package: "./test/e2e", test: true },
];

/// Upstream's control plane, beside which ours is measured.
const CONTROL_PLANE: [Program; 3] = [
    program("kube-apiserver", "./cmd/kube-apiserver"),
    program("kube-controller-manager", "./cmd/kube-controller-manager"),
    program("kube-scheduler", "./cmd/kube-scheduler"),
];
/// Writes the OpenAPI definitions, the one generated file that the source package lacks.
const OPENAPI_GENERATOR: Program =
    program("openapi-gen", "./vendor/k8s.io/kube-openapi/cmd/openapi-gen");
/// The package of that file, and the file.
const OPENAPI_PACKAGE: &str = "k8s.io/kubernetes/pkg/generated/openapi";
const OPENAPI_FILE: &str = "zz_generated.openapi";
/// Where Go files with the mark that asks for definitions lie, and the packages these are of.
const OPENAPI_SOURCES: [(&str, &str); 2] =
    [("pkg", "k8s.io/kubernetes/pkg"), ("staging/src/k8s.io", "k8s.io/kubernetes/vendor/k8s.io")];
const OPENAPI_MARK: &str = "+k8s:openapi-gen=true";
/// Folders with marks of other programs.
const NOT_SERVED: [&str; 2] = ["code-generator", "sample-apiserver"];

/// Upstream's tree with its compiler.
pub struct Tree<'a> {
    cache: &'a Cache,
    goroot: PathBuf,
}

impl<'a> Tree<'a> {
    /// Downloads and unpacks what is missing.
    pub fn unpack(cache: &'a Cache, apt: &Apt) -> Outcome<Self> {
        let goroot = apt.unpacked("go", &COMPILER, false)?.join(GOROOT);
        let tree = Self { cache, goroot };
        cache.once("tree", NOTHING_EMBEDDED, || {
            let downloads = cache.path("sources");
            apt.source(SOURCE, &downloads)?;
            let files = entries(&downloads)?;
            let archive = files.iter().find(|path| path.to_string_lossy().contains(".orig.tar"));
            let archive = archive.ok_or("the source package has no archive")?;
            fresh_folder(&tree.root())?;
            let mut line = command("tar", &["--strip-components=1", "-xf"]);
            line.arg(archive).arg("-C").arg(tree.root());
            run(line)?;
            write(&tree.file("test/e2e/generated/bindata.go"), NOTHING_EMBEDDED)
        })?;
        Ok(tree)
    }

    /// Where the tree is, or will be.
    pub fn path(cache: &Cache) -> PathBuf {
        cache.path(TREE)
    }

    fn root(&self) -> PathBuf {
        Self::path(self.cache)
    }

    /// A file of the tree.
    pub fn file(&self, below: &str) -> PathBuf {
        self.root().join(below)
    }

    /// A program that was built.
    pub fn program(&self, name: &str) -> PathBuf {
        program_path(self.cache, name)
    }

    /// Builds every program that is missing.
    pub fn build_all(&self) -> Outcome {
        make_folder(&self.cache.path("bin"))?;
        for program in &PROGRAMS {
            self.build(program)?;
        }
        self.build_pause()
    }

    fn build(&self, program: &Program) -> Outcome {
        let version = "k8s.io/kubernetes/vendor/k8s.io/component-base/version.gitVersion";
        let linker = format!("-s -w -X {version}={VERSION}");
        let recipe = format!("{} {} {linker}", COMPILER[0], program.package);
        self.cache.once(program.name, &recipe, || {
            let go = self.goroot.join("bin/go");
            let how: &[&str] = if program.test { &["test", "-c"] } else { &["build"] };
            let mut line = self.in_tree(&go);
            line.args(how).args(["-ldflags", &linker, "-o"]);
            line.arg(self.program(program.name)).arg(program.package);
            run(line)
        })
    }

    /// A program that works on the tree as Go without modules does.
    fn in_tree(&self, program: &Path) -> Command {
        let mut line = command("nice", &["-n", NICE]);
        line.arg(program).current_dir(self.root());
        line.env("GOROOT", &self.goroot)
            .env("GOPATH", self.cache.path("gopath"))
            .env("GOCACHE", self.cache.path("gocache"))
            .env("GOENV", "off")
            .env("GO111MODULE", "off")
            .env("GOPROXY", "off")
            .env("GOFLAGS", "")
            // Static programs, which run in any image.
            .env("CGO_ENABLED", "0");
        line
    }

    /// Builds the programs of a control plane that are missing.
    pub fn build_control_plane(&self) -> Outcome {
        make_folder(&self.cache.path("bin"))?;
        self.generate_openapi()?;
        CONTROL_PLANE.iter().try_for_each(|program| self.build(program))
    }

    /// Writes the OpenAPI definitions into the tree, with the tree's own generator. It is renamed
    /// into place, so that a file that is there is whole.
    fn generate_openapi(&self) -> Outcome {
        let folder = self.cache.path("gopath/src").join(OPENAPI_PACKAGE);
        let file = folder.join(format!("{OPENAPI_FILE}.go"));
        if file.exists() {
            return Ok(());
        }
        self.build(&OPENAPI_GENERATOR)?;
        let made = self.cache.path("openapi");
        fresh_folder(&made)?;
        let mut packages = Vec::new();
        for (sources, package) in OPENAPI_SOURCES {
            marked(&self.file(sources), package, &mut packages)?;
        }
        let mut line = self.in_tree(&self.program(OPENAPI_GENERATOR.name));
        line.args(["--logtostderr", "-p", OPENAPI_PACKAGE, "-O", OPENAPI_FILE, "-i"])
            .arg(packages.join(","))
            .args(["-h", "hack/boilerplate/boilerplate.generatego.txt", "-o"])
            .arg(&made)
            .arg("-r")
            .arg(made.join("violations"));
        run(line)?;
        let made = made.join(OPENAPI_PACKAGE).join(format!("{OPENAPI_FILE}.go"));
        fs::rename(&made, &file).map_err(|e| format!("moving {}: {e}", made.display()))
    }

    fn build_pause(&self) -> Outcome {
        need("cc", "gcc")?;
        self.cache.once("pause", "static", || {
            let mut line = command("cc", &["-Os", "-static", "-DVERSION=3.2", "-o"]);
            line.arg(self.program("pause")).arg(self.file("build/pause/linux/pause.c"));
            run(line)
        })
    }
}

/// The packages below a folder in which a Go file carries the mark.
fn marked(folder: &Path, package: &str, packages: &mut Vec<String>) -> Outcome {
    let mut is_marked = false;
    for path in entries(folder)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && !path.is_symlink() && !NOT_SERVED.contains(&name.as_str()) {
            marked(&path, &format!("{package}/{name}"), packages)?;
        } else if name.ends_with(".go") && !is_marked {
            let text = String::from_utf8_lossy(&bytes(&path)?).into_owned();
            is_marked = text.lines().any(|line| {
                line.strip_prefix("//").is_some_and(|line| line.trim() == OPENAPI_MARK)
            });
        }
    }
    if is_marked {
        packages.push(package.to_owned());
    }
    Ok(())
}

/// Where a program of the tree is once it was built.
pub fn program_path(cache: &Cache, name: &str) -> PathBuf {
    cache.path("bin").join(name)
}

/// A program's bytes.
pub fn bytes(path: &Path) -> Outcome<Vec<u8>> {
    fs::read(path).map_err(|e| format!("reading {}: {e}", path.display()))
}
