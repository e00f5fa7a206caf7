//! What a guest does with a function: addresses, pings of a size, [`measure`] by iperf3, and its netdev's offloads.

use serde_json::Value;
use virtnet_tests::guest::Guest;
use virtnet_tests::guest::functions::InGuest;

/// What iperf3 sends, in bytes: more than fits into buffers, and not much for an emulated processor.
const SENT: u64 = 4 << 20;

/// Packets of this much payload go to an address and back, whole or not at all.
pub(crate) async fn reaches_with(guest: &mut Guest, address: &str, payload: u16) {
    let command = format!("ping -c 2 -W 20 -s {payload} {address}");
    guest.console().unwrap().sh(&command).await.unwrap();
}

/// Nothing comes back from an address, for three seconds.
pub(crate) async fn does_not_reach(guest: &mut Guest, address: &str) {
    let command = format!("ping -c 3 -W 1 {address}");
    let done = guest.console().unwrap().run(&command).await.unwrap();
    assert!(done.code == 1 && done.output.contains("0 packets received"), "{}", done.output);
}

/// Has iperf3 send from one guest to another one, at this address, and back: TCP, whole and in order, or it ends with an error.
pub(crate) async fn measure(from: &mut Guest, to: &mut Guest, address: &str) {
    for direction in [&[] as &[&str], &["--reverse"]] {
        let serve = format!(
            "iperf3 -s -1 -B {address} --forceflush >/tmp/iperf3 2>&1 & until grep -q listening /tmp/iperf3; do sleep 0.1; done"
        );
        to.console().unwrap().sh(&serve).await.unwrap();
        let command = format!("iperf3 -c {address} -J -n {SENT} {}", direction.join(" "));
        let output = from.console().unwrap().sh(&command).await.unwrap();
        let report: Value = serde_json::from_str(&output).unwrap_or_else(|error| panic!("{error}: {output}"));
        let received = report["end"]["sum_received"]["bytes"].as_u64();
        assert!(received.is_some_and(|received| received >= SENT), "{output}");
    }
}

/// Which offloads of a netdev are on, of those that take a function that offers them.
pub(crate) async fn offloads(guest: &mut Guest, there: &InGuest) -> Vec<String> {
    const ASKED: [&str; 2] = ["tx-checksumming", "tcp-segmentation-offload"];
    let command = format!("/usr/bin/ethtool -k {}", there.netdev);
    let output = guest.console().unwrap().sh(&command).await.unwrap();
    let on = |line: &str| {
        let (name, state) = line.split_once(':')?;
        let asked = ASKED.contains(&name.trim());
        (asked && state.trim_start().starts_with("on")).then(|| name.trim().to_owned())
    };
    output.lines().filter_map(on).collect()
}
