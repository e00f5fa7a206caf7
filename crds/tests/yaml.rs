//! YAML as kubectl reads it, the lines of fields, and what is refused.

#![allow(clippy::unwrap_used, reason = "what fails in a helper of a test fails the test")]

use serde_json::{Value, json};
use virtnet_crds::validate::validate_yaml;
use virtnet_crds::yaml::{Document, documents};

fn one(text: &str) -> Document {
    let mut documents = documents(text);
    assert_eq!(documents.len(), 1, "{text}");
    documents.remove(0).unwrap()
}

fn error(text: &str) -> String {
    documents(text).into_iter().find_map(Result::err).unwrap().to_string()
}

/// Each as kubectl 1.32 sends it.
fn scalars() -> Vec<(&'static str, Value)> {
    vec![
        ("0100", json!(64)),
        ("0o17", json!(15)),
        ("0x1F", json!(31)),
        ("0b101", json!(5)),
        ("-0b11", json!(-3)),
        ("08", json!(8)),
        ("1_500", json!(1500)),
        ("1500.0", json!(1500)),
        ("1.5e3", json!(1500)),
        ("1.", json!(1)),
        (".5", json!(0.5)),
        ("+7", json!(7)),
        ("-7", json!(-7)),
        ("- 7", json!([7])),
        ("1e400", json!("1e400")),
        ("0x", json!("0x")),
        ("--7", json!("--7")),
        ("9223372036854775807", json!(9_223_372_036_854_775_807_i64)),
        ("9223372036854775808", json!(9_223_372_036_854_775_808.0_f64)),
        ("1e21", json!(1e21)),
        ("12:30:45", json!("12:30:45")),
        ("00:00:00:00:00:01", json!("00:00:00:00:00:01")),
        ("2001-12-14", json!("2001-12-14")),
        ("2001-12-14t21:59:43Z", json!("2001-12-14t21:59:43Z")),
        ("yes", json!(true)),
        ("On", json!(true)),
        ("y", json!(true)),
        ("TRUE", json!(true)),
        ("tRUE", json!("tRUE")),
        ("off", json!(false)),
        ("N", json!(false)),
        ("~", json!(null)),
        ("Null", json!(null)),
        ("", json!(null)),
        ("'0100'", json!("0100")),
        ("\"yes\"", json!("yes")),
        ("!!str 5", json!("5")),
        ("!!int \"5\"", json!(5)),
        ("!!float 5", json!(5)),
        ("!!bool \"on\"", json!(true)),
        ("0c:c4:7a:ff:22:93", json!("0c:c4:7a:ff:22:93")),
        ("1.2.3", json!("1.2.3")),
        ("ovsbr1", json!("ovsbr1")),
    ]
}

#[test]
fn scalars_mean_what_kubectl_takes_them_for() {
    for (text, expected) in scalars() {
        let indent = if text.starts_with("- ") { "\n  " } else { " " };
        let found = one(&format!("a: 1\nf:{indent}{text}\n"));
        assert_eq!(found.value["f"], expected, "{text}");
    }
}

#[test]
fn keys_are_text_whatever_they_look_like() {
    let document = one("5: a\nyes: b\n1.5: c\n'7': d\n");
    assert_eq!(document.value, json!({ "5": "a", "true": "b", "1.5": "c", "7": "d" }));
}

#[test]
fn fields_know_their_lines_and_absent_ones_those_of_their_parents() {
    let document = one(
        "# a comment\nkind: A\nspec:\n  port:\n    trunks:\n    - 1\n    - 2\n    ids:\n      a.b/c: x\n",
    );
    let lines = [
        ("", 2),
        ("kind", 2),
        ("spec", 3),
        ("spec.port", 4),
        ("spec.port.trunks", 5),
        ("spec.port.trunks[1]", 7),
        ("spec.port.trunks[9]", 5),
        ("spec.port.ids.a.b/c", 9),
        ("spec.port.ids[a.b/c]", 9),
        ("spec.port.bridge", 4),
        ("spec.mac", 3),
        ("metadata.name", 2),
    ];
    for (path, line) in lines {
        assert_eq!(document.line_of(path), line, "{path}");
    }
}

#[test]
fn lines_count_from_the_beginning_of_the_file() {
    let text = "a: 1\n---\n\n# two\na: 2\nb: 3\n--- # three\na: 3\n";
    let lines: Vec<_> = documents(text).into_iter().map(|document| document.unwrap().line_of("a")).collect();
    assert_eq!(lines, [1, 5, 8]);
}

