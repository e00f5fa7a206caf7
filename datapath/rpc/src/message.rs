//! One message of JSON-RPC 2.0: [`Message`], and [`Fault`], an error as it goes over the wire. Pure.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use virtnet_model::{ErrorKind, PartError};

/// Bytes that a line may have. The table of 1,500 functions takes about one megabyte.
pub const LINE_MAX: usize = 16 << 20;

/// The request was no JSON-RPC (its section 5.1).
const INVALID_REQUEST: i64 = -32600;
/// There is no such method.
const METHOD_NOT_FOUND: i64 = -32601;
/// The parameters are not those of the method.
const INVALID_PARAMS: i64 = -32602;
/// The method was not carried out, and may be by whoever is asked next.
const UNDONE: i64 = -32001;
/// The method was carried out and failed: `data` says how.
const FAILED: i64 = -32000;

/// An error object.
#[derive(Clone, Debug, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// The number of JSON-RPC's list, or -32000.
    pub code: i64,
    /// One line, for a person.
    pub message: String,
    /// What to do about it, where the method was carried out and failed. What the other side may know and this one not is left
    /// out.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "known")]
    pub data: Option<ErrorKind>,
}

/// A kind of failure that is known here.
fn known<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<ErrorKind>, D::Error> {
    let value = Option::<serde_json::Value>::deserialize(deserializer)?;
    Ok(value.and_then(|value| serde_json::from_value(value).ok()))
}

/// A text of the other side's as it may be logged: on one line, and short.
pub(crate) fn one_line(text: &str) -> String {
    const LONG: usize = 200;
    text.chars().take(LONG).map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

impl Fault {
    /// The method is not one of those that are offered.
    pub fn no_such_method(method: &str) -> Self {
        Self { code: METHOD_NOT_FOUND, message: format!("there is no method {method:?}"), data: None }
    }

    /// The method was not carried out: who is asked is about to end, and another may be asked.
    pub fn undone() -> Self {
        Self { code: UNDONE, message: "not carried out: this one is about to end".to_owned(), data: None }
    }

    /// Whether it is [`Fault::undone`].
    pub(crate) fn is_undone(&self) -> bool {
        self.code == UNDONE
    }

    /// The parameters could not be read.
    pub fn bad_params(method: &str, why: &serde_json::Error) -> Self {
        Self { code: INVALID_PARAMS, message: format!("the parameters of {method}: {why}"), data: None }
    }
}

impl From<PartError> for Fault {
    fn from(error: PartError) -> Self {
        let mut message = error.message;
        let mut source = error.source.as_deref().map(|source| source as &dyn std::error::Error);
        while let Some(cause) = source {
            message.push_str(&format!(": {cause}"));
            source = cause.source();
        }
        Self { code: FAILED, message, data: Some(error.kind) }
    }
}

impl From<Fault> for PartError {
    fn from(fault: Fault) -> Self {
        Self { kind: fault.data.unwrap_or(ErrorKind::Failed), message: fault.message, source: None }
    }
}

/// Everything that a message can have; which of it is there says what the message is.
#[derive(Debug, Deserialize)]
struct Members {
    jsonrpc: String,
    #[serde(default)]
    id: Option<u64>,
    #[serde(default)]
    method: Option<String>,
    #[serde(default)]
    params: Option<Box<RawValue>>,
    #[serde(default)]
    result: Option<Box<RawValue>>,
    #[serde(default)]
    error: Option<Fault>,
}

/// A message that was received.
#[derive(Debug)]
pub(crate) enum Message {
    /// The other side asks.
    Request { id: u64, method: String, params: Box<RawValue> },
    /// The other side tells.
    Notification { method: String, params: Box<RawValue> },
    /// The other side answers.
    Response { id: u64, result: Result<Box<RawValue>, Fault> },
}

impl Message {
    /// Reads a line. An error says why it is no message.
    pub(crate) fn parse(line: &str) -> Result<Self, Fault> {
        let invalid = |message: String| Fault { code: INVALID_REQUEST, message, data: None };
        let members: Members =
            serde_json::from_str(line).map_err(|error| invalid(format!("no JSON-RPC 2.0: {error}")))?;
        let Members { jsonrpc, id, method, params, result, error } = members;
        if jsonrpc != "2.0" {
            return Err(invalid(format!("no JSON-RPC 2.0: jsonrpc is {jsonrpc:?}")));
        }
        let params = params.map_or_else(|| RawValue::from_string("null".to_owned()), Ok);
        let params = params.map_err(|error| invalid(error.to_string()))?;
        match (id, method, result, error) {
            (Some(id), Some(method), None, None) => Ok(Self::Request { id, method, params }),
            (None, Some(method), None, None) => Ok(Self::Notification { method, params }),
            (Some(id), None, Some(result), None) => Ok(Self::Response { id, result: Ok(result) }),
            (Some(id), None, None, Some(error)) => Ok(Self::Response { id, result: Err(error) }),
            // What answers with null is told from what does not answer by there being no error.
            (Some(id), None, None, None) => {
                let null = RawValue::from_string("null".to_owned());
                Ok(Self::Response { id, result: Ok(null.map_err(|error| invalid(error.to_string()))?) })
            }
            _ => Err(invalid("neither a request nor a notification nor an answer".to_owned())),
        }
    }
}

/// The line of a request, or without an id of a notification.
pub(crate) fn request(id: Option<u64>, method: &str, params: &impl Serialize) -> serde_json::Result<String> {
    #[derive(Serialize)]
    struct Request<'a, P> {
        jsonrpc: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<u64>,
        method: &'a str,
        params: &'a P,
    }
    serde_json::to_string(&Request { jsonrpc: "2.0", id, method, params })
}

