//! Errors in words.

use std::error::Error;

/// An error with its causes on one line: each is said once, and what an API server says is told in its own words.
#[must_use]
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let (said, cause) = match error.downcast_ref::<kube::Error>() {
            Some(kube::Error::Api(status)) => (status.message.clone(), None),
            Some(kube::Error::Service(error)) => (error.to_string(), error.source()),
            _ => (error.to_string(), error.source()),
        };
        // Some errors print their causes themselves.
        if !text.ends_with(&said) {
            text.push_str(if text.is_empty() { "" } else { ": " });
            text.push_str(&said);
        }
        next = cause;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{words}")]
    struct Failed {
        words: &'static str,
        source: Option<Box<dyn Error + Send + Sync>>,
    }

    fn failed(words: &'static str, source: impl Into<Box<dyn Error + Send + Sync>>) -> Failed {
        Failed { words, source: Some(source.into()) }
    }

    #[test]
    fn each_cause_is_said_once() {
        let innermost = Failed { words: "no space", source: None };
        assert_eq!(
            chain(&failed("saving", failed("writing: no space", innermost))),
            "saving: writing: no space"
        );
    }

    #[test]
    fn an_api_server_speaks_in_its_own_words() {
        let status = kube::core::Status::failure("dpus \"a\" not found", "NotFound").with_code(404);
        let error = failed("getting a", kube::Error::Api(Box::new(status)));
        assert_eq!(chain(&error), "getting a: dpus \"a\" not found");
        let error = failed("getting a", kube::Error::Service("no answer".into()));
        assert_eq!(chain(&error), "getting a: no answer");
    }
}
