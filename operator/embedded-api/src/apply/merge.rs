//! Merges an applied configuration into the live object.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::field_set::Element;
use super::typed::{Shape, Type, list, members};
use crate::status::ApiError;

/// The live value with what the configuration states laid over it.
pub(crate) fn merge(schema: Type<'_>, live: &Value, config: &Value) -> Result<Value, ApiError> {
    let merged = overlay(schema, Some(live), Some(config), &mut Vec::new())?;
    Ok(merged.unwrap_or_else(|| Value::Object(Map::new())))
}

fn overlay(
    schema: Type<'_>,
    live: Option<&Value>,
    config: Option<&Value>,
    path: &mut Vec<Element>,
) -> Result<Option<Value>, ApiError> {
    let Some(config) = config else { return Ok(live.cloned()) };
    match schema.shape(config) {
        Shape::Granular => {
            let stated = members(Some(config));
            if stated.is_none_or(Map::is_empty) && members(live).is_none_or(Map::is_empty) {
                return Ok(Some(config.clone()));
            }
            let mut merged = members(live).cloned().unwrap_or_default();
            for (name, value) in stated.into_iter().flatten() {
                path.push(Element::Field(name.clone()));
                let member = overlay(schema.field(name), merged.get(name), Some(value), path)?;
                path.pop();
                if let Some(member) = member {
                    merged.insert(name.clone(), member);
                }
            }
            Ok(Some(Value::Object(merged)))
        }
        Shape::Set | Shape::Keyed => {
            let live = schema.items(list(live), path)?;
            let stated = schema.items(list(Some(config)), path)?;
            let items = interleave(schema, &live, &stated, path)?;
            Ok(Some(Value::Array(items)))
        }
        Shape::Leaf => Ok(Some(config.clone())),
    }
}

/// Items of both lists: those stated in their order; each other live item before the first stated one that followed
/// it, as upstream interleaves them.
fn interleave(
    schema: Type<'_>,
    live: &[(Element, &Value)],
    stated: &[(Element, &Value)],
    path: &mut Vec<Element>,
) -> Result<Vec<Value>, ApiError> {
    let wanted: BTreeSet<&Element> = stated.iter().map(|(element, _)| element).collect();
    let held: BTreeMap<&Element, &Value> =
        live.iter().rev().map(|(element, item)| (element, *item)).collect();

    let mut merged = Vec::with_capacity(live.len().max(stated.len()));
    let mut left = live.iter().peekable();
    for (index, (element, item)) in stated.iter().enumerate() {
        let next_shared = stated[index..].iter().map(|(one, _)| one).find(|one| held.contains_key(one));
        while let Some((next, other)) = left.next_if(|(next, _)| Some(next) != next_shared) {
            if !wanted.contains(next) {
                merged.push((*other).clone());
            }
        }
        left.next_if(|(next, _)| next == element);
        path.push(element.clone());
        merged.extend(overlay(schema.item(), held.get(element).copied(), Some(item), path)?);
        path.pop();
    }
    merged.extend(left.filter(|(next, _)| !wanted.contains(next)).map(|(_, other)| (*other).clone()));
    Ok(merged)
}
