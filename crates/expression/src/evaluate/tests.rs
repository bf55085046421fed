use serde_json::{Value as Json, json};

use crate::budget::{Budget, CALL_LIMIT};
use crate::kind::{Kind, ListType};
use crate::program::{EvaluateError, compile};

/// What a rule comes to for this object, and what it costs.
fn run(source: &str, kind: Kind, value: &Json) -> (Result<Json, EvaluateError>, u64) {
    let program = compile(source, &[("self", kind)]).unwrap_or_else(|e| panic!("{source}: {e}"));
    let mut budget = Budget::new(u64::MAX);
    let found = program.evaluate_within(&[("self", value)], &mut budget);
    (found, u64::MAX - budget.left())
}

/// Rules of one kind of object that hold, and what upstream's tests say that they cost.
fn costs(kind: Kind, value: Json, rules: &[(&str, u64)]) {
    for (source, expected) in rules {
        let (found, cost) = run(source, kind.clone(), &value);
        assert_eq!(found, Ok(json!(true)), "{source}");
        assert_eq!(cost, *expected, "{source}");
    }
}

fn vals(kinds: &[Kind]) -> Kind {
    let names = ["val1", "val2", "val3", "val4", "val5", "val6"];
    Kind::object(names.into_iter().zip(kinds.iter().cloned()))
}

#[test]
fn scalars_cost_as_upstream() {
    costs(
        vals(&[Kind::Int, Kind::Int, Kind::Double, Kind::Bool]),
        json!({"val1": 5, "val2": 5, "val3": 10, "val4": true}),
        &[
            ("self.val1 == self.val2", 5),
            ("type(self.val1) == int", 4),
            ("self.val1 + 1 == 5 + 1", 5),
            ("double(self.val1) < self.val3", 6),
            ("double(5) < 10.0", 1),
            ("double(self.val1) < 10.0", 4),
            ("self.val4 != false", 3),
        ],
    );
    let text = "Rook takes 👑";
    costs(
        vals(&[Kind::Text, Kind::Text]),
        json!({"val1": text, "val2": text}),
        &[
            ("self.val1.startsWith('Rook')", 4),
            ("!self.val1.startsWith('knight')", 5),
            ("self.val1.matches('^[^0-9]*$')", 8),
            ("!self.val1.matches('^[0-9]*$')", 7),
            ("type(self.val1) == string", 4),
            ("size(self.val1) == 12", 4),
            ("self.val1.charAt(3) == 'k'", 4),
            ("self.val1.indexOf('o') == 1", 4),
            ("self.val1.indexOf('o', 2) == 2", 4),
            ("self.val1.replace(' ', 'x') == 'Rookxtakesx👑'", 7),
            ("self.val1.replace(' ', 'x', 1) == 'Rookxtakes 👑'", 7),
            ("self.val1.split(' ') == ['Rook', 'takes', '👑']", 6),
            ("self.val1.split(' ', 2) == ['Rook', 'takes 👑']", 6),
            ("self.val1.substring(5) == 'takes 👑'", 5),
            ("self.val1.substring(4, 10).trim() == 'takes'", 6),
            ("self.val1.upperAscii() == 'ROOK TAKES 👑'", 6),
        ],
    );
    costs(
        vals(&[Kind::Duration, Kind::Timestamp, Kind::Bytes, Kind::Text]),
        json!({"val1": "1h2m3s4ms", "val2": "2011-08-18T19:03:37.010000000+01:00", "val3": "QUI=",
            "val4": "2011-08-18T00:00:00Z"}),
        &[
            ("self.val1 == duration('1h2m') + duration('3s4ms')", 4),
            ("self.val1.getHours() == 1", 4),
            ("type(self.val1) == google.protobuf.Duration", 4),
            ("type(self.val2) == google.protobuf.Timestamp", 4),
            (
                "self.val2 == timestamp('2011-08-18T00:00:00.000+01:00') + duration('19h3m37s10ms')",
                4,
            ),
            ("self.val3 == b'AB'", 3),
            ("size(self.val3) == 2", 4),
        ],
    );
}

