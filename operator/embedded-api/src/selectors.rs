//! Label and field selectors.

use serde_json::Value;

use crate::registry::Resource;
use crate::status::ApiError;

/// A conjunction of requirements.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Selector(Vec<Requirement>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Absent,
    Above(i64),
    Below(i64),
}

impl Selector {
    /// `a=b,c!=d,e in (f,g),h notin (i),j,!k`
    pub(crate) fn labels(text: &str) -> Result<Self, ApiError> {
        let refused = |part: &str| {
            ApiError::bad_request(format!(
                "unable to parse requirement: {part:?} is no label requirement; allowed are k=v, k==v, k!=v, \
                 k in (v,…), k notin (v,…), k, !k, k>n and k<n"
            ))
        };
        let parts = split_outside_parentheses(text);
        let parsed = parts.into_iter().map(|part| label_requirement(part).ok_or_else(|| refused(part)));
        parsed.collect::<Result<_, _>>().map(Self)
    }

    /// `a=b,c!=d`; a backslash takes the meaning from the character after it.
    pub(crate) fn fields(text: &str) -> Result<Self, ApiError> {
        let refused = |part: &str| {
            ApiError::bad_request(format!(
                "invalid field selector {part:?}: allowed are field=value, field==value and field!=value"
            ))
        };
        let parts = text.split(',').filter(|part| !part.trim().is_empty());
        let parsed = parts.map(|part| {
            let (key, value, equal) = comparison(part).ok_or_else(|| refused(part))?;
            let value = vec![value.replace("\\=", "=").replace("\\,", ",").replace("\\\\", "\\")];
            let test = if equal { Test::In(value) } else { Test::NotIn(value) };
            Ok(Requirement { key: key.to_owned(), test })
        });
        parsed.collect::<Result<_, ApiError>>().map(Self)
    }

    /// Refuses fields that can't be selected by.
    pub(crate) fn check_fields(&self, resource: &Resource) -> Result<(), ApiError> {
        for requirement in &self.0 {
            let key = requirement.key.as_str();
            let known = key == "metadata.name"
                || (key == "metadata.namespace" && resource.namespaced)
                || resource.selectable.iter().any(|field| field == key);
            if !known {
                return Err(ApiError::bad_request(format!("field label not supported: {key}")));
            }
        }
        Ok(())
    }

    pub(crate) fn matches_labels(&self, object: &Value) -> bool {
        let labels = object.pointer("/metadata/labels");
        self.0.iter().all(|one| {
            let value = labels.and_then(|labels| labels.get(&one.key)).and_then(Value::as_str);
            one.test.holds(value)
        })
    }

    pub(crate) fn matches_fields(&self, object: &Value) -> bool {
        self.0.iter().all(|one| {
            let found = one.key.split('.').try_fold(object, |at, segment| at.get(segment));
            // An absent field selects as the empty string, as upstream.
            let value = match found {
                Some(Value::String(text)) => text.clone(),
                Some(value @ (Value::Bool(_) | Value::Number(_))) => value.to_string(),
                _ => String::new(),
            };
            one.test.holds(Some(&value))
        })
    }
}

impl Test {
    fn holds(&self, value: Option<&str>) -> bool {
        let number = || value.and_then(|value| value.parse::<i64>().ok());
        match self {
            Self::In(wanted) => value.is_some_and(|value| wanted.iter().any(|one| one == value)),
            Self::NotIn(unwanted) => value.is_none_or(|value| unwanted.iter().all(|one| one != value)),
            Self::Exists => value.is_some(),
            Self::Absent => value.is_none(),
            Self::Above(bound) => number().is_some_and(|number| number > *bound),
            Self::Below(bound) => number().is_some_and(|number| number < *bound),
        }
    }
}

fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0_i32, 0);
    for (at, letter) in text.char_indices() {
        match letter {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts.into_iter().map(str::trim).filter(|part| !part.is_empty()).collect()
}

fn comparison(part: &str) -> Option<(&str, &str, bool)> {
    let (key, value, equal) = match part.split_once("!=") {
        Some((key, value)) => (key, value, false),
        None => {
            let (key, value) = part.split_once('=')?;
            (key, value.strip_prefix('=').unwrap_or(value), true)
        }
    };
    let key = key.trim();
    (!key.is_empty()).then(|| (key, value.trim(), equal))
}

fn label_requirement(part: &str) -> Option<Requirement> {
    let requirement = |key: &str, test| {
        let key = key.trim();
        let plain = !key.is_empty()
            && key.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_./".contains(letter));
        plain.then(|| Requirement { key: key.to_owned(), test })
    };
    if let Some(list) = part.strip_suffix(')') {
        let (head, list) = list.split_once('(')?;
        let values: Vec<String> = list.split(',').map(|value| value.trim().to_owned()).collect();
        let (key, operator) = head.trim_end().rsplit_once(char::is_whitespace)?;
        return match operator {
            "in" => requirement(key, Test::In(values)),
            "notin" => requirement(key, Test::NotIn(values)),
            _ => None,
        };
    }
    if let Some((key, value, equal)) = comparison(part) {
        if !value.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(letter)) {
            return None;
        }
        let value = vec![value.to_owned()];
        return requirement(key, if equal { Test::In(value) } else { Test::NotIn(value) });
    }
    if let Some(key) = part.strip_prefix('!') {
        return requirement(key, Test::Absent);
    }
    if let Some((key, bound)) = part.split_once('>') {
        return requirement(key, Test::Above(bound.trim().parse().ok()?));
    }
    if let Some((key, bound)) = part.split_once('<') {
        return requirement(key, Test::Below(bound.trim().parse().ok()?));
    }
    requirement(part, Test::Exists)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn label_selectors_follow_set_and_equality_rules() {
        let object = json!({"metadata": {"labels": {"app": "web", "tier": "1"}}});
        for (selector, matches) in [
            ("", true),
            ("app=web", true),
            ("app==web,tier=1", true),
            ("app!=web", false),
            ("other!=web", true),
            ("app in (db, web)", true),
            ("app notin (db,web)", false),
            ("app", true),
            ("!app", false),
            ("!other", true),
            ("tier>0,tier<2", true),
            ("tier>1", false),
        ] {
            assert_eq!(Selector::labels(selector).unwrap().matches_labels(&object), matches, "{selector}");
        }
        for broken in ["a in b", "=x", "a b", "a maybe (b)", "tier>x", "a=b=c", "a=b c"] {
            assert!(Selector::labels(broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn an_absent_field_selects_as_the_empty_string() {
        let bound = json!({"spec": {"dpu": "bf3-a"}});
        let unbound = json!({"spec": {}});
        let selector = Selector::fields("spec.dpu=").unwrap();
        assert!(selector.matches_fields(&unbound));
        assert!(!selector.matches_fields(&bound));
        assert!(Selector::fields("spec.dpu!=bf3-b").unwrap().matches_fields(&bound));
        assert!(Selector::fields("spec.dpu").is_err());
    }
}
