//! Errors of validation, worded as kube-apiserver words them.

use std::fmt;

use serde_json::Value;

/// What the server prints for the path of an error about no field in particular.
pub(crate) const NO_FIELD: &str = "<nil>";

/// What is wrong with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FieldErrorKind {
    /// The value breaks a rule.
    Invalid,
    /// The value has the wrong type.
    TypeInvalid,
    /// The field is missing.
    Required,
    /// The value is none of the allowed ones.
    NotSupported,
    /// The string is longer than allowed.
    TooLong,
    /// The list or map has more entries than allowed.
    TooMany,
    /// The list has an entry twice.
    Duplicate,
    /// The field must not be given here.
    Forbidden,
}

impl FieldErrorKind {
    /// The reason in a `StatusCause`.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Invalid => "FieldValueInvalid",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::Required => "FieldValueRequired",
            Self::NotSupported => "FieldValueNotSupported",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Forbidden => "FieldValueForbidden",
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::Required => "Required value",
            Self::NotSupported => "Unsupported value",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::Duplicate => "Duplicate value",
            Self::Forbidden => "Forbidden",
        }
    }

    /// Whether CEL rules are left out once such an error was found: they could not rely on their input.
    pub(crate) const fn blocks_rules(self) -> bool {
        matches!(
            self,
            Self::NotSupported | Self::Required | Self::TooLong | Self::TooMany | Self::TypeInvalid
        )
    }
}

/// One thing that is wrong with an object. `Display` is the server's sentence.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    /// Path of the field, such as `spec.port.trunks[2]`; `<nil>` where the error is about none.
    pub path: String,
    /// What is wrong.
    pub kind: FieldErrorKind,
    /// The offending value, as far as the server shows it; an empty object where it leaves the value out.
    pub value: Value,
    /// What is allowed; empty where the kind says it all.
    pub detail: String,
}

impl FieldError {
    pub(crate) fn new(path: &str, kind: FieldErrorKind, value: Value, detail: impl Into<String>) -> Self {
        let path = if path.is_empty() { NO_FIELD } else { path };
        Self { path: path.to_owned(), kind, value, detail: detail.into() }
    }

    pub(crate) fn invalid(path: &str, value: Value, detail: impl Into<String>) -> Self {
        Self::new(path, FieldErrorKind::Invalid, value, detail)
    }

    pub(crate) fn required(path: &str, detail: impl Into<String>) -> Self {
        Self::new(path, FieldErrorKind::Required, Value::String(String::new()), detail)
    }

    pub(crate) fn too_long(path: &str, max: u64) -> Self {
        let unit = if max == 1 { "byte" } else { "bytes" };
        Self::new(path, FieldErrorKind::TooLong, Value::Null, format!("may not be more than {max} {unit}"))
    }

    pub(crate) fn too_many(path: &str, found: usize, max: u64) -> Self {
        let unit = if max == 1 { "item" } else { "items" };
        Self::new(path, FieldErrorKind::TooMany, found.into(), format!("must have at most {max} {unit}"))
    }

    pub(crate) fn not_supported(path: &str, value: Value, supported: &[Value]) -> Self {
        let supported: Vec<String> = supported
            .iter()
            .map(|value| match value {
                Value::String(text) => quoted(text),
                other => quoted(&json_text(other)),
            })
            .collect();
        let detail = format!("supported values: {}", supported.join(", "));
        Self::new(path, FieldErrorKind::NotSupported, value, detail)
    }

    /// The sentence without the path.
    #[must_use]
    pub fn body(&self) -> String {
        let mut body = self.kind.words().to_owned();
        if let Some(value) = self.shown_value() {
            body = format!("{body}: {value}");
        }
        if !self.detail.is_empty() {
            body = format!("{body}: {}", self.detail);
        }
        body
    }

    fn shown_value(&self) -> Option<String> {
        match (self.kind, &self.value) {
            (FieldErrorKind::Required | FieldErrorKind::Forbidden | FieldErrorKind::TooLong, _) => None,
            (FieldErrorKind::Invalid, Value::Object(_)) => None,
            (_, Value::String(text)) => Some(quoted(text)),
            (_, Value::Number(number)) => Some(plain_number(number)),
            (_, other) => Some(json_text(other)),
        }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.body())
    }
}

/// A string in double quotes, with the escapes that the server uses.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            c if u32::from(c) < 0x20 || c == '\u{7f}' => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if c.escape_debug().len() == 1 => out.push(c),
            c if u32::from(c) < 0x1_0000 => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push_str(&format!("\\U{:08x}", u32::from(c))),
        }
    }
    out.push('"');
    out
}

/// JSON as the server prints it: fit to stand in HTML.
fn json_text(value: &Value) -> String {
    value.to_string().replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

/// A number as the server prints it: integers in full, others in the shortest form, with an exponent for those
/// below 0.0001 and from 1000000 on.
pub(crate) fn plain_number(number: &serde_json::Number) -> String {
    match (number.as_i64(), number.as_u64(), number.as_f64()) {
        (Some(integer), _, _) => integer.to_string(),
        (None, Some(integer), _) => integer.to_string(),
        (None, None, Some(float)) => plain_float(float),
        (None, None, None) => number.to_string(),
    }
}

/// See [`plain_number`].
pub(crate) fn plain_float(float: f64) -> String {
    let scientific = format!("{float:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else {
        return scientific;
    };
    match exponent.parse::<i32>() {
        Ok(exponent) if !(-4..6).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.abs())
        }
        _ => float.to_string(),
    }
}
