//! The kinds of system calls that a processor takes, and their numbers.
//!
//! A 64-bit kernel also runs 32-bit programs, whose calls have other numbers. A filter has to
//! know all of them, or a program could go around it by making its calls in the other form.

/// Numbers by name, a column for each kind.
const NUMBERS: &str = include_str!("../../data/syscalls.txt");

/// A kind of system calls.
#[derive(Debug, PartialEq, Eq)]
pub struct Abi {
    /// Its name in profiles.
    pub name: &'static str,
    /// How the kernel names it to a filter.
    pub audit: u32,
    /// Where its numbers begin; x32 has its own range of x86_64's.
    pub base: u32,
    /// Whether arguments have 64 bits.
    pub wide: bool,
    column: usize,
}

/// What this processor takes, its own kind first.
#[cfg(target_arch = "x86_64")]
pub const NATIVE: [Abi; 3] = [
    Abi { name: "SCMP_ARCH_X86_64", audit: 0xc000_003e, base: 0, wide: true, column: 0 },
    Abi { name: "SCMP_ARCH_X32", audit: 0xc000_003e, base: 0x4000_0000, wide: true, column: 2 },
    Abi { name: "SCMP_ARCH_X86", audit: 0x4000_0003, base: 0, wide: false, column: 1 },
];
/// What this processor takes, its own kind first.
#[cfg(target_arch = "aarch64")]
pub const NATIVE: [Abi; 2] = [
    Abi { name: "SCMP_ARCH_AARCH64", audit: 0xc000_00b7, base: 0, wide: true, column: 4 },
    Abi { name: "SCMP_ARCH_ARM", audit: 0x4000_0028, base: 0, wide: false, column: 3 },
];

/// This processor as profiles in Docker's form name it in their conditions.
pub const MACHINE: &str = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };

impl Abi {
    /// All names it knows with their numbers, in the order of the names.
    pub fn numbers(&self) -> impl Iterator<Item = (&'static str, u32)> {
        let rows = NUMBERS.lines().filter(|line| !line.starts_with('#'));
        rows.filter_map(|row| {
            let mut words = row.split(' ');
            let name = words.next()?;
            let number: u32 = words.nth(self.column)?.parse().ok()?;
            Some((name, self.base + number))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_numbers_are_those_of_the_c_library() {
        let number = |name: &str| {
            let found = NATIVE[0].numbers().find(|(known, _)| *known == name);
            found.map(|(_, number)| i64::from(number))
        };
        for (name, want) in [
            ("read", libc::SYS_read),
            ("execve", libc::SYS_execve),
            ("seccomp", libc::SYS_seccomp),
            ("statx", libc::SYS_statx),
            ("clone3", libc::SYS_clone3),
            ("mount_setattr", libc::SYS_mount_setattr),
        ] {
            assert_eq!(number(name), Some(want), "{name}");
        }
        assert_eq!(number("no_such_call"), None);
    }
}
