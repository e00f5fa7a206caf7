//! Objects by their names. Where there is none of a name, the error lists those that there are.

use std::fmt::Debug;

use anyhow::{Context, bail};
use kube::api::ListParams;
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use virtnet_crds::{Dpu, VirtnetDevice};

use crate::output;

/// Where objects are looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// The kind has no namespaces.
    Cluster,
    /// All namespaces.
    All,
    /// One of them.
    Namespace(String),
}

impl Scope {
    /// The one namespace.
    pub(crate) fn namespace(&self) -> Option<&str> {
        match self {
            Self::Namespace(namespace) => Some(namespace),
            Self::Cluster | Self::All => None,
        }
    }

    /// What kubectl says where there is nothing.
    pub(crate) fn none_found(&self) -> String {
        match self {
            Self::Namespace(namespace) => format!("No resources found in {namespace} namespace."),
            Self::Cluster | Self::All => "No resources found".to_owned(),
        }
    }
}

/// The devices there, by namespace and name; only those of a DPU, where one is named. One that can't be understood is told of
/// and left out: it may be of a newer version than this program.
pub(crate) async fn devices(
    client: &Client,
    scope: &Scope,
    dpu: Option<&str>,
) -> anyhow::Result<Vec<VirtnetDevice>> {
    let api: Api<DeserializeGuard<VirtnetDevice>> = match scope.namespace() {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let mut asked = ListParams::default();
    if let Some(dpu) = dpu {
        asked = asked.fields(&format!("spec.dpu={dpu}"));
    }
    let list = api.list(&asked).await.context("listing the devices")?;
    let mut devices = Vec::new();
    for guard in list.items {
        let name = format!("{}/{}", guard.namespace().unwrap_or_default(), guard.name_any());
        match guard.0 {
            Ok(device) => devices.push(device),
            Err(invalid) => output::error(&format!("{name} is left out: {}", invalid.error)),
        }
    }
    devices.sort_by_cached_key(|device| (device.namespace(), device.name_any()));
    Ok(devices)
}

/// So many names are listed.
const AT_MOST: usize = 10;

/// The Dpu of this name.
pub(crate) async fn dpu(client: &Client, name: &str) -> anyhow::Result<Dpu> {
    named(&Api::all(client.clone()), &format!("Dpu {name}"), name).await
}

/// The device of this name in a namespace.
pub(crate) async fn device(client: &Client, namespace: &str, name: &str) -> anyhow::Result<VirtnetDevice> {
    let api = Api::namespaced(client.clone(), namespace);
    named(&api, &format!("VirtnetDevice {namespace}/{name}"), name).await
}

async fn named<K>(api: &Api<K>, shown: &str, name: &str) -> anyhow::Result<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    if let Some(object) = api.get_opt(name).await.with_context(|| format!("getting {shown}"))? {
        return Ok(object);
    }
    let all = api.list_metadata(&ListParams::default()).await;
    let all = all.with_context(|| format!("there is no {shown}; listing those that there are"))?;
    let names: Vec<_> = all.items.iter().map(PartialObjectMeta::name_any).collect();
    bail!("there is no {shown}; {}", listed(&names))
}

fn listed(names: &[String]) -> String {
    match names {
        [] => "there is none at all".to_owned(),
        [only] => format!("there is {only}"),
        some if some.len() <= AT_MOST => format!("there are {}", some.join(", ")),
        many => {
            let (first, others) = many.split_at(AT_MOST);
            format!("there are {} and {} more", first.join(", "), others.len())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_listed_up_to_a_number() {
        let names: Vec<_> = (0..12).map(|number| format!("n{number}")).collect();
        assert_eq!(listed(&[]), "there is none at all");
        assert_eq!(listed(&names[..1]), "there is n0");
        assert_eq!(listed(&names[..3]), "there are n0, n1, n2");
        assert_eq!(listed(&names), "there are n0, n1, n2, n3, n4, n5, n6, n7, n8, n9 and 2 more");
    }
}
