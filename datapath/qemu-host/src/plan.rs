//! What is to be done, decided apart from doing it: [`plug`], [`clear`], and the [`Step`]s of both.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value, json};
use virtnet_controller::Settings;
use virtnet_model::{Feature, Features, QueueSize};
use virtnet_qmp::Refused;

use crate::config::Backend;
use crate::features;

/// The least and the greatest size of a ring that QEMU's virtio-net takes (`VIRTIO_NET_RX_QUEUE_MIN_SIZE`, `VIRTQUEUE_MAX_SIZE`).
const QUEUE_SIZES: (u32, u32) = (256, 1024);
/// What names of ours begin with.
const PREFIX: &str = "virtnet-s";

/// The names of what is made for a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Names {
    pub(crate) device: String,
    pub(crate) netdev: String,
    pub(crate) chardev: String,
}

impl Names {
    pub(crate) fn of(slot: u16) -> Self {
        Self::named(format!("{PREFIX}{slot}"))
    }

    /// Those of a device of this name.
    pub(crate) fn named(device: String) -> Self {
        Self { netdev: format!("{device}-net"), chardev: format!("{device}-chr"), device }
    }
}

/// Why QEMU can't present such a function, whatever the back end can.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Rings of another size.
    #[error("a ring of {0} descriptors: QEMU's virtio-net has 256 to 1024")]
    QueueSize(QueueSize),
    /// Features that it does not know.
    #[error("the features {0}: QEMU's virtio-net does not have them")]
    Features(Features),
    /// A driver of today takes no device without it.
    #[error("a function without VERSION_1: such a one is not made")]
    Legacy,
}

/// One command to QEMU that changes something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Connects to a back end.
    AddChardev {
        /// Its name.
        id: String,
        /// The back end's socket.
        socket: PathBuf,
        /// How long to wait before connecting again.
        reconnect: Option<Duration>,
    },
    /// Greets the back end.
    AddNetdev {
        /// Its name.
        id: String,
        /// The connection's name.
        chardev: String,
        /// Queue pairs.
        pairs: u16,
    },
    /// Puts a device into a root port.
    AddDevice {
        /// Its name.
        id: String,
        /// The root port's name.
        port: String,
        /// All its properties.
        properties: Map<String, Value>,
    },
    /// Sets the link of a device.
    SetLink {
        /// Its name.
        id: String,
        /// Up or down.
        up: bool,
    },
    /// Asks the guest to let a device go.
    DeleteDevice {
        /// Its name.
        id: String,
    },
    /// Leaves the back end, and with that its connection.
    DeleteNetdev {
        /// Its name.
        id: String,
    },
    /// Ends a connection that no netdev has.
    RemoveChardev {
        /// Its name.
        id: String,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddChardev { id, socket, reconnect: _ } => {
                write!(f, "connect {id} to {}", socket.display())
            }
            Self::AddNetdev { id, chardev, pairs } => {
                write!(f, "greet the back end of {chardev} as {id} with {pairs} queue pairs")
            }
            Self::AddDevice { id, port, properties: _ } => write!(f, "plug {id} into {port}"),
            Self::SetLink { id, up } => write!(f, "set the link of {id} {}", if *up { "up" } else { "down" }),
            Self::DeleteDevice { id } => write!(f, "ask the guest to let {id} go"),
            Self::DeleteNetdev { id } => write!(f, "leave the back end {id}"),
            Self::RemoveChardev { id } => write!(f, "end the connection {id}"),
        }
    }
}

impl Step {
    /// The command of QMP, and its arguments.
    #[must_use]
    pub fn command(&self) -> (&'static str, Value) {
        match self {
            Self::AddChardev { id, socket, reconnect } => {
                let address = json!({"type": "unix", "data": {"path": socket}});
                let mut data = json!({"addr": address, "server": false});
                if let Some(reconnect) = reconnect {
                    // Zero would mean never.
                    let milliseconds = u32::try_from(reconnect.as_millis()).unwrap_or(u32::MAX).max(1);
                    data["reconnect-ms"] = milliseconds.into();
                }
                ("chardev-add", json!({"id": id, "backend": {"type": "socket", "data": data}}))
            }
            Self::AddNetdev { id, chardev, pairs } => {
                ("netdev_add", json!({"type": "vhost-user", "id": id, "chardev": chardev, "queues": pairs}))
            }
            Self::AddDevice { id: _, port: _, properties } => ("device_add", properties.clone().into()),
            Self::SetLink { id, up } => ("set_link", json!({"name": id, "up": up})),
            Self::DeleteDevice { id } => ("device_del", json!({"id": id})),
            Self::DeleteNetdev { id } => ("netdev_del", json!({"id": id})),
            Self::RemoveChardev { id } => ("chardev-remove", json!({"id": id})),
        }
    }

