//! JSON-RPC 1.0 as RFC 7047, section 4, uses it.

use serde_json::{Map, Value, json};

/// What a server sends.
#[derive(Debug, PartialEq)]
pub(crate) enum Message {
    /// It wants an answer.
    Request { id: Value, method: String, params: Value },
    /// It wants none.
    Notification { method: String, params: Value },
    /// The answer to a request of ours, or its error.
    Response { id: Value, result: Result<Value, Value> },
}

/// A JSON object that is no message.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a message of JSON-RPC: {0}")]
pub(crate) struct NoMessage(&'static str);

impl Message {
    /// Reads a message. Members that it doesn't need are passed over.
    pub(crate) fn from_value(value: Value) -> Result<Self, NoMessage> {
        let Value::Object(mut object) = value else { return Err(NoMessage("it is not an object")) };
        let mut take = |name: &str| take(&mut object, name);
        let id = take("id");
        match (take("method"), id) {
            (Some(Value::String(method)), Some(id)) => {
                Ok(Self::Request { id, method, params: take("params").unwrap_or_default() })
            }
            (Some(Value::String(method)), None) => {
                Ok(Self::Notification { method, params: take("params").unwrap_or_default() })
            }
            (Some(_), _) => Err(NoMessage("its method is not a string")),
            (None, None) => Err(NoMessage("it has neither a method nor an id")),
            (None, Some(id)) => match (take("error"), take("result")) {
                (Some(error), _) => Ok(Self::Response { id, result: Err(error) }),
                (None, result) => Ok(Self::Response { id, result: Ok(result.unwrap_or_default()) }),
            },
        }
    }
}

/// A member that is there and not null.
fn take(object: &mut Map<String, Value>, name: &str) -> Option<Value> {
    object.remove(name).filter(|value| !value.is_null())
}

/// A request of ours.
pub(crate) fn request(id: &Value, method: &str, params: &Value) -> Value {
    json!({"id": id, "method": method, "params": params})
}

/// Our answer to an echo.
pub(crate) fn reply(id: &Value, result: &Value) -> Value {
    json!({"id": id, "result": result, "error": null})
}

/// Our answer to a request that we don't know.
pub(crate) fn refusal(id: &Value) -> Value {
    json!({"id": id, "result": null, "error": "unknown method"})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_kinds_are_told_apart() {
        let read = |value| Message::from_value(value).unwrap();
        assert_eq!(
            read(json!({"method": "echo", "params": [1], "id": "echo"})),
            Message::Request { id: json!("echo"), method: "echo".into(), params: json!([1]) }
        );
        assert_eq!(
            read(json!({"method": "update3", "params": [], "id": null})),
            Message::Notification { method: "update3".into(), params: json!([]) }
        );
        assert_eq!(
            read(json!({"id": 7, "result": {}, "error": null})),
            Message::Response { id: json!(7), result: Ok(json!({})) }
        );
        assert_eq!(
            read(json!({"id": 7, "result": null, "error": "unknown method"})),
            Message::Response { id: json!(7), result: Err(json!("unknown method")) }
        );
    }

    #[test]
    fn other_objects_are_refused() {
        for value in [json!([]), json!({}), json!({"method": 1}), json!({"result": 1})] {
            assert!(Message::from_value(value.clone()).is_err(), "{value}");
        }
    }
}
