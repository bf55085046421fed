use serde_json::json;

use super::*;

fn kind() -> Kind {
    Kind::object([
        ("x", Kind::Int),
        ("half", Kind::Double),
        ("a-b", Kind::Text),
        ("list", Kind::list(Kind::object([("n", Kind::Int)]))),
        ("map", Kind::map(Kind::Text)),
        ("until", Kind::Timestamp),
        ("wait", Kind::Duration),
    ])
}

/// The value, or the error's first line.
fn say(source: &str) -> String {
    let value = json!({
        "x": 3, "half": 1, "a-b": "t", "list": [{"n": 1}, {"n": 2}], "map": {"a.b": "c"},
        "until": "2026-01-02T03:04:05Z", "wait": "1h30m", "unknown": 1,
    });
    let compiled = compile(source, &[("self", kind()), ("old", Kind::Optional(kind().into()))]);
    let first = |text: String| text.lines().next().unwrap_or_default().to_owned();
    match compiled {
        Err(error) => first(error.to_string()),
        Ok(program) => match program.evaluate(&[("self", &value)]) {
            Ok(found) => found.to_string(),
            Err(error) => first(error.to_string()),
        },
    }
}

#[test]
fn expressions_have_values() {
    for (source, expected) in [
        ("self.x > 2 && self.x % 2 == 1", "true"),
        ("self.half == 1.0", "true"),
        ("self.a__dash__b + '!'", "\"t!\""),
        ("self.list.all(e, e.n > 0)", "true"),
        ("self.list.map(e, e.n * 2)", "[2,4]"),
        ("self.map['a.b']", "\"c\""),
        ("'a.b' in self.map", "true"),
        ("has(self.x) && !has(self.map.zz)", "true"),
        ("self.until.getFullYear()", "2026"),
        ("self.wait > duration('1h')", "true"),
        ("cel.bind(y, self.x + 1, y * y)", "16"),
        ("old.hasValue()", "false"),
        ("quantity('1Ki').isGreaterThan(quantity('1k'))", "true"),
        ("isURL('https://a/b') && url('https://a/b').getHost() == 'a'", "true"),
        ("'%d-%s'.format([1, 'a'])", "\"1-a\""),
        ("'abc'.matches('^[a-c]+$')", "true"),
        ("sets.contains([1, 2], [1])", "true"),
        ("{'a': 1, 'b': [self.x]}", "{\"a\":1,\"b\":[3]}"),
        ("math.greatest(1, 2)", "2"),
        ("self == self", "true"),
        ("Object{spec: Object.spec{replicas: self.x}}", "{\"spec\":{\"replicas\":3}}"),
        ("self.list.all(i, e, e.n == i + 1)", "true"),
        ("self.list.exists(i, e, i == 1 && e.n == 2)", "true"),
        ("self.list.existsOne(i, e, e.n > i)", "false"),
        ("self.map.existsOne(k, v, k == 'a.b' && v == 'c')", "true"),
        ("self.list.transformList(i, e, i * e.n)", "[0,2]"),
        ("self.list.transformList(i, e, i > 0, e.n)", "[2]"),
        ("{'a': 1, 'b': 2}.transformMap(k, v, v * 2)", r#"{"a":2,"b":4}"#),
        ("{'a': 1, 'b': 2}.transformMap(k, v, k != 'a', k + 'x')", r#"{"b":"bx"}"#),
        ("{'a': 'x', 'b': 'y'}.transformMapEntry(k, v, {v: k})", r#"{"x":"a","y":"b"}"#),
        ("[[1, 2], [3]].all(i, l, l.all(j, n, n == 2 * i + j + 1))", "true"),
        ("self.list.all(i, e, cel.bind(n, e.n, n > i))", "true"),
        ("{'a': 1}.?a.orValue(2) + {'a': 1}.?b.orValue(2)", "3"),
        ("{'a': {'b': 7}}.?a.b.orValue(0)", "7"),
        ("{'a': {'b': 7}}.?x.b.hasValue()", "false"),
        ("[1][?3].orValue(5) + [1][?0].value()", "6"),
        ("optional.of(3).optMap(v, v + 1).value()", "4"),
        ("optional.none().optMap(v, v + 1).hasValue()", "false"),
        ("old.?x.orValue(9)", "9"),
        ("old.x.hasValue()", "false"),
        ("has(old.x)", "false"),
        ("type(self.x) == int && type('a') == string && type([]) != map", "true"),
        ("dyn(self.x) == 3", "true"),
        ("[JSONPatch{op: 'add', path: '/a'}]", "[{\"op\":\"add\",\"path\":\"/a\"}]"),
    ] {
        assert_eq!(say(source), expected, "{source}");
    }
}

#[test]
fn errors_are_in_cel_gos_words() {
    for (source, expected) in [
        ("self.z > 1", "ERROR: <input>:1:5: undefined field 'z'"),
        ("self.list.all(e, e.m > 0)", "ERROR: <input>:1:19: undefined field 'm'"),
        ("self.unknown", "ERROR: <input>:1:5: undefined field 'unknown'"),
        ("foo.x", "ERROR: <input>:1:1: undeclared reference to 'foo' (in container '')"),
        (
            "self.x == 'a'",
            "ERROR: <input>:1:8: found no matching overload for '_==_' applied to '(int, string)'",
        ),
        (
            "self.x.startsWith('a')",
            "ERROR: <input>:1:18: found no matching overload for 'startsWith' applied to 'int.(string)'",
        ),
        ("nothing(1)", "ERROR: <input>:1:8: undeclared reference to 'nothing' (in container '')"),
        (
            "self.list.map(e, e.n).all(n, n.x)",
            "ERROR: <input>:1:31: type 'int' does not support field selection",
        ),
        ("self.list.all(1, e, true)", "argument must be a simple name"),
        ("['a', 'a'].transformMapEntry(i, v, {v: i})", "insert failed: key a already exists"),
        ("self.?z", "ERROR: <input>:1:5: undefined field 'z'"),
        ("self.x.y", "ERROR: <input>:1:7: type 'int' does not support field selection"),
        ("self.map['b']", "no such key: b"),
        ("1 / (self.x - 3)", "division by zero"),
        ("self.list[7].n", "index out of bounds: 7"),
        ("Foo{a: 1}", "ERROR: <input>:1:1: undeclared reference to 'Foo' (in container '')"),
    ] {
        assert_eq!(say(source), expected, "{source}");
    }
    assert!(say("self.x >").contains("Syntax error"), "{}", say("self.x >"));
    assert!(say("self x").contains("Syntax error"));
}

#[test]
fn the_kind_of_a_result_is_known_where_it_is_plain() {
    for (source, bool, text) in [
        ("self.x > 1", true, false),
        ("self.a__dash__b", false, true),
        ("self.x", false, false),
        ("true ? 'a' : 'b'", false, true),
        ("self.list.exists(e, e.n == 1)", true, false),
    ] {
        let program = compile(source, &[("self", kind())]).unwrap();
        assert_eq!(program.may_be(&Kind::Bool), bool, "{source}");
        assert_eq!(program.may_be(&Kind::Text), text, "{source}");
    }
}

#[test]
fn what_would_take_long_is_refused() {
    let many: Vec<u64> = (0..1000).collect();
    let value = json!({"many": many, "few": [1, 2]});
    let evaluate = |source: &str| {
        compile(source, &[("self", Kind::Any)]).unwrap().evaluate(&[("self", &value)])
    };
    assert_eq!(
        evaluate("self.many.all(x, self.many.all(y, x + y >= 0))"),
        Err(EvaluateError::Cost)
    );
    assert_eq!(evaluate("self.few.all(x, self.few.all(y, x + y >= 0))"), Ok(json!(true)));
    let deep = format!("{}1", "1+".repeat(5000));
    assert!(compile(&deep, &[]).is_err());
    assert!(compile(&"(".repeat(5000), &[]).is_err());
    assert!(compile(&"!".repeat(5000), &[]).is_err());
    assert!(compile(&"a?b:".repeat(5000), &[]).is_err());
    assert!(compile(&"x".repeat(MAX_EXPRESSION_BYTES + 1), &[]).is_err());
}
