//! Metadata as a server judges it on creation.

use serde_json::{Value, json};
use virtnet_crds::metadata::{Names, Scope, unknown_fields, validate};

fn messages(metadata: &Value, scope: Scope) -> Vec<String> {
    validate(Some(metadata), scope, Names::Subdomains).iter().map(ToString::to_string).collect()
}

#[test]
fn names_are_subdomains() {
    let names = ["a", "web-0", "a.b-c.d", "0", &"a".repeat(253)];
    for name in names {
        assert_eq!(messages(&json!({ "name": name }), Scope::Namespaced), Vec::<String>::new(), "{name}");
    }
    for name in ["A", "-a", "a-", "a..b", "a_b", "a/b", ".a", "ä"] {
        let found = messages(&json!({ "name": name }), Scope::Namespaced);
        assert_eq!(found.len(), 1, "{name}");
        let expected =
            format!("metadata.name: Invalid value: \"{name}\": a lowercase RFC 1123 subdomain must consist");
        assert!(found[0].starts_with(&expected), "{}", found[0]);
    }
    let long = "a".repeat(254);
    let expected = format!("metadata.name: Invalid value: \"{long}\": must be no more than 253 characters");
    assert_eq!(messages(&json!({ "name": long }), Scope::Namespaced), [expected]);
}

#[test]
fn a_name_or_the_beginning_of_one_is_required() {
    let expected = ["metadata.name: Required value: name or generateName is required"];
    for metadata in [json!({}), json!({ "name": "" }), json!({ "name": null })] {
        assert_eq!(messages(&metadata, Scope::Cluster), expected);
    }
    assert_eq!(validate(None, Scope::Cluster, Names::Subdomains).len(), 1);
    assert_eq!(messages(&json!({ "generateName": "web-" }), Scope::Cluster), Vec::<String>::new());
    assert_eq!(messages(&json!({ "generateName": "Web-" }), Scope::Cluster).len(), 1);
}

#[test]
fn a_namespace_belongs_only_to_namespaced_kinds_and_may_be_left_to_the_client() {
    let metadata = json!({ "name": "a", "namespace": "shop" });
    assert_eq!(messages(&metadata, Scope::Namespaced), Vec::<String>::new());
    assert_eq!(
        messages(&metadata, Scope::Cluster),
        ["metadata.namespace: Forbidden: not allowed on this type"]
    );
    assert_eq!(messages(&json!({ "name": "a" }), Scope::Namespaced), Vec::<String>::new());
    assert_eq!(messages(&json!({ "name": "a", "namespace": "a.b" }), Scope::Namespaced).len(), 1);
}

#[test]
fn names_are_subdomains_or_labels() {
    let held = |name, names| validate(Some(&json!({ "name": name })), Scope::Cluster, names).len();
    assert_eq!((held("a.b", Names::Subdomains), held("a.b", Names::Labels)), (0, 1));
    let long = "a".repeat(64);
    assert_eq!((held(&long, Names::Subdomains), held(&long, Names::Labels)), (0, 1));
}

#[test]
fn one_owner_at_most_is_the_controller() {
    let owner = |controller| json!({ "apiVersion": "v1", "kind": "A", "name": "a", "uid": "u", "controller": controller });
    let held = |one, other| {
        messages(&json!({ "name": "a", "ownerReferences": [owner(one), owner(other)] }), Scope::Cluster)
    };
    assert_eq!(held(true, false), Vec::<String>::new());
    assert!(held(true, true)[0].ends_with("Only one reference can have Controller set to true"));
}

#[test]
fn labels_annotations_and_finalizers_have_qualified_keys() {
    let good = json!({
        "name": "a",
        "labels": { "app": "web", "virtnet.dev/set": "A_b.c-1", "empty": "" },
        "annotations": { "Example.com/Anything": "any text\n at all" },
        "finalizers": ["virtnet.dev/function"],
    });
    assert_eq!(messages(&good, Scope::Cluster), Vec::<String>::new());
    let key = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
               alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
               '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
    let cases = [
        (json!({ "labels": { "-a": "" } }), vec![format!("metadata.labels: Invalid value: \"-a\": {key}")]),
        (
            json!({ "annotations": { "a/": "" } }),
            vec![
                "metadata.annotations: Invalid value: \"a/\": name part must be non-empty".to_owned(),
                format!("metadata.annotations: Invalid value: \"a/\": {key}"),
            ],
        ),
        (
            json!({ "finalizers": ["/a"] }),
            vec!["metadata.finalizers: Invalid value: \"/a\": prefix part must be non-empty".to_owned()],
        ),
    ];
    for (mut metadata, expected) in cases {
        metadata["name"] = json!("a");
        assert_eq!(messages(&metadata, Scope::Cluster), expected);
    }
    for key in ["a/b/c", "A/b", "a b", &"a".repeat(64)] {
        assert_eq!(
            messages(&json!({ "name": "a", "labels": { key: "" } }), Scope::Cluster).len(),
            1,
            "{key}"
        );
    }
    for value in ["a b", "-a", "ü", &"a".repeat(64)] {
        assert_eq!(
            messages(&json!({ "name": "a", "labels": { "k": value } }), Scope::Cluster).len(),
            1,
            "{value}"
        );
    }
}

#[test]
fn annotations_are_bounded_together() {
    let metadata = json!({ "name": "a", "annotations": { "k": "x".repeat(256 * 1024) } });
    let expected = ["metadata.annotations: Too long: may not be more than 262144 bytes"];
    assert_eq!(messages(&metadata, Scope::Cluster), expected);
}

#[test]
fn values_of_the_wrong_type_and_unknown_fields_are_named() {
    let metadata = json!({ "name": 5, "labels": { "a": 1 }, "finalizers": {}, "generation": "1" });
    assert_eq!(
        messages(&metadata, Scope::Cluster),
        [
            "metadata.finalizers: Invalid value: {}: must be a list",
            "metadata.generation: Invalid value: \"1\": must be a whole number",
            "metadata.labels.a: Invalid value: 1: must be a string",
            "metadata.name: Invalid value: 5: must be a string",
        ]
    );
    assert_eq!(unknown_fields(&json!({ "name": "a", "lables": {} })), ["metadata.lables"]);
    assert_eq!(messages(&json!([]), Scope::Cluster), ["metadata: Invalid value: []: must be an object"]);
}

#[test]
fn owners_are_named_in_full() {
    let owner =
        json!({ "apiVersion": "virtnet.dev/v1alpha1", "kind": "VirtnetDeviceSet", "name": "a", "uid": "" });
    let metadata = json!({ "name": "a", "ownerReferences": [owner] });
    let expected = ["metadata.ownerReferences.uid: Invalid value: \"\": must not be empty"];
    assert_eq!(messages(&metadata, Scope::Cluster), expected);
}
