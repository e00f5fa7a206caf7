//! A set's plans: cases, and random lives of sets in which never more are disturbed than allowed.

use proptest::prelude::*;
use serde_json::{Value, json};
use virtnet_crds::VirtnetDeviceSetSpec;

use super::*;
use crate::fleet::Kept;

/// A set and what there is of its devices, of others' and of DPUs.
struct World {
    set: Set,
    devices: BTreeMap<String, Device>,
    dpus: BTreeMap<String, Target>,
    held: BTreeMap<String, Option<(Reason, String)>>,
}

fn dpu(name: &str, labels: &Value) -> Target {
    let object = json!({"metadata": {"name": name, "uid": name, "labels": labels}, "spec": {}});
    Target::keep(serde_json::from_value(object).unwrap()).unwrap()
}

fn set(spec: &Value) -> Set {
    let object = json!({
        "metadata": {"namespace": "shop", "name": "web", "uid": "set", "generation": 1}, "spec": spec,
    });
    Set::keep(serde_json::from_value(object).unwrap()).unwrap()
}

fn replicas(replicas: u32, most: u32, mtu: u16) -> Value {
    json!({
        "replicas": replicas, "dpuSelector": {"matchLabels": {"rack": "r1"}}, "maxUnavailable": most,
        "template": {"spec": {"function": {"hotplug": {}}, "mtu": mtu}},
    })
}

fn per_vf(to: u16) -> Value {
    json!({
        "perVf": {"pf": 0, "from": 0, "to": to}, "dpuSelector": {"matchLabels": {"rack": "r1"}},
        "template": {"spec": {"function": {"vf": {}}}},
    })
}

impl World {
    fn new(spec: &Value, dpus: &[&str]) -> Self {
        let rack = json!({"rack": "r1"});
        let dpus = dpus.iter().map(|name| ((*name).to_owned(), dpu(name, &rack))).collect();
        Self { set: set(spec), devices: BTreeMap::new(), dpus, held: BTreeMap::new() }
    }

    fn declare(&mut self, spec: &Value) {
        self.set = set(spec);
    }

    /// A device as the set wants it now, that is not Ready and bound to this DPU.
    fn make(&mut self, member: &Member, dpu: Option<&str>) {
        let name = member.name("web");
        let mut spec = self.set.spec.device_spec(member);
        spec.dpu = member.dpu().or(dpu).map(str::to_owned);
        let object = json!({
            "metadata": {
                "namespace": "shop", "name": name, "uid": name, "generation": 1,
                "labels": {SET_LABEL: "web"},
                "annotations": {virtnet_crds::REVISION_ANNOTATION: self.set.revision},
                "ownerReferences": [{
                    "apiVersion": "v", "kind": "k", "name": "web", "uid": "set", "controller": true,
                }],
            },
            "spec": spec,
        });
        let device = Device::keep(serde_json::from_value(object).unwrap()).unwrap();
        self.devices.insert(name, device);
    }

    fn plan(&self) -> Plan {
        let owned: Vec<_> = self.devices.values().filter(|device| device.set_uid() == Some("set")).collect();
        plan(&Input {
            set: &self.set,
            owned: &owned,
            named: &self.devices.iter().map(|(name, device)| (name.as_str(), device)).collect(),
            dpus: &self.dpus.iter().map(|(name, target)| (name.as_str(), target)).collect(),
            under_way: &BTreeSet::new(),
            held: &self.held,
        })
    }

    /// Carries the plan out, on this DPU where the binder chooses.
    fn carry_out(&mut self, plan: &Plan, dpu: &str) {
        for name in &plan.delete {
            self.devices.remove(name);
        }
        for (name, member) in &plan.change {
            let dpu = self.devices[name].spec.dpu.clone();
            self.make(member, dpu.as_deref());
        }
        for member in &plan.create {
            self.make(member, Some(dpu));
        }
    }

    fn set_ready(&mut self, which: impl Fn(&Device) -> bool) {
        for device in self.devices.values_mut().filter(|device| which(device)) {
            device.readiness = Readiness::Ready;
        }
    }

    /// Carries plans out, each to the end, until there is nothing to do.
    fn settle(&mut self) -> Plan {
        for _ in 0..200 {
            let plan = self.plan();
            if !plan.has_work() {
                return plan;
            }
            self.carry_out(&plan, "a");
            self.set_ready(|_| true);
        }
        panic!("it goes on for ever");
    }

    fn names(&self) -> Vec<&str> {
        self.devices.keys().map(String::as_str).collect()
    }
}