#[test]
fn empty_documents_are_left_out_and_a_broken_one_leaves_the_others() {
    let results = documents("---\n# nothing\n---\n---\na: [1\n---\na: 2\n");
    assert_eq!(results.len(), 2);
    assert!(results[0].is_err());
    assert_eq!(results[1].as_ref().unwrap().value, json!({ "a": 2 }));
    assert!(documents("").is_empty());
}

#[test]
fn aliases_and_merge_keys_are_replaced() {
    let text = "base: &base {a: 1, b: {c: 2}}\nsame: *base\nmerged:\n  <<: *base\n  b: own\nlist:\n  <<: [*base, {z: 9}]\n";
    let document = one(text);
    assert_eq!(
        document.value,
        json!({
            "base": { "a": 1, "b": { "c": 2 } },
            "same": { "a": 1, "b": { "c": 2 } },
            "merged": { "a": 1, "b": "own" },
            "list": { "a": 1, "b": { "c": 2 }, "z": 9 },
        })
    );
    assert_eq!((document.line_of("merged.a"), document.line_of("merged.b")), (4, 5));
}

#[test]
fn what_kubectl_would_read_otherwise_or_not_at_all_is_an_error_with_its_line() {
    let bomb: String = (1..9).fold("a0: &a0 [x]\n".to_owned(), |text, level| {
        let aliases = vec![format!("*a{}", level - 1); 9].join(", ");
        format!("{text}a{level}: &a{level} [{aliases}]\n")
    });
    let deep = format!("a: {}{}\n", "[".repeat(101), "]".repeat(101));
    let cases = [
        ("a: 1\nb: 2\na: 3\n", "line 3: key \"a\" is given twice, first on line 1"),
        ("a:\n  5: x\n  '5': y\n", "line 3: key \"5\" is given twice, first on line 2"),
        ("a: .inf\n", "line 1: .inf has no JSON form; put it in quotes"),
        ("a: !thing 5\n", "line 1: the tag !thing has no meaning in a manifest"),
        ("a: !!int five\n", "line 1: \"five\" is no !!int"),
        ("? [1]\n: a\n", "line 1: a key must be text"),
        ("~: a\n", "line 1: a key must be text; put it in quotes"),
        ("a: *b\n", "line 1: while parsing node, found unknown anchor"),
        ("a: 1\n...\nb: 2\n", "line 3: begin a further document with a line ---"),
        (
            "a: 1\n--- {b: 2}\n",
            "line 2: kubectl drops what stands behind --- on its line; put it on the next",
        ),
        (
            "b: &b {a: 1}\nc:\n  a: 2\n  <<: *b\n",
            "line 4: kubectl would replace key \"a\" by that of the merged map; put << before it",
        ),
        ("<<: 5\n", "line 1: << merges a map or a list of maps"),
        (deep.as_str(), "line 1: the document is larger or deeper than a manifest can be"),
    ];
    for (text, expected) in cases {
        assert_eq!(error(text), expected, "{text}");
    }
    assert!(error(&bomb).ends_with("the document is larger or deeper than a manifest can be"));
}

#[test]
fn a_file_with_a_broken_manifest_names_it_and_leaves_the_others_alone() {
    let good = |name: &str| {
        format!(
            "apiVersion: virtnet.dev/v1alpha1\nkind: VirtnetDevice\nmetadata: {{name: {name}}}\n\
             spec: {{dpu: a, function: {{hotplug: {{}}}}}}\n"
        )
    };
    let text = format!("{}---\nkind: [\n---\n{}---\n5\n", good("a"), good("b").replace("dpu", "dpus"));
    let found: Vec<String> = validate_yaml("m.yaml", &text).iter().map(ToString::to_string).collect();
    assert_eq!(found.len(), 4, "{found:#?}");
    assert!(found[0].starts_with("m.yaml:7: ") || found[0].starts_with("m.yaml:6: "), "{}", found[0]);
    assert_eq!(found[1], "m.yaml:11: unknown field \"spec.dpus\"");
    assert_eq!(
        found[2],
        "m.yaml:11: spec: Invalid value: dpu or dpuSelector is required: name a Dpu or select some by their labels"
    );
    assert_eq!(found[3], "m.yaml:13: a manifest is a map with apiVersion, kind and metadata");
}
