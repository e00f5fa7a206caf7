//! The text of `docs/virtnet-conf.md`: what a `virtnet.conf` may say, key by key, from [`KEYS`]. Pure.

use std::fmt::Write;

use virtnet_model::Generation;

use super::keys::{KEYS, Key, Kind};

/// The guide's two examples (section 1.1.1).
pub(crate) const PORTS: &str = r#"{
  "ib_dev_p0": "mlx5_0",
  "ib_dev_p1": "mlx5_1",
  "ib_dev_for_static_pf": "mlx5_0",
  "is_lag": 0,
  "pf_mac": "00:11:22:33:44:55",
  "recovery": 1,
  "sf_pool_percent": 0,
  "sf_pool_force_destroy": 0
}"#;
pub(crate) const LAG: &str = r#"{
  "ib_dev_lag": "mlx5_bond_0",
  "ib_dev_for_static_pf": "mlx5_bond_0",
  "is_lag": 1,
  "pf_mac": "00:11:22:33:44:55",
  "recovery": 1,
  "sf_pool_percent": 0,
  "sf_pool_force_destroy": 0
}"#;
/// One of the later generation, with objects.
pub(crate) const LATER: &str = r#"{
  "generation": "later",
  "static_pf": {"mac_base": "00:11:22:33:44:55"},
  "vf": {"mac_base": "00:11:22:33:55:00", "vfs_per_pf": 126},
  "single_port": 1
}"#;
/// One with mistakes, and what is said of them.
pub(crate) const WRONG: &str = r#"{
  "is_lag": 2,
  "turbo": 1,
  "static_pf": {}
}"#;
pub(crate) const WHY: &[&str] = &[
    "line 2: is_lag: 2 is not 0 or 1",
    "line 3: turbo: there is no such key; there are generation, ib_dev_p0, …",
    "line 4: static_pf: a key of the later generation: set generation to \"later\" first",
];

const BEGINNING: &str = "\
# virtnet.conf

<!-- Generated: `make generate` writes it. Change datapath/controller/src/conf instead. -->

The configuration of the controller service `virtnetd`, by `--config FILE`: one JSON object, of which every key is optional. Without the
option each setting has its default. The file is read when the service starts, and again when another worker is asked for (`systemctl
reload`, `virtnet restart`, a live update): what can't be used then is told by the log, and what was read before holds.
[controller.md](controller.md) tells of the service.

The file is checked in full before anything of it is used. What is unknown, of the wrong kind, out of range, there twice, or
contradicts something else is told by line and key, all of it at once, and the service does not start. `virtnetd check FILE` says the
same without starting it, and exits with 1; with 0 and no word where nothing is wrong. What does not go with the firmware, such as a
vfs_per_pf above VIRTIO_NET_EMULATION_NUM_VF, shows at the start: the log and every answer tell it, and nothing is served until it is mended.
";

/// The whole page.
pub fn reference() -> String {
    let mut page = BEGINNING.to_owned();
    page.push_str("\n## Keys\n\n| key | what it may be | generation | what it is for |\n|---|---|---|---|\n");
    rows(&mut page, "", KEYS, None);
    page.push_str("\n## Examples\n\nThe guide's, with each port by itself:\n\n");
    block(&mut page, PORTS);
    page.push_str("\nThe guide's, with a bond:\n\n");
    block(&mut page, LAG);
    page.push_str("\nOf the later generation, with MACs for static PFs and for the VFs of each:\n\n");
    block(&mut page, LATER);
    page.push_str("\nOne with mistakes:\n\n");
    block(&mut page, WRONG);
    page.push_str("\nWhat is said of it, there in one line:\n\n");
    block(&mut page, &WHY.join("\n"));
    page
}

/// A row for each key, and below an object one for each of its own. These are of its generation.
fn rows(page: &mut String, of: &str, keys: &[Key], only: Option<Generation>) {
    for Key { name, only: own, kind, about } in keys {
        let only = own.or(only);
        let generation = match only {
            None => "both",
            Some(Generation::Guide) => "guide",
            Some(Generation::Later) => "later",
        };
        let path = format!("{of}{name}");
        // To write to a text does not fail.
        let _ = writeln!(page, "| `{path}` | {} | {generation} | {about} |", what(kind));
        if let Kind::Object(keys) = kind {
            rows(page, &format!("{path}."), keys, only);
        }
    }
}

fn what(kind: &Kind) -> String {
    match kind {
        Kind::Flag => "0 or 1".to_owned(),
        Kind::Number(min, max) => format!("{min} to {max}"),
        Kind::Word(words) => words.iter().map(|word| format!("`{word:?}`")).collect::<Vec<_>>().join(" or "),
        Kind::Device => "an RDMA device, such as `\"mlx5_0\"`".to_owned(),
        Kind::Mac => "a unicast MAC, such as `\"0c:c4:7a:ff:22:93\"`".to_owned(),
        Kind::Features => "feature bits, such as `\"0x10020\"`".to_owned(),
        Kind::Object(_) => "an object".to_owned(),
    }
}

fn block(page: &mut String, text: &str) {
    for line in text.lines() {
        let _ = writeln!(page, "    {line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conf::Conf;

    #[test]
    fn the_examples_are_taken_and_the_mistakes_are_told_as_is_shown() {
        for example in [PORTS, LAG, LATER] {
            assert!(Conf::parse(example).is_ok(), "{example}");
        }
        let told: Vec<_> = Conf::parse(WRONG).unwrap_err().0.iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), WHY.len(), "{told:?}");
        for (told, shown) in told.iter().zip(WHY) {
            assert!(told.starts_with(shown.trim_end_matches('…')), "{told}");
        }
    }
}
