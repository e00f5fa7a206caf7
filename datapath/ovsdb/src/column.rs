//! Values of columns: from the wire (RFC 7047, section 5.1) into Rust's types, and what an update3's difference does to them
//! (ovsdb-server(7), section 4.1.14).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use uuid::Uuid;

/// A value that is not what its column holds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{value} is not {wanted}")]
pub(crate) struct Mistyped {
    value: String,
    wanted: &'static str,
}

impl Mistyped {
    /// The value is cut: it comes from elsewhere and may be of any length.
    pub(crate) fn new(value: &Value, wanted: &'static str) -> Self {
        let mut value = value.to_string();
        if let Some((end, _)) = value.char_indices().nth(80) {
            value.truncate(end);
            value.push('…');
        }
        Self { value, wanted }
    }
}

/// A single value: `<atom>`.
pub(crate) trait Atom: Ord + Sized {
    /// From the wire.
    fn from_wire(value: &Value) -> Result<Self, Mistyped>;
}

impl Atom for String {
    fn from_wire(value: &Value) -> Result<Self, Mistyped> {
        value.as_str().map(str::to_owned).ok_or_else(|| Mistyped::new(value, "a string"))
    }
}

impl Atom for i64 {
    fn from_wire(value: &Value) -> Result<Self, Mistyped> {
        value.as_i64().ok_or_else(|| Mistyped::new(value, "an integer"))
    }
}

impl Atom for Uuid {
    fn from_wire(value: &Value) -> Result<Self, Mistyped> {
        let text = match value.as_array().map(Vec::as_slice) {
            Some([tag, Value::String(text)]) if tag == "uuid" => text,
            _ => return Err(Mistyped::new(value, "a uuid")),
        };
        text.parse().map_err(|_| Mistyped::new(value, "a uuid"))
    }
}

/// A row's reference on the wire.
pub(crate) fn uuid(row: Uuid) -> Value {
    json!(["uuid", row.to_string()])
}

/// A set on the wire.
pub(crate) fn set(items: impl IntoIterator<Item = Value>) -> Value {
    json!(["set", items.into_iter().collect::<Vec<_>>()])
}

/// A map on the wire.
pub(crate) fn map<'a>(pairs: impl IntoIterator<Item = (&'a String, &'a String)>) -> Value {
    json!(["map", pairs.into_iter().map(|(key, value)| json!([key, value])).collect::<Vec<_>>()])
}

/// What a column of a row holds.
pub(crate) trait Column: Default {
    /// From the wire, whole.
    fn read(value: &Value) -> Result<Self, Mistyped>;

    /// Takes in a difference.
    fn differ(&mut self, difference: &Value) -> Result<(), Mistyped>;
}

/// Columns of one value: the difference is the new value.
macro_rules! single {
    ($($type:ty),*) => {$(
        impl Column for $type {
            fn read(value: &Value) -> Result<Self, Mistyped> {
                Atom::from_wire(value)
            }

            fn differ(&mut self, difference: &Value) -> Result<(), Mistyped> {
                *self = Atom::from_wire(difference)?;
                Ok(())
            }
        }
    )*};
}
single!(String, i64);

/// `<set>`: a single value stands for the set of it.
fn read_set<A: Atom>(value: &Value) -> Result<BTreeSet<A>, Mistyped> {
    match value.as_array().map(Vec::as_slice) {
        Some([tag, Value::Array(items)]) if tag == "set" => items.iter().map(A::from_wire).collect(),
        _ => Ok([A::from_wire(value)?].into()),
    }
}

/// At most one value. As a column of at most one, its difference is the new value too.
impl<A: Atom> Column for Option<A> {
    fn read(value: &Value) -> Result<Self, Mistyped> {
        let mut set = read_set(value)?;
        if set.len() > 1 {
            return Err(Mistyped::new(value, "a set of at most one value"));
        }
        Ok(set.pop_first())
    }

    fn differ(&mut self, difference: &Value) -> Result<(), Mistyped> {
        *self = Self::read(difference)?;
        Ok(())
    }
}

/// Any number of values: the difference has those that are in one of the two sets only.
impl<A: Atom> Column for BTreeSet<A> {
    fn read(value: &Value) -> Result<Self, Mistyped> {
        read_set(value)
    }

    fn differ(&mut self, difference: &Value) -> Result<(), Mistyped> {
        for item in read_set(difference)? {
            if !self.remove(&item) {
                self.insert(item);
            }
        }
        Ok(())
    }
}

/// Strings by strings: the difference has new pairs, gone pairs as they were, and changed pairs as they are.
impl Column for BTreeMap<String, String> {
    fn read(value: &Value) -> Result<Self, Mistyped> {
        let wrong = || Mistyped::new(value, "a map of strings");
        let pairs = match value.as_array().map(Vec::as_slice) {
            Some([tag, Value::Array(pairs)]) if tag == "map" => pairs,
            _ => return Err(wrong()),
        };
        pairs
            .iter()
            .map(|pair| match pair.as_array().map(Vec::as_slice) {
                Some([key, value]) => Ok((String::from_wire(key)?, String::from_wire(value)?)),
                _ => Err(wrong()),
            })
            .collect()
    }

    fn differ(&mut self, difference: &Value) -> Result<(), Mistyped> {
        for (key, value) in Self::read(difference)? {
            if self.get(&key) == Some(&value) {
                self.remove(&key);
            } else {
                self.insert(key, value);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_optional_value_is_replaced_by_its_difference() {
        let mut tag: Option<i64> = Column::read(&json!(["set", []])).unwrap();
        assert_eq!(tag, None);
        tag.differ(&json!(100)).unwrap();
        assert_eq!(tag, Some(100));
        tag.differ(&json!(200)).unwrap();
        assert_eq!(tag, Some(200));
        tag.differ(&json!(["set", []])).unwrap();
        assert_eq!(tag, None);
        assert!(tag.differ(&json!(["set", [1, 2]])).is_err());
    }

    #[test]
    fn a_set_takes_in_what_is_new_and_gives_up_what_is_gone() {
        let mut trunks: BTreeSet<i64> = Column::read(&json!(["set", [1, 2]])).unwrap();
        trunks.differ(&json!(["set", [2, 3]])).unwrap();
        assert_eq!(trunks, [1, 3].into());
        trunks.differ(&json!(1)).unwrap();
        assert_eq!(trunks, [3].into());
    }

    #[test]
    fn a_map_takes_in_new_changed_and_gone_pairs() {
        let mut ids: BTreeMap<String, String> =
            Column::read(&json!(["map", [["a", "1"], ["b", "2"], ["c", "3"]]])).unwrap();
        ids.differ(&json!(["map", [["a", "1"], ["b", "20"], ["d", "4"]]])).unwrap();
        let wanted = [("b", "20"), ("c", "3"), ("d", "4")];
        assert_eq!(ids, wanted.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
    }

    #[test]
    fn a_value_of_another_type_is_named_and_cut() {
        assert_eq!(i64::from_wire(&json!("7")).unwrap_err().to_string(), "\"7\" is not an integer");
        assert!(Uuid::from_wire(&json!(["uuid", "x"])).is_err());
        assert!(<BTreeMap<String, String> as Column>::read(&json!(["map", [["a"]]])).is_err());
        let long = String::from_wire(&json!(["é".repeat(500)])).unwrap_err().to_string();
        assert!(long.chars().count() < 120 && long.contains('…'), "{long}");
    }
}
