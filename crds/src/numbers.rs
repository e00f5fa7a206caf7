//! Numbers as API servers write them.

use serde_json::{Number, Value};

/// Turns each whole number that is held as a float into an integer: `9978.0` becomes `9978`.
///
/// API servers take `1500.0` for an integer field and answer with `1500`; whoever stores JSON as it came must do the
/// same, or typed readers fail on it.
pub fn write_whole_numbers_as_integers(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(write_whole_numbers_as_integers),
        Value::Object(fields) => fields.values_mut().for_each(write_whole_numbers_as_integers),
        Value::Number(number) if number.is_f64() => {
            // Display of a whole float has no fraction, so its text is that of the integer.
            if let Some(integer) = number.as_f64().and_then(|float| float.to_string().parse::<i64>().ok()) {
                *number = Number::from(integer);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
