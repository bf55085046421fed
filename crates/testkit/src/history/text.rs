//! Histories as text, for tests: a line a call, a list or a watch.
//!
//! ```text
//! a create 1     0..10  => done@5
//! a swap 5 2    11..20  => unknown
//! a delete 5    11..20  => done
//! a read        21..22  => 2@6
//! look 2@6
//! list s1 25 6: a=2@6
//! watch s1 0: +5 a 1, ~6 a 2, *7, -9 a 2
//! ```

use super::record::{Call, Change, Event, History, Listing, Operation, Outcome, Segment, Stored};

/// Reads the text.
pub fn parse(text: &str) -> History {
    let mut history = History::default();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        match line.split_once(' ') {
            Some(("watch", rest)) => history.segments.push(watch(rest)),
            Some(("look", rest)) => history.looks.push(stored(rest)),
            Some(("list", rest)) => history.listings.push(list(rest)),
            _ => history.operations.push(operation(line, history.operations.len())),
        }
    }
    history
}

fn number(text: &str) -> u64 {
    text.trim().parse().unwrap_or_else(|_| panic!("{text:?} is no number"))
}

fn stored(text: &str) -> Stored {
    let (value, revision) = text.split_once('@').expect("value@revision");
    Stored { revision: number(revision), value: number(value) }
}

fn operation(line: &str, client: usize) -> Operation {
    let (call, outcome) = line.split_once("=>").expect("call => outcome");
    let words: Vec<&str> = call.split_whitespace().collect();
    let (began, ended) = words.last().expect("words").split_once("..").expect("began..ended");
    let call = match words[1] {
        "create" => Call::Create(number(words[2])),
        "swap" => Call::Swap { expect: number(words[2]), value: number(words[3]) },
        "delete" => Call::Delete { expect: number(words[2]) },
        "read" => Call::Read,
        other => panic!("{other:?} is no call"),
    };
    let outcome = match outcome.trim() {
        "done" => Outcome::Done(None),
        "refused" => Outcome::Refused,
        "rejected" => Outcome::Rejected,
        "unknown" => Outcome::Unknown,
        "nothing" => Outcome::Saw(None),
        other => match other.strip_prefix("done@") {
            Some(revision) => Outcome::Done(Some(number(revision))),
            None => Outcome::Saw(Some(stored(other))),
        },
    };
    let key = words[0].to_owned();
    Operation { client, key, call, began: number(began), ended: number(ended), outcome }
}

fn list(rest: &str) -> Listing {
    let (head, objects) = rest.split_once(':').expect("server time revision: objects");
    let head: Vec<&str> = head.split_whitespace().collect();
    let objects = objects.split(',').filter(|object| !object.trim().is_empty()).map(|object| {
        let (key, state) = object.trim().split_once('=').expect("key=value@revision");
        (key.to_owned(), stored(state))
    });
    Listing {
        server: head[0].to_owned(),
        began: number(head[1]),
        revision: number(head[2]),
        fresh: true,
        objects: objects.collect(),
    }
}

fn watch(rest: &str) -> Segment {
    let (head, events) = rest.split_once(':').expect("server after: events");
    let (server, after) = head.split_once(' ').expect("server after");
    let mut segment =
        Segment { server: server.to_owned(), after: number(after), ..Segment::default() };
    for event in events.split(',').map(str::trim).filter(|event| !event.is_empty()) {
        let (kind, rest) = event.split_at(1);
        let words: Vec<&str> = rest.split_whitespace().collect();
        let change = match kind {
            "+" => Change::Added,
            "~" => Change::Modified,
            "-" => Change::Deleted,
            _ => {
                segment.bookmarks.push((number(rest), segment.events.len()));
                continue;
            }
        };
        let (key, value) = (words[1].to_owned(), number(words[2]));
        segment.events.push(Event { revision: number(words[0]), change, key, value });
    }
    segment
}
