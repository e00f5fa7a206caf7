//! The `Dpu` object: made at start if absent, kept from deletion while devices are bound, its status written at most once
//! a second.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use json_patch::Patch as JsonPatch;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::json;
use tokio::time::Instant;
use virtnet_client::{Clock, finalizer_addition, finalizer_removal, is_newer};
use virtnet_crds::conditions::{
    self, FIRMWARE_CONFIGURED, Finding, READY, REBOOT_REQUIRED, RESTART_REQUIRED, Status, UPDATING,
};
use virtnet_crds::{
    API_VERSION, Allocated, BOUND_FINALIZER, Capacity, Dpu, DpuSpec, DpuStatus, FirmwarePortStatus,
    FirmwareStatus, Generation, LinkState, PfVfs, Port, PortSfs, Reason, UndeclaredFunction, Versions,
    manager,
};
use virtnet_model::{
    ControllerState, EswitchPort, FirmwareState, Function, FunctionId, FunctionKind, Limits, Mac, PfId,
    SubFunction, VfId,
};

use crate::api::is_held_by_operator;
use crate::observe::Observed;
use crate::plan::DpuAssessment;
use crate::plan::wanted_firmware;
use crate::status::{feature_names, function_type};

/// The least time between two writes of the status.
const INTERVAL: Duration = Duration::from_secs(1);
/// The longest that is waited after writes that failed.
const LONGEST: Duration = Duration::from_secs(60);

/// What the schema bounds the list of undeclared functions to.
const MOST_UNDECLARED: usize = 1024;
/// After so many writes that failed in a row nothing waits for the next: a deletion always ends.
const GIVEN_UP: u32 = 6;

/// The object as last seen, and when its status was last written.
#[derive(Debug, Default)]
pub(crate) struct DpuObject {
    object: Option<Dpu>,
    seen: bool,
    made: bool,
    writing: bool,
    /// Not to be written before.
    not_before: Option<Instant>,
    failures: u32,
}

/// What to write next.
#[derive(Clone, Debug)]
pub(crate) enum Write {
    /// Make the object.
    Create,
    /// Put our finalizer on it.
    Hold(Box<Dpu>),
    /// Take our finalizer off it: it is being deleted and nothing is bound.
    Release(Box<Dpu>),
    /// Write its status.
    Status(Box<Dpu>, Box<DpuStatus>),
}

impl DpuObject {
    /// The object's spec; empty before it is there.
    pub(crate) fn spec(&self) -> DpuSpec {
        self.object.as_ref().map(|object| object.spec.clone()).unwrap_or_default()
    }

    /// The object as last seen.
    pub(crate) fn object(&self) -> Option<&Dpu> {
        self.object.as_ref()
    }

    /// The generation of its spec.
    pub(crate) fn generation(&self) -> Option<i64> {
        self.object.as_ref()?.metadata.generation
    }

    /// Functions that the object says nobody declares, by the MACs that it says they have: none while the object is yet to be
    /// heard of or to be written. `None` where it can't be written for long, or has no room for more.
    pub(crate) fn reported(&self) -> Option<BTreeSet<(FunctionId, Mac)>> {
        if self.failures >= GIVEN_UP {
            return None;
        }
        let status = self.object.as_ref().and_then(|object| object.status.as_ref());
        let undeclared = status.map(|status| status.undeclared.as_slice()).unwrap_or_default();
        let named = |function: &UndeclaredFunction| {
            let pf = PfId::try_from(u32::from(function.pf?)).ok()?;
            let vf = function.vf.map(|vf| VfId::try_from(u32::from(vf))).transpose().ok()?;
            let id = vf.map_or_else(|| FunctionId::pf(pf), |vf| FunctionId::vf(pf, vf));
            Some((id, function.mac.as_ref()?.parse().ok()?))
        };
        (undeclared.len() < MOST_UNDECLARED).then(|| undeclared.iter().filter_map(named).collect())
    }

