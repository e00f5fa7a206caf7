//! What a scalar means, as kubectl's YAML library reads it: YAML 1.1 with a few rules of its own.

use serde_json::{Number, Value};

/// The value of a scalar without quotes and without a tag.
///
/// # Errors
/// Infinities and NaN, which JSON can't hold.
pub(super) fn plain(text: &str) -> Result<Value, String> {
    if let Some(value) = word(text) {
        return value;
    }
    let first = text.as_bytes().first();
    match first {
        Some(b'.') => Ok(decimal(text).unwrap_or_else(|| text.into())),
        Some(b'+' | b'-' | b'0'..=b'9') => Ok(number(text).unwrap_or_else(|| text.into())),
        _ => Ok(text.into()),
    }
}

/// The value of a scalar with a tag of YAML's own (`!!int`), by the tag's name.
///
/// # Errors
/// Unknown tags, and text that isn't what the tag says.
pub(super) fn tagged(tag: &str, text: &str) -> Result<Value, String> {
    let mismatch = || format!("{text:?} is no !!{tag}");
    match tag {
        "str" => Some(text.into()),
        "int" => plain(text)?.as_number().filter(|number| !number.is_f64()).cloned().map(Value::Number),
        "float" => plain(text)?.as_number().cloned().map(Value::Number),
        "bool" => plain(text)?.as_bool().map(Value::Bool),
        "null" => plain(text)?.is_null().then_some(Value::Null),
        _ => return Err(format!("the tag !!{tag} has no meaning in a manifest")),
    }
    .ok_or_else(mismatch)
}

/// A key of a mapping: JSON has only strings.
///
/// # Errors
/// Null, which is no key.
pub(super) fn key(value: Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text),
        Value::Bool(value) => Ok(value.to_string()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => {
            Err("a key must be text; put it in quotes".to_owned())
        }
    }
}

fn word(text: &str) -> Option<Result<Value, String>> {
    Some(Ok(match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            Value::Bool(true)
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            Value::Bool(false)
        }
        _ => {
            let name = text.strip_prefix(['+', '-']).unwrap_or(text);
            return match name {
                ".inf" | ".Inf" | ".INF" => Some(Err(format!("{text} has no JSON form; put it in quotes"))),
                ".nan" | ".NaN" | ".NAN" if name == text => {
                    Some(Err(format!("{text} has no JSON form; put it in quotes")))
                }
                _ => None,
            };
        }
    }))
}

fn number(text: &str) -> Option<Value> {
    let text = text.replace('_', "");
    integer(&text).or_else(|| is_decimal(&text).then(|| decimal(&text)).flatten())
}

/// A whole number with an optional sign, in decimal, or by its prefix in hexadecimal, octal or binary.
fn integer(text: &str) -> Option<Value> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, digits) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    // from_str_radix takes a sign of its own, which would be a second one.
    if digits.starts_with(['+', '-']) {
        return None;
    }
    let magnitude = i128::from(u64::from_str_radix(digits, radix).ok()?);
    let value = if negative { -magnitude } else { magnitude };
    match i64::try_from(value) {
        Ok(value) => Some(value.into()),
        // The server knows whole numbers of 64 bits with a sign; what is larger it takes for a fraction.
        Err(_) if !negative && !text.starts_with('+') => float(value as f64),
        Err(_) => None,
    }
}

/// `[-+]? ( . digits | digits ( . digits? )? ) ( e [-+]? digits )?`
fn is_decimal(text: &str) -> bool {
    let text = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let whole_mantissa = match mantissa.split_once('.') {
        Some(("", fraction)) => !fraction.is_empty() && digits(fraction),
        Some((whole, fraction)) => digits(whole) && digits(fraction),
        None => !mantissa.is_empty() && digits(mantissa),
    };
    let whole_exponent = exponent.is_none_or(|exponent| {
        let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        !exponent.is_empty() && digits(exponent)
    });
    whole_mantissa && whole_exponent
}

fn decimal(text: &str) -> Option<Value> {
    text.parse::<f64>().ok().filter(|value| value.is_finite()).and_then(float)
}

/// A float as it arrives at the server: on the way it is written as JSON, where a whole one has no fraction.
fn float(value: f64) -> Option<Value> {
    match value.to_string().parse::<i64>() {
        Ok(whole) => Some(whole.into()),
        Err(_) => Number::from_f64(value).map(Value::Number),
    }
}