#[test]
fn a_set_makes_its_devices_at_once_and_scales_from_the_end() {
    let mut world = World::new(&replicas(3, 1, 1500), &["a"]);
    assert_eq!(world.plan().create.len(), 3);
    assert_eq!(world.settle().standing.reason, Reason::Ready);
    world.declare(&replicas(5, 1, 1500));
    assert_eq!(world.plan().create, [Member::Replica(3), Member::Replica(4)]);
    world.settle();
    world.declare(&replicas(1, 1, 1500));
    assert_eq!(world.plan().delete.len(), 4, "maxUnavailable is for changes");
    let plan = world.settle();
    assert_eq!(
        (world.names().as_slice(), plan.standing.message.as_str()),
        (&["web-0"][..], "1 device is Ready")
    );
}

#[test]
fn a_template_that_does_not_work_stops_and_a_better_one_goes_on() {
    let mut world = World::new(&replicas(5, 2, 1500), &["a"]);
    world.settle();
    let good = world.set.revision.clone();
    world.declare(&replicas(5, 2, 9000));
    for _ in 0..5 {
        let plan = world.plan();
        world.carry_out(&plan, "a");
    }
    let plan = world.plan();
    assert_eq!((plan.standing.updated, plan.standing.ready), (2, 3));
    assert_eq!(plan.standing.reason, Reason::DevicesNotReady);
    assert_eq!(
        plan.standing.message,
        "2 of 5 devices updated, 3 Ready; 3 wait to be changed; web-0 is new or changed; web-1 is new or changed"
    );
    world.declare(&replicas(5, 2, 4000));
    let plan = world.plan();
    let first: Vec<_> = plan.change.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(first, ["web-0", "web-1"], "those that are out of service already");
    assert_eq!(world.settle().standing.reason, Reason::Ready);
    assert!(world.devices.values().all(|device| device.revision() != Some(good.as_str())));
}

#[test]
fn what_is_stalled_by_the_present_template_is_told() {
    let mut world = World::new(&replicas(3, 1, 1500), &["a"]);
    world.settle();
    let device = world.devices.get_mut("web-1").unwrap();
    device.is_stalled = true;
    device.readiness = Readiness::Not(Some("MtuFixed: it is".into()));
    let standing = world.plan().standing;
    assert_eq!(
        (standing.reason, standing.message.as_str()),
        (Reason::DeviceStalled, "3 of 3 devices updated, 2 Ready; web-1: MtuFixed: it is")
    );
}

#[test]
fn a_function_that_can_not_be_changed_is_made_anew() {
    let mut world = World::new(&replicas(3, 1, 1500), &["a"]);
    world.settle();
    let mut other = replicas(3, 1, 1500);
    other["template"]["spec"]["function"] = json!({"hotplug": {"uplink": "p1"}});
    world.declare(&other);
    assert_eq!((world.plan().delete, world.plan().change), (vec!["web-0".to_owned()], vec![]));
    assert_eq!(world.settle().standing.reason, Reason::Ready);
}

#[test]
fn names_that_are_someone_elses_are_left_alone_and_orphans_come_home() {
    let mut world = World::new(&replicas(3, 1, 1500), &["a"]);
    world.settle();
    for name in ["web-1", "web-2"] {
        world.devices.get_mut(name).unwrap().metadata.owner_references = None;
    }
    world.devices.get_mut("web-1").unwrap().metadata.labels = None;
    let plan = world.plan();
    assert_eq!(plan.change, [("web-2".to_owned(), Member::Replica(2))]);
    assert!((plan.create.is_empty(), plan.delete.is_empty()) == (true, true));
    assert_eq!(plan.standing.reason, Reason::DeviceConflict);
    assert!(
        plan.standing.message.ends_with("web-1 is there and not of this set"),
        "{}",
        plan.standing.message
    );
    world.declare(&replicas(0, 1, 1500));
    assert_eq!(world.plan().delete, ["web-0"], "what is not its own is nothing to it");
}

#[test]
fn a_dpu_that_joins_or_leaves_gains_or_loses_its_devices() {
    let mut world = World::new(&per_vf(1), &["a", "b"]);
    world.settle();
    assert_eq!(world.names(), ["web-a-0", "web-a-1", "web-b-0", "web-b-1"]);
    world.dpus.insert("c".into(), dpu("c", &json!({"rack": "r1"})));
    world.dpus.insert("b".into(), dpu("b", &json!({"rack": "r2"})));
    let plan = world.plan();
    assert_eq!(
        (plan.create.len(), plan.delete.as_slice()),
        (2, &["web-b-0".to_owned(), "web-b-1".to_owned()][..])
    );
    assert_eq!(plan.hinges_on, ["b", "c"].map(str::to_owned).into());
    world.settle();
    // One that is gone, or going, keeps what it has, and what is changed is changed there too.
    world.dpus.remove("c");
    assert!(!world.plan().has_work());
    let mut other = per_vf(1);
    other["template"]["spec"]["mtu"] = json!(9000);
    world.declare(&other);
    assert_eq!(world.settle().standing.updated, 4);
    world.declare(&per_vf(0));
    world.settle();
    assert_eq!(world.names(), ["web-a-0", "web-c-0"]);
    world.dpus.clear();
    world.devices.clear();
    let standing = world.plan().standing;
    assert_eq!(
        (standing.reason, standing.message.as_str()),
        (Reason::NoDpuSelected, "no Dpu has the labels rack=r1")
    );
}

