//! Workers that are killed at every effect of a load: nothing that was acknowledged is lost, nothing is done by half.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use virtnet_controller::Place;
use virtnet_model::{Change, Controller, ErrorKind, Function, Mac, Mtu, PartError, QueueSize};
use virtnet_sim::{Effect, When};

use crate::common::{Service, kill, mac, plugged, request};

/// What a load of requests has come to be, as far as it was answered.
#[derive(Default)]
struct Load {
    /// Functions that are there for certain, each with its MTU.
    there: Vec<(Mac, Mtu)>,
    /// MACs of functions of which the last request was not answered.
    in_doubt: Vec<Mac>,
}

fn is_in_doubt(error: &PartError) -> bool {
    error.kind == ErrorKind::Unavailable && error.message.contains("ended before it answered")
}

/// Plugs three functions, changes the second while no driver has it, and unplugs the first.
async fn play(service: &Service) -> Load {
    let mut load = Load::default();
    let mut made: Vec<Function> = Vec::new();
    for last in 0..3 {
        match service.client.hotplug(&request(last)).await {
            Ok(function) => {
                load.there.push((function.mac, function.mtu));
                made.push(function);
            }
            Err(error) => {
                assert!(is_in_doubt(&error), "{error}");
                load.in_doubt.push(mac(last));
            }
        }
    }
    let change = Change {
        mtu: Some(Mtu::MAX),
        queue_size: Some(QueueSize::try_from(512).unwrap()),
        ..Change::default()
    };
    if let Some(function) = made.get(1) {
        let entry = load.there.iter_mut().find(|(mac, _)| *mac == function.mac).unwrap();
        match service.client.modify(&function.target().unwrap(), &change).await {
            Ok(()) => entry.1 = Mtu::MAX,
            Err(error) => {
                assert!(is_in_doubt(&error), "{error}");
                load.there.retain(|(mac, _)| *mac != function.mac);
                load.in_doubt.push(function.mac);
            }
        }
    }
    if let Some(function) = made.first() {
        load.there.retain(|(mac, _)| *mac != function.mac);
        if let Err(error) = service.client.unplug(&function.target().unwrap()).await {
            assert!(is_in_doubt(&error), "{error}");
            load.in_doubt.push(function.mac);
        }
    }
    load
}

/// How many sides of effects the load has when nobody is killed.
async fn sides(service: &Service) -> u32 {
    let count = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&count);
    service.sim.set_hook(Some(Arc::new(move |_, _| {
        counter.fetch_add(1, Ordering::SeqCst);
    })));
    play(service).await;
    service.sim.set_hook(None);
    count.load(Ordering::SeqCst)
}

/// Unplugs what is plugged.
async fn clear(service: &Service) {
    for function in service.state().await.functions.values() {
        if function.mac.octets()[1] == 0xff {
            service.client.unplug(&function.target().unwrap()).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_at_any_effect_loses_nothing_and_leaves_nothing_by_half() {
    // No driver takes a function in the middle of the load, which would refuse the change.
    let service = Service::start(&[]).await;
    service.sim.set_autoprobe(false);
    let sides = sides(&service).await;
    assert!(sides >= 2 * (3 + 3 + 1 + 2), "SFs, plugs, a change, and an unplug with its SF: {sides}");
    clear(&service).await;
    let sfs_at_rest = service.device().await.sfs.len();

    for killed_at in 0..sides {
        let worker = service.worker();
        let seen = Arc::new(AtomicU32::new(0));
        let at: Arc<std::sync::Mutex<Option<(Effect, When)>>> = Arc::default();
        let (counter, noted) = (Arc::clone(&seen), Arc::clone(&at));
        service.sim.set_hook(Some(Arc::new(move |effect, when| {
            if counter.fetch_add(1, Ordering::SeqCst) == killed_at {
                *noted.lock().unwrap() = Some((effect, when));
                kill(worker.borrow().unwrap());
            }
        })));
        let before = *service.worker().borrow();
        let load = play(&service).await;
        service.sim.set_hook(None);
        let at = at.lock().unwrap().unwrap();
        service.worker_after(before).await;
        // The next worker has cleared away what was half done once it answers.
        let state = service.state().await;
        let device = service.device().await;

        let by_mac = |mac: Mac| state.functions.values().find(|function| function.mac == mac);
        for (mac, mtu) in &load.there {
            assert_eq!(by_mac(*mac).map(|function| function.mtu), Some(*mtu), "killed at {at:?}");
        }
        for last in 0..3 {
            let known =
                load.there.iter().any(|(there, _)| *there == mac(last)) || load.in_doubt.contains(&mac(last));
            assert!(known || by_mac(mac(last)).is_none(), "killed at {at:?}: {last} was unplugged");
        }
        // A function in doubt is wholly there or not at all, with all of a change or nothing of it.
        for function in state.functions.values().filter(|function| load.in_doubt.contains(&function.mac)) {
            let settings = (function.mtu, function.max_queue_size.get());
            assert!(
                [(Mtu::DEFAULT, 256), (Mtu::MAX, 512)].contains(&settings),
                "killed at {at:?}: {settings:?}"
            );
            assert!(function.sf.is_some(), "killed at {at:?}");
        }
        assert!(load.in_doubt.len() <= 1, "killed at {at:?}: {:?}", load.in_doubt);
        let there = plugged(&device);
        assert_eq!(
            there,
            state.functions.values().filter(|function| function.mac.octets()[1] == 0xff).count()
        );
        assert_eq!(
            device.sfs.len(),
            sfs_at_rest + there,
            "killed at {at:?}: an SF for each function and no more"
        );
        assert!(device.functions.keys().filter(|place| matches!(place, Place::Static(_))).count() > 0);
        clear(&service).await;
        assert_eq!(service.device().await.sfs.len(), sfs_at_rest, "killed at {at:?}");
    }
}
