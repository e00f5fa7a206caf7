//! One connection to a database: the monitor that keeps the replica, echoes, and transactions under way.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::BytesMut;
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::codec::{Encoder, FramedRead};

use crate::codec::{CodecError, JsonCodec};
use crate::message::{Message, NoMessage, refusal, reply, request};
use crate::mirror::{BadUpdate, Mirror};

/// The database's name.
const DATABASE: &str = "Open_vSwitch";
/// The name of our monitor on its connection.
const MONITOR: &str = "virtnet";
/// The last-txn-id of whoever has nothing.
const NOTHING_YET: &str = "00000000-0000-0000-0000-000000000000";
/// How long the monitor's first answer may take.
const FIRST_ANSWER: Duration = Duration::from_secs(30);
/// A server that says nothing for this long is probed, and given up after as long again.
const PROBE: Duration = Duration::from_secs(10);
/// How much may wait to be sent, 64 MiB, while the server asks and does not read the answers.
const UNSENT: usize = 64 << 20;

/// How things stand with the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    /// The first attempt is under way.
    Connecting,
    /// It is up.
    Up,
    /// There is none, for this reason.
    Down(String),
}

/// What is known of the database.
#[derive(Clone, Debug)]
pub(crate) struct Replica {
    /// Whether there is a connection, and the mirror is what the database holds.
    pub(crate) link: Link,
    /// The tables, as they were when last heard of.
    pub(crate) mirror: Mirror,
    /// The transaction up to which the mirror goes, where the server numbers them.
    last: String,
}

impl Replica {
    /// Nothing is known.
    pub(crate) fn new() -> Self {
        Self { link: Link::Connecting, mirror: Mirror::default(), last: NOTHING_YET.to_owned() }
    }
}

/// A transaction, and where its answer goes.
#[derive(Debug)]
pub(crate) struct Transact {
    /// `<operation>*`
    pub(crate) operations: Vec<Value>,
    /// The answer.
    pub(crate) answer: oneshot::Sender<Result<Vec<Value>, TransactError>>,
}

