//! The pages of `docs/` that keep step with the code: the generated reference.

#![allow(clippy::unwrap_used, reason = "what fails in a helper of a test fails the test")]

use std::fs;
use std::path::Path;

use virtnet_crds::reference;

fn docs(page: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(page);
    fs::read_to_string(&path).unwrap_or_default()
}

#[test]
fn the_committed_reference_is_that_of_the_types() {
    let command = "cargo run -p virtnet-crds --bin crdgen";
    assert!(
        docs("reference.md") == reference::page().unwrap(),
        "docs/reference.md is out of date; run: {command}"
    );
}
