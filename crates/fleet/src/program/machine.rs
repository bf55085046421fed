/// The processor that a program is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machine {
    /// 64-bit x86.
    Amd64,
    /// 64-bit ARM.
    Arm64,
    /// 32-bit ARM.
    Arm,
    /// Another one, by its number in ELF headers.
    Other(u16),
}

impl Machine {
    /// What an ELF program is for.
    pub fn of(program: &[u8]) -> Option<Self> {
        let number = program.get(18..20).filter(|_| program.starts_with(b"\x7fELF"))?;
        Some(match u16::from_le_bytes([number[0], number[1]]) {
            62 => Machine::Amd64,
            183 => Machine::Arm64,
            40 => Machine::Arm,
            other => Machine::Other(other),
        })
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Machine::Amd64 => f.write_str("x86_64"),
            Machine::Arm64 => f.write_str("aarch64"),
            Machine::Arm => f.write_str("32-bit ARM"),
            Machine::Other(number) => write!(f, "a processor with the ELF number {number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_say_for_which_machine_they_are() {
        let own = std::fs::read("/proc/self/exe").expect("read");
        assert!(matches!(Machine::of(&own), Some(Machine::Amd64 | Machine::Arm64)));
        assert_eq!(Machine::of(b"#!/bin/sh\n this is a script"), None);
    }
}
