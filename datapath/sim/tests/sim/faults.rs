//! Latencies, queued failures and the hook.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;
use virtnet_model::{Change, ErrorKind, LinkChange, Mtu, Target};
use virtnet_sim::{Effect, Part, Sim, Timing, When};

use crate::common::{config, mac, pf, request, rest, rested, state, static_pf, unbind, vf};
use crate::invariants;

#[tokio::test(start_paused = true)]
async fn effects_take_their_latency() {
    let mut config = config(&[]);
    config.timing = Timing::immediate();
    let sim = Sim::new(config);
    rest().await;
    let took = async |sim: &Sim, last| {
        let start = Instant::now();
        sim.controller().hotplug(&request(last)).await.unwrap();
        start.elapsed()
    };
    assert_eq!(took(&sim, 0).await, Duration::ZERO);
    sim.set_latency(Effect::CreateSf, Duration::from_secs(2));
    sim.set_latency(Effect::DevicePlug, Duration::from_secs(3));
    assert_eq!(took(&sim, 1).await.as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_failure_before_an_effect_prevents_it_and_one_after_hides_it() {
    let sim = rested(&[]).await;
    sim.fail_next(Effect::Hotplug, When::Before, 1);
    let error = sim.controller().hotplug(&request(0)).await.unwrap_err();
    assert_eq!((error.kind, error.message.as_str()), (ErrorKind::Failed, "simulated failure before Hotplug"));
    assert_eq!(state(&sim).await.functions.len(), 4);
    sim.fail_next_as(Effect::Hotplug, When::After, ErrorKind::Unavailable, 1);
    let error = sim.controller().hotplug(&request(0)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert_eq!(state(&sim).await.functions.len(), 5, "it took place all the same");
    assert!(sim.controller().hotplug(&request(0)).await.is_err(), "so it can't again");
    let representor = static_pf(&state(&sim).await, 0).sf.clone().unwrap();
    sim.fail_next(Effect::LinkSet, When::After, 2);
    let up = LinkChange { up: Some(true), mtu: None };
    for _ in 0..2 {
        assert!(sim.links().set(&representor, up).await.is_err());
    }
    sim.links().set(&representor, up).await.unwrap();
    sim.fail_observe(Part::Links, 1);
    assert!(sim.links().observe().await.is_err());
    assert!(sim.links().observe().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn the_controller_gets_through_failures_of_the_device() {
    for when in [When::Before, When::After] {
        for effect in [
            Effect::CreateSf,
            Effect::DestroySf,
            Effect::DevicePlug,
            Effect::DeviceUnplug,
            Effect::DeviceConfigure,
        ] {
            for skip in 0..3 {
                let sim = rested(&[]).await;
                let made = sim.controller().hotplug(&request(0)).await.unwrap();
                rest().await;
                unbind(&sim, &state(&sim).await.functions[&made.id]);
                sim.fail_next(effect, when, 1 + skip);
                let mut now = made.target().unwrap();
                let mtu = Change { mtu: Some(Mtu::MAX), ..Change::default() };
                if sim.controller().modify(&now, &mtu).await.is_ok() {
                    now = state(&sim).await.functions[&made.id].target().unwrap();
                }
                let before = state(&sim).await.functions.len();
                let gone = sim.controller().unplug(&now).await.is_ok();
                assert_eq!(state(&sim).await.functions.len(), before - usize::from(gone));
                let made = sim.controller().hotplug(&request(1)).await;
                let present = state(&sim).await.functions.values().any(|made| made.mac == mac(1));
                assert_eq!(made.is_ok(), present, "{effect} {when:?}: {made:?}");
                sim.write_num_vfs(pf(0), 3).unwrap();
                rest().await;
                sim.write_num_vfs(pf(0), 1).unwrap_err();
                assert!(state(&sim).await.functions.values().all(|made| made.sf.is_some()));
                invariants::check(&sim).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_vf_that_fails_holds_up_no_other() {
    let sim = rested(&[]).await;
    sim.fail_next(Effect::DeviceConfigure, When::Before, 1);
    sim.write_num_vfs(pf(0), 3).unwrap();
    tokio::time::sleep(Duration::from_millis(60)).await;
    let present = |state: virtnet_model::ControllerState| {
        state.functions.into_keys().filter_map(|id| id.vf).map(virtnet_model::VfId::get).collect::<Vec<_>>()
    };
    assert_eq!(present(state(&sim).await), [1, 2]);
    rest().await;
    assert_eq!(present(state(&sim).await), [0, 1, 2]);
    invariants::check(&sim).await;
}

#[tokio::test(start_paused = true)]
async fn the_hook_sees_both_sides_of_each_effect_in_order() {
    let sim = rested(&[]).await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let trace = Arc::clone(&seen);
    sim.set_hook(Some(Arc::new(move |effect, when| trace.lock().unwrap().push((effect, when)))));
    let made = sim.controller().hotplug(&request(0)).await.unwrap();
    sim.controller().unplug(&made.target().unwrap()).await.unwrap();
    sim.set_hook(None);
    use Effect::{CreateSf, DestroySf, DevicePlug, DeviceUnplug, Hotplug, Unplug};
    use When::{After, Before};
    assert_eq!(
        *seen.lock().unwrap(),
        [
            (Hotplug, Before),
            (CreateSf, Before),
            (CreateSf, After),
            (DevicePlug, Before),
            (DevicePlug, After),
            (Hotplug, After),
            (Unplug, Before),
            (DeviceUnplug, Before),
            (DeviceUnplug, After),
            (DestroySf, Before),
            (DestroySf, After),
            (Unplug, After),
        ]
    );
}

/// Runs a client's call in a task that the hook kills on this side of its effect.
async fn killed(sim: &Sim, effect: Effect, when: When, call: impl Future<Output = ()> + Send + 'static) {
    let slot: Arc<Mutex<Option<tokio::task::AbortHandle>>> = Arc::default();
    let handle = Arc::clone(&slot);
    sim.set_hook(Some(Arc::new(move |at, side| {
        if at == effect
            && side == when
            && let Some(task) = handle.lock().unwrap().take()
        {
            task.abort();
        }
    })));
    let task = tokio::spawn(call);
    *slot.lock().unwrap() = Some(task.abort_handle());
    assert!(task.await.unwrap_err().is_cancelled(), "{effect} {when:?}");
    sim.set_hook(None);
    rest().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_killed_before_an_effect_had_none_and_after_it_has_it() {
    for (when, functions) in [(When::Before, 4), (When::After, 5)] {
        let sim = rested(&[]).await;
        let controller = sim.controller();
        killed(&sim, Effect::Hotplug, when, async move { drop(controller.hotplug(&request(0)).await) }).await;
        assert_eq!(state(&sim).await.functions.len(), functions, "{when:?}");

        let controller = sim.controller();
        let change = Change { mtu: Some(Mtu::MAX), ..Change::default() };
        let call = async move { drop(controller.modify(&Target::Vf(pf(0), vf(0)), &change).await) };
        killed(&sim, Effect::Modify, when, call).await;
        assert_eq!(state(&sim).await.prepared.len(), usize::from(when == When::After));

        let host = sim.host();
        killed(&sim, Effect::SetNumVfs, when, async move { drop(host.set_num_vfs(pf(1), 1).await) }).await;
        assert_eq!(
            sim.host().observe().await.unwrap().num_vfs[&pf(1)],
            u16::from(when == When::After),
            "{when:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_client_is_killed_in_the_middle_is_carried_through() {
    for side in [When::Before, When::After] {
        for effect in [Effect::CreateSf, Effect::DevicePlug] {
            let sim = rested(&[]).await;
            let controller = sim.controller();
            killed(&sim, effect, side, async move { drop(controller.hotplug(&request(0)).await) }).await;
            assert!(state(&sim).await.functions.values().any(|made| made.mac == mac(0)));
            invariants::check(&sim).await;
        }
    }
}
