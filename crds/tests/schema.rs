//! Offline validation piece by piece: unknown fields, pruning, nulls and defaults, structure, lists, rules, updates.

#![allow(clippy::unwrap_used, reason = "what fails in a helper of a test fails the test")]

use serde_json::{Value, json};
use virtnet_crds::schema::{CompileError, FieldErrorKind, Schema};

fn schema(value: &Value) -> Schema {
    Schema::compile(value).unwrap()
}

fn object(properties: &Value) -> Value {
    json!({ "type": "object", "properties": properties })
}

fn messages(schema: &Schema, object: &Value, old: Option<&Value>) -> Vec<String> {
    schema.validate(object, old).iter().map(ToString::to_string).collect()
}

const NOT_CHECKED: &str = "<nil>: Invalid value: null: some validation rules were not checked because the object was \
                           invalid; correct the existing errors to complete validation";

#[test]
fn a_schema_can_be_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Schema>();
}

#[test]
fn unknown_fields_are_named_as_strict_field_validation_names_them_and_pruned() {
    let schema = schema(&object(&json!({
        "spec": object(&json!({
            "ports": { "type": "array", "items": object(&json!({ "name": { "type": "string" } })) },
            "labels": { "type": "object", "additionalProperties": { "type": "string" } },
            "free": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
        })),
    })));
    let mut value = json!({
        "apiVersion": "v1", "kind": "A", "metadata": { "anything": 1 }, "other": 1,
        "spec": {
            "foo": { "deeper": 1 },
            "ports": [{ "name": "a", "bar": 1 }, { "bar": 2 }],
            "labels": { "any.key/x": "v" },
            "free": { "kept": { "too": 1 } },
        },
    });
    assert_eq!(
        schema.unknown_fields(&value),
        ["other", "spec.foo", "spec.ports[0].bar", "spec.ports[1].bar"]
    );
    schema.prune(&mut value);
    assert_eq!(schema.unknown_fields(&value), Vec::<String>::new());
    assert_eq!(
        value,
        json!({
            "apiVersion": "v1", "kind": "A", "metadata": { "anything": 1 },
            "spec": {
                "ports": [{ "name": "a" }, {}],
                "labels": { "any.key/x": "v" },
                "free": { "kept": { "too": 1 } },
            },
        })
    );
}

#[test]
fn defaults_fill_what_is_absent_and_what_is_null_without_being_nullable() {
    let schema = schema(&object(&json!({
        "absent": { "type": "integer", "default": 1 },
        "null": { "type": "integer", "default": 2 },
        "nullable": { "type": "integer", "default": 3, "nullable": true },
        "dropped": { "type": "integer" },
        "given": { "type": "integer", "default": 5 },
        "nested": { "type": "object", "default": {}, "properties": { "in": { "type": "string", "default": "x" } } },
        "untouched": object(&json!({ "in": { "type": "string", "default": "x" } })),
        "list": { "type": "array", "items": object(&json!({ "in": { "type": "string", "default": "x" } })) },
    })));
    let mut value = json!({
        "null": null, "nullable": null, "dropped": null, "given": 50, "list": [{}, { "in": null }, { "in": "y" }],
    });
    schema.apply_defaults(&mut value);
    assert_eq!(
        value,
        json!({
            "absent": 1, "null": 2, "nullable": null, "given": 50, "nested": { "in": "x" },
            "list": [{ "in": "x" }, { "in": "x" }, { "in": "y" }],
        })
    );
    let before = value.clone();
    schema.apply_defaults(&mut value);
    assert_eq!(value, before, "a second time changes nothing");
}

