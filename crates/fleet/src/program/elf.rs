//! As much of ELF (System V ABI, 64 bits, little-endian) as a program's notes need. Whatever does not fit
//! is not there: these are files that somebody named, and may be anything.

/// Segments that name another program to start it by: the system's dynamic linker.
const INTERPRETER: u32 = 3;
/// Segments of notes.
pub(super) const NOTE: u32 = 4;

/// Where the header says where the segments' table is, how large an entry, and how many.
const TABLE_AT: usize = 32;
const ENTRY_BYTES_AT: usize = 54;
const ENTRIES_AT: usize = 56;
/// Where an entry says where its content is, and how much.
const CONTENT_AT: usize = 8;
const CONTENT_BYTES_AT: usize = 32;
/// Three numbers stand before a note's name: the name's length, the text's, and the kind.
const NOTE_HEADER_BYTES: usize = 12;

/// The beginning of a program.
pub(super) struct Head<'a>(pub &'a [u8]);

impl<'a> Head<'a> {
    /// Whether it is started by a dynamic linker.
    pub(super) fn is_interpreted(&self) -> bool {
        self.segments().any(|(kind, _)| kind == INTERPRETER)
    }

    /// The text of a note, without what it was filled up with.
    pub(super) fn note(&self, owner: &[u8], kind: u32) -> Option<&'a [u8]> {
        let notes = self.segments().filter(|(kind, _)| *kind == NOTE);
        let mut notes = notes.flat_map(|(_, content)| Notes(content));
        notes.find(|note| note.owner == owner && note.kind == kind).map(|note| note.text)
    }

    /// Kinds of segments and their contents.
    fn segments(&self) -> impl Iterator<Item = (u32, &'a [u8])> {
        let bytes = self.0;
        let short = |at| number(bytes, at, 2).unwrap_or_default();
        let (size, count) = (short(ENTRY_BYTES_AT), short(ENTRIES_AT));
        let table = number(bytes, TABLE_AT, 8).unwrap_or(usize::MAX);
        (0..count).filter_map(move |index| {
            let entry = bytes.get(table.checked_add(index * size)?..)?;
            let kind = number(entry, 0, 4)?;
            let at = number(entry, CONTENT_AT, 8)?;
            let end = at.checked_add(number(entry, CONTENT_BYTES_AT, 8)?)?;
            Some((u32::try_from(kind).ok()?, bytes.get(at..end).unwrap_or_default()))
        })
    }
}

/// One note.
struct Note<'a> {
    owner: &'a [u8],
    kind: u32,
    text: &'a [u8],
}

/// The notes of a segment, one behind the other.
struct Notes<'a>(&'a [u8]);

impl<'a> Iterator for Notes<'a> {
    type Item = Note<'a>;

    fn next(&mut self) -> Option<Note<'a>> {
        let (owner, text) = (number(self.0, 0, 4)?, number(self.0, 4, 4)?);
        let kind = u32::try_from(number(self.0, 8, 4)?).ok()?;
        let text_at = NOTE_HEADER_BYTES + owner.next_multiple_of(4);
        let note = Note {
            owner: self.0.get(NOTE_HEADER_BYTES..NOTE_HEADER_BYTES + owner)?,
            kind,
            text: self.0.get(text_at..text_at + text)?,
        };
        self.0 = self.0.get(text_at + text.next_multiple_of(4)..).unwrap_or_default();
        Some(note)
    }
}

/// A number of so many bytes, where there are so many.
fn number(bytes: &[u8], at: usize, width: usize) -> Option<usize> {
    let bytes = bytes.get(at..at.checked_add(width)?)?;
    let number = bytes.iter().rev().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
    usize::try_from(number).ok()
}
