//! Opening the API: loading what is on disk, and putting in place what is always there.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Value, json};

use crate::audit::Audit;
use crate::builtin::DEFINITION_STORAGE;
use crate::clock::{Clock, SystemClock, seconds};
use crate::core::NAME_LABEL;
use crate::gc::namespace_key;
use crate::ids::{self, Ids, RandomIds};
use crate::object;
use crate::openapi::OpenApi;
use crate::registry::{DefinitionError, Registry};
use crate::service::Service;
use crate::status::ApiError;
use crate::store::{Disk, DiskError, Key, Object, State, Store, Txn, Writer};

/// Changes remembered for each collection unless configured otherwise.
pub const DEFAULT_HISTORY: usize = 4096;

/// What an API is made of.
#[derive(Debug)]
pub struct Config {
    /// The kinds to serve, one version each.
    pub crds: Vec<CustomResourceDefinition>,
    /// Where the state is kept.
    pub disk: Arc<dyn Disk>,
    /// The time that objects are stamped with.
    pub clock: Arc<dyn Clock>,
    /// Where uids and generated names come from.
    pub ids: Arc<dyn Ids>,
    /// Is told of each acknowledged write.
    pub audit: Option<Arc<dyn Audit>>,
    /// Changes remembered for each collection. A watch from before the oldest of them gets 410.
    pub history: usize,
}

impl Config {
    /// The given kinds and disk, with the machine's clock and entropy.
    pub fn new(crds: Vec<CustomResourceDefinition>, disk: Arc<dyn Disk>) -> Self {
        Self {
            crds,
            disk,
            clock: Arc::new(SystemClock),
            ids: Arc::new(RandomIds),
            audit: None,
            history: DEFAULT_HISTORY,
        }
    }
}

/// Why an API can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A kind can't be served.
    #[error(transparent)]
    Definition(#[from] DefinitionError),
    /// A kind is no JSON.
    #[error("reading a definition")]
    Json(#[from] serde_json::Error),
    /// The disk can't be read.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A stored object is damaged.
    #[error(
        "reading {key} from the state: it is {problem}; restore the file from a copy, or remove it to begin anew"
    )]
    Damaged {
        /// Which object.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
    /// What is always there can't be stored.
    #[error("storing the default namespaces and the definitions")]
    Bootstrap(#[source] ApiError),
}

/// The parts that all requests share.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) registry: Arc<Registry>,
    pub(crate) openapi: OpenApi,
    pub(crate) store: Arc<Store>,
    pub(crate) writer: Writer,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ids: Arc<dyn Ids>,
    pub(crate) audit: Option<Arc<dyn Audit>>,
}

/// A Kubernetes API of a few kinds. Clones share one state.
#[derive(Debug, Clone)]
pub struct Api {
    core: Arc<Core>,
}

impl Api {
    /// Opens the API on the present runtime, on which its writing task lives until `close`, or until the last clone is dropped.
    ///
    /// # Errors
    /// Where a kind can't be served, or the state can't be read or written.
    pub async fn open(config: Config) -> Result<Self, OpenError> {
        let definitions = config.crds.iter().map(serde_json::to_value).collect::<Result<Vec<Value>, _>>()?;
        let registry = Arc::new(Registry::new(&definitions)?);
        let store = Arc::new(Store::new(load(config.disk.as_ref(), config.history).await?));
        let writer = Writer::start(Arc::clone(&store), config.disk);
        let (clock, ids) = (config.clock, config.ids);
        let openapi = OpenApi::default();
        let core = Arc::new(Core { registry, openapi, store, writer, clock, ids, audit: config.audit });
        bootstrap(&core, definitions).await.map_err(OpenError::Bootstrap)?;
        Ok(Self { core })
    }

    /// Ends all watches, finishes the writes that wait, refuses later ones with 503 and lets go of the disk, so that
    /// another `Api` can be opened on it.
    pub async fn close(&self) {
        self.core.writer.stop().await;
    }

    /// The API as a `tower` service of HTTP requests, for `kube::Client::new` and for a listener.
    pub fn service(&self) -> Service {
        Service::new(Arc::clone(&self.core))
    }
}