    /// Takes in what the watch tells: the object, or that there is none.
    pub(crate) fn watched(&mut self, object: Option<Dpu>) {
        if !self.seen {
            self.failures = 0;
        }
        self.seen = true;
        match object {
            // An echo of an earlier write than the one that was answered last.
            Some(object) if self.object.as_ref().is_some_and(|known| is_earlier(&object, known)) => {}
            object => self.object = object,
        }
    }

    /// The watch was cut. One that never told of the object counts as a write that failed.
    pub(crate) fn cut(&mut self) {
        if !self.seen {
            self.failures = self.failures.saturating_add(1);
        }
    }

    /// Takes in the answer to a write.
    pub(crate) fn written(&mut self, object: Dpu, now: Instant) {
        self.writing = false;
        self.failures = 0;
        self.not_before = Some(now + INTERVAL);
        // One that was there and is gone since stays gone.
        let is_news = self.object.as_ref().map_or(!self.made, |known| is_earlier(known, &object));
        self.made = true;
        if is_news {
            self.object = Some(object);
        }
    }

    /// A write failed: it is tried again after a while. Says whether it is the first to fail in a row.
    pub(crate) fn failed(&mut self, now: Instant) -> bool {
        self.writing = false;
        let wait = INTERVAL.saturating_mul(1 << self.failures.min(6)).min(LONGEST);
        self.not_before = Some(now + wait);
        self.failures = self.failures.saturating_add(1);
        self.failures == 1
    }

    /// Decides what to write now, if anything; or when to look again.
    pub(crate) fn next(
        &mut self,
        status: impl FnOnce(&DpuStatus, i64) -> DpuStatus,
        bound: usize,
        now: Instant,
    ) -> Result<Write, Option<Instant>> {
        if self.writing || !self.seen {
            return Err(None);
        }
        let write = match &self.object {
            // Once it was there it is not made again: whoever deletes it means it. Where something is bound it was not this agent
            // that let it go: the DPU was taken for gone, and is not.
            None if self.made && bound == 0 => return Err(None),
            None => {
                self.made = false;
                Write::Create
            }
            Some(object) => {
                self.made = true;
                let held = object.finalizers().iter().any(|finalizer| finalizer == BOUND_FINALIZER);
                match (object.metadata.deletion_timestamp.is_some(), held) {
                    (true, true) if bound == 0 => Write::Release(Box::new(object.clone())),
                    (false, false) => Write::Hold(Box::new(object.clone())),
                    (true, _) | (false, true) => {
                        let mut before = object.status.clone().unwrap_or_default();
                        before.conditions.retain(conditions::is_agents);
                        let status = status(&before, object.metadata.generation.unwrap_or_default());
                        if status == before {
                            return Err(None);
                        }
                        Write::Status(Box::new(object.clone()), Box::new(status))
                    }
                }
            }
        };
        if let Some(at) = self.not_before.filter(|at| *at > now) {
            return Err(Some(at));
        }
        self.writing = true;
        Ok(write)
    }
}

/// Whether `a` is an earlier version of `b`.
fn is_earlier(a: &Dpu, b: &Dpu) -> bool {
    a.metadata.uid == b.metadata.uid && is_newer(&b.metadata, &a.metadata)
}

/// Makes the write.
pub(crate) async fn write(client: Client, name: String, write: Write) -> kube::Result<Dpu> {
    let api: Api<Dpu> = Api::all(client);
    match write {
        Write::Create => {
            let object = Dpu {
                metadata: ObjectMeta {
                    name: Some(name),
                    finalizers: Some(vec![BOUND_FINALIZER.into()]),
                    ..ObjectMeta::default()
                },
                spec: DpuSpec::default(),
                status: None,
            };
            let params = PostParams { field_manager: Some(manager::AGENT.into()), ..PostParams::default() };
            api.create(&params, &object).await
        }
        Write::Hold(object) => {
            patch(&api, &name, finalizer_addition(&object.metadata, BOUND_FINALIZER)).await
        }
        Write::Release(object) => {
            patch(&api, &name, finalizer_removal(&object.metadata, BOUND_FINALIZER)).await
        }
        Write::Status(object, status) => {
            let body = json!({
                "apiVersion": API_VERSION,
                "kind": "Dpu",
                "metadata": {
                    "name": name,
                    "uid": object.metadata.uid,
                    "resourceVersion": object.metadata.resource_version,
                },
                "status": status,
            });
            let apply = Patch::Apply(body);
            let params = PatchParams::apply(manager::AGENT);
            match api.patch_status(&name, &params, &apply).await {
                Err(kube::Error::Api(refusal)) if is_held_by_operator(&refusal) => {
                    api.patch_status(&name, &params.force(), &apply).await
                }
                result => result,
            }
        }
    }
}

