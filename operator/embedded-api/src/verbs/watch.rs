//! Watches: what is there (where asked for), and from then on every change, until the client has enough.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, Stream};
use http::Response;
use serde_json::{Value, json};
use tokio::sync::watch::Receiver;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::content::Shape;
use crate::query::ListQuery;
use crate::reply::{self, Body};
use crate::selectors::Selector;
use crate::status::ApiError;
use crate::store::{After, Change, Store};
use crate::table::{self, Include};
use crate::verbs::{Request, list};
use crate::{events, object};

/// How long a watch lasts that names no time.
const LIFETIME: Duration = Duration::from_secs(3600);
/// The longest that one may ask for: a year, beyond which nothing tells the difference.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);
/// How often a client that takes bookmarks gets one.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);

/// Watches a collection, or one object of it.
pub(crate) fn collection(request: &Request, name: Option<&str>) -> Result<Response<Body>, ApiError> {
    let mut query = request.call.pairs.list()?;
    query.fields.check_fields(&request.resource)?;
    if let Some(name) = name {
        query.fields = Selector::fields(&format!("metadata.name={name}"))?;
    }
    let include = request.include()?;
    let watcher = Watcher::start(request, query, include)?;
    Ok(reply::stream(watcher.into_stream()))
}

struct Watcher {
    view: View,
    store: Arc<Store>,
    news: Receiver<u64>,
    stop: CancellationToken,
    /// All changes up to this revision were looked at.
    seen: u64,
    ready: VecDeque<Value>,
    bookmark_at: Instant,
    end_at: Instant,
    ended: bool,
}

/// How this watch selects and shows objects.
struct View {
    request: Request,
    query: ListQuery,
    include: Include,
    headed: bool,
}

impl Watcher {
    fn start(request: &Request, query: ListQuery, include: Include) -> Result<Self, ApiError> {
        let store = Arc::clone(&request.core.store);
        let news = store.subscribe();
        let start = Instant::now();
        let end_at = start + query.timeout.unwrap_or(LIFETIME).min(LONGEST);
        let view = View { request: request.clone(), query, include, headed: true };
        let mut watcher = Self {
            view,
            store,
            news,
            stop: request.core.writer.stopping().clone(),
            seen: 0,
            ready: VecDeque::new(),
            bookmark_at: start + BOOKMARK_INTERVAL,
            end_at,
            ended: false,
        };
        watcher.begin()?;
        Ok(watcher)
    }

    /// Works out where to begin: with the present objects, or at a revision.
    fn begin(&mut self) -> Result<(), ApiError> {
        let query = &self.view.query;
        let from = query.resource_version.unwrap_or(0);
        let initial = query.initial_events.unwrap_or(from == 0);
        let current = self.store.read(crate::store::State::revision);
        if !initial {
            self.seen = if from == 0 { current } else { from };
            if from > current {
                // A version of another life of this server: whoever holds it must list anew.
                self.ready.push_back(error_event(&ApiError::expired(format!(
                    "too large resource version: {from} ({current})"
                ))));
                self.ended = true;
            }
            return Ok(());
        }
        if from > current {
            return Err(ApiError::version_too_large(from, current));
        }
        let present =
            ListQuery { resource_version: None, version_match: None, limit: 0, ..self.view.query.clone() };
        let selected = list::select(&self.view.request, &present, None)?;
        self.seen = selected.revision;
        for one in &selected.objects {
            let event = self.view.event("ADDED", one.value.clone());
            self.ready.push_back(event);
        }
        if self.view.query.initial_events == Some(true) && self.view.query.bookmarks {
            let event = self.view.bookmark(selected.revision, true);
            self.ready.push_back(event);
        }
        Ok(())
    }

    fn into_stream(self) -> impl Stream<Item = Value> + Send + 'static {
        stream::unfold(self, |mut watcher| async move {
            let event = watcher.next().await?;
            Some((event, watcher))
        })
    }

    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.ended {
                return None;
            }
            self.news.mark_unchanged();
            self.catch_up();
            if !self.ready.is_empty() || self.ended {
                continue;
            }
            let bookmarks = self.view.query.bookmarks;
            tokio::select! {
                biased;
                () = self.stop.cancelled() => self.ended = true,
                news = self.news.changed() => self.ended = news.is_err(),
                () = sleep_until(self.end_at) => self.ended = true,
                () = sleep_until(self.bookmark_at), if bookmarks => {
                    self.bookmark_at += BOOKMARK_INTERVAL;
                    let event = self.view.bookmark(self.seen, false);
                    self.ready.push_back(event);
                }
            }
        }
    }

    /// Turns what happened since the last look into events.
    fn catch_up(&mut self) {
        let storage = &self.view.request.resource.storage;
        let (changes, revision) =
            self.store.read(|state| (state.changes(storage, self.seen), state.revision()));
        match changes {
            Ok(changes) => {
                for change in changes {
                    let event = self.view.change(&change);
                    self.ready.extend(event);
                }
                self.seen = self.seen.max(revision);
            }
            Err(oldest) => {
                let why = format!("too old resource version: {} ({oldest})", self.seen);
                self.ready.push_back(error_event(&ApiError::expired(why)));
                self.ended = true;
            }
        }
    }
}

impl View {
    /// The event that a change is to this watch: objects move in and out of a selection.
    fn change(&mut self, change: &Change) -> Option<Value> {
        let namespace = &self.request.namespace;
        if !namespace.is_empty() && change.key.namespace != *namespace {
            return None;
        }
        let selects = |value: &Value| list::matches(&self.request, &self.query, value);
        let was = change.before.as_ref().is_some_and(|before| selects(&before.value));
        match &change.after {
            After::Stored(now) => match (was, selects(&now.value)) {
                (false, true) => Some(self.event("ADDED", now.value.clone())),
                (true, true) => Some(self.event("MODIFIED", now.value.clone())),
                (true, false) => {
                    let mut last = change.before.as_ref()?.value.clone();
                    object::set_resource_version(&mut last, change.revision);
                    Some(self.event("DELETED", last))
                }
                (false, false) => None,
            },
            After::Gone(last) => was.then(|| self.event("DELETED", last.value.clone())),
        }
    }

    fn event(&mut self, kind: &str, stored: Value) -> Value {
        let value = events::from_stored(&self.request.resource, stored);
        let object = match self.request.call.shape {
            Shape::Plain | Shape::Discovery => value,
            Shape::Metadata => table::partial(&value),
            Shape::Table => {
                let headed = std::mem::replace(&mut self.headed, false);
                let metadata = json!({ "resourceVersion": object::resource_version(&value) });
                let now = self.request.core.clock.now();
                table::table(&self.request.resource, &[value], &metadata, self.include, headed, now)
            }
        };
        json!({ "type": kind, "object": object })
    }

    /// Says up to where the client has seen everything.
    fn bookmark(&mut self, revision: u64, initial: bool) -> Value {
        let mut metadata = json!({ "resourceVersion": revision.to_string() });
        if initial {
            metadata["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
        }
        let resource = &self.request.resource;
        let object = match self.request.call.shape {
            Shape::Plain | Shape::Discovery => {
                json!({ "kind": resource.kind, "apiVersion": resource.api_version(), "metadata": metadata })
            }
            Shape::Metadata => {
                json!({ "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata })
            }
            Shape::Table => {
                let now = self.request.core.clock.now();
                table::table(resource, &[], &metadata, self.include, false, now)
            }
        };
        json!({ "type": "BOOKMARK", "object": object })
    }
}

fn error_event(error: &ApiError) -> Value {
    json!({ "type": "ERROR", "object": error.to_value() })
}
