//! Kubernetes Events: told in passing, by a task of their own, so that a slow API delays nothing else.

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};
use tokio::sync::mpsc;
use tracing::{debug, warn};

use crate::words::chain;

/// Events that wait for the API at most; those beyond are dropped, and logged.
const WAITING: usize = 1024;
/// The longest note that the API takes, in bytes.
const NOTE: usize = 1024;
/// The longest action that it takes, in bytes.
const ACTION: usize = 128;

/// Takes Events from whoever has something to tell.
#[derive(Clone, Debug)]
pub struct Events {
    queue: mpsc::Sender<(Event, ObjectReference)>,
}

/// Publishes what was taken; ends when the last [`Events`] is dropped.
pub struct Publisher {
    queue: mpsc::Receiver<(Event, ObjectReference)>,
    recorder: Recorder,
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Publisher")
    }
}

/// Both ends of the queue; `instance` is which of the controllers of this name reports.
pub fn events(client: Client, controller: &str, instance: &str) -> (Events, Publisher) {
    let (sender, queue) = mpsc::channel(WAITING);
    let reporter = Reporter { controller: controller.into(), instance: Some(instance.to_owned()) };
    (Events { queue: sender }, Publisher { queue, recorder: Recorder::new(client, reporter) })
}

/// What an Event of the object with this metadata is about.
pub fn about<K: Resource<DynamicType = ()>>(metadata: &ObjectMeta) -> ObjectReference {
    ObjectReference {
        api_version: Some(K::api_version(&()).into()),
        kind: Some(K::kind(&()).into()),
        namespace: metadata.namespace.clone(),
        name: metadata.name.clone(),
        uid: metadata.uid.clone(),
        resource_version: metadata.resource_version.clone(),
        field_path: None,
    }
}

impl Events {
    /// What was done.
    pub fn normal(&self, about: ObjectReference, reason: &str, note: String) {
        self.send(EventType::Normal, about, reason, note);
    }

    /// What went wrong.
    pub fn warning(&self, about: ObjectReference, reason: &str, note: String) {
        self.send(EventType::Warning, about, reason, note);
    }

    fn send(&self, type_: EventType, about: ObjectReference, reason: &str, mut note: String) {
        cut(&mut note, NOTE);
        // Events of one action are counted as one, which keeps the first one's note: what was done names the action.
        let mut action = note.clone();
        cut(&mut action, ACTION);
        let event = Event { type_, reason: reason.to_owned(), note: Some(note), action, secondary: None };
        if self.queue.try_send((event, about)).is_err() {
            debug!("an Event was dropped: {WAITING} are waiting for the API");
        }
    }
}

/// Cuts a text to this many bytes at most.
fn cut(text: &mut String, longest: usize) {
    while text.len() > longest {
        text.pop();
    }
}

impl Publisher {
    /// Publishes until the queue is closed.
    pub async fn run(mut self) {
        while let Some((event, about)) = self.queue.recv().await {
            if let Err(error) = self.recorder.publish(&event, &about).await {
                warn!(error = chain(&error), reason = event.reason, "an Event could not be published");
            }
        }
    }
}
