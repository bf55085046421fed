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
    /// The running one, and those that are named as `ARCH=FILE` or `FILE`.
    pub fn find(own: &Path, named: &[String]) -> Result<Self, Trouble> {
        let mut found = Self::default();
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

/// Bytes as hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256 of a text, as `sha256sum` prints it.
pub(super) fn sum(text: &str) -> String {
    hex(digest(&SHA256, text.as_bytes()).as_ref())
}
