//! Which of two versions of an object is the later one.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// Whether `a` is a later version than `b`: versions of one resource are ordered as numbers (Kubernetes 1.35 and later say
/// so; earlier servers behave so).
pub fn is_newer(a: &ObjectMeta, b: &ObjectMeta) -> bool {
    let version =
        |meta: &ObjectMeta| meta.resource_version.as_deref().and_then(|text| text.parse::<u64>().ok());
    version(a) > version(b)
}
