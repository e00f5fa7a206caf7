//! A fleet in turmoil: some DPUs, two operators that both act, people that change things, programs that are killed, ways to the
//! API on which everything goes wrong; and what must hold meanwhile and in the end. On any API, under any clock.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use futures::future::BoxFuture;
use http::{Method, StatusCode};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use virtnet_agent::{Clock, Config, Metrics, Parts, Uid, derived_mac};
use virtnet_crds::{API_VERSION, Dpu, VirtnetDevice, VirtnetDeviceSet, manager, noted_mac};
use virtnet_model::{FunctionKind, Mac};
use virtnet_operator::{Leadership, Metrics as OperatorMetrics};
use virtnet_sim::{Effect, FirmwareConfig, Sim, SimConfig, When};

use crate::faulty_way::{Fault, FaultyWay};
use crate::world::reason;

/// Small DPUs, so that room is fought for.
const FIRMWARE: &str =
    "PCI_SWITCH_EMULATION_NUM_PORT=4,VIRTIO_NET_EMULATION_NUM_PF=1,VIRTIO_NET_EMULATION_NUM_VF=3";
const SLOTS: usize = 4;
/// The set of each fleet.
const SET: &str = "web";
/// How many MACs are declared: fewer than there are devices that declare one.
const MACS: u8 = 4;
/// Reasons that a device may have in the end: what it wants is not to be had, or it waits for a person.
const LASTING: [&str; 13] = [
    "NoFreeSlot",
    "SfExhausted",
    "NoDpuFits",
    "NoDpuSelected",
    "MacClaimed",
    "FunctionClaimed",
    "VfAbsent",
    "NoSuchPf",
    "VfOutOfRange",
    "RebindPending",
    "ReplugPending",
    "DriverLoaded",
    "MtuFixed",
];

/// How long things take.
#[derive(Clone, Copy, Debug)]
pub struct Tempo {
    /// For how long things go on happening.
    pub turmoil: Duration,
    /// The longest between two of them.
    pub pause: Duration,
    /// How long it may take to come to rest.
    pub recovery: Duration,
    /// How long nothing must then be written.
    pub silence: Duration,
}

/// Where the fleet is.
#[derive(Clone)]
pub struct Ground {
    /// A client without faults, of the people; its default namespace is the fleet's.
    pub client: Client,
    /// The clients of programs by their names, where they have clients of their own.
    pub clients: BTreeMap<String, Client>,
    /// The time of day.
    pub clock: Clock,
    /// The namespace of the Leases.
    pub leases: &'static str,
    /// Tells this fleet's DPUs and MACs from those of others on the same API.
    pub number: u16,
}

impl Ground {
    /// The names of a fleet's DPUs, by which its agents go too.
    #[must_use]
    pub fn dpus(number: u16) -> [String; 3] {
        ["a", "b", "c"].map(|letter| format!("f{number}-{letter}"))
    }

    /// The names of its operators.
    #[must_use]
    pub fn operators() -> [String; 2] {
        ["operator-0", "operator-1"].map(str::to_owned)
    }

    fn client_of(&self, program: &str) -> &Client {
        self.clients.get(program).unwrap_or(&self.client)
    }
}

impl std::fmt::Debug for Ground {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ground").field("number", &self.number).finish_non_exhaustive()
    }
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Devices at the end, those of the set among them.
    pub devices: usize,
    /// How many of them were Ready.
    pub ready: usize,
    /// How many waited for a MAC.
    pub claimed: usize,
    /// How often a program was killed.
    pub deaths: usize,
}

/// A program, with a way to the API of its own.
struct Program {
    way: FaultyWay,
    begin: Box<dyn Fn(Client) -> BoxFuture<'static, ()> + Send>,
    task: Option<JoinHandle<()>>,
    /// When it is started again, or its way is mended.
    back: Option<Instant>,
}

impl Program {
    fn new(client: &Client, begin: impl Fn(Client) -> BoxFuture<'static, ()> + Send + 'static) -> Self {
        let way = FaultyWay::new(client.clone());
        Self { way, begin: Box::new(begin), task: None, back: None }
    }

    fn start(&mut self) {
        if self.task.is_none() {
            self.task = Some(tokio::spawn((self.begin)(self.way.client())));
        }
    }

