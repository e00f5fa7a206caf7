//! Random sequences of requests about a few objects by a few managers, from a seed.

use std::collections::BTreeMap;

use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use super::{Case, Step, Verb};

/// A sequence of this many requests.
#[must_use]
pub fn case(seed: u64, steps: usize) -> Case {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    Case { rule: format!("seed {seed}"), steps: (0..steps).map(|_| step(&mut rng)).collect() }
}

fn any<T: Copy>(rng: &mut ChaCha8Rng, choices: &[T]) -> T {
    *choices.choose(rng).unwrap_or(&choices[0])
}

fn step(rng: &mut ChaCha8Rng) -> Step {
    let verb = any(
        rng,
        &[
            Verb::Create,
            Verb::Create,
            Verb::Apply,
            Verb::Apply,
            Verb::Apply,
            Verb::Apply,
            Verb::Merge,
            Verb::Merge,
            Verb::Json,
            Verb::Update,
            Verb::Get,
            Verb::List,
            Verb::Delete,
        ],
    );
    let name = any(rng, &["a", "b", "c"]).to_owned();
    let on_status =
        rng.random_bool(0.25) && matches!(verb, Verb::Apply | Verb::Merge | Verb::Update | Verb::Get);
    let mut query = BTreeMap::new();
    let body = match verb {
        Verb::Create => whole(rng),
        Verb::Update => {
            let mut object = whole(rng);
            if rng.random_bool(0.7) {
                object["metadata"]["resourceVersion"] = format!("{{version {name}}}").into();
            }
            if on_status {
                object["status"] = status(rng);
            }
            object
        }
        Verb::Apply if on_status => json!({"status": status(rng)}),
        Verb::Apply => applied(rng),
        Verb::Merge if on_status => json!({"status": status(rng)}),
        Verb::Merge => merged(rng),
        Verb::Json => operations(rng),
        Verb::Delete if rng.random_bool(0.3) => {
            json!({"preconditions": {"resourceVersion": format!("{{version {name}}}")}})
        }
        _ => Value::Null,
    };
    if matches!(verb, Verb::Create | Verb::Apply | Verb::Merge | Verb::Json | Verb::Update) {
        if rng.random_bool(0.1) {
            query.insert("dryRun".into(), "All".into());
        }
        if rng.random_bool(0.4) {
            let mode = any(rng, &["Strict", "Warn", "Ignore"]);
            query.insert("fieldValidation".into(), mode.into());
        }
    }
    if verb == Verb::Apply && rng.random_bool(0.3) {
        query.insert("force".into(), "true".into());
    }
    if verb == Verb::List {
        let selectors = [
            ("labelSelector", "app=web"),
            ("labelSelector", "app in (web,db),!gone"),
            ("labelSelector", "app!=web"),
            ("fieldSelector", "spec.dpu=bf3-a"),
            ("fieldSelector", "metadata.name!=a"),
            ("limit", "2"),
        ];
        let (field, text) = any(rng, &selectors);
        query.insert(field.into(), text.into());
    }
    let name = if verb == Verb::List { String::new() } else { name };
    let sub = if on_status { "status".into() } else { String::new() };
    Step { sub, by: any(rng, &["alice", "bob", "carol"]).into(), query, body, ..Step::of(verb, name) }
}

fn function(rng: &mut ChaCha8Rng) -> Value {
    let choices = [
        json!({"hotplug": {}}),
        json!({"hotplug": {"uplink": "p0"}}),
        json!({"hotplug": {}}),
        json!({"static": {"pf": 0}}),
        json!({"vf": {"pf": 0, "vf": 3}}),
        json!({"static": {"pf": 0}, "hotplug": {}}),
    ];
    choices.choose(rng).cloned().unwrap_or_default()
}

