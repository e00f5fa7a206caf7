//! Structural validation: types, bounds, patterns, enumerations and required fields.

use serde_json::{Map, Number, Value};

use super::error::{FieldError, NO_FIELD, plain_float, quoted};
use super::node::{Additional, Node, Type};
use super::prior::Prior;

/// Collects what is wrong with `value`, which stands at `path`.
pub(crate) fn validate(
    node: &Node,
    value: &Value,
    prior: Prior<'_>,
    path: &str,
    errors: &mut Vec<FieldError>,
) {
    let before = errors.len();
    check_type(node, value, path, errors);
    match value {
        Value::Null | Value::Bool(_) => {}
        Value::String(text) => check_string(node, text, path, errors),
        Value::Number(number) => check_number(node, number, path, errors),
        Value::Array(items) => check_list(node, value, items, prior, path, errors),
        Value::Object(fields) => check_fields(node, value, fields, prior, path, errors),
    }
    if !node.enum_.is_empty() && !node.enum_.contains(value) {
        errors.push(FieldError::not_supported(path, value.clone(), &node.enum_));
    }
    if errors.len() > before && prior.forgives(node, value) {
        errors.truncate(before);
    }
}

fn check_type(node: &Node, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let Some(wanted) = node.type_ else { return };
    let found = match value {
        Value::Null if node.nullable => return,
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_i64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let fits = match wanted {
        Type::Object | Type::Array | Type::String | Type::Boolean => found == wanted.name(),
        Type::Integer => is_integer(value),
        Type::Number => value.is_number(),
        Type::IntOrString => is_integer(value) || value.is_string(),
    };
    // Where there is a format, the server looks at that instead, and lets lists pass.
    let (wanted, found, fits) = match value {
        _ if !node.date_time || value.is_null() => (wanted.name(), found, fits),
        Value::Number(number) if number.is_i64() => ("date-time", "int64", false),
        Value::Number(_) => ("date-time", "float64", false),
        Value::Bool(_) | Value::Object(_) => ("date-time", "", false),
        Value::Null | Value::String(_) | Value::Array(_) => ("date-time", found, true),
    };
    if !fits {
        let detail = format!("{path} in body must be of type {wanted}: {}", quoted(found));
        errors.push(FieldError::new(path, super::FieldErrorKind::TypeInvalid, found.into(), detail));
    }
}

/// Whole numbers count as integers however they are written, as far as a float holds them exactly.
fn is_integer(value: &Value) -> bool {
    const LARGEST_EXACT: f64 = 9_007_199_254_740_991.0;
    value.is_i64() || value.as_f64().is_some_and(|float| float.fract() == 0.0 && float.abs() <= LARGEST_EXACT)
}

fn check_string(node: &Node, text: &str, path: &str, errors: &mut Vec<FieldError>) {
    let length = text.chars().count() as u64;
    // One complaint about a string is enough; a length is counted in characters though the server says bytes.
    if let Some(max) = node.max_length.filter(|max| length > *max) {
        errors.push(FieldError::too_long(path, max));
    } else if let Some(min) = node.min_length.filter(|min| length < *min) {
        let detail = format!("{path} in body should be at least {min} chars long");
        errors.push(FieldError::invalid(path, text.into(), detail));
    } else if let Some(pattern) = node.pattern.as_ref().filter(|pattern| !pattern.is_match(text)) {
        let detail = format!("{path} in body should match '{}'", pattern.as_str());
        errors.push(FieldError::invalid(path, text.into(), detail));
    }
    if node.date_time && !is_date_time(text) {
        let detail = format!("{path} in body must be of type date-time: {}", quoted(text));
        errors.push(FieldError::new(path, super::FieldErrorKind::TypeInvalid, text.into(), detail));
    }
}

/// Whether the text is a point in time as the server reads RFC 3339: `2006-01-02T15:04:05Z`, with any letter case,
/// fraction and offset.
fn is_date_time(text: &str) -> bool {
    let Some((date, time)) = text.split_once(['t', 'T']) else { return false };
    let Some((clock, rest)) = time.split_at_checked(8) else { return false };
    let is_clock = match clock.as_bytes() {
        [h1, h2, b':', m1, m2, b':', s1, s2] => {
            [h1, h2, m1, m2, s1, s2].iter().all(|digit| digit.is_ascii_digit())
                && ([*h1, *h2], [*m1, *m2], [*s1, *s2]) <= (*b"23", *b"59", *b"59")
                && [*m1, *m2] <= *b"59"
                && [*s1, *s2] <= *b"59"
        }
        _ => false,
    };
    let offset = match rest.strip_prefix('.') {
        Some(fraction) => {
            let digits = fraction.len() - fraction.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            if digits == 0 {
                return false;
            }
            &fraction[digits..]
        }
        None => rest,
    };
    let is_offset = match offset.as_bytes() {
        [b'z' | b'Z'] => true,
        [b'+' | b'-', h1, h2, b':', m1, m2] => [h1, h2, m1, m2].iter().all(|digit| digit.is_ascii_digit()),
        _ => false,
    };
    date.len() == 10 && date.parse::<k8s_openapi::jiff::civil::Date>().is_ok() && is_clock && is_offset
}

fn check_number(node: &Node, number: &Number, path: &str, errors: &mut Vec<FieldError>) {
    if node.type_ == Some(Type::Integer) && !(number.is_i64() || fits_integer(number)) {
        // The server can't say here which field it means.
        let detail = format!("Checked value must be of type integer (default format) in {path}");
        errors.push(FieldError::invalid(NO_FIELD, "".into(), detail));
    }
    let Some(float) = number.as_f64() else { return };
    let mut complain = |words: &str, bound: f64| {
        let bound = if number.is_f64() { plain_float(bound) } else { bound.to_string() };
        let detail = format!("{path} in body should be {words} {bound}");
        errors.push(FieldError::invalid(path, Value::Number(number.clone()), detail));
    };
    if let Some(factor) = node.multiple_of
        && (float / factor).fract() != 0.0
    {
        complain("a multiple of", factor);
    }
    if let Some(bound) = node.minimum {
        if bound.exclusive && float <= bound.value {
            complain("greater than", bound.value);
        } else if float < bound.value {
            complain("greater than or equal to", bound.value);
        }
    }
    if let Some(bound) = node.maximum {
        if bound.exclusive && float >= bound.value {
            complain("less than", bound.value);
        } else if float > bound.value {
            complain("less than or equal to", bound.value);
        }
    }
}

/// Whether a number that isn't stored as a signed integer can be one.
fn fits_integer(number: &Number) -> bool {
    // 2^63 is the first float that is too large.
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    number.is_f64()
        && number.as_f64().is_some_and(|float| float.fract() == 0.0 && (-LIMIT..LIMIT).contains(&float))
}

fn check_list(
    node: &Node,
    value: &Value,
    items: &[Value],
    prior: Prior<'_>,
    path: &str,
    errors: &mut Vec<FieldError>,
) {
    if let Some(schema) = &node.items {
        for (index, item) in items.iter().enumerate() {
            validate(schema, item, prior.item(node, value, item), &format!("{path}[{index}]"), errors);
        }
    }
    let length = items.len() as u64;
    if let Some(min) = node.min_items.filter(|min| length < *min) {
        let detail = format!("{path} in body should have at least {min} items");
        errors.push(FieldError::invalid(path, length.into(), detail));
    }
    if let Some(max) = node.max_items.filter(|max| length > *max) {
        errors.push(FieldError::too_many(path, items.len(), max));
    }
}

fn check_fields(
    node: &Node,
    value: &Value,
    fields: &Map<String, Value>,
    prior: Prior<'_>,
    path: &str,
    errors: &mut Vec<FieldError>,
) {
    let length = fields.len() as u64;
    if let Some(min) = node.min_properties.filter(|min| length < *min) {
        let detail = format!("{path} in body should have at least {min} properties");
        errors.push(FieldError::invalid(path, length.into(), detail));
    }
    if let Some(max) = node.max_properties.filter(|max| length > *max) {
        errors.push(FieldError::too_many(path, fields.len(), max));
    }
    let path_of = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    for (name, field) in fields {
        let schema = match (node.properties.get(name), &node.additional) {
            (Some(property), _) => property,
            (None, Some(Additional::Schema(additional))) => additional,
            (None, Some(Additional::Any) | None) => continue,
        };
        validate(schema, field, prior.field(node, value, name), &path_of(name), errors);
    }
    for name in node.required.iter().filter(|name| !fields.contains_key(*name)) {
        errors.push(FieldError::required(&path_of(name), ""));
    }
}
