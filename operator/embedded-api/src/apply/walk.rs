//! Walks over typed values: the paths of one, the differences of two, and a value without some paths.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::field_set::{Element, FieldSet};
use super::typed::{Shape, Type, list, members};
use crate::status::ApiError;

/// The paths that whoever states `value` states.
pub(crate) fn field_set(schema: Type<'_>, value: &Value) -> Result<FieldSet, ApiError> {
    let mut set = FieldSet::default();
    collect(schema, value, &mut Vec::new(), &mut set)?;
    Ok(set)
}

fn collect(
    schema: Type<'_>,
    value: &Value,
    path: &mut Vec<Element>,
    set: &mut FieldSet,
) -> Result<(), ApiError> {
    match schema.shape(value) {
        Shape::Leaf => set.insert(path),
        Shape::Granular => {
            for (name, member) in members(Some(value)).into_iter().flatten() {
                path.push(Element::Field(name.clone()));
                collect(schema.field(name), member, path, set)?;
                // A struct's field is owned through what is in it; an empty one, or a map's key, by itself.
                let empty = member.is_null() || member.as_object().is_some_and(Map::is_empty);
                if empty || !schema.declares(name) {
                    set.insert(path);
                }
                path.pop();
            }
        }
        Shape::Set | Shape::Keyed => {
            for (element, item) in schema.items(list(Some(value)), path)? {
                path.push(element);
                collect(schema.item(), item, path, set)?;
                set.insert(path);
                path.pop();
            }
        }
    }
    Ok(())
}

/// What differs between two values.
#[derive(Debug, Default)]
pub(crate) struct Comparison {
    pub(crate) added: FieldSet,
    pub(crate) modified: FieldSet,
    pub(crate) removed: FieldSet,
}

/// Compares the value before with the value after.
pub(crate) fn compare(schema: Type<'_>, before: &Value, after: &Value) -> Result<Comparison, ApiError> {
    let mut comparison = Comparison::default();
    differ(schema, Some(before), Some(after), &mut Vec::new(), &mut comparison)?;
    Ok(comparison)
}

fn differ(
    schema: Type<'_>,
    before: Option<&Value>,
    after: Option<&Value>,
    path: &mut Vec<Element>,
    found: &mut Comparison,
) -> Result<(), ApiError> {
    let shapes: BTreeSet<u8> =
        [before, after].into_iter().flatten().map(|value| schema.shape(value) as u8).collect();
    let one_shape = after.or(before).map(|value| schema.shape(value)).filter(|_| shapes.len() == 1);
    let both_empty = [before, after].into_iter().flatten().all(is_empty);
    match one_shape {
        Some(Shape::Granular) if !both_empty => {
            let names: BTreeSet<&String> =
                [before, after].into_iter().filter_map(members).flat_map(Map::keys).collect();
            for name in names {
                path.push(Element::Field(name.clone()));
                differ(schema.field(name), member(before, name), member(after, name), path, found)?;
                path.pop();
            }
        }
        Some(Shape::Set | Shape::Keyed) if !both_empty => {
            let mut items: BTreeMap<Element, (Option<&Value>, Option<&Value>)> = BTreeMap::new();
            for (element, item) in schema.items(list(before), path)? {
                items.entry(element).or_default().0.get_or_insert(item);
            }
            for (element, item) in schema.items(list(after), path)? {
                items.entry(element).or_default().1.get_or_insert(item);
            }
            for (element, (before, after)) in items {
                path.push(element);
                differ(schema.item(), before, after, path, found)?;
                path.pop();
            }
        }
        _ => {
            match (before, after) {
                (None, _) => found.added.insert(path),
                (_, None) => found.removed.insert(path),
                (Some(before), Some(after)) if before != after => found.modified.insert(path),
                _ => {}
            }
            return Ok(());
        }
    }
    match (before, after) {
        (None, _) => found.added.insert(path),
        (_, None) => found.removed.insert(path),
        _ => {}
    }
    Ok(())
}

fn member<'v>(side: Option<&'v Value>, name: &str) -> Option<&'v Value> {
    side.and_then(|value| value.get(name))
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => true,
    }
}

/// The value without the paths in `unwanted`; a list that is left empty goes too.
pub(crate) fn remove(schema: Type<'_>, value: &Value, unwanted: &FieldSet) -> Result<Value, ApiError> {
    Ok(without(schema, value, unwanted, &mut Vec::new())?.unwrap_or_else(|| Value::Object(Map::new())))
}

fn without(
    schema: Type<'_>,
    value: &Value,
    unwanted: &FieldSet,
    path: &mut Vec<Element>,
) -> Result<Option<Value>, ApiError> {
    let mut keep = |element: Element, schema: Type<'_>, value: &Value| -> Result<Option<Value>, ApiError> {
        if unwanted.has(&element) {
            return Ok(None);
        }
        let Some(below) = unwanted.below(&element) else { return Ok(Some(value.clone())) };
        path.push(element);
        let kept = without(schema, value, below, path)?;
        path.pop();
        Ok(kept)
    };
    match schema.shape(value) {
        // Part of a leaf can't be taken away.
        Shape::Leaf => Ok(Some(value.clone())),
        Shape::Granular => {
            let mut kept = Map::new();
            for (name, member) in members(Some(value)).into_iter().flatten() {
                let element = Element::Field(name.clone());
                let is_whole = unwanted.has(&element);
                match keep(element, schema.field(name), member)? {
                    Some(member) => drop(kept.insert(name.clone(), member)),
                    // As upstream, what was taken from it piece by piece is there as null, and so is a path still.
                    None if !is_whole => drop(kept.insert(name.clone(), Value::Null)),
                    None => {}
                }
            }
            Ok((!kept.is_empty()).then_some(Value::Object(kept)))
        }
        Shape::Set | Shape::Keyed => {
            let mut kept = Vec::new();
            for (element, item) in schema.items(list(Some(value)), &[])? {
                kept.extend(keep(element, schema.item(), item)?);
            }
            Ok((!kept.is_empty()).then_some(Value::Array(kept)))
        }
    }
}