    /// Whether a refusal says that what the step would bring about is so already.
    pub(crate) fn is_done(&self, refused: &Refused) -> bool {
        let removes = matches!(self, Self::DeleteDevice { .. } | Self::DeleteNetdev { .. });
        removes && refused.is_not_found()
    }
}

/// Queue pairs of a function that has so many virtqueues: without MQ there is one (virtio 1.2, section 5.1.2).
pub(crate) fn pairs(settings: &Settings) -> u16 {
    if settings.features.contains(Feature::Mq) {
        (settings.max_queues.saturating_sub(1) / 2).max(1)
    } else {
        1
    }
}

/// What QEMU's virtio-net is told of a function, but for where it is put.
pub(crate) fn properties(names: &Names, settings: &Settings) -> Result<Map<String, Value>, Unfit> {
    let Settings { mac, mtu, max_queues: _, queue_size, num_msix, features, transitional } = settings;
    if !(QUEUE_SIZES.0..=QUEUE_SIZES.1).contains(&u32::from(*queue_size)) {
        return Err(Unfit::QueueSize(*queue_size));
    }
    let absent = features::absent(features);
    if absent != Features::default() {
        return Err(Unfit::Features(absent));
    }
    if !features.contains(Feature::Version1) {
        return Err(Unfit::Legacy);
    }
    let mut properties = Map::new();
    features::set(features, &mut properties);
    let mut set = |name: &str, value: Value| properties.insert(name.to_owned(), value);
    set("driver", "virtio-net-pci".into());
    set("id", names.device.clone().into());
    set("netdev", names.netdev.clone().into());
    set("mac", mac.to_string().into());
    if features.contains(Feature::Mtu) {
        set("host_mtu", mtu.get().into());
    }
    set("mq", (pairs(settings) > 1).into());
    set("vectors", (*num_msix).into());
    set("rx_queue_size", u32::from(*queue_size).into());
    set("tx_queue_size", u32::from(*queue_size).into());
    set("disable-modern", false.into());
    set("disable-legacy", if *transitional { "off" } else { "on" }.into());
    // It boots nothing, and QEMU need not find the file of a boot program.
    set("romfile", "".into());
    Ok(properties)
}

/// The steps that make a function in a slot that is free and clear.
pub(crate) fn plug(
    slot: u16,
    port: &str,
    settings: &Settings,
    backend: &Backend,
    up: bool,
) -> Result<Vec<Step>, Unfit> {
    let names = Names::of(slot);
    let pairs = pairs(settings);
    let mut properties = properties(&names, settings)?;
    properties.insert("bus".to_owned(), port.into());
    let mut steps = vec![
        Step::AddChardev {
            id: names.chardev.clone(),
            socket: backend.socket.clone(),
            reconnect: backend.reconnect,
        },
        Step::AddNetdev { id: names.netdev, chardev: names.chardev, pairs },
        Step::AddDevice { id: names.device.clone(), port: port.to_owned(), properties },
    ];
    if !up {
        steps.push(Step::SetLink { id: names.device, up });
    }
    Ok(steps)
}

/// The steps that may clear what is left behind a slot without a function. Where the connection is still there after the first, it
/// had no netdev.
pub(crate) fn clear(slot: u16) -> [Step; 2] {
    let names = Names::of(slot);
    [Step::DeleteNetdev { id: names.netdev }, Step::RemoveChardev { id: names.chardev }]
}

#[cfg(test)]
pub(crate) mod tests {
    use virtnet_model::Mtu;

    use super::*;

    pub(crate) fn settings() -> Settings {
        Settings {
            mac: "02:00:00:00:00:07".parse().unwrap(),
            mtu: Mtu::try_from(9000).unwrap(),
            max_queues: 9,
            queue_size: QueueSize::try_from(512).unwrap(),
            num_msix: 10,
            features: Features::controller_default(),
            transitional: false,
        }
    }

