//! How the service is: the workers that failed, and what of the device had to be given up ([`Condition`]).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use virtnet_controller::conf::Conf;
use virtnet_model::Uplink;
use virtnet_rpc::method::Health;

use super::systemd;

/// What is known of it. Clones are of the same service.
#[derive(Clone, Debug, Default)]
pub(super) struct Condition(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    workers: u64,
    failures: u64,
    last_failure: Option<String>,
    /// What the device is doing, by number.
    under_way: BTreeMap<u64, String>,
    operations: u64,
    /// What it did not come to the end of, until it comes to the end of something again.
    given_up: Vec<String>,
}

/// Something that the device is asked to do. Where it is dropped before its end it was given up.
#[derive(Debug)]
pub(super) struct Operation {
    condition: Condition,
    number: u64,
}

impl Condition {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another worker begins.
    pub(super) fn worker_begins(&self) {
        self.known().workers += 1;
    }

    /// A worker has failed, for this reason.
    pub(super) fn worker_failed(&self, why: &str) {
        let mut known = self.known();
        known.failures += 1;
        known.last_failure = Some(why.to_owned());
    }

    /// The device begins to do something.
    pub(super) fn begin(&self, what: String) -> Operation {
        let mut known = self.known();
        known.operations += 1;
        let number = known.operations;
        known.under_way.insert(number, what);
        Operation { condition: self.clone(), number }
    }

    /// What the device was asked to do and did not come to the end of, where it has not ended anything since.
    pub(super) fn given_up(&self) -> Vec<String> {
        self.known().given_up.clone()
    }

    /// What there is to tell of a service that is configured so.
    pub(super) fn health(&self, conf: &Conf) -> Health {
        let known = self.known();
        Health {
            generation: conf.engine.generation,
            rdma_devices: [Uplink::P0, Uplink::P1, Uplink::Bond]
                .map(|uplink| (uplink, conf.rdma_devices.of(uplink).to_owned()))
                .into(),
            workers: known.workers,
            failures: known.failures,
            last_failure: known.last_failure.clone(),
            given_up: known.given_up.clone(),
        }
    }
}

impl Operation {
    /// The device has come to its end, so that it does what it is asked to.
    pub(super) fn ended(self) {
        let was_degraded = {
            let mut known = self.condition.known();
            known.under_way.remove(&self.number);
            !std::mem::take(&mut known.given_up).is_empty()
        };
        if was_degraded {
            systemd::status("serves: the device does what it is asked to again");
        }
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        let given_up = {
            let mut known = self.condition.known();
            let Some(what) = known.under_way.remove(&self.number) else { return };
            known.given_up.push(what.clone());
            what
        };
        tracing::error!("given up, since the device did not come to the end of it: {given_up}");
        systemd::status(&format!("degraded: the device did not come to the end of: {given_up}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_is_given_up_until_something_ends() {
        let condition = Condition::default();
        condition.begin("one".to_owned()).ended();
        assert!(condition.given_up().is_empty());
        drop(condition.begin("two".to_owned()));
        drop(condition.begin("three".to_owned()));
        assert_eq!(condition.health(&Conf::default()).given_up, ["two", "three"]);
        condition.begin("four".to_owned()).ended();
        assert!(condition.given_up().is_empty());
    }
}
