//! [`Bus`]: the handle on a host, and what its task and its operations share.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use virtnet_controller::{Place, Settings};
use virtnet_qmp::Qmp;

use crate::config::{Backend, ConfigError, HostConfig};
use crate::observe::{ObserveError, observe};
use crate::operate::{self, BusError};
use crate::state::{BusEvent, HostState, Seen, changes};
use crate::{follow, plan};

/// The PCIe bus of a guest. Dropped, nothing in the guest changes; operations that were begun come to their end, and with the last
/// of them its task.
#[derive(Debug)]
pub struct Bus {
    shared: Arc<Shared>,
    task: Arc<Task>,
}

/// The task that has the connection and takes its events, by which an operation learns what has come of it. It is aborted once
/// neither a bus nor an operation needs it.
#[derive(Debug)]
struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A host's state, and every change after it.
#[derive(Debug)]
pub struct BusWatch {
    /// The state when the watch began.
    pub state: HostState,
    /// What changed since, in order and without a gap.
    pub events: mpsc::UnboundedReceiver<BusEvent>,
}

impl Bus {
    /// Begins to look after a host, whether or not it runs yet.
    ///
    /// # Errors
    /// Where the configuration can't be meant.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(config: HostConfig) -> Result<Self, ConfigError> {
        config.check()?;
        let shared = Arc::new(Shared::new(config));
        let task = tokio::spawn(follow::follow(Arc::clone(&shared))).abort_handle();
        Ok(Self { shared, task: Arc::new(Task(task)) })
    }

    /// What is known now, and a way to wait for it to be something else.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<HostState> {
        self.shared.state.subscribe()
    }

    /// What is known now, and every change that follows.
    #[must_use]
    pub fn watch(&self) -> BusWatch {
        let (tell, events) = mpsc::unbounded_channel();
        let mut watchers = lock(&self.shared.watchers);
        watchers.push(tell);
        BusWatch { state: self.shared.state.borrow().clone(), events }
    }

    /// Has everything looked at anew: of what a back end sees of its driver, and of nothing else, QEMU says nothing.
    pub fn look(&self) {
        self.shared.look.notify_one();
    }

    /// Plugs a function into a slot that is free, with its link `up` or down (a link that is down is up for the moment between two
    /// commands). Returns what was read back. The guest's driver may take it at once or never.
    ///
    /// # Errors
    /// Where it was not plugged: nothing of it is left then, or, where QEMU can't be asked any more, nothing of it will be once it can.
    pub async fn plug(
        &self,
        slot: u16,
        settings: &Settings,
        backend: &Backend,
        up: bool,
    ) -> Result<Seen, BusError> {
        let shared = Arc::clone(&self.shared);
        let (settings, backend) = (settings.clone(), backend.clone());
        self.to_its_end(async move { operate::plug(&shared, slot, &settings, &backend, up).await }).await
    }

    /// Takes the function out of a slot: asks the guest, again and again, and waits until it has let go. Meanwhile
    /// [`Seen::unplugging`] tells how that goes. A slot that is empty is left so.
    ///
    /// # Errors
    /// Where the function is another's, or is there still after `patience`. The guest may let go of it later all the same, which
    /// [`Bus::watch`] tells, and then what was behind it is removed too.
    pub async fn unplug(&self, slot: u16, patience: Duration) -> Result<(), BusError> {
        let shared = Arc::clone(&self.shared);
        self.to_its_end(async move { operate::unplug(&shared, slot, patience).await }).await
    }

    /// Takes the function out of a slot and plugs one with other settings: QEMU fixes MAC, MTU, queues, features and vectors when a
    /// device is made. Nothing is taken out for settings that no function can have.
    ///
    /// # Errors
    /// Those of [`Bus::unplug`] and [`Bus::plug`]; after one of the latter the slot is empty.
    pub async fn replace(
        &self,
        slot: u16,
        settings: &Settings,
        backend: &Backend,
        up: bool,
        patience: Duration,
    ) -> Result<Seen, BusError> {
        let shared = Arc::clone(&self.shared);
        let (settings, backend) = (settings.clone(), backend.clone());
        self.to_its_end(
            async move { operate::replace(&shared, slot, &settings, &backend, up, patience).await },
        )
        .await
    }

    /// Whether a slot can have a function with these settings; nothing is done.
    ///
    /// # Errors
    /// Where there is no such slot, or QEMU can't present such a function.
    pub fn fits(&self, slot: u16, settings: &Settings, backend: &Backend) -> Result<(), BusError> {
        let port = self.shared.config.slots.get(&slot).ok_or(BusError::NoSuchSlot(slot))?;
        Ok(plan::plug(slot, port, settings, backend, true).map(drop)?)
    }

    /// Sets the link that the driver of a function sees.
    ///
    /// # Errors
    /// Where there is no such function, or QEMU refuses.
    pub async fn set_link(&self, place: Place, up: bool) -> Result<(), BusError> {
        let shared = Arc::clone(&self.shared);
        self.to_its_end(async move { operate::set_link(&shared, place, up).await }).await
    }

    /// Runs an operation in a task of its own: half of one is worse than one that nobody waits for.
    async fn to_its_end<T: Send + 'static>(
        &self,
        operation: impl Future<Output = Result<T, BusError>> + Send + 'static,
    ) -> Result<T, BusError> {
        let task = Arc::clone(&self.task);
        let whole = async move {
            let done = operation.await;
            drop(task);
            done
        };
        tokio::spawn(whole).await.unwrap_or_else(|ended| match ended.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime ends.
            Err(_) => Err(BusError::Ended),
        })
    }
}