#[test]
fn each_keyword_refuses_with_the_servers_words() {
    let cases = [
        (
            json!({ "type": "integer", "minimum": 68 }),
            json!(67),
            "f: Invalid value: 67: f in body should be greater than or equal to 68",
        ),
        (
            json!({ "type": "integer", "minimum": 68, "exclusiveMinimum": true }),
            json!(68),
            "f: Invalid value: 68: f in body should be greater than 68",
        ),
        (
            json!({ "type": "integer", "maximum": 9978 }),
            json!(9979),
            "f: Invalid value: 9979: f in body should be less than or equal to 9978",
        ),
        (
            json!({ "type": "number", "maximum": 2, "exclusiveMaximum": true }),
            json!(2.0),
            "f: Invalid value: 2: f in body should be less than 2",
        ),
        (
            json!({ "type": "integer", "multipleOf": 4 }),
            json!(6),
            "f: Invalid value: 6: f in body should be a multiple of 4",
        ),
        (
            json!({ "type": "string", "minLength": 2 }),
            json!("a"),
            "f: Invalid value: \"a\": f in body should be at least 2 chars long",
        ),
        (
            json!({ "type": "string", "maxLength": 2 }),
            json!("äöü"),
            "f: Too long: may not be more than 2 bytes",
        ),
        (
            json!({ "type": "string", "maxLength": 1 }),
            json!("ab"),
            "f: Too long: may not be more than 1 byte",
        ),
        (
            json!({ "type": "string", "pattern": "^a+$" }),
            json!("b\n\"\u{1}"),
            "f: Invalid value: \"b\\n\\\"\\x01\": f in body should match '^a+$'",
        ),
        (
            json!({ "type": "string", "format": "date-time" }),
            json!("yesterday"),
            "f: Invalid value: \"yesterday\": f in body must be of type date-time: \"yesterday\"",
        ),
        (
            json!({ "type": "string", "enum": ["Never", "IfIdle"] }),
            json!("X"),
            "f: Unsupported value: \"X\": supported values: \"Never\", \"IfIdle\"",
        ),
        (
            json!({ "type": "array", "maxItems": 2, "items": { "type": "integer" } }),
            json!([1, 2, 3]),
            "f: Too many: 3: must have at most 2 items",
        ),
        (
            json!({ "type": "array", "minItems": 1, "items": { "type": "integer" } }),
            json!([]),
            "f: Invalid value: 0: f in body should have at least 1 items",
        ),
        (
            json!({ "type": "object", "maxProperties": 1, "additionalProperties": { "type": "string" } }),
            json!({ "a": "", "b": "" }),
            "f: Too many: 2: must have at most 1 item",
        ),
        (
            json!({ "type": "object", "minProperties": 1, "additionalProperties": { "type": "string" } }),
            json!({}),
            "f: Invalid value: 0: f in body should have at least 1 properties",
        ),
        (json!({ "type": "object", "required": ["a"] }), json!({}), "f.a: Required value"),
        (
            json!({ "type": "object", "additionalProperties": { "type": "string" } }),
            json!({ "a.b": 1 }),
            "f.a.b: Invalid value: \"integer\": f.a.b in body must be of type string: \"integer\"",
        ),
        (
            json!({ "type": "integer" }),
            json!("5"),
            "f: Invalid value: \"string\": f in body must be of type integer: \"string\"",
        ),
        (
            json!({ "type": "boolean" }),
            json!(1),
            "f: Invalid value: \"integer\": f in body must be of type boolean: \"integer\"",
        ),
        (
            json!({ "type": "object" }),
            json!([]),
            "f: Invalid value: \"array\": f in body must be of type object: \"array\"",
        ),
        (
            json!({ "x-kubernetes-int-or-string": true }),
            json!(true),
            "f: Invalid value: \"boolean\": f in body must be of type integer,string: \"boolean\"",
        ),
        (
            json!({ "type": "array", "items": { "type": "string" } }),
            json!([null]),
            "f[0]: Invalid value: \"null\": f[0] in body must be of type string: \"null\"",
        ),
        (
            json!({ "type": "array", "items": { "type": "integer" }, "x-kubernetes-list-type": "set" }),
            json!([7, 8, 7, 7]),
            "f[2]: Duplicate value: 7",
        ),
        (
            json!({ "type": "array", "items": { "type": "object", "additionalProperties": { "type": "string" } },
                "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"] }),
            json!([{ "type": "A" }, { "type": "B" }, { "type": "A" }]),
            "f[2]: Duplicate value: {\"type\":\"A\"}",
        ),
    ];
    for (keywords, value, expected) in cases {
        let schema = schema(&object(&json!({ "f": keywords })));
        let mut found = messages(&schema, &json!({ "f": value }), None);
        found.retain(|message| message != NOT_CHECKED);
        assert_eq!(found, [expected], "{keywords}");
    }
}

#[test]
fn a_fraction_is_no_integer_but_a_whole_number_written_as_one_is() {
    let schema = schema(&object(&json!({ "f": { "type": "integer" } })));
    assert_eq!(messages(&schema, &json!({ "f": 1500.0 }), None), Vec::<String>::new());
    assert_eq!(
        messages(&schema, &json!({ "f": 1.5 }), None),
        [
            "f: Invalid value: \"number\": f in body must be of type integer: \"number\"",
            "<nil>: Invalid value: \"\": Checked value must be of type integer (default format) in f",
            NOT_CHECKED,
        ]
    );
}

