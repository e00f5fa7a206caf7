//! Manifests as `kubectl` reads them: YAML to JSON, with the line of each field.
//!
//! Files are split at lines that begin with `---` before anything is parsed, so that an error in one document leaves
//! the others. Plain scalars have the meaning that kubectl gives them (`scalar`): `0100` is 64, `on` is true,
//! `1500.0` is an integer. Unlike kubectl, which keeps the last, a key that is given twice is an error.

mod scalar;
mod tree;

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use tree::{Node, Tree};

/// One document of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// Its content as JSON.
    pub value: Value,
    /// First line that has content, counted from 1 in the file.
    pub line: usize,
    /// The line of each field, by its path as error messages write it: `spec.port.trunks[2]`.
    lines: BTreeMap<String, usize>,
}

/// Why a document could not be read.
#[derive(thiserror::Error, Clone, Debug, PartialEq, Eq)]
#[error("line {line}: {message}")]
pub struct YamlError {
    /// The line, counted from 1 in the file.
    pub line: usize,
    /// What is wrong there.
    pub message: String,
}

impl Document {
    /// The line of the field at this path; of a field that is absent, the line of what should have it.
    #[must_use]
    pub fn line_of(&self, path: &str) -> usize {
        let mut path = path;
        loop {
            if let Some(line) = self.lines.get(path) {
                return *line;
            }
            match path.rfind(['.', '[']) {
                Some(end) => path = &path[..end],
                None => return self.line,
            }
        }
    }
}

/// The documents of a file, in their order. Empty ones are left out.
#[must_use]
pub fn documents(text: &str) -> Vec<Result<Document, YamlError>> {
    split(text)
        .into_iter()
        .filter_map(|part| match part.and_then(|(text, lines_before)| tree::read(text, lines_before)) {
            Ok(Some(node)) => Some(Ok(document(node))),
            Ok(None) => None,
            Err(error) => Some(Err(error)),
        })
        .collect()
}

/// The text of each document, with the number of lines before it.
fn split(text: &str) -> Vec<Result<(&str, usize), YamlError>> {
    let mut parts = Vec::new();
    let (mut start, mut lines_before) = (0, 0);
    let mut offset = 0;
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let next = offset + line.len();
        if let Some(rest) = line.strip_prefix("---") {
            parts.push(Ok((&text[start..offset], lines_before)));
            let rest = rest.trim();
            if !rest.is_empty() && !rest.starts_with('#') {
                let message =
                    "kubectl drops what stands behind --- on its line; put it on the next".to_owned();
                parts.push(Err(YamlError { line: index + 1, message }));
            }
            (start, lines_before) = (next, index + 1);
        }
        offset = next;
    }
    parts.push(Ok((&text[start..], lines_before)));
    parts
}

fn document(node: Node) -> Document {
    let line = node.line;
    let mut lines = BTreeMap::new();
    let value = to_json(node, "", &mut lines);
    Document { value, line, lines }
}

fn to_json(node: Node, path: &str, lines: &mut BTreeMap<String, usize>) -> Value {
    match node.tree {
        Tree::Scalar(value) => value,
        Tree::Sequence(items) => {
            let items = items.into_iter().enumerate().map(|(index, item)| {
                let path = format!("{path}[{index}]");
                lines.insert(path.clone(), item.line);
                to_json(item, &path, lines)
            });
            Value::Array(items.collect())
        }
        Tree::Mapping(entries) => {
            let mut fields = Map::new();
            for entry in entries {
                let below = if path.is_empty() { entry.key.clone() } else { format!("{path}.{}", entry.key) };
                // Errors about the keys of a map write them in brackets, those of a schema's fields with dots.
                lines.insert(format!("{path}[{}]", entry.key), entry.line);
                lines.insert(below.clone(), entry.line);
                fields.insert(entry.key, to_json(entry.value, &below, lines));
            }
            Value::Object(fields)
        }
    }
}
