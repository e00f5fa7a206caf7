//! What shows and changes nothing: `list`, `query`, `version`, and `log`, which changes the log alone.

use serde_json::Value;
use virtnet_rpc::method::Level;

use crate::world::{World, command, golden};

/// Two static PFs, a hot-plugged one, and two VFs, in use by the host.
async fn some_functions() -> World {
    let world = World::start(&["VIRTIO_NET_EMULATION_NUM_PF=2", "VIRTIO_NET_EMULATION_NUM_VF=4"]).await;
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
    for same in ["query -u VNETS0D0F0VF2", "query -u VNETS0D0F0VF2 -b", "query --pf 0 --vf 1 --brief"] {
        assert_eq!(world.virtnet(same).ok(), one, "{same}");
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
    world
        .virtnet("query -p 0 -q 1")
        .failed("query queue 1: this controller tells nothing of single queues yet: ask without -q");
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