#[test]
fn each_kind_of_error_has_its_reason() {
    let schema = schema(&json!({
        "type": "object", "required": ["a"], "properties": { "b": { "type": "integer" } },
    }));
    let reasons: Vec<_> =
        schema.validate(&json!({ "b": "" }), None).iter().map(|error| error.kind.reason()).collect();
    assert_eq!(reasons, ["FieldValueTypeInvalid", "FieldValueRequired", "FieldValueInvalid"]);
    assert_eq!(FieldErrorKind::TooMany.reason(), "FieldValueTooMany");
}

#[test]
fn rules_see_defaulted_values_and_speak_at_their_place() {
    let schema = schema(&object(&json!({
        "spec": {
            "type": "object",
            "properties": {
                "function": { "type": "string", "default": "x" },
                "count": { "type": "integer" },
                "map": { "type": "object", "additionalProperties": {
                    "type": "string", "maxLength": 9,
                    "x-kubernetes-validations": [{ "rule": "self != 'bad'", "message": "bad is bad" }] } },
            },
            "x-kubernetes-validations": [
                { "rule": "self.__function__ == 'x'", "message": "function must be x", "fieldPath": ".function" },
                { "rule": "self.count < 3", "message": "count must be below 3", "reason": "FieldValueForbidden" },
            ],
        },
    })));
    let mut value = json!({ "spec": { "count": 5, "map": { "k.1": "bad", "k2": "good" } } });
    schema.apply_defaults(&mut value);
    assert_eq!(
        messages(&schema, &value, None),
        ["spec: Forbidden: count must be below 3", "spec.map[k.1]: Invalid value: \"bad\": bad is bad"]
    );
    assert_eq!(
        messages(&schema, &json!({ "spec": { "function": "y", "count": 1 } }), None),
        ["spec.function: Invalid value: function must be x"]
    );
    assert_eq!(
        messages(&schema, &json!({ "spec": { "function": "x" } }), None),
        ["spec: Invalid value: \"object\": no such key: count evaluating rule: count must be below 3"]
    );
}

#[test]
fn rules_name_fields_as_on_the_server_and_keys_of_maps_as_they_are() {
    let schema = schema(&json!({
        "type": "object",
        "properties": {
            "a_b": { "type": "integer" },
            "x-y": { "type": "number" },
            "map": { "type": "object", "additionalProperties": { "type": "string" } },
        },
        "x-kubernetes-validations": [
            { "rule": "self.a_b == 1 && self.x__dash__y == 2.0", "message": "fields" },
            { "rule": "self.map['virtnet.dev/a-b'] == 'c'", "message": "keys" },
            { "rule": "self.metadata.name == 'n' && !has(self.metadata.labels) && self.kind == 'K'", "message": "meta" },
            { "rule": "!('unknown' in self)", "message": "unknown" },
        ],
    }));
    let object = json!({
        "kind": "K", "metadata": { "name": "n", "labels": {} },
        "a_b": 1, "x-y": 2, "map": { "virtnet.dev/a-b": "c" }, "unknown": 1,
    });
    assert_eq!(messages(&schema, &object, None), Vec::<String>::new());
}

#[test]
fn a_message_can_be_an_expression() {
    let schema = schema(&object(&json!({
        "a": { "type": "integer", "x-kubernetes-validations": [
            { "rule": "self < 3", "messageExpression": "'must be below 3, not ' + string(self)" },
            { "rule": "self < 4", "messageExpression": "''", "message": "must be below 4" },
            { "rule": "self < 5" },
        ] },
    })));
    assert_eq!(
        messages(&schema, &json!({ "a": 9 }), None),
        [
            "a: Invalid value: 9: must be below 3, not 9",
            "a: Invalid value: 9: must be below 4",
            "a: Invalid value: 9: failed rule: self < 5",
        ]
    );
}

#[test]
fn rules_are_left_out_where_the_structure_gives_them_nothing_to_rely_on() {
    let schema = schema(&json!({
        "type": "object",
        "properties": { "a": { "type": "integer", "minimum": 0 } },
        "x-kubernetes-validations": [{ "rule": "self.a != -1", "message": "never", "fieldPath": ".a" }],
    }));
    assert_eq!(
        messages(&schema, &json!({ "a": "text" }), None),
        ["a: Invalid value: \"string\": a in body must be of type integer: \"string\"", NOT_CHECKED]
    );
    let both =
        ["a: Invalid value: -1: a in body should be greater than or equal to 0", "a: Invalid value: never"];
    assert_eq!(messages(&schema, &json!({ "a": -1 }), None), both);
}

