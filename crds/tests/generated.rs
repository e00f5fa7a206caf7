//! Objects made from seeds: what validation accepts, the types can hold.

#![allow(clippy::unwrap_used, reason = "what fails in a helper of a test fails the test")]

mod support;

use std::fmt::Debug;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use virtnet_crds::numbers::write_whole_numbers_as_integers;
use virtnet_crds::schema::Schema;
use virtnet_crds::{Dpu, VirtnetDevice, VirtnetDeviceSet, crd};

use support::generate::Generator;

const SEEDS: u64 = 1500;

/// How many of the objects were accepted.
fn accepted_objects_fit<T>(kind: &str) -> usize
where
    T: DeserializeOwned + Serialize + PartialEq + Debug,
{
    let crd = crd::all().into_iter().find(|crd| crd.spec.names.kind == kind).unwrap();
    let crd = crd::to_json(&crd).unwrap();
    let schema = Schema::compile(&crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]).unwrap();
    let mut accepted = 0;
    for seed in 0..SEEDS {
        let mistakes = [0.0, 0.005, 0.02][usize::try_from(seed % 3).unwrap()];
        let mut generator = Generator { rng: ChaCha8Rng::seed_from_u64(seed), mistakes };
        let object = generator.object(&crd);
        accepted += usize::from(fits::<T>(&schema, object, seed));
    }
    accepted
}

fn fits<T>(schema: &Schema, mut object: Value, seed: u64) -> bool
where
    T: DeserializeOwned + Serialize + PartialEq + Debug,
{
    schema.prune(&mut object);
    schema.apply_defaults(&mut object);
    if !schema.validate(&object, None).is_empty() {
        return false;
    }
    write_whole_numbers_as_integers(&mut object);
    let typed: T = serde_json::from_value(object.clone()).unwrap_or_else(|error| {
        panic!("seed {seed}: accepted, but the type can't hold it: {error}\n{object:#}")
    });
    let mut written = serde_json::to_value(&typed).unwrap();
    assert_eq!(schema.unknown_fields(&written), Vec::<String>::new(), "seed {seed}");
    schema.apply_defaults(&mut written);
    assert_eq!(schema.validate(&written, None), [], "seed {seed}: what the type writes is not accepted");
    let again: T = serde_json::from_value(written).unwrap();
    assert_eq!(again, typed, "seed {seed}: writing and reading changes the object");
    true
}

#[test]
fn accepted_devices_fit_the_type_and_survive_writing() {
    let accepted = accepted_objects_fit::<VirtnetDevice>("VirtnetDevice");
    assert!(accepted > 200, "only {accepted} of {SEEDS} were accepted");
}

#[test]
fn accepted_dpus_fit_the_type_and_survive_writing() {
    let accepted = accepted_objects_fit::<Dpu>("Dpu");
    assert!(accepted > 200, "only {accepted} of {SEEDS} were accepted");
}

#[test]
fn accepted_sets_fit_the_type_and_survive_writing() {
    let accepted = accepted_objects_fit::<VirtnetDeviceSet>("VirtnetDeviceSet");
    assert!(accepted > 200, "only {accepted} of {SEEDS} were accepted");
}

#[test]
fn updates_between_accepted_devices_are_refused_only_for_what_is_immutable() {
    let crd = crd::all().into_iter().find(|crd| crd.spec.names.kind == "VirtnetDevice").unwrap();
    let crd = crd::to_json(&crd).unwrap();
    let schema = Schema::compile(&crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]).unwrap();
    let (mut accepted, mut refused) = (0, 0);
    for seed in 0..SEEDS {
        let mut generator = Generator { rng: ChaCha8Rng::seed_from_u64(seed), mistakes: 0.0 };
        let mut old = generator.object(&crd);
        let mut new = generator.changed(&crd, &old);
        schema.apply_defaults(&mut old);
        schema.apply_defaults(&mut new);
        if !schema.validate(&old, None).is_empty() || !schema.validate(&new, None).is_empty() {
            continue;
        }
        assert_eq!(schema.validate(&old, Some(&old)), [], "seed {seed}: writing it again as it is");
        let paths: Vec<String> =
            schema.validate(&new, Some(&old)).into_iter().map(|error| error.path).collect();
        let changed = |name: &str| old["spec"][name] != new["spec"][name];
        let has_function = old["status"]["function"].is_object();
        let mut expected = Vec::new();
        expected.extend(changed("function").then_some("spec.function"));
        expected.extend((changed("dpu") && has_function).then_some("spec.dpu"));
        assert_eq!(paths, expected, "seed {seed}");
        if paths.is_empty() { accepted += 1 } else { refused += 1 }
    }
    assert!(accepted > 50 && refused > 50, "{accepted} updates were accepted, {refused} refused");
}
