//! What a configuration would come to on a device, before a controller is started with it: [`advice`]. Pure.

use virtnet_model::PartError;

use crate::limits::Bounds;
use crate::{DeviceState, EngineConfig};

/// MSI-X vectors that a function needs: of a queue to receive, of one to transmit, and of the configuration.
const PAIR_MSIX: u16 = 3;

/// What a controller of this configuration could not do on this device, though it would start.
///
/// # Errors
/// Why it would not start.
pub fn advice(device: &DeviceState, config: &EngineConfig) -> Result<Vec<String>, PartError> {
    let bounds = Bounds::new(device, config)?;
    let limits = &bounds.limits;
    let mut found = Vec::new();
    if !limits.emulation {
        found.push("VIRTIO_NET_EMULATION_ENABLE is 0: there will be no functions".to_owned());
    }
    if bounds.switch_enabled && limits.hotplug_slots < bounds.num_port {
        found.push(format!(
            "VIRTIO_NET_EMULATION_NUM_PF={} with VIRTIO_NET_EMULATION_NUM_VF={} are more than 127 VFs: none of the \
             PCI_SWITCH_EMULATION_NUM_PORT={} slots can be used",
            limits.static_pfs, limits.vfs_per_pf, bounds.num_port
        ));
    }
    let port = limits.static_uplink.port();
    let foreign = device.sfs.iter().filter(|(key, sf)| key.port == port && sf.foreign).count();
    let total = limits.sfs.get(&port).map_or(0, |budget| budget.total);
    let functions = u32::from(limits.static_pfs) * (1 + u32::from(limits.vfs_per_pf));
    let needed = functions.saturating_add(u32::try_from(foreign).unwrap_or(u32::MAX));
    if needed > total {
        found.push(format!(
            "PF_TOTAL_SF={total} of {port} is less than the {needed} SFs that {} static PFs with {} VFs each and other \
             applications ({foreign}) take",
            limits.static_pfs, limits.vfs_per_pf
        ));
    } else if needed == total && limits.hotplug_slots > 0 {
        found.push(format!("PF_TOTAL_SF={total} of {port} leaves no SF for hot-plugged functions on it"));
    }
    let pool = total * u32::from(config.sf_pool.percent.min(100)) / 100;
    let room = total.saturating_sub(needed - (functions - u32::from(limits.static_pfs)));
    if pool > room {
        found.push(format!(
            "sf_pool_percent={} wants {pool} SFs in the pool: PF_TOTAL_SF={total} of {port} leaves {room} beside {} static PFs \
             and other applications ({foreign})",
            config.sf_pool.percent, limits.static_pfs
        ));
    }
    let pfs = u32::from(limits.static_pfs) + u32::from(limits.hotplug_slots);
    let vfs = functions - u32::from(limits.static_pfs);
    for (vf, vectors, there) in [(false, limits.pf_msix, pfs), (true, bounds.vf_default_msix, vfs)] {
        if vectors < PAIR_MSIX && there > 0 {
            found.push(format!(
                "{} has {vectors} MSI-X vectors ({}): it needs {PAIR_MSIX} to receive and to transmit",
                if vf { "a VF" } else { "a PF" },
                bounds.msix_setting(vf)
            ));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use virtnet_model::{EswitchPort, Generation, SfNumber};

    use super::*;
    use crate::{Sf, SfKey, SfPool, fixture};

    fn device(values: &[(&str, &str)]) -> DeviceState {
        let plain = [
            ("PCI_SWITCH_EMULATION_ENABLE", "1"),
            ("PCI_SWITCH_EMULATION_NUM_PORT", "2"),
            ("VIRTIO_NET_EMULATION_NUM_PF", "2"),
            ("VIRTIO_NET_EMULATION_NUM_VF", "4"),
            ("PF_TOTAL_SF", "12"),
        ];
        fixture::device(&[&plain, values].concat())
    }

    #[test]
    fn what_firmware_can_not_give_is_told() {
        let config = EngineConfig { generation: Generation::Later, ..EngineConfig::default() };
        let of = |values: &[(&str, &str)]| advice(&device(values), &config).unwrap();
        assert_eq!(of(&[]), Vec::<String>::new());
        for (values, told) in [
            (&[("VIRTIO_NET_EMULATION_ENABLE", "0")][..], "there will be no functions"),
            (&[("VIRTIO_NET_EMULATION_NUM_VF", "64"), ("PF_TOTAL_SF", "200")], "are more than 127 VFs"),
            (&[("PF_TOTAL_SF", "9")], "PF_TOTAL_SF=9 of p0 is less than the 10 SFs"),
            (&[("PF_TOTAL_SF", "10")], "leaves no SF for hot-plugged functions"),
            (&[("VIRTIO_NET_EMULATION_NUM_VF_MSIX", "2")], "a VF has 2 MSI-X vectors"),
        ] {
            let found = of(values);
            assert!(found.iter().any(|one| one.contains(told)), "{values:?}: {found:?}");
        }
        let sf_pool = SfPool { percent: 90, force_destroy: false };
        let found = advice(&device(&[]), &EngineConfig { sf_pool, ..config.clone() }).unwrap();
        let why = "sf_pool_percent=90 wants 10 SFs in the pool: PF_TOTAL_SF=12 of p0 leaves 10";
        assert_eq!(found, Vec::<String>::new(), "10 of 12 beside 2 static PFs");
        let mut crowded = device(&[]);
        let sf = Sf {
            parent: "mlx5_0".to_owned(),
            rdma_device: None,
            representor: "en3f0pf0sf1".parse().unwrap(),
            foreign: true,
            vhca_id: None,
        };
        crowded.sfs.insert(SfKey { port: EswitchPort::P0, number: SfNumber::try_from(1).unwrap() }, sf);
        let found = advice(&crowded, &EngineConfig { sf_pool, ..config.clone() }).unwrap();
        let why = why.replace("leaves 10", "leaves 9");
        assert!(found.iter().any(|one| one.contains(&why)), "{found:?}");
        let error = advice(&device(&[("PF_TOTAL_SF", "many")]), &config).unwrap_err();
        assert!(error.message.contains("PF_TOTAL_SF=many is not a number"), "{error}");
    }
}
