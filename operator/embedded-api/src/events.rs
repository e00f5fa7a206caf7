//! Events have two groups: stored as `v1`, answered as `v1` or `events.k8s.io/v1`, in which some fields have other names.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::builtin::EVENT_STORAGE;
use crate::object;
use crate::registry::{Form, Resource};
use crate::store::Txn;

/// How long an event is kept after it was last seen, as upstream.
const LIFETIME: SignedDuration = SignedDuration::from_hours(1);

/// Field names in `v1` and in `events.k8s.io/v1`.
const NAMES: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

/// From the form of a request to the form that is stored.
pub(crate) fn to_stored(resource: &Resource, value: Value) -> Value {
    if resource.form != Form::EventOfEventsGroup {
        return value;
    }
    rename(value, "v1", |(stored, asked)| (asked, stored))
}

/// From the stored form to the form of a request.
pub(crate) fn from_stored(resource: &Resource, value: Value) -> Value {
    if resource.form != Form::EventOfEventsGroup {
        return value;
    }
    rename(value, &resource.api_version(), |(stored, asked)| (stored, asked))
}

fn rename(
    mut value: Value,
    api_version: &str,
    direction: fn((&'static str, &'static str)) -> (&'static str, &'static str),
) -> Value {
    let map = object::map_mut(&mut value);
    for (from, to) in NAMES.map(direction) {
        if let Some(held) = map.remove(from) {
            map.insert(to.to_owned(), held);
        }
    }
    map.insert("apiVersion".to_owned(), api_version.into());
    value
}

/// Removes the events that were last seen over an hour ago. Called when an event is made, so that the number of
/// events stays bounded and nothing happens at rest.
pub(crate) fn expire(txn: &mut Txn<'_>, now: Timestamp) {
    let Ok(horizon) = now.checked_sub(LIFETIME) else { return };
    for (key, event) in txn.list(&EVENT_STORAGE.into(), "") {
        if last_seen(&event.value).is_some_and(|seen| seen < horizon) {
            txn.remove(&key, None);
        }
    }
}

fn last_seen(event: &Value) -> Option<Timestamp> {
    ["/series/lastObservedTime", "/lastTimestamp", "/eventTime", "/metadata/creationTimestamp"]
        .iter()
        .filter_map(|field| event.pointer(field)?.as_str()?.parse().ok())
        .max()
}
