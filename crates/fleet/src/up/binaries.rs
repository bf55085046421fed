use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use ring::digest::{Context, SHA256, digest};

use crate::Trouble;

/// Where the ELF header says the machine, and what it says (System V ABI).
const MACHINE_AT: usize = 18;
const HEADER_BYTES: usize = 20;
const X86_64: u16 = 62;
const AARCH64: u16 = 183;

/// The architectures that binaries are made for, as `uname -m` says them.
const ARCHITECTURES: [&str; 2] = ["x86_64", "aarch64"];

/// A binary for boards of one architecture.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Binary {
    /// Where it is on this machine.
    pub path: PathBuf,
    /// Its SHA-256.
    pub sum: String,
    /// Its size.
    pub bytes: u64,
}

/// The binaries that boards can be given, by architecture as `uname -m` says it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Binaries {
    by_arch: BTreeMap<String, Binary>,
}

impl Binaries {
    /// The running one, those beside it, and those that are named as `ARCH=FILE` or `FILE`; what is
    /// named counts more than what runs, and that more than what lies there.
    pub fn find(own: &Path, named: &[String]) -> Result<Self, Trouble> {
        let mut found = Self::default();
        for path in beside(own) {
            found.add(&path, None)?;
        }
        found.add(own, None)?;
        for text in named {
            let (arch, path) = match text.split_once('=') {
                Some((arch, path)) => (Some(arch), path),
                None => (None, text.as_str()),
            };
            found.add(Path::new(path), arch)?;
        }
        Ok(found)
    }

    fn add(&mut self, path: &Path, arch: Option<&str>) -> Result<(), Trouble> {
        let doing = |error: io::Error| {
            Trouble::new(
                format!("reading the binary {}: {error}", path.display()),
                "name a static binary of Coracle, such as --binary aarch64=coracle-aarch64",
            )
        };
        let mut file = File::open(path).map_err(doing)?;
        let mut header = [0; HEADER_BYTES];
        file.read_exact(&mut header).map_err(doing)?;
        let machine = u16::from_le_bytes([header[MACHINE_AT], header[MACHINE_AT + 1]]);
        let is = match (&header[..4], machine) {
            (b"\x7fELF", X86_64) => "x86_64",
            (b"\x7fELF", AARCH64) => "aarch64",
            _ => {
                let what = format!("{} is no binary for x86_64 or aarch64", path.display());
                return Err(Trouble::new(what, "`cargo xtask dist` makes both"));
            }
        };
        if let Some(arch) = arch.filter(|arch| *arch != is) {
            let what = format!("{} is for {is}, and not for {arch}", path.display());
            return Err(Trouble::new(what, "`cargo xtask dist` makes both"));
        }
        let mut hash = Context::new(&SHA256);
        hash.update(&header);
        let mut bytes = HEADER_BYTES as u64;
        let mut buffer = vec![0; 1 << 16];
        loop {
            match file.read(&mut buffer).map_err(doing)? {
                0 => break,
                n => {
                    hash.update(&buffer[..n]);
                    bytes += n as u64;
                }
            }
        }
        let sum = hex(hash.finish().as_ref());
        self.by_arch.insert(is.to_owned(), Binary { path: path.to_owned(), sum, bytes });
        Ok(())
    }

    /// The one for an architecture.
    pub fn of(&self, arch: &str) -> Option<&Binary> {
        self.by_arch.get(arch)
    }

    #[cfg(test)]
    pub(crate) fn just(arch: &str, binary: Binary) -> Self {
        Self { by_arch: [(arch.to_owned(), binary)].into() }
    }
}

/// The binaries for other architectures that lie beside this one, under the names that
/// `cargo xtask dist` gives them.
pub fn beside(own: &Path) -> Vec<PathBuf> {
    let paths = ARCHITECTURES.map(|arch| own.with_file_name(format!("coracle-{arch}")));
    paths.into_iter().filter(|path| path != own && path.is_file()).collect()
}

/// How a person comes by a binary for an architecture.
pub fn how_to_get(arch: &str) -> String {
    if !ARCHITECTURES.contains(&arch) {
        return format!("Coracle is made for {}", ARCHITECTURES.join(" and "));
    }
    format!(
        "`cargo xtask dist --arch {arch}` in a checkout makes target/dist/coracle-{arch}, and a board \
         of that kind has it as {}; name the file with --binary {arch}=FILE, or put it beside this \
         binary as coracle-{arch}",
        crate::board::paths::BINARY
    )
}

/// Bytes as hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256 of a text, as `sha256sum` prints it.
pub(super) fn sum(text: &str) -> String {
    hex(digest(&SHA256, text.as_bytes()).as_ref())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// The head of a program for a machine, with something that tells it from others.
    fn program(machine: u16, mark: &str) -> Vec<u8> {
        let mut content = b"\x7fELF".to_vec();
        content.resize(MACHINE_AT, 0);
        content.extend(machine.to_le_bytes());
        content.extend(mark.as_bytes());
        content
    }

    #[test]
    fn what_lies_beside_the_binary_is_taken_for_other_architectures() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        let own = at("coracle");
        fs::write(&own, program(X86_64, "own")).expect("written");
        let of = |named: &[String], arch: &str| {
            let found = Binaries::find(&own, named).expect("found");
            found.of(arch).map(|binary| binary.path.clone())
        };
        assert_eq!(of(&[], "aarch64"), None);
        fs::write(at("coracle-aarch64"), program(AARCH64, "beside")).expect("written");
        fs::write(at("coracle-x86_64"), program(X86_64, "older")).expect("written");
        assert_eq!(of(&[], "aarch64"), Some(at("coracle-aarch64")));
        assert_eq!(of(&[], "x86_64"), Some(own.clone()), "the running one");
        fs::write(at("other"), program(AARCH64, "named")).expect("written");
        let named = [format!("aarch64={}", at("other").display())];
        assert_eq!(of(&named, "aarch64"), Some(at("other")));
    }

    #[test]
    fn a_binary_for_another_architecture_than_it_is_named_for_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let own = folder.path().join("coracle");
        fs::write(&own, program(X86_64, "")).expect("written");
        let refused = Binaries::find(&own, &[format!("aarch64={}", own.display())]);
        let said = refused.expect_err("refused").to_string();
        assert!(said.contains("coracle is for x86_64, and not for aarch64"), "{said}");
    }
}
