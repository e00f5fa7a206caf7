//! A schema read into the form that validation walks: one [`Node`] for each place in an object.

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::{Map, Value};

use super::rules::Rules;

/// Why a schema can't be used for validation.
#[derive(thiserror::Error, Debug)]
pub enum CompileError {
    /// A keyword has a value of the wrong kind.
    #[error("schema of {path}: {keyword} must be {expected}")]
    Malformed {
        /// Where in the schema.
        path: String,
        /// Which keyword.
        keyword: &'static str,
        /// What its value must be.
        expected: &'static str,
    },
    /// A keyword that structural schemas may have and this validator doesn't know.
    #[error("schema of {path}: {keyword} is not supported; express it by other keywords or by a CEL rule")]
    Unsupported {
        /// Where in the schema.
        path: String,
        /// Which keyword.
        keyword: String,
    },
    /// A pattern is no regular expression.
    #[error("schema of {path}: pattern is no regular expression")]
    Pattern {
        /// Where in the schema.
        path: String,
        /// What is wrong with it.
        #[source]
        source: regex::Error,
    },
    /// A rule is no CEL expression, or one that only the server could evaluate.
    #[error("schema of {path}: rule {rule:?} can't be compiled: {reason}")]
    Rule {
        /// Where in the schema.
        path: String,
        /// The rule's text.
        rule: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// The JSON types of a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
    IntOrString,
}

impl Type {
    /// How the server names it in a sentence.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
            Self::IntOrString => "integer,string",
        }
    }
}

/// How a list's entries are told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ListType {
    Atomic,
    Set,
    Map(Vec<String>),
}

/// A bound of a number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Bound {
    pub(crate) value: f64,
    pub(crate) exclusive: bool,
}

/// What a map's values are.
#[derive(Debug)]
pub(crate) enum Additional {
    Any,
    Schema(Box<Node>),
}

/// One place in the schema. Absent keywords constrain nothing.
#[derive(Debug, Default)]
pub(crate) struct Node {
    pub(crate) type_: Option<Type>,
    pub(crate) nullable: bool,
    pub(crate) preserve_unknown: bool,
    pub(crate) properties: BTreeMap<String, Node>,
    pub(crate) additional: Option<Additional>,
    pub(crate) items: Option<Box<Node>>,
    pub(crate) required: Vec<String>,
    pub(crate) default: Option<Value>,
    pub(crate) enum_: Vec<Value>,
    pub(crate) date_time: bool,
    pub(crate) pattern: Option<Regex>,
    pub(crate) min_length: Option<u64>,
    pub(crate) max_length: Option<u64>,
    pub(crate) min_items: Option<u64>,
    pub(crate) max_items: Option<u64>,
    pub(crate) min_properties: Option<u64>,
    pub(crate) max_properties: Option<u64>,
    pub(crate) minimum: Option<Bound>,
    pub(crate) maximum: Option<Bound>,
    pub(crate) multiple_of: Option<f64>,
    pub(crate) list_type: Option<ListType>,
    pub(crate) rules: Rules,
}

impl Node {
    /// The schema of a map's values, or of the property `name`.
    pub(crate) fn child(&self, name: &str) -> Option<&Self> {
        self.properties.get(name).or(match &self.additional {
            Some(Additional::Schema(node)) => Some(node),
            Some(Additional::Any) | None => None,
        })
    }

    pub(crate) fn compile(schema: &Value, path: &str) -> Result<Self, CompileError> {
        let reader = Reader { path, schema: object(schema, path, "schema")? };
        reader.refuse_unknown_keywords()?;
        let mut node = Self {
            type_: reader.type_()?,
            nullable: reader.flag("nullable")?,
            preserve_unknown: reader.flag("x-kubernetes-preserve-unknown-fields")?,
            required: reader.strings("required")?,
            default: reader.schema.get("default").filter(|default| !default.is_null()).cloned(),
            enum_: reader.list("enum")?.to_vec(),
            date_time: reader.date_time()?,
            pattern: reader.pattern()?,
            min_length: reader.count("minLength")?,
            max_length: reader.count("maxLength")?,
            min_items: reader.count("minItems")?,
            max_items: reader.count("maxItems")?,
            min_properties: reader.count("minProperties")?,
            max_properties: reader.count("maxProperties")?,
            minimum: reader.bound("minimum", "exclusiveMinimum")?,
            maximum: reader.bound("maximum", "exclusiveMaximum")?,
            multiple_of: reader.number("multipleOf")?,
            list_type: reader.list_type()?,
            rules: Rules::compile(schema, path)?,
            ..Self::default()
        };
        if let Some(properties) = reader.schema.get("properties") {
            for (name, property) in object(properties, path, "properties")? {
                node.properties.insert(name.clone(), Self::compile(property, &format!("{path}.{name}"))?);
            }
        }
        node.additional = match reader.schema.get("additionalProperties") {
            None | Some(Value::Bool(false)) => None,
            Some(Value::Bool(true)) => Some(Additional::Any),
            Some(schema) => Some(Additional::Schema(Box::new(Self::compile(schema, &format!("{path}[*]"))?))),
        };
        if let Some(items) = reader.schema.get("items") {
            node.items = Some(Box::new(Self::compile(items, &format!("{path}[*]"))?));
        }
        Ok(node)
    }
}

