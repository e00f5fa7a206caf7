//! [`OvsSwitch`]: Open vSwitch behind its database.

mod state;
mod transaction;

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use futures::{StreamExt, stream};
use serde_json::Value;
use tokio::sync::Mutex;
use virtnet_model::{Changed, Events, PartError, Switch, SwitchChange, SwitchState};

use crate::address::Address;
use crate::client::Client;
use crate::mirror::Mirror;
use crate::session::{Link, Replica, TransactError};
use transaction::{Transaction, plan};

/// How long ovs-vswitchd may take to act on a transaction: taking five hundred ports away is seconds.
const ACT: Duration = Duration::from_secs(60);
/// How often a transaction is planned anew because the database had changed under it.
const ATTEMPTS: usize = 5;

/// Open vSwitch, reached by its database.
#[derive(Debug)]
pub struct OvsSwitch {
    address: Address,
    client: Client,
    /// At most one transaction is in flight.
    turn: Mutex<()>,
}

impl OvsSwitch {
    /// A switch whose database is at this address. It connects by itself, and again whenever it has to; while it has not,
    /// every call is answered with [`virtnet_model::ErrorKind::Unavailable`]. Only [`Switch::observe`] waits for the end of
    /// the first attempt.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O and time.
    pub fn connect(address: Address) -> Self {
        Self { client: Client::spawn(address.clone()), address, turn: Mutex::new(()) }
    }

    fn unavailable(&self, doing: &str, why: &str) -> PartError {
        let why = if why.contains(&self.address.to_string()) {
            why.to_owned()
        } else {
            format!("{}: {why}", self.address)
        };
        PartError::unavailable(format!("{doing}: Open vSwitch's database can't be reached at {why}"))
    }

    /// The mirror, where it is what the database holds.
    fn mirror<'r>(&self, doing: &str, replica: &'r Replica) -> Result<&'r Mirror, PartError> {
        match &replica.link {
            Link::Up => Ok(&replica.mirror),
            Link::Connecting => Err(self.unavailable(doing, "not connected yet")),
            Link::Down(why) => Err(self.unavailable(doing, why)),
        }
    }

    /// Waits until ovs-vswitchd has acted on the configuration of this number.
    async fn acted_on(&self, next_cfg: i64) -> Result<(), PartError> {
        let mut replica = self.client.replica();
        let acted = async {
            let state = replica
                .wait_for(|replica| {
                    let mut rows = replica.mirror.open_vswitch.values();
                    replica.link != Link::Up || rows.any(|row| row.cur_cfg >= next_cfg)
                })
                .await;
            match state {
                Ok(replica) => self.mirror("waiting for ovs-vswitchd", &replica).map(drop),
                Err(_) => Err(PartError::unavailable("waiting for ovs-vswitchd: the client has stopped")),
            }
        };
        tokio::time::timeout(ACT, acted).await.unwrap_or_else(|_| {
            Err(PartError::failed(format!(
                "the change is in Open vSwitch's database, and ovs-vswitchd did not act on it in {} s: is it running?",
                ACT.as_secs()
            )))
        })
    }
}

/// What came of a transaction's operations.
enum Outcome {
    /// Committed; the configuration's number.
    Committed(i64),
    /// The database was not what the mirror said, as the server put it.
    Stale(String),
    /// This change can't be made, and so none was.
    Impossible(usize, PartError),
}

#[async_trait]
impl Switch for OvsSwitch {
    async fn observe(&self) -> Result<SwitchState, PartError> {
        let mut replica = self.client.replica();
        // Who asks before the first attempt has ended asks too early.
        let replica = replica.wait_for(|replica| replica.link != Link::Connecting).await;
        let replica = replica.map_err(|_| self.unavailable("observe ports", "the client has stopped"))?;
        self.mirror("observe ports", &replica).map(state::state)
    }

    async fn apply(&self, changes: &[SwitchChange]) -> Result<Vec<Result<(), PartError>>, PartError> {
        let doing = "change ports";
        let _turn = self.turn.lock().await;
        let (mut left_out, mut errors) = (BTreeSet::new(), Vec::new());
        let mut stale = 0;
        loop {
            let Transaction { operations, mut results } = {
                let replica = self.client.replica();
                let replica = replica.borrow();
                plan(self.mirror(doing, &replica)?, changes, &left_out)
            };
            let committed = if operations.is_empty() {
                None
            } else {
                let (operations, owners): (Vec<_>, Vec<_>) = operations.into_iter().unzip();
                let answer = self.client.transact(operations).await.map_err(|error| match error {
                    TransactError::NotConnected(why) => self.unavailable(doing, &why),
                    TransactError::Lost => self.unavailable(doing, &TransactError::Lost.to_string()),
                    TransactError::Refused(why) => {
                        PartError::failed(format!("{doing}: the server refused: {why}"))
                    }
                })?;
                match outcome(&answer, &owners)? {
                    Outcome::Committed(number) => Some(number),
                    Outcome::Stale(_) if stale < ATTEMPTS => {
                        stale += 1;
                        continue;
                    }
                    Outcome::Stale(said) => {
                        let why = "the database keeps changing under it";
                        return Err(PartError::failed(format!("{doing}: {why}: {said}")));
                    }
                    Outcome::Impossible(change, error) => {
                        left_out.insert(change);
                        errors.push((change, error));
                        continue;
                    }
                }
            };
            for (change, error) in errors {
                if let Some(result) = results.get_mut(change) {
                    *result = Err(error);
                }
            }
            if let Some(number) = committed {
                self.acted_on(number).await?;
            }
            return Ok(results);
        }
    }

    fn events(&self) -> Events {
        let mut replica = self.client.replica();
        replica.mark_unchanged();
        let changes = stream::unfold(replica, async |mut replica| {
            replica.changed().await.ok().map(|()| (Changed, replica))
        });
        changes.boxed()
    }
}

/// Reads the results (RFC 7047, section 4.1.3): one for each operation until one fails, `null` for those not tried, one
/// more where the commit failed.
fn outcome(results: &[Value], owners: &[Option<usize>]) -> Result<Outcome, PartError> {
    let failed =
        results.iter().enumerate().find_map(|(index, result)| Some((index, result.get("error")?.as_str()?)));
    let Some((index, error)) = failed else {
        return match Transaction::next_cfg(results) {
            Some(number) => Ok(Outcome::Committed(number)),
            None => Err(PartError::failed(
                "change ports: the database has no row Open_vSwitch: ovs-vswitchd has never run on it",
            )),
        };
    };
    let details = results.get(index).and_then(|result| result.get("details")).and_then(Value::as_str);
    let said = details.map_or_else(|| error.to_owned(), |details| format!("{error}: {details}"));
    match (error, owners.get(index)) {
        // A wait that finds something else; a name that somebody took, which the commit tells.
        ("timed out", _) | ("constraint violation" | "referential integrity violation", None) => {
            Ok(Outcome::Stale(said))
        }
        (_, Some(Some(change))) => Ok(Outcome::Impossible(
            *change,
            PartError::failed(format!("change a port: Open vSwitch refused: {said}")),
        )),
        _ => Err(PartError::failed(format!("change ports: Open vSwitch refused: {said}"))),
    }
}
