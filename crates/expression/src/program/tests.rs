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
    let variables = [("self", kind()), ("old", Kind::Optional(kind().into()))];
    let everything = Language { has_bindings: true, has_objects: true };
    let compiled = compile_as(source, &variables, everything);
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
        ("{'a': [1], 'b': [self.x]}", "{\"a\":[1],\"b\":[3]}"),
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
        (
            "[{'a': 1}].sort()",
            "ERROR: <input>:1:16: found no matching overload for 'sort' applied to 'list(map(string, int)).()'",
        ),
        ("[1].sortBy(e + 1, e)", "argument must be a simple name"),
        ("nothing(1)", "ERROR: <input>:1:8: undeclared reference to 'nothing' (in container '')"),
        (
            "self.list.map(e, e.n).all(n, n.x)",
            "ERROR: <input>:1:31: type 'int' does not support field selection",
        ),
        ("[1, 'a'] == [self.x]", "ERROR: <input>:1:5: expected type 'int' but found 'string'"),
        ("self.wait == duration('1 hour')", "ERROR: <input>:1:23: invalid duration argument"),
        ("self.until == timestamp('now')", "ERROR: <input>:1:25: invalid timestamp argument"),
        ("self.a__dash__b.matches('(')", "ERROR: <input>:1:25: invalid matches argument"),
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
    // Sizes are followed through variables: a long text elsewhere counts for nothing.
    let pods: Vec<_> =
        (0..20).map(|n| json!({"env": [{"name": "a", "value": n.to_string()}]})).collect();
    let value = json!({"text": "x".repeat(100_000), "pods": pods, "words": "a,b"});
    let evaluate = |source: &str| {
        let program = compile_as(source, &[("self", Kind::Any)], Language::DEVICE).unwrap();
        program.evaluate(&[("self", &value)])
    };
    for source in [
        "self.pods.all(p, p.env.all(e, e.name == 'a' && e.value != 'x'))",
        "self.pods.filter(p, has(p.env)).all(p, p.env.exists(e, e.name == 'a'))",
        "self.pods.all(i, p, p.?env.orValue([]).all(j, e, e.name == 'a' && j >= 0))",
        "cel.bind(all, self.pods, all.all(p, all.exists(q, q.env[0].name == p.env[0].name)))",
        "self.words.split(',').all(w, self.pods.all(p, p.env.map(e, e.name).all(n, n != w + 'x')))",
    ] {
        assert_eq!(evaluate(source), Ok(json!(true)), "{source}");
    }
    assert_eq!(
        evaluate("self.text.split('').all(c, self.pods.all(p, p.env[0].name != c))"),
        Err(EvaluateError::Cost)
    );
    let deep = format!("{}1", "1+".repeat(5000));
    assert!(compile(&deep, &[]).is_err());
    assert!(compile(&"(".repeat(5000), &[]).is_err());
    assert!(compile(&"!".repeat(5000), &[]).is_err());
    assert!(compile(&"a?b:".repeat(5000), &[]).is_err());
    assert!(compile(&"x".repeat(MAX_EXPRESSION_BYTES + 1), &[]).is_err());
}

