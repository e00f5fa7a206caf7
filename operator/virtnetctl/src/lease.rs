//! Whether a DPU's agent lives: by its Lease, and the clock of this machine.

use std::collections::BTreeMap;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use serde::Serialize;

use crate::output;

/// Whether a DPU's agent renews its Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "camelCase")]
pub(crate) enum Agent {
    /// It does.
    Alive,
    /// The Lease has expired: it was last renewed so long ago.
    Silent { seconds: i64 },
    /// There is no Lease.
    None,
    /// Leases can't be read.
    Unknown,
}

impl Agent {
    /// What its Lease tells.
    fn of(lease: Option<&Lease>, now: Timestamp) -> Self {
        let Some(spec) = lease.and_then(|lease| lease.spec.as_ref()) else { return Self::None };
        let Some(renewed) = &spec.renew_time else { return Self::None };
        let seconds = now.as_second() - renewed.0.as_second();
        if seconds <= i64::from(spec.lease_duration_seconds.unwrap_or_default()) {
            Self::Alive
        } else {
            Self::Silent { seconds }
        }
    }
}

/// The Leases of a namespace by DPU; `None` where they can't be read.
pub(crate) struct Leases(Option<BTreeMap<String, Lease>>);

impl Leases {
    /// Reads them. Who may not is told so, and has all the rest.
    pub(crate) async fn read(client: &Client, namespace: &str) -> Self {
        let api: Api<Lease> = Api::namespaced(client.clone(), namespace);
        Self(match api.list(&ListParams::default()).await {
            Ok(list) => Some(list.items.into_iter().map(|lease| (lease.name_any(), lease)).collect()),
            Err(error) => {
                let why = virtnet_agent::chain(&error);
                output::error(&format!(
                    "whether the agents live is not known: listing Leases in {namespace}: {why}"
                ));
                None
            }
        })
    }

    /// Whether the agent of this DPU lives.
    pub(crate) fn agent(&self, dpu: &str, now: Timestamp) -> Agent {
        match &self.0 {
            Some(leases) => Agent::of(leases.get(dpu), now),
            None => Agent::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::coordination::v1::LeaseSpec;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

    use super::*;

    #[test]
    fn a_lease_holds_for_as_long_as_it_says() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let agent = |ago: i64| {
            let spec = LeaseSpec {
                renew_time: Some(MicroTime(Timestamp::from_second(1_000_000 - ago).unwrap())),
                lease_duration_seconds: Some(40),
                ..LeaseSpec::default()
            };
            Agent::of(Some(&Lease { spec: Some(spec), ..Lease::default() }), now)
        };
        assert_eq!((agent(40), agent(-3)), (Agent::Alive, Agent::Alive));
        assert_eq!((agent(41), Agent::of(None, now)), (Agent::Silent { seconds: 41 }, Agent::None));
        assert_eq!(Leases(None).agent("dpu-0", now), Agent::Unknown);
    }
}
