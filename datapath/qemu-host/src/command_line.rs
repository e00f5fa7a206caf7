//! The arguments by which a QEMU that somebody starts has a function: [`arguments`].

use std::path::Path;

use serde_json::Value;
use virtnet_controller::Settings;

use crate::plan::{self, Names, Unfit};

/// How often QEMU tries to connect again to a back end that went, in milliseconds.
const RECONNECT: u32 = 1000;

/// The arguments of a QEMU whose function of this name has a back end at this socket. It needs memory that can be shared too, and
/// may say on which bus the function is to be (`bus=`, `addr=`).
///
/// # Errors
/// Where QEMU presents no such function.
pub fn arguments(name: &str, settings: &Settings, socket: &Path) -> Result<Vec<String>, Unfit> {
    let names = Names::named(name.to_owned());
    let mut properties = plan::properties(&names, settings)?;
    let driver = properties.remove("driver").map(|driver| text(&driver)).unwrap_or_default();
    let properties = properties.iter().map(|(name, value)| format!(",{name}={}", text(value)));
    let Names { device: _, netdev, chardev } = &names;
    let path = socket.display().to_string().replace(',', ",,");
    let pairs = plan::pairs(settings);
    Ok(vec![
        "-chardev".to_owned(),
        format!("socket,id={chardev},path={path},reconnect-ms={RECONNECT}"),
        "-netdev".to_owned(),
        format!("vhost-user,id={netdev},chardev={chardev},queues={pairs}"),
        "-device".to_owned(),
        std::iter::once(driver).chain(properties).collect(),
    ])
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

    #[test]
    fn a_function_is_three_arguments_with_their_values() {
        let settings = Settings {
            mac: Mac::local([0, 0, 0, 0, 7]),
            mtu: Mtu::DEFAULT,
            max_queues: 9,
            queue_size: QueueSize::try_from(512).unwrap(),
            num_msix: 10,
            features: Features::controller_default(),
            transitional: false,
        };
        let lines = arguments("f0", &settings, Path::new("/run/a,b/s")).unwrap();
        assert_eq!(lines[1], "socket,id=f0-chr,path=/run/a,,b/s,reconnect-ms=1000");
        assert_eq!(lines[3], "vhost-user,id=f0-net,chardev=f0-chr,queues=4");
        assert!(lines[5].starts_with("virtio-net-pci,"), "{}", lines[5]);
        for part in [",id=f0,", ",mac=02:00:00:00:00:07,", ",mq=on,", ",host_mtu=1500,", ",guest_tso4=off,"] {
            assert!(format!("{},", lines[5]).contains(part), "{part}: {}", lines[5]);
        }
        assert!(
            arguments(
                "f0",
                &Settings { queue_size: QueueSize::try_from(64).unwrap(), ..settings },
                Path::new("/s")
            )
            .is_err()
        );
    }
}
