//! Functions that are declared: the agent over the service, a real Open vSwitch and real netdevs, and two guests that reach each other
//! through its bridge.

use std::sync::Arc;
use std::time::Instant;

use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use serde_json::json;
use virtnet_agent::{Clock, Config, Metrics, Parts, Unreached};
use virtnet_crds::VirtnetDevice;
use virtnet_embedded_api as embedded;
use virtnet_netlink::{NetlinkLinks, Representors};
use virtnet_ovsdb::OvsSwitch;
use virtnet_rpc::Client;
use virtnet_tests::guest::functions::sees;
use virtnet_tests::guest::{Guest, Machine};
use virtnet_tests::open_vswitch;
use virtnet_tests::world::{DPU, LEASES, not_ready};

use crate::common::{LIMIT, Service, address, host, mac, reaches};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn declared_functions_are_ready_and_guests_reach_each_other() {
    let machine = || Machine { ports: 1, ..Machine::default() };
    let (a, b) = tokio::join!(Guest::boot(machine()), Guest::boot(machine()));
    let (mut a, mut b) = (a.unwrap(), b.unwrap());
    let ovs = open_vswitch::start().unwrap();
    let mut service = Service::off(ovs.namespace());
    service.on(json!({"hosts": {"a": host(&a, 0), "b": host(&b, 1)}})).await;

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
    let agent = tokio::spawn(agent);

    let devices: Api<VirtnetDevice> = Api::default_namespaced(client);
    for (name, number) in [("a", 1), ("b", 2)] {
        let device = json!({
            "apiVersion": virtnet_crds::API_VERSION, "kind": "VirtnetDevice", "metadata": {"name": name},
            "spec": {
                "dpu": DPU, "function": {"hotplug": {"host": name}}, "mac": mac(number), "mtu": 1400,
                "port": {"bridge": "ovsbr1", "tag": 100},
            },
        });
        devices.patch(name, &PatchParams::apply("test"), &Patch::Apply(device)).await.unwrap();
    }
    let begun = Instant::now();
    let ready = loop {
        let list = devices.list(&ListParams::default()).await.unwrap().items;
        let waiting: Vec<_> = list.iter().filter_map(not_ready).collect();
        if list.len() == 2 && waiting.is_empty() {
            break list;
        }
        assert!(begun.elapsed() < LIMIT, "{waiting:#?}\n{}", service.log());
        // What the API tells by a watch is no more than this test wants to know.
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    };

    let seen = sees(a.console().unwrap(), [mac(1)]).await[&mac(1)].clone();
    let other = sees(b.console().unwrap(), [mac(2)]).await[&mac(2)].clone();
    assert_eq!((seen.mtu, other.mtu), (1400, 1400));
    for (device, there) in ready.iter().zip([&seen, &other]) {
        let function = device.status.as_ref().unwrap().function.as_ref().unwrap();
        assert_eq!(function.bdf.as_deref(), Some(there.bdf.as_str()));
    }
    address(&mut a, &seen, "10.1.0.1/24").await;
    address(&mut b, &other, "10.1.0.2/24").await;
    reaches(&mut a, "10.1.0.2").await;
    reaches(&mut b, "10.1.0.1").await;

    for name in ["a", "b"] {
        devices.delete(name, &DeleteParams::default()).await.unwrap();
    }
    sees(a.console().unwrap(), []).await;
    sees(b.console().unwrap(), []).await;
    service.until("nothing is left", |state| state.functions.is_empty()).await;
    agent.abort();
    service.end();
}
