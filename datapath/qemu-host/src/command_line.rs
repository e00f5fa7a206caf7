//! The arguments by which a QEMU that somebody starts has functions: [`arguments`].

use std::path::Path;

use serde_json::{Map, Value, json};
use virtnet_controller::Settings;

use crate::plan::{self, Names, Unfit};

/// How often QEMU tries to connect again to a back end that went, in milliseconds.
const RECONNECT: u32 = 1000;
/// The chassis of root ports that functions with VFs are in. It is far from where people begin to count.
const CHASSIS: u8 = 255;

/// A function that a QEMU is to be started with.
#[derive(Clone, Copy, Debug)]
pub struct Presented<'a> {
    /// Its id in QEMU.
    pub name: &'a str,
    /// What it presents.
    pub settings: &'a Settings,
    /// Where its back end listens.
    pub socket: &'a Path,
}

/// The arguments of a QEMU that has a function with these VFs. It needs memory that can be shared too.
///
/// One without VFs is put where QEMU or a person (`bus=`, `addr=`) likes. One that has some comes with a root port, the `port`th of
/// its kind, for it and its VFs, which is to come after those whose addresses a person has chosen.
///
/// # Errors
/// Where QEMU presents no such function.
pub fn arguments(function: Presented<'_>, vfs: &[Presented<'_>], port: u16) -> Result<Vec<String>, Unfit> {
    if vfs.is_empty() {
        return one(function, json!({}));
    }
    let bus = format!("{}-port", function.name);
    let mut all = vec![
        "-device".to_owned(),
        format!("pcie-root-port,id={bus},bus=pcie.0,chassis={CHASSIS},slot={port}"),
    ];
    // QEMU takes VFs first, by the functions' numbers on the bus, and the PF last.
    for (number, vf) in (1..).zip(vfs) {
        let address = address(number);
        all.extend(one(*vf, json!({"bus": bus, "addr": address, "sriov-pf": function.name}))?);
    }
    all.extend(one(function, json!({"bus": bus, "addr": address(0)}))?);
    Ok(all)
}

fn address(number: u16) -> String {
    format!("{:#x}.{:#x}", number / 8, number % 8)
}

/// A function with further properties.
fn one(function: Presented<'_>, more: Value) -> Result<Vec<String>, Unfit> {
    let Presented { name, settings, socket } = function;
    let names = Names::named(name.to_owned());
    let mut properties = plan::properties(&names, settings)?;
    if let Value::Object(more) = more {
        properties.extend(more);
    }
    let driver = properties.remove("driver").map(|driver| text(&driver)).unwrap_or_default();
    let Names { device: _, netdev, chardev } = &names;
    let path = socket.display().to_string().replace(',', ",,");
    let pairs = plan::pairs(settings);
    Ok(vec![
        "-chardev".to_owned(),
        format!("socket,id={chardev},path={path},reconnect-ms={RECONNECT}"),
        "-netdev".to_owned(),
        format!("vhost-user,id={netdev},chardev={chardev},queues={pairs}"),
        "-device".to_owned(),
        device(driver, &properties),
    ])
}

fn device(driver: String, properties: &Map<String, Value>) -> String {
    let properties = properties.iter().map(|(name, value)| format!(",{name}={}", text(value)));
    std::iter::once(driver).chain(properties).collect()
}

/// A value as QEMU's command line has it.
fn text(value: &Value) -> String {
    match value {
        Value::Bool(true) => "on".to_owned(),
        Value::Bool(false) => "off".to_owned(),
        Value::String(text) => text.replace(',', ",,"),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use virtnet_model::{Features, Mac, Mtu, QueueSize};

    use super::*;

    fn settings(number: u8) -> Settings {
        Settings {
            mac: Mac::local([0, 0, 0, 0, number]),
            mtu: Mtu::DEFAULT,
            max_queues: 9,
            queue_size: QueueSize::try_from(512).unwrap(),
            num_msix: 10,
            features: Features::controller_default(),
            transitional: false,
        }
    }

    fn presented<'a>(name: &'a str, settings: &'a Settings) -> Presented<'a> {
        Presented { name, settings, socket: Path::new("/run/a,b/s") }
    }

    fn has(line: &str, parts: &[&str]) {
        for part in parts {
            assert!(format!("{line},").contains(&format!(",{part},")), "{part}: {line}");
        }
    }

    #[test]
    fn a_function_is_three_arguments_with_their_values() {
        let settings = settings(7);
        let lines = arguments(presented("f0", &settings), &[], 0).unwrap();
        assert_eq!(lines.len(), 6);
        assert_eq!(lines[1], "socket,id=f0-chr,path=/run/a,,b/s,reconnect-ms=1000");
        assert_eq!(lines[3], "vhost-user,id=f0-net,chardev=f0-chr,queues=4");
        assert!(lines[5].starts_with("virtio-net-pci,"), "{}", lines[5]);
        has(&lines[5], &["id=f0", "mac=02:00:00:00:00:07", "mq=on", "host_mtu=1500", "guest_tso4=off"]);
        assert!(!lines[5].contains(",bus="), "where it is put is a person's choice: {}", lines[5]);
        let small = Settings { queue_size: QueueSize::try_from(64).unwrap(), ..settings };
        assert!(arguments(presented("f0", &small), &[], 0).is_err());
    }

    #[test]
    fn vfs_come_before_their_pf_on_a_port_of_their_own() {
        let all = [settings(0), settings(1), settings(2)];
        let vfs = [presented("f0vf1", &all[1]), presented("f0vf2", &all[2])];
        let lines = arguments(presented("f0", &all[0]), &vfs, 3).unwrap();
        let devices: Vec<_> =
            lines.chunks(2).filter(|pair| pair[0] == "-device").map(|pair| pair[1].as_str()).collect();
        let [port, first, second, pf] = devices[..] else { panic!("{devices:?}") };
        assert_eq!(port, "pcie-root-port,id=f0-port,bus=pcie.0,chassis=255,slot=3");
        has(first, &["id=f0vf1", "bus=f0-port", "addr=0x0.0x1", "sriov-pf=f0", "mac=02:00:00:00:00:01"]);
        has(second, &["id=f0vf2", "bus=f0-port", "addr=0x0.0x2", "sriov-pf=f0", "mac=02:00:00:00:00:02"]);
        has(pf, &["id=f0", "bus=f0-port", "addr=0x0.0x0", "mac=02:00:00:00:00:00"]);
        assert!(!pf.contains("sriov-pf"), "{pf}");
    }
}