async fn patch(api: &Api<Dpu>, name: &str, patch: JsonPatch) -> kube::Result<Dpu> {
    let params = PatchParams { field_manager: Some(manager::AGENT.into()), ..PatchParams::default() };
    api.patch(name, &params, &Patch::<()>::Json(patch)).await
}

/// The status of the Dpu. `before` lends the conditions their times of transition, and what can't be read now.
pub(crate) fn dpu_status(
    observed: &Observed,
    assessment: &DpuAssessment,
    spec: &DpuSpec,
    before: &DpuStatus,
    generation: i64,
    clock: &Clock,
) -> DpuStatus {
    let state = observed.controller.as_ref().ok();
    let firmware = observed.firmware.as_ref().ok();
    DpuStatus {
        observed_generation: generation,
        conditions: conditions::merge(
            &before.conditions,
            findings(observed, assessment, spec),
            generation,
            &Time(clock.now()),
        ),
        versions: Some(Versions {
            controller: state
                .map(|state| state.version.clone())
                .or_else(|| before.versions.clone()?.controller),
            agent: Some(env!("CARGO_PKG_VERSION").to_owned()),
            firmware: None,
        }),
        generation: state.map(|state| generation_of(&state.limits)).or(before.generation),
        capacity: state.map(|state| capacity(&state.limits)).or_else(|| before.capacity.clone()),
        allocated: state.map(allocated).or_else(|| before.allocated.clone()),
        undeclared: state
            .map_or_else(|| before.undeclared.clone(), |state| undeclared(state, observed, assessment)),
        firmware: firmware.map(firmware_status).or_else(|| before.firmware.clone()),
    }
}

fn findings(observed: &Observed, assessment: &DpuAssessment, spec: &DpuSpec) -> Vec<Finding> {
    let trouble = [
        (Reason::ControllerUnavailable, observed.controller.as_ref().err()),
        (Reason::SwitchUnavailable, observed.switch.as_ref().err()),
        (Reason::LinksUnavailable, observed.links.as_ref().err()),
    ]
    .into_iter()
    .find_map(|(reason, error)| Some((reason, error?.clone())))
    .or_else(|| {
        (!assessment.sriov_waits.is_empty())
            .then(|| (Reason::SriovPending, assessment.sriov_waits.join("; ")))
    });
    let (reason, message) = trouble.unwrap_or((Reason::Ready, "controller, switch and links answer".into()));
    let mut findings = vec![Finding::new(READY, reason, message.clone())];
    let configured = observed.firmware.as_ref().ok();
    let configured = configured.and_then(|firmware| firmware_configured(firmware, assessment, spec));
    // A DPU may be in service while something that its spec wants is yet to come.
    let to_come = (reason == Reason::Ready).then(|| to_come(observed, assessment, spec, configured.as_ref()));
    let (reason, message) = to_come.flatten().unwrap_or((reason, message));
    findings.extend(Finding::kstatus(reason, &message));
    let state = observed.controller.as_ref().ok();
    if let Some(what) = state.and_then(|state| state.restart_required.clone()) {
        findings.push(abnormal(RESTART_REQUIRED, Reason::RestartPending, what));
    }
    if state.is_some_and(|state| state.updating) {
        findings.push(abnormal(
            UPDATING,
            Reason::ControllerUpdating,
            "a live update of the controller is running".into(),
        ));
    }
    let pending: Vec<_> = observed
        .firmware
        .iter()
        .flatten()
        .flat_map(|(port, state)| {
            pending_values(state).map(move |(key, value)| format!("{port} {key}={value}"))
        })
        .collect();
    if !pending.is_empty() {
        let message = format!("cold boot the host for {} to take effect", pending.join(", "));
        findings.push(abnormal(REBOOT_REQUIRED, Reason::ColdBootPending, message));
    }
    findings.extend(configured);
    findings
}

