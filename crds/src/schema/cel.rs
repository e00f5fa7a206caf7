//! What CEL rules work on: values with the names that the server gives them, and the functions of its library.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use kube_cel::KubeCelExt;
use kube_cel::cel::extractors::This;
use kube_cel::cel::objects::{Key, Map};
use kube_cel::cel::{Context, ExecutionError, Value as Cel};
use regex::Regex;
use serde_json::Value;

use super::node::{Node, Type};

thread_local! {
    /// The functions, made once a thread: there are more than a hundred, and a context can't be shared.
    static FUNCTIONS: Context<'static> = {
        let mut functions = Context::default().with_all();
        functions.add_function("matches", matches);
        functions
    };
    static PATTERNS: RefCell<BTreeMap<Arc<String>, Regex>> = const { RefCell::new(BTreeMap::new()) };
}

/// Patterns that are kept compiled. Rules have few; what comes from objects must not fill the memory.
const PATTERNS_MAX: usize = 256;

/// `matches` with the patterns compiled once: of all that a rule does, compiling its pattern takes longest.
fn matches(This(text): This<Arc<String>>, pattern: Arc<String>) -> Result<bool, ExecutionError> {
    PATTERNS.with_borrow_mut(|patterns| {
        if let Some(regex) = patterns.get(&pattern) {
            return Ok(regex.is_match(&text));
        }
        let regex = Regex::new(&pattern).map_err(|error| ExecutionError::FunctionError {
            function: "matches".to_owned(),
            message: error.to_string(),
        })?;
        if patterns.len() >= PATTERNS_MAX {
            patterns.clear();
        }
        let found = regex.is_match(&text);
        patterns.insert(pattern, regex);
        Ok(found)
    })
}

/// Calls `evaluate` with `self` and, where there is one, `oldSelf` in scope.
pub(crate) fn with_self<T>(current: Cel, old: Option<Cel>, evaluate: impl FnOnce(&Context<'_>) -> T) -> T {
    FUNCTIONS.with(|functions| {
        let mut scope = functions.new_inner_scope();
        scope.add_variable_from_value("self", current);
        if let Some(old) = old {
            scope.add_variable_from_value("oldSelf", old);
        }
        evaluate(&scope)
    })
}

/// The object as rules at the root see it: of its metadata they see the name alone.
pub(crate) fn root(node: &Node, object: &Value) -> Cel {
    let Cel::Map(fields) = value(Some(node), object) else { return value(Some(node), object) };
    let mut fields = HashMap::clone(&fields.map);
    for name in ["apiVersion", "kind"] {
        if let Some(text) = object.get(name) {
            fields.insert(key(name), value(None, text));
        }
    }
    if let Some(metadata) = object.get("metadata") {
        let names = ["name", "generateName"].into_iter();
        let names = names.filter_map(|name| Some((key(name), value(None, metadata.get(name)?)))).collect();
        fields.insert(key("metadata"), Cel::Map(Map { map: Arc::new(names) }));
    }
    Cel::Map(Map { map: Arc::new(fields) })
}

/// A JSON value as CEL sees it. Fields that the schema doesn't know are not seen; points in time are text.
pub(crate) fn value(node: Option<&Node>, json: &Value) -> Cel {
    match json {
        Value::Null => Cel::Null,
        Value::Bool(value) => Cel::Bool(*value),
        Value::String(text) => Cel::String(Arc::new(text.clone())),
        Value::Number(number) => match (node.and_then(|node| node.type_), number.as_i64()) {
            (Some(Type::Number), _) | (_, None) => Cel::Float(number.as_f64().unwrap_or(f64::NAN)),
            (_, Some(integer)) => Cel::Int(integer),
        },
        Value::Array(items) => {
            let schema = node.and_then(|node| node.items.as_deref());
            Cel::List(Arc::new(items.iter().map(|item| value(schema, item)).collect()))
        }
        Value::Object(fields) => {
            let is_map = node.is_none_or(|node| node.additional.is_some() || node.preserve_unknown);
            let fields =
                fields.iter().filter_map(|(name, field)| match node.and_then(|node| node.child(name)) {
                    None if !is_map => None,
                    // The keys of a map are data; only the names of fields are escaped.
                    child if is_map => Some((key(name), value(child, field))),
                    child => Some((key(&escaped(name)), value(child, field))),
                });
            Cel::Map(Map { map: Arc::new(fields.collect()) })
        }
    }
}

fn key(name: &str) -> Key {
    Key::String(Arc::new(name.to_owned()))
}

/// Words of CEL's own grammar, which can't be the name of a field as they are.
const RESERVED: [&str; 21] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "false",
    "for",
    "function",
    "if",
    "import",
    "in",
    "let",
    "loop",
    "namespace",
    "null",
    "package",
    "return",
    "true",
    "var",
    "void",
    "while",
];

/// A field's name as rules write it.
fn escaped(name: &str) -> String {
    if RESERVED.contains(&name) {
        return format!("__{name}__");
    }
    name.replace("__", "__underscores__")
        .replace('.', "__dot__")
        .replace('-', "__dash__")
        .replace('/', "__slash__")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_as_the_server_escapes_them() {
        let cases = [
            ("function", "__function__"),
            ("namespace", "__namespace__"),
            ("static", "static"),
            ("a_b", "a_b"),
            ("a__b", "a__underscores__b"),
            ("a-b.c/d", "a__dash__b__dot__c__slash__d"),
        ];
        for (name, expected) in cases {
            assert_eq!(escaped(name), expected);
        }
    }
}
