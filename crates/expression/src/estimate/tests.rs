use super::*;
use crate::{Language, compile, compile_as};

/// Lists of 10 texts of 5 characters, maps of 10, texts of 20.
struct Few;

impl Sizes for Few {
    fn most(&self, path: &[String]) -> Option<u64> {
        let names: Vec<&str> = path.iter().map(String::as_str).collect();
        match names[..] {
            ["self", "list" | "map" | "deep"] | ["self", "deep", "@items"] => Some(10),
            ["self", "list", "@items"] | ["self", "map", "@keys" | "@values"] => Some(5),
            ["self", "text"] => Some(20),
            ["self", "x" | "y"] => Some(0),
            _ => None,
        }
    }
}

fn cost(source: &str) -> u64 {
    let kind = Kind::object([
        ("x", Kind::Int),
        ("y", Kind::Int),
        ("text", Kind::Text),
        ("list", Kind::list(Kind::Text)),
        ("map", Kind::map(Kind::Text)),
        ("deep", Kind::list(Kind::list(Kind::Int))),
    ]);
    let program = compile_as(source, &[("self", kind)], Language::DEVICE)
        .unwrap_or_else(|e| panic!("{source}: {e}"));
    estimate(&program, &Few)
}

#[test]
fn costs_are_upstreams() {
    for (source, expected) in [
        // A name is a step, a selection is one, a literal none.
        ("true", 0),
        ("self.x == self.y", 4),
        ("self.x > 1", 3),
        ("has(self.x)", 1),
        ("self.text == 'abc'", 2 + 1),
        ("self.text.startsWith('abcdefghijkl')", 2 + 2),
        // (20 + 1) / 10 rounded up, times 4 / 4.
        ("self.text.matches('abcd')", 2 + 3),
        ("self.text.contains('abc')", 2 + 2),
        ("size(self.list) > 1", 2 + 1 + 1),
        ("'a' in self.list", 2 + 10),
        ("'a' in self.map", 2 + 1),
        // A turn: the condition and the accumulator, the accumulator again, the item, the text.
        ("self.list.all(e, e == 'abc')", 2 + 10 * (2 + 1 + 1 + 1) + 1),
        ("self.map.all(k, k == 'abc')", 2 + 10 * (2 + 1 + 1 + 1) + 1),
        ("self.map.all(k, v, k == v)", 2 + 10 * (2 + 1 + 2 + 1) + 1),
        ("self.list.all(i, v, i >= 0)", 2 + 10 * (2 + 1 + 1 + 1) + 1),
        ("[1, 2] == [1, 2]", 10 + 10 + 1),
        ("self.text + self.text == 'x'", 4 + 4 + 1),
        ("self.x > 1 && self.y > 1", 6),
        ("self.x > 1 ? self.text == 'a' : true", 3 + 3),
        ("cel.bind(t, self.text, t == t)", 10 + 2 + 2 + 2),
        ("self.list.isSorted()", 2 + 10 * 2),
        ("self.list.sort()", 2 + 210 + 11),
        ("self.deep[0].sort()", 3 + 200 + 11),
        ("self.list.distinct()", 2 + 200 + 11),
        ("self.list.reverse()", 2 + 10 + 11),
        ("self.list.slice(1, 3)", 2 + 2 + 11),
        ("self.deep.flatten()", 2 + 10 + 11),
        ("lists.range(5)", 5 + 11),
        ("sets.contains([], [])", 21),
        ("dyn(self.list).sum() == 1", 3 + 1 + 1),
        ("self.list.sortBy(e, e)", 10 + 2 + 1 + (1 + 10 + 10 * 13 + 1) + 210 + 11),
        ("strings.quote(self.text) == 'a'", 2 + 2 + 1),
        ("self.text.split(',', 2).all(x, true)", 2 + 4 + 2 * 3 + 1),
        ("matches(self.text, 'abcd')", 2 + 1),
        (
            "self.list.map(e, e).exists(e, e == 'a')",
            2 + 10 + 10 * (1 + 1 + 10 + 1) + 1 + 10 * (3 + 1 + 1 + 1) + 1,
        ),
    ] {
        assert_eq!(cost(source), expected, "{source}");
    }
}

#[test]
fn what_has_no_bound_costs_without_bound() {
    assert_eq!(
        cost("self.deep.all(a, a.all(b, b > 0))"),
        2 + 10 * (2 + 1 + 1 + 1 + 10 * (2 + 1 + 2)) + 1
    );
    let program = compile("x.all(e, e == 'a')", &[("x", Kind::list(Kind::Text))]).unwrap();
    assert_eq!(estimate(&program, &Few), u64::MAX);
    let sorted = compile("x.sort() == x", &[("x", Kind::list(Kind::Int))]).unwrap();
    assert_eq!(estimate(&sorted, &Few), u64::MAX);
}