#[test]
fn a_replica_leaves_a_dpu_that_is_no_longer_selected_a_few_at_a_time() {
    let mut world = World::new(&replicas(4, 1, 1500), &["a", "b"]);
    world.settle();
    world.dpus.insert("a".into(), dpu("a", &json!({"rack": "r2"})));
    let plan = world.plan();
    assert_eq!(
        (plan.delete.as_slice(), plan.hinges_on),
        (&["web-0".to_owned()][..], ["a".to_owned()].into())
    );
    world.dpus.remove("a");
    assert!(!world.plan().has_work(), "a DPU that is gone may come back");
}

#[test]
fn what_is_kept_on_a_lost_dpu_holds_up_nobody_and_stays_when_that_comes_back_without_labels() {
    let mut world = World::new(&per_vf(1), &["a", "b"]);
    world.settle();
    world.dpus.remove("b");
    for device in world.devices.values_mut().filter(|device| device.dpu() == Some("b")) {
        device.readiness = Readiness::Unknown("DpuGone: gone".into());
    }
    let mut other = per_vf(1);
    other["template"]["spec"]["mtu"] = json!(9000);
    world.declare(&other);
    let changed: Vec<_> = world.plan().change.into_iter().map(|(name, _)| name).collect();
    assert_eq!(changed, ["web-a-0", "web-b-0", "web-b-1"], "one in service, and those that serve nobody");
    let mut born = dpu("b", &json!({}));
    born.metadata.creation_timestamp = Some(serde_json::from_value(json!("2026-01-02T00:00:00Z")).unwrap());
    for device in world.devices.values_mut() {
        device.metadata.creation_timestamp =
            Some(serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap());
    }
    world.dpus.insert("b".into(), born.clone());
    assert!(world.plan().delete.is_empty(), "somebody will label it");
    born.metadata.labels = Some([("rack".to_owned(), "r2".to_owned())].into());
    world.dpus.insert("b".into(), born);
    assert_eq!(world.plan().delete, ["web-b-0", "web-b-1"]);
}

#[test]
fn what_is_on_a_dpu_that_is_lost_is_replaced_where_that_is_asked_for() {
    let mut spec = replicas(4, 1, 1500);
    spec["onDpuLoss"] = json!("Replace");
    let mut world = World::new(&spec, &["a", "b"]);
    world.settle();
    world.dpus.get_mut("a").unwrap().metadata.deletion_timestamp =
        Some(serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap());
    assert_eq!(world.plan().delete, ["web-0"], "what is in service there goes a few at a time");
    for device in world.devices.values_mut() {
        device.readiness = Readiness::Unknown("DpuGone: gone".into());
    }
    world.dpus.remove("a");
    assert_eq!(world.plan().delete.len(), 4, "what is not goes at once");
    let mut vfs = per_vf(1);
    vfs["onDpuLoss"] = json!("Replace");
    let mut world = World::new(&vfs, &["a", "b"]);
    world.settle();
    world.dpus.remove("b");
    assert_eq!(world.plan().delete, ["web-b-0", "web-b-1"]);
}

#[test]
fn a_field_that_someone_else_holds_is_named() {
    let mut world = World::new(&replicas(1, 1, 1500), &["a"]);
    world.settle();
    world.devices.get_mut("web-0").unwrap().spec.mtu = Some(4000);
    let standing = world.plan().standing;
    assert_eq!(standing.reason, Reason::DeviceConflict);
    assert!(standing.message.ends_with("spec.mtu of web-0 is held by someone else"), "{}", standing.message);
}

