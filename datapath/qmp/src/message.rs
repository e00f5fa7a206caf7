//! What a QMP server sends: a greeting, answers and events, each one line of JSON (QMP specification, sections "Server
//! Greeting", "Commands Responses" and "Asynchronous events").

use std::fmt;

use serde::Deserialize;
use serde_json::Value;

/// QEMU understood a command and did not do it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, thiserror::Error)]
#[error("{desc}")]
pub struct Refused {
    /// The class, such as `GenericError` or `DeviceNotFound`.
    pub class: String,
    /// One line for a person. It is in no way stable.
    pub desc: String,
}

impl Refused {
    /// Whether the device, netdev or chardev that the command names is not there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.class == "DeviceNotFound"
    }
}

/// Something happened in QEMU.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Its name, such as `DEVICE_DELETED`.
    pub name: String,
    /// What is told with it; null where nothing is.
    pub data: Value,
}

impl Event {
    /// A text of what is told with it, such as the `device` of `DEVICE_DELETED`.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&str> {
        self.data.get(key)?.as_str()
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.data.is_null() { f.write_str(&self.name) } else { write!(f, "{} {}", self.name, self.data) }
    }
}

/// A line of the server's.
#[derive(Debug, PartialEq)]
pub(crate) enum Message {
    /// The first one: QEMU's version, as a person writes it.
    Greeting { version: String },
    /// The answer to the command with this id.
    Answer { id: u64, result: Result<Value, Refused> },
    /// What nobody asked for.
    Event(Event),
}

/// Why a line is no message.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("it is not JSON")]
    NotJson(#[source] serde_json::Error),
    #[error("it is neither greeting nor answer nor event")]
    Unknown,
    #[error("it is an answer with no id of ours; QEMU says: {0}")]
    NoId(String),
}

#[derive(Deserialize)]
struct Line {
    #[serde(rename = "QMP")]
    greeting: Option<Greeting>,
    event: Option<String>,
    data: Option<Value>,
    #[serde(default, rename = "return", deserialize_with = "there")]
    result: Option<Value>,
    error: Option<Refused>,
    id: Option<Value>,
}

#[derive(Deserialize)]
struct Greeting {
    version: Version,
}

#[derive(Deserialize)]
struct Version {
    qemu: Numbers,
}

#[derive(Deserialize)]
struct Numbers {
    major: u32,
    minor: u32,
    micro: u32,
}

/// A value that is null is there all the same.
fn there<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

impl Message {
    /// Reads a line.
    pub(crate) fn parse(line: &str) -> Result<Self, Malformed> {
        let line: Line = serde_json::from_str(line).map_err(Malformed::NotJson)?;
        let Line { greeting, event, data, result, error, id } = line;
        let result = match (greeting, event, result, error) {
            (Some(Greeting { version: Version { qemu } }), None, None, None) => {
                let Numbers { major, minor, micro } = qemu;
                return Ok(Self::Greeting { version: format!("{major}.{minor}.{micro}") });
            }
            (None, Some(name), None, None) => {
                return Ok(Self::Event(Event { name, data: data.unwrap_or(Value::Null) }));
            }
            (None, None, Some(value), None) => Ok(value),
            (None, None, None, Some(error)) => Err(error),
            _ => return Err(Malformed::Unknown),
        };
        match id.as_ref().and_then(Value::as_u64) {
            Some(id) => Ok(Self::Answer { id, result }),
            // QEMU answers so to what it can't read at all.
            None => Err(Malformed::NoId(match result {
                Ok(value) => value.to_string(),
                Err(error) => error.desc,
            })),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn greetings_answers_and_events_are_told_apart() {
        let greeting = r#"{"QMP": {"version": {"qemu": {"micro": 3, "minor": 1, "major": 11},
            "package": "Debian"}, "capabilities": ["oob"]}}"#;
        assert_eq!(Message::parse(greeting).unwrap(), Message::Greeting { version: "11.1.3".to_owned() });
        let answer = r#"{"return": {}, "id": 7}"#;
        assert_eq!(Message::parse(answer).unwrap(), Message::Answer { id: 7, result: Ok(json!({})) });
        let nothing = r#"{"return": null, "id": 7}"#;
        assert_eq!(Message::parse(nothing).unwrap(), Message::Answer { id: 7, result: Ok(Value::Null) });
        let error = r#"{"id": 8, "error": {"class": "DeviceNotFound", "desc": "Device 'x' not found"}}"#;
        let Message::Answer { id: 8, result: Err(error) } = Message::parse(error).unwrap() else {
            panic!("no error");
        };
        assert!(error.is_not_found());
        assert_eq!(error.to_string(), "Device 'x' not found");
        let event = r#"{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "DEVICE_DELETED",
            "data": {"device": "d0", "path": "/machine/peripheral/d0"}}"#;
        let Message::Event(event) = Message::parse(event).unwrap() else { panic!("no event") };
        assert_eq!((event.name.as_str(), event.text("device")), ("DEVICE_DELETED", Some("d0")));
        let stop = Message::parse(r#"{"event": "STOP"}"#).unwrap();
        assert_eq!(stop, Message::Event(Event { name: "STOP".to_owned(), data: Value::Null }));
    }

    #[test]
    fn what_is_no_message_is_refused_with_the_reason() {
        for (line, why) in [
            ("", "not JSON"),
            ("[]", "not JSON"),
            ("{}", "neither"),
            (r#"{"return": {}, "event": "X"}"#, "neither"),
            (r#"{"QMP": {}}"#, "not JSON"),
            (r#"{"return": {}}"#, "no id of ours"),
            (r#"{"return": {}, "id": "1"}"#, "no id of ours"),
            (r#"{"error": {"class": "GenericError", "desc": "JSON parse error"}}"#, "JSON parse error"),
            (r#"{"error": {"class": "GenericError"}, "id": 1}"#, "not JSON"),
        ] {
            let error = Message::parse(line).unwrap_err().to_string();
            assert!(error.contains(why), "{line}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_line_is_a_panic(line: String) {
            let _ = Message::parse(&line);
        }
    }
}
