//! The static binaries.

use std::path::{Path, PathBuf};
use std::process::Command;

use clap::ValueEnum;

use crate::run::{Outcome, command, exists, root, run};

/// What the binary may weigh (docs: promises).
const MAX_BINARY_BYTES: u64 = 40_000_000;

/// A processor family that a binary is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Arch {
    /// PCs and servers.
    #[value(name = "x86_64")]
    X86,
    /// 64-bit boards: Raspberry Pi 3 and later.
    #[value(name = "aarch64")]
    Aarch64,
}

impl Arch {
    fn name(self) -> &'static str {
        match self {
            Arch::X86 => "x86_64",
            Arch::Aarch64 => "aarch64",
        }
    }

    fn target(self) -> String {
        format!("{}-unknown-linux-musl", self.name())
    }
}

/// Builds for each architecture, puts the binaries into `target/dist` and asks each for its
/// version; `test` also runs unit tests under qemu.
pub fn dist(only: Option<Arch>, test: bool) -> Outcome {
    let mut failed = Vec::new();
    for arch in [Arch::X86, Arch::Aarch64] {
        if only.is_some_and(|only| only != arch) {
            continue;
        }
        // One that cannot be had here must not keep the other from being made.
        if let Err(error) = build(arch).and_then(|()| if test { test_on(arch) } else { Ok(()) }) {
            failed.push(format!("{}: {error}", arch.name()));
        }
    }
    failed.is_empty().then_some(()).ok_or_else(|| failed.join("\n"))
}

fn build(arch: Arch) -> Outcome {
    add_target(arch)?;
    let target = arch.target();
    run(cargo(
        arch,
        &["build", "--release", "--locked", "--package=coracle", "--target", &target],
    )?)?;
    let built = target_dir().join(&target).join("release/coracle");
    let folder = target_dir().join("dist");
    let binary = folder.join(format!("coracle-{}", arch.name()));
    std::fs::create_dir_all(&folder)
        .and_then(|()| std::fs::copy(&built, &binary))
        .map_err(|error| format!("copying {}: {error}", built.display()))?;
    let size = std::fs::metadata(&binary).map_err(|error| error.to_string())?.len();
    if size > MAX_BINARY_BYTES {
        return Err(format!("{} has {size} bytes, more than promised", binary.display()));
    }
    eprintln!("{}: {:.1} MB", binary.display(), size as f64 / 1e6);
    let mut version = match runner(arch) {
        Some(runner) => Command::new(runner),
        None => Command::new(&binary),
    };
    if runner(arch).is_some() {
        version.arg(&binary);
    }
    version.arg("--version");
    run(version)
}

fn test_on(arch: Arch) -> Outcome {
    let target = arch.target();
    let mut tests =
        cargo(arch, &["test", "--locked", "--package=base", "--package=api", "--target", &target])?;
    if let Some(runner) = runner(arch) {
        tests.env(format!("CARGO_TARGET_{}_RUNNER", shouted(&target)), runner);
    }
    run(tests)
}

fn add_target(arch: Arch) -> Outcome {
    let target = arch.target();
    run(command("rustup", &["target", "add", &target]))
        .map_err(|error| format!("{error}\nthe target {target} cannot be had here"))
}

/// What runs a binary of `arch` on this machine, where it does not run by itself.
fn runner(arch: Arch) -> Option<&'static str> {
    match arch {
        Arch::Aarch64 if std::env::consts::ARCH != "aarch64" => Some("qemu-aarch64-static"),
        Arch::X86 if std::env::consts::ARCH != "x86_64" => Some("qemu-x86_64-static"),
        _ => None,
    }
}

/// A cargo command with the C compiler and linker that `arch` needs: `musl-gcc` for this
/// machine's own, the `zig` of PyPI's `ziglang` for the other (it carries musl's headers for
/// every architecture). rustc brings the linker and musl itself.
fn cargo(arch: Arch, arguments: &[&str]) -> Outcome<Command> {
    let target = arch.target();
    let mut cargo = command("cargo", arguments);
    if let Some(commit) = crate::run::commit() {
        cargo.env("CORACLE_COMMIT", commit);
    }
    if runner(arch).is_none() {
        if !exists("musl-gcc", &["--version"]) {
            return Err("musl-gcc is missing: apt-get install musl-tools".into());
        }
        return Ok(cargo);
    }
    let tools = cross_tools(arch)?;
    let underscored = target.replace('-', "_");
    cargo
        .env(format!("CC_{underscored}"), tools.join("cc"))
        .env(format!("AR_{underscored}"), tools.join("ar"))
        .env(format!("CARGO_TARGET_{}_LINKER", shouted(&target)), "rust-lld")
        .env(
            format!("CARGO_TARGET_{}_RUSTFLAGS", shouted(&target)),
            "-Clinker-flavor=ld.lld -Crelocation-model=static",
        );
    Ok(cargo)
}

/// Makes a compiler out of `zig cc` once: a small script, since the flags that the `cc` crate
/// adds name the target in a way that zig does not take.
fn cross_tools(arch: Arch) -> Outcome<PathBuf> {
    let folder = target_dir().join(format!("cross-{}", arch.name()));
    let python = folder.join("venv/bin/python");
    if !python.exists() {
        let venv = folder.join("venv");
        run(command("python3", &["-m", "venv", &venv.to_string_lossy()]))?;
        run(command(&python.to_string_lossy(), &["-m", "pip", "install", "--quiet", "ziglang"]))?;
    }
    let cc = format!(
        "#!/bin/sh\n\
         # The target is named below in zig's way; drop the one named in clang's.\n\
         for a do shift; case $a in --target=*) ;; *) set -- \"$@\" \"$a\";; esac; done\n\
         exec {} -m ziglang cc -target {}-linux-musl -fno-sanitize=all \"$@\"\n",
        python.display(),
        arch.name()
    );
    let ar = format!("#!/bin/sh\nexec {} -m ziglang ar \"$@\"\n", python.display());
    write_script(&folder.join("cc"), &cc)?;
    write_script(&folder.join("ar"), &ar)?;
    Ok(folder)
}

fn write_script(path: &Path, text: &str) -> Outcome {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, text)
        .and_then(|()| std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)))
        .map_err(|error| format!("writing {}: {error}", path.display()))
}

fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

fn shouted(target: &str) -> String {
    target.replace('-', "_").to_uppercase()
}
