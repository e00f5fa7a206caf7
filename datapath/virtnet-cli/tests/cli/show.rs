//! What shows and changes nothing: `list`, `query`, `version`, and `log`, which changes the log alone.

use serde_json::Value;
use virtnet_controller::{EngineConfig, UplinkMode};
use virtnet_rpc::method::Level;

use crate::world::{World, command, golden};

/// Two static PFs, a hot-plugged one, and two VFs, in use by the host.
async fn some_functions() -> World {
    fill(World::start(&["VIRTIO_NET_EMULATION_NUM_PF=2", "VIRTIO_NET_EMULATION_NUM_VF=4"]).await).await
}

/// A world of two static PFs with all that [`some_functions`] has.
pub(crate) async fn fill(world: World) -> World {
    let words = "hotplug -i mlx5_0 -f 0x230047082b -m 0C:C4:7A:FF:22:93 -t 9000 -n 3 -s 1024";
    world.virtnet(words).ok();
    world.wait_in_use(3).await;
    world.sim.write_num_vfs(0.try_into().unwrap(), 2).unwrap();
    world.wait_in_use(5).await;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_has_the_limits_and_every_function() {
    let world = some_functions().await;
    let list = world.virtnet("list").ok();
    golden("list.json", &list);
    let list: Value = serde_json::from_str(&list).unwrap();
    assert_eq!(list["devices"].as_array().unwrap().len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_tells_all_of_all_functions_or_of_one() {
    let world = some_functions().await;
    world.unbind("VNETS0D0F0VF2").await;
    golden("query-all.json", &world.virtnet("query -a").ok());
    let one = world.virtnet("query -p 0 -v 1").ok();
    golden("query-vf.json", &one);
    assert_eq!(world.virtnet("query -u VNETS0D0F0VF2").ok(), one);
    for brief in ["query -u VNETS0D0F0VF2 -b", "query --pf 0 --vf 1 --brief"] {
        golden("query-brief.json", &world.virtnet(brief).ok());
    }
    golden("query-pf.json", &world.virtnet("query -p 2").ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_of_what_is_not_there_says_so() {
    let world = World::start(&["VIRTIO_NET_EMULATION_NUM_PF=1"]).await;
    world.virtnet("query -p 9").failed("there is no PF 9: virtnet list shows what there is");
    world.virtnet("query -p 9 -v 1").failed(
        "there is no VF 1 of PF 9: the host makes it (sriov_numvfs); virtnet list shows what there is",
    );
    world
        .virtnet("query -u VNETS9D0F0")
        .failed("nothing has the VUID VNETS9D0F0: virtnet list shows what there is");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_says_what_waits_for_a_restart() {
    let world = World::start(&["VIRTIO_NET_EMULATION_NUM_PF=1"]).await;
    let list = |text: String| serde_json::from_str::<Value>(&text).unwrap();
    let before = list(world.virtnet("list").ok());
    assert_eq!(before["controller"].get("restart_required"), None);
    world.sim.set_uplink_mtu(virtnet_model::Uplink::P0, 9000);
    let state = world.wait("a restart is wanted", |state| state.restart_required.is_some()).await;
    let after = list(world.virtnet("list").ok());
    assert_eq!(after["controller"]["restart_required"], state.restart_required.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_versions_of_the_controller_are_told() {
    let world = World::start(&[]).await;
    golden("version.json", &world.virtnet("version").ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_and_an_update_are_asked_for_and_its_status_is_told() {
    let world = World::start(&[]).await;
    golden("restart.json", &world.virtnet("restart").ok());
    golden("update-start.json", &world.virtnet("update -s").ok());
    assert_eq!(*world.told.asked.lock().unwrap(), ["restart", "update"]);
    for words in ["update -t", "update status"] {
        golden("update-status.json", &world.virtnet(words).ok());
    }
    // Of a controller that does not serve too.
    world.sim.start_controller(EngineConfig { uplinks: UplinkMode::Lag, ..EngineConfig::default() });
    let list = world.virtnet("list");
    assert!(list.stderr.contains("the ports are not bonded"), "{list:?}");
    golden("update-status.json", &world.virtnet("update -t").ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_is_being_moved_says_so_and_is_not_changed() {
    let world = some_functions().await;
    let vf = world.function("VNETS0D0F0VF2").await;
    world.sim.set_migrating(vf.bdf.unwrap(), true).unwrap();
    world.wait("the migration", |state| state.functions.values().any(|function| function.migrating)).await;
    golden("query-migrating.json", &world.virtnet("query -p 0 -v 1").ok());
    let list: Value = serde_json::from_str(&world.virtnet("list").ok()).unwrap();
    let moving: Vec<_> =
        list["devices"].as_array().unwrap().iter().filter(|device| device["status"] == "migrating").collect();
    assert_eq!(moving.len(), 1);
    assert_eq!(moving[0]["vuid"], "VNETS0D0F0VF2");
    world
        .virtnet("modify -p 0 -v 1 device -t 9000")
        .failed("modify VF 1 of PF 0: migrating: try again when that has ended");
    // Others are served as ever.
    world.unbind("VNETS0D0F0VF1").await;
    world.virtnet("modify -p 0 -v 0 device -t 9000").ok();
    world.sim.set_migrating(vf.bdf.unwrap(), false).unwrap();
    world.unbind("VNETS0D0F0VF2").await;
    world.virtnet("modify -p 0 -v 1 device -t 9000").ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_guide_does_not_have_is_refused_with_what_to_do() {
    let world = World::start(&["VIRTIO_NET_EMULATION_NUM_PF=1"]).await;
    for (words, what, instead) in [
        ("query -p 0 -q 1", "query -q", "ask without -q"),
        ("stats -p 0", "stats", "see virtnet query"),
        ("health", "health", "see virtnet list and virtnet update -t"),
        ("validate", "validate", "see virtnetd check"),
        ("debug", "debug", "see virtnet log -l debug"),
        ("modify -p 0 queue -e event -n 1 -c 1", "modify … queue", "do without it"),
    ] {
        world.virtnet(words).failed(&format!(
            "the controller is of the guide's generation, which has no {what}: {instead}, or set generation to later \
             in virtnet.conf and restart the controller"
        ));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_level_of_the_log_is_passed_on() {
    let world = World::start(&[]).await;
    golden("log.json", &world.virtnet("log -l err").ok());
    world.virtnet("log --level debug").ok();
    world.virtnet("log -l info").ok();
    assert_eq!(*world.told.levels.lock().unwrap(), [Level::Err, Level::Debug, Level::Info]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_has_gone_is_no_error() {
    let world = World::start(&[]).await;
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut list = command();
    list.env("VIRTNETD_SOCKET", world.socket()).arg("list").stdout(writer);
    let output = tokio::task::block_in_place(|| list.output()).unwrap();
    assert_eq!((output.status.code(), String::from_utf8(output.stderr).unwrap()), (Some(0), String::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_can_not_be_written_is_one() {
    let world = World::start(&[]).await;
    let mut list = command();
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    list.arg("list").arg("--socket").arg(world.socket()).stdout(full);
    let output = tokio::task::block_in_place(|| list.output()).unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.starts_with("virtnet: write to standard output: No space left"), "{said}");
}