async fn load(disk: &dyn Disk, history: usize) -> Result<State, OpenError> {
    let loaded = disk.load().await?;
    let mut state = State::new(loaded.revision, history);
    for (key, bytes) in loaded.rows {
        let damaged = |problem: &str| OpenError::Damaged { key: key.clone(), problem: problem.to_owned() };
        let value: Value = serde_json::from_slice(&bytes).map_err(|error| damaged(&error.to_string()))?;
        let parts: Vec<&str> = key.split('/').collect();
        let [group, plural, namespace, name] = parts.as_slice() else { return Err(damaged("misnamed")) };
        let revision =
            object::resource_version(&value).parse().map_err(|_| damaged("without a resource version"))?;
        let key = Key {
            storage: format!("{group}/{plural}").into(),
            namespace: (*namespace).to_owned(),
            name: (*name).to_owned(),
        };
        state.insert_loaded(key, Object::new(value, revision));
    }
    Ok(state)
}

/// Makes the default namespaces where they are absent, and the stored definitions those that are served.
async fn bootstrap(core: &Core, definitions: Vec<Value>) -> Result<(), ApiError> {
    let now = seconds(core.clock.now());
    let ids = Arc::clone(&core.ids);
    let fresh = move |mut value: Value, name: &str| {
        object::set(&mut value, "name", name.into());
        object::set(&mut value, "uid", ids::uid(ids.as_ref()).into());
        object::set(&mut value, "creationTimestamp", now.clone().into());
        value
    };
    let work = move |txn: &mut Txn<'_>| {
        for name in ["default", "kube-system"] {
            let key = namespace_key(name);
            if txn.get(&key).is_none() {
                let namespace =
                    json!({ "apiVersion": "v1", "kind": "Namespace", "status": { "phase": "Active" } });
                let mut namespace = fresh(namespace, name);
                object::set(&mut namespace, "labels", json!({ NAME_LABEL: name }));
                txn.put(&key, namespace);
            }
        }
        define(txn, definitions, &fresh);
        Ok(())
    };
    core.writer.write(work).await
}

fn define(txn: &mut Txn<'_>, definitions: Vec<Value>, fresh: &impl Fn(Value, &str) -> Value) {
    let storage: Arc<str> = DEFINITION_STORAGE.into();
    let wanted: BTreeMap<Key, Value> = definitions
        .into_iter()
        .map(|definition| {
            let name = object::name(&definition).to_owned();
            let key = Key { storage: Arc::clone(&storage), namespace: String::new(), name };
            (key, established(definition))
        })
        .collect();
    for (key, _) in txn.list(&storage, "") {
        if !wanted.contains_key(&key) {
            txn.remove(&key, None);
        }
    }
    for (key, definition) in wanted {
        let held = txn.get(&key);
        let served = |object: &Value| (object.get("spec").cloned(), object.get("status").cloned());
        if held.is_none_or(|held| served(&held.value) != served(&definition)) {
            txn.put(&key, fresh(definition, &key.name));
        }
    }
}

/// The definition with the status of one that is served.
fn established(mut definition: Value) -> Value {
    let spec = &definition["spec"];
    let condition = |kind: &str, reason: &str, message: &str| json!({ "type": kind, "status": "True", "reason": reason, "message": message });
    let versions: Vec<Value> =
        spec["versions"].as_array().into_iter().flatten().map(|version| version["name"].clone()).collect();
    let status = json!({
        "acceptedNames": spec["names"],
        "conditions": [
            condition("NamesAccepted", "NoConflicts", "no conflicts found"),
            condition("Established", "InitialNamesAccepted", "the initial names have been accepted"),
        ],
        "storedVersions": versions,
    });
    let fields = object::map_mut(&mut definition);
    fields.insert("apiVersion".to_owned(), "apiextensions.k8s.io/v1".into());
    fields.insert("kind".to_owned(), "CustomResourceDefinition".into());
    fields.insert("status".to_owned(), status);
    definition
}