/// Some fields of a spec, now and then with a value that is not allowed.
fn fields(rng: &mut ChaCha8Rng) -> Value {
    let mut spec = json!({});
    let choices: [(&str, &[Value]); 9] = [
        ("mtu", &[json!(1500), json!(9000), json!(9000), json!(67), json!("1500")]),
        ("mac", &[json!("0c:c4:7a:ff:22:93"), json!("02:00:00:00:00:01"), json!("01:00:00:00:00:00")]),
        ("queues", &[json!({"max": 3}), json!({"max": 3, "size": 1024}), json!({"size": 1000}), json!({})]),
        ("msix", &[json!(10), json!(4), json!(3)]),
        ("features", &[json!(["CSUM", "MQ"]), json!(["MTU"]), json!(["CSUM", "CSUM"]), json!(["NOPE"])]),
        ("linkState", &[json!("Up"), json!("Down"), json!("Sideways")]),
        ("rebindPolicy", &[json!("Never"), json!("IfIdle"), json!("Always")]),
        (
            "port",
            &[
                json!({"bridge": "ovsbr1"}),
                json!({"bridge": "ovsbr1", "tag": 100}),
                json!({"bridge": "ovsbr2", "trunks": [1, 2]}),
                json!({"bridge": "ovsbr1", "tag": 1, "trunks": [2]}),
                json!({"bridge": "ovsbr1", "externalIds": {"a": "b"}}),
            ],
        ),
        ("nonsense", &[json!(1), json!({"a": []})]),
    ];
    for (name, values) in choices {
        let likely = if name == "nonsense" { 0.04 } else { 0.25 };
        if rng.random_bool(likely) {
            // Most values are the allowed ones, which come first.
            let index = rng.random_range(0..values.len()).min(rng.random_range(0..values.len()));
            spec[name] = values[index].clone();
        }
    }
    spec
}

fn metadata(rng: &mut ChaCha8Rng) -> Value {
    let mut metadata = json!({});
    if rng.random_bool(0.3) {
        metadata["labels"] = json!({"app": any(rng, &["web", "db", "web", "not valid"])});
    }
    if rng.random_bool(0.2) {
        metadata["annotations"] = json!({any(rng, &["k", "l"]): any(rng, &["v", "w"])});
    }
    if rng.random_bool(0.1) {
        metadata["finalizers"] = json!([any(rng, &["example.com/a", "example.com/b"])]);
    }
    metadata
}

fn whole(rng: &mut ChaCha8Rng) -> Value {
    let mut spec = fields(rng);
    spec["dpu"] = any(rng, &["bf3-a", "bf3-b"]).into();
    spec["function"] = function(rng);
    json!({"metadata": metadata(rng), "spec": spec})
}

fn applied(rng: &mut ChaCha8Rng) -> Value {
    let mut object = json!({"metadata": metadata(rng), "spec": fields(rng)});
    if rng.random_bool(0.6) {
        object["spec"]["dpu"] = any(rng, &["bf3-a", "bf3-a", "bf3-b"]).into();
        object["spec"]["function"] = function(rng);
    }
    object
}

fn merged(rng: &mut ChaCha8Rng) -> Value {
    let mut object = json!({"metadata": metadata(rng), "spec": fields(rng)});
    if rng.random_bool(0.3) {
        object["spec"][any(rng, &["mtu", "queues", "port", "dpu", "features"])] = Value::Null;
    }
    if rng.random_bool(0.15) {
        object["metadata"] = json!({any(rng, &["labels", "annotations", "finalizers"]): null});
    }
    object
}

fn status(rng: &mut ChaCha8Rng) -> Value {
    let condition = |rng: &mut ChaCha8Rng| {
        json!({
            "type": any(rng, &["Ready", "FunctionReady", "PortReady"]),
            "status": any(rng, &["True", "False", "Maybe"]),
            "reason": any(rng, &["Ready", "NotYet"]),
            "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        })
    };
    let mut status = json!({"observedGeneration": rng.random_range(0..3)});
    if rng.random_bool(0.7) {
        let conditions: Vec<_> = (0..rng.random_range(0..3)).map(|_| condition(rng)).collect();
        status["conditions"] = conditions.into();
    }
    if rng.random_bool(0.3) {
        status["function"] = json!({"vuid": "VNETS1D0F0", "pf": 4});
    }
    status
}

fn operations(rng: &mut ChaCha8Rng) -> Value {
    let choices = [
        json!({"op": "add", "path": "/metadata/labels", "value": {"app": "web"}}),
        json!({"op": "add", "path": "/metadata/annotations/k", "value": "v"}),
        json!({"op": "replace", "path": "/spec/mtu", "value": 9000}),
        json!({"op": "add", "path": "/spec/mtu", "value": 1500}),
        json!({"op": "remove", "path": "/spec/mtu"}),
        json!({"op": "test", "path": "/spec/dpu", "value": "bf3-a"}),
        json!({"op": "add", "path": "/spec/features", "value": ["CSUM"]}),
        json!({"op": "add", "path": "/spec/features/-", "value": "MTU"}),
        json!({"op": "remove", "path": "/metadata/finalizers"}),
        json!({"op": "move", "from": "/spec/mtu", "path": "/spec/msix"}),
        json!({"op": "copy", "from": "/spec/port", "path": "/spec/queues"}),
    ];
    let count = rng.random_range(1..3);
    (0..count).map(|_| choices.choose(rng).cloned().unwrap_or_default()).collect::<Vec<_>>().into()
}