/// Functions of Kubernetes' libraries, as its documentation shows them.
#[test]
fn libraries_answer_as_upstreams() {
    for (source, expected) in [
        // Lists.
        ("[1, 2, 3].isSorted()", "true"),
        ("['b', 'a'].isSorted()", "false"),
        ("[1, 2, 3].sum()", "6"),
        ("[1.5, 2.0].sum()", "3.5"),
        ("[duration('1m'), duration('30s')].sum() == duration('90s')", "true"),
        ("[3, 1, 2].min() == 1 && [3, 1, 2].max() == 3", "true"),
        ("['a', 'b', 'b'].indexOf('b') == 1 && ['a', 'b', 'b'].lastIndexOf('b') == 2", "true"),
        ("[].indexOf('x')", "-1"),
        // Regular expressions.
        ("'abc 123'.find('[0-9]+')", "\"123\""),
        ("'123 abc 456'.findAll('[0-9]+')", "[\"123\",\"456\"]"),
        ("'123 abc 456'.findAll('[0-9]+', 1)", "[\"123\"]"),
        ("'abc'.find('[0-9]+')", "\"\""),
        // Addresses of the web.
        ("url('https://u@h.org:80/a%20b?x=1&x=2#f').getHost()", "\"h.org:80\""),
        (
            "url('https://h.org:80/').getHostname() + url('https://[::1]:81/').getPort()",
            "\"h.org81\"",
        ),
        ("url('https://h/a b').getEscapedPath()", "\"/a%20b\""),
        ("url('https://h/?x=1&x=2').getQuery()['x']", "[\"1\",\"2\"]"),
        ("url('https://h/').getScheme()", "\"https\""),
        ("isURL('https://h:port/')", "false"),
        ("isURL('/path') && !isURL('a b')", "true"),
        // Addresses of networks.
        ("isIP('10.0.0.1') && isIP('::1') && !isIP('10.0.0.256') && !isIP('10.0.0.01')", "true"),
        ("ip('10.0.0.1').family() == 4 && ip('::1').family() == 6", "true"),
        ("ip('127.0.0.1').isLoopback() && ip('0.0.0.0').isUnspecified()", "true"),
        (
            "ip('224.0.0.1').isLinkLocalMulticast() && ip('169.254.1.1').isLinkLocalUnicast()",
            "true",
        ),
        ("ip('8.8.8.8').isGlobalUnicast()", "true"),
        ("ip.isCanonical('::1') && !ip.isCanonical('0:0::1')", "true"),
        ("string(ip('10.0.0.1')) == '10.0.0.1' && ip('::1') == ip('0:0::1')", "true"),
        ("isCIDR('10.0.0.0/8') && !isCIDR('10.0.0.0/33')", "true"),
        (
            "cidr('10.0.0.0/8').containsIP('10.1.2.3') && cidr('10.0.0.0/8').containsIP(ip('10.1.2.3'))",
            "true",
        ),
        (
            "cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16') && !cidr('10.1.0.0/16').containsCIDR(cidr('10.0.0.0/8'))",
            "true",
        ),
        (
            "cidr('10.1.2.3/8').masked() == cidr('10.0.0.0/8') && cidr('10.0.0.0/8').prefixLength() == 8",
            "true",
        ),
        ("string(cidr('10.0.0.0/8').ip())", "\"10.0.0.0\""),
        // Quantities.
        (
            "quantity('1.5Gi').isGreaterThan(quantity('1G')) && quantity('100m').isLessThan(quantity('1'))",
            "true",
        ),
        (
            "quantity('50k').add(20).compareTo(quantity('50020')) == 0 && quantity('50k').sub(quantity('20k')) == quantity('30k')",
            "true",
        ),
        ("isQuantity('1Mi') && !isQuantity('1Mo')", "true"),
        ("quantity('50000000G').isInteger() && !quantity('1.5').isInteger()", "true"),
        ("quantity('50k').asInteger() == 50000 && quantity('-1').sign() == -1", "true"),
        ("quantity('1.5').asApproximateFloat() == 1.5", "true"),
        // Versions.
        (
            "semver('1.2.3').major() == 1 && semver('1.2.3').minor() == 2 && semver('1.2.3').patch() == 3",
            "true",
        ),
        ("isSemver('1.2.3-alpha.1+b') && !isSemver('v1.2.3') && !isSemver('1.2')", "true"),
        ("isSemver('v1.2', true) && semver('v01.2', true) == semver('1.2.0')", "true"),
        (
            "semver('1.2.3').isLessThan(semver('1.10.0')) && semver('1.0.0').compareTo(semver('1.0.0-a')) == 1",
            "true",
        ),
        // Formats.
        ("!format.dns1123Label().validate('my-label').hasValue()", "true"),
        ("format.dns1123Label().validate('My-Label').hasValue()", "true"),
        ("!format.named('qualifiedName').value().validate('a.b/c').hasValue()", "true"),
        ("format.named('nothing').hasValue()", "false"),
        ("!format.uuid().validate('123e4567-e89b-12d3-a456-426614174000').hasValue()", "true"),
        (
            "!format.date().validate('2026-01-02').hasValue() && format.date().validate('x').hasValue()",
            "true",
        ),
        (
            "!format.labelValue().validate('a').hasValue() && !format.uri().validate('http://a').hasValue()",
            "true",
        ),
        // Sets.
        (
            "sets.contains([1, 2, 3], [2, 3]) && sets.intersects([1], [1, 2]) && sets.equivalent([1, 1], [1])",
            "true",
        ),
        // Texts.
        ("'hello'.charAt(1) + 'hello'.substring(2) + 'hello'.substring(0, 1)", "\"elloh\""),
        ("'a,b'.split(',')", "[\"a\",\"b\"]"),
        ("['a', 'b'].join('-') + ['a'].join()", "\"a-ba\""),
        ("'aXb'.lowerAscii() + 'a'.upperAscii() + ' a '.trim()", "\"axbAa\""),
        ("'aaa'.replace('a', 'b', 2)", "\"bba\""),
        (
            "'%s %d %.2f %x %b %e %s'.format(['a', 1, 1.5, 255, 5, 1000.0, true])",
            "\"a 1 1.50 ff 101 1.000000e+03 true\"",
        ),
        ("strings.quote('a\"b')", r#""\"a\\\"b\"""#),
        ("jsonpatch.escapeKey('k8s.io/my~label')", "\"k8s.io~1my~0label\""),
        // The language.
        ("int('7') + int(2.9) + int(timestamp('1970-01-01T00:00:05Z'))", "14"),
        ("double('1.5') + double(1)", "2.5"),
        ("string(1) + string(true) + string(1.5) + string(duration('90s'))", "\"1true1.590s\""),
        (
            "timestamp('2026-01-02T03:04:05Z') - timestamp('2026-01-02T03:04:00Z') == duration('5s')",
            "true",
        ),
        (
            "timestamp('2026-01-02T03:04:05Z').getDayOfWeek() == 5 && timestamp('2026-01-02T03:04:05Z').getMonth() == 0",
            "true",
        ),
        ("size('ä') == 1 && size(b'ä') == 2", "true"),
        ("'a' in {'a': 1} && 2 in [1, 2] && !('z' in {'a': 1})", "true"),
        ("1 == 1 && 1 < 1.5 && 'a' < 'b' && true != false", "true"),
        ("has({'a': 1}.a) && !has({'a': 1}.b)", "true"),
        ("[1, 2, 3].exists_one(x, x == 2) && [1, 2].filter(x, x > 1) == [2]", "true"),
        ("(1 / 0 == 1) || true", "true"),
        ("[1, 2].map(x, x > 1, x * 10)", "[20]"),
        ("{'b': 1, 'a': 2}.map(k, k).size()", "2"),
        ("[?optional.none(), ?optional.of(1)]", "[1]"),
        ("{?'a': optional.of(1), ?'b': optional.none()}", "{\"a\":1}"),
        (
            "optional.ofNonZeroValue('').orValue('x') + optional.ofNonZeroValue('y').orValue('x')",
            "\"xy\"",
        ),
        ("optional.none().or(optional.of(2)).value()", "2"),
        ("bool('true') && string(b'abc') == 'abc' && bytes('a') == b'a'", "true"),
        (
            "string(1.0) + ' ' + string(1e6) + ' ' + string(1e21) + ' ' + string(0.00001)",
            "\"1 1e+06 1e+21 1e-05\"",
        ),
        ("int('x')", "strconv.ParseInt: parsing \"x\": invalid syntax"),
        ("int(1e30)", "integer overflow"),
        ("-self.x", "-3"),
        ("format.named('nothing').orValue(format.uuid()).validate('x').hasValue()", "true"),
        ("'abc'.contains('b') && 'abc'.endsWith('c') && matches('abc', '^a')", "true"),
        ("-(-9223372036854775807 - 1)", "integer overflow"),
        ("9223372036854775807 + 1", "integer overflow"),
        ("5 % 0", "modulus by zero"),
        ("{'a': 1}['b']", "no such key: b"),
        ("[1][5]", "index out of bounds: 5"),
    ] {
        let said = say(source);
        assert_eq!(said, expected, "{source}");
    }
}

/// Libraries of others than Kubernetes are unknown, and so is what other places have.
#[test]
fn only_upstreams_functions_are_known() {
    let said =
        |source: &str| compile(source, &[]).map_or_else(|e| e.to_string(), |_| String::new());
    for (source, unknown) in [
        ("math.greatest(1, 2)", "math"),
        ("base64.encode(b'a')", "base64"),
        ("cel.bind(x, 1, x)", "cel"),
        ("jsonpatch.escapeKey('a')", "jsonpatch.escapeKey"),
        ("Object{a: 1}", "Object"),
        ("ip('::1').isIPv6()", "isIPv6"),
        ("'abc'.reverse()", ""),
        ("'abc'.nothing()", "nothing"),
        ("size(unknown)", "unknown"),
    ] {
        let said = said(source);
        let expected = match unknown {
            "" => "found no matching overload for 'reverse' applied to 'string.()'".to_owned(),
            name => format!("undeclared reference to '{name}' (in container '')"),
        };
        assert!(said.contains(&expected), "{source}: {said}");
    }
    // All mistakes are told at once, in their order.
    let said = said("a.b && [1].all(x, x.y)");
    assert_eq!(
        said,
        "ERROR: <input>:1:1: undeclared reference to 'a' (in container '')\n | a.b && [1].all(x, x.y)\n | ^\nERROR: <input>:1:20: type 'int' does not support field selection\n | a.b && [1].all(x, x.y)\n | ...................^"
    );
    for source in [
        "[3, 1].sort() == [1, 3] && [1, 2].slice(0, 1) == [1] && [[1]].flatten() == [1]",
        "[1, 1].distinct() == [1] && lists.range(2) == [0, 1] && [1].first().value() == 1",
        "[1, 2].reverse() == [2, 1]",
    ] {
        let program = compile(source, &[]).unwrap_or_else(|e| panic!("{source}: {e}"));
        assert_eq!(program.evaluate(&[]), Ok(json!(true)), "{source}");
    }
}

#[test]
fn lists_that_cannot_be_put_in_order_say_why() {
    let failed = |source: &str| {
        let program = compile(source, &[]).unwrap_or_else(|e| panic!("{source}: {e}"));
        program.evaluate(&[]).unwrap_err().to_string()
    };
    for (source, expected) in [
        ("[dyn('d'), dyn(3)].sort()", "list elements must have the same type"),
        ("[1, 2].sortBy(e, dyn([e]))", "list elements must be comparable"),
        (
            "[1, 2].slice(2, 1)",
            "cannot slice(2, 1), start index must be less than or equal to end index",
        ),
        ("[1, 2].slice(0, 3)", "cannot slice(0, 3), list is length 2"),
        ("[1, 2].slice(-1, 1)", "cannot slice(-1, 1), negative indexes not supported"),
        ("[[1]].flatten(-1)", "level must be non-negative"),
        // A list that takes all memory is not begun.
        (
            "lists.range(1000000000000).size() > 0",
            "lists.range: size 1000000000000 exceeds maximum allowed (1000000)",
        ),
    ] {
        assert!(failed(source).contains(expected), "{source}: {}", failed(source));
    }
}