/// What the spec wants of firmware, host and switch and is not so, and does not keep the DPU from service.
fn to_come(
    observed: &Observed,
    assessment: &DpuAssessment,
    spec: &DpuSpec,
    configured: Option<&Finding>,
) -> Option<(Reason, String)> {
    if let Some(Finding { reason, message, .. }) = configured.filter(|found| found.status != Status::True) {
        return Some((*reason, message.clone()));
    }
    if let Err(error) = &observed.firmware
        && !wanted_firmware(spec).is_empty()
    {
        let message = format!("whether the firmware has the wanted values can not be read: {error}");
        return Some((Reason::StepFailed, message));
    }
    (!assessment.being_made.is_empty()).then(|| (Reason::Applying, assessment.being_made.join("; ")))
}

/// A condition that is present only while something is out of the ordinary.
fn abnormal(type_: &'static str, reason: Reason, message: String) -> Finding {
    Finding { type_, status: Status::True, reason, message }
}

/// Whether the wanted firmware values are in force; nothing where none are wanted.
fn firmware_configured(
    firmware: &BTreeMap<EswitchPort, FirmwareState>,
    assessment: &DpuAssessment,
    spec: &DpuSpec,
) -> Option<Finding> {
    let wanted = wanted_firmware(spec);
    if wanted.is_empty() {
        return None;
    }
    if !assessment.firmware_differs.is_empty() {
        let list: Vec<_> = assessment
            .firmware_differs
            .iter()
            .flat_map(|(port, values)| values.iter().map(move |(key, value)| format!("{port} {key}={value}")))
            .collect();
        let message = format!("wanted and not set for the next boot: {}", list.join(", "));
        return Some(Finding::new(FIRMWARE_CONFIGURED, Reason::FirmwareDiffers, message));
    }
    let in_force = wanted.iter().all(|(port, values)| {
        values
            .iter()
            .all(|(key, value)| firmware.get(port).and_then(|state| state.current.get(key)) == Some(value))
    });
    Some(if in_force {
        Finding::new(FIRMWARE_CONFIGURED, Reason::Ready, "the wanted values are in force")
    } else {
        Finding::new(
            FIRMWARE_CONFIGURED,
            Reason::ColdBootPending,
            "the wanted values take effect at the next cold boot",
        )
    })
}

fn generation_of(limits: &Limits) -> Generation {
    match limits.generation {
        virtnet_model::Generation::Guide => Generation::Guide,
        virtnet_model::Generation::Later => Generation::Later,
    }
}

fn api_port(port: EswitchPort) -> Port {
    match port {
        EswitchPort::P0 => Port::P0,
        EswitchPort::P1 => Port::P1,
    }
}

fn capacity(limits: &Limits) -> Capacity {
    Capacity {
        hotplug_slots: u32::from(limits.hotplug_slots),
        sfs: limits
            .sfs
            .iter()
            .map(|(port, sfs)| PortSfs { port: api_port(*port), count: sfs.total })
            .collect(),
        vfs: (0..limits.static_pfs).map(|pf| PfVfs { pf, count: u32::from(limits.vfs_per_pf) }).collect(),
        msix: u32::from(limits.pf_msix),
    }
}

