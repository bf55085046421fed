use serde_json::json;

use super::*;

const ALL: Options =
    Options { atomic_sets: true, sure_keys: true, limit_rules: true, judge_rules: true };

fn say(schema: &Value, options: Options) -> String {
    let errors = check(schema, &Path::new("s"), options);
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn of_x(x: Value) -> Value {
    json!({"type": "object", "properties": {"x": x}})
}

fn ruled(mut x: Value, rule: Value) -> Value {
    x["x-kubernetes-validations"] = json!([rule]);
    of_x(x)
}

const RULE: &str = "s.properties[x].x-kubernetes-validations[0]";
const TRY: &str = "(try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)";

#[test]
fn words_are_judged_as_upstream() {
    for (schema, expected) in [
        (
            of_x(json!({"type": "null"})),
            "s.properties[x].type: Unsupported value: \"null\": supported values: \"array\", \"boolean\", \"integer\", \"number\", \"object\", \"string\"; s.properties[x].type: Forbidden: type cannot be set to null, use nullable as an alternative",
        ),
        (
            of_x(json!({"type": "object", "patternProperties": {"a": {}}})),
            "s.properties[x].patternProperties: Forbidden: patternProperties is not supported",
        ),
        (
            of_x(
                json!({"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": false}),
            ),
            "s.properties[x].additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive",
        ),
        (
            json!({"type": "object", "properties": {"metadata": {"type": "object", "default": {}}}}),
            "s.properties[metadata].default: Forbidden: must not be set in top-level metadata",
        ),
        (
            of_x(json!({"type": "object", "x-kubernetes-preserve-unknown-fields": false})),
            "s.properties[x].x-kubernetes-preserve-unknown-fields: Invalid value: false: must be true or undefined",
        ),
        (
            of_x(json!({"type": "string", "x-kubernetes-map-type": "atomic"})),
            "s.properties[x].type: Invalid value: \"string\": must be object if x-kubernetes-map-type is specified",
        ),
        (
            of_x(
                json!({"type": "array", "items": {"type": "object"}, "x-kubernetes-list-type": "set"}),
            ),
            "s.properties[x].items.x-kubernetes-map-type: Invalid value: \"null\": must be atomic as item of a list with x-kubernetes-list-type=set",
        ),
        (
            of_x(
                json!({"type": "array", "items": {"type": "object"}, "x-kubernetes-list-map-keys": ["a"]}),
            ),
            "s.properties[x].x-kubernetes-list-type: Required value: must be map if x-kubernetes-list-map-keys is non-empty",
        ),
        (
            of_x(
                json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["a", "b", "b"],
                "items": {"type": "object", "required": ["b"], "properties": {"b": {"type": "string", "nullable": true}, "a": {"type": "object"}}}}),
            ),
            "s.properties[x].items.properties[a].type: Invalid value: \"object\": must be a scalar type if parent array's x-kubernetes-list-type is map; \
             s.properties[x].x-kubernetes-list-map-keys: Invalid value: [\"a\",\"b\",\"b\"]: must not contain duplicate entries; \
             s.properties[x].items.properties[a].default: Required value: this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property; \
             s.properties[x].items.properties[b].nullable: Forbidden: this property is in x-kubernetes-list-map-keys, so it cannot be nullable; \
             s.properties[x].items.properties[b].nullable: Forbidden: this property is in x-kubernetes-list-map-keys, so it cannot be nullable",
        ),
    ] {
        assert_eq!(say(&schema, ALL), expected, "{schema}");
    }
    let loose = of_x(
        json!({"type": "array", "items": {"type": "object"}, "x-kubernetes-list-type": "set"}),
    );
    assert_eq!(say(&loose, Options { atomic_sets: false, ..ALL }), "");
}