/// The line of an answer.
pub(crate) fn response(id: u64, result: &Result<Box<RawValue>, Fault>) -> serde_json::Result<String> {
    #[derive(Serialize)]
    struct Response<'a> {
        jsonrpc: &'static str,
        id: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        result: Option<&'a RawValue>,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<&'a Fault>,
    }
    let (result, error) = match result {
        Ok(result) => (Some(&**result), None),
        Err(error) => (None, Some(error)),
    };
    serde_json::to_string(&Response { jsonrpc: "2.0", id, result, error })
}

#[cfg(test)]
mod tests {
    use virtnet_model::Refusal;

    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let line = request(Some(7), "unplug", &["VNETS1D0F0"]).unwrap();
        assert!(
            matches!(Message::parse(&line), Ok(Message::Request { id: 7, method, .. }) if method == "unplug")
        );
        let line = request(None, "changed", &()).unwrap();
        assert!(
            matches!(Message::parse(&line), Ok(Message::Notification { method, .. }) if method == "changed")
        );
        let null = RawValue::from_string("null".to_owned()).unwrap();
        let line = response(8, &Ok(null)).unwrap();
        assert!(matches!(Message::parse(&line), Ok(Message::Response { id: 8, result: Ok(_) })));
        let refused = PartError::refused(Refusal::MacInUse, "hot-plug: MAC is in use");
        let line = response(9, &Err(refused.into())).unwrap();
        let Ok(Message::Response { result: Err(fault), .. }) = Message::parse(&line) else {
            panic!("{line}")
        };
        let error = PartError::from(fault);
        assert_eq!(
            (error.refusal(), error.message.as_str()),
            (Some(Refusal::MacInUse), "hot-plug: MAC is in use")
        );
    }

    #[test]
    fn a_refusal_of_another_version_is_a_failure_here() {
        let line = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32000,"message":"no","data":{"Refused":"OfTomorrow"}}}"#;
        let Ok(Message::Response { result: Err(fault), .. }) = Message::parse(line) else { panic!("{line}") };
        assert_eq!(PartError::from(fault).kind, ErrorKind::Failed);
    }

    #[test]
    fn what_is_logged_of_others_is_one_short_line() {
        let text = format!("unknown variant `x\n<0>disk failure\u{1b}[0m{}`", "y".repeat(1000));
        let told = one_line(&text);
        assert!(!told.contains(char::is_control) && told.len() == 200, "{told}");
    }

    #[test]
    fn what_is_no_message_is_told_why() {
        for line in [
            "",
            "[]",
            "{}",
            r#"{"jsonrpc": "1.0", "id": 1, "method": "list"}"#,
            r#"{"jsonrpc": "2.0", "id": "one", "method": "list"}"#,
            r#"{"jsonrpc": "2.0", "id": 1, "method": "list", "result": 1}"#,
            r#"{"jsonrpc": "2.0"}"#,
        ] {
            assert_eq!(Message::parse(line).unwrap_err().code, INVALID_REQUEST, "{line}");
        }
    }
}
