//! How workers and the service end, and what is there afterwards.

use virtnet_model::{Change, Controller, ErrorKind, HotplugRequest, Mtu, Target};
use virtnet_rpc::method::{self, Level, Log};
use virtnetd::parent::Wish;

use crate::common::{Service, kill, mac, pf, plugged, request, vf};

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_stopped_unplugs_what_was_plugged() {
    let service = Service::start(&[]).await;
    for last in 0..3 {
        service.client.hotplug(&request(last)).await.unwrap();
    }
    assert_eq!(plugged(&service.device().await), 3);
    let socket = service.socket();
    let sim = service.stop().await.unwrap();
    let device = sim.device().watch().await.unwrap().state;
    assert_eq!(plugged(&device), 0);
    assert!(device.sfs.keys().all(|sf| sf.number.get() < 2000), "{:?}", device.sfs.keys());
    assert!(!socket.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_worker_finds_all_as_it_was() {
    let service = Service::start(&["VIRTIO_NET_EMULATION_NUM_VF=4"]).await;
    let made = service.client.hotplug(&request(1)).await.unwrap();
    let prepared = Change { mac: Some(mac(9)), ..Change::default() };
    let coming = Target::Vf(pf(0), vf(2));
    service.client.modify(&coming, &prepared).await.unwrap();
    // The host finds the function that was plugged, and its driver takes it.
    let before = service.until("the driver", |state| {
        state.find(&made.target().unwrap()).is_some_and(|function| function.driver.in_use)
    });
    let before = before.await;

    let first = *service.worker().borrow();
    service.wish(Wish::Restart).await;
    let second = service.worker_after(first).await;
    assert_eq!(service.state().await, before);
    kill(second);
    service.worker_after(Some(second)).await;
    assert_eq!(service.state().await, before);

    // What was told to a worker of before is what the VF is born with.
    service.sim.write_num_vfs(pf(0), 4).unwrap();
    let born = service.until("four VFs", |state| state.functions.len() == before.functions.len() + 4).await;
    assert_eq!(born.find(&coming).unwrap().mac, mac(9));
    assert!(born.prepared.is_empty());
    // It has been applied, and is not again to a VF that is made later.
    service.sim.write_num_vfs(pf(0), 0).unwrap();
    let third = *service.worker().borrow();
    kill(third.unwrap());
    service.worker_after(third).await;
    let gone = service.until("no VFs", |state| state.functions.len() == before.functions.len()).await;
    assert!(gone.prepared.is_empty(), "{:?}", gone.prepared);
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_are_applied_once_though_the_worker_ends_right_after_it() {
    let service = Service::start(&["VIRTIO_NET_EMULATION_NUM_VF=4"]).await;
    let coming = Target::Vf(pf(0), vf(1));
    let prepared = Change { mac: Some(mac(9)), ..Change::default() };
    service.client.modify(&coming, &prepared).await.unwrap();
    service.until("a driver", |state| state.functions.values().all(|function| function.driver.in_use)).await;
    let worker = service.worker().borrow().unwrap();
    let device = service.sim.device();
    service.sim.set_hook(Some(std::sync::Arc::new(move |effect, when| {
        if (effect, when) == (virtnet_sim::Effect::DeviceConfigure, virtnet_sim::When::After) {
            let device = std::sync::Arc::clone(&device);
            let is_born = futures::executor::block_on(async move {
                let functions = device.watch().await.unwrap().state.functions;
                let place = virtnet_controller::Place::Vf(pf(0), vf(1));
                functions.get(&place).is_some_and(|function| function.emulation.is_some())
            });
            if is_born {
                // The worker has not been told that it is, and can't have said that nothing is to be kept any more.
                let _ = nix::sys::signal::kill(
                    nix::unistd::Pid::from_raw(i32::try_from(worker).unwrap()),
                    nix::sys::signal::Signal::SIGKILL,
                );
            }
        }
    })));
    service.sim.write_num_vfs(pf(0), 2).unwrap();
    let second = service.worker_after(Some(worker)).await;
    service.sim.set_hook(None);
    let born = service.until("the VF", |state| state.find(&coming).is_some()).await;
    assert_eq!(born.find(&coming).unwrap().mac, mac(9));
    service.sim.write_num_vfs(pf(0), 0).unwrap();
    kill(second);
    service.worker_after(Some(second)).await;
    service.client.hotplug(&HotplugRequest { mac: mac(9), ..request(1) }).await.unwrap();
    service.sim.write_num_vfs(pf(0), 2).unwrap();
    let again = service.until("the VF", |state| state.find(&coming).is_some()).await;
    assert_ne!(again.find(&coming).unwrap().mac, mac(9), "two functions have one MAC");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_that_can_not_serve_is_stopped_at_once() {
    let conf = r#"{"generation": "later", "vf": {"mac_base": "00:11:22:33:44:55", "vfs_per_pf": 500}}"#;
    let service = Service::unready(&[], conf);
    let told = service.client.observe().await.unwrap_err();
    assert!(told.message.contains("vf.vfs_per_pf 500 is above VIRTIO_NET_EMULATION_NUM_VF=126"), "{told}");
    let begun = std::time::Instant::now();
    service.stop().await.unwrap();
    assert!(begun.elapsed() < std::time::Duration::from_secs(30), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_and_a_level_of_logs_can_be_asked_for() {
    let service = Service::start(&[]).await;
    let first = *service.worker().borrow();
    for level in [Level::Info, Level::Debug, Level::Err] {
        service.client.call::<()>(method::LOG, &Log { level }).await.unwrap();
    }
    service.client.call::<()>(method::RESTART, &()).await.unwrap();
    service.worker_after(first).await;
    let version: method::Version = service.client.call(method::VERSION, &()).await.unwrap();
    assert_eq!(version.running, env!("CARGO_PKG_VERSION"));
    assert_eq!(version.installed, version.running);
    let refused = service.client.call::<()>("nonsense", &()).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Failed);
    assert!(refused.message.contains("no method \"nonsense\""), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_in_the_middle_of_which_a_worker_ends_is_answered() {
    let service = Service::start(&[]).await;
    let worker = service.worker().borrow().unwrap();
    service.sim.set_hook(Some(std::sync::Arc::new(move |effect, when| {
        if (effect, when) == (virtnet_sim::Effect::DevicePlug, virtnet_sim::When::Before) {
            kill(worker);
            // Nothing that the device does goes on until the parent has seen it.
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
    })));
    let error = service.client.hotplug(&request(1)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(error.message.contains("ended before it answered"), "{error}");
    service.sim.set_hook(None);
    service.client.hotplug(&request(2)).await.unwrap();
    let change = Change { mtu: Some(Mtu::MAX), ..Change::default() };
    let refused = service.client.modify(&Target::Static(pf(0)), &change).await.unwrap_err();
    assert!(refused.message.contains("MTU is invalid"), "{refused}");
}
