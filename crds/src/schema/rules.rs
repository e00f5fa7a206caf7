//! The CEL rules of a schema (`x-kubernetes-validations`), evaluated by `kube-cel`.

use kube_cel::{CompiledSchema, ErrorKind, ValidationError};
use serde_json::{Map, Value, json};

use super::error::{FieldError, FieldErrorKind};
use super::node::{CompileError, Node, Type};
use super::prior::Prior;

/// The rules at one place in a schema.
#[derive(Default)]
pub(crate) struct Rules {
    /// None where the place has no rules.
    compiled: Option<CompiledSchema>,
    /// The texts of those that compare with the old object.
    transitions: Vec<String>,
    /// How the server names the type of this place in errors about the evaluation itself.
    type_name: String,
}

impl std::fmt::Debug for Rules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let rules = self.compiled.iter().map(|compiled| compiled.validations.len()).sum::<usize>();
        f.debug_struct("Rules").field("rules", &rules).finish_non_exhaustive()
    }
}

const RULES: &str = "x-kubernetes-validations";

impl Rules {
    /// Compiles the rules that stand at the root of `schema`; those below belong to other places.
    pub(crate) fn compile(schema: &Value, path: &str) -> Result<Self, CompileError> {
        let Some(rules) = schema.get(RULES).and_then(Value::as_array) else { return Ok(Self::default()) };
        let error = |rule: &str, reason: String| CompileError::Rule {
            path: path.to_owned(),
            rule: rule.to_owned(),
            reason,
        };
        let mut bare = without_rules_and_defaults(schema, path)?;
        bare[RULES] = Value::Array(rules.clone());
        let compiled = kube_cel::compile_schema(&bare);
        let mut transitions = Vec::new();
        for (result, rule) in compiled.validations.iter().zip(rules) {
            let text = rule["rule"].as_str().unwrap_or_default();
            let result = result.as_ref().map_err(|reason| error(text, reason.to_string()))?;
            if result.rule.optional_old_self == Some(true) {
                return Err(error(text, "optionalOldSelf works only on the server".to_owned()));
            }
            if result.is_transition_rule {
                transitions.push(text.to_owned());
            }
        }
        let type_name = schema.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
        Ok(Self { compiled: Some(compiled), transitions, type_name })
    }

    fn each(&self) -> impl Iterator<Item = &kube_cel::Rule> {
        let results = self.compiled.iter().flat_map(|compiled| &compiled.validations);
        results.flatten().map(|result| &result.rule)
    }

    /// The error about a rule that could not be evaluated.
    fn not_evaluated(&self, path: &str, problem: &str, rule: &kube_cel::Rule) -> FieldError {
        let name = rule.message.as_ref().unwrap_or(&rule.rule).trim();
        FieldError::invalid(path, json!(self.type_name), format!("{problem} evaluating rule: {name}"))
    }

    fn failures(&self, value: &Value, old: Option<&Value>) -> Vec<ValidationError> {
        match &self.compiled {
            Some(compiled) => match kube_cel::validate_compiled(compiled, value, old) {
                Ok(()) => Vec::new(),
                Err(errors) => errors.into_vec(),
            },
            None => Vec::new(),
        }
    }
}

/// The schema as the evaluation needs it to convert values: names and formats.
fn without_rules_and_defaults(schema: &Value, path: &str) -> Result<Value, CompileError> {
    match schema {
        Value::Object(keywords) => {
            let mut bare = Map::new();
            for (keyword, value) in keywords {
                match keyword.as_str() {
                    RULES | "default" | "enum" | "required" => {}
                    "properties" => {
                        let mut properties = Map::new();
                        for (name, property) in value.as_object().into_iter().flatten() {
                            refuse_odd_name(name, path)?;
                            properties.insert(name.clone(), without_rules_and_defaults(property, path)?);
                        }
                        bare.insert(keyword.clone(), Value::Object(properties));
                    }
                    _ => {
                        bare.insert(keyword.clone(), without_rules_and_defaults(value, path)?);
                    }
                }
            }
            Ok(Value::Object(bare))
        }
        other => Ok(other.clone()),
    }
}

/// kube-cel escapes an underscore in a field's name, the server doesn't: no rule can address such a field on both.
fn refuse_odd_name(name: &str, path: &str) -> Result<(), CompileError> {
    if name.contains('_') {
        return Err(CompileError::Unsupported {
            path: path.to_owned(),
            keyword: format!("a property named {name} below a CEL rule"),
        });
    }
    Ok(())
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
                let prior = prior.field(node, value, name);
                if let Some(property) = node.properties.get(name) {
                    let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    validate(property, field, prior, &path, errors);
                } else if let Some(additional) = node.child(name) {
                    validate(additional, field, prior, &format!("{path}[{name}]"), errors);
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

fn check(node: &Node, value: &Value, prior: Prior<'_>, path: &str, errors: &mut Vec<FieldError>) {
    let rules = &node.rules;
    if let Some(problem) = unusable(node.type_, value) {
        for rule in rules.each() {
            errors.push(rules.not_evaluated(path, &problem, rule));
        }
        return;
    }
    for failure in rules.failures(value, prior.value) {
        if failure.kind != ErrorKind::ValidationFailure {
            let problem = failure.message.trim_start_matches("rule evaluation error: ");
            let problem = problem.replacen("No such key", "no such key", 1);
            let rule = rules.each().find(|rule| rule.rule == failure.rule);
            errors.extend(rule.map(|rule| rules.not_evaluated(path, &problem, rule)));
        } else if rules.transitions.contains(&failure.rule) || !prior.forgives(node, value) {
            errors.push(field_error(value, path, &failure));
        }
    }
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

fn field_error(value: &Value, path: &str, failure: &ValidationError) -> FieldError {
    // The evaluation saw this place as its root, so its path is relative and begins with a dot.
    let below = failure.field_path.trim_start_matches('.');
    let path = match (path.is_empty(), below.is_empty()) {
        (_, true) => path.to_owned(),
        (true, false) => below.to_owned(),
        (false, false) => format!("{path}.{below}"),
    };
    // A rule on an object or a list is about the whole of it, which the server doesn't print.
    let shown = if value.is_object() || value.is_array() { json!({}) } else { value.clone() };
    let message = failure.message.trim();
    match failure.reason.as_deref() {
        Some("FieldValueForbidden") => FieldError::new(&path, FieldErrorKind::Forbidden, shown, message),
        Some("FieldValueRequired") => FieldError::required(&path, message),
        Some("FieldValueDuplicate") => FieldError::new(&path, FieldErrorKind::Duplicate, shown, ""),
        _ => FieldError::invalid(&path, shown, message),
    }
}
