use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use ring::digest::{Context, SHA256, digest};

use crate::Trouble;
use crate::program::{Program, not_static, unreadable};

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
        // One for this machine alone is nothing for boards; there may be others that are.
        if Program::read(own)?.is_static {
            found.add(own, None)?;
        }
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
        let program = Program::read(path)?;
        let is = program.machine.to_string();
        if let Some(arch) = arch.filter(|arch| *arch != is) {
            let what = format!("{} is for {is}, and not for {arch}", path.display());
            return Err(Trouble::new(what, "`cargo xtask dist` makes both"));
        }
        if !program.is_static {
            return Err(not_static(path));
        }
        let (sum, bytes) = summed(path).map_err(|error| unreadable(path, &error))?;
        self.by_arch.insert(is, Binary { path: path.to_owned(), sum, bytes });
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

/// A file's SHA-256, and its size.
fn summed(path: &Path) -> io::Result<(String, u64)> {
    let (mut file, mut hash, mut bytes) = (File::open(path)?, Context::new(&SHA256), 0);
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((hex(hash.finish().as_ref()), bytes)),
            n => {
                hash.update(&buffer[..n]);
                bytes += n as u64;
            }
        }
    }
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
    use crate::program::testing::coracle as program;

    const X86_64: u16 = 62;
    const AARCH64: u16 = 183;

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

    #[test]
    fn what_is_not_coracle_is_refused_and_said_how_to_come_by_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let (own, other) = (folder.path().join("coracle"), folder.path().join("other"));
        fs::write(&own, program(X86_64, "")).expect("written");
        fs::write(&other, crate::program::testing::program(AARCH64, &[])).expect("written");
        let refused = Binaries::find(&own, &[format!("aarch64={}", other.display())]);
        let refused = refused.expect_err("refused");
        assert!(
            refused.to_string().ends_with("is a program for aarch64, and not Coracle"),
            "{refused}"
        );
        assert!(refused.hint().contains("cargo xtask dist"), "{}", refused.hint());
    }
}