#[test]
fn what_could_not_be_written_is_not_ready_and_takes_its_place_among_those_that_are_changed() {
    let mut world = World::new(&replicas(3, 1, 1500), &["a"]);
    world.settle();
    world.declare(&replicas(3, 1, 9000));
    world.held.insert("web-0".into(), None);
    let plan = world.plan();
    assert!(!plan.has_work(), "nobody knows whether web-0 is out of service");
    assert_eq!(plan.standing.reason, Reason::Progressing);
    assert_eq!(
        plan.standing.message,
        "0 of 3 devices updated, 3 Ready; 3 wait to be changed; web-0: not written, and tried again"
    );
    // One that the API refused is as it was.
    world.held.insert("web-0".into(), Some((Reason::DeviceRefused, "no".into())));
    let plan = world.plan();
    assert_eq!(plan.change, [("web-1".to_owned(), Member::Replica(1))]);
    assert_eq!(plan.standing.reason, Reason::DeviceRefused);
    world.held = [("web-9".to_owned(), Some((Reason::DeviceRefused, "no".into())))].into();
    assert_eq!(world.settle().standing.reason, Reason::Ready, "nobody wants web-9 any more");
}

#[test]
fn orphans_that_are_to_be_changed_are_taken_up_a_few_at_a_time() {
    let mut world = World::new(&replicas(3, 1, 1500), &["a"]);
    world.settle();
    world.declare(&replicas(3, 1, 9000));
    for device in world.devices.values_mut() {
        device.metadata.owner_references = None;
    }
    assert_eq!(world.plan().change, [("web-0".to_owned(), Member::Replica(0))]);
    assert_eq!(world.settle().standing.reason, Reason::Ready);
    for device in world.devices.values_mut() {
        device.metadata.owner_references = None;
    }
    let mut other = replicas(3, 1, 9000);
    other["template"]["spec"]["function"] = json!({"hotplug": {"uplink": "p1"}});
    world.declare(&other);
    let plan = world.plan();
    assert!(!plan.has_work(), "it can't be changed, and is not its own to delete");
    assert_eq!(plan.standing.reason, Reason::DeviceConflict);
}

proptest! {
    /// However devices come and go and templates change: what is in service is disturbed only while no more than
    /// maxUnavailable are out of it, and in the end all is as declared.
    #[test]
    fn no_more_than_allowed_are_disturbed(
        size in 1u32..12,
        most in 1u32..5,
        changes in prop::collection::vec((0u32..12, any::<u16>(), any::<u16>(), any::<bool>()), 1..20),
    ) {
        let mut world = World::new(&replicas(size, most, 1500), &["a", "b"]);
        world.settle();
        for (size, ready, lost, redeclare) in changes {
            if redeclare {
                world.declare(&replicas(size, most, 1500 + ready % 4));
            }
            for (index, device) in world.devices.values_mut().enumerate() {
                if lost >> index & 1 == 1 && ready >> index & 1 == 0 {
                    device.readiness = Readiness::Not(Some("HostOff: off".into()));
                }
            }
            let before = world.devices.clone();
            let plan = world.plan();
            let members = world.set.spec.members(["a", "b"]).unwrap();
            let wanted: BTreeSet<_> = members.iter().map(|member| member.name("web")).collect();
            let touched = plan.change.iter().map(|(name, _)| name).chain(&plan.delete);
            let touched: Vec<_> = touched.filter(|name| wanted.contains(*name)).collect();
            let disturbs = touched.iter().any(|name| before[*name].readiness == Readiness::Ready);
            let touched = touched.len();
            world.carry_out(&plan, "a");
            let revision = world.set.revision.clone();
            let of_wanted = || wanted.iter().map(|name| world.devices.get(name));
            let out = of_wanted().filter(|device| device.is_none_or(|device| device.readiness != Readiness::Ready)).count();
            let unproven = of_wanted().flatten().filter(|device| {
                device.readiness != Readiness::Ready && device.revision() == Some(revision.as_str())
            }).count();
            if disturbs {
                prop_assert!(out <= most as usize, "{} are out of service", out);
            }
            if touched > 0 {
                prop_assert!(unproven <= most as usize, "{} are not proven", unproven);
            }
            world.set_ready(|device| ready >> (device.name().as_bytes()[4] % 16) & 1 == 1);
        }
        world.set_ready(|_| true);
        let plan = world.settle();
        prop_assert_eq!(plan.standing.reason, Reason::Ready);
        prop_assert_eq!(plan.standing.updated, world.devices.len());
    }
}

#[test]
fn a_set_of_two_sizes_is_not_understood_and_nothing_is_touched() {
    let mut world = World::new(&replicas(2, 1, 1500), &["a"]);
    world.settle();
    let spec: VirtnetDeviceSetSpec = serde_json::from_value(per_vf(1)).unwrap();
    world.set.spec = VirtnetDeviceSetSpec { replicas: 2, ..spec };
    let plan = world.plan();
    assert!(!plan.has_work());
    assert_eq!((plan.standing.reason, plan.standing.replicas), (Reason::Undecodable, 2));
}
