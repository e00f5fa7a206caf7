//! The later generation: a golden file for each of its commands, in `tests/golden/later`.

use serde_json::Value;
use virtnet_model::{Controller, Generation, PartError, Refusal, Target};
use virtnet_rpc::Client;
use virtnet_sim::Misuse;

use crate::show::fill;
use crate::world::{World, golden, id};

const HOTPLUG: &str = "hotplug -i mlx5_0 -m 0C:C4:7A:FF:22:93 -t 1500 -n 3 -s 1024";

async fn some_functions() -> World {
    let firmware =
        ["VIRTIO_NET_EMULATION_NUM_PF=2", "VIRTIO_NET_EMULATION_NUM_VF=4", "VIRTIO_NET_EMULATION_NUM_MSIX=6"];
    fill(World::later(&firmware).await).await
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_shows() {
    let world = some_functions().await;
    world.unbind("VNETS0D0F0VF2").await;
    golden("later/list.json", &world.virtnet("list").ok());
    golden("later/query-all.json", &world.virtnet("query -a").ok());
    golden("later/query-pf.json", &world.virtnet("query -p 2").ok());
    golden("later/query-vf.json", &world.virtnet("query -p 0 -v 1").ok());
    golden("later/query-brief.json", &world.virtnet("query -p 2 -b").ok());
    golden("later/version.json", &world.virtnet("version").ok());
    golden("later/log.json", &world.virtnet("log -l info").ok());
    golden("later/update-status.json", &world.virtnet("update -t").ok());
    golden("later/debug.json", &world.virtnet("debug").ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes() {
    let mut config = virtnet_sim::SimConfig { host_on: false, ..virtnet_sim::SimConfig::default() };
    config.set_firmware(&["VIRTIO_NET_EMULATION_NUM_PF=1", "VIRTIO_NET_EMULATION_NUM_VF=4"]).unwrap();
    config.engine.generation = Generation::Later;
    let world = World::of(config).await;
    golden("later/hotplug.json", &world.virtnet(HOTPLUG).ok());
    golden("later/modify.json", &world.virtnet("modify -p 1 device -m 0C:C4:7A:FF:22:98").ok());
    golden("later/modify-queue.json", &world.virtnet("modify -p 1 queue -e event -n 10 -c 30").ok());
    golden("later/unplug.json", &world.virtnet("unplug -p 1").ok());
    golden("later/restart.json", &world.virtnet("restart").ok());
    golden("later/update-start.json", &world.virtnet("update -s").ok());
    world
        .virtnet("modify -p 0 device -n 3")
        .failed("modify PF 0: the MSI-X vectors of a PF are fixed in this generation: VIRTIO_NET_EMULATION_NUM_MSIX gives 4");
}

#[tokio::test(flavor = "multi_thread")]
async fn packets_are_counted_by_queue_and_length() {
    let world = some_functions().await;
    let bdf = world.function("VNETS1D0F0").await.bdf.unwrap();
    let none = json(&world.virtnet("stats -p 2").ok());
    let queues = none["device"]["queues-stats"].as_array().unwrap();
    assert_eq!(queues.len(), 2, "one to receive and one to transmit");
    assert_eq!(queues[0]["rx_65_to_127_octet_packets"], 0);

    world.sim.traffic(bdf, 0, 100, 259).unwrap();
    world.sim.traffic(bdf, 0, 3000, 2000).unwrap();
    world.sim.traffic(bdf, 1, 60, 7).unwrap();
    golden("later/stats.json", &world.virtnet("stats -p 2").ok());
    golden("later/stats-queue.json", &world.virtnet("stats -u VNETS1D0F0 -q 1").ok());
    golden("later/query-queue.json", &world.virtnet("query -p 2 -q 0").ok());
    // A driver that takes the function anew begins with queues that nothing has gone through.
    world.unbind("VNETS1D0F0").await;
    world.virtnet("stats -p 2 -q 0").failed("stats of queue 0: no driver has set it up of VNETS1D0F0");
    world.sim.bind(bdf).unwrap();
    world.wait("the driver", |state| state.functions[&id(2, None)].driver.in_use).await;
    assert_eq!(json(&world.virtnet("stats -p 2").ok()), none);

    world
        .virtnet("stats -p 2 -q 2")
        .failed("stats of queue 2: no packets go through it, which is for commands");
    world.virtnet("stats -p 2 -q 3").failed("stats of queue 3: VNETS1D0F0 has 3 queues, from 0");
    world.virtnet("query -p 2 -q 3").failed("query queue 3: VNETS1D0F0 has 3 queues, from 0");
    world.virtnet("stats -p 9").failed("there is no PF 9: virtnet list shows what there is");
}

#[tokio::test(flavor = "multi_thread")]
async fn interrupts_are_moderated_while_the_driver_has_the_function() {
    let world = some_functions().await;
    world.virtnet("modify -p 0 -v 0 queue -e event -n 10 -c 30").ok();
    let queue = |text: String| {
        let device = json(&text)["devices"][0].clone();
        let queue = &device["enabled-queues-info"][0];
        [&queue["rq_cq_period_mode"], &queue["rq_cq_period"], &queue["rq_cq_max_count"]]
            .map(|value| value.as_str().unwrap().to_owned())
    };
    assert_eq!(queue(world.virtnet("query -p 0 -v 0 -q 0").ok()), ["0", "10", "30"]);
    assert_eq!(queue(world.virtnet("query -p 0 -v 1 -q 0").ok()), ["1", "0", "0"], "another's");
    // It is the function's, whatever its driver does.
    let bdf = world.function("VNETS0D0F0VF1").await.bdf.unwrap();
    world.unbind("VNETS0D0F0VF1").await;
    assert_eq!(queue(world.virtnet("query -p 0 -v 0 -q 0").ok()), ["0", "10", "30"]);
    world.sim.bind(bdf).unwrap();
    world.wait_in_use(5).await;
    world.virtnet("modify -u VNETS0D0F0VF1 queue -e cqe -n 0 -c 0").ok();
    assert_eq!(queue(world.virtnet("query -p 0 -v 0 -q 0").ok()), ["1", "0", "0"]);
    world.virtnet("modify -p 0 -v 3 queue -e cqe -n 0 -c 0").failed(
        "there is no VF 3 of PF 0: the host makes it (sriov_numvfs); virtnet list shows what there is",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guides_generation_moderates_nothing_whoever_asks() {
    let world = World::start(&["VIRTIO_NET_EMULATION_NUM_PF=1"]).await;
    let client = Client::connect(&world.socket());
    let target = Target::Static(0.try_into().unwrap());
    let asked: Result<(), PartError> =
        virtnet_model::Queues::moderate(&client, &target, virtnet_model::Moderation::default()).await;
    let error = asked.unwrap_err();
    assert_eq!(error.refusal(), Some(Refusal::NotInGeneration), "{error}");
    assert!(client.observe().await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn health_tells_what_is_wrong_with_controller_and_functions() {
    let world = some_functions().await;
    golden("later/health.json", &world.virtnet("health").ok());
    golden("later/health-all.json", &world.virtnet("health -a").ok());

    let bdf = world.function("VNETS1D0F0").await.bdf.unwrap();
    world.sim.misuse(bdf, 1, Misuse::BadDescriptor, 3).unwrap();
    world.sim.misuse(bdf, 1, Misuse::LongChain, 2).unwrap();
    world.sim.misuse(bdf, 0, Misuse::BadBuffer, 1).unwrap();
    {
        let mut health = world.told.health.lock().unwrap();
        health.failures = 2;
        health.last_failure = Some("the worker has ended (signal: 9 (SIGKILL))".to_owned());
        health.given_up = vec!["unplug from slot 3".to_owned()];
    }
    golden("later/health-pf.json", &world.virtnet("health -p 2").ok());
    world.virtnet("health -p 9").failed("there is no PF 9: virtnet list shows what there is");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_is_validated_before_it_is_used() {
    let world = World::later(&[]).await;
    golden("later/validate.json", &world.virtnet("validate").ok());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("virtnet.conf");
    std::fs::write(&file, "{\"nonsense\": 1}").unwrap();
    let words = format!("validate -f {}", file.display());
    world.virtnet(&words).failed(&format!("{} can't be used: line 1: nonsense", file.display()));
    std::fs::write(&file, "{}").unwrap();
    assert_eq!(json(&world.virtnet(&words).ok())["file"], file.display().to_string());
    let asked = world.told.validated.lock().unwrap().clone();
    assert_eq!(asked, [None, Some("{\"nonsense\": 1}".to_owned()), Some("{}".to_owned())]);
    world
        .virtnet("validate -f /nonexistent/virtnet.conf")
        .failed("read /nonexistent/virtnet.conf: No such file or directory (os error 2)");
}
