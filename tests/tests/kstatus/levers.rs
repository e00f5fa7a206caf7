//! What a scenario says of a simulated DPU: how it is when it is switched on, and what is done to it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Deserialize;
use virtnet_model::{ErrorKind, Generation, Port, Refusal};
use virtnet_sim::{Effect, Part, Sim, SimConfig, When};

/// A DPU as a scenario has it.
#[derive(Deserialize, Clone, Default, Debug)]
#[serde(deny_unknown_fields)]
pub(crate) struct DpuSetup {
    /// Firmware settings that are not the guide's: `KEY=VALUE`.
    #[serde(default)]
    firmware: Vec<String>,
    /// It has the later generation of the controller.
    #[serde(default)]
    later: bool,
    /// Seconds that a boot of the host takes.
    host_boot: Option<u64>,
    /// Seconds from an SF to its representor.
    netdev: Option<u64>,
}

impl DpuSetup {
    /// It as the DPU of this index.
    pub(crate) fn config(&self, index: usize) -> SimConfig {
        let Self { firmware, later, host_boot, netdev } = self;
        let base_mac = format!("0c:c4:7a:ff:{index:02x}:00").parse().unwrap();
        let mut config = SimConfig { base_mac, seed: index as u64, ..SimConfig::default() };
        config.set_firmware(firmware).unwrap();
        if *later {
            config.engine.generation = Generation::Later;
        }
        let timing = &mut config.timing;
        for (time, wanted) in [(&mut timing.host_boot, host_boot), (&mut timing.netdev, netdev)] {
            if let Some(seconds) = wanted {
                *time = Duration::from_secs(*seconds);
            }
        }
        config
    }
}

/// Does what the words say.
pub(crate) async fn pull(sim: &Sim, words: &str) {
    match words.split(' ').collect::<Vec<_>>()[..] {
        ["host", "off"] => sim.shut_down_host(),
        ["host", "boots"] => sim.boot_host(),
        ["power", "cycle"] => sim.power_cycle().await,
        ["update", "begins"] => sim.set_updating(true).await.unwrap(),
        ["controller", "unreachable", seconds] => {
            sim.cut_off_controller(Duration::from_secs(number(seconds)));
        }
        ["firmware", port, setting, "by", "hand"] => {
            let (key, value) = setting.split_once('=').unwrap();
            let values = [(key.to_owned(), value.to_owned())].into();
            sim.firmware().set(port.parse().unwrap(), &values).await.unwrap();
        }
        ["uplink", uplink, "mtu", mtu] => sim.set_uplink_mtu(uplink.parse().unwrap(), number(mtu)),
        ["vfs", pf, count] => {
            sim.write_num_vfs(number::<u32>(pf).try_into().unwrap(), number(count)).unwrap();
        }
        ["foreign", "port", name, "on", bridge] => {
            let port = Port {
                bridge: bridge.parse().unwrap(),
                interface_type: String::new(),
                tag: None,
                trunks: BTreeSet::new(),
                external_ids: BTreeMap::new(),
                ofport: None,
                error: None,
            };
            sim.put_port(&name.parse().unwrap(), port);
        }
        ["link", name, "is", "another"] => {
            assert!(sim.edit_link(&name.parse().unwrap(), |link| link.phys_port_name = None), "{name}");
        }
        ["slow", effect_name, seconds] => {
            sim.set_latency(effect(effect_name), Duration::from_secs(number(seconds)));
        }
        ["fail", effect_name] => sim.fail_next(effect(effect_name), When::Before, ALWAYS),
        ["refuse", effect_name, "DriverLoaded"] => {
            let kind = ErrorKind::Refused(Refusal::DriverLoaded);
            sim.fail_next_as(effect(effect_name), When::Before, kind, ALWAYS);
        }
        ["unreadable", name] => {
            let parts = [Part::Controller, Part::Switch, Part::Links, Part::Firmware, Part::Host];
            let part = parts.into_iter().find(|part| format!("{part:?}") == name).unwrap();
            sim.fail_observe(part, u32::try_from(ALWAYS).unwrap());
        }
        _ => panic!("no lever does this: {words}"),
    }
}

/// More often than anything is tried in a scenario.
const ALWAYS: usize = 10_000;

fn effect(name: &str) -> Effect {
    Effect::ALL.into_iter().find(|effect| effect.to_string() == name).unwrap()
}

fn number<T: std::str::FromStr<Err: std::fmt::Debug>>(word: &str) -> T {
    word.parse().unwrap()
}
