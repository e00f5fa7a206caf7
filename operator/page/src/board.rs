//! [`Board`]: what is shown now, and what of it has changed since when.
//!
//! Of each object there is the text that the page gets and no more, some hundred bytes. Each change has a number, and a reader
//! asks for what has a higher one than it has seen: so a slow reader costs nothing, and of an object that changed often it gets
//! the last state.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kube::core::DeserializeGuard;
use kube::runtime::watcher::Event;
use kube::{Resource, ResourceExt};
use serde::Serialize;
use tokio::sync::watch;
use virtnet_crds::{Dpu, VirtnetDevice};

use crate::model::{DeviceView, DpuView};

/// How many objects that are gone are remembered, for readers that know them yet. One that is further behind begins anew.
const GONE_AT_MOST: usize = 4096;
/// About how long a message may become; one object more at most.
const BYTES_AT_MOST: usize = 256 * 1024;

/// What is shown; clones share it. The one that watches the API tells it of each event.
#[derive(Clone)]
pub struct Board {
    known: Arc<Mutex<Known>>,
    /// The number of the last change, for readers that wait for the next.
    last: watch::Sender<u64>,
}

impl fmt::Debug for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Board").field("last", &*self.last.borrow()).finish_non_exhaustive()
    }
}

impl Default for Board {
    fn default() -> Self {
        Self { known: Arc::default(), last: watch::Sender::new(0) }
    }
}

/// What kind of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Dpu,
    Device,
}

/// Which object: a DPU's name, or a device's namespace and name with a slash between.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    kind: Kind,
    name: String,
}

/// The last state of an object.
#[derive(Debug)]
struct Entry {
    /// The number of its last change.
    changed: u64,
    /// Its JSON; `None`: it is gone.
    json: Option<Box<str>>,
}

#[derive(Debug, Default)]
struct Known {
    entries: BTreeMap<Key, Entry>,
    /// Each object by the number of its last change.
    changes: BTreeMap<u64, Key>,
    /// Those that are gone, by the same number.
    gone: BTreeSet<u64>,
    /// The highest number of one that is gone and was forgotten.
    forgotten: u64,
    last: u64,
    dpus: Listing,
    devices: Listing,
}

/// How far the list of a kind is.
#[derive(Debug, Default)]
struct Listing {
    /// What a list that is under way has named so far; what it does not name is gone.
    named: Option<BTreeSet<Key>>,
    /// A first list was complete.
    is_complete: bool,
}

/// How far a reader is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// It knows all changes up to this number.
    seen: u64,
    /// The number of the last change when it began. What was gone then it never knew.
    began: u64,
    /// It has been told to forget what it knew before.
    has_begun: bool,
}

/// What a reader lacks, or a first part of that.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct News {
    /// The JSON of it.
    pub(crate) json: String,
    /// There is more.
    pub(crate) more: bool,
}

impl Board {
    /// The watch of DPUs told this.
    pub fn dpu(&self, event: &Event<DeserializeGuard<Dpu>>) {
        self.hear(Kind::Dpu, event, |dpu| json(&DpuView::of(dpu)));
    }

    /// The watch of devices told this.
    pub fn device(&self, event: &Event<DeserializeGuard<VirtnetDevice>>) {
        self.hear(Kind::Device, event, |device| json(&DeviceView::of(device)));
    }

    fn hear<K: Resource>(
        &self,
        kind: Kind,
        event: &Event<DeserializeGuard<K>>,
        show: impl Fn(&K) -> Option<Box<str>>,
    ) where
        DeserializeGuard<K>: ResourceExt,
    {
        // What can't be decoded can't be shown either; the operator's log tells of it.
        let shown = |guard: &DeserializeGuard<K>| guard.0.as_ref().ok().and_then(&show);
        let mut known = self.known();
        match event {
            Event::Init => known.listing(kind).named = Some(BTreeSet::new()),
            Event::InitApply(guard) => {
                let key = Key::of(kind, guard);
                known.listing(kind).named.get_or_insert_default().insert(key.clone());
                known.put(key, shown(guard));
            }
            Event::InitDone => known.listed(kind),
            Event::Apply(guard) => known.put(Key::of(kind, guard), shown(guard)),
            Event::Delete(guard) => known.put(Key::of(kind, guard), None),
        }
        let last = known.last;
        drop(known);
        self.last.send_if_modified(|told| std::mem::replace(told, last) != last);
    }

    /// Where a new reader begins.
    pub(crate) fn start(&self) -> Place {
        Place { seen: 0, began: self.known().last, has_begun: false }
    }

