//! [`Writes`]: requests to the API that are under way, at most so many at once and one for each object, and those that failed
//! and are tried again after a while.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// How many are under way at once.
const AT_ONCE: usize = 32;
/// What failed is tried again after this long, which doubles with each failure in a row.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// The longest wait.
pub(crate) const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// Requests, each of which is a `W` and answered by a `T`.
pub(crate) struct Writes<W, T> {
    permits: Arc<Semaphore>,
    busy: BTreeMap<String, W>,
    failures: BTreeMap<String, Failure>,
    work: FuturesUnordered<BoxFuture<'static, Done<W, T>>>,
}

/// One that has ended.
pub(crate) struct Done<W, T> {
    /// Of what it was.
    pub(crate) key: String,
    pub(crate) write: W,
    pub(crate) result: kube::Result<T>,
    version: Option<String>,
}

/// One that failed.
#[derive(Debug)]
struct Failure {
    /// The version of the object for which it did; for any other one it is tried at once.
    version: Option<String>,
    again_at: Instant,
    wait: Duration,
}

impl<W, T> Default for Writes<W, T> {
    fn default() -> Self {
        Self {
            permits: Arc::new(Semaphore::new(AT_ONCE)),
            busy: BTreeMap::new(),
            failures: BTreeMap::new(),
            work: FuturesUnordered::new(),
        }
    }
}

impl<W: Clone + Send + 'static, T: 'static> Writes<W, T> {
    /// Those that are under way whose keys begin so.
    pub(crate) fn busy_of(&self, prefix: &str) -> impl Iterator<Item = (&str, &W)> {
        let busy = self.busy.range(prefix.to_owned()..);
        let busy = busy.take_while(move |(key, _)| key.starts_with(prefix));
        busy.map(|(key, write)| (key.as_str(), write))
    }

    /// Those that are under way, by what they are of.
    pub(crate) fn busy(&self) -> &BTreeMap<String, W> {
        &self.busy
    }

    /// When this version of it may be tried, where it failed lately.
    pub(crate) fn held(&self, key: &str, version: Option<&str>, now: Instant) -> Option<Instant> {
        let failure = self.failures.get(key)?;
        (failure.version.as_deref() == version && failure.again_at > now).then_some(failure.again_at)
    }

    /// All that failed lately and are not to be tried yet, whose keys begin so: each with the version for which it did, and
    /// when it may be tried.
    pub(crate) fn all_held(
        &self,
        prefix: &str,
        now: Instant,
    ) -> impl Iterator<Item = (&str, Option<&str>, Instant)> {
        let failures = self.failures.range(prefix.to_owned()..);
        let failures = failures.take_while(move |(key, _)| key.starts_with(prefix));
        let held = failures.filter(move |(_, failure)| failure.again_at > now);
        held.map(|(key, failure)| (key.as_str(), failure.version.as_deref(), failure.again_at))
    }

    /// Begins one, unless one of the same is under way.
    pub(crate) fn begin(
        &mut self,
        key: String,
        version: Option<String>,
        write: W,
        send: impl Future<Output = kube::Result<T>> + Send + 'static,
    ) {
        if self.busy.contains_key(&key) {
            return;
        }
        self.busy.insert(key.clone(), write.clone());
        let permits = Arc::clone(&self.permits);
        self.work.push(Box::pin(async move {
            let _permit = permits.acquire().await;
            let result = send.await;
            Done { key, write, result, version }
        }));
    }

    /// The next one that ends; `None`: none is under way.
    pub(crate) async fn next(&mut self) -> Option<Done<W, T>> {
        let done = self.work.next().await?;
        self.busy.remove(&done.key);
        if done.result.is_ok() {
            self.failures.remove(&done.key);
        }
        Some(done)
    }

    /// It is tried again after a while, which is the answer, or when the object is another version.
    pub(crate) fn try_again(&mut self, done: &Done<W, T>, now: Instant) -> Duration {
        let before = self.failures.get(&done.key).filter(|failure| failure.version == done.version);
        let wait = before.map_or(FIRST_RETRY, |failure| (failure.wait * 2).min(LONGEST_RETRY));
        let failure = Failure { version: done.version.clone(), again_at: now + wait, wait };
        self.failures.insert(done.key.clone(), failure);
        wait
    }

    /// Forgets the failures of what is no longer there.
    pub(crate) fn retain(&mut self, is_there: impl Fn(&str) -> bool) {
        self.failures.retain(|key, _| is_there(key));
    }
}
