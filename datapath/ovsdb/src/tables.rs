//! The tables of the `Open_vSwitch` schema that are needed, with only the columns that are (ovs-vswitchd.conf.db(5)).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use uuid::Uuid;

use crate::column::{Column, Mistyped};

/// A row of one of the tables.
pub(crate) trait Row: Default {
    /// The table's name.
    const TABLE: &str;
    /// The columns to monitor.
    const COLUMNS: &[&str];

    /// Sets a column to a value of the wire. False: it is none of ours.
    fn set(&mut self, column: &str, value: &Value) -> Result<bool, Mistyped>;

    /// Takes in a column's difference. False: it is none of ours.
    fn differ(&mut self, column: &str, difference: &Value) -> Result<bool, Mistyped>;
}

/// Declares a row, each field with the name of its column.
macro_rules! row {
    (
        $(#[$doc:meta])* $name:ident of $table:literal {
            $($(#[$field_doc:meta])* $field:ident: $type:ty = $column:literal,)*
        }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub(crate) struct $name {
            $($(#[$field_doc])* pub(crate) $field: $type,)*
        }

        impl Row for $name {
            const TABLE: &str = $table;
            const COLUMNS: &[&str] = &[$($column),*];

            fn set(&mut self, column: &str, value: &Value) -> Result<bool, Mistyped> {
                match column {
                    $($column => self.$field = Column::read(value)?,)*
                    _ => return Ok(false),
                }
                Ok(true)
            }

            fn differ(&mut self, column: &str, difference: &Value) -> Result<bool, Mistyped> {
                match column {
                    $($column => self.$field.differ(difference)?,)*
                    _ => return Ok(false),
                }
                Ok(true)
            }
        }
    };
}

row! {
    /// The root, of which there is one row.
    OpenVSwitch of "Open_vSwitch" {
        /// Counted up by whoever changes the configuration.
        next_cfg: i64 = "next_cfg",
        /// The `next_cfg` that ovs-vswitchd has acted on.
        cur_cfg: i64 = "cur_cfg",
    }
}

row! {
    /// A bridge.
    Bridge of "Bridge" {
        /// Its name.
        name: String = "name",
        /// Its ports, its own local one among them.
        ports: BTreeSet<Uuid> = "ports",
    }
}

row! {
    /// A port of a bridge.
    Port of "Port" {
        /// Its name.
        name: String = "name",
        /// Its interfaces: one, or the members of a bond.
        interfaces: BTreeSet<Uuid> = "interfaces",
        /// Access VLAN, 0 to 4095.
        tag: Option<i64> = "tag",
        /// VLANs of a trunk, each 0 to 4095.
        trunks: BTreeSet<i64> = "trunks",
    }
}

row! {
    /// An interface of a port.
    Interface of "Interface" {
        /// Its name, which is its netdev's.
        name: String = "name",
        /// Its type; empty for a system netdev.
        kind: String = "type",
        /// The OpenFlow port number, −1 where it could not be attached.
        ofport: Option<i64> = "ofport",
        /// Why it could not be attached.
        error: Option<String> = "error",
        /// Everybody's marks.
        external_ids: BTreeMap<String, String> = "external_ids",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_column_of_ours_is_set_and_another_is_told() {
        let mut row = Interface::default();
        assert_eq!(row.set("ofport", &json!(7)), Ok(true));
        assert_eq!(row.ofport, Some(7));
        assert_eq!(row.set("statistics", &json!(7)), Ok(false));
        assert!(row.set("ofport", &json!("seven")).is_err());
        assert_eq!(Interface::COLUMNS, ["name", "type", "ofport", "error", "external_ids"]);
    }
}