    async fn kill(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            // It was cancelled: that is what was wanted.
            let _ = task.await;
        }
    }

    /// It ended by itself, which none of them does.
    fn has_ended(&self) -> bool {
        self.task.as_ref().is_some_and(JoinHandle::is_finished)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// A fleet, and what people want of it.
struct Turmoil {
    rng: ChaCha8Rng,
    ground: Ground,
    sims: BTreeMap<String, Sim>,
    programs: BTreeMap<String, Program>,
    /// Names of devices that were made and not deleted, those of the set apart.
    wanted: BTreeSet<String>,
    made: usize,
    replicas: Option<usize>,
    /// MACs of functions that someone plugged by hand, and on which DPU.
    foreign: BTreeMap<Mac, String>,
    deaths: usize,
    trace: Vec<String>,
    begun: Instant,
}

/// Plays the story of a seed. With the failure comes what happened, in order.
pub async fn play(seed: u64, ground: Ground, tempo: Tempo) -> anyhow::Result<Outcome> {
    let mut turmoil = Turmoil::new(seed, ground)?;
    let result = turmoil.tell(tempo).await;
    for program in turmoil.programs.values_mut() {
        program.kill().await;
    }
    result.with_context(|| format!("seed {seed}; what happened:\n{}", turmoil.trace.join("\n")))
}

impl Turmoil {
    fn new(seed: u64, ground: Ground) -> anyhow::Result<Self> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut sims = BTreeMap::new();
        let mut programs = BTreeMap::new();
        for (index, name) in (0u8..).zip(Ground::dpus(ground.number)) {
            let sfs = rng.random_range(6..12);
            let [high, low] = ground.number.to_be_bytes();
            let config = SimConfig {
                seed,
                firmware: FirmwareConfig::guide_with(&format!("{FIRMWARE},PF_TOTAL_SF={sfs}"))?,
                base_mac: Mac::new([0x0c, 0xc4, high, low, index + 1, 0])?,
                autoprobe: rng.random(),
                ..SimConfig::default()
            };
            let sim = Sim::new(config);
            let (parts, clock) = (Parts::from(&sim), ground.clock.clone());
            let config = Config { dpu: name.clone(), lease_namespace: ground.leases.to_owned() };
            let agent = Program::new(ground.client_of(&name), move |client| {
                let (config, parts, clock) = (config.clone(), parts.clone(), clock.clone());
                Box::pin(virtnet_agent::run(config, client, parts, clock, Metrics::default()))
            });
            programs.insert(name.clone(), agent);
            sims.insert(name, sim);
        }
        for name in Ground::operators() {
            let (leases, clock, identity) = (ground.leases.to_owned(), ground.clock.clone(), name.clone());
            let operator = Program::new(ground.client_of(&name), move |client| {
                let config = virtnet_operator::Config {
                    lease_namespace: leases.clone(),
                    identity: identity.clone(),
                    board: None,
                };
                let clock = clock.clone();
                // Each believes to lead.
                Box::pin(async move {
                    let leadership = Leadership::of_one();
                    let metrics = OperatorMetrics::default();
                    virtnet_operator::run(config, client, clock, metrics, &leadership).await;
                })
            });
            programs.insert(name, operator);
        }
        Ok(Self {
            rng,
            ground,
            sims,
            programs,
            wanted: BTreeSet::new(),
            made: 0,
            replicas: None,
            foreign: BTreeMap::new(),
            deaths: 0,
            trace: Vec::new(),
            begun: Instant::now(),
        })
    }

    fn note(&mut self, what: impl Display) {
        self.trace.push(format!("{:>8} ms: {what}", self.begun.elapsed().as_millis()));
    }

    fn devices(&self) -> Api<VirtnetDevice> {
        Api::default_namespaced(self.ground.client.clone())
    }

    fn sets(&self) -> Api<VirtnetDeviceSet> {
        Api::default_namespaced(self.ground.client.clone())
    }

    async fn list(&self) -> anyhow::Result<Vec<VirtnetDevice>> {
        Ok(self.devices().list(&ListParams::default()).await?.items)
    }

    async fn tell(&mut self, tempo: Tempo) -> anyhow::Result<Outcome> {
        // Someone has one of the MACs already, on a function that no object declares.
        if self.rng.random_bool(0.3) {
            let (dpu, mac) = (self.any_dpu(), self.any_mac()?);
            self.note(format_args!("{mac} is plugged by hand on {dpu}"));
            self.sims[&dpu].plug_foreign(mac).await?;
            self.foreign.insert(mac, dpu);
        }
        for program in self.programs.values_mut() {
            program.start();
        }
        for dpu in self.sims.keys() {
            self.label(dpu).await?;
        }
        // Of a function that no agent has told of yet nobody can know.
        while !self.are_reported().await? {
            self.watch_over(Duration::from_millis(100)).await?;
        }
        for _ in 0..self.rng.random_range(4..10) {
            self.create().await?;
        }
        let end = Instant::now() + tempo.turmoil;
        while Instant::now() < end {
            let longest = u64::try_from(tempo.pause.as_millis())?;
            let pause = Duration::from_millis(self.rng.random_range(0..longest));
            self.watch_over(pause).await?;
            self.happen(tempo).await?;
        }
        self.calm().await;
        let recovered = Instant::now() + tempo.recovery;
        let mut last = BTreeMap::new();
        let mut since = Instant::now();
        while since.elapsed() < tempo.silence {
            ensure!(Instant::now() < recovered, "it does not come to rest: {:?}", self.standing().await?);
            self.watch_over(tempo.silence / 20).await?;
            let versions = self.versions().await?;
            if versions != last {
                let changed = versions.iter().filter(|(name, version)| last.get(*name) != Some(version));
                let changed: Vec<_> = changed.map(|(name, _)| name.as_str()).collect();
                self.note(format_args!("changed: {changed:?}"));
                (last, since) = (versions, Instant::now());
            }
        }
        self.check_rest().await
    }

    /// Whether the DPUs tell of what was plugged by hand.
    async fn are_reported(&self) -> anyhow::Result<bool> {
        let dpus: Api<Dpu> = Api::all(self.ground.client.clone());
        for (mac, dpu) in &self.foreign {
            let status = dpus.get_opt(dpu).await?.and_then(|dpu| dpu.status).unwrap_or_default();
            let mut macs = status.undeclared.iter().filter_map(|function| function.mac.as_deref());
            if !macs.any(|told| told.parse() == Ok(*mac)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Its DPUs are selected by its devices, and no others.
    async fn label(&self, dpu: &str) -> anyhow::Result<()> {
        let dpus: Api<Dpu> = Api::all(self.ground.client.clone());
        let body = json!({
            "apiVersion": API_VERSION, "kind": "Dpu",
            "metadata": {"name": dpu, "labels": {"fleet": self.ground.number.to_string()}}, "spec": {},
        });
        dpus.patch(dpu, &PatchParams::apply("person"), &Patch::Apply(body)).await?;
        Ok(())
    }

    fn any_dpu(&mut self) -> String {
        let number = self.rng.random_range(0..self.sims.len());
        self.sims.keys().nth(number).cloned().unwrap_or_default()
    }

    /// One of a few MACs, which are this fleet's own.
    fn any_mac(&mut self) -> anyhow::Result<Mac> {
        let [high, low] = self.ground.number.to_be_bytes();
        Ok(Mac::new([0x0c, 0xc4, high, low, 0, self.rng.random_range(1..=MACS)])?)
    }

    async fn create(&mut self) -> anyhow::Result<()> {
        let name = format!("d{}", self.made);
        self.made += 1;
        let mut spec = json!({"rebindPolicy": if self.rng.random() { "Never" } else { "IfIdle" }});
        spec["function"] = match self.rng.random_range(0..10) {
            0 => json!({"static": {"pf": 0}}),
            1 => json!({"vf": {"pf": 0, "vf": self.rng.random_range(0..4)}}),
            _ => {
                // The others can't be plugged anew.
                if self.rng.random() {
                    spec["rebindPolicy"] = json!("Always");
                }
                json!({"hotplug": {}})
            }
        };
        if self.rng.random_bool(0.3) {
            spec["dpu"] = json!(self.any_dpu());
        } else {
            spec["dpuSelector"] = self.selector();
        }
        if self.rng.random_bool(0.5) {
            spec["mac"] = json!(self.any_mac()?.to_string());
        }
        if self.rng.random_bool(0.5) {
            spec["port"] = json!({"bridge": "ovsbr1"});
        }
        self.note(format_args!("create {name} {spec}"));
        let object = json!({
            "apiVersion": API_VERSION, "kind": "VirtnetDevice", "metadata": {"name": name}, "spec": spec,
        });
        self.devices().create(&PostParams::default(), &serde_json::from_value(object)?).await?;
        self.wanted.insert(name);
        Ok(())
    }

    fn selector(&self) -> Value {
        json!({"matchLabels": {"fleet": self.ground.number.to_string()}})
    }

    fn any_wanted(&mut self) -> Option<String> {
        let names: Vec<_> = self.wanted.iter().cloned().collect();
        names.choose(&mut self.rng).cloned()
    }

    /// One of the things that happen.
    async fn happen(&mut self, tempo: Tempo) -> anyhow::Result<()> {
        match self.rng.random_range(0..24) {
            0..=3 => self.create().await?,
            4..=6 => {
                if let Some(name) = self.any_wanted() {
                    self.note(format_args!("delete {name}"));
                    self.wanted.remove(&name);
                    self.devices().delete(&name, &DeleteParams::default()).await?;
                }
            }
            7..=9 => self.edit().await?,
            10..=11 => self.scale().await?,
            12..=15 => self.kill(tempo).await,
            16..=20 => self.harm(tempo),
            21 => {
                let dpu = self.any_dpu();
                self.note(format_args!("power cycle of {dpu}"));
                self.sims[&dpu].power_cycle().await;
                // What was plugged by hand doesn't come back by itself.
                self.foreign.retain(|_, on| *on != dpu);
            }
            22 => {
                let dpu = self.any_dpu();
                let effect = *[Effect::Hotplug, Effect::Unplug, Effect::Modify, Effect::SwitchApply]
                    .choose(&mut self.rng)
                    .unwrap_or(&Effect::Hotplug);
                let when = if self.rng.random() { When::Before } else { When::After };
                self.note(format_args!("{effect:?} fails on {dpu}, {when:?}"));
                self.sims[&dpu].fail_next(effect, when, 2);
            }
            _ => {
                let dpu = self.any_dpu();
                self.note(format_args!("the controller of {dpu} is cut off"));
                self.sims[&dpu].cut_off_controller(tempo.pause);
            }
        }
        Ok(())
    }

    async fn edit(&mut self) -> anyhow::Result<()> {
        let Some(name) = self.any_wanted() else { return Ok(()) };
        let change = match self.rng.random_range(0..4) {
            0..=1 => json!({"mac": self.any_mac()?.to_string()}),
            2 => json!({"mtu": self.rng.random_range(1400..1500)}),
            _ => {
                // A person binds what waits.
                let device = self.devices().get(&name).await?;
                if device.spec.dpu.is_some() {
                    return Ok(());
                }
                json!({"dpu": self.any_dpu()})
            }
        };
        self.note(format_args!("edit {name}: {change}"));
        let patch = Patch::Merge(json!({"spec": change}));
        match self.devices().patch(&name, &PatchParams::default(), &patch).await {
            // It was bound meanwhile, and a device that is in service stays where it is.
            Err(kube::Error::Api(status)) if status.code == 422 => Ok(()),
            result => {
                result?;
                Ok(())
            }
        }
    }

    async fn scale(&mut self) -> anyhow::Result<()> {
        if self.replicas.is_some() && self.rng.random_bool(0.2) {
            self.note("delete the set");
            self.replicas = None;
            self.sets().delete(SET, &DeleteParams::default()).await?;
            // Another of its name would be another set, and take up what this one has left: that is not looked at here.
            while self.sets().get_opt(SET).await?.is_some() {
                self.watch_over(Duration::from_millis(100)).await?;
            }
            return Ok(());
        }
        let replicas = self.rng.random_range(0..5);
        let mtu = self.rng.random_range(1500..1503);
        self.note(format_args!("scale the set to {replicas}, of MTU {mtu}"));
        self.replicas = Some(replicas);
        let body = json!({
            "apiVersion": API_VERSION, "kind": "VirtnetDeviceSet", "metadata": {"name": SET},
            "spec": {
                "replicas": replicas, "dpuSelector": self.selector(), "maxUnavailable": 2,
                "template": {"spec": {"function": {"hotplug": {}}, "mtu": mtu, "rebindPolicy": "Always"}},
            },
        });
        self.sets().patch(SET, &PatchParams::apply("person"), &Patch::Apply(body)).await?;
        Ok(())
    }

    fn any_program(&mut self) -> String {
        let number = self.rng.random_range(0..self.programs.len());
        self.programs.keys().nth(number).cloned().unwrap_or_default()
    }

    async fn kill(&mut self, tempo: Tempo) {
        let name = self.any_program();
        // Now and then for so long that it is called silent.
        let longest = u64::try_from(tempo.pause.as_millis()).unwrap_or(u64::MAX);
        let rest = Duration::from_millis(self.rng.random_range(0..4 * longest));
        self.note(format_args!("{name} is killed for {rest:?}"));
        self.deaths += 1;
        if let Some(program) = self.programs.get_mut(&name) {
            program.kill().await;
            program.back = Some(Instant::now() + rest);
        }
    }

    /// Something goes wrong on the way between a program and the API.
    fn harm(&mut self, tempo: Tempo) {
        let name = self.any_program();
        let kind = self.rng.random_range(0..6);
        let count = self.rng.random_range(1..6);
        self.note(format_args!("harm {kind} of {count} to {name}"));
        let Some(program) = self.programs.get_mut(&name) else { return };
        let way = &program.way;
        let writes = |method: &Method, target: &str| method != Method::GET && !target.contains("/leases/");
        match kind {
            0 => way.cut_watches(),
            1 => way.expire_watches(),
            2 => way.befall(Fault::Answer(StatusCode::CONFLICT), count, writes),
            3 => way.befall(Fault::Answer(StatusCode::SERVICE_UNAVAILABLE), count, |_, _| true),
            4 => way.befall(Fault::Late(tempo.pause / 2), count, |_, _| true),
            _ => {
                way.cut_off();
                program.back = Some(Instant::now() + tempo.pause * 2);
            }
        }
    }

    /// Lets time pass, starts and mends what is to be, and looks that no two functions have one MAC.
    async fn watch_over(&mut self, time: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + time;
        loop {
            for (name, program) in &mut self.programs {
                ensure!(!program.has_ended(), "{name} ended by itself");
                if program.back.is_some_and(|at| at <= Instant::now()) {
                    program.back = None;
                    program.way.heal();
                    program.start();
                }
            }
            let mut macs: BTreeMap<Mac, &str> = BTreeMap::new();
            for (dpu, sim) in &self.sims {
                // Where it is cut off there is nothing to see.
                let Ok(state) = sim.controller().observe().await else { continue };
                for function in state.functions.values() {
                    if let Some(other) = macs.insert(function.mac, dpu) {
                        bail!("two functions have {}, on {dpu} and {other}", function.mac);
                    }
                }
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            sleep(left.min(Duration::from_millis(100))).await;
        }
    }

    async fn calm(&mut self) {
        self.note("calm");
        for program in self.programs.values_mut() {
            program.back = None;
            program.way.heal();
            program.start();
        }
    }

    /// Of each object, which version it is.
    async fn versions(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let mut versions = BTreeMap::new();
        for device in self.list().await? {
            versions.insert(
                format!("device {}", device.name_any()),
                device.resource_version().unwrap_or_default(),
            );
        }
        for set in self.sets().list(&ListParams::default()).await? {
            versions.insert(format!("set {}", set.name_any()), set.resource_version().unwrap_or_default());
        }
        let dpus: Api<Dpu> = Api::all(self.ground.client.clone());
        for name in self.sims.keys() {
            let dpu = dpus.get_opt(name).await?;
            versions.insert(
                format!("dpu {name}"),
                dpu.and_then(|dpu| dpu.resource_version()).unwrap_or_default(),
            );
        }
        Ok(versions)
    }

    async fn standing(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let devices = self.list().await?.into_iter();
        let stand = |device: &VirtnetDevice| match reason(device) {
            None => "Ready".to_owned(),
            Some((reason, message)) => format!("{reason}: {message}"),
        };
        Ok(devices.map(|device| (device.name_any(), stand(&device))).collect())
    }

    async fn check_rest(&self) -> anyhow::Result<Outcome> {
        let devices = self.list().await?;
        let standing = self.standing().await?;
        let of_set = |device: &&VirtnetDevice| device.labels().contains_key(virtnet_crds::SET_LABEL);
        let by_hand: BTreeSet<_> =
            devices.iter().filter(|device| !of_set(device)).map(ResourceExt::name_any).collect();
        ensure!(by_hand == self.wanted, "lost or left over: {by_hand:?}, wanted {:?}", self.wanted);
        let replicas = devices.iter().filter(of_set).count();
        ensure!(replicas == self.replicas.unwrap_or(0), "{replicas} replicas, wanted {:?}", self.replicas);
        let mut functions: BTreeMap<&str, BTreeSet<Mac>> = BTreeMap::new();
        let mut borne = BTreeSet::new();
        for (dpu, sim) in &self.sims {
            let state = sim.controller().observe().await?;
            borne.extend(state.functions.values().map(|function| function.mac));
            let hot_plugged =
                state.functions.values().filter(|function| function.kind == FunctionKind::HotPlug);
            let macs: BTreeSet<_> = hot_plugged
                .map(|function| function.mac)
                .filter(|mac| !self.foreign.contains_key(mac))
                .collect();
            functions.insert(dpu, macs);
        }
        // What is bound and waits for something else, such as its MAC, has its slot too.
        let full = |dpu: &String| {
            let is_there = |device: &&VirtnetDevice| {
                device.spec.function.hotplug.is_some() && device.spec.dpu.as_ref() == Some(dpu)
            };
            let bound = devices.iter().filter(is_there).count();
            bound >= SLOTS
                || functions.get(dpu.as_str()).is_some_and(|macs| macs.len() >= SLOTS)
                || !self.foreign.is_empty()
        };
        let mut expected: BTreeMap<&str, BTreeSet<Mac>> = BTreeMap::new();
        for device in &devices {
            let (name, spec) = (device.name_any(), &device.spec);
            let stand = &standing[&name];
            ensure!(device.metadata.deletion_timestamp.is_none(), "{name} does not go");
            let word = stand.split(':').next().unwrap_or_default();
            ensure!(word == "Ready" || LASTING.contains(&word), "{name}: {stand}");
            let is_hot_plugged = spec.function.hotplug.is_some();
            if let (Some(dpu), true) = (&spec.dpu, is_hot_plugged) {
                let function = device.status.as_ref().and_then(|status| status.function.as_ref());
                let mac: Option<Mac> = function.and_then(|function| function.mac.as_deref()?.parse().ok());
                if let Some(mac) = mac.filter(|mac| !self.foreign.contains_key(mac)) {
                    expected.entry(dpu).or_default().insert(mac);
                }
                if word == "Ready" {
                    let wanted = match &spec.mac {
                        Some(mac) => mac.parse()?,
                        None => derived_mac(&Uid::from(device.uid().unwrap_or_default().as_str())),
                    };
                    ensure!(mac == Some(wanted), "{name} is Ready with {mac:?}, not {wanted}");
                }
                let binds = |entry: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry| {
                    entry.manager.as_deref() == Some(manager::BINDER) && entry.subresource.is_none()
                };
                let by_binder = device.managed_fields().iter().any(binds);
                ensure!(
                    word != "NoFreeSlot" || !by_binder || self.sims.keys().all(full),
                    "{name} waits for room on {dpu}, and there is some elsewhere"
                );
            }
            ensure!(
                word != "NoDpuFits" || !is_hot_plugged || self.sims.keys().all(full),
                "{name}: {stand}, and there is room: {functions:?}; {standing:#?}"
            );
            ensure!(
                word != "MacClaimed" || is_taken(device, &devices, &borne),
                "{name}: {stand}, and nobody has it"
            );
        }
        for dpu in self.sims.keys() {
            let (have, want) = (functions.get(dpu.as_str()), expected.get(dpu.as_str()));
            let none = BTreeSet::new();
            ensure!(
                have.unwrap_or(&none) == want.unwrap_or(&none),
                "{dpu} has {have:?}, its devices tell of {want:?}; {standing:?}"
            );
        }
        Ok(Outcome {
            devices: devices.len(),
            ready: standing.values().filter(|stand| *stand == "Ready").count(),
            claimed: standing.values().filter(|stand| stand.starts_with("MacClaimed")).count(),
            deaths: self.deaths,
        })
    }
}

/// Whether any function bears the MAC that this device waits for, or another device has noted it, or is to have it first.
fn is_taken(device: &VirtnetDevice, devices: &[VirtnetDevice], borne: &BTreeSet<Mac>) -> bool {
    let wish = |device: &VirtnetDevice| device.spec.mac.as_deref().and_then(|mac| mac.parse::<Mac>().ok());
    let Some(wanted) = wish(device) else { return false };
    let age = |device: &VirtnetDevice| (device.creation_timestamp(), device.uid());
    let has = |other: &VirtnetDevice| {
        let mut noted = other.labels().keys().filter_map(|key| noted_mac(key));
        let is_first = other.spec.dpu.is_some() || age(other) < age(device);
        noted.any(|mac| mac.parse() == Ok(wanted))
            || device.spec.dpu.is_none() && wish(other) == Some(wanted) && is_first
    };
    borne.contains(&wanted) || devices.iter().any(|other| other.name_any() != device.name_any() && has(other))
}
