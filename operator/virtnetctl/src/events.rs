//! Events about our objects: what was told of each, last.

use anyhow::Context;
use k8s_openapi::api::core::v1::Event;
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, Client};
use serde::Serialize;

/// One Event, or several alike that the API counts as one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Told {
    /// `metadata.uid` of the object that it is about.
    #[serde(skip)]
    pub(crate) about: String,
    /// Normal or Warning.
    #[serde(rename = "type")]
    pub(crate) type_: String,
    pub(crate) reason: String,
    pub(crate) message: String,
    /// How often.
    pub(crate) count: i32,
    /// When it was last seen.
    pub(crate) seen: Option<Timestamp>,
}

/// The Events about objects of a kind: of one namespace or of all, of one name or of all. In the order in which they were last
/// seen.
pub(crate) async fn about(
    client: &Client,
    kind: &str,
    namespace: Option<&str>,
    name: Option<&str>,
) -> anyhow::Result<Vec<Told>> {
    let api: Api<Event> = match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let list = api.list(&ListParams::default().fields(&selector(kind, name))).await;
    let mut told: Vec<_> = list.context("listing Events")?.items.into_iter().map(Told::from).collect();
    told.sort_by(|a, b| (a.seen, &a.reason, &a.message).cmp(&(b.seen, &b.reason, &b.message)));
    Ok(told)
}

/// The field selector for Events about objects of a kind, or about one of them.
pub(crate) fn selector(kind: &str, name: Option<&str>) -> String {
    let name = name.map(|name| format!(",involvedObject.name={name}")).unwrap_or_default();
    format!("involvedObject.kind={kind}{name}")
}

/// The last of those about the object of this uid.
pub(crate) fn last<'a>(told: &'a [Told], uid: Option<&str>, count: usize) -> Vec<&'a Told> {
    let mut about: Vec<_> = told.iter().filter(|told| Some(told.about.as_str()) == uid).collect();
    about.split_off(about.len().saturating_sub(count))
}

impl From<Event> for Told {
    fn from(event: Event) -> Self {
        let series = event.series.as_ref();
        let seen = series
            .and_then(|series| Some(series.last_observed_time.as_ref()?.0))
            .or_else(|| Some(event.last_timestamp.as_ref()?.0))
            .or_else(|| Some(event.event_time.as_ref()?.0))
            .or_else(|| Some(event.metadata.creation_timestamp.as_ref()?.0));
        Self {
            about: event.involved_object.uid.unwrap_or_default(),
            type_: event.type_.unwrap_or_default(),
            reason: event.reason.unwrap_or_default(),
            message: event.message.unwrap_or_default(),
            count: series.and_then(|series| series.count).or(event.count).unwrap_or(1),
            seen,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_about_an_object_are_those_of_its_uid() {
        let told = |about: &str, reason: &str| Told {
            about: about.into(),
            type_: "Normal".into(),
            reason: reason.into(),
            message: String::new(),
            count: 1,
            seen: None,
        };
        let all = [told("u", "A"), told("v", "B"), told("u", "C"), told("u", "D")];
        let reasons: Vec<_> = last(&all, Some("u"), 2).iter().map(|told| told.reason.as_str()).collect();
        assert_eq!(reasons, ["C", "D"]);
        assert!(last(&all, None, 2).is_empty());
        assert_eq!(last(&all, Some("v"), 9).len(), 1);
    }

    #[test]
    fn one_or_all_of_a_kind_are_selected() {
        assert_eq!(selector("Dpu", None), "involvedObject.kind=Dpu");
        assert_eq!(selector("Dpu", Some("a")), "involvedObject.kind=Dpu,involvedObject.name=a");
    }
}
