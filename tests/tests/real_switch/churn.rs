//! ovs-vswitchd, ovsdb-server and the agent are killed again and again while devices come and go: the end is exactly what
//! is declared, and what was Ready throughout was never taken away.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kube::ResourceExt;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use virtnet_local_switch::{DATABASE, SWITCH};
use virtnet_tests::ovsdb_wire::deleted;
use virtnet_tests::real_world::RealWorld;
use virtnet_tests::world::DPU;

/// Devices that stay as they are.
const STEADY: usize = 10;

fn spec(tag: u16) -> Value {
    json!({"dpu": DPU, "function": {"static": {"pf": 0}}, "port": {"bridge": "ovsbr1", "tag": tag}})
}

fn hotplug(tag: u16, bridge: &str) -> Value {
    json!({"dpu": DPU, "function": {"hotplug": {}}, "port": {"bridge": bridge, "tag": tag}})
}

fn vf(vf: usize) -> Value {
    json!({"dpu": DPU, "function": {"vf": {"pf": 0, "vf": vf}}, "port": {"bridge": "ovsbr1", "tag": 7}})
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_killed_the_end_is_what_is_declared() {
    // Each is killed this often; `make soak` kills a hundred times.
    let kills = std::env::var("VIRTNET_KILLS").map_or(6, |text| text.parse().unwrap());
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut world = RealWorld::new("PF_TOTAL_SF=524").await.unwrap();
    world.make_vfs(126).await.unwrap();
    world
        .ovs
        .vsctl(&["add-port", "ovsbr1", "foreign0", "--", "set", "interface", "foreign0", "type=internal"])
        .unwrap();
    let foreign = world.ovs.configuration().unwrap();
    let mut agent = Some(world.agent().unwrap());
    world.apply("static", spec(7)).await.unwrap();
    for number in 0..STEADY {
        world.apply(&format!("steady-{number}"), vf(number)).await.unwrap();
    }
    world.until_ready(STEADY + 1).await.unwrap();
    let rows = |world: &RealWorld| {
        let text = world
            .ovs
            .vsctl(&["--bare", "--format=csv", "--no-headings", "--columns=name,_uuid,tag", "list", "Port"])
            .unwrap();
        text.lines()
            .filter_map(|line| line.split_once(','))
            .map(|(name, rest)| (name.to_owned(), rest.to_owned()))
            .collect::<BTreeMap<_, _>>()
    };
    let steady = rows(&world);
    world.wire.take();

    let mut victims: Vec<_> = (0..kills).flat_map(|_| [SWITCH, DATABASE, "agent"]).collect();
    let mut wanted = BTreeMap::new();
    let mut told = Vec::new();
    while !victims.is_empty() {
        // Some come, some change, some go.
        for _ in 0..rng.random_range(1..4) {
            let name = format!("web-{}", rng.random_range(0..12));
            if wanted.remove(&name).is_some() && rng.random_bool(0.5) {
                world.delete(&name).await.unwrap();
                continue;
            }
            let (tag, bridge) =
                (rng.random_range(1..4000), if rng.random_bool(0.5) { "ovsbr1" } else { "ovsbr2" });
            // One of this name that is still going is not there to be changed.
            if world
                .list()
                .await
                .unwrap()
                .iter()
                .any(|device| device.name_any() == name && device.metadata.deletion_timestamp.is_some())
            {
                continue;
            }
            world.apply(&name, hotplug(tag, bridge)).await.unwrap();
            wanted.insert(name, tag);
        }
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..400))).await;
        match victims.swap_remove(rng.random_range(0..victims.len())) {
            "agent" => {
                drop(agent.take());
                tokio::time::sleep(Duration::from_millis(rng.random_range(0..100))).await;
                agent = Some(world.agent().unwrap());
            }
            daemon => {
                world.ovs.kill(daemon).unwrap();
                tokio::time::sleep(Duration::from_millis(rng.random_range(0..300))).await;
                if daemon == DATABASE {
                    world.ovs.start_database().unwrap();
                } else {
                    world.ovs.start_switch().unwrap();
                }
            }
        }
        told.append(&mut world.wire.take());
    }

    // Those that go are gone, and all that is wanted is Ready.
    world.until_ready(STEADY + 1 + wanted.len()).await.unwrap();
    let mut ports = BTreeMap::new();
    for device in world.list().await.unwrap() {
        let name = world.representor(&device.name_any()).await.unwrap();
        ports.insert(name, device.spec.port.unwrap().tag.unwrap());
    }
    let found: BTreeMap<_, _> = rows(&world)
        .into_iter()
        .filter(|(name, _)| !["ovsbr1", "ovsbr2", "foreign0"].contains(&name.as_str()))
        .map(|(name, rest)| (name, rest.split_once(',').unwrap().1.parse().unwrap()))
        .collect();
    assert_eq!(found, ports);
    for (name, tag) in wanted {
        let name = world.representor(&name).await.unwrap();
        assert_eq!(found[&name], tag);
    }
    // What was Ready throughout: the same rows, and no moment at which the database told of their end.
    let now = rows(&world);
    told.append(&mut world.wire.take());
    let gone: BTreeSet<_> = deleted(&told, "Port").into_iter().collect();
    for (name, row) in &steady {
        assert_eq!(now.get(name), Some(row), "{name}");
        let uuid = row.split_once(',').unwrap().0;
        assert!(!gone.contains(uuid), "{name} was removed");
    }
    // And with all devices gone only what others made.
    for device in world.list().await.unwrap() {
        world.delete(&device.name_any()).await.unwrap();
    }
    while !world.list().await.unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // The order of rows is the server's.
    let left = world.ovs.configuration().unwrap();
    assert_eq!(left.lines().collect::<BTreeSet<_>>(), foreign.lines().collect());
    drop(agent);
}
