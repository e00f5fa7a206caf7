//! Any bytes for an OVSDB server's, and any for the kernel's events of netdevs.

use std::path::Path;
use std::time::Duration;

use virtnet_tests::fuzz::fuzz;

/// Ten seconds each; `make soak` takes ten minutes.
fn time() -> Duration {
    Duration::from_secs(std::env::var("VIRTNET_FUZZ_SECONDS").map_or(10, |text| text.parse().unwrap()))
}

#[expect(clippy::print_stdout, reason = "the figures, for whoever asks for them")]
fn run(corpus: &str, target: impl Fn(&[u8]) -> bool) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpora").join(corpus);
    let outcome = fuzz(&folder, 1, time(), target).unwrap();
    println!("{corpus}: {} inputs, {} of them taken for right", outcome.inputs, outcome.taken);
    // Neither is everything refused, for then nothing was looked into, nor is everything taken.
    assert!(outcome.taken > 0 && outcome.taken < outcome.inputs, "{outcome:?}");
}

#[test]
fn no_bytes_of_a_server_are_a_panic() {
    run("ovsdb", virtnet_ovsdb::fuzz::session);
}

#[test]
fn no_bytes_of_the_kernel_are_a_panic() {
    run("netlink", virtnet_netlink::fuzz::event);
}
