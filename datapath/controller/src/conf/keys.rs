//! Every key that `virtnet.conf` can have ([`KEYS`]): what it may be, in which generation, and what it is for.

use virtnet_model::Generation;

/// A key of the file, or of an object in it.
#[derive(Debug)]
pub struct Key {
    /// As it is written.
    pub name: &'static str,
    /// The only generation that has it; `None`: all.
    pub only: Option<Generation>,
    /// What its value may be.
    pub kind: Kind,
    /// What it is for, and what holds without it.
    pub about: &'static str,
}

/// What a value may be.
#[derive(Debug)]
pub enum Kind {
    /// 0 or 1.
    Flag,
    /// A number of this range, both ends included.
    Number(u32, u32),
    /// One of these words.
    Word(&'static [&'static str]),
    /// The name of an RDMA device.
    Device,
    /// A unicast MAC address.
    Mac,
    /// Feature bits as a number in hexadecimal.
    Features,
    /// An object of these keys.
    Object(&'static [Key]),
}

const fn key(name: &'static str, kind: Kind, about: &'static str) -> Key {
    Key { name, only: None, kind, about }
}

const fn guide(name: &'static str, kind: Kind, about: &'static str) -> Key {
    Key { name, only: Some(Generation::Guide), kind, about }
}

const fn later(name: &'static str, kind: Kind, about: &'static str) -> Key {
    Key { name, only: Some(Generation::Later), kind, about }
}

/// The key that says whose rules hold.
pub(crate) const GENERATION: &str = "generation";

/// The keys of `virtnet.conf`, in the order of the guide's section 1.1.1 and then of the later guides.
pub const KEYS: &[Key] = &[
    key(
        GENERATION,
        Kind::Word(&["guide", "later"]),
        "Whose rules hold where the vendor's guides contradict each other: those of the guide of 2023, or those from 24.10 on. \
         Default guide.",
    ),
    key("ib_dev_p0", Kind::Device, "RDMA device for SFs on port 0. Default mlx5_0. Excludes ib_dev_lag."),
    key("ib_dev_p1", Kind::Device, "RDMA device for SFs on port 1. Default mlx5_1. Excludes ib_dev_lag."),
    key("ib_dev_lag", Kind::Device, "RDMA device for SFs on the bond. Default mlx5_bond_0. Needs is_lag 1."),
    key(
        "ib_dev_for_static_pf",
        Kind::Device,
        "RDMA device that static PFs and their VFs are made on: that of port 0, port 1 or the bond. Default: that of port 0, or \
         with is_lag 1 that of the bond.",
    ),
    key(
        "is_lag",
        Kind::Flag,
        "Whether the ports are bonded. The controller is stopped before the bond is made. Default 0.",
    ),
    guide(
        "pf_mac",
        Kind::Mac,
        "MAC of static PF 0; PF n has it plus n. Default: made from the device's own.",
    ),
    key(
        "recovery",
        Kind::Flag,
        "Whether there are recovery files and functions are recovered by them. Default 1.",
    ),
    key(
        "sf_pool_percent",
        Kind::Number(0, 100),
        "How much of PF_TOTAL_SF is made into SFs kept ready at the start, in percent. Default 0.",
    ),
    key(
        "sf_pool_force_destroy",
        Kind::Flag,
        "Whether SFs kept ready are destroyed when the controller stops. Default 0.",
    ),
    later("mac_base", Kind::Mac, "The same as static_pf.mac_base."),
    later("static_pf", Kind::Object(STATIC_PF), "What static PFs are made with."),
    later("vf", Kind::Object(VF), "What VFs are born with."),
    later("single_port", Kind::Flag, "Whether only port 0 is used. Excludes is_lag 1. Default 0."),
    later("lm_prov", Kind::Word(&["kernel"]), "Who provides live migration. Accepted and without effect."),
    later("dpa_core_start", Kind::Number(0, 1023), "First DPA core. Accepted and without effect."),
    later("dpa_core_end", Kind::Number(0, 1023), "Last DPA core. Accepted and without effect."),
    later("eth_vq_workers", Kind::Number(1, 24), "Workers for data queues. Accepted and without effect."),
    later(
        "admin_cmd_workers",
        Kind::Number(1, 16),
        "Workers for administration. Accepted and without effect.",
    ),
    later(
        "packed_vq",
        Kind::Flag,
        "Whether functions offer RING_PACKED where nothing else is said. Default 0.",
    ),
    later(
        "mrg_rxbuf",
        Kind::Flag,
        "Whether functions offer MRG_RXBUF where nothing else is said. Default 1.",
    ),
];

const STATIC_PF: &[Key] = &[
    key(
        "mac_base",
        Kind::Mac,
        "MAC of static PF 0; PF n has it plus n. Default: made from the device's own.",
    ),
    key(
        "features",
        Kind::Features,
        "Features that they offer, with what those need. Default: the controller's.",
    ),
];

const VF: &[Key] = &[
    key(
        "mac_base",
        Kind::Mac,
        "MAC of VF 0 of PF 0; the others follow, vfs_per_pf for each PF. Default: each is made from the device's own.",
    ),
    key(
        "features",
        Kind::Features,
        "Features that they offer, with what those need. Default: the controller's.",
    ),
    key(
        "vfs_per_pf",
        Kind::Number(1, 1023),
        "How many MACs from mac_base on are each PF's: at most VIRTIO_NET_EMULATION_NUM_VF. Needed with mac_base.",
    ),
];