    fn backend() -> Backend {
        Backend { socket: "/run/s7".into(), reconnect: None }
    }

    #[test]
    fn a_plug_is_a_connection_a_netdev_and_a_device() {
        let steps = plug(7, "rp7", &settings(), &backend(), true).unwrap();
        let told: Vec<_> = steps.iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "connect virtnet-s7-chr to /run/s7",
                "greet the back end of virtnet-s7-chr as virtnet-s7-net with 4 queue pairs",
                "plug virtnet-s7 into rp7",
            ]
        );
        let (command, arguments) = steps[2].command();
        assert_eq!(command, "device_add");
        for (name, value) in [
            ("driver", json!("virtio-net-pci")),
            ("id", json!("virtnet-s7")),
            ("bus", json!("rp7")),
            ("netdev", json!("virtnet-s7-net")),
            ("mac", json!("02:00:00:00:00:07")),
            ("host_mtu", json!(9000)),
            ("mq", json!(true)),
            ("vectors", json!(10)),
            ("rx_queue_size", json!(512)),
            ("tx_queue_size", json!(512)),
            ("disable-legacy", json!("on")),
            ("csum", json!(true)),
            ("guest_tso4", json!(false)),
        ] {
            assert_eq!(arguments[name], value, "{name}");
        }
    }

    #[test]
    fn a_link_that_is_down_is_set_so_last() {
        let steps = plug(0, "rp0", &settings(), &backend(), false).unwrap();
        let (command, arguments) = steps.last().unwrap().command();
        assert_eq!((command, arguments), ("set_link", json!({"name": "virtnet-s0", "up": false})));
    }

    #[test]
    fn a_transitional_function_has_the_legacy_side_too() {
        let steps = plug(0, "rp0", &Settings { transitional: true, ..settings() }, &backend(), true).unwrap();
        let (_, arguments) = steps[2].command();
        assert_eq!(arguments["disable-legacy"], "off");
        assert_eq!(arguments["disable-modern"], false);
    }

    #[test]
    fn a_function_without_mtu_or_mq_has_neither() {
        let features = Features::controller_default().with(Feature::Mtu, false).with(Feature::Mq, false);
        let steps = plug(0, "rp0", &Settings { features, ..settings() }, &backend(), true).unwrap();
        let (_, arguments) = steps[2].command();
        assert_eq!((arguments.get("host_mtu"), &arguments["mq"]), (None, &json!(false)));
        assert!(steps[1].to_string().ends_with("1 queue pairs"));
    }

    #[test]
    fn a_back_end_that_comes_back_is_connected_to_again_where_that_is_wanted() {
        let reconnect = |reconnect| {
            let backend = Backend { reconnect, ..backend() };
            plug(0, "rp0", &settings(), &backend, true).unwrap()[0].command().1
        };
        let at = "/backend/data/reconnect-ms";
        assert_eq!(reconnect(None).pointer(at), None);
        assert_eq!(reconnect(Some(Duration::from_secs(1))).pointer(at), Some(&json!(1000)));
        assert_eq!(reconnect(Some(Duration::ZERO)).pointer(at), Some(&json!(1)), "zero means never");
    }

    #[test]
    fn what_qemu_can_not_present_is_refused_before_anything_is_made() {
        let of = |settings| plug(0, "rp0", &settings, &backend(), true).unwrap_err();
        for size in [128, 2048] {
            let queue_size = QueueSize::try_from(size).unwrap();
            assert_eq!(of(Settings { queue_size, ..settings() }), Unfit::QueueSize(queue_size));
        }
        let features = Features::controller_default().with(Feature::AdminVq, true);
        assert!(matches!(of(Settings { features, ..settings() }), Unfit::Features(_)));
        let features = Features::controller_default().with(Feature::Version1, false);
        assert_eq!(of(Settings { features, ..settings() }), Unfit::Legacy);
    }

    #[test]
    fn what_is_gone_already_need_not_be_removed() {
        let gone = Refused { class: "DeviceNotFound".to_owned(), desc: String::new() };
        let other = Refused { class: "GenericError".to_owned(), desc: String::new() };
        for step in clear(3).into_iter().take(1).chain([Step::DeleteDevice { id: "d".to_owned() }]) {
            assert!(step.is_done(&gone) && !step.is_done(&other), "{step}");
        }
        assert!(!Step::SetLink { id: "d".to_owned(), up: true }.is_done(&gone));
    }
}
