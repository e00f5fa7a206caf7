//! Worlds made from seeds. They are small and their values few, so that MACs, places, SF numbers and port names collide
//! all the time.

use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use virtnet_crds::mac_label;
use virtnet_crds::{Dpu, DpuSpec, FUNCTION_FINALIZER};
use virtnet_model::PfId;

use crate::fixture::{DPU, DpuFixture, World};

/// The world of a seed.
pub(crate) fn world(seed: u64) -> World {
    let (fixture, spec, objects) = parts(seed);
    World::new(&fixture, spec, objects)
}

/// What it is made of: what is observed, and the objects.
pub(crate) fn parts(seed: u64) -> (DpuFixture, DpuSpec, Vec<Value>) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let count = rng.random_range(0..6);
    let objects: Vec<_> = (0..count).map(|index| object(&mut rng, index)).collect();
    let fixture = serde_json::from_value(dpu(&mut rng, count)).expect("the fixture is well formed");
    let object: Dpu = serde_json::from_value(json!({
        "apiVersion": "virtnet.dev/v1alpha1",
        "kind": "Dpu",
        "metadata": {"name": DPU},
        "spec": {"host": {"sriov": if rng.random_bool(0.3) { json!([{"pf": 0, "numVfs": 2}]) } else { json!([]) }}},
    }))
    .expect("the Dpu is well formed");
    (fixture, object.spec, objects)
}

fn mac(rng: &mut ChaCha8Rng) -> String {
    format!("0c:c4:7a:ff:22:{:02x}", rng.random_range(1..6))
}

fn pick<T: Clone>(rng: &mut ChaCha8Rng, of: &[T]) -> T {
    of.choose(rng).expect("there is something to choose").clone()
}

fn any_or_none<T: Clone + Into<Value>>(rng: &mut ChaCha8Rng, of: &[T]) -> Value {
    let value = pick(rng, of);
    maybe(rng, value)
}

/// The value, or in most cases none.
fn maybe(rng: &mut ChaCha8Rng, value: impl Into<Value>) -> Value {
    if rng.random_bool(0.25) { value.into() } else { Value::Null }
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => map
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key, without_nulls(value)))
            .collect(),
        other => other,
    }
}

fn object(rng: &mut ChaCha8Rng, index: u32) -> Value {
    let function = match rng.random_range(0..5) {
        0 => json!({"static": {"pf": rng.random_range(0..2)}}),
        1 => json!({"vf": {"pf": 0, "vf": rng.random_range(0..2)}}),
        _ => json!({"hotplug": {
            "sfNumber": any_or_none(rng, &[2000, 2001]),
            "uplink": any_or_none(rng, &["p0", "p1"]),
        }}),
    };
    let wanted_mac = mac(rng);
    let mut notes: Vec<_> = (0..rng.random_range(0..2)).map(|_| mac(rng)).collect();
    if rng.random_bool(0.6) {
        notes.push(wanted_mac.clone());
    }
    let known = rng.random_bool(0.5);
    let sf = pick(rng, &[2000, 2001, 2002]);
    without_nulls(json!({
        "apiVersion": "virtnet.dev/v1alpha1",
        "kind": "VirtnetDevice",
        "metadata": {
            "namespace": "default",
            "name": format!("web-{index}"),
            "uid": format!("u-{index}"),
            "generation": 1,
            "creationTimestamp": format!("2026-01-01T00:0{}:00Z", rng.random_range(0..4)),
            "deletionTimestamp": maybe(rng, "2026-01-02T00:00:00Z"),
            "finalizers": if rng.random_bool(0.8) { json!([FUNCTION_FINALIZER]) } else { json!([]) },
            "labels": notes.iter().map(|mac| (mac_label(mac), json!(""))).collect::<Value>(),
        },
        "spec": {
            "dpu": DPU,
            "function": function,
            "mac": if rng.random_bool(0.8) { json!(wanted_mac) } else { Value::Null },
            "mtu": if rng.random_bool(0.05) { json!("broken") } else { any_or_none(rng, &[1500, 9000]) },
            "queues": {"max": any_or_none(rng, &[2, 3, 9, 40])},
            "msix": any_or_none(rng, &[2, 4, 10, 99]),
            "linkState": maybe(rng, "Down"),
            "rebindPolicy": any_or_none(rng, &["IfIdle", "Always"]),
            "port": if rng.random_bool(0.8) {
                json!({"bridge": pick(rng, &["ovsbr1", "ovsbr1", "ovsbr2"])})
            } else {
                Value::Null
            },
        },
        "status": {
            "observedGeneration": 1,
            "function": known.then(|| json!({
                "vuid": pick(rng, &["VNETS1D0F0", "VNETS2D0F0"]),
                "type": pick(rng, &["HotPlug", "HotPlug", "VF"]),
                "mac": mac(rng),
            })),
            "representor": known.then(|| json!({"name": format!("en3f0pf0sf{sf}"), "sfNumber": sf})),
        },
    }))
}

