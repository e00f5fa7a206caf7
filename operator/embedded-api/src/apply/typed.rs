//! How a schema types a value for merging: scalars, granular and atomic maps, and the three kinds of lists.

use serde_json::{Map, Value};

use super::field_set::Element;
use crate::status::ApiError;

/// A place in a structural schema; `None` where the schema says nothing and the value decides.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Type<'a>(Option<&'a Value>);

/// What a value is at its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Scalars, atomic lists and atomic maps: replaced and owned as a whole.
    Leaf,
    /// A map or struct whose members are merged and owned one by one.
    Granular,
    /// A list whose items are identified by their value.
    Set,
    /// A list whose items are identified by key fields.
    Keyed,
}

impl<'a> Type<'a> {
    pub(crate) fn new(schema: &'a Value) -> Self {
        Self(Some(schema))
    }

    fn hint(self, name: &str) -> Option<&'a Value> {
        self.0.and_then(|schema| schema.get(name))
    }

    /// The shape of a value here. A value of another type than the schema's is a leaf of its own.
    pub(crate) fn shape(self, value: &Value) -> Shape {
        match value {
            Value::Object(_) => match self.hint("x-kubernetes-map-type").and_then(Value::as_str) {
                Some("atomic") => Shape::Leaf,
                _ => Shape::Granular,
            },
            Value::Array(_) => match self.hint("x-kubernetes-list-type").and_then(Value::as_str) {
                Some("set") => Shape::Set,
                Some("map") => Shape::Keyed,
                _ => Shape::Leaf,
            },
            _ => Shape::Leaf,
        }
    }

    /// The type of a field or of a map's value.
    pub(crate) fn field(self, name: &str) -> Self {
        let declared = self.hint("properties").and_then(|properties| properties.get(name));
        Self(declared.or_else(|| self.hint("additionalProperties")).filter(|schema| schema.is_object()))
    }

    /// Whether the field is one of a struct, and not a key of a map.
    pub(crate) fn declares(self, name: &str) -> bool {
        self.hint("properties").is_some_and(|properties| properties.get(name).is_some())
    }

    /// Whether a map or struct may have this member.
    pub(crate) fn allows(self, name: &str) -> bool {
        let open = |hint| self.hint(hint).is_some_and(|value| *value != Value::Bool(false));
        self.declares(name)
            || open("additionalProperties")
            || open("x-kubernetes-preserve-unknown-fields")
            || self.hint("properties").is_none()
    }

    /// What type of value belongs here, with one word for all numbers; empty where anything does.
    pub(crate) fn expects(self) -> &'a str {
        match self.hint("type").and_then(Value::as_str) {
            Some("integer" | "number") => "number",
            other => other.unwrap_or_default(),
        }
    }

    /// The type of a list's items.
    pub(crate) fn item(self) -> Self {
        Self(self.hint("items"))
    }

    /// The type below a path element.
    pub(crate) fn below(self, element: &Element) -> Self {
        match element {
            Element::Field(name) => self.field(name),
            _ => self.item(),
        }
    }

    /// The items of a set or keyed list with what identifies each.
    ///
    /// # Errors
    /// 400 where an item lacks a key field or is no map, at `path`.
    pub(crate) fn items<'v>(
        self,
        list: &'v [Value],
        path: &[Element],
    ) -> Result<Vec<(Element, &'v Value)>, ApiError> {
        let named = list.iter().enumerate().map(|(index, item)| {
            let element = self.identity(item).map_err(|why| {
                let path = super::field_set::path_text(path);
                ApiError::bad_request(format!("{path}: element {index}: {why}"))
            })?;
            Ok((element, item))
        });
        named.collect()
    }

    /// What identifies an item of a set or keyed list.
    ///
    /// # Errors
    /// Where the item lacks a key field or is no map.
    pub(crate) fn identity(self, item: &Value) -> Result<Element, String> {
        let keys = self.hint("x-kubernetes-list-map-keys").and_then(Value::as_array);
        let keys: Vec<&str> = keys.into_iter().flatten().filter_map(Value::as_str).collect();
        if keys.is_empty() { Ok(Element::Item(item.to_string())) } else { self.keys_of(item, &keys) }
    }

    fn keys_of(self, item: &Value, keys: &[&str]) -> Result<Element, String> {
        let Value::Object(fields) = item else {
            return Err("associative list with keys may not have non-map elements".to_owned());
        };
        let mut found = Vec::with_capacity(keys.len());
        for key in keys {
            let default = self.item().field(key).hint("default");
            found.extend(fields.get(*key).or(default).map(|value| ((*key).to_owned(), value.to_string())));
        }
        if found.is_empty() {
            return Err(format!(
                "associative list with keys has an element that omits all key fields [\"{}\"] (and doesn't have \
                 default values for any key fields)",
                keys.join("\" \"")
            ));
        }
        found.sort_unstable();
        Ok(Element::Keys(found))
    }
}

/// The members of a map, none where the value is absent or no map.
pub(crate) fn members(value: Option<&Value>) -> Option<&Map<String, Value>> {
    value.and_then(Value::as_object)
}

/// The items of a list, none where the value is absent or no list.
pub(crate) fn list(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}
