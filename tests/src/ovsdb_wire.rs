//! A way to an OVSDB server on which every message is recorded.

use std::io::{BufReader, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use serde_json::Value;
use virtnet_ovsdb::Address;

/// Who sent a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// The client.
    Client,
    /// The server.
    Server,
}

type Messages = Arc<Mutex<Vec<(From, Value)>>>;

/// A socket beside the server's. It is gone with the value; connections over it last as long as their ends.
#[derive(Debug)]
pub struct Wire {
    socket: PathBuf,
    messages: Messages,
}

impl Wire {
    /// Listens at `socket`, and connects each that comes to the server at `server`, which may come and go.
    ///
    /// # Errors
    /// Where it can't listen.
    pub fn listen(socket: &Path, server: &Path) -> anyhow::Result<Self> {
        let listener =
            UnixListener::bind(socket).with_context(|| format!("listening at {}", socket.display()))?;
        let messages = Messages::default();
        let (server, recorded) = (server.to_owned(), Arc::clone(&messages));
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                // A client whose server is away is disconnected: it is dropped here.
                let Ok(server) = UnixStream::connect(&server) else { continue };
                let _ = connect(client, server, &recorded);
            }
        });
        Ok(Self { socket: socket.to_owned(), messages })
    }

    /// Where it is.
    pub fn address(&self) -> Address {
        Address::Unix(self.socket.clone())
    }

    /// What was said since this was last asked, in the order in which it passed.
    pub fn take(&self) -> Vec<(From, Value)> {
        std::mem::take(&mut *self.messages.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn connect(client: UnixStream, server: UnixStream, messages: &Messages) -> std::io::Result<()> {
    pass_on(From::Client, client.try_clone()?, server.try_clone()?, Arc::clone(messages));
    pass_on(From::Server, server, client, Arc::clone(messages));
    Ok(())
}

/// Passes messages on one way, each once it is recorded, and ends both when its source does.
fn pass_on(from: From, source: UnixStream, mut sink: UnixStream, messages: Messages) {
    std::thread::spawn(move || {
        let ends = [source.try_clone(), sink.try_clone()];
        for message in serde_json::Deserializer::from_reader(BufReader::new(source)).into_iter::<Value>() {
            let Ok(message) = message else { break };
            let bytes = message.to_string();
            messages.lock().unwrap_or_else(PoisonError::into_inner).push((from, message));
            if sink.write_all(bytes.as_bytes()).is_err() {
                break;
            }
        }
        for end in ends.into_iter().flatten() {
            let _ = end.shutdown(Shutdown::Both);
        }
    });
}

/// What a client's transactions come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transactions {
    /// How many there were.
    pub count: usize,
    /// How many were under way at once, at most.
    pub at_once: usize,
}

/// Counts the transactions among these messages.
pub fn transactions(messages: &[(From, Value)]) -> Transactions {
    let mut found = Transactions::default();
    let mut under_way = std::collections::BTreeSet::new();
    for (from, message) in messages {
        let id = message["id"].to_string();
        match from {
            // A session begins, and numbers its requests anew. What was under way in the one before is lost.
            From::Client if message["method"] == "monitor_cond_since" => under_way.clear(),
            From::Client if message["method"] == "transact" => {
                found.count += 1;
                under_way.insert(id);
                found.at_once = found.at_once.max(under_way.len());
            }
            From::Client => {}
            From::Server => {
                under_way.remove(&id);
            }
        }
    }
    found
}

/// How many rows each transaction inserts into `table`, in order.
pub fn inserted(messages: &[(From, Value)], table: &str) -> Vec<usize> {
    let transactions =
        messages.iter().filter(|(from, message)| *from == From::Client && message["method"] == "transact");
    transactions
        .map(|(_, message)| {
            let operations = message["params"].as_array().map_or(&[][..], Vec::as_slice);
            operations
                .iter()
                .filter(|operation| operation["op"] == "insert" && operation["table"] == table)
                .count()
        })
        .collect()
}

/// The rows of `table` that the server told to be gone.
pub fn deleted(messages: &[(From, Value)], table: &str) -> Vec<String> {
    let updates =
        messages.iter().filter(|(from, message)| *from == From::Server && message["method"] == "update3");
    updates
        .filter_map(|(_, message)| message["params"][2][table].as_object())
        .flatten()
        .filter(|(_, change)| change.get("delete").is_some())
        .map(|(row, _)| row.clone())
        .collect()
}