#[test]
fn lists_and_maps_cost_as_upstream() {
    costs(
        vals(&[Kind::list(Kind::Int), Kind::list(Kind::Int), Kind::map(Kind::Text)]),
        json!({"val1": [1, 2, 3], "val2": [1, 2, 3], "val3": {"k1": "a", "k2": "b"}}),
        &[
            ("1 in self.val1", 5),
            ("self.val2[0] in self.val1", 8),
            ("!(0 in self.val1)", 6),
            ("self.val1 + self.val2 == [1, 2, 3, 1, 2, 3]", 6),
            ("self.val1 + [4, 5] == [1, 2, 3, 4, 5]", 4),
            ("'k1' in self.val3", 3),
            ("!('k3' in self.val3)", 4),
            ("self.val3 == {'k1': 'a', 'k2': 'b'}", 3),
            ("'k1' in ['k1', 'k2']", 0),
            ("self.val1 == [self.val1[0], self.val1[1], 3]", 2 + 10 + 3 + 3 + 1),
        ],
    );
    let many = Kind::object([("array", Kind::list(Kind::Int))]);
    costs(
        many,
        json!({"array": [1, 1, 2, 2, 3, 3, 4, 5]}),
        &[
            ("2 in self.array", 10),
            ("self.array.all(e, e > 0)", 43),
            ("self.array.exists(e, e > 2)", 36),
            ("self.array.exists_one(e, e > 4)", 22),
            ("!self.array.all(e, e < 2)", 21),
            ("!self.array.exists(e, e < 0)", 52),
            ("!self.array.exists_one(e, e == 2)", 25),
            ("size(self.array.filter(e, e%2 == 0)) == 3", 68),
            ("self.array.map(e, e * 20).filter(e, e > 50).exists(e, e == 60)", 194),
            ("size(self.array) == 8", 4),
        ],
    );
    costs(
        Kind::object([("val", Kind::map(Kind::Int))]),
        json!({"val": {"b": 1, "d": 2}}),
        &[
            ("!has(self.val.a)", 3),
            ("has(self.val.b)", 2),
            ("self.val.all(k, self.val[k] > 0)", 17),
            ("self.val.exists_one(k, self.val[k] == 2)", 14),
            ("!self.val.exists_one(k, self.val[k] > 0)", 17),
            ("size(self.val.filter(k, self.val[k] > 1)) == 1", 26),
        ],
    );
}

/// Lists of which a schema says what tells their items apart.
#[test]
fn lists_with_identities_are_upstreams() {
    let of = |kind: Kind, list_type: ListType| Kind::List(kind.into(), list_type);
    let set = of(Kind::Text, ListType::Set);
    costs(
        vals(&[set.clone(), set]),
        json!({"val1": ["a", "b", "c"], "val2": ["a", "c", "b"]}),
        &[
            ("self.val1 == ['c', 'b', 'a']", 3),
            ("self.val1 == self.val2", 5),
            ("!(self.val1 != self.val2)", 6),
            ("self.val1 + self.val2 == ['a', 'b', 'c']", 6),
            ("self.val1 + ['c', 'd'] == ['a', 'b', 'c', 'd']", 4),
            ("['c', 'b', 'a'] != self.val1", 3),
        ],
    );
    let item = Kind::object([("k", Kind::Text), ("v", Kind::Text)]);
    let keyed = of(item, ListType::Map(["k".to_owned()].into()));
    let pair = |k: &str, v: &str| json!({"k": k, "v": v});
    costs(
        Kind::object([("objs", Kind::list(keyed))]),
        json!({"objs": [[pair("a", "1"), pair("b", "2")], [pair("b", "2"), pair("a", "1")],
            [pair("b", "3"), pair("a", "1")], [pair("c", "4")]]}),
        &[
            ("self.objs[0] == self.objs[1]", 7),
            // What stands to the right counts.
            ("self.objs[0] + self.objs[2] == self.objs[2]", 11),
            ("self.objs[2] + self.objs[0] == self.objs[0]", 11),
            ("self.objs[0] == [self.objs[0][1], self.objs[0][0]]", 22),
            ("self.objs[2] + [self.objs[0][0], self.objs[0][1]] == self.objs[0]", 26),
            ("size(self.objs[0] + [self.objs[3][0]]) == 3", 20),
            ("self.objs != [self.objs[2]]", 2 + 10 + 3 + 1),
            (
                "self.objs == [self.objs[1], self.objs[0], self.objs[2], self.objs[3]]",
                2 + 10 + 12 + 1,
            ),
        ],
    );
}

