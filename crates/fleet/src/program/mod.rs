//! What a binary says of itself before it is given to a board. It is read and not run: the board's
//! processor may be another than this machine's.
//!
//! Coracle says its name and release in an ELF note as systemd's "package metadata" has it, which
//! `readelf --notes` shows too. A version that merely stands somewhere among a program's texts has no
//! end there, and any file that quotes it would pass for Coracle.

mod elf;
mod machine;

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde_json::Value;

use crate::Trouble;
use elf::Head;
pub use machine::Machine;

/// Whose kind of note it is, with the NUL that ends a name in ELF.
pub const NOTE_OWNER: [u8; 4] = *b"FDO\0";
/// The number of "package metadata".
pub const NOTE_KIND: u32 = 0xcafe_1a7e;

/// Enough of a program for its headers and notes, which linkers put first.
const HEAD_BYTES: u64 = 64 << 10;
/// How a person comes by the right file.
const MAKES: &str = "`cargo xtask dist` makes both";

/// A binary of this very release of Coracle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Program {
    /// What it is for.
    pub machine: Machine,
    /// Whether it needs nothing of the system that it runs on.
    pub is_static: bool,
}

impl Program {
    /// Reads a file's head; refused where it is not Coracle, of this release, for a board that we know.
    pub fn read(path: &Path) -> Result<Self, Trouble> {
        let mut head = Vec::new();
        let read = File::open(path).and_then(|file| file.take(HEAD_BYTES).read_to_end(&mut head));
        read.map_err(|error| unreadable(path, &error))?;
        Self::of(&head).map_err(|what| Trouble::new(format!("{} {what}", path.display()), MAKES))
    }

    /// The same of a file's head alone; the error continues its name.
    fn of(head: &[u8]) -> Result<Self, String> {
        let known = |machine: &Machine| matches!(machine, Machine::Amd64 | Machine::Arm64);
        let machine = Machine::of(head).filter(known);
        let machine = machine.ok_or("is no binary for x86_64 or aarch64")?;
        let head = Head(head);
        let about = head.note(&NOTE_OWNER, NOTE_KIND).unwrap_or_default();
        let about: Value =
            serde_json::from_slice(about.strip_suffix(b"\0").unwrap_or(about)).unwrap_or_default();
        if about["name"] != "coracle" {
            return Err(format!("is a program for {machine}, and not Coracle"));
        }
        let (release, ours) =
            (about["version"].as_str().unwrap_or("unknown"), env!("CARGO_PKG_VERSION"));
        if release != ours {
            return Err(format!("is of release {release}, and this one of {ours}"));
        }
        Ok(Self { machine, is_static: !head.is_interpreted() })
    }
}

/// The file cannot even be read.
pub fn unreadable(path: &Path, error: &io::Error) -> Trouble {
    Trouble::new(
        format!("reading the binary {}: {error}", path.display()),
        "name a static binary of Coracle, such as --binary aarch64=coracle-aarch64",
    )
}

/// A program that would not run on boards: it was linked for the system that made it.
pub fn not_static(path: &Path) -> Trouble {
    let what = format!("{} needs libraries of the system that made it", path.display());
    Trouble::new(what, "`cargo xtask dist` makes static ones")
}

/// Heads of programs, for tests.
#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// The head of a program with these segments (kind, content).
    pub(crate) fn program(machine: u16, segments: &[(u32, Vec<u8>)]) -> Vec<u8> {
        let mut head = b"\x7fELF".to_vec();
        head.resize(18, 0);
        head.extend(machine.to_le_bytes());
        head.resize(32, 0);
        head.extend(64u64.to_le_bytes());
        head.resize(54, 0);
        head.extend(56u16.to_le_bytes());
        head.extend((segments.len() as u16).to_le_bytes());
        head.resize(64, 0);
        let mut at = 64 + 56 * segments.len();
        for (kind, content) in segments {
            let mut segment = [0; 56];
            segment[..4].copy_from_slice(&kind.to_le_bytes());
            segment[8..16].copy_from_slice(&(at as u64).to_le_bytes());
            segment[32..40].copy_from_slice(&(content.len() as u64).to_le_bytes());
            head.extend(segment);
            at += content.len();
        }
        segments.iter().for_each(|(_, content)| head.extend(content));
        head
    }

    /// A note, filled up as ELF has it.
    pub(crate) fn note(owner: &[u8], kind: u32, text: &str) -> Vec<u8> {
        let mut note = Vec::new();
        for number in [owner.len() as u32, text.len() as u32, kind] {
            note.extend(number.to_le_bytes());
        }
        for part in [owner, text.as_bytes()] {
            note.extend(part);
            note.resize(note.len().next_multiple_of(4), 0);
        }
        note
    }

    /// Coracle of this release, as far as its head goes, with something that tells it from others.
    pub(crate) fn coracle(machine: u16, mark: &str) -> Vec<u8> {
        let about = format!(r#"{{"name":"coracle","version":"{}"}}"#, env!("CARGO_PKG_VERSION"));
        let mut head = program(machine, &[(elf::NOTE, note(&NOTE_OWNER, NOTE_KIND, &about))]);
        head.extend(mark.as_bytes());
        head
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{note, program};
    use super::*;

    #[test]
    fn only_coracle_of_this_release_is_taken() {
        let about = |text: &str| note(&NOTE_OWNER, NOTE_KIND, text);
        let built = note(b"GNU\0", 3, "\x01\x02\x03");
        let ours =
            about(&format!(r#"{{"name":"coracle","version":"{}"}}"#, env!("CARGO_PKG_VERSION")));
        let fine = |is_static| Ok(Program { machine: Machine::Arm64, is_static });
        let wrong = |what: &str| Err(what.to_owned());
        let foreign = || wrong("is a program for aarch64, and not Coracle");
        for (head, expected) in [
            (program(183, &[(4, ours.clone())]), fine(true)),
            (
                program(183, &[(1, vec![7; 9]), (4, [built.clone(), ours.clone()].concat())]),
                fine(true),
            ),
            (program(183, &[(4, built.clone()), (4, ours.clone())]), fine(true)),
            (program(183, &[(3, b"/lib/ld.so\0".to_vec()), (4, ours.clone())]), fine(false)),
            (program(183, &[]), foreign()),
            (program(183, &[(4, built)]), foreign()),
            (program(183, &[(4, about(r#"{"name":"busybox"}"#))]), foreign()),
            (program(183, &[(4, about("coracle"))]), foreign()),
            (
                program(183, &[(4, about(r#"{"name":"coracle","version":"9.9.9"}"#))]),
                wrong(concat!("is of release 9.9.9, and this one of ", env!("CARGO_PKG_VERSION"))),
            ),
            (program(40, &[(4, ours.clone())]), wrong("is no binary for x86_64 or aarch64")),
            (
                b"#!/bin/sh\necho an old script\n".to_vec(),
                wrong("is no binary for x86_64 or aarch64"),
            ),
            (Vec::new(), wrong("is no binary for x86_64 or aarch64")),
        ] {
            assert_eq!(Program::of(&head), expected, "{}", String::from_utf8_lossy(&head));
        }
        // One that was cut off, wherever it was, is none of ours and no reason to panic.
        let whole = program(183, &[(4, ours)]);
        for length in 0..whole.len() - 4 {
            assert!(Program::of(&whole[..length]).is_err(), "{length} bytes");
        }
    }
}