fn dpu(rng: &mut ChaCha8Rng, devices: u32) -> Value {
    let functions = functions(rng);
    let owner = |rng: &mut ChaCha8Rng| {
        let index = rng.random_range(0..devices + 2);
        let dpu = pick(rng, &[DPU, DPU, DPU, "dpu-9"]);
        json!({"device": format!("default/web-{index}"), "uid": format!("u-{index}"), "dpu": dpu})
    };
    let names = ["en3f0pf0sf1000", "en3f0pf0sf2000", "en3f0pf0sf2001", "en3f0pf0sf2002", "en3f0pf0sf3000"];
    let mut ports = serde_json::Map::new();
    let mut suspects = serde_json::Map::new();
    let mut links = serde_json::Map::new();
    for name in names {
        let marks = owner(rng);
        if rng.random_bool(0.5) {
            let ofport = pick(rng, &[-1, 0, 1, 1, 1]);
            let ours = rng.random_bool(0.8);
            let port =
                json!({"owner": ours.then_some(marks.clone()), "ofport": ofport, "tag": maybe(rng, 7)});
            ports.insert(name.into(), without_nulls(port));
        }
        if rng.random_bool(0.3) {
            suspects.insert(name.into(), marks);
        }
        match rng.random_range(0..8) {
            0 => drop(links.insert(name.into(), Value::Null)),
            1 => drop(links.insert(name.into(), json!({"up": false, "mtu": 4000}))),
            2 => drop(links.insert(name.into(), json!({"physPortName": "pf0sf7"}))),
            _ => {}
        }
    }
    let mut busy = Vec::new();
    let mut held = Vec::new();
    let mut unlooked = Vec::new();
    for index in 0..devices {
        let uid = format!("u-{index}");
        if rng.random_bool(0.2) {
            unlooked.push(uid.clone());
        }
        for part in ["Object", "Function", "Representor", "Port", "Mac"] {
            match rng.random_range(0..20) {
                0 => busy.push(json!({"uid": uid, "part": part})),
                1 => {
                    let reason = if part == "Mac" { "MacClaimed" } else { "StepFailed" };
                    held.push(json!({"uid": uid, "part": part, "reason": reason, "message": "no"}));
                }
                _ => {}
            }
        }
    }
    let mut unavailable = serde_json::Map::new();
    for part in ["controller", "switch", "links", "host"] {
        if rng.random_bool(0.04) {
            unavailable.insert(part.into(), json!("down"));
        }
    }
    let hotplugged = functions.iter().filter(|function| function["kind"] == "hotplug").count();
    json!({
        "limits": {
            "later": rng.random_bool(0.3),
            "emulation": rng.random_bool(0.97),
            "slots": rng.random_range(hotplugged..hotplugged + 3),
            "staticPfs": 2,
            "vfsPerPf": 2,
            "sfs": {"p0": functions.len() + rng.random_range(0..3), "p1": 1},
            "vfMsix": pick(rng, &[4, 10]),
        },
        "functions": functions,
        "prepared": if rng.random_bool(0.2) { json!([{"pf": 0, "vf": 0, "mac": mac(rng)}]) } else { json!([]) },
        "updating": rng.random_bool(0.05),
        "ports": ports,
        "links": links,
        "host": {"power": pick(rng, &["running", "running", "booting", "off", "unknown"])},
        "unavailable": unavailable,
        "busy": busy,
        "held": held,
        "unlooked": unlooked,
        "suspects": suspects,
    })
}

fn functions(rng: &mut ChaCha8Rng) -> Vec<Value> {
    let mut functions = Vec::new();
    let places: [(&str, u32, Option<u32>); 6] = [
        ("static", 0, None),
        ("static", 1, None),
        ("vf", 0, Some(0)),
        ("vf", 0, Some(1)),
        ("hotplug", 2, None),
        ("hotplug", 3, None),
    ];
    for (kind, pf, vf) in places {
        if rng.random_bool(0.6) {
            functions.push(without_nulls(json!({
                "kind": kind,
                "pf": PfId::try_from(pf).expect("the index is small"),
                "vf": vf,
                "mac": mac(rng),
                "mtu": maybe(rng, 9000),
                "queues": maybe(rng, 3),
                "unseen": rng.random_bool(0.2),
                "inUse": rng.random_bool(0.4),
                "withoutSf": rng.random_bool(0.05),
            })));
        }
    }
    functions
}