fn allocated(state: &ControllerState) -> Allocated {
    let count = |wanted: &dyn Fn(&Function) -> bool| {
        u32::try_from(state.functions.values().filter(|function| wanted(function)).count())
            .unwrap_or(u32::MAX)
    };
    Allocated {
        hotplug_slots: count(&|function| function.kind == FunctionKind::HotPlug),
        sfs: state
            .limits
            .sfs
            .iter()
            .map(|(port, sfs)| PortSfs { port: api_port(*port), count: sfs.used + sfs.foreign })
            .collect(),
        vfs: (0..state.limits.static_pfs)
            .map(|pf| PfVfs {
                pf,
                count: count(&|function| function.id.vf.is_some() && function.id.pf.get() == pf),
            })
            .collect(),
        msix: state.functions.values().map(|function| u32::from(function.num_msix)).sum(),
    }
}

/// What no object declares, with all that an object must say to adopt it as it is.
fn undeclared(
    state: &ControllerState,
    observed: &Observed,
    assessment: &DpuAssessment,
) -> Vec<UndeclaredFunction> {
    assessment
        .undeclared
        .iter()
        .filter_map(|id| state.functions.get(id))
        .take(MOST_UNDECLARED)
        .map(|function| {
            // Only a hot-plug is told these; of hundreds of VFs they would but swell the status.
            let told = (function.kind == FunctionKind::HotPlug).then_some(function);
            UndeclaredFunction {
                vuid: function.vuid.to_string(),
                type_: function_type(function.kind),
                pf: Some(function.id.pf.get()),
                vf: function.id.vf.map(virtnet_model::VfId::get),
                bdf: function.bdf.map(|bdf| bdf.to_string()),
                mac: Some(function.mac.to_string()),
                mtu: told.map(|function| function.mtu.get()),
                max_queues: told.map(|function| function.max_queues),
                max_queue_size: told.map(|function| function.max_queue_size.get()),
                num_msix: told.map(|function| function.num_msix),
                features: told.map(feature_names).unwrap_or_default(),
                transitional: function.transitional,
                representor: function.sf.as_ref().map(|sf| sf.representor.to_string()),
                link_state: function.sf.as_ref().and_then(|sf| link_state(sf, observed)),
            }
        })
        .collect()
}

/// That of the SF's representor, where a netdev is seen to be it.
fn link_state(sf: &SubFunction, observed: &Observed) -> Option<LinkState> {
    let link = observed.links.as_ref().ok()?.get(&sf.representor).filter(|link| link.represents(sf))?;
    Some(if link.up { LinkState::Up } else { LinkState::Down })
}

/// Values of the next boot that differ from those in force.
fn pending_values(state: &FirmwareState) -> impl Iterator<Item = (&String, &String)> {
    state.next_boot.iter().filter(|(key, value)| state.current.get(*key) != Some(value))
}