/// What the task and the operations share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: HostConfig,
    pub(crate) state: watch::Sender<HostState>,
    pub(crate) look: tokio::sync::Notify,
    watchers: Mutex<Vec<mpsc::UnboundedSender<BusEvent>>>,
    /// The connection in use.
    qmp: Mutex<Option<Qmp>>,
    /// One observation after the other, so that the last one to begin is the last one to be taken.
    observing: tokio::sync::Mutex<()>,
    /// One operation at a time on each slot.
    slots: BTreeMap<u16, tokio::sync::Mutex<()>>,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn new(config: HostConfig) -> Self {
        Self {
            state: watch::Sender::new(HostState::new()),
            look: tokio::sync::Notify::new(),
            watchers: Mutex::new(Vec::new()),
            qmp: Mutex::new(None),
            observing: tokio::sync::Mutex::new(()),
            slots: config.slots.keys().map(|slot| (*slot, tokio::sync::Mutex::new(()))).collect(),
            config,
        }
    }

    /// The connection.
    pub(crate) fn qmp(&self) -> Result<Qmp, BusError> {
        lock(&self.qmp).clone().ok_or_else(|| BusError::Down(self.state.borrow().connection.to_string()))
    }

    /// Uses another connection from now on, or none.
    pub(crate) fn connection(&self, qmp: Option<Qmp>) {
        *lock(&self.qmp) = qmp;
    }

    /// The right to change a slot.
    pub(crate) fn slot(&self, slot: u16) -> Result<&tokio::sync::Mutex<()>, BusError> {
        self.slots.get(&slot).ok_or(BusError::NoSuchSlot(slot))
    }

    /// Changes what is known, and tells whoever watches what that changed.
    pub(crate) fn update(&self, change: impl FnOnce(&mut HostState)) {
        let mut watchers = lock(&self.watchers);
        self.state.send_if_modified(|state| {
            let old = state.clone();
            change(state);
            let news = changes(&old, state);
            watchers.retain(|watcher| news.iter().all(|event| watcher.send(event.clone()).is_ok()));
            !news.is_empty()
        });
    }

    /// Observes, and knows it. What was left behind in slots on which nothing is under way is removed.
    pub(crate) async fn observe(&self) -> Result<(), BusError> {
        let qmp = self.qmp()?;
        let left_behind = self.observe_with(&qmp).await?;
        for slot in left_behind {
            // Whoever has the slot removes it.
            let Ok(_changing) = self.slot(slot)?.try_lock() else { continue };
            // A plug that was under way when this was observed may have come to its end since: what it left is a function's.
            if self.observe_with(&qmp).await?.contains(&slot) {
                operate::clear(&qmp, slot).await?;
            }
        }
        Ok(())
    }

    /// Observes, and knows it. The slots in which something was left behind.
    pub(crate) async fn observe_with(
        &self,
        qmp: &Qmp,
    ) -> Result<std::collections::BTreeSet<u16>, ObserveError> {
        let _in_order = self.observing.lock().await;
        let found = observe(qmp, &self.config).await?;
        let current = lock(&self.qmp);
        // Of a connection that has ended since this is no news.
        if current.as_ref().is_some_and(|current| current.is_of(qmp)) {
            self.update(|state| state.observed(qmp.version(), found.functions));
        }
        Ok(found.left_behind)
    }

    /// The id of the device that is made for a slot.
    pub(crate) fn device(slot: u16) -> String {
        plan::Names::of(slot).device
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::{Value, json};
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    use tokio::net::{UnixListener, UnixStream};
    use tokio::sync::mpsc;
    use tokio::time::timeout;

    use super::*;
    use crate::plan::tests::settings;
    use crate::state::Connection;

    const LIMIT: Duration = Duration::from_secs(20);
    const GREETING: &str =
        r#"{"QMP": {"version": {"qemu": {"micro": 3, "minor": 1, "major": 11}}, "capabilities": []}}"#;

    fn config(socket: &Path) -> HostConfig {
        let slots = [(0, "rp0".to_owned()), (1, "rp1".to_owned())].into();
        HostConfig { qmp: socket.into(), slots, static_pfs: [].into(), trace: None }
    }

    /// A QEMU of the test's own on a socket: it answers commands one after the other, and ends with its connection.
    async fn qemu(stream: UnixStream, mut answer: impl FnMut(&str, &Value) -> Value) {
        let (input, mut output) = stream.into_split();
        let mut lines = BufReader::new(input).lines();
        output.write_all(format!("{GREETING}\n").as_bytes()).await.unwrap();
        while let Ok(Some(line)) = lines.next_line().await {
            let asked: Value = serde_json::from_str(&line).unwrap();
            let result = answer(asked["execute"].as_str().unwrap(), &asked["arguments"]);
            let answer = json!({"return": result, "id": asked["id"]});
            if output.write_all(format!("{answer}\n").as_bytes()).await.is_err() {
                return;
            }
        }
    }

    fn chardevs(labels: &[&str]) -> Value {
        labels.iter().map(|label| json!({"label": label, "filename": "", "frontend-open": true})).collect()
    }

    #[tokio::test]
    async fn what_is_behind_a_function_that_has_just_come_is_not_taken_for_left_behind() {
        let shared = Arc::new(Shared::new(config(Path::new("/q"))));
        let (here, there) = UnixStream::pair().unwrap();
        let (told, mut commands) = mpsc::unbounded_channel();
        let of_qemu = Arc::clone(&shared);
        tokio::spawn(async move {
            let (mut whole, mut observed) = (false, false);
            // A plug has slot 1, and is as far as its connection when slots are observed.
            let mut plug = Some(of_qemu.slot(1).unwrap().try_lock().unwrap());
            qemu(there, |command, arguments| {
                let _ = told.send(format!("{command} {arguments}"));
                observed |= command == "query-pci";
                match command {
                    "query-chardev" if observed && !whole => {
                        // While what is left behind in slot 0 is seen to, that plug comes to its end.
                        whole = true;
                        plug.take();
                        chardevs(&["virtnet-s0-chr", "virtnet-s1-chr"])
                    }
                    "query-chardev" => chardevs(&["virtnet-s0-chr", "virtnet-s1-chr"]),
                    "qom-list" if whole && arguments["path"] == "/machine/peripheral" => {
                        json!([{"name": "virtnet-s1", "type": "child<virtio-net-pci>"}])
                    }
                    "qom-get" if arguments["property"] == "parent_bus" => {
                        json!("/machine/peripheral/rp1/rp1")
                    }
                    "qom-list" | "query-pci" | "query-rx-filter" => json!([]),
                    _ => json!({}),
                }
            })
            .await;
        });
        let (qmp, _events) = Qmp::greeted(here).await.unwrap();
        shared.connection(Some(qmp));
        timeout(LIMIT, shared.observe()).await.unwrap().unwrap();
        let mut removed = Vec::new();
        while let Ok(command) = commands.try_recv() {
            if command.starts_with("netdev_del") || command.starts_with("chardev-remove") {
                removed.push(command);
            }
        }
        let of_slot_0 =
            [r#"netdev_del {"id":"virtnet-s0-net"}"#, r#"chardev-remove {"id":"virtnet-s0-chr"}"#];
        assert_eq!(removed, of_slot_0);
    }
    #[tokio::test]
    async fn an_operation_comes_to_its_end_without_its_bus() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("qmp");
        let listener = UnixListener::bind(&socket).unwrap();
        let (told, mut commands) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            qemu(stream, |command, _| {
                let _ = told.send(command.to_owned());
                if command.starts_with("qu") || command == "qom-list" { json!([]) } else { json!({}) }
            })
            .await;
        });
        let mut until = async |wanted: &str| {
            let until = async { while commands.recv().await.expect("QEMU is asked") != wanted {} };
            timeout(LIMIT, until).await.unwrap();
        };
        let bus = Bus::start(config(&socket)).unwrap();
        let mut state = bus.state();
        let up = state.wait_for(|state| matches!(state.connection, Connection::Up { .. }));
        timeout(LIMIT, up).await.unwrap().unwrap();
        let backend = Backend { socket: folder.path().join("s0"), reconnect: None };
        let settings = settings();
        tokio::select! {
            biased;
            () = until("chardev-add") => {}
            plugged = bus.plug(0, &settings, &backend, true) => panic!("{plugged:?}"),
        }
        drop(bus);
        until("device_add").await;
    }
}