#[test]
fn errors_of_parts_cost_as_upstream() {
    let item = Kind::object([("k", Kind::Text), ("v", Kind::Text), ("v2", Kind::Text)]);
    costs(
        Kind::object([("listMap", Kind::list(item))]),
        json!({"listMap": [{"k": "a1", "v": "b1"}, {"k": "a2", "v": "b2"},
            {"k": "a3", "v": "b3", "v2": "z"}]}),
        &[
            ("has(self.listMap[0].v)", 3),
            ("self.listMap.all(m, m.k.startsWith('a'))", 21),
            ("self.listMap.all(m, !has(m.v2) || m.v2 == 'z')", 21),
            ("self.listMap.exists(m, m.k.endsWith('1'))", 13),
            ("self.listMap.exists_one(m, m.k == 'a3')", 15),
            ("!self.listMap.exists(m, m.v == 'x')", 25),
            ("size(self.listMap.filter(m, m.k == 'a1')) == 1", 27),
            ("self.listMap.map(m, m.v).exists(v, v == 'b1')", 55),
            ("self.listMap.exists(m, has(m.v2) && m.v2 == 'z')", 21),
            ("!self.listMap.all(m, has(m.v2) && m.v2 != 'z')", 10),
            ("self.listMap.filter(m, has(m.v2) && m.v2 == 'z').size() == 1", 24),
            ("self.listMap.map(m, has(m.v2) && m.v2 == 'z', m.v2).size() == 1", 25),
            // What has no value for one is made up for by another.
            ("self.listMap.exists(m, m.v2 == 'z')", 24),
            ("!self.listMap.all(m, m.v2 != 'z')", 22),
        ],
    );
    let value = json!({"something": "25%", "min": "50%", "current": 5, "available": 10});
    costs(
        Kind::object([
            ("something", Kind::Any),
            ("min", Kind::Any),
            ("current", Kind::Int),
            ("available", Kind::Int),
        ]),
        value,
        &[
            ("type(self.something) == int ? self.something == 1 : self.something == '25%'", 7),
            ("type(self.something) == string && self.something == '25%'", 7),
            ("self.something != 1", 3),
            ("self.something == 1 || self.something == '25%'", 6),
            ("self.something == '25%' || self.something == 1", 3),
            (r"type(self.min) == string && self.min.matches(r'(\d+(\.\d+)?%)')", 10),
            (
                "type(self.min) == int ? self.current <= self.min : double(self.current) / double(self.available) >= double(self.min.replace('%', '')) / 100.0",
                17,
            ),
        ],
    );
}

