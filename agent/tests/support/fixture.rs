//! A DPU described briefly: every field has a default, which is a DPU as the guide sets it up, at rest.
//!
//! [`World`] is all that a plan is made from, built of such a description and of objects.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde_json::Value;
use virtnet_agent::{Device, Free, Input, Observed, Part, Uid};
use virtnet_crds::{DpuSpec, Reason, VirtnetDevice};
use virtnet_model::{
    Bdf, BridgeName, Change, ControllerState, EswitchPort, Features, FirmwareState, FirmwareValues, Function,
    FunctionId, FunctionKind, Generation, HostDriver, HostPower, HostState, IfName, Limits, Link, Mac, Mtu,
    Owner, PfId, Port, PortSettings, QueueSize, SfBudget, SfNumber, SubFunction, SwitchState,
    TransitionalLimits, Uplink, VfId, VlanId, Vuid,
};

/// The DPU's name in every fixture.
pub(crate) const DPU: &str = "dpu-0";

/// All that a plan is made from.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) dpu_spec: DpuSpec,
    pub(crate) devices: BTreeMap<Uid, Device>,
    /// As the API server has them, those that can be decoded.
    pub(crate) objects: BTreeMap<Uid, VirtnetDevice>,
    pub(crate) observed: Observed,
    pub(crate) busy: BTreeSet<(Uid, Part)>,
    pub(crate) held: BTreeMap<(Uid, Part), (Reason, String)>,
    pub(crate) free: BTreeMap<Uid, Free>,
    pub(crate) lost: BTreeSet<Uid>,
    pub(crate) refused: BTreeSet<Uid>,
    pub(crate) reported: Option<BTreeSet<(FunctionId, Mac)>>,
    pub(crate) suspects: BTreeSet<(IfName, Owner)>,
}

/// What is observed of a DPU, and what the agent remembers.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct DpuFixture {
    pub(crate) limits: LimitsFixture,
    pub(crate) functions: Vec<FunctionFixture>,
    pub(crate) prepared: Vec<PreparedFixture>,
    /// MACs of hot-plugs that the controller has not ended.
    pub(crate) plugging: BTreeSet<Mac>,
    pub(crate) updating: bool,
    pub(crate) bridges: BTreeSet<BridgeName>,
    pub(crate) ports: BTreeMap<IfName, PortFixture>,
    /// The representors of the functions are there, up and of the function's MTU, but for what is said here; `null`:
    /// there is none.
    pub(crate) links: BTreeMap<IfName, Option<LinkFixture>>,
    pub(crate) host: HostFixture,
    pub(crate) firmware: BTreeMap<EswitchPort, FirmwareFixture>,
    pub(crate) unavailable: Unavailable,
    pub(crate) busy: Vec<BusyFixture>,
    pub(crate) held: Vec<HeldFixture>,
    /// For the MAC of these devices, by uid, it was not looked through the fleet. For that of the others it was.
    pub(crate) unlooked: BTreeSet<String>,
    /// For the MAC of these it was, before they noted it.
    pub(crate) looked_early: BTreeSet<String>,
    /// The MAC of these was another's when it was last looked for.
    pub(crate) lost: BTreeSet<String>,
    /// The static PFs and VFs that were reported as undeclared, with their MACs; absent: nothing can be reported.
    pub(crate) reported: Option<Vec<(PfId, Option<VfId>, Mac)>>,
    pub(crate) suspects: BTreeMap<IfName, OwnerFixture>,
}

