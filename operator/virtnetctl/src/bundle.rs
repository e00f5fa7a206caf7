//! `virtnetctl bundle`: what others need to help, in one file: objects, Events, Leases, versions, and of a DPU what the agent
//! and Open vSwitch tell. Never Secrets, tokens or kubeconfigs.

mod agent;
mod archive;
mod objects;
mod ports;
mod readme;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use http::Uri;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use serde_json::json;
use virtnet_agent::Clock;
use virtnet_crds::LEASE_NAMESPACE;
use virtnet_ovsdb::Address;

use self::archive::Archive;
use self::objects::Objects;
use self::readme::Contents;
use crate::find::Scope;
use crate::output::Data;
use crate::{access, output};

/// What `bundle` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only this DPU, with its devices
    #[arg(long, value_name = "NAME")]
    dpu: Option<String>,
    /// Only the devices and sets of this namespace
    #[arg(short, long)]
    namespace: Option<String>,
    /// Those of all namespaces, as it is without -n
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,
    /// Where it is written [default: virtnet-bundle-TIME.tar.gz]
    #[arg(short, long, value_name = "FILE.tar.gz")]
    file: Option<PathBuf>,
    /// Ask the agent for its metrics and its health too, at the address of its --http
    #[arg(long, value_name = "http://HOST:PORT", value_parser = agent::url)]
    agent: Option<Uri>,
    /// On the DPU: take the ports of ours from this database of Open vSwitch, such as unix:/run/openvswitch/db.sock
    #[arg(long, value_name = "ADDRESS")]
    ovsdb: Option<Address>,
    /// The namespace of the agents' Leases
    #[arg(long, default_value = LEASE_NAMESPACE, value_name = "NAMESPACE")]
    lease_namespace: String,
    #[command(flatten)]
    access: access::Arguments,
}

/// Runs it: 1 where a part could not be had. What could be had is in the file then, and why the rest is not.
pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let Arguments { dpu, namespace, all_namespaces: _, file, agent, ovsdb, lease_namespace, access } =
        arguments;
    let client = access.client().await?;
    let now = Clock::system().now();
    let file = file.unwrap_or_else(|| default_file(now));
    // Without an API there is no bundle, and no file that looks like one.
    let versions = versions(&client).await?;
    let scope = namespace.map_or(Scope::All, Scope::Namespace);
    let mut objects = Objects::new(client, scope, dpu, lease_namespace).await?;
    let about = objects.about();

    let mut bundle = Bundle { archive: Archive::create(&file, now)?, contents: Contents::default() };
    bundle.take("versions.yaml", Ok(versions))?;
    bundle.take("dpus.yaml", objects.dpus().await)?;
    bundle.take("virtnetdevices.yaml", objects.devices().await)?;
    bundle.take("virtnetdevicesets.yaml", objects.sets().await)?;
    bundle.take("events.yaml", objects.events().await)?;
    bundle.take("leases.yaml", objects.leases().await)?;
    match &agent {
        Some(agent) => {
            for path in agent::PATHS {
                bundle.take(&format!("agent/{path}.txt"), agent::ask(agent, path).await)?;
            }
        }
        None => bundle.skip("agent/", "the agent's metrics and health: name its address by --agent"),
    }
    match ovsdb {
        Some(address) => bundle.take("ports.yaml", ports::read(address, objects.dpu()).await)?,
        None => bundle.skip("ports.yaml", "our ports: on the DPU, name Open vSwitch's database by --ovsdb"),
    }
    bundle.skip("the plan", "no agent serves its own: on the DPU, virtnet-agent plan prints it");
    bundle.end(&about, now)
}

fn default_file(now: Timestamp) -> PathBuf {
    format!("virtnet-bundle-{}.tar.gz", now.strftime("%Y-%m-%dT%H%M%SZ")).into()
}

async fn versions(client: &Client) -> anyhow::Result<Part> {
    let server = client.apiserver_version().await.context("asking the API for its version")?;
    let versions = json!({
        "virtnetctl": env!("CARGO_PKG_VERSION"),
        "api": {"version": server.git_version, "platform": server.platform},
    });
    Ok(Part {
        text: Data::Yaml.render(&versions)?,
        holds: format!("virtnetctl and the API ({})", server.git_version),
    })
}

/// A file of the bundle.
struct Part {
    text: String,
    /// What is in it, for people.
    holds: String,
}

/// A bundle in the making.
struct Bundle {
    archive: Archive,
    contents: Contents,
}

impl Bundle {
    /// Puts a part in, or notes why there is none.
    fn take(&mut self, path: &str, part: anyhow::Result<Part>) -> anyhow::Result<()> {
        match part {
            Ok(Part { text, holds }) => {
                self.archive.add(path, &text)?;
                output::line(&format!("{path}: {holds}"));
                self.contents.has(path, &holds);
            }
            Err(error) => {
                let why = virtnet_agent::chain(error.as_ref());
                output::error(&format!("{path}: {why}"));
                self.contents.lacks(path, &why);
            }
        }
        Ok(())
    }

    /// Notes what was not asked for, and how it is.
    fn skip(&mut self, path: &str, how: &str) {
        self.contents.not_asked(path, how);
    }

    fn end(mut self, about: &str, now: Timestamp) -> anyhow::Result<ExitCode> {
        self.archive.add("README", &self.contents.readme(about, now))?;
        let path = self.archive.finish()?;
        output::line(&path.display().to_string());
        match self.contents.lacking() {
            0 => Ok(ExitCode::SUCCESS),
            count => {
                output::error(&format!("{count} of its parts could not be had; its README says why"));
                Ok(ExitCode::FAILURE)
            }
        }
    }
}
