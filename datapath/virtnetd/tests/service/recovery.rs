//! Recovery files: the guide's matrix, and files that are stale, broken or many.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use virtnet_model::{Change, Controller, FunctionId, Target};
use virtnet_rpc::method;
use virtnet_sim::{Effect, Sim, SimConfig, When};
use virtnetd::parent::Wish;
use virtnetd::recovery::Settings;

use crate::common::{LIMIT, Service, kill, mac, pf, plugged, request, vf};

const STATIC: u8 = 101;
const PLUGGED: u8 = 102;
const VIRTUAL: u8 = 103;

/// A DPU that has just been given power; its host binds no drivers by itself.
fn dpu(firmware: &[&str]) -> Sim {
    let mut config = SimConfig { autoprobe: false, ..SimConfig::default() };
    config.set_firmware(firmware).unwrap();
    Sim::device_only(config, None)
}

async fn service(sim: &Sim, folder: &Path, power_on: &str) -> Service {
    let recovery = Settings { power_on: Some(power_on.to_owned()), ..Settings::new(folder.to_owned()) };
    Service::over(sim.clone(), "{}", Some(recovery)).await
}

/// The names of the files.
fn files(folder: &Path) -> BTreeSet<String> {
    let names =
        std::fs::read_dir(folder).unwrap().flatten().map(|entry| entry.file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("VNETS")).collect()
}

