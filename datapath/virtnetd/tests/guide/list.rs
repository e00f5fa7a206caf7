//! What `virtnet list` answers: [`List`].

use serde_json::Value;

/// The address that `virtnet` shows of a function which the host has given none.
pub(crate) const NO_ADDRESS: &str = "00:00.0";

/// Whether the host has found a function and a driver has it.
pub(crate) fn is_up(device: &Value) -> bool {
    device["bdf"] != NO_ADDRESS && device["msix_config_vector"] == "0x0"
}

/// The answer of `virtnet list`.
#[derive(Debug)]
pub(crate) struct List(pub(crate) Value);

impl List {
    /// What it says of the controller.
    pub(crate) fn controller(&self) -> &Value {
        &self.0["controller"]
    }

    /// The functions.
    pub(crate) fn devices(&self) -> &[Value] {
        self.0["devices"].as_array().unwrap()
    }

    /// Those of a type, such as `VF`.
    pub(crate) fn of(&self, function_type: &str) -> impl Iterator<Item = &Value> {
        self.devices().iter().filter(move |device| device["function_type"] == function_type)
    }

    /// The function of this VUID.
    pub(crate) fn device(&self, vuid: &str) -> &Value {
        let device = self.devices().iter().find(|device| device["vuid"] == vuid);
        device.unwrap_or_else(|| panic!("there is no {vuid}: {self:?}"))
    }
}

/// What is written in a member of a function that is a text.
pub(crate) fn text<'a>(device: &'a Value, key: &str) -> &'a str {
    device[key].as_str().unwrap_or_else(|| panic!("{key} is no text in {device}"))
}
