//! What the API holds of ours: objects, the Events about them, the agents' Leases.

use std::collections::BTreeSet;

use anyhow::Context;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Event;
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::{Api, Client, ResourceExt};
use serde_json::Value;

use super::Part;
use crate::find::Scope;
use crate::output::Data;
use crate::{events, find, manifest};

/// A copy of what was applied, with whatever stood there by mistake.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// What is asked of the API.
pub(crate) struct Objects {
    client: Client,
    scope: Scope,
    dpu: Option<String>,
    lease_namespace: String,
    /// Of the Dpus and devices that were found: by them their Events are told from others.
    uids: BTreeSet<String>,
}

impl Objects {
    /// Fails where there is no such DPU.
    pub(crate) async fn new(
        client: Client,
        scope: Scope,
        dpu: Option<String>,
        lease_namespace: String,
    ) -> anyhow::Result<Self> {
        if let Some(name) = &dpu {
            find::dpu(&client, name).await?;
        }
        Ok(Self { client, scope, dpu, lease_namespace, uids: BTreeSet::new() })
    }

    /// What it is about, for people.
    pub(crate) fn about(&self) -> String {
        let scope = match &self.scope {
            Scope::Namespace(namespace) => format!("namespace {namespace}"),
            Scope::All | Scope::Cluster => "all namespaces".to_owned(),
        };
        match &self.dpu {
            Some(dpu) => format!("DPU {dpu}, {scope}"),
            None => format!("all DPUs, {scope}"),
        }
    }

    /// The one DPU.
    pub(crate) fn dpu(&self) -> Option<&str> {
        self.dpu.as_deref()
    }

    pub(crate) async fn dpus(&mut self) -> anyhow::Result<Part> {
        let one = self.dpu.as_ref().map(|name| format!("metadata.name={name}"));
        let dpus = self.list(&manifest::resource("Dpu"), None, one.as_deref()).await?;
        self.remember(&dpus);
        part(&dpus)
    }

    pub(crate) async fn devices(&mut self) -> anyhow::Result<Part> {
        let bound = self.dpu.as_ref().map(|name| format!("spec.dpu={name}"));
        let resource = manifest::resource("VirtnetDevice");
        let devices = self.list(&resource, self.scope.namespace(), bound.as_deref()).await?;
        self.remember(&devices);
        part(&devices)
    }

    /// Those that have devices on a DPU may have them on others too, so they are not told apart by it.
    pub(crate) async fn sets(&self) -> anyhow::Result<Part> {
        part(&self.list(&manifest::resource("VirtnetDeviceSet"), self.scope.namespace(), None).await?)
    }

    pub(crate) async fn events(&self) -> anyhow::Result<Part> {
        let resource = ApiResource::erase::<Event>(&());
        let namespace = self.scope.namespace();
        let mut all = Vec::new();
        // Those about what has no namespace are in one all the same, whichever that is.
        for (kind, namespace) in
            [("VirtnetDevice", namespace), ("VirtnetDeviceSet", namespace), ("Dpu", None)]
        {
            all.extend(self.list(&resource, namespace, Some(&events::selector(kind, None))).await?);
        }
        if let Some(dpu) = &self.dpu {
            // An agent's own tell of what is no longer there too.
            all.retain(|event| {
                let uid = event["involvedObject"]["uid"].as_str();
                event["reportingInstance"] == **dpu || uid.is_some_and(|uid| self.uids.contains(uid))
            });
        }
        part(&all)
    }

    pub(crate) async fn leases(&self) -> anyhow::Result<Part> {
        let one = self.dpu.as_ref().map(|name| format!("metadata.name={name}"));
        let resource = ApiResource::erase::<Lease>(&());
        part(&self.list(&resource, Some(&self.lease_namespace), one.as_deref()).await?)
    }

    fn remember(&mut self, objects: &[Value]) {
        let uids = objects.iter().filter_map(|object| object["metadata"]["uid"].as_str());
        self.uids.extend(uids.map(str::to_owned));
    }

    async fn list(
        &self,
        resource: &ApiResource,
        namespace: Option<&str>,
        fields: Option<&str>,
    ) -> anyhow::Result<Vec<Value>> {
        let api: Api<DynamicObject> = match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, resource),
            None => Api::all_with(self.client.clone(), resource),
        };
        let mut asked = ListParams::default();
        if let Some(fields) = fields {
            asked = asked.fields(fields);
        }
        let list = api.list(&asked).await.with_context(|| format!("listing {}", resource.plural))?;
        let mut objects = Vec::new();
        for mut object in list.items {
            object.metadata.managed_fields = None;
            object.annotations_mut().remove(LAST_APPLIED);
            object.metadata.annotations = object.metadata.annotations.filter(|all| !all.is_empty());
            let mut value = serde_json::to_value(object).context("writing an object")?;
            // Within a list these are not told of each.
            value["apiVersion"] = resource.api_version.clone().into();
            value["kind"] = resource.kind.clone().into();
            objects.push(value);
        }
        Ok(objects)
    }
}

/// Objects as the documents of a file.
fn part(objects: &[Value]) -> anyhow::Result<Part> {
    let documents: Vec<_> =
        objects.iter().map(|object| Data::Yaml.render(object)).collect::<anyhow::Result<_>>()?;
    let holds = match objects.len() {
        1 => "1 object".to_owned(),
        count => format!("{count} objects"),
    };
    Ok(Part { text: documents.join("---\n"), holds })
}