#[test]
fn transition_rules_compare_with_the_old_object_and_rest_on_creation() {
    let rule = json!([{ "rule": "self == oldSelf", "message": "fixed" }]);
    let schema = schema(&object(&json!({
        "a": { "type": "string", "maxLength": 9, "x-kubernetes-validations": rule },
        "list": {
            "type": "array", "maxItems": 9, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
            "items": { "type": "object", "properties": {
                "k": { "type": "string" },
                "v": { "type": "string", "maxLength": 9, "x-kubernetes-validations": rule },
            } },
        },
    })));
    let old = json!({ "a": "1", "list": [{ "k": "x", "v": "1" }, { "k": "y", "v": "2" }] });
    assert_eq!(messages(&schema, &old, None), Vec::<String>::new());
    let reordered = json!({ "a": "1", "list": [{ "k": "y", "v": "2" }, { "k": "new", "v": "3" }] });
    assert_eq!(messages(&schema, &reordered, Some(&old)), Vec::<String>::new());
    let changed = json!({ "a": "2", "list": [{ "k": "y", "v": "1" }] });
    assert_eq!(
        messages(&schema, &changed, Some(&old)),
        ["a: Invalid value: \"2\": fixed", "list[0].v: Invalid value: \"1\": fixed"]
    );
}

#[test]
fn an_update_is_forgiven_what_was_wrong_before_and_is_unchanged() {
    let schema = schema(&object(&json!({
        "spec": object(&json!({
            "bad": { "type": "integer", "maximum": 1 },
            "rule": { "type": "string", "maxLength": 9,
                "x-kubernetes-validations": [{ "rule": "self == 'x'", "message": "must be x" }] },
            "other": { "type": "integer" },
            "atomic": { "type": "array", "items": { "type": "integer", "maximum": 1 } },
            "set": { "type": "array", "items": { "type": "integer" }, "x-kubernetes-list-type": "set" },
            "map": { "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                "items": object(&json!({ "k": { "type": "string" }, "v": { "type": "integer", "maximum": 1 } })) },
        })),
    })));
    let spec = |more: Value| {
        let mut spec = json!({
            "bad": 5, "rule": "y", "atomic": [5, 6], "set": [1, 1], "map": [{ "k": "a", "v": 5 }, { "k": "b" }],
        });
        for (name, value) in more.as_object().unwrap() {
            spec[name] = value.clone();
        }
        json!({ "spec": spec })
    };
    let old = spec(json!({}));
    assert_eq!(messages(&schema, &old, None).len(), 6, "all of it is wrong on creation");
    assert_eq!(messages(&schema, &spec(json!({ "other": 1 })), Some(&old)), Vec::<String>::new());
    assert_eq!(messages(&schema, &spec(json!({ "bad": 6 })), Some(&old)).len(), 1);
    assert_eq!(messages(&schema, &spec(json!({ "rule": "z" })), Some(&old)).len(), 1);
    assert_eq!(
        messages(&schema, &spec(json!({ "atomic": [5, 6, 1] })), Some(&old)).len(),
        2,
        "entries of an atomic list correspond to nothing"
    );
    let reordered = spec(json!({ "map": [{ "k": "b", "v": 1 }, { "k": "a", "v": 5 }] }));
    assert_eq!(messages(&schema, &reordered, Some(&old)), Vec::<String>::new());
}

#[test]
fn what_can_not_be_checked_is_refused_when_the_schema_is_compiled() {
    let text = json!({ "type": "string" });
    let rule = |rule: &str| json!({ "type": "object", "x-kubernetes-validations": [{ "rule": rule }] });
    let cases = [
        (json!({ "allOf": [text] }), "schema of .f: allOf is not supported"),
        (json!({ "type": "string", "format": "ipv4" }), "schema of .f: format ipv4 is not supported"),
        (json!({ "type": "sting" }), "schema of .f: type must be the name of a JSON type"),
        (json!({ "type": "string", "pattern": "(" }), "schema of .f: pattern is no regular expression"),
        (json!({ "type": "string", "maxLength": -1 }), "schema of .f: maxLength must be a whole number"),
        (rule("self."), "schema of .f: rule"),
    ];
    for (keywords, expected) in cases {
        let error: CompileError = Schema::compile(&object(&json!({ "f": keywords }))).unwrap_err();
        assert!(error.to_string().starts_with(expected), "{keywords}: {error}");
    }
}
