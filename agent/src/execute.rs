//! Execution: one `match` on a [`Step`], no decisions.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use tokio::sync::Semaphore;
use virtnet_client::chain;
use virtnet_crds::Reason;
use virtnet_model::{ErrorKind, Mac, PartError, Refusal, SwitchChange};

use crate::api::{self, Written};
use crate::observe::Parts;
use crate::plan::{Step, claimed};
use crate::rivals::{Claimant, Rival, Rivals};

/// How many calls to the controller are under way at once.
const CONTROLLER_CALLS: usize = 16;
/// How many writes to the API are under way at once.
const API_CALLS: usize = 32;
/// After this long a step is given up and planned anew from what is then there.
const GIVE_UP: Duration = Duration::from_secs(120);

/// The agent's hands, with a bound on how many things they do at once.
#[derive(Clone)]
pub(crate) struct Hands {
    parts: Parts,
    client: Client,
    rivals: Rivals,
    controller_calls: Arc<Semaphore>,
    api_calls: Arc<Semaphore>,
}

/// Why a step failed, as a condition tells it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct StepError {
    /// The condition's reason.
    pub reason: Reason,
    /// The condition's message.
    pub message: String,
    /// The object had changed meanwhile: no failure, only to be planned anew.
    pub conflict: bool,
    /// Who has the MAC that was to be claimed.
    pub rival: Option<Rival>,
}

impl StepError {
    pub(crate) fn new(reason: Reason, message: String) -> Self {
        Self { reason, message, conflict: false, rival: None }
    }

    /// Another has the MAC.
    pub(crate) fn claimed(mac: Mac, rival: Rival) -> Self {
        let error = Self::new(Reason::MacClaimed, claimed(mac, &rival));
        Self { rival: Some(rival), ..error }
    }
}

/// What came of a step.
#[derive(Debug)]
pub(crate) struct Done {
    /// The step.
    pub step: Step,
    /// The object as the API answered, after a write of it; or why it failed.
    pub result: Result<Option<Written>, StepError>,
}

impl Hands {
    /// Hands on these parts and this API.
    pub(crate) fn new(parts: Parts, client: Client, dpu: String) -> Self {
        Self {
            parts,
            rivals: Rivals::new(client.clone(), dpu),
            client,
            controller_calls: Arc::new(Semaphore::new(CONTROLLER_CALLS)),
            api_calls: Arc::new(Semaphore::new(API_CALLS)),
        }
    }

    /// The permits that bound writes to the API; status writes draw on them too.
    pub(crate) fn api_calls(&self) -> Arc<Semaphore> {
        Arc::clone(&self.api_calls)
    }

    /// Waits until this one has the MAC no longer.
    pub(crate) fn given_up(&self, mac: Mac, rival: Rival) -> BoxFuture<'static, ()> {
        let rivals = self.rivals.clone();
        Box::pin(async move { rivals.given_up(mac, &rival).await })
    }

    /// Takes one step that is not the switch's. `object`: the metadata of the device's object, for steps on it. `None` where the
    /// controller has as many as it is given at once: what waited for its turn might no longer be right when that comes, so
    /// it is planned anew when one of those has ended.
    pub(crate) fn take(
        &self,
        step: Step,
        object: Option<Arc<ObjectMeta>>,
    ) -> Option<BoxFuture<'static, Done>> {
        let controller_call = match step {
            Step::Hotplug { .. } | Step::Unplug { .. } | Step::Modify { .. } => {
                Some(Arc::clone(&self.controller_calls).try_acquire_owned().ok()?)
            }
            _ => None,
        };
        let hands = self.clone();
        Some(Box::pin(async move {
            let _controller_call = controller_call;
            // Waiting for its turn is not waiting for an answer.
            let _api_call = match step {
                Step::Register { .. } | Step::ClaimMac { .. } | Step::Release { .. } => {
                    Some(hands.api_calls.acquire().await)
                }
                _ => None,
            };
            let result = match tokio::time::timeout(GIVE_UP, hands.call(&step, object.as_deref())).await {
                Ok(result) => result,
                Err(_) => {
                    let message = format!("{step}: no answer in {} s", GIVE_UP.as_secs());
                    Err(StepError::new(Reason::StepFailed, message))
                }
            };
            Done { step, result }
        }))
    }

    /// Takes all steps of the switch in one transaction.
    pub(crate) fn take_ports(&self, steps: Vec<Step>) -> BoxFuture<'static, Vec<Done>> {
        let hands = self.clone();
        Box::pin(async move {
            let changes: Vec<_> = steps.iter().filter_map(port_change).collect();
            let results = match tokio::time::timeout(GIVE_UP, hands.parts.switch.apply(&changes)).await {
                Ok(Ok(results)) => {
                    results.into_iter().map(|result| result.map_err(|error| from_part(&error))).collect()
                }
                Ok(Err(error)) => vec![Err(from_part(&error)); steps.len()],
                Err(_) => {
                    let message = format!("no answer from Open vSwitch in {} s", GIVE_UP.as_secs());
                    vec![Err(StepError::new(Reason::SwitchUnavailable, message)); steps.len()]
                }
            };
            steps
                .into_iter()
                .zip(results)
                .map(|(step, result)| Done { step, result: result.map(|()| None) })
                .collect()
        })
    }

    async fn call(&self, step: &Step, object: Option<&ObjectMeta>) -> Result<Option<Written>, StepError> {
        match step {
            Step::Register { macs, .. } => {
                let object = object.ok_or_else(|| gone(step))?;
                api::register(&self.client, object, macs)
                    .await
                    .map(Some)
                    .map_err(|error| from_api(step, &error))
            }
            Step::ClaimMac { device, mac, bore, created, .. } => {
                let claimant = Claimant { uid: &device.uid, bore: *bore, created: *created };
                match self.rivals.of(*mac, claimant).await {
                    Ok(None) => Ok(None),
                    Ok(Some(rival)) => Err(from_rival(*mac, rival)),
                    Err(error) => Err(from_api(step, &error)),
                }
            }
            Step::Release { .. } => {
                let object = object.ok_or_else(|| gone(step))?;
                match api::release(&self.client, object).await {
                    Ok(object) => Ok(Some(object)),
                    Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
                    Err(error) => Err(from_api(step, &error)),
                }
            }
            Step::Hotplug { request, .. } => done(self.parts.controller.hotplug(request).await.map(drop)),
            Step::Unplug { target, .. } => done(self.parts.controller.unplug(target).await),
            Step::Modify { target, change, .. } => done(self.parts.controller.modify(target, change).await),
            Step::SetLink { sf, change, .. } => done(self.parts.links.set(sf, *change).await),
            Step::SetNumVfs { pf, num_vfs, .. } => done(self.parts.host.set_num_vfs(*pf, *num_vfs).await),
            Step::SetFirmware { port, values } => done(self.parts.firmware.set(*port, values).await),
            Step::AddBridge { .. } | Step::SetPort { .. } | Step::RemovePort { .. } => {
                let mut done = self.take_ports(vec![step.clone()]).await;
                done.pop().map_or(Ok(None), |done| done.result)
            }
        }
    }
}

