//! Reviews: whoever got past the listener is the one user there is, and may do everything.

use http::Method;
use serde_json::{Value, json};

use crate::content;
use crate::object;
use crate::reply::Reply;
use crate::service::Call;
use crate::status::ApiError;

/// Answers a review; nothing is stored.
pub(crate) fn answer(call: &Call, kind: &'static str) -> Result<Reply, ApiError> {
    if call.method != Method::POST {
        return Err(ApiError::method_not_allowed(call.method.as_str(), &call.path));
    }
    let mut review = content::body(call.content_type(), &call.body)?.value;
    if review.get("kind").and_then(Value::as_str) != Some(kind) {
        return Err(ApiError::bad_request(format!("the body must be a {kind}")));
    }
    let status = match kind {
        "SelfSubjectReview" => json!({
            "userInfo": { "username": "virtnet:admin", "groups": ["system:masters", "system:authenticated"] },
        }),
        "SelfSubjectRulesReview" => json!({
            "resourceRules": [{ "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"] }],
            "nonResourceRules": [{ "verbs": ["*"], "nonResourceURLs": ["*"] }],
            "incomplete": false,
        }),
        _ => json!({ "allowed": true, "reason": "the embedded API has one user, who may do everything" }),
    };
    object::map_mut(&mut review).insert("status".to_owned(), status);
    Ok(Reply::ok(review).with_code(201))
}
