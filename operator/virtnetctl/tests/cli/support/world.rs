//! An API that listens, and simulated DPUs with their agents, inside the test: so it can do to a DPU what no command does.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::Client;
use kube::api::{ObjectMeta, PostParams};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use virtnet_agent::{Clock, Metrics, Parts};
use virtnet_crds::LEASE_NAMESPACE;
use virtnet_embedded_api::{Config, Listen, MemoryDisk, Server};
use virtnet_model::{Function, FunctionId, IfName, Link, SwitchState};
use virtnet_sim::{Effect, Sim, SimConfig};

use super::{Place, Run};

pub struct World {
    pub place: Place,
    pub client: Client,
    dpus: BTreeMap<String, (Sim, JoinHandle<()>)>,
    _server: Server,
    // The last to go, for all the others run on it.
    runtime: Runtime,
}

/// All that can be seen of a DPU, and how often anything was done to it.
#[derive(Debug, PartialEq)]
pub struct Seen {
    functions: BTreeMap<FunctionId, Function>,
    links: BTreeMap<IfName, Link>,
    switch: SwitchState,
    effects: BTreeMap<Effect, u64>,
}

impl World {
    /// With a DPU of each of these names.
    pub fn start(dpus: &[&str]) -> Self {
        let dpus: Vec<_> = dpus.iter().map(|dpu| (*dpu, SimConfig::default())).collect();
        Self::with(&dpus)
    }

    /// With these DPUs.
    pub fn with(dpus: &[(&str, SimConfig)]) -> Self {
        let place = Place::new();
        let runtime = Runtime::new().unwrap();
        std::fs::create_dir(place.state()).unwrap();
        let (client, server) = runtime.block_on(async {
            let config = Config::new(virtnet_crds::crd::all(), Arc::new(MemoryDisk::default()));
            let api = virtnet_embedded_api::Api::open(config).await.unwrap();
            let listen = Listen::Tcp((Ipv4Addr::LOCALHOST, 0).into());
            let server = Server::start(&api, listen, &place.state()).await.unwrap();
            let client = Client::new(api.service(), "default");
            let metadata = ObjectMeta { name: Some(LEASE_NAMESPACE.into()), ..ObjectMeta::default() };
            let namespace = Namespace { metadata, ..Namespace::default() };
            Api::all(client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
            (client, server)
        });
        let mut world = Self { place, client, dpus: BTreeMap::new(), _server: server, runtime };
        for (name, config) in dpus {
            world.add(name, config.clone());
        }
        world
    }

    fn add(&mut self, name: &str, config: SimConfig) {
        let client = self.client.clone();
        let entered = self.runtime.enter();
        let sim = Sim::new(config);
        let config = virtnet_agent::Config { dpu: name.to_owned(), lease_namespace: LEASE_NAMESPACE.into() };
        let agent =
            virtnet_agent::run(config, client, Parts::from(&sim), Clock::system(), Metrics::default());
        let agent = tokio::spawn(agent);
        drop(entered);
        self.dpus.insert(name.to_owned(), (sim, agent));
        for seen in ["create", "condition=Ready"] {
            let arguments = ["wait", "--timeout=60s", &format!("--for={seen}"), &format!("dpu/{name}")];
            self.place.kubectl_ok(&arguments);
        }
    }

    pub fn sim(&self, dpu: &str) -> &Sim {
        &self.dpus[dpu].0
    }

    /// Stops the DPU's agent, and makes its Lease look as if that was long ago.
    pub fn silence(&self, dpu: &str) {
        let agent = &self.dpus[dpu].1;
        agent.abort();
        super::eventually("the agent has stopped", || agent.is_finished());
        let renewed = r#"{"spec":{"renewTime":"2026-01-01T00:00:00.000000Z"}}"#;
        let lease = ["patch", "lease", dpu, "-n", LEASE_NAMESPACE, "--type=merge", "-p", renewed];
        self.place.kubectl_ok(&lease);
    }

    /// Runs something beside the rest, until the world ends.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(work);
    }

    /// Runs something to its end.
    pub fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    pub fn virtnetctl(&self, arguments: &[&str]) -> Run {
        self.place.virtnetctl(arguments)
    }

    pub fn see(&self, dpu: &str) -> Seen {
        let sim = self.sim(dpu);
        self.wait(async {
            Seen {
                functions: sim.controller().observe().await.unwrap().functions,
                links: sim.links().observe().await.unwrap(),
                switch: sim.switch().observe().await.unwrap(),
                effects: sim.counters().effects,
            }
        })
    }

    /// What a jsonpath gives of a Dpu.
    pub fn of_dpu(&self, dpu: &str, path: &str) -> String {
        self.place.kubectl_ok(&["get", "dpu", dpu, "-o", &format!("jsonpath={path}")])
    }

    /// Waits until so many functions are reported that no object declares, each with the state of its link.
    #[track_caller]
    pub fn wait_undeclared(&self, dpu: &str, count: usize) {
        super::eventually(&format!("{count} undeclared functions of {dpu}"), || {
            ["vuid", "linkState"].iter().all(|field| {
                let told = self.of_dpu(dpu, &format!("{{.status.undeclared[*].{field}}}"));
                told.split_whitespace().count() == count
            })
        });
    }
}
