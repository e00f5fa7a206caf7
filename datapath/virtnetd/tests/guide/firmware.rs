//! The guide's `mlxconfig` commands, and what `virtnetd --sim-firmware` takes for them.

/// `mlxconfig` in section 1.2.1: hot-plugged functions.
pub(crate) const HOTPLUG: &[&str] = &[
    "mlxconfig -d /dev/mst/mt41686_pciconf0 s INTERNAL_CPU_MODEL=1",
    "mlxconfig -d /dev/mst/mt41686_pciconf0 s PF_BAR2_ENABLE=0 PER_PF_NUM_SF=1",
    "mlxconfig -d /dev/mst/mt41686_pciconf0 s PCI_SWITCH_EMULATION_ENABLE=1 PCI_SWITCH_EMULATION_NUM_PORT=16 \
     VIRTIO_NET_EMULATION_ENABLE=1 VIRTIO_NET_EMULATION_NUM_VF=0 VIRTIO_NET_EMULATION_NUM_PF=0 \
     VIRTIO_NET_EMULATION_NUM_MSIX=10 VIRTIO_NET_EMULATION_VENDOR_ID=0x1af4 VIRTIO_NET_EMULATION_DEVICE_ID=0x1041 \
     VIRTIO_NET_EMULATION_CLASS_CODE=0x028000 ECPF_ESWITCH_MANAGER=1 ECPF_PAGE_SUPPLIER=1 SRIOV_EN=0 PF_SF_BAR_SIZE=10 \
     PF_TOTAL_SF=64",
    "mlxconfig -d /dev/mst/mt41686_pciconf0.1 s PF_SF_BAR_SIZE=10 PF_TOTAL_SF=64",
];

/// `mlxconfig` in section 1.2.3: transitional hot-plugged functions.
pub(crate) const TRANSITIONAL: &str = "mlxconfig -d /dev/mst/mt41686_pciconf0 s \
     VIRTIO_NET_EMULATION_PF_PCI_LAYOUT=1 VIRTIO_EMULATION_HOTPLUG_TRANS=1";

/// `mlxconfig` in section 1.3.1: static PFs and their VFs.
pub(crate) const SRIOV: &[&str] = &[
    "mlxconfig -d /dev/mst/mt41686_pciconf0 s INTERNAL_CPU_MODEL=1",
    "mlxconfig -d /dev/mst/mt41686_pciconf0 s PF_BAR2_ENABLE=0 PER_PF_NUM_SF=1",
    "mlxconfig -d /dev/mst/mt41686_pciconf0 s PCI_SWITCH_EMULATION_ENABLE=1 PCI_SWITCH_EMULATION_NUM_PORT=16 \
     VIRTIO_NET_EMULATION_ENABLE=1 VIRTIO_NET_EMULATION_NUM_VF=126 VIRTIO_NET_EMULATION_NUM_PF=4 \
     VIRTIO_NET_EMULATION_NUM_MSIX=4 VIRTIO_NET_EMULATION_VENDOR_ID=0x1af4 VIRTIO_NET_EMULATION_DEVICE_ID=0x1041 \
     VIRTIO_NET_EMULATION_CLASS_CODE=0x028000 ECPF_ESWITCH_MANAGER=1 ECPF_PAGE_SUPPLIER=1 SRIOV_EN=1 PF_SF_BAR_SIZE=8 \
     PF_TOTAL_SF=508 NUM_OF_VFS=0",
    "mlxconfig -d /dev/mst/mt41686_pciconf0.1 s PF_TOTAL_SF=1 PF_SF_BAR_SIZE=8",
];

/// What virtnetd takes for these commands, which take effect at the cold boot that follows them: the start of it.
pub(crate) fn sim_firmware(commands: &[&str]) -> String {
    let mut values = Vec::new();
    for command in commands {
        let mut words = command.split_whitespace();
        assert_eq!((words.next(), words.next()), (Some("mlxconfig"), Some("-d")), "{command}");
        let second_port = words.next().unwrap().ends_with(".1");
        assert_eq!(words.next(), Some("s"), "{command}");
        values.extend(words.map(|value| format!("{}{value}", if second_port { "p1/" } else { "" })));
    }
    values.join(",")
}
