//! Watches that go on whatever happens to the connection, the server or the version that they are at.

use std::fmt::Debug;
use std::time::Duration;

use futures::stream::{BoxStream, Stream, StreamExt, unfold};
use kube::Api;
use kube::core::DeserializeGuard;
use kube::runtime::utils::Backoff;
use kube::runtime::{WatchStreamExt, watcher};

/// Watches all objects of a kind that `config` selects. `who` asks: waits after a failure differ from one to the next.
pub fn watch<K>(
    api: Api<DeserializeGuard<K>>,
    config: watcher::Config,
    who: &str,
) -> impl Stream<Item = watcher::Result<watcher::Event<DeserializeGuard<K>>>> + Send + use<K>
where
    K: kube::Resource + Clone + Debug + Send + Sync + serde::de::DeserializeOwned + 'static,
    K::DynamicType: Default,
{
    begun_anew(move || watcher(api.clone(), config.clone()).boxed(), who)
}

/// A watch that begins anew with a list where the API won't go on from the version that it was at. [`watcher()`] itself does
/// so when an event of the watch says that; where the request is refused with 410, it asks for that same version for ever.
pub fn begun_anew<T, B>(begin: B, who: &str) -> impl Stream<Item = watcher::Result<T>> + Send + use<T, B>
where
    T: Send + 'static,
    B: Fn() -> BoxStream<'static, watcher::Result<T>> + Send,
{
    let anew = unfold((begin(), begin), |(mut watch, begin)| async move {
        let item = watch.next().await?;
        if let Err(watcher::Error::WatchStartFailed(kube::Error::Api(status))) = &item
            && status.code == 410
        {
            watch = begin();
        }
        Some((item, (watch, begin)))
    });
    anew.backoff(Patience::of(who))
}

/// How long a cut watch waits before it is taken up again: doubling from about a second to half a minute, by a factor of
/// its own so that a fleet doesn't come back in one moment. No chance is involved: the same one waits the same.
#[derive(Debug)]
struct Patience {
    own: u32,
    attempt: u32,
}

impl Patience {
    fn of(who: &str) -> Self {
        let own =
            who.bytes().fold(0u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(u32::from(byte))) % 50;
        Self { own, attempt: 0 }
    }
}

impl Iterator for Patience {
    type Item = Duration;
    fn next(&mut self) -> Option<Duration> {
        let seconds = (1u64 << self.attempt.min(5)).min(30);
        self.attempt = self.attempt.saturating_add(1);
        Some(Duration::from_millis(seconds * u64::from(800 + 8 * self.own)))
    }
}

impl Backoff for Patience {
    fn reset(&mut self) {
        self.attempt = 0;
    }
}
