//! [`Client`]: a task that keeps a session with a database up, and the handle on it.

use std::error::Error;
use std::time::Duration;

use serde_json::Value;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep};
use tracing::{debug, warn};

use crate::address::Address;
use crate::session::{Link, Replica, SessionError, Transact, TransactError, run};

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(10);
/// Between the first two attempts; it doubles from one to the next, until a session has lasted.
const FIRST_WAIT: Duration = Duration::from_millis(50);
/// The longest between two attempts: a switch that is back after an hour is noticed as soon as one that is back at once. A
/// session that ends sooner has not lasted: it may have ended for what it was asked, and would again.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// A handle on the task. The task ends with the last of them.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    requests: mpsc::Sender<Transact>,
    replica: watch::Receiver<Replica>,
}

impl Client {
    /// Spawns the task, which connects by itself.
    pub(crate) fn spawn(address: Address) -> Self {
        let (requests, receiver) = mpsc::channel(1);
        let sender = watch::Sender::new(Replica::new());
        let replica = sender.subscribe();
        tokio::spawn(keep(address, receiver, sender));
        Self { requests, replica }
    }

    /// What is known of the database, and a way to be told when that changes.
    pub(crate) fn replica(&self) -> watch::Receiver<Replica> {
        self.replica.clone()
    }

    /// Makes a transaction. The answer has a result for each operation, and one more where the commit failed.
    pub(crate) async fn transact(&self, operations: Vec<Value>) -> Result<Vec<Value>, TransactError> {
        let (answer, result) = oneshot::channel();
        let gone = |_| TransactError::NotConnected("the client has stopped".to_owned());
        self.requests.send(Transact { operations, answer }).await.map_err(|_| gone(()))?;
        result.await.map_err(|_| gone(()))?
    }
}

/// Connects, and connects again, as long as somebody may ask.
async fn keep(address: Address, mut requests: mpsc::Receiver<Transact>, replica: watch::Sender<Replica>) {
    let mut wait = FIRST_WAIT;
    loop {
        let begun = Instant::now();
        let ended = tokio::select! {
            ended = connect_and_run(&address, &mut requests, &replica) => ended,
            () = replica.closed() => return,
        };
        let Err(error) = ended else { return };
        let why = format!("{address}: {}", chain(&error));
        if matches!(error, ConnectionError::Session(_)) && begun.elapsed() > LONGEST_WAIT {
            wait = FIRST_WAIT;
        }
        if wait == FIRST_WAIT {
            warn!("Open vSwitch's database can't be reached at {why}; trying again");
        } else {
            debug!("Open vSwitch's database can't be reached at {why}");
        }
        replica.send_if_modified(|replica| {
            let down = Link::Down(why.clone());
            let news = replica.link != down;
            replica.link = down;
            news
        });
        let pause = sleep(wait);
        wait = (wait * 2).min(LONGEST_WAIT);
        tokio::pin!(pause);
        loop {
            tokio::select! {
                () = &mut pause => break,
                transact = requests.recv() => match transact {
                    Some(transact) => {
                        let _ = transact.answer.send(Err(TransactError::NotConnected(why.clone())));
                    }
                    None => return,
                },
            }
        }
    }
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
enum ConnectionError {
    #[error("connecting")]
    Connect(#[source] std::io::Error),
    #[error("connecting took longer than {} s", CONNECT.as_secs())]
    TooSlow,
    #[error(transparent)]
    Session(#[from] SessionError),
}

async fn connect_and_run(
    address: &Address,
    requests: &mut mpsc::Receiver<Transact>,
    replica: &watch::Sender<Replica>,
) -> Result<(), ConnectionError> {
    match address {
        Address::Unix(path) => {
            let stream = in_time(UnixStream::connect(path)).await?;
            debug!(%address, "connected to Open vSwitch's database");
            Ok(run(stream, requests, replica).await?)
        }
        Address::Tcp { host, port } => {
            let stream = in_time(TcpStream::connect((host.as_str(), *port))).await?;
            stream.set_nodelay(true).map_err(ConnectionError::Connect)?;
            debug!(%address, "connected to Open vSwitch's database");
            Ok(run(stream, requests, replica).await?)
        }
    }
}

async fn in_time<T>(connecting: impl Future<Output = std::io::Result<T>>) -> Result<T, ConnectionError> {
    match tokio::time::timeout(CONNECT, connecting).await {
        Ok(result) => result.map_err(ConnectionError::Connect),
        Err(_) => Err(ConnectionError::TooSlow),
    }
}

/// An error with its causes on one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use futures::{SinkExt, StreamExt};
    use serde_json::json;
    use tokio::net::UnixListener;
    use tokio_util::codec::Framed;

    use super::*;
    use crate::codec::JsonCodec;

    #[tokio::test]
    async fn a_server_that_ends_each_session_at_once_is_asked_ever_more_rarely() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let client = Client::spawn(Address::Unix(path));
        let mut sessions = 0;
        let serve = async {
            loop {
                let mut server = Framed::new(listener.accept().await.unwrap().0, JsonCodec::default());
                let _monitor = server.next().await;
                let nothing = json!([false, "00000000-0000-0000-0000-000000000001", {}]);
                server.send(&json!({"id": 0, "result": nothing, "error": null})).await.unwrap();
                client.replica().wait_for(|replica| replica.link == Link::Up).await.unwrap();
                sessions += 1;
            }
        };
        tokio::time::timeout(Duration::from_secs(1), serve).await.unwrap_err();
        assert!((2..=6).contains(&sessions), "{sessions} sessions in a second");
    }
}
