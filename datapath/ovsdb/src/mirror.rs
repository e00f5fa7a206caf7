//! [`Mirror`]: the tables in memory, kept up by the monitor's updates.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::column::Mistyped;
use crate::tables::{Bridge, Interface, OpenVSwitch, Port, Row};

/// A table's rows.
pub(crate) type Table<R> = BTreeMap<Uuid, R>;

/// The tables that are needed, as they were after the last update.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mirror {
    /// The root.
    pub(crate) open_vswitch: Table<OpenVSwitch>,
    /// The bridges.
    pub(crate) bridges: Table<Bridge>,
    /// The ports of all bridges.
    pub(crate) ports: Table<Port>,
    /// The interfaces of all ports.
    pub(crate) interfaces: Table<Interface>,
}

/// An update that the mirror can't take in: it is no update, or not one of what was mirrored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadUpdate {
    #[error("the updates are not an object of tables")]
    NoTables,
    #[error("the update of table {0} is not an object of rows")]
    NoRows(String),
    #[error("table {0} was not asked for")]
    UnknownTable(String),
    #[error("{1:?} in table {0} is not a row's uuid")]
    NoUuid(String, String),
    #[error("the update of row {1} of {0} is none of initial, insert, modify and delete")]
    NoChange(&'static str, Uuid),
    #[error("row {1} of {0} is changed, and was never told of")]
    UnknownRow(&'static str, Uuid),
    #[error("column {1} of {0} was not asked for")]
    UnknownColumn(&'static str, String),
    #[error("column {1} of {0}")]
    Mistyped(&'static str, String, #[source] Mistyped),
}

impl Mirror {
    /// What is asked of the monitor: `<monitor-cond-requests>`.
    pub(crate) fn request() -> Value {
        fn table<R: Row>() -> (String, Value) {
            (R::TABLE.to_owned(), json!([{"columns": R::COLUMNS}]))
        }
        Value::Object(Map::from_iter([
            table::<OpenVSwitch>(),
            table::<Bridge>(),
            table::<Port>(),
            table::<Interface>(),
        ]))
    }

    /// Takes in `<table-updates2>`. After an error the mirror is of no use.
    pub(crate) fn update(&mut self, updates: &Value) -> Result<(), BadUpdate> {
        let tables = updates.as_object().ok_or(BadUpdate::NoTables)?;
        for (table, rows) in tables {
            let rows = rows.as_object().ok_or_else(|| BadUpdate::NoRows(table.clone()))?;
            for (uuid, change) in rows {
                let uuid = uuid.parse().map_err(|_| BadUpdate::NoUuid(table.clone(), uuid.clone()))?;
                match table.as_str() {
                    OpenVSwitch::TABLE => update_row(&mut self.open_vswitch, uuid, change)?,
                    Bridge::TABLE => update_row(&mut self.bridges, uuid, change)?,
                    Port::TABLE => update_row(&mut self.ports, uuid, change)?,
                    Interface::TABLE => update_row(&mut self.interfaces, uuid, change)?,
                    _ => return Err(BadUpdate::UnknownTable(table.clone())),
                }
            }
        }
        Ok(())
    }
}

fn update_row<R: Row>(table: &mut Table<R>, uuid: Uuid, change: &Value) -> Result<(), BadUpdate> {
    let member = |name| change.get(name).map(Value::as_object);
    let unknown_row = || BadUpdate::UnknownRow(R::TABLE, uuid);
    if let Some(Some(columns)) = member("initial").or(member("insert")) {
        let mut row = R::default();
        each_column::<R>(columns, |column, value| row.set(column, value))?;
        table.insert(uuid, row);
    } else if let Some(Some(columns)) = member("modify") {
        let row = table.get_mut(&uuid).ok_or_else(unknown_row)?;
        each_column::<R>(columns, |column, value| row.differ(column, value))?;
    } else if change.get("delete").is_some() {
        table.remove(&uuid).ok_or_else(unknown_row)?;
    } else {
        return Err(BadUpdate::NoChange(R::TABLE, uuid));
    }
    Ok(())
}

fn each_column<R: Row>(
    columns: &Map<String, Value>,
    mut take: impl FnMut(&str, &Value) -> Result<bool, Mistyped>,
) -> Result<(), BadUpdate> {
    for (column, value) in columns {
        match take(column, value) {
            Ok(true) => {}
            Ok(false) => return Err(BadUpdate::UnknownColumn(R::TABLE, column.clone())),
            Err(error) => return Err(BadUpdate::Mistyped(R::TABLE, column.clone(), error)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: &str = "550e8400-e29b-41d4-a716-446655440000";

    #[test]
    fn rows_come_change_and_go() {
        let mut mirror = Mirror::default();
        mirror.update(&json!({"Port": {ROW: {"initial": {"name": "p"}}}})).unwrap();
        mirror.update(&json!({"Port": {ROW: {"modify": {"tag": 100}}}})).unwrap();
        let port = mirror.ports.values().next().unwrap();
        assert_eq!((port.name.as_str(), port.tag), ("p", Some(100)));
        mirror.update(&json!({"Port": {ROW: {"delete": null}}})).unwrap();
        assert_eq!(mirror, Mirror::default());
    }

    #[test]
    fn an_update_of_something_else_is_refused_with_its_place() {
        for (update, why) in [
            (json!([]), "not an object of tables"),
            (json!({"Port": []}), "table Port is not an object of rows"),
            (json!({"Manager": {ROW: {"insert": {}}}}), "table Manager was not asked for"),
            (json!({"Port": {"x": {"insert": {}}}}), "\"x\" in table Port"),
            (json!({"Port": {ROW: {"insert": 1}}}), "none of initial"),
            (json!({"Port": {ROW: {}}}), "none of initial"),
            (json!({"Port": {ROW: {"modify": {"tag": 1}}}}), "never told of"),
            (json!({"Port": {ROW: {"delete": null}}}), "never told of"),
            (json!({"Port": {ROW: {"insert": {"qos": 1}}}}), "column qos of Port"),
            (json!({"Port": {ROW: {"insert": {"tag": "x"}}}}), "column tag of Port"),
        ] {
            let error = Mirror::default().update(&update).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