    /// Ends when there may be news for who has seen all that there is.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.last.subscribe()
    }

    /// What a reader at this place lacks, of `limit` objects at most; `None`: nothing. Moves the place to behind it.
    pub(crate) fn news(&self, place: &mut Place, limit: usize) -> Option<News> {
        let known = self.known();
        let has_missed = known.forgotten > place.seen.max(place.began);
        if has_missed {
            *place = Place { seen: 0, began: known.last, has_begun: false };
        }
        if place.has_begun && place.seen == known.last {
            return None;
        }
        let (mut dpus, mut devices) = (String::new(), String::new());
        let mut changes = known.changes.range(place.seen + 1..).peekable();
        let mut left = limit;
        while let Some((number, key)) =
            changes.next_if(|_| left > 0 && dpus.len() + devices.len() < BYTES_AT_MOST)
        {
            left -= 1;
            place.seen = *number;
            let object = known.entries.get(key).and_then(|entry| entry.json.as_deref());
            let list = match key.kind {
                Kind::Dpu => &mut dpus,
                Kind::Device => &mut devices,
            };
            let name = serde_json::Value::from(key.name.as_str());
            let comma = if list.is_empty() { "" } else { "," };
            list.push_str(&format!("{comma}{name}:{}", object.unwrap_or("null")));
        }
        let more = changes.next().is_some();
        if !more {
            // That a list is complete has a number of its own, and no object.
            place.seen = known.last;
        }
        let reset = !std::mem::replace(&mut place.has_begun, true);
        let complete = known.dpus.is_complete && known.devices.is_complete;
        let json = format!(
            r#"{{"reset":{reset},"more":{more},"complete":{complete},"dpus":{{{dpus}}},"devices":{{{devices}}}}}"#
        );
        Some(News { json, more })
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Nothing that holds it can panic half-way.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Key {
    fn of(kind: Kind, object: &impl ResourceExt) -> Self {
        let name = match object.namespace() {
            Some(namespace) => format!("{namespace}/{}", object.name_any()),
            None => object.name_any(),
        };
        Self { kind, name }
    }
}

/// Of what is shown here nothing can fail to be JSON.
fn json(view: &impl Serialize) -> Option<Box<str>> {
    serde_json::to_string(view).ok().map(String::into_boxed_str)
}

impl Known {
    fn listing(&mut self, kind: Kind) -> &mut Listing {
        match kind {
            Kind::Dpu => &mut self.dpus,
            Kind::Device => &mut self.devices,
        }
    }

    /// Notes the state of an object, where that is another than before.
    fn put(&mut self, key: Key, json: Option<Box<str>>) {
        let before = self.entries.get(&key);
        if before.and_then(|entry| entry.json.as_ref()) == json.as_ref() {
            return;
        }
        if let Some(Entry { changed, .. }) = before {
            self.changes.remove(changed);
            self.gone.remove(changed);
        }
        self.last += 1;
        if json.is_none() {
            self.gone.insert(self.last);
        }
        self.changes.insert(self.last, key.clone());
        self.entries.insert(key, Entry { changed: self.last, json });
        while self.gone.len() > GONE_AT_MOST {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some(number) = self.gone.pop_first() else { return };
        if let Some(key) = self.changes.remove(&number) {
            self.entries.remove(&key);
        }
        self.forgotten = number;
    }

    /// A list is complete: what it does not name is gone.
    fn listed(&mut self, kind: Kind) {
        let named = self.listing(kind).named.take().unwrap_or_default();
        let present = self.entries.iter().filter(|(key, entry)| key.kind == kind && entry.json.is_some());
        let absent: Vec<_> =
            present.map(|(key, _)| key).filter(|key| !named.contains(*key)).cloned().collect();
        for key in absent {
            self.put(key, None);
        }
        if !std::mem::replace(&mut self.listing(kind).is_complete, true) {
            // Readers are to know.
            self.last += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn device(name: &str, dpu: &str) -> DeserializeGuard<VirtnetDevice> {
        serde_json::from_value(json!({
            "apiVersion": virtnet_crds::API_VERSION, "kind": "VirtnetDevice",
            "metadata": {"namespace": "n", "name": name},
            "spec": {"dpu": dpu, "function": {"hotplug": {}}},
        }))
        .unwrap()
    }

    fn read(board: &Board, place: &mut Place, limit: usize) -> Option<Value> {
        Some(serde_json::from_str(&board.news(place, limit)?.json).unwrap())
    }

    /// The names that a message has of devices, with whether each is there.
    fn devices(message: &Value) -> Vec<(&str, bool)> {
        let devices = message["devices"].as_object().unwrap();
        devices.iter().map(|(name, device)| (name.as_str(), !device.is_null())).collect()
    }

    #[test]
    fn a_reader_gets_what_it_lacks_and_of_each_object_the_last_state() {
        let board = Board::default();
        board.device(&Event::Apply(device("a", "x")));
        board.device(&Event::Apply(device("b", "x")));
        let mut place = board.start();
        let first = read(&board, &mut place, 10).unwrap();
        assert_eq!(
            (&first["reset"], &first["more"], &first["complete"]),
            (&true.into(), &false.into(), &false.into())
        );
        assert_eq!(devices(&first), [("n/a", true), ("n/b", true)]);
        assert_eq!(read(&board, &mut place, 10), None);

        for dpu in ["y", "z"] {
            board.device(&Event::Apply(device("a", dpu)));
        }
        board.device(&Event::Delete(device("b", "x")));
        let next = read(&board, &mut place, 10).unwrap();
        assert_eq!(next["reset"], false);
        assert_eq!(next["devices"]["n/a"]["dpu"], "z");
        assert_eq!(devices(&next), [("n/a", true), ("n/b", false)]);

        board.device(&Event::Apply(device("a", "z")));
        assert_eq!(read(&board, &mut place, 10), None, "nothing that is shown has changed");
    }

    #[test]
    fn much_is_told_in_parts() {
        let board = Board::default();
        for number in 0..25 {
            board.device(&Event::Apply(device(&format!("d{number}"), "x")));
        }
        let mut place = board.start();
        let parts: Vec<_> = std::iter::from_fn(|| read(&board, &mut place, 10)).collect();
        let shape: Vec<_> = parts
            .iter()
            .map(|part| (part["reset"] == true, part["more"] == true, devices(part).len()))
            .collect();
        assert_eq!(shape, [(true, true, 10), (false, true, 10), (false, false, 5)]);
    }

    #[test]
    fn what_a_new_list_does_not_name_is_gone_and_that_it_is_complete_is_told() {
        let board = Board::default();
        for event in [Event::Init, Event::InitApply(device("a", "x")), Event::InitApply(device("b", "x"))] {
            board.device(&event);
        }
        let mut place = board.start();
        assert_eq!(read(&board, &mut place, 10).unwrap()["complete"], false);
        board.device(&Event::InitDone);
        for event in [Event::Init, Event::InitDone] {
            board.dpu(&event);
        }
        assert_eq!(read(&board, &mut place, 10).unwrap()["complete"], true);
        for event in [Event::Init, Event::InitApply(device("b", "x")), Event::InitDone] {
            board.device(&event);
        }
        assert_eq!(devices(&read(&board, &mut place, 10).unwrap()), [("n/a", false)]);
    }

    #[test]
    fn who_is_too_far_behind_begins_anew_and_who_came_later_does_not() {
        let board = Board::default();
        board.device(&Event::Apply(device("stays", "x")));
        let mut behind = board.start();
        read(&board, &mut behind, 10).unwrap();
        for number in 0..=GONE_AT_MOST {
            board.device(&Event::Apply(device(&format!("d{number}"), "x")));
            board.device(&Event::Delete(device(&format!("d{number}"), "x")));
        }
        assert_eq!(board.known().entries.len(), GONE_AT_MOST + 1);
        assert_eq!(read(&board, &mut behind, 10).unwrap()["reset"], true);
        let mut new = board.start();
        // Its first parts are of old changes, which is no reason to begin again and again.
        let told: Vec<_> = std::iter::from_fn(|| read(&board, &mut new, 1)).collect();
        assert_eq!(told.iter().filter(|part| part["reset"] == true).count(), 1);
    }

    #[test]
    fn markup_in_an_object_stays_a_string_of_json() {
        let board = Board::default();
        let mut guard = device("a", "x");
        guard.0.as_mut().unwrap().spec.mac = Some("\"</script>\n\u{2028}data: x".to_owned());
        board.device(&Event::Apply(guard));
        let news = board.news(&mut board.start(), 10).unwrap();
        assert!(!news.json.contains('\n'), "a line would end the event");
        let message: Value = serde_json::from_str(&news.json).unwrap();
        assert_eq!(message["devices"]["n/a"]["function"]["mac"], "\"</script>\n\u{2028}data: x");
    }
}