/// Keywords that are read here, and those that only describe.
const KNOWN_KEYWORDS: [&str; 31] = [
    "additionalProperties",
    "default",
    "description",
    "enum",
    "example",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "externalDocs",
    "format",
    "items",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minItems",
    "minLength",
    "minProperties",
    "minimum",
    "multipleOf",
    "nullable",
    "pattern",
    "properties",
    "required",
    "title",
    "type",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-list-type",
    "x-kubernetes-map-type",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-validations",
];

struct Reader<'a> {
    path: &'a str,
    schema: &'a Map<String, Value>,
}

fn object<'a>(
    value: &'a Value,
    path: &str,
    keyword: &'static str,
) -> Result<&'a Map<String, Value>, CompileError> {
    value.as_object().ok_or_else(|| CompileError::Malformed {
        path: path.to_owned(),
        keyword,
        expected: "an object",
    })
}

impl Reader<'_> {
    fn malformed(&self, keyword: &'static str, expected: &'static str) -> CompileError {
        CompileError::Malformed { path: self.path.to_owned(), keyword, expected }
    }

    fn unsupported(&self, keyword: impl Into<String>) -> CompileError {
        CompileError::Unsupported { path: self.path.to_owned(), keyword: keyword.into() }
    }

    /// A keyword that is passed over in silence would let objects in that the server refuses.
    fn refuse_unknown_keywords(&self) -> Result<(), CompileError> {
        match self.schema.keys().find(|keyword| !KNOWN_KEYWORDS.contains(&keyword.as_str())) {
            Some(keyword) => Err(self.unsupported(keyword)),
            None => Ok(()),
        }
    }

    fn type_(&self) -> Result<Option<Type>, CompileError> {
        if self.flag("x-kubernetes-int-or-string")? {
            return Ok(Some(Type::IntOrString));
        }
        let Some(name) = self.schema.get("type") else { return Ok(None) };
        Ok(Some(match name.as_str() {
            Some("object") => Type::Object,
            Some("array") => Type::Array,
            Some("string") => Type::String,
            Some("integer") => Type::Integer,
            Some("number") => Type::Number,
            Some("boolean") => Type::Boolean,
            _ => return Err(self.malformed("type", "the name of a JSON type")),
        }))
    }

    fn date_time(&self) -> Result<bool, CompileError> {
        match self.schema.get("format").map(Value::as_str) {
            None => Ok(false),
            Some(Some("date-time")) => Ok(true),
            Some(Some(format)) => Err(self.unsupported(format!("format {format}"))),
            Some(None) => Err(self.malformed("format", "a string")),
        }
    }

    fn pattern(&self) -> Result<Option<Regex>, CompileError> {
        let Some(pattern) = self.schema.get("pattern") else { return Ok(None) };
        let pattern = pattern.as_str().ok_or_else(|| self.malformed("pattern", "a string"))?;
        Regex::new(pattern)
            .map(Some)
            .map_err(|source| CompileError::Pattern { path: self.path.to_owned(), source })
    }

    fn list_type(&self) -> Result<Option<ListType>, CompileError> {
        let Some(name) = self.schema.get("x-kubernetes-list-type") else { return Ok(None) };
        Ok(Some(match name.as_str() {
            Some("atomic") => ListType::Atomic,
            Some("set") => ListType::Set,
            Some("map") => ListType::Map(self.strings("x-kubernetes-list-map-keys")?),
            _ => return Err(self.malformed("x-kubernetes-list-type", "atomic, set or map")),
        }))
    }

    fn flag(&self, keyword: &'static str) -> Result<bool, CompileError> {
        match self.schema.get(keyword) {
            None => Ok(false),
            Some(value) => value.as_bool().ok_or_else(|| self.malformed(keyword, "true or false")),
        }
    }

    fn count(&self, keyword: &'static str) -> Result<Option<u64>, CompileError> {
        self.schema
            .get(keyword)
            .map(|value| value.as_u64().ok_or_else(|| self.malformed(keyword, "a whole number from 0 on")))
            .transpose()
    }

    fn number(&self, keyword: &'static str) -> Result<Option<f64>, CompileError> {
        self.schema
            .get(keyword)
            .map(|value| value.as_f64().ok_or_else(|| self.malformed(keyword, "a number")))
            .transpose()
    }

    fn bound(&self, keyword: &'static str, exclusive: &'static str) -> Result<Option<Bound>, CompileError> {
        let exclusive = self.flag(exclusive)?;
        Ok(self.number(keyword)?.map(|value| Bound { value, exclusive }))
    }

    fn list(&self, keyword: &'static str) -> Result<&[Value], CompileError> {
        match self.schema.get(keyword) {
            None => Ok(&[]),
            Some(value) => {
                value.as_array().map(Vec::as_slice).ok_or_else(|| self.malformed(keyword, "a list"))
            }
        }
    }

    fn strings(&self, keyword: &'static str) -> Result<Vec<String>, CompileError> {
        self.list(keyword)?
            .iter()
            .map(|item| {
                item.as_str().map(str::to_owned).ok_or_else(|| self.malformed(keyword, "a list of strings"))
            })
            .collect()
    }
}
