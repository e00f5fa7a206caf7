//! `Dpu.spec.controller`: the wanted settings of the controller's `virtnet.conf`.
//!
//! The settings are typed rather than a free map, so that a misspelt one is refused when it is applied and not
//! found out when the controller restarts. They are the file's own keys in the API's camelCase, and the file's
//! 0 and 1 are booleans. Settings that the DPU's generation of the controller doesn't know are a condition of the
//! `Dpu`.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::feature::Feature;
use crate::rules;

/// Settings of `virtnet.conf`. An absent one is left to the file's present value or the controller's default.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.ibDevLag) || !(has(self.ibDevP0) || has(self.ibDevP1))")
    .message("controller.ibDevLag excludes controller.ibDevP0 and controller.ibDevP1")
    .field_path(".ibDevLag"))]
#[x_kube(validation = Rule::new(
    "!(has(self.isLag) && self.isLag) || !(has(self.singlePort) && self.singlePort)")
    .message("controller.isLag and controller.singlePort exclude each other")
    .field_path(".singlePort"))]
#[x_kube(validation = Rule::new("!has(self.pfMac) || !has(self.staticPf) || !has(self.staticPf.macBase)")
    .message("controller.pfMac and controller.staticPf.macBase are the same setting of two generations: give one")
    .field_path(".pfMac"))]
pub struct ControllerConf {
    /// ib_dev_p0: the RDMA device for SFs on port 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub ib_dev_p0: Option<String>,
    /// ib_dev_p1: the RDMA device for SFs on port 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub ib_dev_p1: Option<String>,
    /// ib_dev_lag: the RDMA device of the bond; excludes ibDevP0 and ibDevP1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub ib_dev_lag: Option<String>,
    /// ib_dev_for_static_pf: the RDMA device that static PFs are made on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub ib_dev_for_static_pf: Option<String>,
    /// is_lag: whether the ports are bonded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_lag: Option<bool>,
    /// single_port: whether only one port is used; excludes isLag. Later generation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub single_port: Option<bool>,
    /// pf_mac: MAC address of static PF 0; PF n gets it plus n.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = rules::mac_is_well_formed())]
    #[x_kube(validation = rules::mac_is_unicast())]
    #[x_kube(validation = rules::mac_is_not_zero())]
    pub pf_mac: Option<String>,
    /// recovery: whether functions are recovered after a restart of the controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<bool>,
    /// sf_pool_percent: share of PF_TOTAL_SF to reserve at start: 0 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub sf_pool_percent: Option<u8>,
    /// sf_pool_force_destroy: whether the pool is destroyed when the controller stops.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sf_pool_force_destroy: Option<bool>,
    /// static_pf: settings of static PFs. Later generation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub static_pf: Option<StaticPfConf>,
    /// vf: settings of VFs. Later generation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vf: Option<VfConf>,
    /// dpa_core_start: first DPA core to use. Later generation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1023))]
    pub dpa_core_start: Option<u16>,
    /// dpa_core_end: last DPA core to use. Later generation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1023))]
    pub dpa_core_end: Option<u16>,
    /// eth_vq_workers: workers for data queues: 1 to 24. Later generation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 24))]
    pub eth_vq_workers: Option<u8>,
    /// admin_cmd_workers: workers for administration commands: 1 to 16. Later generation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16))]
    pub admin_cmd_workers: Option<u8>,
    /// packed_vq: whether packed virtqueues are offered. Later generation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packed_vq: Option<bool>,
    /// mrg_rxbuf: whether mergeable receive buffers are offered. Later generation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mrg_rxbuf: Option<bool>,
}

/// Settings of static PFs.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct StaticPfConf {
    /// mac_base: MAC address of static PF 0; PF n gets it plus n.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = rules::mac_is_well_formed())]
    #[x_kube(validation = rules::mac_is_unicast())]
    #[x_kube(validation = rules::mac_is_not_zero())]
    pub mac_base: Option<String>,
    /// features: what static PFs offer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub features: Option<Vec<Feature>>,
}

/// Settings of VFs.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.macBase) || has(self.vfsPerPf)")
    .message("controller.vf.vfsPerPf is required where controller.vf.macBase is given")
    .field_path(".macBase"))]
pub struct VfConf {
    /// mac_base: MAC address of the first VF; it needs vfsPerPf.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = rules::mac_is_well_formed())]
    #[x_kube(validation = rules::mac_is_unicast())]
    #[x_kube(validation = rules::mac_is_not_zero())]
    pub mac_base: Option<String>,
    /// features: what VFs offer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub features: Option<Vec<Feature>>,
    /// vfs_per_pf: how many addresses from macBase on each PF takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4096))]
    pub vfs_per_pf: Option<u16>,
}
