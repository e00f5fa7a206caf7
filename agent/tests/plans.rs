//! Golden plans: each folder of `tests/plans` is a case, so that a new case is a folder of YAML and no new code.
//!
//! `devices.yaml` has the objects, `dpu.yaml` what is observed (see `support/fixture.rs` for the defaults), `plan.yaml`
//! what is to be done and how each device stands.

use std::path::{Path, PathBuf};
use std::{env, fs};

// What helps tests is itself only there for tests.
#[cfg(test)]
#[path = "support/fixture.rs"]
mod fixture;
#[cfg(test)]
#[path = "support/golden.rs"]
mod golden;

#[test]
fn every_case_is_planned_as_its_folder_says() {
    let cases = cases();
    assert!(!cases.is_empty(), "there is no case in tests/plans");
    let update = env::var_os("UPDATE_GOLDEN").is_some();
    let failures: Vec<_> = cases
        .iter()
        .filter_map(|folder| {
            let name = folder.file_name().unwrap_or_default().to_string_lossy();
            golden::run(folder, update).err().map(|why| format!("--- {name}\n{why}"))
        })
        .collect();
    assert!(
        failures.is_empty(),
        "{} of {} cases differ (- expected, + planned); where the new plan is the right one, run again with \
         UPDATE_GOLDEN=1 and review the change\n\n{}",
        failures.len(),
        cases.len(),
        failures.join("\n")
    );
}

fn cases() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plans");
    let mut folders: Vec<_> = fs::read_dir(&root)
        .unwrap_or_else(|error| panic!("read {}: {error}", root.display()))
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.is_dir())
        .collect();
    folders.sort();
    folders
}
