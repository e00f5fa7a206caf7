//! The part of JSONPath that printer columns use: fields, `*`, indices and one comparison filter.

use serde_json::Value;

/// A parsed path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JsonPath(Vec<Step>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Field(String),
    All,
    Index(usize),
    /// `[?(@.type=="Ready")]`
    Where {
        field: Vec<String>,
        equals: String,
    },
}

impl JsonPath {
    /// Parses `.status.conditions[?(@.type=="Ready")].status` and the like; a leading `$` is allowed.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut steps = Vec::new();
        let mut rest = text.strip_prefix('$').unwrap_or(text);
        while !rest.is_empty() {
            let (step, left) = if let Some(inner) = rest.strip_prefix('[') {
                let end = end_of_bracket(inner).ok_or("a bracket is not closed")?;
                (bracket(&inner[..end])?, &inner[end + 1..])
            } else if let Some(named) = rest.strip_prefix('.') {
                if named.starts_with('[') {
                    rest = named;
                    continue;
                }
                field(named)?
            } else {
                return Err(format!("a dot or a bracket is expected at {rest:?}"));
            };
            steps.push(step);
            rest = left;
        }
        if steps.is_empty() { Err("it is empty".to_owned()) } else { Ok(Self(steps)) }
    }

    /// The first value found, in the order of the document.
    pub(crate) fn first<'a>(&self, value: &'a Value) -> Option<&'a Value> {
        find(&self.0, value)
    }
}

fn find<'a>(steps: &[Step], value: &'a Value) -> Option<&'a Value> {
    let Some((step, rest)) = steps.split_first() else { return Some(value) };
    match step {
        Step::Field(name) => find(rest, value.get(name)?),
        Step::Index(index) => find(rest, value.get(index)?),
        Step::All => match value {
            Value::Array(items) => items.iter().find_map(|item| find(rest, item)),
            Value::Object(map) => map.values().find_map(|item| find(rest, item)),
            _ => None,
        },
        Step::Where { field, equals } => value.as_array()?.iter().find_map(|item| {
            let found = field.iter().try_fold(item, |at, name| at.get(name))?;
            let same = match found {
                Value::String(text) => text == equals,
                other => serde_json::from_str::<Value>(equals).is_ok_and(|wanted| wanted == *other),
            };
            if same { find(rest, item) } else { None }
        }),
    }
}

fn end_of_bracket(inner: &str) -> Option<usize> {
    let mut quote = None;
    for (at, letter) in inner.char_indices() {
        match quote {
            Some(open) if letter == open => quote = None,
            Some(_) => {}
            None if letter == '"' || letter == '\'' => quote = Some(letter),
            None if letter == ']' => return Some(at),
            None => {}
        }
    }
    None
}

fn field(named: &str) -> Result<(Step, &str), String> {
    let mut name = String::new();
    let mut letters = named.char_indices();
    let mut end = named.len();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\\' => name.extend(letters.next().map(|(_, escaped)| escaped)),
            '.' | '[' => {
                end = at;
                break;
            }
            _ => name.push(letter),
        }
    }
    let step = match name.as_str() {
        "" => return Err("a field has no name".to_owned()),
        "*" => Step::All,
        _ => Step::Field(name),
    };
    Ok((step, &named[end..]))
}

fn bracket(inner: &str) -> Result<Step, String> {
    if inner == "*" {
        return Ok(Step::All);
    }
    if let Some(name) = unquote(inner) {
        return Ok(Step::Field(name.to_owned()));
    }
    if let Some(filter) = inner.strip_prefix("?(").and_then(|filter| filter.strip_suffix(')')) {
        let (path, wanted) = filter.split_once("==").ok_or("only == is understood in a filter")?;
        let path = path.trim().strip_prefix("@.").ok_or("a filter starts with @.")?;
        let wanted = wanted.trim();
        return Ok(Step::Where {
            field: path.split('.').map(str::to_owned).collect(),
            equals: unquote(wanted).unwrap_or(wanted).to_owned(),
        });
    }
    inner.parse().map(Step::Index).map_err(|_| format!("[{inner}] is not understood"))
}

fn unquote(text: &str) -> Option<&str> {
    ['"', '\''].into_iter().find_map(|quote| {
        text.strip_prefix(quote)
            .and_then(|text| text.strip_suffix(quote))
            .filter(|text| !text.contains(quote))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_paths_of_columns_find_their_values() {
        let object = json!({
            "spec": {"function": {"vf": {"pf": 2}}, "list": ["a", "b"]},
            "metadata": {"annotations": {"virtnet.dev/x": "y"}},
            "status": {"conditions": [{"type": "Bound", "status": "False"}, {"type": "Ready", "status": "True"}]},
        });
        for (path, found) in [
            (".spec.function.*.pf", json!(2)),
            (".spec.function.vf", json!({"pf": 2})),
            (".spec.list[1]", json!("b")),
            (".spec.list[*]", json!("a")),
            (".status.conditions[?(@.type==\"Ready\")].status", json!("True")),
            (".status.conditions[?(@.type=='Ready')].status", json!("True")),
            (".metadata.annotations['virtnet.dev/x']", json!("y")),
            (".metadata.annotations.virtnet\\.dev/x", json!("y")),
        ] {
            assert_eq!(JsonPath::parse(path).unwrap().first(&object), Some(&found), "{path}");
        }
        assert_eq!(JsonPath::parse(".status.none").unwrap().first(&object), None);
        for broken in ["", "spec", ".spec[", ".spec[?(@.a>1)]", ".", ".a..b"] {
            assert!(JsonPath::parse(broken).is_err(), "{broken}");
        }
    }
}
