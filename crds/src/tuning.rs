//! The settings of a function that a device and a set's template share: queues, features, link, rebinding.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::limits;

/// Virtqueues of a function.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Queues {
    /// How many virtqueues the function has at most, the control queue included; less than msix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2, max = limits::MSIX_MAX - 1))]
    pub max: Option<u16>,
    /// Descriptors of the largest queue: a power of two up to 32768.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2, max = limits::QUEUE_SIZE_MAX))]
    #[x_kube(validation = Rule::new(
        "self in [2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768]")
        .message("queues.size must be a power of two from 2 to 32768"))]
    pub size: Option<u16>,
}

/// State of the link that the driver sees.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LinkState {
    /// The driver sees a link.
    #[default]
    Up,
    /// The driver sees no link.
    Down,
}

/// When a change that needs the host's driver gone may be made.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RebindPolicy {
    /// The change waits until someone unbinds the driver on the host.
    #[default]
    Never,
    /// It is made as soon as no driver uses the function.
    IfIdle,
    /// A hot-plugged function is unplugged and plugged again with the new values.
    Always,
}
