//! The CEL rules of a schema (`x-kubernetes-validations`), compiled and evaluated by `kube-cel`.

use kube_cel::CompilationResult;
use kube_cel::cel::{Context, Value as Cel};
use serde_json::{Value, json};

use super::cel;
use super::error::{FieldError, FieldErrorKind};
use super::node::{CompileError, Node, Type};
use super::prior::Prior;

/// The rules at one place in a schema.
#[derive(Default)]
pub(crate) struct Rules {
    compiled: Vec<CompilationResult>,
    /// How the server names the type of this place in errors about the evaluation itself.
    type_name: String,
}

impl std::fmt::Debug for Rules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.compiled.iter().map(|compiled| &compiled.rule.rule)).finish()
    }
}

const RULES: &str = "x-kubernetes-validations";

impl Rules {
    /// Compiles the rules that stand at the root of `schema`; those below belong to other places.
    pub(crate) fn compile(schema: &Value, path: &str) -> Result<Self, CompileError> {
        let Some(rules) = schema.get(RULES).and_then(Value::as_array) else { return Ok(Self::default()) };
        let type_name = schema.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
        let results = kube_cel::compile_schema(&json!({ RULES: rules })).validations;
        let compiled = results.into_iter().zip(rules).map(|(result, rule)| {
            let error = |reason: String| CompileError::Rule {
                path: path.to_owned(),
                rule: rule["rule"].as_str().unwrap_or_default().to_owned(),
                reason,
            };
            match result {
                Ok(compiled) if compiled.rule.optional_old_self == Some(true) => {
                    Err(error("optionalOldSelf works only on the server".to_owned()))
                }
                Ok(compiled) => Ok(compiled),
                Err(reason) => Err(error(reason.to_string())),
            }
        });
        Ok(Self { compiled: compiled.collect::<Result<_, _>>()?, type_name })
    }
}

/// Collects the failures of all rules from `value` down.
pub(crate) fn validate(
    node: &Node,
    value: &Value,
    prior: Prior<'_>,
    path: &str,
    errors: &mut Vec<FieldError>,
) {
    if value.is_null() {
        return;
    }
    check(node, value, prior, path, errors);
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                let path = match (node.properties.contains_key(name), path) {
                    (true, "") => name.clone(),
                    (true, path) => format!("{path}.{name}"),
                    (false, path) => format!("{path}[{name}]"),
                };
                if let Some(child) = node.child(name) {
                    validate(child, field, prior.field(node, value, name), &path, errors);
                }
            }
        }
        Value::Array(items) => {
            if let Some(schema) = &node.items {
                for (index, item) in items.iter().enumerate() {
                    let prior = prior.item(node, value, item);
                    validate(schema, item, prior, &format!("{path}[{index}]"), errors);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Evaluates the rules at one place.
fn check(node: &Node, value: &Value, prior: Prior<'_>, path: &str, errors: &mut Vec<FieldError>) {
    // A transition rule says something only where there is an old value to compare with.
    let applies = |rule: &&CompilationResult| !rule.is_transition_rule || prior.value.is_some();
    let mut rules = node.rules.compiled.iter().filter(applies).peekable();
    if rules.peek().is_none() {
        return;
    }
    if let Some(problem) = unusable(node.type_, value) {
        errors.extend(rules.map(|rule| not_evaluated(node, rule, path, &problem)));
        return;
    }
    let is_root = path.is_empty();
    let to_cel = |json: &Value| if is_root { cel::root(node, json) } else { cel::value(Some(node), json) };
    let needs_old = node.rules.compiled.iter().any(|rule| rule.is_transition_rule);
    let old = prior.value.filter(|_| needs_old).map(to_cel);
    cel::with_self(to_cel(value), old, |scope| {
        for rule in rules {
            match rule.program.execute(scope) {
                Ok(Cel::Bool(true)) => {}
                Ok(Cel::Bool(false)) => {
                    if rule.is_transition_rule || !prior.forgives(node, value) {
                        errors.push(failure(rule, scope, value, path));
                    }
                }
                Ok(_) => errors.push(not_evaluated(node, rule, path, "the result is not true or false")),
                Err(error) => {
                    let problem = error.to_string().replacen("No such key", "no such key", 1);
                    errors.push(not_evaluated(node, rule, path, &problem));
                }
            }
        }
    });
}

/// Why a rule can't look at a value: it isn't of the schema's type. Structural validation has said so already,
/// except of whole numbers written with a fraction and of what an update leaves as it was.
fn unusable(type_: Option<Type>, value: &Value) -> Option<String> {
    let found = match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_i64() => "int64",
        Value::Number(_) => "float64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    };
    let wanted = match type_? {
        Type::Object if !value.is_object() => "a map for the provided schema with type=object",
        Type::Array if !value.is_array() => "an array for the provided schema with type=array",
        Type::String if found != "string" => "string",
        Type::Integer if found != "int64" => "int",
        Type::Number if !value.is_number() => "float",
        Type::Boolean if found != "bool" => "bool",
        _ => return None,
    };
    Some(match type_? {
        Type::Object | Type::Array => format!("invalid data, expected {wanted}"),
        _ => format!("invalid data, expected {wanted}, got {found}"),
    })
}

/// The error about a rule that could not be evaluated.
fn not_evaluated(node: &Node, rule: &CompilationResult, path: &str, problem: &str) -> FieldError {
    let name = rule.rule.message.as_ref().unwrap_or(&rule.rule.rule).trim();
    FieldError::invalid(path, json!(node.rules.type_name), format!("{problem} evaluating rule: {name}"))
}

/// The error about a value that breaks a rule.
fn failure(rule: &CompilationResult, scope: &Context<'_>, value: &Value, path: &str) -> FieldError {
    let path = match rule.rule.field_path.as_deref().map(|below| below.trim_start_matches('.')) {
        None => path.to_owned(),
        Some(below) if path.is_empty() => below.to_owned(),
        Some(below) => format!("{path}.{below}"),
    };
    // A rule on an object or a list is about the whole of it, which the server doesn't print.
    let shown = if value.is_object() || value.is_array() { json!({}) } else { value.clone() };
    let message = message(rule, scope);
    match rule.rule.reason.as_deref() {
        Some("FieldValueForbidden") => FieldError::new(&path, FieldErrorKind::Forbidden, shown, message),
        Some("FieldValueRequired") => FieldError::required(&path, message),
        Some("FieldValueDuplicate") => FieldError::new(&path, FieldErrorKind::Duplicate, shown, ""),
        _ => FieldError::invalid(&path, shown, message),
    }
}

fn message(rule: &CompilationResult, scope: &Context<'_>) -> String {
    if let Some(program) = &rule.message_program
        && let Ok(Cel::String(text)) = program.execute(scope)
        && !text.trim().is_empty()
        && !text.trim().contains('\n')
    {
        return text.trim().to_owned();
    }
    match &rule.rule.message {
        Some(message) => message.trim().to_owned(),
        None => format!("failed rule: {}", rule.rule.rule.trim()),
    }
}
