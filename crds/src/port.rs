//! The Open vSwitch port of a device.

use std::collections::BTreeMap;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::common::bounded_map;
use crate::limits;

/// The port that connects the function's representor to a bridge.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!(has(self.tag) && has(self.trunks) && self.trunks.size() > 0)")
    .message("port.tag and a non-empty port.trunks exclude each other: \
        tag makes an access port, trunks a trunk port")
    .field_path(".tag"))]
pub struct PortSpec {
    /// Name of the bridge: that of a network interface. The bridge must exist, or be one that the Dpu says to make.
    #[schemars(length(min = 1, max = limits::INTERFACE_NAME_MAX))]
    #[x_kube(validation = Rule::new("self.matches('^[!-.0-9;-~]+$') && self != '.' && self != '..'")
        .message("port.bridge must be the name of a network interface: \
            up to 15 printable characters of ASCII, no slash, colon or white space, not . or .."))]
    pub bridge: String,
    /// Type of the OVS interface, such as dpdk; if empty, the system's network device.
    #[serde(default, rename = "type", skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new("self.matches('^[a-zA-Z0-9_-]*$')")
        .message("port.type must be a type of OVS interfaces: letters, digits, - and _"))]
    pub type_: String,
    /// VLAN of an access port: 1 to 4094.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = limits::VLAN_MIN, max = limits::VLAN_MAX))]
    pub tag: Option<u16>,
    /// VLANs of a trunk port, each 1 to 4094; if empty, the port carries all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4094), inner(range(min = limits::VLAN_MIN, max = limits::VLAN_MAX)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub trunks: Vec<u16>,
    /// Keys to add to the external_ids of the port's interface. Those beginning with virtnet- are the agent's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(transform = bounded_map::<32, 256>)]
    #[x_kube(validation = Rule::new("self.all(key, !key.startsWith('virtnet-'))")
        .message("port.externalIds must not have keys beginning with virtnet-: they are virtnet's own"))]
    #[x_kube(validation = Rule::new("self.all(key, !key.contains(',') && !key.matches('\\\\p{Cc}') && !self[key].matches('\\\\p{Cc}'))")
        .message("port.externalIds must not have commas in keys, nor control characters such as line breaks"))]
    pub external_ids: BTreeMap<String, String>,
}
