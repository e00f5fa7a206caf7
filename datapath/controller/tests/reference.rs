//! The page of `docs/` that keeps step with the keys of `virtnet.conf`. `UPDATE_GOLDEN=1` writes it anew.

use std::path::Path;
use std::{env, fs};

use virtnet_controller::conf;

#[test]
fn the_committed_reference_is_that_of_the_keys() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/virtnet-conf.md");
    let text = conf::reference();
    if env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&page, &text).unwrap();
    }
    assert!(
        fs::read_to_string(&page).unwrap_or_default() == text,
        "docs/virtnet-conf.md is out of date; run: make generate"
    );
}
