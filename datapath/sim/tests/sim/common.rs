//! What the tests of a simulated DPU share.

use std::time::Duration;

use virtnet_model::{
    ControllerState, Function, FunctionId, HotplugRequest, Mac, PfId, QueueSize, SfNumber, VfId,
};
use virtnet_sim::{Sim, SimConfig};

/// Longer than anything takes that was set in motion.
pub(crate) const AT_REST: Duration = Duration::from_secs(60);

pub(crate) fn sim(firmware: &[&str]) -> Sim {
    Sim::new(config(firmware))
}

pub(crate) fn config(firmware: &[&str]) -> SimConfig {
    let mut config = SimConfig::default();
    config.set_firmware(firmware).unwrap();
    config
}

/// Lets everything happen that is under way.
pub(crate) async fn rest() {
    tokio::time::sleep(AT_REST).await;
}

pub(crate) async fn rested(firmware: &[&str]) -> Sim {
    let sim = sim(firmware);
    rest().await;
    sim
}

pub(crate) async fn state(sim: &Sim) -> ControllerState {
    sim.controller().observe().await.unwrap()
}

pub(crate) fn pf(index: u32) -> PfId {
    PfId::try_from(index).unwrap()
}

pub(crate) fn vf(index: u32) -> VfId {
    VfId::try_from(index).unwrap()
}

pub(crate) fn sf(number: u32) -> SfNumber {
    SfNumber::try_from(number).unwrap()
}

pub(crate) fn mac(last: u16) -> Mac {
    let [a, b] = last.to_be_bytes();
    Mac::local([0xff, 0, 0, a, b])
}

pub(crate) fn request(last: u16) -> HotplugRequest {
    HotplugRequest::new(mac(last), 3, QueueSize::try_from(1024).unwrap())
}

pub(crate) fn static_pf(state: &ControllerState, index: u32) -> &Function {
    &state.functions[&FunctionId::pf(pf(index))]
}

pub(crate) fn virtual_function(state: &ControllerState, pf_index: u32, vf_index: u32) -> &Function {
    &state.functions[&FunctionId::vf(pf(pf_index), vf(vf_index))]
}

/// Unbinds the driver, as the person at the host does before a modification.
pub(crate) fn unbind(sim: &Sim, function: &Function) {
    sim.unbind(function.bdf.unwrap()).unwrap();
}
