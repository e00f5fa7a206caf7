//! [`Notifier`]: the sending side of [`virtnet_model::Events`].

use futures::StreamExt;
use futures::stream;
use tokio::sync::watch;
use virtnet_model::{Changed, Events};

/// Tells any number of streams that a part of the DPU changed. Changes that a stream has not yet told become one.
#[derive(Clone, Debug)]
pub struct Notifier(watch::Sender<()>);

impl Notifier {
    /// With no streams yet.
    pub fn new() -> Self {
        Self(watch::Sender::new(()))
    }

    /// Every stream will say that something changed.
    pub fn notify(&self) {
        self.0.send_replace(());
    }

    /// A stream of the changes from now on. It ends when the last clone of this notifier is dropped.
    pub fn events(&self) -> Events {
        let changes = stream::unfold(self.0.subscribe(), async |mut receiver| {
            receiver.changed().await.ok().map(|()| (Changed, receiver))
        });
        changes.boxed()
    }
}

impl Default for Notifier {
    fn default() -> Self {
        Self::new()
    }
}