#[test]
fn rules_are_judged_as_upstream() {
    let object = json!({"type": "object", "properties": {"a": {"type": "string", "maxLength": 5}, "n": {"type": "integer"}}});
    for (rule, expected) in [
        (json!({"rule": "self.n > 1"}), String::new()),
        (json!({"rule": " "}), format!("{RULE}.rule: Required value: rule is not specified")),
        (
            json!({"rule": "self.n\n > 1"}),
            format!(
                "{RULE}.message: Required value: message must be specified if rule contains line breaks"
            ),
        ),
        (
            json!({"rule": "self.n > 1", "reason": "Why"}),
            format!(
                "{RULE}.reason: Unsupported value: \"Why\": supported values: \"FieldValueDuplicate\", \"FieldValueForbidden\", \"FieldValueInvalid\", \"FieldValueRequired\""
            ),
        ),
        (
            json!({"rule": "self.n > 1", "fieldPath": ".z"}),
            format!("{RULE}.fieldPath: Invalid value: \".z\": fieldPath must be a valid path"),
        ),
        (json!({"rule": "self.n > 1", "fieldPath": ".a"}), String::new()),
        (
            json!({"rule": "self.n"}),
            format!(
                "{RULE}.rule: Invalid value: {{\"rule\":\"self.n\"}}: cel expression must evaluate to a bool"
            ),
        ),
        (
            json!({"rule": "self.n > 1", "messageExpression": "self.n"}),
            format!(
                "{RULE}.messageExpression: Invalid value: {{\"messageExpression\":\"self.n\",\"rule\":\"self.n > 1\"}}: messageExpression must evaluate to a string"
            ),
        ),
        (
            json!({"rule": "self.n > 1", "optionalOldSelf": true}),
            format!(
                "{RULE}.optionalOldSelf: Invalid value: true: may not be set if oldSelf is not used in rule"
            ),
        ),
    ] {
        let said = say(&ruled(object.clone(), rule.clone()), ALL);
        assert_eq!(
            said.replace(
                r#"{"rule":"self.n > 1","messageExpression":"self.n"}"#,
                r#"{"messageExpression":"self.n","rule":"self.n > 1"}"#
            ),
            expected,
            "{rule}"
        );
    }
    let said = say(&ruled(object, json!({"rule": "self.none == 1"})), ALL);
    assert!(
        said.contains("compilation failed: ERROR: <input>:1:5: undefined field 'none'"),
        "{said}"
    );
    let list = json!({"type": "array", "maxItems": 3, "items": {"type": "string", "maxLength": 3,
        "x-kubernetes-validations": [{"rule": "self == oldSelf"}]}});
    assert_eq!(
        say(&of_x(list), ALL),
        "s.properties[x].items.x-kubernetes-validations[0].rule: Invalid value: \"self == oldSelf\": oldSelf cannot be used on the uncorrelatable portion of the schema within s.properties[x]"
    );
}

#[test]
fn costly_rules_are_refused_where_they_are_new() {
    let list = |most: Option<u64>| {
        let mut list = json!({"type": "array", "items": {"type": "string", "maxLength": 10}});
        if let Some(most) = most {
            list["maxItems"] = most.into();
        }
        list
    };
    let rule = json!({"rule": "self.all(a, self.all(b, a != b || a == b))"});
    let costly = ruled(list(None), rule.clone());
    let expected = format!(
        "{RULE}.rule: Forbidden: estimated rule cost exceeds budget by factor of more than 100x {TRY}"
    );
    let said = say(&costly, ALL);
    assert!(said.starts_with(&expected), "{said}");
    assert!(said.contains("s: Forbidden: x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema exceeds budget by factor of more than 100x"), "{said}");
    assert_eq!(say(&ruled(list(Some(100)), rule), ALL), "");
    // Within lists a rule runs for each item.
    let within = json!({"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string"}},
        "x-kubernetes-validations": [{"rule": "self.a.contains('abcdefghijklmno')"}]}});
    let said = say(&of_x(within.clone()), ALL);
    assert!(said.contains("items.x-kubernetes-validations[0].rule: Forbidden: estimated rule cost exceeds budget by factor of more than 100x"), "{said}");
    let mut few = within;
    few["maxItems"] = json!(5);
    assert_eq!(say(&of_x(few), ALL), "");
    let unchanged = Options { limit_rules: false, ..ALL };
    assert!(!say(&costly, unchanged).contains("estimated rule cost exceeds"));
}

