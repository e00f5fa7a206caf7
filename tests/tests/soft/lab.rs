//! [`Lab`]: functions that are declared. The agent over a virtnetd of functions in software, with a real Open vSwitch and real netdevs.

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use kube::runtime::wait::{Condition, await_condition};
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};
use tokio::task::AbortHandle;
use tokio::time::timeout;
use virtnet_agent::{Clock, Config, Metrics, Parts, Unreached};
use virtnet_crds::{FunctionStatus, VirtnetDevice};
use virtnet_embedded_api as embedded;
use virtnet_local_switch::{OpenVSwitch, SWITCH};
use virtnet_netlink::{NetlinkLinks, Representors};
use virtnet_ovsdb::OvsSwitch;
use virtnet_rpc::Client;
use virtnet_tests::open_vswitch;
use virtnet_tests::world::{DPU, LEASES, not_ready, reason};

use crate::common::{LIMIT, Service};

/// The bridge that functions' ports are on.
pub(crate) const BRIDGE: &str = "ovsbr1";

/// What is between a person who declares functions and the guests that drive them.
pub(crate) struct Lab {
    pub(crate) ovs: OpenVSwitch,
    pub(crate) service: Service,
    pub(crate) devices: Api<VirtnetDevice>,
    agent: AbortHandle,
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.agent.abort();
    }
}

impl Lab {
    /// Starts one over a device that is so, and a switch that carries offloads or does not.
    pub(crate) async fn start(device: Value, offloads: bool) -> Self {
        let mut ovs = open_vswitch::start().unwrap();
        if offloads {
            // What carries them is chosen when the switch starts, and not later.
            ovs.vsctl(&["set", "open_vswitch", ".", "other_config:userspace-tso-enable=true"]).unwrap();
            ovs.end(SWITCH).unwrap();
            ovs.start_switch().unwrap();
        }
        let mut service = Service::off(ovs.namespace());
        service.behind(ovs.address());
        service.on(device).await;

        let disk = Arc::new(embedded::MemoryDisk::default());
        let api = embedded::Api::open(embedded::Config::new(virtnet_crds::crd::all(), disk)).await.unwrap();
        let client = kube::Client::new(api.service(), "default");
        let links = ovs.namespace().run(|| NetlinkLinks::open(Representors::Taps)).unwrap().unwrap();
        let parts = Parts {
            controller: Arc::new(Client::connect(&service.folder.path().join("s.sock"))),
            switch: Arc::new(OvsSwitch::connect(ovs.address())),
            links: Arc::new(links),
            firmware: Arc::new(Unreached),
            host: Arc::new(Unreached),
        };
        let config = Config { dpu: DPU.into(), lease_namespace: LEASES.into() };
        let agent = virtnet_agent::run(config, client.clone(), parts, Clock::system(), Metrics::default());
        let agent = tokio::spawn(agent).abort_handle();
        Self { ovs, service, devices: Api::default_namespaced(client), agent }
    }

    /// Declares a device of this spec, to which its DPU is added.
    pub(crate) async fn declare(&self, name: &str, mut spec: Value) {
        spec["dpu"] = json!(DPU);
        let device = json!({
            "apiVersion": VirtnetDevice::api_version(&()),
            "kind": VirtnetDevice::kind(&()),
            "metadata": {"name": name},
            "spec": spec,
        });
        self.devices.patch(name, &PatchParams::apply("test"), &Patch::Apply(device)).await.unwrap();
    }

    /// Edits a declaration, and waits until the device is Ready with it.
    pub(crate) async fn edit(&self, name: &str, spec: Value) {
        let patch = Patch::Merge(json!({"spec": spec}));
        self.devices.patch(name, &PatchParams::default(), &patch).await.unwrap();
        self.until_ready().await;
    }

    /// Waits until something holds of a device.
    pub(crate) async fn until(
        &self,
        name: &str,
        what: &str,
        holds: impl Condition<VirtnetDevice>,
    ) -> VirtnetDevice {
        match timeout(LIMIT, await_condition(self.devices.clone(), name, holds)).await {
            Ok(device) => device.unwrap().unwrap(),
            Err(_) => {
                let last = self.devices.get(name).await;
                panic!("it never was so of {name} that {what}: {last:#?}\n{}", self.service.log())
            }
        }
    }

    /// Waits until all devices are Ready, and answers what is reported of their functions.
    pub(crate) async fn until_ready(&self) -> BTreeMap<String, FunctionStatus> {
        let ready = |device: Option<&VirtnetDevice>| device.is_some_and(|device| not_ready(device).is_none());
        let mut functions = BTreeMap::new();
        for device in self.devices.list(&ListParams::default()).await.unwrap() {
            let name = device.name_any();
            let device = self.until(&name, "it is Ready", ready).await;
            functions.insert(name, device.status.unwrap().function.unwrap());
        }
        functions
    }

    /// Waits until a device is not Ready for this reason, and answers the message.
    pub(crate) async fn until_not_ready(&self, name: &str, why: &str) -> String {
        let of = |device: &VirtnetDevice| reason(device).filter(|(reason, _)| reason == why);
        let refused = |device: Option<&VirtnetDevice>| device.is_some_and(|device| of(device).is_some());
        let device = self.until(name, &format!("the reason is {why}"), refused).await;
        of(&device).unwrap().1
    }

    /// Takes declarations back, and waits until the devices are gone.
    pub(crate) async fn withdraw(&self, names: &[&str]) {
        for name in names {
            self.devices.delete(name, &DeleteParams::default()).await.unwrap();
        }
        for name in names {
            let gone = await_condition(self.devices.clone(), name, |device: Option<&VirtnetDevice>| {
                device.is_none()
            });
            let gone = timeout(LIMIT, gone).await;
            gone.unwrap_or_else(|_| panic!("{name} never went\n{}", self.service.log())).unwrap();
        }
    }

    /// Ends it, once nothing is declared any more.
    pub(crate) async fn end(mut self) {
        self.service.until("nothing is left", |state| state.functions.is_empty()).await;
        assert_eq!(self.ports(), Vec::<String>::new());
        self.agent.abort();
        self.service.end();
    }

    /// The bridge's ports.
    pub(crate) fn ports(&self) -> Vec<String> {
        self.ovs.vsctl(&["list-ports", BRIDGE]).unwrap().lines().map(str::to_owned).collect()
    }
}
