//! Says in the binary's own head what it is, so that `up` and `image prepare` can tell a binary for
//! another processor from any other program without running it (`fleet::program`).

use fleet::program::{NOTE_KIND, NOTE_OWNER};

/// What it says, with the NUL that ends a note's text.
const ABOUT: &str = concat!(
    r#"{"type":"coracle","name":"coracle","version":""#,
    env!("CARGO_PKG_VERSION"),
    "\"}\0"
);
const ABOUT_BYTES: usize = ABOUT.len();
/// Notes are filled up to numbers of four bytes.
const FILLED_BYTES: usize = ABOUT_BYTES.next_multiple_of(4);

/// A note as ELF has it.
#[repr(C, align(4))]
struct Note {
    owner_bytes: u32,
    about_bytes: u32,
    kind: u32,
    owner: [u8; NOTE_OWNER.len()],
    about: [u8; FILLED_BYTES],
}

// Linkers keep notes, though nothing refers to them.
// SAFETY: nothing else is in this section, which holds notes only, and this is a whole one.
#[used]
#[unsafe(link_section = ".note.package")]
static NOTE: Note = Note {
    owner_bytes: NOTE_OWNER.len() as u32,
    about_bytes: ABOUT_BYTES as u32,
    kind: NOTE_KIND,
    owner: NOTE_OWNER,
    about: filled(),
};

const fn filled() -> [u8; FILLED_BYTES] {
    let (mut filled, mut at) = ([0; FILLED_BYTES], 0);
    while at < ABOUT_BYTES {
        filled[at] = ABOUT.as_bytes()[at];
        at += 1;
    }
    filled
}

#[cfg(test)]
mod tests {
    use fleet::program::Program;

    #[test]
    fn this_program_is_known_for_what_it_is() {
        let own = std::env::current_exe().expect("a path");
        let program = Program::read(&own).expect("it is Coracle, of this release");
        assert_eq!(program.machine.to_string(), std::env::consts::ARCH);
    }
}
