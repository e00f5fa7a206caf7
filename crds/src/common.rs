//! Sub-structures that several kinds share: label selectors and the schema of conditions.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Selects DPUs by the labels of their `Dpu` objects. An empty selector takes every DPU.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct DpuSelector {
    /// Labels that a Dpu must carry, each with exactly this value.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(transform = bounded_map::<16, 63>)]
    pub match_labels: BTreeMap<String, String>,
}

impl DpuSelector {
    /// Whether an object with these labels is selected.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
    }
}

/// A port of the DPU's network controller, as mlxconfig and `virtnet.conf` count them.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[serde(rename_all = "lowercase")]
pub enum Port {
    /// The first port.
    P0,
    /// The second port.
    P1,
}

/// What kind of PCIe function a virtio-net function is.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FunctionType {
    /// A physical function that is plugged and unplugged while the host runs.
    HotPlug,
    /// A physical function made by the firmware's configuration.
    Static,
    /// A virtual function that the host makes from a static PF.
    #[serde(rename = "VF")]
    Vf,
}

/// Schema of `status.conditions`: bounded, and merged by type so that two writers don't collide.
pub(crate) fn conditions_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "What is known of the object's state, one entry for each type of condition.",
        "type": "array",
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "description": "One aspect of the object's state.",
            "type": "object",
            "required": ["type", "status", "lastTransitionTime", "reason", "message"],
            "properties": {
                "type": {
                    "description": "What the condition is about, in CamelCase.",
                    "type": "string", "maxLength": 316
                },
                "status": {
                    "description": "Whether the condition holds.",
                    "type": "string", "enum": ["True", "False", "Unknown"]
                },
                "observedGeneration": {
                    "description": "The metadata.generation for which this was found.",
                    "type": "integer", "minimum": 0
                },
                "lastTransitionTime": {
                    "description": "When the status last changed.",
                    "type": "string", "format": "date-time"
                },
                "reason": {
                    "description": "Why, in one CamelCase word.",
                    "type": "string", "minLength": 1, "maxLength": 1024,
                    "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"
                },
                "message": {
                    "description": "Why, in words for people.",
                    "type": "string", "maxLength": 32768
                }
            }
        }
    })
}

/// Conditions of a status, in the Kubernetes form.
pub type Conditions = Vec<Condition>;

/// `status.observedGeneration` of an object that nobody has looked at yet, so that silence is not success.
pub const NEVER_OBSERVED: i64 = -1;

pub(crate) fn never_observed() -> i64 {
    NEVER_OBSERVED
}

/// Bounds a map of strings: its entries, and the length of each value in bytes.
///
/// The attributes of schemars reach the map but not its values.
pub(crate) fn bounded_map<const ENTRIES: u32, const VALUE: u32>(schema: &mut Schema) {
    schema.insert("maxProperties".into(), ENTRIES.into());
    if let Some(value) = schema.get_mut("additionalProperties").and_then(serde_json::Value::as_object_mut) {
        value.insert("maxLength".into(), VALUE.into());
    }
}
