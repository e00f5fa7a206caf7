//! Which devices a set wants: their names, their specs, and how to tell that one was made from the present template.
//! Pure: the DPUs that the set selects are given.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use crate::device::VirtnetDeviceSpec;
use crate::function::{FunctionSpec, VfFunction};
use crate::limits;
use crate::names::SET_LABEL;
use crate::set::{DeviceTemplateSpec, FunctionTemplate, Sizing, TwoSizings, VirtnetDeviceSetSpec};

/// A device that a set wants.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Member {
    /// One of so many, from 0 on. The binder finds a DPU for it.
    Replica(u32),
    /// The VF of this index on this DPU.
    Vf {
        /// The DPU's name.
        dpu: String,
        /// Index of the VF on its PF.
        vf: u16,
    },
}

impl Member {
    /// The device's name in a set of this name: `web-3`, or `tenants-bf3-a-17`. It tells one member of the set from each other,
    /// and is always the same for the same one. One that is too long is made to fit, see [`fitting_name`].
    #[must_use]
    pub fn name(&self, set: &str) -> String {
        let whole = match self {
            Self::Replica(ordinal) => format!("{set}-{ordinal}"),
            Self::Vf { dpu, vf } => format!("{set}-{dpu}-{vf}"),
        };
        fitting_name(whole)
    }

    /// The DPU that it is made for, where that is part of what it is.
    #[must_use]
    pub fn dpu(&self) -> Option<&str> {
        match self {
            Self::Replica(_) => None,
            Self::Vf { dpu, .. } => Some(dpu),
        }
    }
}

/// A name made of others as it is, or where it is longer than a name may be (253 bytes) without its middle, for which there is
/// a hash of all of it at the end. The same one for the same text.
#[must_use]
pub fn fitting_name(whole: String) -> String {
    if whole.len() <= limits::NAME_MAX as usize {
        return whole;
    }
    let hash = short_hash(&whole);
    let kept: String = whole.chars().take(limits::NAME_MAX as usize - hash.len() - 1).collect();
    // A name's parts end in a letter or a digit.
    format!("{}-{hash}", kept.trim_end_matches(['-', '.']))
}

