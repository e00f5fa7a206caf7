//! Live updates, while clients ask and change, and programs that can't be updated to.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use virtnet_model::{Change, Controller, Mtu, PartError, Refusal, SfNumber, Target, Uplink};
use virtnet_rpc::Client;
use virtnet_rpc::method::{self, UpdateStatus, Version};
use virtnet_sim::{Effect, Sim, SimConfig, When};

use crate::common::{LIMIT, PROGRAM, Service, kill, pf, request, vf};

async fn status(service: &Service) -> UpdateStatus {
    service.client.call(method::UPDATE_STATUS, &()).await.unwrap()
}

/// Begins an update and waits for its end.
async fn updated(service: &Service) -> UpdateStatus {
    service.client.call::<()>(method::UPDATE, &()).await.unwrap();
    let ended = async {
        loop {
            let status = status(service).await;
            if !status.running {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LIMIT, ended).await.unwrap()
}

/// Installs a program of these bytes, as a package does: in place of the file, which runs on.
fn install(service: &Service, bytes: &[u8]) {
    let new = service.folder.path().join("new");
    std::fs::write(&new, bytes).unwrap();
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::rename(new, service.folder.path().join("virtnetd")).unwrap();
}

/// Asks for something again and again until it is to stop; how often it was answered.
fn again<F>(
    socket: &Path,
    stop: &Arc<AtomicBool>,
    ask: impl Fn(Arc<Client>, u32) -> F + Send + 'static,
) -> JoinHandle<u32>
where
    F: Future<Output = Result<(), PartError>> + Send,
{
    let (client, stop) = (Arc::new(Client::connect(socket)), Arc::clone(stop));
    tokio::spawn(async move {
        let count = AtomicU32::new(0);
        while !stop.load(Ordering::SeqCst) {
            let turn = count.fetch_add(1, Ordering::SeqCst);
            ask(Arc::clone(&client), turn)
                .await
                .unwrap_or_else(|error| panic!("asked {turn} times: {error}"));
        }
        count.load(Ordering::SeqCst)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_updates_in_a_row_refuse_nothing_and_lose_nothing() {
    let service = Service::start(&["VIRTIO_NET_EMULATION_NUM_VF=4"]).await;
    service.sim.set_autoprobe(false);
    let kept = service.client.hotplug(&request(200)).await.unwrap();
    let (socket, stop) = (service.socket(), Arc::new(AtomicBool::new(false)));
    let lists = again(&socket, &stop, {
        let kept = kept.id;
        move |client, _| async move {
            let state = client.observe().await?;
            assert!(state.functions.contains_key(&kept), "it vanished");
            Ok(())
        }
    });
    let modifies = again(&socket, &stop, {
        let (kept, mtus) = (kept.target().unwrap(), [Mtu::MAX, Mtu::DEFAULT]);
        move |client, turn| {
            let (kept, change) =
                (kept.clone(), Change { mtu: Some(mtus[turn as usize % 2]), ..Change::default() });
            async move { client.modify(&kept, &change).await }
        }
    });
    let prepares = again(&socket, &stop, |client, turn| async move {
        let change =
            Change { mtu: Some(if turn % 2 == 0 { Mtu::MAX } else { Mtu::DEFAULT }), ..Change::default() };
        client.modify(&Target::Vf(pf(1), vf(3)), &change).await
    });
    let plugs = again(&socket, &stop, |client, turn| async move {
        let made = client.hotplug(&request((turn % 100) as u8)).await?;
        client.unplug(&made.target().unwrap()).await
    });
    let hosts = {
        let (sim, stop) = (service.sim.clone(), Arc::clone(&stop));
        tokio::spawn(async move {
            let mut turns = 0;
            while !stop.load(Ordering::SeqCst) {
                // It has no such file until it has booted.
                for num_vfs in [2, 0] {
                    turns += u32::from(sim.write_num_vfs(pf(0), num_vfs).is_ok());
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
            turns
        })
    };

    let mut workers = vec![*service.worker().borrow()];
    for turn in 0..20 {
        let status = updated(&service).await;
        let last = status.last.unwrap();
        assert_eq!(last.failure, None, "update {turn}");
        assert!(last.seconds > 0.0 && last.seconds < LIMIT.as_secs_f64());
        workers.push(*service.worker().borrow());
    }
    workers.dedup();
    assert_eq!(workers.len(), 21, "each is by a worker of its own: {workers:?}");
    stop.store(true, Ordering::SeqCst);
    for (what, task) in
        [("lists", lists), ("modifies", modifies), ("prepares", prepares), ("plugs", plugs), ("hosts", hosts)]
    {
        assert!(task.await.unwrap() > 5, "{what} were hardly asked for");
    }
    let state = service.state().await;
    assert_eq!(state.find(&kept.target().unwrap()).map(|function| function.id), Some(kept.id));
    assert_eq!(state.functions.values().filter(|one| one.id.vf.is_none()).count(), 4 + 1);
    assert_eq!(state.limits.sfs[&virtnet_model::EswitchPort::P0].used as usize, state.functions.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_fails_its_check_is_not_updated_to_and_the_reason_is_told() {
    let service = Service::start(&[]).await;
    let made = service.client.hotplug(&request(1)).await.unwrap();
    let before = *service.worker().borrow();
    let elsewhere = std::fs::read("/bin/true").unwrap();
    for (bytes, why) in [
        (&b"no program"[..], "Exec format error"),
        (&elsewhere, "it ended before it was asked to serve (exit status: 0)"),
    ] {
        install(&service, bytes);
        let last = updated(&service).await.last.unwrap();
        let failure = last.failure.unwrap();
        assert!(failure.contains(why) && failure.contains("checking "), "{failure}");
        assert_eq!(*service.worker().borrow(), before, "the one of before serves");
        let version: Version = service.client.call(method::VERSION, &()).await.unwrap();
        assert_eq!(
            (version.running.as_str(), version.installed.as_str()),
            (env!("CARGO_PKG_VERSION"), "unknown")
        );
    }
    // Should the worker end now, another is of the program that ran, not of the one that is installed.
    kill(before.unwrap());
    service.worker_after(before).await;
    assert!(service.state().await.find(&made.target().unwrap()).is_some());

    install(&service, &std::fs::read(PROGRAM).unwrap());
    assert_eq!(updated(&service).await.last.unwrap().failure, None);
    assert!(service.state().await.find(&made.target().unwrap()).is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_that_fails_while_a_request_is_under_way_costs_no_request() {
    let service = Service::start(&[]).await;
    let before = *service.worker().borrow();
    // Each worker that takes over begins by clearing this away, and can't.
    let orphan = SfNumber::try_from(2500).unwrap();
    service.sim.fail_next(Effect::DestroySf, When::Before, 1000);
    service.sim.device().create_sf(Uplink::P0, orphan).await.unwrap();
    let plugging = Arc::new(Notify::new());
    let killed = Arc::new(AtomicBool::new(false));
    service.sim.set_latency(Effect::DevicePlug, Duration::from_millis(300));
    service.sim.set_hook(Some(Arc::new({
        let (worker, plugging, killed) = (service.worker(), Arc::clone(&plugging), Arc::clone(&killed));
        move |effect, when| {
            let now = *worker.borrow();
            match (effect, when) {
                (Effect::DevicePlug, When::Before) => plugging.notify_one(),
                // The new one, which has passed its check and does not serve yet.
                (Effect::DestroySf, When::Before)
                    if now != before && !killed.swap(true, Ordering::SeqCst) =>
                {
                    kill(now.unwrap());
                }
                _ => {}
            }
        }
    })));
    let client = Client::connect(&service.socket());
    let plug = tokio::spawn(async move { client.hotplug(&request(1)).await });
    plugging.notified().await;
    let failure = updated(&service).await.last.unwrap().failure.unwrap();
    assert!(failure.contains("the worker has ended (signal: 9"), "{failure}");
    assert!(killed.load(Ordering::SeqCst));
    let made = timeout(LIMIT, plug).await.unwrap().unwrap().unwrap();
    assert!(service.state().await.find(&made.target().unwrap()).is_some());
    service.client.unplug(&made.target().unwrap()).await.unwrap();

    assert_eq!(updated(&service).await.last.unwrap().failure, None, "the next one is done");
    service.client.hotplug(&request(2)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_serves_is_not_ended_for_one_that_would_not() {
    let service = Service::start(&[]).await;
    let made = service.client.hotplug(&request(1)).await.unwrap();
    let before = *service.worker().borrow();
    service.sim.set_bonded(true);
    let failure = updated(&service).await.last.unwrap().failure.unwrap();
    assert!(failure.contains("the ports are bonded"), "{failure}");
    assert_eq!(*service.worker().borrow(), before, "the one of before serves");
    assert!(service.state().await.find(&made.target().unwrap()).is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_to_what_does_not_serve_has_failed_for_that_reason() {
    let config = SimConfig { bonded: Some(true), ..SimConfig::default() };
    let service = Service::begin(Sim::device_only(config, None), "{}", None);
    let first = service.worker_after(None).await;
    let failure = updated(&service).await.last.unwrap().failure.unwrap();
    assert!(failure.contains("can't serve") && failure.contains("the ports are bonded"), "{failure}");
    service.worker_after(Some(first)).await;
    // What a person mends is found by the program of before.
    service.sim.set_bonded(false);
    service.until("it serves", |_| true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_in_the_middle_of_which_the_worker_ends_is_taken_up_again() {
    let service = Service::start(&[]).await;
    let before = *service.worker().borrow();
    service.client.call::<()>(method::UPDATE, &()).await.unwrap();
    kill(before.unwrap());
    let ended = async {
        while status(&service).await.running {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LIMIT, ended).await.unwrap();
    assert_eq!(status(&service).await.last.unwrap().failure, None);
    service.state().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_later_generation_plugs_nothing_while_one_runs() {
    let service = Service::with(&["VIRTIO_NET_EMULATION_NUM_VF=8"], r#"{"generation": "later"}"#).await;
    let (socket, stop) = (service.socket(), Arc::new(AtomicBool::new(false)));
    let refused = Arc::new(AtomicU32::new(0));
    let plugs = again(&socket, &stop, {
        let refused = Arc::clone(&refused);
        move |client, turn| {
            let refused = Arc::clone(&refused);
            async move {
                match client.hotplug(&request((turn % 100) as u8)).await {
                    Ok(made) => {
                        while let Err(error) = client.unplug(&made.target().unwrap()).await {
                            assert_eq!(error.refusal(), Some(Refusal::Updating), "{error}");
                        }
                    }
                    Err(error) => {
                        assert_eq!(error.refusal(), Some(Refusal::Updating), "{error}");
                        refused.fetch_add(1, Ordering::SeqCst);
                    }
                }
                Ok(())
            }
        }
    });
    for _ in 0..5 {
        assert_eq!(updated(&service).await.last.unwrap().failure, None);
    }
    stop.store(true, Ordering::SeqCst);
    plugs.await.unwrap();
    assert!(refused.load(Ordering::SeqCst) > 0, "nothing was refused");
    assert!(!service.state().await.updating);
    service.client.hotplug(&request(150)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_is_being_moved_answers_so_before_during_and_after_an_update() {
    let service = Service::start(&[]).await;
    let moving = service.client.hotplug(&request(1)).await.unwrap();
    let in_use = |state: &virtnet_model::ControllerState| {
        state
            .find(&moving.target().unwrap())
            .filter(|function| function.driver.in_use)
            .and_then(|function| function.bdf)
    };
    let found = service.until("its driver", |state| in_use(state).is_some()).await;
    let bdf = in_use(&found).unwrap();
    service.sim.set_autoprobe(false);
    let still = service.client.hotplug(&request(2)).await.unwrap();
    service.sim.set_migrating(bdf, true).unwrap();
    service
        .until("the move", |state| state.find(&moving.target().unwrap()).is_some_and(|one| one.migrating))
        .await;

    let (socket, stop) = (service.socket(), Arc::new(AtomicBool::new(false)));
    let change = |turn: u32| {
        let mtu = if turn.is_multiple_of(2) { Mtu::MAX } else { Mtu::DEFAULT };
        Change { mtu: Some(mtu), ..Change::default() }
    };
    let refused = again(&socket, &stop, {
        let moving = moving.target().unwrap();
        move |client, turn| {
            let moving = moving.clone();
            async move {
                for result in [
                    client.modify(&moving, &change(turn)).await,
                    client.unplug(&moving).await,
                    virtnet_model::Queues::queues(&*client, &moving).await.map(|_| ()),
                ] {
                    let error = result.unwrap_err();
                    assert_eq!(error.refusal(), Some(Refusal::Migrating), "{error}");
                    assert!(error.message.contains("migrating"), "{error}");
                }
                let state = client.observe().await?;
                assert!(state.find(&moving).is_some_and(|function| function.migrating));
                Ok(())
            }
        }
    });
    let changed = again(&socket, &stop, {
        let still = still.target().unwrap();
        move |client, turn| {
            let still = still.clone();
            async move { client.modify(&still, &change(turn)).await }
        }
    });
    for _ in 0..3 {
        assert_eq!(updated(&service).await.last.unwrap().failure, None);
    }
    stop.store(true, Ordering::SeqCst);
    assert!(refused.await.unwrap() > 2 && changed.await.unwrap() > 2);
    service.sim.set_migrating(bdf, false).unwrap();
    service
        .until("its end", |state| state.find(&moving.target().unwrap()).is_some_and(|one| !one.migrating))
        .await;
    service.client.unplug(&moving.target().unwrap()).await.unwrap();
}
