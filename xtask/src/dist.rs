//! The static binaries.

use std::path::{Path, PathBuf};
use std::process::Command;

use clap::ValueEnum;
use sha2::{Digest, Sha256};

use self::program::Program;
use crate::run::{Outcome, command, exists, root, run};

mod program;

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

    /// The largest pages that kernels have. On aarch64 they are chosen when a kernel is built: 16 KiB is
    /// usual on a Raspberry Pi 5, 64 KiB on servers.
    fn page_bytes(self) -> u64 {
        match self {
            Arch::X86 => 4 << 10,
            Arch::Aarch64 => 64 << 10,
        }
    }
}

/// The crates whose unit tests need neither root nor other programs, so that an emulator of the
/// processor alone can run them.
const TESTED: [&str; 6] = ["base", "expression", "api", "store", "net", "fleet"];

/// What is made, and what becomes of it.
#[derive(clap::Args, Debug)]
pub struct Dist {
    /// Only this architecture
    #[arg(long)]
    arch: Option<Arch>,
    /// Not optimised, which takes a tenth of the time: for trying things out
    #[arg(long)]
    debug: bool,
    /// Also run unit tests, on a foreign architecture under qemu-user-static
    #[arg(long)]
    test: bool,
}

/// Builds for each architecture, puts the binaries and their checksums into `target/dist` and asks each for
/// its version. One that cannot be made here must not keep the other from being made, and one that is
/// too large is a failure only after all else was done.
pub fn dist(options: &Dist) -> Outcome {
    let mut failed = Vec::new();
    for arch in [Arch::X86, Arch::Aarch64] {
        if options.arch.is_some_and(|only| only != arch) {
            continue;
        }
        let made = build(arch, options.debug).and_then(|bytes| {
            if options.test {
                test_on(arch)?;
            }
            if options.debug { Ok(()) } else { fits(bytes) }
        });
        if let Err(error) = made {
            failed.push(format!("{}: {error}", arch.name()));
        }
    }
    failed.is_empty().then_some(()).ok_or_else(|| failed.join("\n"))
}

/// Makes one binary and says how many bytes it has.
fn build(arch: Arch, debug: bool) -> Outcome<u64> {
    add_target(arch)?;
    let target = arch.target();
    let mut arguments = vec!["build", "--locked", "--package=coracle", "--target", &target];
    let profile = if debug { "debug" } else { "release" };
    if !debug {
        arguments.push("--release");
    }
    run(cargo(arch, &arguments)?)?;
    let built = target_dir().join(&target).join(profile).join("coracle");
    let folder = target_dir().join("dist");
    let suffix = if debug { ".debug" } else { "" };
    let binary = folder.join(format!("coracle-{}{suffix}", arch.name()));
    std::fs::create_dir_all(&folder)
        .and_then(|()| std::fs::copy(&built, &binary))
        .map_err(|error| format!("copying {}: {error}", built.display()))?;
    let content =
        std::fs::read(&binary).map_err(|error| format!("reading {}: {error}", binary.display()))?;
    loads(&content, arch).map_err(|error| format!("{} {error}", binary.display()))?;
    eprintln!("{}: {:.1} MB, static", binary.display(), content.len() as f64 / 1e6);
    run(on_this_machine(arch, &binary, &["--version"]))?;
    write_sum(&binary, &content)?;
    Ok(content.len() as u64)
}

/// Whether any system of this architecture can run it: it brings all it needs, and kernels with
/// the largest pages can map it.
fn loads(content: &[u8], arch: Arch) -> Outcome {
    let program = Program::read(content).ok_or("is no program")?;
    let (pages, needed) = (program.page_bytes(), arch.page_bytes());
    match () {
        () if !program.is_static() => Err("asks for a dynamic linker".into()),
        () if pages < needed => Err(format!(
            "is for pages of {} KiB, and kernels with {} are in use",
            pages >> 10,
            needed >> 10
        )),
        () => Ok(()),
    }
}

/// Writes the checksum beside it, as `sha256sum --check` takes it.
fn write_sum(binary: &Path, content: &[u8]) -> Outcome {
    let digest = Sha256::digest(content);
    let sum: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let name = binary.file_name().unwrap_or_default().to_string_lossy();
    let path = binary.with_file_name(format!("{name}.sha256"));
    std::fs::write(&path, format!("{sum}  {name}\n"))
        .map_err(|error| format!("writing {}: {error}", path.display()))
}

fn fits(bytes: u64) -> Outcome {
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    (bytes <= MAX_BINARY_BYTES).then_some(()).ok_or_else(|| {
        let (is, may) = (megabytes(bytes), megabytes(MAX_BINARY_BYTES));
        format!("made, but the binary has {is:.1} MB and may have {may:.1}")
    })
}

/// Runs a program of `arch` here, by an emulator where it is another's.
fn on_this_machine(arch: Arch, program: &Path, arguments: &[&str]) -> Command {
    let mut command = match runner(arch) {
        Some(runner) => {
            let mut command = Command::new(runner);
            command.arg(program);
            command
        }
        None => Command::new(program),
    };
    command.args(arguments);
    command
}

fn test_on(arch: Arch) -> Outcome {
    let target = arch.target();
    let mut arguments = vec!["test", "--locked", "--lib", "--target", &target];
    arguments.extend(TESTED.iter().flat_map(|name| ["--package", name]));
    let mut tests = cargo(arch, &arguments)?;
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
    let underscored = target.replace('-', "_");
    let mut cargo = command("cargo", arguments);
    if let Some(commit) = crate::run::commit() {
        cargo.env("CORACLE_COMMIT", commit);
    }
    if runner(arch).is_none() {
        if !exists("musl-gcc", &["--version"]) {
            return Err("musl-gcc is missing: apt-get install musl-tools".into());
        }
        // Build scripts find it by themselves on x86_64 only.
        if arch == Arch::Aarch64 {
            cargo.env(format!("CC_{underscored}"), "musl-gcc");
        }
        return Ok(cargo);
    }
    let tools = cross_tools(arch)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_large_is_said_with_both_sizes() {
        assert_eq!(fits(MAX_BINARY_BYTES), Ok(()));
        let said = "made, but the binary has 56.1 MB and may have 40.0".to_owned();
        assert_eq!(fits(56_123_456), Err(said));
    }
}