/// The first 16 hexadecimal digits of SHA-256.
fn short_hash(text: &str) -> String {
    Sha256::digest(text).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

impl VirtnetDeviceSetSpec {
    /// The devices that the set wants, in their order: by ordinal, or by DPU and VF.
    ///
    /// `dpus` are the names of the DPUs that it selects, in order and each once.
    ///
    /// # Errors
    /// [`TwoSizings`] where both replicas and perVf are given.
    pub fn members<'a>(&self, dpus: impl IntoIterator<Item = &'a str>) -> Result<Vec<Member>, TwoSizings> {
        Ok(match self.sizing()? {
            Sizing::Replicas(replicas) => (0..replicas).map(Member::Replica).collect(),
            Sizing::PerVf(range) => dpus
                .into_iter()
                .flat_map(|dpu| (range.from..=range.to).map(|vf| Member::Vf { dpu: dpu.to_owned(), vf }))
                .collect(),
        })
    }

    /// The spec of one of its devices.
    #[must_use]
    pub fn device_spec(&self, member: &Member) -> VirtnetDeviceSpec {
        let (dpu, dpu_selector) = match member {
            Member::Replica(_) => (None, Some(self.dpu_selector.clone())),
            Member::Vf { dpu, .. } => (Some(dpu.clone()), None),
        };
        let DeviceTemplateSpec {
            function: _,
            mac,
            mtu,
            queues,
            msix,
            features,
            link_state,
            rebind_policy,
            port,
        } = self.template.spec.clone();
        VirtnetDeviceSpec {
            dpu,
            dpu_selector,
            function: self.device_function(member),
            mac,
            mtu,
            queues,
            msix,
            features,
            link_state,
            rebind_policy,
            port,
        }
    }

    /// The function of one of its devices, which can't be changed.
    #[must_use]
    pub fn device_function(&self, member: &Member) -> FunctionSpec {
        let FunctionTemplate { hotplug, static_, vf } = self.template.spec.function.clone();
        let index = match member {
            Member::Replica(_) => 0,
            Member::Vf { vf, .. } => *vf,
        };
        let vf = vf.map(|template| {
            let pf = self.per_vf.as_ref().map_or(template.pf.unwrap_or_default(), |range| range.pf);
            VfFunction { pf, vf: index, transitional: template.transitional }
        });
        FunctionSpec { hotplug, static_, vf }
    }

    /// The fields in which one of its devices is other than the set wants it: someone else holds them. What the set does not
    /// ask for may be as it likes; where the set does not bind, the DPU is the binder's.
    #[must_use]
    pub fn overridden(&self, member: &Member, found: &VirtnetDeviceSpec) -> Vec<&'static str> {
        fn differs<T: PartialEq>(wanted: Option<&T>, found: Option<&T>) -> bool {
            wanted.is_some() && wanted != found
        }
        let wanted = &self.template.spec;
        // A set: others may add to it.
        let added_to = found.features.as_deref().unwrap_or_default();
        let mut features = wanted.features.iter().flatten();
        let place_differs = match member {
            Member::Replica(_) => {
                ("spec.dpuSelector", found.dpu_selector.as_ref() != Some(&self.dpu_selector))
            }
            Member::Vf { dpu, .. } => ("spec.dpu", found.dpu.as_ref() != Some(dpu)),
        };
        let fields = [
            place_differs,
            ("spec.mac", differs(wanted.mac.as_ref(), found.mac.as_ref())),
            ("spec.mtu", differs(wanted.mtu.as_ref(), found.mtu.as_ref())),
            ("spec.queues", differs(wanted.queues.as_ref(), found.queues.as_ref())),
            ("spec.msix", differs(wanted.msix.as_ref(), found.msix.as_ref())),
            ("spec.features", features.any(|feature| !added_to.contains(feature))),
            ("spec.linkState", wanted.link_state != found.link_state),
            ("spec.rebindPolicy", wanted.rebind_policy != found.rebind_policy),
            ("spec.port", differs(wanted.port.as_ref(), found.port.as_ref())),
        ];
        fields.into_iter().filter(|(_, differs)| *differs).map(|(field, _)| field).collect()
    }

    /// The labels of each of its devices: the template's and the set's own.
    #[must_use]
    pub fn device_labels(&self, set: &str) -> BTreeMap<String, String> {
        let template = self.template.metadata.iter().flat_map(|metadata| metadata.labels.clone());
        template.chain([(SET_LABEL.to_owned(), set.to_owned())]).collect()
    }

    /// A word that is another one whenever something is wanted otherwise of the devices: a hash of the template, of the selector
    /// where they bear it, and of the PF. How many devices there are makes no difference.
    #[must_use]
    pub fn revision(&self) -> String {
        let common = self.device_spec(&match self.per_vf {
            None => Member::Replica(0),
            Some(_) => Member::Vf { dpu: String::new(), vf: 0 },
        });
        // Serialization of these types can't fail: their maps have strings for keys.
        let text = serde_json::to_string(&(&self.template.metadata, common)).unwrap_or_default();
        short_hash(&text)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn set(spec: Value) -> VirtnetDeviceSetSpec {
        serde_json::from_value(spec).unwrap()
    }

    fn hot_plugged(replicas: u32) -> VirtnetDeviceSetSpec {
        set(json!({
            "replicas": replicas, "dpuSelector": {"matchLabels": {"rack": "r1"}},
            "template": {"spec": {"function": {"hotplug": {"uplink": "p1"}}, "mtu": 9000, "port": {"bridge": "ovsbr1"}}},
        }))
    }

    fn vfs() -> VirtnetDeviceSetSpec {
        set(json!({
            "perVf": {"pf": 1, "from": 3, "to": 4}, "dpuSelector": {},
            "template": {"spec": {"function": {"vf": {"transitional": true}}, "features": ["CSUM"]}},
        }))
    }

    #[test]
    fn replicas_are_counted_and_the_binder_finds_their_dpus() {
        let set = hot_plugged(11);
        let members = set.members(["a", "b"]).unwrap();
        let names: Vec<_> = members.iter().map(|member| member.name("web")).collect();
        assert_eq!((names.len(), names[0].as_str(), names[10].as_str()), (11, "web-0", "web-10"));
        let spec = serde_json::to_value(set.device_spec(&members[3])).unwrap();
        let wanted = json!({
            "dpuSelector": {"matchLabels": {"rack": "r1"}}, "function": {"hotplug": {"uplink": "p1"}}, "mtu": 9000,
            "linkState": "Up", "rebindPolicy": "Never", "port": {"bridge": "ovsbr1"},
        });
        assert_eq!(spec, wanted);
    }

    #[test]
    fn there_is_one_for_each_vf_of_the_range_on_each_dpu() {
        let set = vfs();
        let members = set.members(["a", "b-4"]).unwrap();
        let names: Vec<_> = members.iter().map(|member| member.name("t")).collect();
        assert_eq!(names, ["t-a-3", "t-a-4", "t-b-4-3", "t-b-4-4"]);
        let spec = serde_json::to_value(set.device_spec(&members[3])).unwrap();
        let wanted = json!({
            "dpu": "b-4", "function": {"vf": {"pf": 1, "vf": 4, "transitional": true}}, "features": ["CSUM"],
            "linkState": "Up", "rebindPolicy": "Never",
        });
        assert_eq!(spec, wanted);
        assert_eq!(set.members([]).unwrap(), []);
    }

    #[test]
    fn long_names_stay_names_and_differ() {
        let dpu = |end: &str| format!("{}.{end}", ["d".repeat(63).as_str(); 3].join("."));
        let [first, second] = [dpu(&"x".repeat(40)), dpu(&format!("{}y", "x".repeat(39)))]
            .map(|dpu| Member::Vf { dpu, vf: 17 }.name(&"s".repeat(63)));
        assert_ne!(first, second);
        for name in [first, second] {
            let object = json!({"name": name});
            let errors = crate::metadata::validate(
                Some(&object),
                crate::metadata::Scope::Cluster,
                crate::metadata::Names::Subdomains,
            );
            assert!(errors.is_empty(), "{errors:?}");
            assert!(name.len() > 200, "{name}");
        }
    }

    #[test]
    fn a_revision_is_of_what_is_wanted_of_each_device_alone() {
        let set = hot_plugged(3);
        let same = |other: &VirtnetDeviceSetSpec| other.revision() == set.revision();
        assert!(same(&VirtnetDeviceSetSpec { replicas: 7, max_unavailable: 9, ..set.clone() }));
        let changed = |change: &dyn Fn(&mut VirtnetDeviceSetSpec)| {
            let mut other = set.clone();
            change(&mut other);
            other
        };
        assert!(!same(&changed(&|set| set.template.spec.mtu = None)));
        assert!(!same(&changed(&|set| set.dpu_selector = crate::DpuSelector::default())));
        assert!(!same(&changed(&|set| {
            set.template.metadata.get_or_insert_default().labels.insert("app".into(), "web".into());
        })));
        let vfs = vfs();
        let mut moved = vfs.clone();
        moved.per_vf.as_mut().unwrap().from = 0;
        assert_eq!(moved.revision(), vfs.revision(), "the range says which there are");
        moved.per_vf.as_mut().unwrap().pf = 0;
        assert_ne!(moved.revision(), vfs.revision());
        let mut relabelled = vfs.clone();
        relabelled.dpu_selector.match_labels.insert("rack".into(), "r1".into());
        assert_eq!(relabelled.revision(), vfs.revision(), "a VF's device bears no selector");
    }

    /// It is kept on objects: another one for the same would have every device of every set written anew.
    #[test]
    fn a_revision_is_the_same_in_every_build() {
        assert_eq!([hot_plugged(3).revision(), vfs().revision()], ["f6842a78836879ae", "76d9befd801115b6"]);
    }

    #[test]
    fn what_someone_else_holds_is_named_and_what_they_add_is_theirs() {
        let (set, member) = (hot_plugged(1), Member::Replica(0));
        let wanted = set.device_spec(&member);
        let mut found = VirtnetDeviceSpec { dpu: Some("a".into()), msix: Some(10), ..wanted };
        assert!(set.overridden(&member, &found).is_empty());
        found.mtu = Some(1500);
        found.link_state = crate::LinkState::Down;
        assert_eq!(set.overridden(&member, &found), ["spec.mtu", "spec.linkState"]);
        let (set, member) = (vfs(), Member::Vf { dpu: "a".into(), vf: 3 });
        let mut found = set.device_spec(&member);
        found.features = Some(vec!["MQ".parse().unwrap(), "CSUM".parse().unwrap()]);
        assert!(set.overridden(&member, &found).is_empty());
        found.features = Some(vec!["MQ".parse().unwrap()]);
        found.dpu = Some("b".into());
        assert_eq!(set.overridden(&member, &found), ["spec.dpu", "spec.features"]);
    }
}
