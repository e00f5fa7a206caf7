//! A reader's stream of server-sent events: what it lacks, when it can take it.
//!
//! The stream is asked for its next piece only while the connection takes more, so what a slow reader has not fetched is kept
//! nowhere, and the piece that it gets at last is of the present state.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use futures::stream::unfold;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, sleep_until, timeout};

use crate::board::{Board, Place};

/// Changes are told at most so often, together.
const PACE: Duration = Duration::from_secs(1);
/// A reader hears something so often at least, so that it notices where the connection is lost.
const BEAT: Duration = Duration::from_secs(15);
/// One message is of so many objects at most: of devices a hundred kilobytes, about.
const OBJECTS_AT_MOST: usize = 200;

/// How far one reader is.
struct Reader {
    board: Board,
    changes: watch::Receiver<u64>,
    place: Place,
    /// When it may be told of changes again.
    next: Instant,
    /// One of so many readers; given back with the stream.
    _permit: OwnedSemaphorePermit,
}

/// The events for a new reader: first all that there is, then what changes.
pub(crate) fn events(
    board: Board,
    permit: OwnedSemaphorePermit,
) -> impl Stream<Item = Result<Bytes, Infallible>> + Send {
    let (changes, place) = (board.changes(), board.start());
    let reader = Reader { board, changes, place, next: Instant::now(), _permit: permit };
    unfold(reader, async |mut reader| {
        let event = reader.next().await;
        Some((Ok(event), reader))
    })
}

impl Reader {
    async fn next(&mut self) -> Bytes {
        let heard = Instant::now();
        loop {
            sleep_until(self.next).await;
            // What changes from here on wakes it again.
            self.changes.mark_unchanged();
            if let Some(news) = self.board.news(&mut self.place, OBJECTS_AT_MOST) {
                if !news.more {
                    self.next = Instant::now() + PACE;
                }
                return format!("event: change\ndata: {}\n\n", news.json).into();
            }
            let rest = BEAT.saturating_sub(heard.elapsed());
            // The board outlives its readers, so there is no other end to waiting.
            if timeout(rest, self.changes.changed()).await.is_err() {
                return Bytes::from_static(b"event: beat\ndata:\n\n");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::Arc;

    use futures::StreamExt;
    use kube::core::DeserializeGuard;
    use kube::runtime::watcher::Event;
    use serde_json::json;
    use tokio::sync::Semaphore;
    use virtnet_crds::Dpu;

    use super::*;

    fn dpu(name: &str) -> Event<DeserializeGuard<Dpu>> {
        let object = json!({
            "apiVersion": virtnet_crds::API_VERSION, "kind": "Dpu", "metadata": {"name": name}, "spec": {},
        });
        Event::Apply(serde_json::from_value(object).unwrap())
    }

    async fn open(board: &Board) -> impl Stream<Item = String> {
        let permit = Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap();
        events(board.clone(), permit).map(|piece| String::from_utf8(piece.unwrap().to_vec()).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn changes_are_told_together_once_a_second_and_silence_by_beats() {
        let board = Board::default();
        board.dpu(&dpu("a"));
        let mut events = pin!(open(&board).await);
        let first = events.next().await.unwrap();
        assert!(
            first.starts_with("event: change\ndata: {\"reset\":true,") && first.ends_with("}\n\n"),
            "{first}"
        );

        let begun = Instant::now();
        let mut pieces = 0;
        let changing = async {
            for number in 0..1000 {
                board.dpu(&dpu(&format!("d{number}")));
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let reading = async {
            loop {
                let piece = events.next().await.unwrap();
                if piece.starts_with("event: beat\n") {
                    return begun.elapsed();
                }
                pieces += 1;
            }
        };
        let ((), silent) = futures::join!(changing, reading);
        assert!((9..=11).contains(&pieces), "{pieces}");
        assert!((24..=27).contains(&silent.as_secs()), "{silent:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_read_for_long_gets_the_last_state_once() {
        let board = Board::default();
        let mut events = pin!(open(&board).await);
        events.next().await.unwrap();
        for _ in 0..1000 {
            board.dpu(&dpu("a"));
            board.dpu(&Event::Delete(match dpu("a") {
                Event::Apply(guard) => guard,
                _ => unreachable!(),
            }));
        }
        board.dpu(&dpu("b"));
        let piece = events.next().await.unwrap();
        assert!(piece.contains(r#""dpus":{"a":null,"b":{"#), "{piece}");
        let next = events.next().await.unwrap();
        assert!(next.starts_with("event: beat"), "{next}");
    }
}
