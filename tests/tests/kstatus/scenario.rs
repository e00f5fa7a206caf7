//! A scenario: DPUs, and the steps that bring objects into the phases that are recorded.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PropagationPolicy};
use kube::core::{ApiResource, DynamicObject};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use virtnet_agent::Clock;
use virtnet_crds::{API_VERSION, Dpu, VirtnetDevice, VirtnetDeviceSet, yaml};
use virtnet_sim::Sim;
use virtnet_tests::fleet::{Fleet, embedded_api_of};
use virtnet_tests::world::LEASES;

use crate::levers::{self, DpuSetup};
use crate::recording::normalised;

/// Longer than an agent must be silent to be called so.
const LIMIT: Duration = Duration::from_secs(300);
/// How long a phase must last that is said to be one.
const SETTLED: Duration = Duration::from_secs(2);
/// The name that stands for the operator where others are names of DPUs.
const OPERATOR: &str = "operator";

/// What a file of `scenarios/` holds.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scenario {
    /// The DPUs by name. Their agents do not run before a step starts them.
    dpus: BTreeMap<String, DpuSetup>,
    /// The API's schema lacks all rules, as one of another version than the programs may.
    #[serde(default)]
    without_rules: bool,
    steps: Vec<Step>,
}

/// One thing that is done. `KIND/NAME` is an object, in the namespace `default` where it is in one.
#[derive(Deserialize, Clone, Debug)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Step {
    /// Starts agents, by the names of their DPUs, and `operator`.
    Start(Vec<String>),
    /// Ends them.
    Stop(Vec<String>),
    /// A person applies an object.
    Apply(Value),
    /// A person changes objects by merge patches.
    Edit(BTreeMap<String, Value>),
    /// A person deletes an object, which goes after what it owns.
    Delete(String),
    /// What is done to DPUs, in the words of [`levers::pull`].
    Lever(BTreeMap<String, String>),
    /// Waits until objects have a condition, as `TYPE=STATUS REASON`.
    Until(BTreeMap<String, String>),
    /// Waits so many seconds.
    Sleep(u64),
    /// Records an object.
    Record(Record),
}

#[derive(Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
struct Record {
    object: String,
    phase: String,
    /// The condition that makes the phase, which must come and last. Without one the object is recorded as it is at once.
    when: Option<String>,
}

/// What was recorded, by kind and phase.
pub(crate) type Recorded = BTreeMap<(String, String), Value>;

impl Scenario {
    pub(crate) fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap();
        let mut documents = yaml::documents(&text);
        assert_eq!(documents.len(), 1, "{}", path.display());
        let value = documents.remove(0).unwrap_or_else(|error| panic!("{}: {error}", path.display())).value;
        serde_json::from_value(value).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// Plays it, each time with the same end.
    pub(crate) async fn play(&self) -> Recorded {
        let kinds = virtnet_crds::crd::all();
        let kinds = if self.without_rules { kinds.iter().map(without_rules).collect() } else { kinds };
        let (client, _, clock) = embedded_api_of(kinds).await;
        let sims = self.dpus.iter().enumerate();
        let sims = sims.map(|(index, (name, setup))| (name.clone(), Sim::new(setup.config(index))));
        let fleet = Fleet { client, sims: sims.collect(), leases: LEASES };
        let mut stage = Stage { fleet, clock, running: BTreeMap::new(), recorded: Recorded::new() };
        for step in &self.steps {
            stage.take(step).await;
        }
        std::mem::take(&mut stage.recorded)
    }
}

/// The definition without its rules.
fn without_rules(kind: &CustomResourceDefinition) -> CustomResourceDefinition {
    fn strip(value: &mut Value) {
        match value {
            Value::Object(map) => {
                map.remove("x-kubernetes-validations");
                map.values_mut().for_each(strip);
            }
            Value::Array(list) => list.iter_mut().for_each(strip),
            _ => {}
        }
    }
    let mut value = serde_json::to_value(kind).unwrap();
    strip(&mut value);
    serde_json::from_value(value).unwrap()
}

/// A fleet, and what of it runs.
struct Stage {
    fleet: Fleet,
    clock: Clock,
    running: BTreeMap<String, JoinHandle<()>>,
    recorded: Recorded,
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.running.values().for_each(JoinHandle::abort);
    }
}