fn port_change(step: &Step) -> Option<SwitchChange> {
    match step {
        Step::SetPort { name, settings, .. } => {
            Some(SwitchChange::SetPort { name: name.clone(), settings: settings.clone() })
        }
        Step::AddBridge { name, datapath_type } => {
            Some(SwitchChange::AddBridge { name: name.clone(), datapath_type: datapath_type.clone() })
        }
        Step::RemovePort { name, owner, .. } => {
            Some(SwitchChange::RemovePort { name: name.clone(), owner: owner.clone() })
        }
        Step::Register { .. }
        | Step::ClaimMac { .. }
        | Step::Release { .. }
        | Step::Unplug { .. }
        | Step::Hotplug { .. }
        | Step::Modify { .. }
        | Step::SetLink { .. }
        | Step::SetNumVfs { .. }
        | Step::SetFirmware { .. } => None,
    }
}

fn done(result: Result<(), PartError>) -> Result<Option<Written>, StepError> {
    result.map(|()| None).map_err(|error| from_part(&error))
}

fn gone(step: &Step) -> StepError {
    StepError::new(Reason::StepFailed, format!("{step}: its object is gone"))
}

fn from_api(step: &Step, error: &kube::Error) -> StepError {
    // A JSON patch whose tests fail is answered with 422, one that comes too late with 409.
    let conflict = matches!(error, kube::Error::Api(status) if [404, 409, 422].contains(&status.code));
    let reason = if conflict { Reason::Creating } else { Reason::StepFailed };
    StepError { conflict, ..StepError::new(reason, format!("{step}: {}", chain(error))) }
}

/// Who is junior sees the senior's note in turn and gives its own up, or already has the function that it noted the MAC for.
fn from_rival(mac: Mac, rival: Rival) -> StepError {
    if let Rival::Device { is_senior: false, .. } = rival {
        let message = format!("MAC {mac} is noted by {rival} too, which is younger and may give it up");
        StepError { conflict: true, rival: Some(rival), ..StepError::new(Reason::Creating, message) }
    } else {
        StepError::claimed(mac, rival)
    }
}

fn from_part(error: &PartError) -> StepError {
    let reason = match error.kind {
        ErrorKind::Unavailable | ErrorKind::Failed => Reason::StepFailed,
        ErrorKind::Refused(refusal) => reason_of(refusal),
    };
    StepError::new(reason, chain(error))
}

/// A part's refusal as a condition's reason.
fn reason_of(refusal: Refusal) -> Reason {
    match refusal {
        Refusal::EmulationDisabled => Reason::EmulationDisabled,
        Refusal::NoFreeSlot => Reason::NoFreeSlot,
        Refusal::SfExhausted => Reason::SfExhausted,
        Refusal::SfNumberInUse => Reason::SfNumberInUse,
        Refusal::MacInUse => Reason::MacClaimed,
        Refusal::NoSuchFunction | Refusal::NotHotPlugged | Refusal::Migrating | Refusal::NotInGeneration => {
            Reason::StepFailed
        }
        Refusal::NoSuchVf => Reason::VfOutOfRange,
        Refusal::NoSuchUplink => Reason::UplinkAbsent,
        Refusal::DriverLoaded => Reason::DriverLoaded,
        Refusal::MtuFixed => Reason::MtuFixed,
        Refusal::MsixFixed => Reason::MsixFixed,
        Refusal::MachineRuns => Reason::ReplugPending,
        Refusal::QueuesAboveLimit => Reason::QueuesAboveLimit,
        Refusal::MsixAboveLimit => Reason::MsixAboveLimit,
        Refusal::FeatureUnsupported => Reason::FeatureUnsupported,
        Refusal::TransitionalUnsupported => Reason::TransitionalUnsupported,
        Refusal::Updating => Reason::ControllerUpdating,
        Refusal::BridgeNotFound => Reason::BridgeNotFound,
        Refusal::PortConflict => Reason::PortConflict,
        Refusal::NoSuchLink => Reason::RepresentorAbsent,
    }
}