impl Default for DpuFixture {
    fn default() -> Self {
        Self {
            limits: LimitsFixture::default(),
            functions: Vec::new(),
            prepared: Vec::new(),
            plugging: BTreeSet::new(),
            updating: false,
            bridges: BTreeSet::from(["ovsbr1".parse().unwrap()]),
            ports: BTreeMap::new(),
            links: BTreeMap::new(),
            host: HostFixture::default(),
            firmware: BTreeMap::new(),
            unavailable: Unavailable::default(),
            busy: Vec::new(),
            held: Vec::new(),
            unlooked: BTreeSet::new(),
            looked_early: BTreeSet::new(),
            lost: BTreeSet::new(),
            reported: None,
            suspects: BTreeMap::new(),
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct LimitsFixture {
    pub(crate) later: bool,
    pub(crate) emulation: bool,
    pub(crate) slots: u16,
    pub(crate) static_pfs: u16,
    pub(crate) vfs_per_pf: u16,
    /// PF_TOTAL_SF by port.
    pub(crate) sfs: BTreeMap<EswitchPort, u32>,
    /// SFs of other applications by port.
    pub(crate) foreign_sfs: BTreeMap<EswitchPort, u32>,
    pub(crate) uplinks: Vec<Uplink>,
    pub(crate) pf_msix: u16,
    pub(crate) vf_msix: u16,
    pub(crate) max_virtq: u16,
    pub(crate) max_queue_size: QueueSize,
    pub(crate) transitional_hotplug: u16,
    pub(crate) transitional_vf: bool,
}

impl Default for LimitsFixture {
    fn default() -> Self {
        Self {
            later: false,
            emulation: true,
            slots: 16,
            static_pfs: 4,
            vfs_per_pf: 126,
            sfs: BTreeMap::from([(EswitchPort::P0, 508), (EswitchPort::P1, 1)]),
            foreign_sfs: BTreeMap::new(),
            uplinks: vec![Uplink::P0, Uplink::P1],
            pf_msix: 10,
            vf_msix: 10,
            max_virtq: 256,
            max_queue_size: 4096.try_into().unwrap(),
            transitional_hotplug: 0,
            transitional_vf: false,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    #[default]
    HotPlug,
    Static,
    Vf,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct FunctionFixture {
    #[serde(default)]
    pub(crate) kind: Kind,
    pub(crate) pf: PfId,
    pub(crate) vf: Option<VfId>,
    pub(crate) mac: Mac,
    pub(crate) vuid: Option<Vuid>,
    /// By default the first of its kind and index.
    pub(crate) sf: Option<SfNumber>,
    /// It came to be when no SF was left.
    #[serde(default)]
    pub(crate) without_sf: bool,
    pub(crate) port: Option<EswitchPort>,
    /// The host has not enumerated it.
    #[serde(default)]
    pub(crate) unseen: bool,
    /// A driver has set DRIVER_OK.
    #[serde(default)]
    pub(crate) in_use: bool,
    pub(crate) mtu: Option<Mtu>,
    pub(crate) queues: Option<u16>,
    pub(crate) size: Option<QueueSize>,
    pub(crate) msix: Option<u16>,
    pub(crate) features: Option<Features>,
    #[serde(default)]
    pub(crate) transitional: bool,
    pub(crate) socket: Option<PathBuf>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct PreparedFixture {
    pub(crate) pf: PfId,
    pub(crate) vf: VfId,
    pub(crate) mac: Option<Mac>,
    pub(crate) mtu: Option<Mtu>,
    pub(crate) msix: Option<u16>,
    pub(crate) size: Option<QueueSize>,
    pub(crate) features: Option<Features>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct PortFixture {
    /// `ovsbr1` by default.
    pub(crate) bridge: Option<BridgeName>,
    #[serde(rename = "type")]
    pub(crate) type_: String,
    pub(crate) tag: Option<VlanId>,
    pub(crate) trunks: BTreeSet<VlanId>,
    /// Whose marks it bears; absent: someone else's port.
    pub(crate) owner: Option<OwnerFixture>,
    /// The user's keys that we wrote.
    pub(crate) keys: BTreeMap<String, String>,
    /// Keys of others.
    pub(crate) foreign: BTreeMap<String, String>,
    /// 1 by default; 0: vswitchd has not tried yet.
    pub(crate) ofport: Option<i32>,
    pub(crate) error: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OwnerFixture {
    pub(crate) device: String,
    pub(crate) uid: String,
    /// This DPU by default.
    pub(crate) dpu: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct LinkFixture {
    pub(crate) up: bool,
    pub(crate) mtu: u32,
    /// By default that of the SF whose representor has this name, if any.
    pub(crate) phys_port_name: Option<String>,
    pub(crate) promiscuity: Option<u32>,
}

impl Default for LinkFixture {
    fn default() -> Self {
        Self { up: true, mtu: 1500, phys_port_name: None, promiscuity: None }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Power {
    Unknown,
    Off,
    Booting,
    #[default]
    Running,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct HostFixture {
    pub(crate) power: Power,
    /// By default as many as there are VFs, of each static PF.
    pub(crate) num_vfs: Option<BTreeMap<PfId, u16>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct FirmwareFixture {
    pub(crate) current: FirmwareValues,
    /// What the next boot will have otherwise.
    pub(crate) next: FirmwareValues,
}

/// Why a part can't be read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Unavailable {
    pub(crate) controller: Option<String>,
    pub(crate) switch: Option<String>,
    pub(crate) links: Option<String>,
    pub(crate) firmware: Option<String>,
    pub(crate) host: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) enum PartFixture {
    Object,
    Function,
    Representor,
    Port,
    Mac,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BusyFixture {
    /// The device's uid.
    pub(crate) uid: String,
    pub(crate) part: PartFixture,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HeldFixture {
    /// The device's uid.
    pub(crate) uid: String,
    pub(crate) part: PartFixture,
    pub(crate) reason: String,
    pub(crate) message: String,
}

impl World {
    /// A DPU and its objects, as they come from the API server.
    pub(crate) fn new(fixture: &DpuFixture, dpu_spec: DpuSpec, objects: Vec<Value>) -> Self {
        let mut devices = BTreeMap::new();
        let mut decoded = BTreeMap::new();
        for value in objects {
            let metadata: ObjectMeta =
                serde_json::from_value(value.get("metadata").cloned().unwrap_or_default()).unwrap();
            let device = match serde_json::from_value::<VirtnetDevice>(value) {
                Ok(object) => {
                    let device = Device::parse(&object);
                    decoded.insert(device.uid.clone(), object);
                    device
                }
                Err(error) => Device::undecodable(&metadata, &error.to_string()),
            };
            assert!(!device.uid.as_str().is_empty(), "{} has no uid", device.key);
            let before = devices.insert(device.uid.clone(), device);
            assert!(before.is_none(), "two objects have the uid {}", before.unwrap().uid);
        }
        let looked = devices.values().filter(|device| !fixture.unlooked.contains(device.uid.as_str()));
        let free = looked.filter_map(|device| {
            let noted = !fixture.looked_early.contains(device.uid.as_str());
            Some((device.uid.clone(), Free { mac: device.wanted_mac()?, noted }))
        });
        let free = free.collect();
        let refused = devices.values().filter(|device| device.refused).map(|device| device.uid.clone());
        let refused = refused.collect();
        let key = |uid: &str, part| (Uid::from(uid), part_of(part));
        Self {
            dpu_spec,
            devices,
            objects: decoded,
            observed: fixture.observed(),
            busy: fixture.busy.iter().map(|busy| key(&busy.uid, busy.part)).collect(),
            held: fixture
                .held
                .iter()
                .map(|held| (key(&held.uid, held.part), (reason(&held.reason), held.message.clone())))
                .collect(),
            free,
            refused,
            lost: fixture.lost.iter().map(|uid| Uid::from(uid.as_str())).collect(),
            reported: fixture.reported.as_ref().map(|functions| {
                let named = |(pf, vf, mac): &(PfId, Option<VfId>, Mac)| {
                    (vf.map_or_else(|| FunctionId::pf(*pf), |vf| FunctionId::vf(*pf, vf)), *mac)
                };
                functions.iter().map(named).collect()
            }),
            suspects: fixture.suspects.iter().map(|(name, owner)| (name.clone(), owner.build())).collect(),
        }
    }

    /// What the planner takes.
    pub(crate) fn input(&self) -> Input<'_> {
        Input {
            dpu: DPU,
            dpu_spec: &self.dpu_spec,
            devices: &self.devices,
            observed: &self.observed,
            busy: &self.busy,
            held: &self.held,
            free: &self.free,
            lost: &self.lost,
            refused: &self.refused,
            reported: self.reported.as_ref(),
            suspects: &self.suspects,
        }
    }
}

fn part_of(part: PartFixture) -> Part {
    match part {
        PartFixture::Object => Part::Object,
        PartFixture::Function => Part::Function,
        PartFixture::Representor => Part::Representor,
        PartFixture::Port => Part::Port,
        PartFixture::Mac => Part::Mac,
    }
}

fn reason(text: &str) -> Reason {
    let found = Reason::ALL.iter().copied().find(|reason| reason.as_str() == text);
    found.unwrap_or_else(|| panic!("{text} is no reason"))
}

impl OwnerFixture {
    fn build(&self) -> Owner {
        Owner {
            dpu: self.dpu.clone().unwrap_or_else(|| DPU.to_owned()),
            device: self.device.clone(),
            uid: self.uid.clone(),
        }
    }
}

impl DpuFixture {
    fn observed(&self) -> Observed {
        let functions: Vec<_> = (0u16..)
            .zip(&self.functions)
            .map(|(index, function)| function.build(index, &self.limits))
            .collect();
        let links = self.links(&functions);
        let host = self.host(&functions);
        let firmware = self.firmware.iter().map(|(port, values)| (*port, values.build())).collect();
        let ports = self.ports.iter().map(|(name, port)| (name.clone(), port.build())).collect();
        let switch = SwitchState { bridges: self.bridges.clone(), ports };
        let controller = self.controller(functions);
        Observed {
            controller: or_error(&self.unavailable.controller, controller),
            switch: or_error(&self.unavailable.switch, switch),
            links: or_error(&self.unavailable.links, links),
            firmware: or_error(&self.unavailable.firmware, firmware),
            host: or_error(&self.unavailable.host, host),
        }
    }

    fn controller(&self, functions: Vec<Function>) -> ControllerState {
        let limits = self.limits.build(&functions);
        let prepared = self.prepared.iter().map(|prepared| {
            let PreparedFixture { pf, vf, mac, mtu, msix, size, features } = prepared.clone();
            ((pf, vf), Change { mac, mtu, features, num_msix: msix, queue_size: size })
        });
        let count = functions.len();
        let functions: BTreeMap<_, _> =
            functions.into_iter().map(|function| (function.id, function)).collect();
        assert_eq!(functions.len(), count, "two functions have one index");
        ControllerState {
            functions,
            prepared: prepared.collect(),
            plugging: self.plugging.clone(),
            limits,
            version: "1.0.9".to_owned(),
            updating: self.updating,
            restart_required: None,
        }
    }

    fn links(&self, functions: &[Function]) -> BTreeMap<IfName, Link> {
        let mut links = BTreeMap::new();
        for (function, sf) in functions.iter().filter_map(|function| Some((function, function.sf.as_ref()?)))
        {
            let said = self.links.get(&sf.representor);
            let link = match said {
                Some(None) => continue,
                Some(Some(link)) => link.clone(),
                None => LinkFixture { mtu: u32::from(function.mtu), ..LinkFixture::default() },
            };
            let name = link.phys_port_name.unwrap_or_else(|| sf.phys_port_name());
            links.insert(
                sf.representor.clone(),
                Link {
                    phys_port_name: Some(name),
                    phys_switch_id: None,
                    up: link.up,
                    mtu: link.mtu,
                    promiscuity: link.promiscuity,
                    ..Link::default()
                },
            );
        }
        for (name, link) in self.links.iter().filter_map(|(name, link)| Some((name, link.as_ref()?))) {
            links.entry(name.clone()).or_insert_with(|| Link {
                phys_port_name: link.phys_port_name.clone(),
                up: link.up,
                mtu: link.mtu,
                promiscuity: link.promiscuity,
                ..Link::default()
            });
        }
        links
    }

    fn host(&self, functions: &[Function]) -> HostState {
        let vfs_of = |pf: PfId| {
            let vfs = functions.iter().filter(|function| function.id.vf.is_some() && function.id.pf == pf);
            u16::try_from(vfs.count()).unwrap()
        };
        let static_pfs = functions.iter().filter(|function| function.kind == FunctionKind::Static);
        HostState {
            power: match self.host.power {
                Power::Unknown => HostPower::Unknown,
                Power::Off => HostPower::Off,
                Power::Booting => HostPower::Booting,
                Power::Running => HostPower::Running,
            },
            num_vfs: self.host.num_vfs.clone().unwrap_or_else(|| {
                static_pfs.map(|function| (function.id.pf, vfs_of(function.id.pf))).collect()
            }),
        }
    }
}

fn or_error<T>(error: &Option<String>, state: T) -> Result<T, String> {
    error.clone().map_or(Ok(state), Err)
}

impl LimitsFixture {
    fn build(&self, functions: &[Function]) -> Limits {
        let used = |port| {
            let sfs = functions.iter().filter_map(|function| function.sf.as_ref());
            u32::try_from(sfs.filter(|sf| sf.port == port).count()).unwrap()
        };
        let sfs = self.sfs.iter().map(|(port, total)| {
            let foreign = self.foreign_sfs.get(port).copied().unwrap_or_default();
            (*port, SfBudget { total: *total, used: used(*port), foreign })
        });
        Limits {
            generation: if self.later { Generation::Later } else { Generation::Guide },
            emulation: self.emulation,
            hotplug_slots: self.slots,
            static_pfs: self.static_pfs,
            vfs_per_pf: self.vfs_per_pf,
            sfs: sfs.collect(),
            uplinks: self.uplinks.clone(),
            static_uplink: self.uplinks[0],
            pf_msix: self.pf_msix,
            vf_msix: self.vf_msix,
            max_virtq: self.max_virtq,
            max_queue_size: self.max_queue_size,
            transitional: TransitionalLimits { hotplug: self.transitional_hotplug, vf: self.transitional_vf },
            features: Features::controller_default(),
        }
    }
}

impl FunctionFixture {
    fn build(&self, index: u16, limits: &LimitsFixture) -> Function {
        let pf = self.pf.get();
        let (kind, vuid, number) = match (self.kind, self.vf) {
            (Kind::Static, None) => (FunctionKind::Static, format!("VNETS0D0F{pf}"), 1000 + pf),
            (Kind::Vf, Some(vf)) => {
                let vuid = format!("VNETS0D0F{pf}VF{}", vf.get() + 1);
                (FunctionKind::Vf, vuid, 3000 + pf * limits.vfs_per_pf + vf.get())
            }
            (Kind::HotPlug, None) => {
                let slot = pf.checked_sub(limits.static_pfs).expect("hot-plugged PFs follow the static ones");
                (FunctionKind::HotPlug, format!("VNETS{}D0F0", slot + 1), 2000 + slot)
            }
            (kind, vf) => panic!("{kind:?} with VF index {vf:?}"),
        };
        let number = self.sf.unwrap_or_else(|| u32::from(number).try_into().unwrap());
        let port = self.port.unwrap_or(EswitchPort::P0);
        let parent = format!("mlx5_{}", port.index());
        let num_msix =
            self.msix.unwrap_or(if kind == FunctionKind::Vf { limits.vf_msix } else { limits.pf_msix });
        Function {
            id: FunctionId { pf: self.pf, vf: self.vf },
            kind,
            vuid: self.vuid.clone().unwrap_or_else(|| vuid.parse().unwrap()),
            bdf: Bdf::from_raw(0x8500 + index).filter(|_| !self.unseen),
            mac: self.mac,
            mtu: self.mtu.unwrap_or(Mtu::DEFAULT),
            max_queues: self.queues.unwrap_or((num_msix - 1).min(limits.max_virtq)),
            max_queue_size: self.size.unwrap_or(256.try_into().unwrap()),
            num_msix,
            features: self.features.clone().unwrap_or_else(Features::controller_default),
            transitional: self.transitional,
            driver: HostDriver { in_use: self.in_use, seen: !self.unseen },
            negotiated: None,
            config_vector: None,
            migrating: false,
            vfs: Vec::new(),
            sf: (!self.without_sf).then(|| SubFunction::named(port, number, &parent)),
            socket: self.socket.clone(),
        }
    }
}

impl PortFixture {
    fn build(&self) -> Port {
        let bridge = self.bridge.clone().unwrap_or_else(|| "ovsbr1".parse().unwrap());
        let mut external_ids = self.foreign.clone();
        if let Some(owner) = &self.owner {
            let settings = PortSettings {
                bridge: bridge.clone(),
                interface_type: self.type_.clone(),
                tag: self.tag,
                trunks: self.trunks.clone(),
                external_ids: self.keys.clone(),
                owner: owner.build(),
            };
            external_ids.extend(settings.marked_external_ids());
        }
        Port {
            bridge,
            interface_type: self.type_.clone(),
            tag: self.tag.map(VlanId::get),
            trunks: self.trunks.iter().map(|trunk| trunk.get()).collect(),
            external_ids,
            ofport: Some(self.ofport.unwrap_or(1)).filter(|ofport| *ofport != 0),
            error: self.error.clone(),
        }
    }
}

impl FirmwareFixture {
    fn build(&self) -> FirmwareState {
        let mut next_boot = self.current.clone();
        next_boot.extend(self.next.clone());
        FirmwareState { current: self.current.clone(), next_boot }
    }
}
