//! One option of Open vSwitch, asked for once: [`userspace_tso`].

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::timeout;
use virtnet_model::PartError;

use crate::address::Address;
use crate::client::Client;
use crate::column::Column;
use crate::session::Link;

/// How long the database may take to answer.
const ANSWERS: Duration = Duration::from_secs(10);
/// The option, of the one row of the table `Open_vSwitch` (ovs-vswitchd.conf.db(5)).
const OPTION: &str = "userspace-tso-enable";

/// Whether Open vSwitch's userspace datapath carries packets with partial checksums, and those that are to be segmented
/// (`other_config:userspace-tso-enable`). It takes that over when it starts, and not later.
///
/// # Errors
/// Where the database can't be asked.
pub async fn userspace_tso(address: Address) -> Result<bool, PartError> {
    let doing = format!("asking the Open vSwitch at {address} for other_config:{OPTION}");
    let client = Client::spawn(address);
    let mut why = String::new();
    let asked = async {
        let mut replica = client.replica();
        // Whichever of the two is started first.
        let connected = replica.wait_for(|replica| {
            if let Link::Down(last) = &replica.link {
                why.clone_from(last);
            }
            replica.link == Link::Up
        });
        connected.await.map_err(|_| PartError::failed(format!("{doing}: the client has ended")))?;
        let select =
            json!({"op": "select", "table": "Open_vSwitch", "where": [], "columns": ["other_config"]});
        let results = client.transact(vec![select]).await;
        let results = results.map_err(|error| PartError::failed(doing.clone()).caused_by(error))?;
        enabled(&results).ok_or_else(|| PartError::failed(format!("{doing}: it answered {results:?}")))
    };
    match timeout(ANSWERS, asked).await {
        Ok(answer) => answer,
        Err(_) if why.is_empty() => {
            Err(PartError::unavailable(format!("{doing}: no answer within {} s", ANSWERS.as_secs())))
        }
        Err(_) => Err(PartError::unavailable(format!("{doing}: for {} s, {why}", ANSWERS.as_secs()))),
    }
}

/// The answer to the selection; `None` where it is none.
fn enabled(results: &[Value]) -> Option<bool> {
    let row = results.first()?.get("rows")?.as_array()?.first()?;
    let options = std::collections::BTreeMap::<String, String>::read(row.get("other_config")?).ok()?;
    // As Open vSwitch itself reads it (`smap_get_bool`).
    Some(options.get(OPTION).is_some_and(|value| value.eq_ignore_ascii_case("true")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_option_is_on_where_it_is_true_and_nowhere_else() {
        let of = |pairs: Value| enabled(&[json!({"rows": [{"other_config": ["map", pairs]}]})]);
        assert_eq!(of(json!([[OPTION, "true"], ["x", "y"]])), Some(true));
        assert_eq!(of(json!([[OPTION, "false"]])), Some(false));
        assert_eq!(of(json!([])), Some(false));
        assert_eq!(enabled(&[json!({"error": "x"})]), None);
        assert_eq!(enabled(&[]), None);
    }
}
