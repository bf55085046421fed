//! Filters of system calls (seccomp).
//!
//! libcontainer's own support is libseccomp, a C library; what it would do is made here: the
//! agent's side turns a profile into the kernel's program and puts it into the container's folder,
//! and whatever process is made in the container loads it as the last thing before its program.

mod abi;
mod default;
mod file;
mod profile;
mod program;

use std::path::Path;
use std::{fs, io};

use crate::{Error, Result, Seccomp};
use program::Instruction;

/// The filter in a container's folder.
pub const FILTER_FILE: &str = "seccomp.bpf";
/// The flag that profiles without flags are loaded with, as runc does: the processor may guess
/// on, which old kernels forbid to filtered programs at a high price.
const SPEC_ALLOW: u32 = 4;
const INSTRUCTION_BYTES: usize = 8;

/// A program that decides about system calls, ready to be loaded.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter {
    flags: u32,
    program: Vec<Instruction>,
}

impl Filter {
    /// The filter of a container with these capabilities.
    pub fn of(wanted: &Seccomp, capabilities: &[&str]) -> Result<Option<Self>> {
        let (name, read) = match wanted {
            Seccomp::Unconfined => return Ok(None),
            Seccomp::RuntimeDefault => ("runtime/default", Ok(default::profile(capabilities))),
            Seccomp::Localhost(path) => {
                let name = path.to_str().unwrap_or_default();
                let body = fs::read(path).map_err(|e| format!("open {name}: {}", reason(&e)));
                (name, body.and_then(|body| file::parse(&body, capabilities)))
            }
        };
        let made = read.and_then(|profile| {
            let flags = profile.flags.unwrap_or(SPEC_ALLOW);
            Ok(Self { flags, program: program::compile(&profile)? })
        });
        let failed = |why| Error::Invalid(format!("cannot load seccomp profile {name:?}: {why}"));
        made.map(Some).map_err(failed)
    }

    /// Writes it into a container's folder.
    pub fn save(&self, folder: &Path) -> io::Result<()> {
        let mut body = self.flags.to_le_bytes().to_vec();
        for Instruction { code, yes, no, value } in &self.program {
            body.extend(code.to_le_bytes());
            body.extend([*yes, *no]);
            body.extend(value.to_le_bytes());
        }
        fs::write(folder.join(FILTER_FILE), body)
    }

    /// The filter in a container's folder, if it has one.
    pub fn find(folder: &Path) -> io::Result<Option<Self>> {
        let body = match fs::read(folder.join(FILTER_FILE)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read?,
        };
        let torn = || io::Error::new(io::ErrorKind::InvalidData, "it is torn");
        let (flags, rest) = body.split_first_chunk().ok_or_else(torn)?;
        let (parts, []) = rest.as_chunks::<INSTRUCTION_BYTES>() else { return Err(torn()) };
        let one = |[a, b, yes, no, value @ ..]: &[u8; INSTRUCTION_BYTES]| Instruction {
            code: u16::from_le_bytes([*a, *b]),
            yes: *yes,
            no: *no,
            value: u32::from_le_bytes(*value),
        };
        let flags = u32::from_le_bytes(*flags);
        Ok(Some(Self { flags, program: parts.iter().map(one).collect() }))
    }

    /// Loads it into the calling thread. Either that may not gain rights any more, or it must
    /// have the capability to administer the system.
    pub fn load(&self) -> io::Result<()> {
        let one =
            |i: &Instruction| libc::sock_filter { code: i.code, jt: i.yes, jf: i.no, k: i.value };
        let mut filter: Vec<libc::sock_filter> = self.program.iter().map(one).collect();
        let program = libc::sock_fprog {
            len: u16::try_from(filter.len()).map_err(io::Error::other)?,
            filter: filter.as_mut_ptr(),
        };
        let mode = libc::SECCOMP_SET_MODE_FILTER;
        // SAFETY: the kernel copies the program, whose pointer and length are those of a vector
        // that lives until after the call. No safe wrapper is among the crates used here.
        match unsafe { libc::syscall(libc::SYS_seccomp, mode, self.flags, &raw const program) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// The system's words alone, as other runtimes show them.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_kept_in_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Filter::find(folder.path()).unwrap(), None);
        let filter = Filter::of(&Seccomp::RuntimeDefault, &["CAP_CHOWN"]).unwrap().unwrap();
        filter.save(folder.path()).unwrap();
        assert_eq!(Filter::find(folder.path()).unwrap(), Some(filter));
        let path = folder.path().join(FILTER_FILE);
        let body = fs::read(&path).unwrap();
        fs::write(&path, &body[..body.len() - 1]).unwrap();
        assert!(Filter::find(folder.path()).is_err());
    }

    #[test]
    fn a_profile_that_cannot_be_had() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.json");
        let message = || {
            let error = Filter::of(&Seccomp::Localhost(path.clone()), &[]).unwrap_err();
            error.to_string().replace(path.to_str().unwrap(), "P")
        };
        assert_eq!(
            message(),
            "cannot load seccomp profile \"P\": open P: no such file or directory"
        );
        fs::write(&path, r#"{"defaultAction": "SCMP_ACT_OOPS"}"#).unwrap();
        assert_eq!(
            message(),
            "cannot load seccomp profile \"P\": action \"SCMP_ACT_OOPS\" is not known"
        );
        assert_eq!(Filter::of(&Seccomp::Unconfined, &[]).unwrap(), None);
    }
}