async fn until_files(folder: &Path, what: &str, holds: impl Fn(&BTreeSet<String>) -> bool) {
    let wait = async {
        while !holds(&files(folder)) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let waited = tokio::time::timeout(LIMIT, wait).await;
    waited.unwrap_or_else(|_| panic!("{what}: {:?}", files(folder)));
}

/// Whether a file tells this MAC.
fn tells(folder: &Path, last: u8) -> bool {
    let wanted = mac(last).to_string();
    files(folder)
        .iter()
        .any(|name| std::fs::read_to_string(folder.join(name)).unwrap_or_default().contains(&wanted))
}

/// The host makes a VF of PF 1, once it has booted.
async fn make_vf(service: &Service) {
    let parent = FunctionId::pf(pf(1));
    let state = service.until("an address", |state| state.functions[&parent].bdf.is_some()).await;
    if !state.functions[&parent].driver.in_use {
        service.sim.bind(state.functions[&parent].bdf.unwrap()).unwrap();
    }
    service.sim.write_num_vfs(pf(1), 1).unwrap();
    service.until("a VF", |state| state.functions.contains_key(&FunctionId::vf(pf(1), vf(0)))).await;
}

/// A static PF, a hot-plugged one and a VF, each with a MAC that it was given.
async fn furnish(service: &Service, folder: &Path) {
    let change = |last| Change { mac: Some(mac(last)), ..Change::default() };
    service.client.modify(&Target::Static(pf(0)), &change(STATIC)).await.unwrap();
    service.client.hotplug(&request(PLUGGED)).await.unwrap();
    service.client.modify(&Target::Vf(pf(1), vf(0)), &change(VIRTUAL)).await.unwrap();
    make_vf(service).await;
    until_files(folder, "all are written", |_| {
        [STATIC, PLUGGED, VIRTUAL].iter().all(|last| tells(folder, *last))
    })
    .await;
}

/// Which of the three have their MACs.
async fn recovered(service: &Service) -> [bool; 3] {
    make_vf(service).await;
    let state = service.state().await;
    let static_pf = state.functions[&FunctionId::pf(pf(0))].mac == mac(STATIC);
    let virtual_function = state.functions[&FunctionId::vf(pf(1), vf(0))].mac == mac(VIRTUAL);
    let hot_plugged = state.functions.values().find(|function| function.mac == mac(PLUGGED));
    if let Some(function) = hot_plugged {
        assert_eq!(function.sf.as_ref().unwrap().number.get(), 2000);
        assert_eq!(function.vuid.as_str(), "VNETS1D0F0");
    }
    [static_pf, hot_plugged.is_some(), virtual_function]
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Event {
    ControllerRestart,
    LiveUpdate,
    Unplug,
    VfsDestroyed,
    DriverUnloaded,
    WarmReboot,
    PowerCycle,
}

/// The guide's matrix: what is as it was, by event, of a static PF, a hot-plugged one and a VF. Where it has no answer since the
/// event is another function's, the function stays.
const MATRIX: [(Event, [bool; 3]); 7] = [
    (Event::ControllerRestart, [true, true, true]),
    (Event::LiveUpdate, [true, true, true]),
    (Event::Unplug, [true, false, true]),
    (Event::VfsDestroyed, [true, true, false]),
    (Event::DriverUnloaded, [true, true, false]),
    (Event::WarmReboot, [true, true, false]),
    (Event::PowerCycle, [false, false, false]),
];

async fn happen(event: Event, service: &Service) {
    let state = service.state().await;
    match event {
        Event::ControllerRestart => {
            let before = *service.worker().borrow();
            service.wish(Wish::Restart).await;
            service.worker_after(before).await;
        }
        Event::LiveUpdate => service.client.call(method::UPDATE, &()).await.unwrap(),
        Event::Unplug => {
            let function = state.functions.values().find(|function| function.mac == mac(PLUGGED)).unwrap();
            service.client.unplug(&function.target().unwrap()).await.unwrap();
        }
        Event::VfsDestroyed => service.sim.write_num_vfs(pf(1), 0).unwrap(),
        Event::DriverUnloaded => {
            service.sim.unbind(state.functions[&FunctionId::pf(pf(1))].bdf.unwrap()).unwrap();
        }
        Event::WarmReboot => service.sim.reboot_host(),
        // It takes the service too: what is there afterwards is another power-on.
        Event::PowerCycle => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_recovered_is_what_the_guide_says() {
    let firmware = ["VIRTIO_NET_EMULATION_NUM_VF=2"];
    for (event, expected) in MATRIX {
        let folder = tempfile::tempdir().unwrap();
        let first = service(&dpu(&firmware), folder.path(), "one").await;
        furnish(&first, folder.path()).await;
        happen(event, &first).await;
        if event != Event::PowerCycle {
            let rests = |_: &BTreeSet<String>| {
                [tells(folder.path(), STATIC), tells(folder.path(), PLUGGED), tells(folder.path(), VIRTUAL)]
                    == expected
            };
            until_files(folder.path(), &format!("{event:?}"), rests).await;
        }
        // The service is killed, and the simulated device is gone with it.
        first.kill();
        let power_on = if event == Event::PowerCycle { "two" } else { "one" };
        let second = service(&dpu(&firmware), folder.path(), power_on).await;
        assert_eq!(recovered(&second).await, expected, "{event:?}");
        second.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_was_stopped_in_order_plugs_nothing_again() {
    let folder = tempfile::tempdir().unwrap();
    let sim = dpu(&[]);
    let first = service(&sim, folder.path(), "one").await;
    first.client.hotplug(&request(PLUGGED)).await.unwrap();
    until_files(folder.path(), "it is written", |_| tells(folder.path(), PLUGGED)).await;
    first.stop().await.unwrap();
    assert_eq!(files(folder.path()).len(), 4, "static PFs alone");
    let second = service(&sim, folder.path(), "one").await;
    assert_eq!(plugged(&second.device().await), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_did_not_serve_when_it_was_stopped_in_order_plugs_nothing_again_either() {
    let folder = tempfile::tempdir().unwrap();
    let sim = dpu(&[]);
    let first = service(&sim, folder.path(), "one").await;
    first.client.hotplug(&request(PLUGGED)).await.unwrap();
    until_files(folder.path(), "it is written", |_| tells(folder.path(), PLUGGED)).await;
    sim.set_bonded(true);
    let worker = *first.worker().borrow();
    first.wish(Wish::Restart).await;
    first.worker_after(worker).await;
    let why = first.client.observe().await.unwrap_err();
    assert!(why.message.contains("the ports are bonded"), "{why}");
    first.stop().await.unwrap();
    assert_eq!(files(folder.path()).len(), 4, "static PFs alone");
    sim.set_bonded(false);
    let second = service(&sim, folder.path(), "one").await;
    assert_eq!(plugged(&second.device().await), 0);
}

/// What was set aside: the reasons, and the files.
fn aside(folder: &Path) -> (Vec<String>, BTreeSet<String>) {
    let (mut reasons, mut names) = (Vec::new(), BTreeSet::new());
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        if entry.file_name().to_str().unwrap().starts_with("set-aside-") {
            reasons.push(std::fs::read_to_string(entry.path().join("reason")).unwrap());
            names.extend(files(&entry.path()));
        }
    }
    reasons.sort();
    (reasons, names)
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_another_configuration_are_set_aside_and_not_obeyed() {
    let folder = tempfile::tempdir().unwrap();
    let first = service(&dpu(&[]), folder.path(), "one").await;
    first.client.hotplug(&request(PLUGGED)).await.unwrap();
    until_files(folder.path(), "it is written", |_| tells(folder.path(), PLUGGED)).await;
    let written = files(folder.path());
    first.kill();
    let second = service(&dpu(&["VIRTIO_NET_EMULATION_NUM_VF=8"]), folder.path(), "one").await;
    assert_eq!(plugged(&second.device().await), 0);
    let (reasons, names) = aside(folder.path());
    assert_eq!(reasons, ["VIRTIO_NET_EMULATION_NUM_VF was 126 and is 8\n"]);
    assert_eq!(names, written);
    // The present ones are of the present configuration.
    until_files(folder.path(), "static PFs", |files| files.len() == 4).await;
    second.kill();
    service(&dpu(&["VIRTIO_NET_EMULATION_NUM_VF=8"]), folder.path(), "one").await;
    assert_eq!(aside(folder.path()).0.len(), 1, "nothing more was set aside");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_file_harms_none_but_itself() {
    let folder = tempfile::tempdir().unwrap();
    let first = service(&dpu(&[]), folder.path(), "one").await;
    for last in [1, 2, 3, 4] {
        first.client.hotplug(&request(last)).await.unwrap();
    }
    until_files(folder.path(), "all are written", |files| files.len() == 4 + 4).await;
    first.kill();
    let path = |name: &str| folder.path().join(name);
    let text = std::fs::read_to_string(path("VNETS2D0F0.json")).unwrap();
    std::fs::write(path("VNETS2D0F0.json"), &text[..text.len() / 2]).unwrap();
    let text = std::fs::read_to_string(path("VNETS3D0F0.json")).unwrap();
    std::fs::write(path("VNETS3D0F0.json"), text.replace("mlx5_0", "mlx5_9")).unwrap();
    std::fs::write(path("VNETS9D0F0.json"), std::fs::read(path("VNETS4D0F0.json")).unwrap()).unwrap();
    std::fs::write(path("notes.txt"), "mine").unwrap();

    let second = service(&dpu(&[]), folder.path(), "one").await;
    let state = second.state().await;
    let there = |last| state.functions.values().any(|function| function.mac == mac(last));
    assert_eq!([1, 2, 3, 4].map(there), [true, false, false, true]);
    let (reasons, names) = aside(folder.path());
    assert_eq!(
        names.into_iter().collect::<Vec<_>>(),
        ["VNETS2D0F0.json", "VNETS3D0F0.json", "VNETS9D0F0.json"]
    );
    assert!(reasons.iter().any(|why| why.starts_with("EOF while parsing")), "{reasons:?}");
    assert!(
        reasons.iter().any(|why| why.contains("no uplink has the RDMA device \"mlx5_9\"")),
        "{reasons:?}"
    );
    assert!(
        reasons.iter().any(|why| why.contains("its MAC") && why.contains("VNETS4D0F0.json")),
        "{reasons:?}"
    );
    assert_eq!(std::fs::read_to_string(path("notes.txt")).unwrap(), "mine");
    // All the service is there for the others.
    second.client.hotplug(&request(5)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_file_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let first = service(&dpu(&[]), folder.path(), "one").await;
    first.client.hotplug(&request(1)).await.unwrap();
    until_files(folder.path(), "all are written", |files| files.len() == 4 + 1).await;
    first.kill();
    std::fs::create_dir(folder.path().join("VNETS8D0F0.json")).unwrap();
    let pipe = std::process::Command::new("mkfifo").arg(folder.path().join("VNETS9D0F0.json")).status();
    assert!(pipe.unwrap().success());
    std::os::unix::fs::symlink("/nonexistent", folder.path().join("VNETS10D0F0.json")).unwrap();

    let second = service(&dpu(&[]), folder.path(), "one").await;
    assert!(second.state().await.functions.values().any(|function| function.mac == mac(1)));
    let (reasons, names) = aside(folder.path());
    assert_eq!(
        names.into_iter().collect::<Vec<_>>(),
        ["VNETS10D0F0.json", "VNETS8D0F0.json", "VNETS9D0F0.json"]
    );
    assert_eq!(reasons.iter().filter(|why| why.starts_with("it is no file")).count(), 2, "{reasons:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_takes_its_time_keeps_no_client_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let service = service(&dpu(&[]), folder.path(), "one").await;
    until_files(folder.path(), "static PFs", |files| files.len() == 4).await;
    // Who writes to it waits until somebody reads.
    let slow = folder.path().join(".new-VNETS1D0F0.json");
    assert!(std::process::Command::new("mkfifo").arg(&slow).status().unwrap().success());
    service.client.hotplug(&request(PLUGGED)).await.unwrap();
    let mut answered = true;
    // Longer than changes are gathered.
    for _ in 0..30 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let answer = tokio::time::timeout(Duration::from_secs(10), service.client.observe()).await;
        answered &= answer.is_ok_and(|state| state.is_ok());
        if !answered {
            break;
        }
    }
    let written = tokio::task::spawn_blocking(|| std::fs::read_to_string(slow).unwrap()).await.unwrap();
    assert!(written.contains(&mac(PLUGGED).to_string()), "{written}");
    assert!(answered, "all waited for the disk");
    until_files(folder.path(), "it is written", |files| files.len() == 4 + 1).await;
    service.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stamp_that_is_a_pipe_sets_aside_what_nobody_can_tell_the_age_of() {
    let folder = tempfile::tempdir().unwrap();
    let first = service(&dpu(&[]), folder.path(), "one").await;
    first.client.hotplug(&request(1)).await.unwrap();
    until_files(folder.path(), "all are written", |files| files.len() == 4 + 1).await;
    first.kill();
    let stamp = folder.path().join(".stamp");
    std::fs::remove_file(&stamp).unwrap();
    let pipe = std::process::Command::new("mkfifo").arg(&stamp).status();
    assert!(pipe.unwrap().success());

    let second = service(&dpu(&[]), folder.path(), "one").await;
    assert!(!second.state().await.functions.values().any(|function| function.mac == mac(1)));
    let (reasons, names) = aside(folder.path());
    assert_eq!(names.len(), 4 + 1);
    assert!(reasons.iter().all(|why| why.contains(".stamp: it is no file")), "{reasons:?}");
    assert!(stamp.is_file(), "the next start knows what they are of");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_ends_in_the_middle_of_recovery_costs_no_function() {
    let folder = tempfile::tempdir().unwrap();
    let first = service(&dpu(&[]), folder.path(), "one").await;
    for last in [1, 2] {
        first.client.hotplug(&request(last)).await.unwrap();
    }
    until_files(folder.path(), "both are written", |files| files.len() == 4 + 2).await;
    first.kill();

    let sim = dpu(&[]);
    let recovery = Settings { power_on: Some("one".to_owned()), ..Settings::new(folder.path().to_owned()) };
    let second = Service::begin(sim.clone(), "{}", Some(recovery));
    let (worker, killed) = (second.worker(), AtomicBool::new(false));
    sim.set_hook(Some(Arc::new(move |effect, when| {
        if (effect, when) == (Effect::DevicePlug, When::Before) && !killed.swap(true, Ordering::SeqCst) {
            kill(worker.borrow().unwrap());
        }
    })));
    let both = |state: &virtnet_model::ControllerState| {
        [1, 2].iter().all(|last| state.functions.values().any(|function| function.mac == mac(*last)))
    };
    second.until("both functions", both).await;
    assert_eq!(aside(folder.path()).0, Vec::<String>::new(), "nothing is wrong with the files");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_files_are_written_in_few_groups() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = SimConfig::default();
    config.set_firmware(&["PF_TOTAL_SF=524"]).unwrap();
    let settings = Settings { power_on: Some("one".to_owned()), ..Settings::new(folder.path().to_owned()) };
    let syncs = Arc::clone(&settings.syncs);
    let service = Service::over(Sim::device_only(config, None), "{}", Some(settings)).await;
    service.until("a host", |state| state.functions.values().all(|function| function.driver.in_use)).await;
    let before = syncs.load(Ordering::Relaxed);
    for index in 0..4 {
        service.sim.write_num_vfs(pf(index), 126).unwrap();
    }
    until_files(folder.path(), "all are written", |files| files.len() == 4 + 504).await;
    let taken = syncs.load(Ordering::Relaxed) - before;
    assert!(taken <= 32, "{taken} waits for the disk");
}
