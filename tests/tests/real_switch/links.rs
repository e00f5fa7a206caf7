//! Netdevs over the kernel's own rtnetlink.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt;
use virtnet_model::{
    EswitchPort, Events, Link, LinkChange, Links, Mtu, Netdevs, PartError, Refusal, SfNumber, SubFunction,
};
use virtnet_netlink::{Namespace, NetlinkLinks, Representors, Taps};

struct Rig {
    namespace: Arc<Namespace>,
    taps: Taps,
    links: NetlinkLinks,
}

impl Rig {
    fn new() -> Self {
        let namespace = Arc::new(Namespace::new().unwrap());
        let links = namespace.run(|| NetlinkLinks::open(Representors::Taps)).unwrap().unwrap();
        Self { taps: Taps::new(Some(Arc::clone(&namespace))), namespace, links }
    }

    fn ip(&self, arguments: &[&str]) {
        let status = self.namespace.run(|| Command::new("ip").args(arguments).status()).unwrap().unwrap();
        assert!(status.success(), "ip {arguments:?}");
    }

    /// How many messages the kernel dropped that were for sockets of this namespace.
    fn dropped(&self) -> u64 {
        let read = || std::fs::read_to_string("/proc/thread-self/net/netlink");
        let table = self.namespace.run(read).unwrap().unwrap();
        // The last column but one.
        table.lines().skip(1).filter_map(|line| line.split_whitespace().nth(8)?.parse::<u64>().ok()).sum()
    }

    async fn link(&self, sf: &SubFunction) -> Option<Link> {
        self.links.observe().await.unwrap().remove(&sf.representor)
    }
}

fn sf(number: u32) -> SubFunction {
    SubFunction::named(EswitchPort::P0, SfNumber::try_from(number).unwrap(), "mlx5_0")
}

/// Waits for an event, and lets the rest of its burst pass.
async fn told(events: &mut Events) {
    tokio::time::timeout(Duration::from_secs(30), events.next()).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tap_stands_for_a_representor_and_is_set_up() {
    let rig = Rig::new();
    let sf = sf(2000);
    assert_eq!(rig.link(&sf).await, None);
    rig.taps.appear(&sf.representor).unwrap();
    assert!(rig.taps.appear(&sf.representor).is_err(), "the name is taken");
    let fresh = rig.link(&sf).await.unwrap();
    assert!(!fresh.up && fresh.mtu == 1500 && fresh.address.is_some() && fresh.represents(&sf), "{fresh:?}");
    let change = LinkChange { up: Some(true), mtu: Mtu::try_from(9000).ok() };
    rig.links.set(&sf, change).await.unwrap();
    let set = rig.link(&sf).await.unwrap();
    assert!(set.up && set.mtu == 9000 && set.index == fresh.index, "{set:?}");
    let down = LinkChange { up: Some(false), mtu: None };
    rig.links.set(&sf, down).await.unwrap();
    assert!(!rig.link(&sf).await.unwrap().up);
    rig.taps.vanish(&sf.representor);
    assert_eq!(rig.link(&sf).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_do_to_a_netdev_is_told() {
    let rig = Rig::new();
    let sf = sf(2000);
    let name = sf.representor.as_str();
    rig.taps.appear(&sf.representor).unwrap();
    for arguments in [
        &["link", "set", name, "up"][..],
        // The kernel tells of this one only while the netdev is up.
        &["link", "property", "add", "dev", name, "altname", "enp3s0f0npf0sf2000"],
        &["link", "set", name, "mtu", "1400"],
        &["link", "set", name, "down"],
        &["link", "set", name, "name", "other0"],
    ] {
        let mut events = rig.links.events();
        rig.ip(arguments);
        told(&mut events).await;
    }
    let links = rig.links.observe().await.unwrap();
    let renamed = &links[&"other0".parse().unwrap()];
    assert!(renamed.mtu == 1400 && renamed.alternative_names.contains("enp3s0f0npf0sf2000"), "{renamed:?}");
    assert_eq!(rig.link(&sf).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_netdev_that_is_no_representor_is_not_touched() {
    let rig = Rig::new();
    let (absent, veth, renamed) = (sf(2000), sf(2001), sf(2002));
    rig.ip(&["link", "add", veth.representor.as_str(), "type", "veth", "peer", "name", "peer0"]);
    rig.taps.appear(&"tap0".parse().unwrap()).unwrap();
    rig.ip(&["link", "property", "add", "dev", "tap0", "altname", renamed.representor.as_str()]);
    let change = LinkChange { up: Some(true), mtu: None };
    for sf in [absent, veth.clone(), renamed] {
        let error = rig.links.set(&sf, change).await.unwrap_err();
        assert_eq!(error.refusal(), Some(Refusal::NoSuchLink), "{error}");
    }
    assert!(!rig.link(&veth).await.unwrap().up);
    assert!(!rig.links.observe().await.unwrap()[&"tap0".parse().unwrap()].up);
}

/// The kernel marks a dump that a change cut into, and with many netdevs and many changes every dump is.
#[tokio::test(flavor = "multi_thread")]
async fn netdevs_are_observed_while_others_come_and_go_all_the_time() {
    let rig = Rig::new();
    let all: Vec<_> = (3000..3400).map(sf).collect();
    for sf in &all {
        rig.taps.appear(&sf.representor).unwrap();
    }
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let name = "churn0".parse().unwrap();
            while !over.load(Ordering::Relaxed) {
                // A process that another test is starting has the TAP too, until it runs its own program.
                if rig.taps.appear(&name).is_ok() {
                    rig.taps.vanish(&name);
                }
            }
        });
        let observe = async {
            for _ in 0..100 {
                let links = rig.links.observe().await?;
                assert!(links.contains_key(&all[0].representor));
            }
            Ok::<_, PartError>(())
        };
        let result = tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(observe));
        over.store(true, Ordering::Relaxed);
        result.unwrap();
    });
    let links = rig.links.observe().await.unwrap();
    assert!(all.iter().all(|sf| links.contains_key(&sf.representor)));
}

#[tokio::test(flavor = "multi_thread")]
async fn netdevs_of_another_namespace_are_not_there() {
    let rig = Rig::new();
    let sf = sf(2000);
    rig.taps.appear(&sf.representor).unwrap();
    let elsewhere = Rig::new();
    let error = elsewhere.links.set(&sf, LinkChange { up: Some(true), mtu: None }).await.unwrap_err();
    assert_eq!(error.to_string(), "set up on en3f0pf0sf2000: there is no such netdev");
    assert_eq!(elsewhere.link(&sf).await, None);
}

/// Nobody reads events while hundreds of netdevs come: the kernel drops some, and says so. What is then observed is whole,
/// and what changes afterwards is told.
#[tokio::test]
async fn events_that_the_kernel_dropped_lose_nothing() {
    let rig = Rig::new();
    let mut events = rig.links.events();
    let all: Vec<_> = (3000..3500).map(sf).collect();
    // The test's one thread is the runtime's: the sockets are not read meanwhile.
    for sf in &all {
        rig.taps.appear(&sf.representor).unwrap();
    }
    assert!(rig.dropped() > 0, "nothing was dropped, so nothing is shown");
    told(&mut events).await;
    let links = rig.links.observe().await.unwrap();
    assert!(all.iter().all(|sf| links.contains_key(&sf.representor)));
    while futures::FutureExt::now_or_never(events.next()).is_some() {}
    rig.ip(&["link", "set", all[0].representor.as_str(), "up"]);
    told(&mut events).await;
    assert!(rig.link(&all[0]).await.unwrap().up);
}
