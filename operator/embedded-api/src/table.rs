//! Tables: what `kubectl get` prints, made from the printer columns.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::object;
use crate::registry::{Column, Form, Resource};

/// How much of each object goes along with its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Include {
    Nothing,
    Metadata,
    Object,
}

impl Include {
    /// Reads the parameter `includeObject`.
    pub(crate) fn parse(text: Option<&str>) -> Option<Self> {
        match text {
            None | Some("Metadata") => Some(Self::Metadata),
            Some("Object") => Some(Self::Object),
            Some("None") => Some(Self::Nothing),
            Some(_) => None,
        }
    }
}

/// A table with one row for each object; `headed` is false for all but the first of a watch.
pub(crate) fn table(
    resource: &Resource,
    objects: &[Value],
    metadata: &Value,
    include: Include,
    headed: bool,
    now: Timestamp,
) -> Value {
    let rows: Vec<Value> = objects.iter().map(|object| row(resource, object, include, now)).collect();
    let columns = if headed { headings(resource) } else { Vec::new() };
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": columns,
        "rows": rows,
    })
}

fn headings(resource: &Resource) -> Vec<Value> {
    let name = json!({
        "name": "Name",
        "type": "string",
        "format": "name",
        "description": "Name of the object, unique within its namespace.",
        "priority": 0,
    });
    let others = resource.columns.iter().map(|column| {
        json!({
            "name": column.name,
            // Upstream shows the dates of custom kinds as such, and others as the text that they are.
            "type": if resource.form == Form::Custom { column.kind.as_str() } else { "string" },
            "format": column.format,
            "description": column.description,
            "priority": column.priority,
        })
    });
    std::iter::once(name).chain(others).collect()
}

fn row(resource: &Resource, object: &Value, include: Include, now: Timestamp) -> Value {
    let cells: Vec<Value> = std::iter::once(object::name(object).into())
        .chain(resource.columns.iter().map(|column| cell(resource, column, object, now)))
        .collect();
    match include {
        Include::Nothing => json!({ "cells": cells, "object": null }),
        Include::Metadata => json!({ "cells": cells, "object": partial(object) }),
        Include::Object => json!({ "cells": cells, "object": object }),
    }
}

/// The object's metadata alone, as `meta.k8s.io/v1` has it.
pub(crate) fn partial(object: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": object.get("metadata").cloned().unwrap_or_else(|| Value::Object(Map::new())),
    })
}

fn cell(resource: &Resource, column: &Column, object: &Value, now: Timestamp) -> Value {
    let found = column.path.first(object).filter(|value| !value.is_null());
    if matches!(resource.form, Form::Event | Form::EventOfEventsGroup) {
        match column.name.as_str() {
            "Last Seen" => return last_seen(object, now).into(),
            "Object" => return found.map_or(Value::Null, |regarding| subject(regarding).into()),
            _ => {}
        }
    }
    let Some(found) = found else {
        return if column.kind == "date" { "<unknown>".into() } else { Value::Null };
    };
    match column.kind.as_str() {
        "date" => age(found.as_str().unwrap_or_default(), now).into(),
        "integer" if found.is_i64() || found.is_u64() => found.clone(),
        "number" if found.is_number() => found.clone(),
        "boolean" if found.is_boolean() => found.clone(),
        "string" => match found {
            Value::String(_) => found.clone(),
            other => other.to_string().into(),
        },
        _ => Value::Null,
    }
}

fn subject(regarding: &Value) -> String {
    let text = |field: &str| regarding.get(field).and_then(Value::as_str).unwrap_or_default();
    format!("{}/{}", text("kind").to_lowercase(), text("name"))
}

fn last_seen(event: &Value, now: Timestamp) -> String {
    let fields = [
        "/series/lastObservedTime",
        "/lastTimestamp",
        "/deprecatedLastTimestamp",
        "/eventTime",
        "/metadata/creationTimestamp",
    ];
    let seen = fields.iter().find_map(|field| event.pointer(field).and_then(Value::as_str));
    age(seen.unwrap_or_default(), now)
}

fn age(since: &str, now: Timestamp) -> String {
    match since.parse::<Timestamp>() {
        Ok(since) => human_duration(now.as_second() - since.as_second()),
        Err(_) => "<unknown>".to_owned(),
    }
}

/// A duration in the one or two largest units that matter, in kubectl's steps.
#[must_use]
pub fn human_duration(seconds: i64) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    const YEAR: i64 = 365 * DAY;
    let two = |large: i64, unit: &str, small: i64, of: &str| {
        if small == 0 { format!("{large}{unit}") } else { format!("{large}{unit}{small}{of}") }
    };
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        _ if seconds < 2 * MINUTE => format!("{seconds}s"),
        _ if seconds < 10 * MINUTE => two(seconds / MINUTE, "m", seconds % MINUTE, "s"),
        _ if seconds < 3 * HOUR => format!("{}m", seconds / MINUTE),
        _ if seconds < 8 * HOUR => two(seconds / HOUR, "h", seconds % HOUR / MINUTE, "m"),
        _ if seconds < 2 * DAY => format!("{}h", seconds / HOUR),
        _ if seconds < 8 * DAY => two(seconds / DAY, "d", seconds % DAY / HOUR, "h"),
        _ if seconds < 2 * YEAR => format!("{}d", seconds / DAY),
        _ if seconds < 8 * YEAR => two(seconds / YEAR, "y", seconds % YEAR / DAY, "d"),
        _ => format!("{}y", seconds / YEAR),
    }
}

#[cfg(test)]
mod tests {
    use super::human_duration;

    #[test]
    fn ages_are_worded_as_kubectl_words_them() {
        for (seconds, words) in [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (600, "10m"),
            (3 * 3600 - 1, "179m"),
            (3 * 3600, "3h"),
            (3 * 3600 + 61, "3h1m"),
            (47 * 3600, "47h"),
            (48 * 3600, "2d"),
            (50 * 3600, "2d2h"),
            (9 * 86400, "9d"),
            (800 * 86400, "2y70d"),
            (9 * 365 * 86400, "9y"),
        ] {
            assert_eq!(human_duration(seconds), words, "{seconds}");
        }
    }
}
