//! `virtnetctl get`: objects as kubectl prints them, from the API server's own Table.

use std::process::ExitCode;

use anyhow::Context;
use clap::ValueEnum;
use http::Request;
use kube::Client;
use serde_json::Value;

use crate::find::Scope;
use crate::output::Data;
use crate::{access, output};

/// What `get` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// What to show: devices, sets or dpus, or a short name (vnd, vnds)
    #[arg(default_value = "devices", value_parser = kind)]
    kind: Kind,
    /// One object; without it, all
    name: Option<String>,
    /// The namespace [default: that of the kubeconfig]
    #[arg(short, long)]
    namespace: Option<String>,
    /// All namespaces
    #[arg(short = 'A', long, conflicts_with_all = ["name", "namespace"])]
    all_namespaces: bool,
    /// How to show it: table, wide (more columns), json or yaml
    #[arg(short, long, value_enum, default_value_t = Format::Table, hide_possible_values = true)]
    output: Format,
    #[command(flatten)]
    access: access::Arguments,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Wide,
    Json,
    Yaml,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Devices,
    Sets,
    Dpus,
}

fn kind(text: &str) -> Result<Kind, String> {
    match text.to_lowercase().trim_end_matches(".virtnet.dev") {
        "device" | "devices" | "vnd" | "virtnetdevice" | "virtnetdevices" => Ok(Kind::Devices),
        "set" | "sets" | "vnds" | "virtnetdeviceset" | "virtnetdevicesets" => Ok(Kind::Sets),
        "dpu" | "dpus" => Ok(Kind::Dpus),
        _ => Err("say devices, sets or dpus".to_owned()),
    }
}

/// Runs it.
pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let Arguments { kind, name, namespace, all_namespaces, output, access } = arguments;
    let client = access.client().await?;
    let namespace = namespace.unwrap_or_else(|| client.default_namespace().to_owned());
    let scope = match kind {
        Kind::Dpus => Scope::Cluster,
        Kind::Devices | Kind::Sets if all_namespaces => Scope::All,
        Kind::Devices | Kind::Sets => Scope::Namespace(namespace),
    };
    let path = path(kind, &scope, name.as_deref());
    match output {
        Format::Table | Format::Wide => {
            let rows = table(&client, &path, output == Format::Wide, scope == Scope::All).await?;
            if rows.len() > 1 {
                output::text(&output::columns(&rows));
            } else {
                output::note(&scope.none_found());
            }
        }
        Format::Json => output::text(&Data::Json.render(&objects(&client, &path).await?)?),
        Format::Yaml => output::text(&Data::Yaml.render(&objects(&client, &path).await?)?),
    }
    Ok(ExitCode::SUCCESS)
}

/// The path of one kind's objects, or of one of them.
fn path(kind: Kind, scope: &Scope, name: Option<&str>) -> String {
    let plural = match kind {
        Kind::Devices => "virtnetdevices",
        Kind::Sets => "virtnetdevicesets",
        Kind::Dpus => "dpus",
    };
    let scope = scope.namespace().map(|namespace| format!("/namespaces/{namespace}")).unwrap_or_default();
    let name = name.map(|name| format!("/{name}")).unwrap_or_default();
    format!("/apis/{}{scope}/{plural}{name}", virtnet_crds::API_VERSION)
}

/// The devices of the namespace `default`, as `kubectl get virtnetdevices` prints them.
pub(crate) async fn devices_table(client: &Client) -> anyhow::Result<String> {
    let path = path(Kind::Devices, &Scope::Namespace("default".into()), None);
    Ok(output::columns(&table(client, &path, false, false).await?))
}

/// The objects without their managed fields, which are for programs.
async fn objects(client: &Client, path: &str) -> anyhow::Result<Value> {
    let mut answer = request(client, path, "application/json").await?;
    let strip = |object: &mut Value| {
        if let Some(metadata) = object["metadata"].as_object_mut() {
            metadata.remove("managedFields");
        }
    };
    match answer.get_mut("items").and_then(Value::as_array_mut) {
        Some(items) => items.iter_mut().for_each(strip),
        None => strip(&mut answer),
    }
    Ok(answer)
}

async fn request(client: &Client, path: &str, accept: &str) -> anyhow::Result<Value> {
    let request = Request::get(path).header("Accept", accept).body(Vec::new()).context("making a request")?;
    client.request(request).await.with_context(|| format!("getting {path}"))
}

async fn table(
    client: &Client,
    path: &str,
    wide: bool,
    with_namespace: bool,
) -> anyhow::Result<Vec<Vec<String>>> {
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let table = request(client, path, accept).await?;
    let columns: Vec<&Value> = table["columnDefinitions"].as_array().into_iter().flatten().collect();
    let shown: Vec<usize> = columns
        .iter()
        .enumerate()
        .filter(|(_, column)| wide || column["priority"].as_i64().unwrap_or_default() == 0)
        .map(|(index, _)| index)
        .collect();
    let mut rows = vec![
        shown
            .iter()
            .map(|index| columns[*index]["name"].as_str().unwrap_or_default().to_uppercase())
            .collect::<Vec<_>>(),
    ];
    for row in table["rows"].as_array().into_iter().flatten() {
        let cell = |index: &usize| match &row["cells"][*index] {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        rows.push(shown.iter().map(cell).collect());
    }
    if with_namespace {
        let namespaces = table["rows"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|row| row["object"]["metadata"]["namespace"].as_str().unwrap_or_default().to_owned());
        for (row, namespace) in rows.iter_mut().zip(std::iter::once("NAMESPACE".to_owned()).chain(namespaces))
        {
            row.insert(0, namespace);
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_their_short_names() {
        assert_eq!(
            (kind("vnd"), kind("VNDs"), kind("dpu")),
            (Ok(Kind::Devices), Ok(Kind::Sets), Ok(Kind::Dpus))
        );
        assert!(kind("pods").is_err());
    }

    #[test]
    fn only_namespaced_kinds_have_a_namespace_in_their_path() {
        let one = path(Kind::Devices, &Scope::Namespace("default".into()), Some("web-0"));
        assert_eq!(one, "/apis/virtnet.dev/v1alpha1/namespaces/default/virtnetdevices/web-0");
        assert_eq!(path(Kind::Sets, &Scope::All, None), "/apis/virtnet.dev/v1alpha1/virtnetdevicesets");
        assert_eq!(path(Kind::Dpus, &Scope::Cluster, None), "/apis/virtnet.dev/v1alpha1/dpus");
    }
}
