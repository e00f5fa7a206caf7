//! The pages of `docs/` that keep step with the code: the generated reference, and what to do about each reason.

#![allow(clippy::unwrap_used, reason = "what fails in a helper of a test fails the test")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use virtnet_crds::{Outlook, Reason, reference};

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

/// The entries of the page by heading: the lines up to the next heading of any level.
fn entries(page: &str) -> Vec<(&str, Vec<&str>)> {
    let mut entries: Vec<(&str, Vec<&str>)> = Vec::new();
    let mut is_entry = false;
    for line in page.lines() {
        if line.starts_with('#') {
            is_entry = line.starts_with("### ");
            entries.extend(line.strip_prefix("### ").map(|heading| (heading, Vec::new())));
        } else if let (true, Some((_, lines))) = (is_entry, entries.last_mut()) {
            lines.push(line);
        }
    }
    entries
}

/// A heading of one word is that of a reason; others tell of what has none.
fn is_of_a_reason(heading: &str) -> bool {
    !heading.contains(' ')
}

#[test]
fn every_reason_has_one_heading_and_no_heading_is_of_another() {
    let page = docs("troubleshooting.md");
    let mut headings: BTreeMap<&str, usize> = Reason::ALL.iter().map(|reason| (reason.as_str(), 0)).collect();
    for (heading, _) in entries(&page).into_iter().filter(|(heading, _)| is_of_a_reason(heading)) {
        let count = headings.get_mut(heading);
        *count.unwrap_or_else(|| {
            panic!("docs/troubleshooting.md has a heading for {heading}, which is no reason")
        }) += 1;
    }
    for (reason, count) in headings {
        assert_eq!(count, 1, "headings for {reason} in docs/troubleshooting.md");
    }
}

#[test]
fn each_reason_is_told_to_go_on_as_its_outlook_has_it() {
    let page = docs("troubleshooting.md");
    for (heading, lines) in entries(&page) {
        let Some(reason) = Reason::ALL.iter().find(|reason| reason.as_str() == heading) else { continue };
        for part in ["- **Means:**", "- **Look:**", "- **Do:**", "- **Goes on by itself:**"] {
            let count = lines.iter().filter(|line| line.starts_with(part)).count();
            assert_eq!(count, 1, "{heading}: lines that begin with {part:?}");
        }
        let goes_on = lines.iter().find_map(|line| line.strip_prefix("- **Goes on by itself:** ")).unwrap();
        let expected = match reason.outlook() {
            Outlook::Ready => "nothing is left to do",
            Outlook::Working => "yes",
            Outlook::Waiting => "once ",
            Outlook::Stalled => "no",
        };
        assert!(
            goes_on.starts_with(expected),
            "{heading}: it goes on by itself {goes_on:?}, not {expected:?}"
        );
    }
}