fn firmware_status(firmware: &BTreeMap<EswitchPort, FirmwareState>) -> FirmwareStatus {
    FirmwareStatus {
        ports: firmware
            .iter()
            .map(|(port, state)| FirmwarePortStatus {
                port: api_port(*port),
                current: state.current.clone(),
                next_boot: pending_values(state).map(|(key, value)| (key.clone(), value.clone())).collect(),
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dpu(version: &str) -> Dpu {
        let mut dpu = Dpu::new("dpu-0", DpuSpec::default());
        dpu.metadata.uid = Some("u".into());
        dpu.metadata.resource_version = Some(version.into());
        dpu.metadata.finalizers = Some(vec![BOUND_FINALIZER.into()]);
        dpu
    }

    fn next(known: &mut DpuObject, now: Instant) -> Result<Write, Option<Instant>> {
        known.next(
            |_, generation| DpuStatus { observed_generation: generation, ..DpuStatus::default() },
            0,
            now,
        )
    }

    fn version(known: &DpuObject) -> Option<&str> {
        known.object()?.metadata.resource_version.as_deref()
    }

    #[test]
    fn until_the_object_was_heard_of_nothing_is_reported_and_for_long_that_is_waited_for() {
        let mut known = DpuObject::default();
        assert_eq!(known.reported(), Some(BTreeSet::new()));
        known.watched(Some(dpu("1")));
        assert_eq!(known.reported(), Some(BTreeSet::new()), "it has no status yet");
        let mut silent = DpuObject::default();
        for _ in 0..GIVEN_UP {
            assert!(silent.reported().is_some());
            silent.cut();
        }
        assert_eq!(silent.reported(), None, "a deletion always ends");
        silent.watched(None);
        assert!(silent.reported().is_some());
    }

    #[test]
    fn a_condition_of_someone_else_is_no_cause_to_write() {
        let (mut known, now) = (DpuObject::default(), Instant::now());
        let mut object = dpu("1");
        let foreign = Finding::new("acme.example/Burnt", Reason::Ready, "not yet");
        let conditions = conditions::merge(&[], vec![foreign], 1, &Time(jiff::Timestamp::UNIX_EPOCH));
        object.status = Some(DpuStatus { observed_generation: 0, conditions, ..DpuStatus::default() });
        known.watched(Some(object));
        assert!(matches!(next(&mut known, now), Err(None)));
    }

    #[test]
    fn an_echo_of_an_earlier_write_changes_nothing() {
        let (mut known, now) = (DpuObject::default(), Instant::now());
        known.watched(Some(dpu("1")));
        assert!(matches!(next(&mut known, now), Ok(Write::Status(..))));
        known.written(dpu("3"), now);
        known.watched(Some(dpu("2")));
        assert_eq!(version(&known), Some("3"));
        known.watched(Some(dpu("4")));
        assert_eq!(version(&known), Some("4"));
    }

    #[test]
    fn an_object_that_went_while_it_was_written_stays_gone_and_is_not_made_again() {
        let (mut known, now) = (DpuObject::default(), Instant::now());
        known.watched(Some(dpu("1")));
        assert!(matches!(next(&mut known, now), Ok(Write::Status(..))));
        known.watched(None);
        known.written(dpu("2"), now);
        assert_eq!(version(&known), None);
        assert!(matches!(next(&mut known, now + LONGEST), Err(None)));
    }

    #[test]
    fn one_that_went_while_something_is_bound_is_made_again() {
        let (mut known, now) = (DpuObject::default(), Instant::now());
        let same = |before: &DpuStatus, _| before.clone();
        known.watched(Some(dpu("1")));
        assert!(matches!(next(&mut known, now), Ok(Write::Status(..))));
        known.written(dpu("2"), now);
        known.watched(None);
        let now = now + LONGEST;
        assert!(matches!(known.next(same, 0, now), Err(None)));
        assert!(matches!(known.next(same, 1, now), Ok(Write::Create)));
        known.written(dpu("9"), now);
        assert_eq!(version(&known), Some("9"));
    }

    #[test]
    fn it_is_made_where_it_is_absent_at_the_start_and_tried_less_and_less_often() {
        let (mut known, mut now) = (DpuObject::default(), Instant::now());
        assert!(matches!(next(&mut known, now), Err(None)), "it is not known yet whether there is one");
        known.watched(None);
        for wait in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert!(matches!(next(&mut known, now), Ok(Write::Create)));
            known.failed(now);
            let again = now + Duration::from_secs(wait);
            assert!(matches!(next(&mut known, now), Err(Some(at)) if at == again), "{wait}");
            now = again;
        }
        assert!(matches!(next(&mut known, now), Ok(Write::Create)));
        known.written(dpu("1"), now);
        assert_eq!(version(&known), Some("1"));
    }

    #[test]
    fn it_is_released_when_it_is_being_deleted_and_nothing_is_bound() {
        let (mut known, now) = (DpuObject::default(), Instant::now());
        let mut object = dpu("1");
        object.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
        object.status = Some(DpuStatus::default());
        known.watched(Some(object));
        let same = |before: &DpuStatus, _| before.clone();
        assert!(matches!(known.next(same, 1, now), Err(None)));
        assert!(matches!(known.next(same, 0, now), Ok(Write::Release(_))));
    }
}