/// Rules as the Gateway API has them, which every cluster of upstream's takes.
#[test]
fn rules_of_widely_used_definitions_keep_within_their_limits() {
    let text = |most: u64| json!({"type": "string", "maxLength": most});
    let reference = json!({"type": "object", "required": ["name"], "properties": {
        "group": text(253), "kind": text(63), "namespace": text(63), "name": text(253),
        "sectionName": text(253), "port": {"type": "integer", "format": "int32"}}});
    let same = "p1.group == p2.group && p1.kind == p2.kind && p1.name == p2.name && \
        (((!has(p1.__namespace__) || p1.__namespace__ == '') && (!has(p2.__namespace__) || p2.__namespace__ == '')) || \
        (has(p1.__namespace__) && has(p2.__namespace__) && p1.__namespace__ == p2.__namespace__ ))";
    let sections = "((!has(p1.sectionName) || p1.sectionName == '') && (!has(p2.sectionName) || p2.sectionName == '')) || \
        ( has(p1.sectionName) && has(p2.sectionName) && p1.sectionName == p2.sectionName)";
    let matches = json!({"type": "object", "properties": {"path": {"type": "object", "properties": {
            "type": {"type": "string", "enum": ["Exact", "PathPrefix", "RegularExpression"]}, "value": text(1024)},
        "x-kubernetes-validations": [
            {"rule": "(self.type in ['Exact','PathPrefix']) ? self.value.startsWith('/') : true", "message": "m"},
            {"rule": "(self.type in ['Exact','PathPrefix']) ? !self.value.contains('//') : true", "message": "m"},
            {"rule": "(self.type in ['Exact','PathPrefix']) ? self.value.matches(r\"\"\"^(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|[%][0-9a-fA-F]{2})+$\"\"\") : true", "message": "m"}]},
        "headers": {"type": "array", "maxItems": 16, "items": {"type": "object", "properties": {"name": text(256), "value": text(4096)}}}}});
    let filters = json!({"type": "array", "maxItems": 16, "items": {"type": "object", "required": ["type"], "properties": {
            "type": {"type": "string", "enum": ["RequestHeaderModifier", "RequestRedirect", "URLRewrite"]}}},
        "x-kubernetes-validations": [
            {"rule": "!(self.exists(f, f.type == 'RequestRedirect') && self.exists(f, f.type == 'URLRewrite'))", "message": "m"},
            {"rule": "self.filter(f, f.type == 'RequestHeaderModifier').size() <= 1", "message": "m"}]});
    let sizes: Vec<String> =
        (0..16).map(|n| format!("(self.size() > {n} ? self[{n}].matches.size() : 0)")).collect();
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "hostnames": {"type": "array", "maxItems": 16, "items": text(253)},
        "parentRefs": {"type": "array", "maxItems": 32, "items": reference, "x-kubernetes-validations": [
            {"rule": format!("self.all(p1, self.all(p2, {same} ? ((!has(p1.sectionName) || p1.sectionName == '') == (!has(p2.sectionName) || p2.sectionName == '')) : true))"), "message": "m"},
            {"rule": format!("self.all(p1, self.exists_one(p2, {same} && ({sections})))"), "message": "m"}]},
        "rules": {"type": "array", "maxItems": 16,
            "items": {"type": "object", "properties": {"name": text(253), "filters": filters,
                "matches": {"type": "array", "maxItems": 64, "items": matches}}},
            "x-kubernetes-validations": [
                {"rule": format!("{} <= 128", sizes.join(" + ")), "message": "m"},
                {"rule": "self.all(l1, !has(l1.name) || self.exists_one(l2, has(l2.name) && l1.name == l2.name))", "message": "m"}]}}}}});
    assert_eq!(say(&schema, ALL), "");
}