#[test]
fn libraries_cost_as_upstream() {
    costs(
        Kind::Any,
        json!({}),
        &[
            ("[1, 2, 3, 4, 5].sum() == 15", 6),
            ("['012345678901', '012345678901'].isSorted()", 2),
            ("url('https://kubernetes.io/').getScheme() == 'https'", 5),
            ("ip('192.168.0.1').family() == 4", 4),
            ("ip('192.168.0.1') == ip('192.168.0.1')", 5),
            ("ip.isCanonical('192.168.0.1')", 3),
            ("cidr('192.168.0.0/16').prefixLength() == 16", 4),
            ("cidr('192.168.0.0/16').containsCIDR(cidr('192.168.0.0/16'))", 2 + 5),
            ("!cidr('192.168.0.0/16').containsIP(ip('192.0.0.1'))", 2 + 2 + 1),
            ("!cidr('192.168.0.0/16').containsIP('192.169.0.1')", 2 + 3 + 1),
            ("!format.dns1123Label().validate('my-label').hasValue()", 1 + 8 + 1 + 1),
            ("format.named('uuid').hasValue()", 2),
            ("quantity('1.5').isGreaterThan(quantity('1'))", 3),
            ("semver('1.2.3').major() == 1", 3),
            ("sets.contains([1, 2, 3], [2, 3])", 7),
            ("sets.equivalent([1, 1], [1])", 5),
            ("['a', 'b'].join('-') == 'a-b'", 2),
            ("[3, 1, 2].sort() == [1, 2, 3]", 18 + 11 + 1),
            ("['b', 'a'].sort() == ['a', 'b']", 8 + 11 + 1),
            ("dyn([2, 1]).sort() == [1, 2]", 1 + 1),
            (
                "[{'k': 2}, {'k': 1}].sortBy(e, e.k) == [{'k': 1}, {'k': 2}]",
                1 + (1 + 2 * 14 + 1) + 8 + 11 + 1,
            ),
            ("[-3, 1, -5].map(e, e * 2).sortBy(e, -e)[0] == 2", 43 + 44 + 1 + 29 + 3),
            ("[1, 2, 2].distinct() == [1, 2]", 18 + 11 + 1),
            ("lists.range(4) == [0, 1, 2, 3]", 4 + 11 + 1),
            ("[1, 2, 3, 4].slice(1, 3) == [2, 3]", 2 + 11 + 1),
            ("[5, 1].reverse() == [1, 5]", 2 + 11 + 1),
            ("[[1], [2]].flatten() == [1, 2]", 2 + 11 + 1),
            ("[[[1]]].flatten(2) == [1]", 2 + 11 + 1),
            ("[optional.of(1), optional.none()].unwrapOpt() == [1]", 2 + 10 + 1 + 1),
            ("optional.unwrap([optional.of('a')]) == ['a']", 1 + 10 + 1 + 1),
            ("matches('abc', '^[a-z]*$')", 1),
            ("{'a': 1}.?a.orValue(2) == 1", 3),
            ("optional.none().orValue(2) == 2", 2),
            ("[1, 2].map(x, x)[0] == 1", 2 * 13 + 1 + 2 + 1),
            ("{'a': 1}.transformMap(k, v, v + 1) == {'a': 2}", 1 + 1 + 2 + 1 + 1 + 1),
        ],
    );
}

#[test]
fn what_takes_long_is_stopped() {
    let many: Vec<u64> = (0..1000).collect();
    let value = json!({"many": many, "few": [1, 2]});
    let every = "self.many.all(x, self.many.all(y, x + y >= 0))";
    let (found, cost) = run(every, Kind::Any, &value);
    assert_eq!(found, Err(EvaluateError::Cost));
    assert!((CALL_LIMIT..CALL_LIMIT + 100).contains(&cost), "{cost}");
    // An error does not hide that it took too long, and neither does what makes up for errors.
    let (found, _) = run(&format!("{every} || true"), Kind::Any, &value);
    assert_eq!(found, Err(EvaluateError::Cost));
    let (found, cost) = run("self.few.all(x, self.few.all(y, x + y >= 0))", Kind::Any, &value);
    assert_eq!((found, cost), (Ok(json!(true)), 2 + 2 * (2 + 1 + (2 + 2 * (2 + 1 + 4) + 1)) + 1));
    // Several share a budget, and once it is spent nothing has a value any more.
    let program = compile("self.few.size() == 2", &[("self", Kind::Any)]).unwrap();
    let mut budget = Budget::new(9);
    let mut again = || program.evaluate_within(&[("self", &value)], &mut budget);
    assert_eq!(
        [again(), again(), again(), again()].map(|one| one.is_ok()),
        [true, true, false, false]
    );
    assert_eq!(again(), Err(EvaluateError::Budget));
    let free = compile("true", &[]).unwrap();
    assert_eq!(free.evaluate_within(&[], &mut budget), Err(EvaluateError::Budget));
}
