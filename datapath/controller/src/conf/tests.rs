use super::reference::{LAG, PORTS};
use super::*;

/// What is wrong with a text, a line each.
fn wrong(text: &str) -> Vec<String> {
    Conf::parse(text).unwrap_err().0.iter().map(ToString::to_string).collect()
}

/// A file of the later generation with these members.
fn later(members: &str) -> String {
    format!("{{\"generation\": \"later\",\n{members}}}")
}

#[test]
fn the_guides_examples_are_read() {
    let ports = Conf::parse(PORTS).unwrap();
    assert_eq!(ports.engine.uplinks, UplinkMode::Ports { static_pfs: EswitchPort::P0 });
    assert_eq!(ports.engine.static_pf.mac_base.unwrap().to_string(), "00:11:22:33:44:55");
    assert!(ports.recovery);
    assert_eq!(Conf::parse(LAG).unwrap().engine.uplinks, UplinkMode::Lag);
}

#[test]
fn an_empty_object_is_the_default() {
    assert_eq!(Conf::parse("{}").unwrap(), Conf::default());
}

#[test]
fn each_setting_arrives() {
    let conf = Conf::parse(
        r#"{"ib_dev_p0": "mlx5_2", "ib_dev_p1": "mlx5_3", "ib_dev_for_static_pf": "mlx5_3", "recovery": 0,
            "sf_pool_percent": 5, "sf_pool_force_destroy": 1}"#,
    );
    let conf = conf.unwrap();
    assert_eq!(conf.engine.uplinks, UplinkMode::Ports { static_pfs: EswitchPort::P1 });
    assert_eq!((conf.rdma_devices.p0.as_str(), conf.rdma_devices.p1.as_str()), ("mlx5_2", "mlx5_3"));
    assert_eq!(conf.engine.sf_pool, SfPool { percent: 5, force_destroy: true });
    assert!(!conf.recovery);

    let conf = Conf::parse(&later(
        r#""static_pf": {"mac_base": "00:11:22:33:44:55", "features": "0x10020"},
           "vf": {"mac_base": "00:11:22:33:55:00", "features": "0x400020", "vfs_per_pf": 126},
           "single_port": 1, "packed_vq": 1, "mrg_rxbuf": 0, "lm_prov": "kernel", "dpa_core_start": 0,
           "dpa_core_end": 10, "eth_vq_workers": 24, "admin_cmd_workers": 16"#,
    ));
    let EngineConfig { generation, uplinks, static_pf, vf, default_features, .. } = conf.unwrap().engine;
    assert_eq!((generation, uplinks), (Generation::Later, UplinkMode::Single));
    assert_eq!(static_pf.mac_base.unwrap().to_string(), "00:11:22:33:44:55");
    assert_eq!(static_pf.features.unwrap().to_string(), "MAC,STATUS");
    assert_eq!(vf.macs.unwrap().vfs_per_pf, 126);
    assert_eq!(vf.features.unwrap().to_string(), "MAC,MQ");
    assert!(default_features.contains(Feature::RingPacked) && !default_features.contains(Feature::MrgRxbuf));
    let flat = Conf::parse(&later(r#""mac_base": "00:11:22:33:44:55""#)).unwrap().engine.static_pf;
    assert_eq!(flat.mac_base.unwrap().to_string(), "00:11:22:33:44:55");
}

#[test]
fn all_that_is_wrong_is_told_at_once_by_line_and_key() {
    let text = "{\n\"is_lag\": true,\n\"sf_pool_percent\": 101,\n\n\"pf_mac\": \"01:00:5e:00:00:01\",\n\"turbo\": 1,\n\"is_lag\": 0\n}";
    let told = wrong(text);
    assert_eq!(told[0], "line 2: is_lag: true is not 0 or 1");
    assert_eq!(told[1], "line 3: sf_pool_percent: 101 is not a number from 0 to 100");
    assert_eq!(
        told[2],
        "line 5: pf_mac: \"01:00:5e:00:00:01\" is not a unicast MAC address such as \"0c:c4:7a:ff:22:93\""
    );
    assert!(
        told[3].starts_with("line 6: turbo: there is no such key; there are generation, ib_dev_p0,"),
        "{}",
        told[3]
    );
    assert_eq!(told[4], "line 7: is_lag: it is there twice");
    assert_eq!(told.len(), 5);
}

#[test]
fn values_of_the_wrong_kind_are_refused() {
    let cases = [
        (r#""recovery": 2"#, "recovery: 2 is not 0 or 1"),
        (r#""recovery": "1""#, "recovery: \"1\" is not 0 or 1"),
        (r#""sf_pool_percent": -1"#, "sf_pool_percent: -1 is not a number from 0 to 100"),
        (r#""sf_pool_percent": 1.5"#, "sf_pool_percent: 1.5 is not a number from 0 to 100"),
        (r#""sf_pool_percent": null"#, "sf_pool_percent: null is not a number from 0 to 100"),
        (r#""eth_vq_workers": 25"#, "eth_vq_workers: 25 is not a number from 1 to 24"),
        (
            r#""ib_dev_p0": "../mlx5""#,
            "ib_dev_p0: \"../mlx5\" is not the name of an RDMA device such as \"mlx5_0\"",
        ),
        (r#""lm_prov": "user""#, "lm_prov: \"user\" is not \"kernel\""),
        (r#""vf": 1"#, "vf: invalid type: integer `1`, expected an object"),
        (
            r#""vf": {"features": "CSUM"}"#,
            "vf.features: \"CSUM\" is not feature bits in hexadecimal such as \"0x10020\"",
        ),
        (
            r#""vf": {"features": "0x+10020"}"#,
            "vf.features: \"0x+10020\" is not feature bits in hexadecimal such as \"0x10020\"",
        ),
        (r#""vf": {"features": "0x10"}"#, "vf.features: \"0x10\": bit 4 is no feature of virtio-net"),
        (r#""vf": {"turbo": 1}"#, "vf.turbo: there is no such key; there are mac_base, features, vfs_per_pf"),
    ];
    for (member, why) in cases {
        assert_eq!(wrong(&later(member)), [format!("line 2: {why}")]);
    }
}

#[test]
fn what_does_not_go_together_is_refused() {
    let cases = [
        (r#""is_lag": 1, "single_port": 1"#, "single_port: it excludes is_lag 1"),
        (
            r#""is_lag": 1, "ib_dev_p1": "mlx5_1""#,
            "ib_dev_p1: with is_lag 1 SFs are made on ib_dev_lag: leave it out",
        ),
        (
            r#""ib_dev_lag": "mlx5_bond_0", "ib_dev_p0": "mlx5_0""#,
            "ib_dev_lag: without is_lag 1 SFs are made on ib_dev_p0 and ib_dev_p1: leave it out",
        ),
        (r#""ib_dev_p0": "mlx5_1""#, "ib_dev_p0: mlx5_1 is the device of the other port"),
        (
            r#""is_lag": 1, "ib_dev_for_static_pf": "mlx5_0""#,
            "ib_dev_for_static_pf: mlx5_0 is not mlx5_bond_0",
        ),
        (r#""ib_dev_for_static_pf": "mlx5_7""#, "ib_dev_for_static_pf: mlx5_7 is not mlx5_0 or mlx5_1"),
        (r#""dpa_core_start": 5, "dpa_core_end": 4"#, "dpa_core_end: 4 is below dpa_core_start 5"),
        (
            r#""mac_base": "00:11:22:33:44:55", "static_pf": {"mac_base": "00:11:22:33:44:55"}"#,
            "mac_base: it is the same as static_pf.mac_base: leave one out",
        ),
        (r#""vf": {"mac_base": "00:11:22:33:44:55"}"#, "vf.mac_base: it needs vf.vfs_per_pf"),
    ];
    for (members, why) in cases {
        assert_eq!(wrong(&later(members)), [format!("line 2: {why}")]);
    }
}

#[test]
fn keys_are_those_of_the_generation() {
    assert_eq!(
        wrong("{\n\"vf\": {}}"),
        ["line 2: vf: a key of the later generation: set generation to \"later\" first"]
    );
    assert_eq!(
        wrong(&later(r#""pf_mac": "00:11:22:33:44:55""#)),
        ["line 2: pf_mac: a key of the guide's generation: it is static_pf.mac_base now"]
    );
    assert_eq!(
        wrong(r#"{"generation": "newest"}"#),
        ["line 1: generation: \"newest\" is not \"guide\" or \"later\""]
    );
}

#[test]
fn a_text_that_is_no_json_is_refused_by_line() {
    assert_eq!(wrong(""), ["line 1: EOF while parsing a value"]);
    assert_eq!(wrong("{\n\"is_lag\": 1,\n}"), ["line 3: trailing comma"]);
    assert_eq!(wrong("[]"), ["line 1: invalid type: sequence, expected an object"]);
    assert_eq!(wrong("{}\n{}"), ["line 2: trailing characters"]);
}

#[test]
fn no_cut_and_no_changed_byte_is_taken_for_something_else_than_it_says() {
    // Cut short it is no object any more.
    for length in 0..PORTS.len() {
        assert!(Conf::parse(&PORTS[..length]).is_err(), "the first {length} bytes");
    }
    // A changed bit is refused by line, or says something that is allowed.
    let mut refused = 0;
    for index in 0..PORTS.len() {
        for bit in 0..8 {
            let mut bytes = PORTS.as_bytes().to_vec();
            bytes[index] ^= 1 << bit;
            let Ok(text) = String::from_utf8(bytes) else { continue };
            if let Err(ConfError(problems)) = Conf::parse(&text) {
                refused += 1;
                assert!(problems.iter().all(|problem| problem.line.is_some()), "{problems:?}");
            }
        }
    }
    assert!(refused > PORTS.len(), "{refused}");
}

#[test]
fn keys_are_listed_once_and_explained() {
    fn check(keys: &[Key]) {
        let mut names: Vec<_> = keys.iter().map(|key| key.name).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
        for key in keys {
            assert!(key.about.ends_with('.'), "{}", key.name);
            if let Kind::Object(keys) = key.kind {
                check(keys);
            }
        }
    }
    check(KEYS);
}

#[test]
fn every_byte_flipped_and_every_length_is_told_by_line_or_is_another_file() {
    for text in [PORTS, LAG] {
        let (bytes, mut refused) = (text.as_bytes(), 0);
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.to_owned();
                flipped[at] ^= 1 << bit;
                // What is no text is refused by who reads the file.
                let Ok(flipped) = String::from_utf8(flipped) else {
                    refused += 1;
                    continue;
                };
                if let Err(ConfError(problems)) = Conf::parse(&flipped) {
                    refused += 1;
                    let last = flipped.lines().count() + 1;
                    assert!(!problems.is_empty(), "{flipped}");
                    for problem in problems {
                        assert!(
                            problem.line.is_some_and(|line| (1..=last).contains(&line)),
                            "{problem}: {flipped}"
                        );
                        assert!(!problem.why.is_empty(), "{flipped}");
                    }
                }
            }
            if text.get(..at).is_some_and(|cut| Conf::parse(cut).is_ok()) {
                panic!("{at} bytes of {text}");
            }
        }
        assert!(refused > bytes.len() * 8 * 3 / 4, "{refused} of {}", bytes.len() * 8);
    }
}
