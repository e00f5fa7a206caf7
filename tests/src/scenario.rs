//! A scenario of the seeded simulation: some twenty devices, people and hardware that change things, an agent that is killed
//! and started again, and what must hold at every moment and in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use virtnet_crds::{FUNCTION_FINALIZER, Outlook, Reason, VirtnetDevice};
use virtnet_model::{ControllerState, Function, FunctionKind, IfName, Mac, Owner, Port, SwitchState};
use virtnet_sim::{FirmwareConfig, SimConfig};

use crate::faults::Faults;
use crate::oracle::{Oracle, Room, check_ready, is_here};
use crate::world::{DPU, World, reason};

/// A small DPU, so that capacity is fought for: 8 slots, 2 static PFs with 6 VFs each.
const FIRMWARE: &str = "PCI_SWITCH_EMULATION_NUM_PORT=8,VIRTIO_NET_EMULATION_NUM_PF=2,VIRTIO_NET_EMULATION_NUM_VF=6,\
                        VIRTIO_NET_EMULATION_NUM_MSIX=10,p1/PF_TOTAL_SF=4";
/// How long things go on happening.
const TURMOIL: Duration = Duration::from_secs(90);
/// How often it is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(700);
/// How long the system may take to come to rest after that. Its longest back-off is a minute.
const RECOVERY: Duration = Duration::from_secs(300);
/// How long it must then be silent.
const SILENCE: Duration = Duration::from_secs(300);

/// What a run of a seed showed.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Everything that happened, in order, each with its virtual millisecond.
    pub trace: Vec<String>,
    /// How many devices there were at the end, and how many of them Ready.
    pub devices: (usize, usize),
    /// How often the agent was killed.
    pub deaths: usize,
    /// What did not hold.
    pub failure: Option<String>,
}

/// Runs a seed on a thread of its own clock. An error: it could not begin.
pub fn run(seed: u64) -> anyhow::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()?;
    runtime.block_on(play(seed)).with_context(|| format!("seed {seed}"))
}

async fn play(seed: u64) -> anyhow::Result<Outcome> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let total = rng.random_range(16..48);
    let firmware = FirmwareConfig::guide_with(&format!("{FIRMWARE},PF_TOTAL_SF={total}"))?;
    let sim = SimConfig { seed, firmware, udev_renames: rng.random(), ..SimConfig::default() };
    let deaths: Vec<u64> = (0..rng.random_range(0..8)).map(|_| rng.random_range(0..240)).collect();
    let failures = *[0, 20, 150].choose(&mut rng).unwrap_or(&0);
    let faults = Faults::new(seed, failures, deaths);
    let world = World::new(seed, sim, faults).await?;
    let rest = Duration::from_millis(rng.random_range(0..4000));
    let oracle = Oracle::default();
    let room = Room { slots: 8, sfs: total, vfs: 6 + 5 };
    let mut story = Story { rng, world: &world, foreign: Foreign::default(), made: 0, oracle, room };
    let result = tokio::select! {
        biased;
        () = world.agents(rest) => bail!("the agent ended by itself"),
        result = story.tell() => result,
    };
    let mut devices = world.list().await?;
    devices.retain(is_here);
    let ready = devices.iter().filter(|device| reason(device).is_none()).count();
    Ok(Outcome {
        trace: world.faults.trace(),
        devices: (devices.len(), ready),
        deaths: world.faults.deaths(),
        failure: result.err().map(|error| format!("seed {seed}: {error:#}")),
    })
}

/// What is not the agent's and must be at the end as it was at the beginning.
#[derive(Debug, Default)]
struct Foreign {
    ports: BTreeMap<IfName, Port>,
    mac: Option<Mac>,
}

struct Story<'a> {
    rng: ChaCha8Rng,
    world: &'a World,
    foreign: Foreign,
    made: usize,
    oracle: Oracle,
    room: Room,
}