impl Stage {
    async fn take(&mut self, step: &Step) {
        match step {
            Step::Start(names) => names.iter().for_each(|name| self.start(name)),
            Step::Stop(names) => {
                for name in names {
                    let task = self.running.remove(name).unwrap();
                    task.abort();
                    assert!(task.await.unwrap_err().is_cancelled(), "{name} ended by itself");
                }
            }
            Step::Apply(object) => self.apply(object).await,
            Step::Edit(patches) => {
                for (object, patch) in patches {
                    let (api, name) = self.find(object);
                    api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
                }
            }
            Step::Delete(object) => {
                let (api, name) = self.find(object);
                let params = DeleteParams {
                    propagation_policy: Some(PropagationPolicy::Foreground),
                    ..DeleteParams::default()
                };
                api.delete(name, &params).await.unwrap();
            }
            Step::Lever(levers) => {
                for (dpu, what) in levers {
                    levers::pull(&self.fleet.sims[dpu], what).await;
                }
            }
            Step::Until(wanted) => {
                for (object, condition) in wanted {
                    self.until(object, condition).await;
                }
            }
            Step::Sleep(seconds) => sleep(Duration::from_secs(*seconds)).await,
            Step::Record(record) => self.record(record).await,
        }
    }

    fn start(&mut self, name: &str) {
        let future = if name == OPERATOR {
            self.fleet.operator(&self.fleet.client, &self.clock)
        } else {
            self.fleet.agent(name, &self.clock)
        };
        self.running.insert(name.to_owned(), tokio::spawn(future));
    }

    async fn apply(&self, object: &Value) {
        let mut object = object.clone();
        object["apiVersion"] = json!(API_VERSION);
        let kind = object["kind"].as_str().unwrap().to_owned();
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let params = PatchParams::apply("person").force();
        let api = api(&self.fleet.client, &kind);
        api.patch(&name, &params, &Patch::Apply(&object))
            .await
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        // Who is older goes first where not all can have what they want, and times in an API are of whole seconds.
        sleep(Duration::from_secs(1)).await;
    }

    fn find<'o>(&self, object: &'o str) -> (Api<DynamicObject>, &'o str) {
        let (kind, name) = object.split_once('/').unwrap();
        (api(&self.fleet.client, kind), name)
    }

    async fn until(&self, object: &str, wanted: &str) -> Value {
        let (api, name) = self.find(object);
        let begun = Instant::now();
        loop {
            let found = api.get_opt(name).await.unwrap().map_or(Value::Null, |found| json!(found));
            let conditions = conditions(&found);
            if conditions.iter().any(|condition| condition == wanted) {
                return found;
            }
            assert!(begun.elapsed() < LIMIT, "{object} has {conditions:?} and not {wanted}: {found}");
            sleep(Duration::from_millis(100)).await;
        }
    }

    async fn record(&mut self, Record { object, phase, when }: &Record) {
        if let Some(wanted) = when {
            self.until(object, wanted).await;
            sleep(SETTLED).await;
        }
        let (api, name) = self.find(object);
        let found = json!(api.get(name).await.unwrap());
        if let Some(wanted) = when {
            assert!(conditions(&found).contains(wanted), "{phase}: {wanted} did not last: {found}");
        }
        let kind = found["kind"].as_str().unwrap().to_owned();
        let double = self.recorded.insert((kind, phase.clone()), normalised(found));
        assert!(double.is_none(), "{phase} is recorded twice");
    }
}

/// `TYPE=STATUS REASON` of each condition.
fn conditions(object: &Value) -> Vec<String> {
    let list = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let word = |condition: &Map<String, Value>, key: &str| condition[key].as_str().unwrap().to_owned();
    list.iter()
        .map(|condition| condition.as_object().unwrap())
        .map(|condition| {
            format!("{}={} {}", word(condition, "type"), word(condition, "status"), word(condition, "reason"))
        })
        .collect()
}

fn api(client: &Client, kind: &str) -> Api<DynamicObject> {
    let client = client.clone();
    match kind {
        "VirtnetDevice" => Api::default_namespaced_with(client, &ApiResource::erase::<VirtnetDevice>(&())),
        "VirtnetDeviceSet" => {
            Api::default_namespaced_with(client, &ApiResource::erase::<VirtnetDeviceSet>(&()))
        }
        "Dpu" => Api::all_with(client, &ApiResource::erase::<Dpu>(&())),
        _ => panic!("{kind} is no kind of ours"),
    }
}
