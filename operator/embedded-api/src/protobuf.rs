//! The little of the API machinery's protobuf that `kubectl` sends and does not offer as JSON: a new namespace
//! (`kubectl create namespace`) and reviews (`kubectl auth`). Answers are JSON, which it accepts.

use serde_json::{Map, Value, json};

/// What every such body begins with.
const MAGIC: &[u8] = b"k8s\0";

/// Media type of these bodies.
pub(crate) const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// The object in a body, as far as it is understood; `None` where the body is malformed or holds anything else.
pub(crate) fn decode(body: &[u8]) -> Option<Value> {
    // runtime.Unknown: typeMeta = 1 (apiVersion = 1, kind = 2), raw = 2.
    let envelope = fields(body.strip_prefix(MAGIC)?)?;
    let meta = fields(bytes(&envelope, 1)?)?;
    let (api_version, kind) = (text(&meta, 1)?, text(&meta, 2)?);
    let raw = bytes(&envelope, 2).unwrap_or_default();
    let mut object = json!({ "apiVersion": api_version, "kind": kind });
    match (api_version.as_str(), kind.as_str()) {
        ("v1", "Namespace") => {
            // Namespace: metadata = 1; spec = 2 is empty in a new one, and status = 3 is the server's own.
            let namespace = fields(raw)?;
            if bytes(&namespace, 2).is_some_and(|spec| !spec.is_empty()) {
                return None;
            }
            object["metadata"] = object_meta(bytes(&namespace, 1)?)?;
        }
        // The answer does not depend on what is asked.
        ("authorization.k8s.io/v1", "SelfSubjectAccessReview" | "SelfSubjectRulesReview")
        | ("authentication.k8s.io/v1", "SelfSubjectReview") => object["metadata"] = json!({}),
        _ => return None,
    }
    Some(object)
}

/// ObjectMeta: name = 1, generateName = 2, creationTimestamp = 8 (the server's own), labels = 11, annotations = 12.
fn object_meta(raw: &[u8]) -> Option<Value> {
    let meta = fields(raw)?;
    let mut object = Map::new();
    for (number, content) in &meta {
        let Content::Bytes(content) = content else { continue };
        let name = match number {
            1 => "name",
            2 => "generateName",
            11 => "labels",
            12 => "annotations",
            8 => continue,
            _ if content.is_empty() => continue,
            _ => return None,
        };
        if let 11 | 12 = number {
            let entry = fields(content)?;
            let (key, value) = (text(&entry, 1)?, text(&entry, 2).unwrap_or_default());
            let map = object.entry(name).or_insert_with(|| Value::Object(Map::new()));
            map.as_object_mut()?.insert(key, value.into());
        } else if !content.is_empty() {
            object.insert(name.to_owned(), std::str::from_utf8(content).ok()?.into());
        }
    }
    Some(Value::Object(object))
}

/// What a field holds, as far as the wire tells.
#[derive(Debug, PartialEq, Eq)]
enum Content<'a> {
    Number,
    Bytes(&'a [u8]),
}

/// The fields of a message in order; `None` where it is malformed.
fn fields(mut message: &[u8]) -> Option<Vec<(u64, Content<'_>)>> {
    let mut found = Vec::new();
    while !message.is_empty() {
        let (tag, rest) = varint(message)?;
        let (content, rest) = match tag & 7 {
            0 => (Content::Number, varint(rest)?.1),
            1 => (Content::Number, rest.get(8..)?),
            2 => {
                let (length, rest) = varint(rest)?;
                let (content, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
                (Content::Bytes(content), rest)
            }
            5 => (Content::Number, rest.get(4..)?),
            _ => return None,
        };
        found.push((tag >> 3, content));
        message = rest;
    }
    Some(found)
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (index, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f).checked_shl(u32::try_from(index * 7).ok()?)?;
        if byte & 0x80 == 0 {
            return Some((value, &bytes[index + 1..]));
        }
    }
    None
}

fn bytes<'a>(fields: &[(u64, Content<'a>)], wanted: u64) -> Option<&'a [u8]> {
    fields.iter().find_map(|(number, content)| match content {
        Content::Bytes(content) if *number == wanted => Some(*content),
        _ => None,
    })
}

fn text(fields: &[(u64, Content<'_>)], wanted: u64) -> Option<String> {
    String::from_utf8(bytes(fields, wanted)?.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        let mut message = vec![number << 3 | 2, u8::try_from(content.len()).unwrap()];
        message.extend(content);
        message
    }

    fn body(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let meta = [field(1, api_version.as_bytes()), field(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), field(1, &meta), field(2, raw)].concat()
    }

    #[test]
    fn a_new_namespace_is_understood_and_nothing_else_is_guessed() {
        let label = [field(1, b"team"), field(2, b"a")].concat();
        let meta = [field(1, b"team-a"), field(11, &label)].concat();
        let namespace = body("v1", "Namespace", &[field(1, &meta), field(2, b"")].concat());
        assert_eq!(
            decode(&namespace),
            Some(json!({
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {"name": "team-a", "labels": {"team": "a"}},
            }))
        );
        let owned = [field(1, b"team-a"), field(14, b"a-finalizer")].concat();
        assert_eq!(decode(&body("v1", "Namespace", &field(1, &owned))), None);
        assert_eq!(decode(&body("v1", "Pod", b"")), None);
        assert_eq!(decode(&namespace[..namespace.len() - 1]), None);
        assert_eq!(decode(b""), None);
    }
}