impl Story<'_> {
    async fn tell(&mut self) -> anyhow::Result<()> {
        self.place_foreign().await?;
        let num_vfs = self.rng.random_range(4..=6);
        self.world
            .dpus()
            .patch(
                DPU,
                &PatchParams::apply("person"),
                &Patch::Apply(json!({
                    "apiVersion": virtnet_crds::API_VERSION, "kind": "Dpu", "metadata": {"name": DPU},
                    "spec": {"host": {"sriov": [{"pf": 0, "numVfs": num_vfs}, {"pf": 1, "numVfs": 5}]}},
                })),
            )
            .await?;
        for _ in 0..self.rng.random_range(12..18) {
            self.create().await?;
        }
        let end = tokio::time::Instant::now() + TURMOIL;
        while tokio::time::Instant::now() < end {
            let mut pause = Duration::from_millis(self.rng.random_range(0..8000));
            while !pause.is_zero() {
                let part = pause.min(LOOK);
                tokio::time::sleep(part).await;
                pause -= part;
                self.check_always().await?;
            }
            self.happen().await?;
            self.check_always().await?;
        }
        self.calm().await?;
        self.check_rest().await?;
        self.check_silence().await?;
        self.check_end().await
    }

    fn note(&self, what: impl std::fmt::Display) {
        self.world.faults.note(what);
    }

    /// Ports and a function of someone else's.
    async fn place_foreign(&mut self) -> anyhow::Result<()> {
        let stranger = Port {
            bridge: "ovsbr1".parse()?,
            interface_type: String::new(),
            tag: None,
            trunks: BTreeSet::new(),
            external_ids: [("owner".to_owned(), "someone".to_owned())].into(),
            ofport: None,
            error: None,
        };
        // The second stands on the name of a representor to be.
        for name in ["vnet7", "en3f0pf0sf2002"] {
            let name: IfName = name.parse()?;
            self.world.sim.put_port(&name, stranger.clone());
            self.foreign.ports.insert(name, stranger.clone());
        }
        if self.rng.random_bool(0.5) {
            let mac = Mac::local([0xf0, 0, 0, 0, 1]);
            self.world.sim.plug_foreign(mac).await?;
            self.foreign.mac = Some(mac);
        }
        Ok(())
    }

    fn any_spec(&mut self) -> Value {
        let rng = &mut self.rng;
        let mut spec = json!({"dpu": DPU, "rebindPolicy": "Never"});
        spec["function"] = match rng.random_range(0..10) {
            0..=4 => {
                let mut hotplug = json!({});
                if rng.random_bool(0.15) {
                    hotplug["sfNumber"] = json!(rng.random_range(2000..2008));
                }
                if rng.random_bool(0.1) {
                    hotplug["uplink"] = json!("p1");
                }
                spec["rebindPolicy"] = json!(["Never", "IfIdle", "Always"].choose(rng).unwrap_or(&"Never"));
                json!({"hotplug": hotplug})
            }
            5..=6 => json!({"static": {"pf": *[0, 0, 1, 1, 2].choose(rng).unwrap_or(&0)}}),
            _ => json!({"vf": {"pf": rng.random_range(0..2), "vf": rng.random_range(0..7)}}),
        };
        if rng.random_bool(0.4) {
            spec["mac"] = json!(any_mac(rng));
        }
        if rng.random_bool(0.2) {
            spec["mtu"] = json!(rng.random_range(1400..1600));
        }
        if rng.random_bool(0.2) {
            spec["queues"] = json!({"max": rng.random_range(2..6), "size": 256});
        }
        if rng.random_bool(0.8) {
            spec["port"] = any_port(rng);
        }
        spec
    }

    async fn create(&mut self) -> anyhow::Result<()> {
        let name = format!("d{}", self.made);
        self.made += 1;
        let spec = self.any_spec();
        self.note(format_args!("create {name} {spec}"));
        let device = self.world.create(&name, spec).await?;
        self.oracle.saw(&device);
        Ok(())
    }

    async fn any_device(&mut self) -> anyhow::Result<Option<VirtnetDevice>> {
        let devices = self.world.list().await?;
        Ok(devices.choose(&mut self.rng).cloned())
    }

    /// One of the things that happen.
    async fn happen(&mut self) -> anyhow::Result<()> {
        let sim = &self.world.sim;
        let what = self.rng.random_range(0..26);
        match what {
            0..=1 => self.create().await?,
            2..=4 => self.edit().await?,
            5..=7 => {
                if let Some(device) = self.any_device().await? {
                    self.note(format_args!("delete {}", device.name_any()));
                    self.world.devices().delete(&device.name_any(), &DeleteParams::default()).await?;
                }
            }
            8 => {
                self.note("power cycle");
                sim.power_cycle().await;
                // What someone plugged by hand does not come back by itself.
                self.foreign.mac = None;
            }
            9 => {
                self.note("reboot");
                sim.reboot_host();
            }
            10 => {
                self.note("shutdown");
                sim.shut_down_host();
            }
            11 => {
                self.note("boot");
                sim.boot_host();
            }
            12 => {
                self.note("controller restarts");
                sim.restart_controller();
            }
            13 => {
                self.note("OVS restarts");
                sim.restart_ovs();
            }
            14 => {
                self.note("ovsbr2 is deleted");
                sim.delete_bridge(&"ovsbr2".parse()?);
            }
            15 => {
                self.note("ovsbr2 is made");
                sim.add_bridge("ovsbr2".parse()?);
            }
            16 => {
                self.note("the controller is cut off");
                sim.cut_off_controller(Duration::from_secs(4));
            }
            17..=19 => self.drift(what).await?,
            20..=22 => self.bind_elsewhere_or_back().await?,
            23..=24 => {
                let outage = Duration::from_millis(self.rng.random_range(500..15_000));
                self.note(format_args!("the API is out for {outage:?}"));
                self.world.faults.api_is_out(outage);
            }
            _ => self.rob().await?,
        }
        Ok(())
    }

    /// Someone gives a device to a DPU that has no agent, or gives one back.
    async fn bind_elsewhere_or_back(&mut self) -> anyhow::Result<()> {
        let devices = self.world.list().await?;
        let may_move =
            |device: &&VirtnetDevice| device.status.as_ref().is_none_or(|status| status.function.is_none());
        let movable: Vec<_> = devices.iter().filter(may_move).collect();
        let Some(device) = movable.choose(&mut self.rng) else { return Ok(()) };
        let dpu = if is_here(device) { "elsewhere" } else { DPU };
        self.note(format_args!("bind {} to {dpu}", device.name_any()));
        let patch = Patch::Merge(json!({"spec": {"dpu": dpu}}));
        let device = self.world.devices().patch(&device.name_any(), &PatchParams::default(), &patch).await?;
        self.oracle.saw(&device);
        Ok(())
    }

    /// Someone replaces an object by its manifest, and with it goes what the agent had put there.
    async fn rob(&mut self) -> anyhow::Result<()> {
        let Some(mut device) = self.any_device().await? else { return Ok(()) };
        if device.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        self.note(format_args!("replace {}", device.name_any()));
        self.oracle.robbed(&device);
        device.metadata.finalizers = None;
        device.metadata.labels = None;
        device.metadata.managed_fields = None;
        self.world.devices().replace(&device.name_any(), &PostParams::default(), &device).await?;
        Ok(())
    }

    async fn edit(&mut self) -> anyhow::Result<()> {
        let Some(device) = self.any_device().await? else { return Ok(()) };
        let rng = &mut self.rng;
        let kind = rng.random_range(0..6);
        let change = match kind {
            0..=1 => json!({"mac": any_mac(rng)}),
            2 => json!({"mtu": rng.random_range(1400..1600)}),
            3 => json!({"port": any_port(rng)}),
            4 => json!({"linkState": if rng.random_bool(0.5) { "Up" } else { "Down" }}),
            _ => json!({"queues": {"max": rng.random_range(2..6)}}),
        };
        self.note(format_args!("edit {} {change}", device.name_any()));
        let patch = Patch::Merge(json!({"spec": change}));
        let device = self.world.devices().patch(&device.name_any(), &PatchParams::default(), &patch).await?;
        self.oracle.saw(&device);
        if !matches!(kind, 3 | 4) {
            self.oracle.edited(&device);
        }
        Ok(())
    }

    /// Someone changes a port or a link behind the agent's back, or a driver goes.
    async fn drift(&mut self, what: i32) -> anyhow::Result<()> {
        let sim = &self.world.sim;
        let Ok(switch) = sim.switch().observe().await else { return Ok(()) };
        let ours: Vec<&IfName> =
            switch.ports.iter().filter(|(_, port)| port.owner().is_some()).map(|(name, _)| name).collect();
        let Some(name) = ours.choose(&mut self.rng) else { return Ok(()) };
        self.note(format_args!("drift {what} of {name}"));
        match what {
            17 => {
                sim.delete_port(name);
            }
            18 => {
                sim.edit_port(name, |port| port.tag = None);
                sim.edit_link(name, |link| link.up = !link.up);
            }
            _ => {
                // A controller that is down says nothing of its drivers.
                let Ok(controller) = sim.controller().observe().await else { return Ok(()) };
                let function = controller.functions.values().find(|function| {
                    function.sf.as_ref().is_some_and(|sf| sf.representor == **name) && function.driver.in_use
                });
                if let Some(bdf) = function.and_then(|function| function.bdf) {
                    // A driver that is just going is as good as unbound.
                    let _ = sim.unbind(bdf);
                }
            }
        }
        Ok(())
    }

    /// Faults end, the host runs, the bridges are there.
    async fn calm(&mut self) -> anyhow::Result<()> {
        self.note("calm");
        self.world.faults.end();
        self.world.sim.add_bridge("ovsbr2".parse()?);
        self.world.sim.boot_host();
        tokio::time::sleep(RECOVERY).await;
        Ok(())
    }

    /// What holds at every moment.
    async fn check_always(&mut self) -> anyhow::Result<()> {
        let Ok(state) = self.world.sim.controller().observe().await else { return Ok(()) };
        let switch = self.world.sim.switch().observe().await;
        if let Some(mac) = self.foreign.mac {
            ensure!(
                state.functions.values().any(|function| function.mac == mac),
                "someone else's function is gone"
            );
        }
        self.oracle.check_plugged_once(&state, self.foreign.mac)?;
        if let Ok(switch) = switch {
            if self.oracle.looks_at_the_api() {
                let devices = self.world.list().await?;
                self.oracle.check_ready_is_true(self.world, &devices, &state, &switch).await?;
            }
            for (name, port) in &self.foreign.ports {
                let Some(found) = switch.ports.get(name) else { bail!("someone else's port {name} is gone") };
                ensure!(found.external_ids == port.external_ids, "someone else's port {name} was marked");
            }
        }
        Ok(())
    }

    /// Everything that can be done is done.
    async fn check_rest(&self) -> anyhow::Result<()> {
        let (state, switch) = (self.controller().await?, self.switch().await?);
        let devices = self.world.list().await?;
        let strange_ports = self.foreign.ports.keys().collect();
        for device in devices.iter().filter(|device| is_here(device)) {
            let name = device.name_any();
            ensure!(device.metadata.deletion_timestamp.is_none(), "{name} is still being deleted");
            ensure!(
                reason(device).is_some() || device.finalizers().iter().any(|name| name == FUNCTION_FINALIZER),
                "{name} is Ready, and its finalizer was not put back"
            );
            match reason(device) {
                None => check_ready(self.world, device, &state, &switch)
                    .await
                    .with_context(|| format!("{name} is Ready"))?,
                Some((word, message)) => {
                    let outlook = Reason::ALL
                        .iter()
                        .find(|reason| reason.as_str() == word)
                        .map(|reason| reason.outlook())
                        .with_context(|| format!("{name}: {word} is no reason of the table: {message}"))?;
                    ensure!(
                        !self.oracle.must_be_ready(device, &devices, &state, &strange_ports, self.room),
                        "{name} can have all that it wants and is {word}: {message}"
                    );
                    ensure!(
                        matches!(outlook, Outlook::Waiting | Outlook::Stalled) && word != "StepFailed",
                        "{name} is {word} for ever: {message}"
                    );
                }
            }
        }
        Ok(())
    }

    /// Nothing is left that nobody wants, and nothing is missing that was someone else's.
    async fn check_end(&mut self) -> anyhow::Result<()> {
        self.check_always().await?;
        let (state, switch) = (self.controller().await?, self.switch().await?);
        let devices = self.world.list().await?;
        let reported: BTreeSet<(String, Option<String>)> = devices
            .iter()
            .filter_map(|device| device.status.as_ref()?.function.as_ref())
            .map(|function| (function.vuid.clone(), function.mac.clone()))
            .collect();
        let deaths = self.world.faults.deaths() > 0;
        let left = |function: &&Function| {
            function.kind == FunctionKind::HotPlug
                && Some(function.mac) != self.foreign.mac
                && !reported.contains(&(function.vuid.to_string(), Some(function.mac.to_string())))
                && !self.oracle.may_stay(function, deaths)
        };
        if let Some(function) = state.functions.values().find(left) {
            bail!("{} with MAC {} was left behind", function.vuid, function.mac);
        }
        let uids: BTreeSet<String> =
            devices.iter().filter(|device| is_here(device)).filter_map(ResourceExt::uid).collect();
        for (name, port) in &switch.ports {
            let whose: Option<Owner> = port.owner();
            ensure!(
                whose.as_ref().is_none_or(|owner| uids.contains(&owner.uid)),
                "port {name} of {whose:?} was left"
            );
        }
        Ok(())
    }

    /// At rest nobody writes anything but the Lease.
    async fn check_silence(&self) -> anyhow::Result<()> {
        self.world.writes.take();
        let effects = self.world.faults.effects();
        tokio::time::sleep(SILENCE).await;
        let writes: Vec<_> =
            self.world.writes.take().into_iter().filter(|write| write.resource != "leases").collect();
        ensure!(writes.is_empty(), "writes at rest: {writes:?}");
        ensure!(
            self.world.faults.effects() == effects,
            "effects at rest: {:?}",
            self.world.faults.trace().last()
        );
        Ok(())
    }

    async fn controller(&self) -> anyhow::Result<ControllerState> {
        self.world.sim.controller().observe().await.context("observing the controller")
    }

    async fn switch(&self) -> anyhow::Result<SwitchState> {
        self.world.sim.switch().observe().await.context("observing the switch")
    }
}

/// One of a few MACs, so that they collide now and then.
fn any_mac(rng: &mut ChaCha8Rng) -> String {
    format!("02:00:00:00:00:{:02x}", rng.random_range(1..40))
}

fn any_port(rng: &mut ChaCha8Rng) -> Value {
    let bridge = ["ovsbr1", "ovsbr1", "ovsbr1", "ovsbr1", "ovsbr2", "ovsbr2", "ovsbr2", "ovsbr9"].choose(rng);
    let mut port = json!({"bridge": bridge});
    if rng.random_bool(0.3) {
        port["tag"] = json!(rng.random_range(1..5));
    }
    port
}
