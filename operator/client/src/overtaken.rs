//! Writes that come too late.

use kube::core::Status;

/// Whether a write was refused because the object is another version now, or gone; a field that someone else holds is not
/// that.
pub fn is_overtaken(refusal: &Status) -> bool {
    let has_causes = refusal.details.iter().any(|details| !details.causes.is_empty());
    refusal.code == 404 || refusal.code == 409 && !has_causes
}