/// Why a transaction has no results.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TransactError {
    /// It was not sent.
    #[error("{0}")]
    NotConnected(String),
    /// It was sent, and the connection is gone: it may or may not have been made.
    #[error("the connection was lost before the answer came")]
    Lost,
    /// The server did not take it for a transaction.
    #[error("the server refused it: {0}")]
    Refused(String),
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionError {
    #[error("reading what the server sends")]
    Codec(#[from] CodecError),
    #[error("reading what the server sends")]
    Message(#[from] NoMessage),
    #[error("taking in an update")]
    Update(#[from] BadUpdate),
    #[error("the server closed the connection")]
    Closed,
    #[error(
        "the server refused the monitor: {0}; it must serve the database {DATABASE} of Open vSwitch 2.12 or later"
    )]
    NoMonitor(String),
    #[error("the server's {0} is not what ovsdb-server(7) describes")]
    Malformed(&'static str),
    #[error("the server said nothing for {} s", .0.as_secs())]
    Silent(Duration),
    #[error("the server does not read what it is sent")]
    NotReading,
}

/// The state of one connection.
#[derive(Debug)]
struct Session {
    replica: watch::Sender<Replica>,
    monitored: bool,
    sent: u64,
    under_way: BTreeMap<u64, oneshot::Sender<Result<Vec<Value>, TransactError>>>,
}

/// The monitor's request has the first id.
const MONITOR_ID: u64 = 0;

impl Session {
    fn new(replica: watch::Sender<Replica>) -> Self {
        Self { replica, monitored: false, sent: MONITOR_ID, under_way: BTreeMap::new() }
    }

    fn monitor(&self) -> Value {
        let params = json!([DATABASE, MONITOR, Mirror::request(), self.replica.borrow().last]);
        request(&json!(MONITOR_ID), "monitor_cond_since", &params)
    }

    fn transact(&mut self, transact: Transact) -> Value {
        self.sent += 1;
        self.under_way.insert(self.sent, transact.answer);
        let mut params = vec![json!(DATABASE)];
        params.extend(transact.operations);
        request(&json!(self.sent), "transact", &Value::Array(params))
    }

    /// Takes in what the server sent, and says what is to be sent back.
    fn take(&mut self, message: Message) -> Result<Option<Value>, SessionError> {
        match message {
            Message::Request { id, method, params } if method == "echo" => Ok(Some(reply(&id, &params))),
            Message::Request { id, .. } => Ok(Some(refusal(&id))),
            Message::Notification { method, params } if method == "update3" => {
                self.update(&params)?;
                Ok(None)
            }
            Message::Notification { .. } => Ok(None),
            Message::Response { id, result } => {
                match id.as_u64() {
                    Some(MONITOR_ID) => self.first_answer(result)?,
                    Some(id) => self.answer(id, result)?,
                    // That of a probe.
                    None => {}
                }
                Ok(None)
            }
        }
    }

    /// `[<json-value>, <last-txn-id>, <table-updates2>]`
    fn update(&mut self, params: &Value) -> Result<(), SessionError> {
        let malformed = SessionError::Malformed("update3");
        let Some([_, Value::String(last), updates]) = params.as_array().map(Vec::as_slice) else {
            return Err(malformed);
        };
        if !self.monitored {
            return Err(malformed);
        }
        self.change(|replica| {
            replica.mirror.update(updates)?;
            replica.last.clone_from(last);
            Ok(())
        })
    }

    /// `[<found>, <last-txn-id>, <table-updates2>]`
    fn first_answer(&mut self, result: Result<Value, Value>) -> Result<(), SessionError> {
        let malformed = SessionError::Malformed("answer to the monitor");
        if self.monitored {
            return Err(malformed);
        }
        let result = result.map_err(|error| SessionError::NoMonitor(error.to_string()))?;
        let Some([Value::Bool(found), Value::String(last), updates]) = result.as_array().map(Vec::as_slice)
        else {
            return Err(malformed);
        };
        self.monitored = true;
        self.change(|replica| {
            if !found {
                replica.mirror = Mirror::default();
            }
            replica.mirror.update(updates)?;
            replica.last.clone_from(last);
            replica.link = Link::Up;
            Ok(())
        })
    }

    /// Changes the replica. What is half changed is forgotten, and all of it fetched by the next session.
    fn change(
        &self,
        change: impl FnOnce(&mut Replica) -> Result<(), SessionError>,
    ) -> Result<(), SessionError> {
        let mut result = Ok(());
        self.replica.send_modify(|replica| {
            result = change(replica);
            if let Err(error) = &result {
                *replica = Replica { link: Link::Down(error.to_string()), ..Replica::new() };
            }
        });
        result
    }

    fn answer(&mut self, id: u64, result: Result<Value, Value>) -> Result<(), SessionError> {
        let malformed = SessionError::Malformed("answer to a transaction");
        let Some(answer) = self.under_way.remove(&id) else { return Err(malformed) };
        let result = match result {
            Ok(Value::Array(results)) => Ok(results),
            Ok(_) => return Err(malformed),
            Err(error) => Err(TransactError::Refused(error.to_string())),
        };
        // Whoever asked may have gone meanwhile.
        let _ = answer.send(result);
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        for (_, answer) in std::mem::take(&mut self.under_way) {
            let _ = answer.send(Err(TransactError::Lost));
        }
    }
}

/// Runs a session over a connection until it fails; `Ok`: nobody can ask for anything any more.
///
/// It reads also while it writes: a server that has much to say reads nothing until it was heard. One transaction is under way
/// at a time. A server that hangs, or has vanished without the kernel's noticing, is found out by a probe.
pub(crate) async fn run(
    stream: impl AsyncRead + AsyncWrite,
    requests: &mut mpsc::Receiver<Transact>,
    replica: &watch::Sender<Replica>,
) -> Result<(), SessionError> {
    let (reader, mut writer) = tokio::io::split(stream);
    let mut incoming = FramedRead::new(reader, JsonCodec::default());
    let (mut codec, mut unsent) = (JsonCodec::default(), BytesMut::new());
    let mut session = Session::new(replica.clone());
    codec.encode(&session.monitor(), &mut unsent)?;
    let first_answer = Instant::now() + FIRST_ANSWER;
    let mut heard = Instant::now();
    let mut probed = false;
    loop {
        let deadline = match (session.monitored, probed) {
            (false, _) => first_answer,
            (true, false) => heard + PROBE,
            (true, true) => heard + 2 * PROBE,
        };
        let may_ask = session.monitored && session.under_way.is_empty();
        tokio::select! {
            item = incoming.next() => {
                heard = Instant::now();
                probed = false;
                let item = item.ok_or(SessionError::Closed)??;
                if let Some(reply) = session.take(Message::from_value(item)?)? {
                    codec.encode(&reply, &mut unsent)?;
                    if unsent.len() > UNSENT {
                        return Err(SessionError::NotReading);
                    }
                }
            }
            written = writer.write_buf(&mut unsent), if !unsent.is_empty() => {
                if written.map_err(CodecError::Io)? == 0 {
                    return Err(SessionError::Closed);
                }
            }
            transact = requests.recv(), if may_ask => match transact {
                Some(transact) => codec.encode(&session.transact(transact), &mut unsent)?,
                None => return Ok(()),
            },
            () = sleep_until(deadline) => {
                if !session.monitored {
                    return Err(SessionError::Silent(FIRST_ANSWER));
                }
                if probed {
                    return Err(SessionError::Silent(2 * PROBE));
                }
                probed = true;
                codec.encode(&request(&json!("probe"), "echo", &json!([])), &mut unsent)?;
            }
        }
    }
}

/// Puts bytes into a session as if a server had sent them, and says whether it would go on.
#[doc(hidden)]
pub fn receive(bytes: &[u8]) -> bool {
    use tokio_util::codec::Decoder;

    let mut session = Session::new(watch::Sender::new(Replica::new()));
    let (mut codec, mut buffer) = (JsonCodec::default(), BytesMut::from(bytes));
    let mut step = || -> Result<bool, SessionError> {
        let Some(value) = codec.decode_eof(&mut buffer)? else { return Ok(false) };
        session.take(Message::from_value(value)?)?;
        Ok(true)
    };
    loop {
        match step() {
            Ok(true) => {}
            Ok(false) => return true,
            Err(_) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::SinkExt;
    use tokio::io::DuplexStream;
    use tokio_util::codec::Framed;

    use super::*;

    const ROW: &str = "550e8400-e29b-41d4-a716-446655440000";
    const TXN: &str = "11111111-2222-3333-4444-555555555555";

    fn session() -> Session {
        Session::new(watch::Sender::new(Replica::new()))
    }

    fn take(session: &mut Session, message: Value) -> Result<Option<Value>, SessionError> {
        session.take(Message::from_value(message).unwrap())
    }

    fn monitored(found: bool, updates: &Value) -> Value {
        json!({"id": 0, "result": [found, TXN, updates], "error": null})
    }

    #[test]
    fn an_echo_is_answered_and_an_unknown_request_refused() {
        let mut session = session();
        let echo = json!({"method": "echo", "params": [7], "id": "echo"});
        assert_eq!(
            take(&mut session, echo).unwrap(),
            Some(json!({"id": "echo", "result": [7], "error": null}))
        );
        let unknown = json!({"method": "locate", "params": [], "id": 3});
        assert_eq!(take(&mut session, unknown).unwrap().unwrap()["error"], json!("unknown method"));
    }

    #[test]
    fn a_server_that_has_our_transaction_sends_only_what_came_after_it() {
        let mut first = session();
        assert_eq!(first.monitor()["params"][3], json!(NOTHING_YET));
        take(&mut first, monitored(false, &json!({"Port": {ROW: {"initial": {"name": "p"}}}}))).unwrap();
        assert_eq!(first.replica.borrow().link, Link::Up);
        let mut second = Session::new(first.replica.clone());
        assert_eq!(second.monitor()["params"][3], json!(TXN));
        take(&mut second, monitored(true, &json!({"Port": {ROW: {"modify": {"tag": 7}}}}))).unwrap();
        let replica = second.replica.borrow().clone();
        assert_eq!(replica.mirror.ports.values().next().map(|port| port.tag), Some(Some(7)));
        let mut third = Session::new(second.replica.clone());
        take(&mut third, monitored(false, &json!({}))).unwrap();
        assert!(third.replica.borrow().mirror.ports.is_empty(), "the database was replaced");
    }

    #[test]
    fn an_update_that_makes_no_sense_makes_everything_be_fetched_anew() {
        let mut session = session();
        take(&mut session, monitored(false, &json!({"Port": {ROW: {"initial": {"name": "p"}}}}))).unwrap();
        let update = json!(["virtnet", TXN, {"Port": {TXN: {"delete": null}}}]);
        let update = json!({"method": "update3", "params": update, "id": null});
        assert!(take(&mut session, update).is_err());
        assert!(matches!(session.replica.borrow().link, Link::Down(_)));
        assert_eq!(Session::new(session.replica.clone()).monitor()["params"][3], json!(NOTHING_YET));
    }

    #[test]
    fn what_nobody_asked_for_ends_the_session() {
        for message in [
            json!({"id": 5, "result": [], "error": null}),
            json!({"id": 0, "result": null, "error": "unknown method"}),
            json!({"id": 0, "result": {}, "error": null}),
            json!({"method": "update3", "params": ["virtnet", TXN, {}], "id": null}),
        ] {
            assert!(take(&mut session(), message.clone()).is_err(), "{message}");
        }
    }

    #[test]
    fn transactions_end_with_their_connection() {
        let mut session = session();
        let (answer, mut result) = oneshot::channel();
        let request = session.transact(Transact { operations: vec![json!({"op": "comment"})], answer });
        assert_eq!(request["params"], json!(["Open_vSwitch", {"op": "comment"}]));
        drop(session);
        assert_eq!(result.try_recv().unwrap(), Err(TransactError::Lost));
    }

    /// The server's end of a session, and the session.
    fn connected(
        buffer: usize,
    ) -> (Framed<DuplexStream, JsonCodec>, mpsc::Sender<Transact>, impl Future<Output = SessionError>) {
        let (ours, theirs) = tokio::io::duplex(buffer);
        let (requests, mut receiver) = mpsc::channel(1);
        let session = async move {
            let replica = watch::Sender::new(Replica::new());
            run(ours, &mut receiver, &replica).await.unwrap_err()
        };
        (Framed::new(theirs, JsonCodec::default()), requests, session)
    }

    async fn answer_the_monitor(server: &mut Framed<DuplexStream, JsonCodec>) {
        assert_eq!(server.next().await.unwrap().unwrap()["method"], json!("monitor_cond_since"));
        server.send(&monitored(false, &json!({}))).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_says_nothing_is_given_up() {
        let (_server, _requests, session) = connected(1 << 16);
        let error = session.await;
        assert!(error.to_string().contains("nothing for 30 s"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_is_probed_and_one_that_does_not_answer_is_given_up() {
        let (mut server, _requests, session) = connected(1 << 16);
        let server = async {
            answer_the_monitor(&mut server).await;
            let probe = server.next().await.unwrap().unwrap();
            assert_eq!(probe["method"], json!("echo"));
            server.send(&reply(&probe["id"], &json!([]))).await.unwrap();
            // Then it hangs.
            assert_eq!(server.next().await.unwrap().unwrap()["method"], json!("echo"));
            server.next().await
        };
        let started = Instant::now();
        let session = async {
            let error = session.await;
            assert_eq!(started.elapsed(), 3 * PROBE);
            error
        };
        let (error, _) = tokio::join!(session, server);
        assert!(error.to_string().contains("nothing for 20 s"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_hangs_over_a_transaction_is_given_up_and_the_next_one_waits() {
        let (mut server, requests, session) = connected(1 << 16);
        let asking = |name: &'static str| {
            let (answer, result) = oneshot::channel();
            (Transact { operations: vec![json!({"op": "comment", "comment": name})], answer }, result)
        };
        let server = async {
            answer_the_monitor(&mut server).await;
            assert_eq!(server.next().await.unwrap().unwrap()["params"][1]["comment"], json!("first"));
            assert_eq!(server.next().await.unwrap().unwrap()["method"], json!("echo"));
            assert!(server.next().await.is_none(), "the second was sent while the first was under way");
        };
        let (first, lost) = asking("first");
        let (second, unsent) = asking("second");
        let ask = async {
            requests.send(first).await.unwrap();
            requests.send(second).await.unwrap();
            assert_eq!(lost.await.unwrap(), Err(TransactError::Lost));
        };
        tokio::join!(session, server, ask);
        assert!(unsent.await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_reads_nothing_until_it_was_heard_is_heard() {
        let (mut server, requests, session) = connected(64);
        let (answer, result) = oneshot::channel();
        let long = json!({"op": "comment", "comment": "x".repeat(10_000)});
        let server = async {
            answer_the_monitor(&mut server).await;
            // Until this was read on the other side nothing is read here.
            let update = json!(["virtnet", TXN, {"Port": {ROW: {"initial": {"name": "y".repeat(10_000)}}}}]);
            let update = json!({"method": "update3", "params": update, "id": null});
            server.send(&update).await.unwrap();
            let request = server.next().await.unwrap().unwrap();
            server.send(&reply(&request["id"], &json!([{}]))).await.unwrap();
            server
        };
        let ask = async {
            requests.send(Transact { operations: vec![long], answer }).await.unwrap();
            result.await.unwrap()
        };
        let done = async { tokio::join!(server, ask) };
        let done = tokio::time::timeout(PROBE, done);
        let error = tokio::select! {
            error = session => error,
            done = done => {
                assert_eq!(done.unwrap().1, Ok(vec![json!({})]));
                return;
            }
        };
        panic!("{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_asks_and_never_reads_is_given_up() {
        let (mut server, _requests, session) = connected(1 << 10);
        let server = async {
            answer_the_monitor(&mut server).await;
            let long = "x".repeat(1 << 20);
            while server.send(&json!({"method": "echo", "params": [long], "id": "echo"})).await.is_ok() {}
        };
        let (error, ()) = tokio::join!(session, server);
        assert!(error.to_string().contains("does not read"), "{error}");
    }
}
