/// What a 64-bit little-endian ELF program says of how it wants to be loaded.
#[derive(Debug, PartialEq, Eq)]
pub struct Program {
    segments: Vec<Segment>,
}

/// One program header.
#[derive(Debug, PartialEq, Eq)]
struct Segment {
    kind: u64,
    offset: u64,
    address: u64,
    alignment: u64,
}

const LOAD: u64 = 1;
const INTERPRETER: u64 = 3;
// Offsets in the file's head: where program headers begin, the length of one, how many there are.
const HEADERS_AT: usize = 32;
const LENGTH_AT: usize = 54;
const COUNT_AT: usize = 56;

impl Program {
    /// Reads the program headers; nothing where the file is no such program or is cut off in them.
    pub fn read(content: &[u8]) -> Option<Self> {
        let number = |at: usize, length: usize| {
            let bytes = content.get(at..at.checked_add(length)?)?;
            Some(bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
        };
        if !content.starts_with(b"\x7fELF\x02\x01") {
            return None;
        }
        let (start, each) = (number(HEADERS_AT, 8)?, number(LENGTH_AT, 2)?);
        let segments = (0..number(COUNT_AT, 2)?).map(|index| {
            let at = usize::try_from(start.checked_add(index * each)?).ok()?;
            Some(Segment {
                kind: number(at, 4)?,
                offset: number(at + 8, 8)?,
                address: number(at + 16, 8)?,
                alignment: number(at + 48, 8)?,
            })
        });
        Some(Program { segments: segments.collect::<Option<_>>()? })
    }

    /// Whether it names no interpreter, which is how it would ask for shared libraries.
    pub fn is_static(&self) -> bool {
        self.segments.iter().all(|segment| segment.kind != INTERPRETER)
    }

    /// The largest pages of a kernel that can map it.
    pub fn page_bytes(&self) -> u64 {
        let loaded = self.segments.iter().filter(|segment| segment.kind == LOAD);
        let possible = loaded.map(|segment| {
            // Address and place in the file have to be equally far into a page.
            let apart = segment.address.abs_diff(segment.offset);
            segment.alignment.min(1 << apart.trailing_zeros().min(63))
        });
        possible.min().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF file with one program header.
    fn program(kind: u8, address: u32, alignment: u32) -> Vec<u8> {
        let mut content = vec![0; 64 + 56];
        content[..6].copy_from_slice(b"\x7fELF\x02\x01");
        (content[32], content[54], content[56], content[64]) = (64, 56, 1, kind);
        content[64 + 16..64 + 20].copy_from_slice(&address.to_le_bytes());
        content[64 + 48..64 + 52].copy_from_slice(&alignment.to_le_bytes());
        content
    }

    #[test]
    fn a_program_with_an_interpreter_is_not_static() {
        let is_static = |content: &[u8]| Program::read(content).is_some_and(|p| p.is_static());
        assert!(is_static(&program(1, 0, 0)));
        assert!(!is_static(&program(3, 0, 0)));
        assert!(!is_static(&program(1, 0, 0)[..100]), "cut off");
        assert!(!is_static(&[0; 200]), "no program");
    }

    #[test]
    fn pages_may_be_as_large_as_segments_are_apart() {
        for (address, alignment, expected) in
            [(0x20_0000, 0x1_0000, 0x1_0000), (0x20_1000, 0x1_0000, 0x1000), (0, 0x1000, 0x1000)]
        {
            let read = Program::read(&program(1, address, alignment)).expect("a program");
            assert_eq!(read.page_bytes(), expected, "{address:#x} {alignment:#x}");
        }
    }
}
