//! The CustomResourceDefinitions as they are committed, applied and used for offline validation.
//!
//! What the derive emits is put into the form that API servers store: without Rust's number formats (a server
//! warns of each) and without `nullable` (a server would store nulls), and with the kind's default status.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt;
use serde_json::json;

use crate::common::NEVER_OBSERVED;
use crate::{Dpu, VirtnetDevice, VirtnetDeviceSet};

/// All CustomResourceDefinitions of this crate, in the committed form.
#[must_use]
pub fn all() -> Vec<CustomResourceDefinition> {
    [Dpu::crd(), VirtnetDevice::crd(), VirtnetDeviceSet::crd()].into_iter().map(finished).collect()
}

fn finished(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut crd.spec.versions {
        let Some(root) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) else {
            continue;
        };
        clean(root);
        if let Some(status) = root.properties.as_mut().and_then(|properties| properties.get_mut("status")) {
            status.default = Some(JSON(json!({ "observedGeneration": NEVER_OBSERVED })));
        }
    }
    crd
}

/// Removes what servers warn of or would store nulls for, at every level.
fn clean(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    if schema.format.as_deref().is_some_and(|format| !SERVER_FORMATS.contains(&format)) {
        schema.format = None;
    }
    // The derive writes `default: null` and empty descriptions nowhere; defaults of absent values stay absent.
    for child in schema.properties.iter_mut().flat_map(|properties| properties.values_mut()) {
        clean(child);
    }
    match &mut schema.items {
        Some(JSONSchemaPropsOrArray::Schema(item)) => clean(item),
        Some(JSONSchemaPropsOrArray::Schemas(items)) => items.iter_mut().for_each(clean),
        None => {}
    }
    if let Some(JSONSchemaPropsOrBool::Schema(value)) = &mut schema.additional_properties {
        clean(value);
    }
}

/// The formats among those emitted that API servers know and check.
const SERVER_FORMATS: [&str; 2] = ["date-time", "int64"];
