//! A request's query parameters, parsed once.

use std::time::Duration;

use crate::path::decode;
use crate::selectors::Selector;
use crate::status::{ApiError, Cause};

/// What to do about fields that the schema lacks, and about fields given twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

/// How a resource version bounds a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VersionMatch {
    Exact,
    NotOlderThan,
}

/// Parameters of list, watch and deletecollection.
#[derive(Debug, Clone)]
pub(crate) struct ListQuery {
    pub(crate) watch: bool,
    pub(crate) labels: Selector,
    pub(crate) fields: Selector,
    pub(crate) resource_version: Option<u64>,
    pub(crate) version_match: Option<VersionMatch>,
    pub(crate) limit: usize,
    pub(crate) token: String,
    pub(crate) bookmarks: bool,
    pub(crate) initial_events: Option<bool>,
    pub(crate) timeout: Option<Duration>,
}

/// Parameters of writes.
#[derive(Debug, Clone)]
pub(crate) struct WriteQuery {
    pub(crate) dry_run: bool,
    pub(crate) field_manager: Option<String>,
    pub(crate) field_validation: FieldValidation,
    pub(crate) force: Option<bool>,
}

/// The raw pairs, in the order given.
#[derive(Debug, Clone)]
pub(crate) struct Pairs(Vec<(String, String)>);

impl Pairs {
    pub(crate) fn parse(query: &str) -> Result<Self, ApiError> {
        let decoded = |text: &str| {
            decode(&text.replace('+', " ")).ok_or_else(|| {
                ApiError::bad_request(format!("the query parameter {text:?} is badly encoded"))
            })
        };
        query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                Ok((decoded(key)?, decoded(value)?))
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        let found = self.0.iter().find(|(held, _)| held == key).map(|(_, value)| value.as_str());
        found.filter(|value| !value.is_empty())
    }

    fn flag(&self, key: &str) -> Option<bool> {
        // As upstream: a flag given without a value is set.
        let (_, value) = self.0.iter().find(|(held, _)| held == key)?;
        Some(!matches!(value.as_str(), "false" | "0"))
    }

    fn number(&self, key: &str) -> Result<Option<u64>, ApiError> {
        let parse = |text: &str| {
            text.parse().map_err(|_| ApiError::bad_request(format!("{key}: invalid number {text:?}")))
        };
        self.get(key).map(parse).transpose()
    }

    pub(crate) fn list(&self) -> Result<ListQuery, ApiError> {
        let version_match = match self.get("resourceVersionMatch") {
            None => None,
            Some("Exact") => Some(VersionMatch::Exact),
            Some("NotOlderThan") => Some(VersionMatch::NotOlderThan),
            Some(other) => {
                return Err(invalid_options(
                    "ListOptions",
                    Cause::new(
                        "FieldValueNotSupported",
                        "resourceVersionMatch",
                        format!(
                            "Unsupported value: {other:?}: supported values: \"Exact\", \"NotOlderThan\""
                        ),
                    ),
                ));
            }
        };
        let query = ListQuery {
            watch: self.flag("watch").unwrap_or(false),
            labels: Selector::labels(self.get("labelSelector").unwrap_or_default())?,
            fields: Selector::fields(self.get("fieldSelector").unwrap_or_default())?,
            resource_version: self.number("resourceVersion")?,
            version_match,
            limit: usize::try_from(self.number("limit")?.unwrap_or(0)).unwrap_or(usize::MAX),
            token: self.get("continue").unwrap_or_default().to_owned(),
            bookmarks: self.flag("allowWatchBookmarks").unwrap_or(false),
            initial_events: self.flag("sendInitialEvents"),
            timeout: self.number("timeoutSeconds")?.filter(|seconds| *seconds > 0).map(Duration::from_secs),
        };
        query.check()?;
        Ok(query)
    }

    pub(crate) fn write(&self) -> Result<WriteQuery, ApiError> {
        let dry_run = match self.get("dryRun") {
            None => false,
            Some("All") => true,
            Some(other) => {
                return Err(invalid_options(
                    "Options",
                    Cause::new(
                        "FieldValueNotSupported",
                        "dryRun",
                        format!("Unsupported value: [{other:?}]: supported values: \"All\""),
                    ),
                ));
            }
        };
        let field_validation = match self.get("fieldValidation") {
            None | Some("Warn") => FieldValidation::Warn,
            Some("Ignore") => FieldValidation::Ignore,
            Some("Strict") => FieldValidation::Strict,
            Some(other) => {
                return Err(invalid_options(
                    "Options",
                    Cause::new(
                        "FieldValueNotSupported",
                        "fieldValidation",
                        format!(
                            "Unsupported value: {other:?}: supported values: \"\", \"Ignore\", \"Strict\", \"Warn\""
                        ),
                    ),
                ));
            }
        };
        let field_manager = self.get("fieldManager").map(str::to_owned);
        if let Some(manager) = field_manager.as_ref().filter(|manager| manager.chars().count() > 128) {
            return Err(invalid_options(
                "Options",
                Cause::new(
                    "FieldValueTooLong",
                    "fieldManager",
                    format!("Too long: may not be more than 128 bytes, is {}", manager.len()),
                ),
            ));
        }
        Ok(WriteQuery { dry_run, field_manager, field_validation, force: self.flag("force") })
    }
}

impl ListQuery {
    fn check(&self) -> Result<(), ApiError> {
        let forbidden = |field, why| Err(invalid_options("ListOptions", Cause::forbidden(field, why)));
        if self.watch {
            return match (self.initial_events, self.version_match) {
                (Some(_), Some(VersionMatch::NotOlderThan)) | (None, None) => Ok(()),
                (Some(_), _) => forbidden(
                    "resourceVersionMatch",
                    "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
                ),
                (None, Some(_)) => forbidden(
                    "resourceVersionMatch",
                    "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                ),
            };
        }
        if self.initial_events.is_some() {
            return forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list");
        }
        match self.version_match {
            Some(_) if !self.token.is_empty() => forbidden(
                "resourceVersionMatch",
                "resourceVersionMatch is forbidden when continue is provided",
            ),
            Some(_) if self.resource_version.is_none() => forbidden(
                "resourceVersionMatch",
                "resourceVersionMatch is forbidden unless resourceVersion is provided",
            ),
            Some(VersionMatch::Exact) if self.resource_version == Some(0) => forbidden(
                "resourceVersionMatch",
                "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
            ),
            _ if !self.token.is_empty() && self.resource_version.is_some_and(|version| version > 0) => {
                Err(ApiError::bad_request("specifying resource version is not allowed when using continue"))
            }
            _ => Ok(()),
        }
    }
}

/// 422 about the parameters of a request.
pub(crate) fn invalid_options(kind: &str, cause: Cause) -> ApiError {
    ApiError::invalid_kind(kind, "meta.k8s.io", "", &[cause])
}
