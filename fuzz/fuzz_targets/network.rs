//! All fuzzers as one binary, so that it is built once: the first byte of the input picks the
//! parser, a letter that seeds and findings are read by.
//!
//! Modules of crates that keep their parsers to themselves are compiled in as they are.

#![no_main]
#![allow(dead_code, reason = "modules that are compiled in have more than their parsers")]

mod objects;
mod seeds;
mod texts;
mod wire;

use libfuzzer_sys::fuzz_target;
use std::cell::Cell;

/// Lists the parsers by their letters.
const TARGETS: [(u8, fn(&[u8])); 19] = [
    (b'A', texts::accept),
    (b'C', texts::continuation),
    (b'E', texts::expression),
    (b'F', texts::field_selector),
    (b'J', texts::token),
    (b'L', texts::label_selector),
    (b'O', texts::issuer),
    (b'Q', texts::quantity),
    (b'a', objects::apply),
    (b'b', objects::body),
    (b'd', objects::definition),
    (b'j', objects::json_patch),
    (b'm', objects::merge_patch),
    (b'o', objects::update),
    (b'p', objects::protobuf),
    (b's', objects::strategic),
    (b'n', wire::snapshot),
    (b'w', wire::websocket),
    (b'y', wire::spdy),
];

thread_local! {
    /// Whether the code that runs catches panics itself.
    static CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// Runs code that catches the panics of a library itself.
fn caught<T>(run: impl FnOnce() -> T) -> T {
    CAUGHT.set(true);
    let done = run();
    CAUGHT.set(false);
    done
}

/// Ends the process at a panic that nobody is there to catch.
fn hook() {
    let main = std::thread::current().id();
    std::panic::set_hook(Box::new(move |panic| {
        // Expressions are compiled in a thread of their own, whose panics are an error to the caller.
        if std::thread::current().id() == main && !CAUGHT.get() {
            eprintln!("{panic}");
            std::process::abort();
        }
    }));
}

fuzz_target!(
    init: {
        hook();
        if let Some(folder) = std::env::var_os("CORACLE_SEEDS") {
            seeds::write(folder.as_ref());
        }
    },
    |data: &[u8]| {
        let Some((letter, data)) = data.split_first() else { return };
        if let Some((_, run)) = TARGETS.iter().find(|(target, _)| target == letter) {
            run(data);
        }
    }
);
