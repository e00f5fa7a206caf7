//! One MAC in a fleet: on whatever DPUs its devices are, one of them has it and the others wait for that one.

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::time::sleep;
use virtnet_agent::Clock;
use virtnet_crds::VirtnetDevice;
use virtnet_tests::fleet::{Fleet, embedded_api, meanwhile};
use virtnet_tests::world::reason;

const MAC: &str = "0c:c4:7a:00:00:01";
/// Creation times are whole seconds: what is made this much later is younger.
const LATER: Duration = Duration::from_secs(2);

fn on(dpu: &str, mac: &str) -> Value {
    json!({"dpu": dpu, "function": {"hotplug": {}}, "mac": mac, "port": {"bridge": "ovsbr1"}})
}

async fn delete(fleet: &Fleet, name: &str) {
    fleet.devices().delete(name, &DeleteParams::default()).await.unwrap();
}

async fn edit(fleet: &Fleet, name: &str, spec: Value) {
    let patch = Patch::Merge(json!({"spec": spec}));
    fleet.devices().patch(name, &PatchParams::default(), &patch).await.unwrap();
}

/// What Ready says of a device.
async fn said(fleet: &Fleet, name: &str) -> Option<(String, String)> {
    reason(&fleet.devices().get(name).await.unwrap())
}

/// Waits until a device waits for its MAC, and says that this has it.
async fn until_claimed(fleet: &Fleet, name: &str, mac: &str, by: &str) {
    let wanted = format!("MAC {mac} is that of {by}; choose another, or delete that one");
    for _ in 0..1200 {
        if said(fleet, name).await == Some(("MacClaimed".to_owned(), wanted.clone())) {
            return;
        }
        sleep(Duration::from_millis(100)).await;
    }
    panic!("{name}: {:?}, not {wanted}", said(fleet, name).await);
}

/// Looks again and again that no two functions have one MAC.
fn guard(fleet: &Fleet) -> BoxFuture<'_, ()> {
    async move {
        loop {
            fleet.check_macs().await;
            sleep(Duration::from_millis(1)).await;
        }
    }
    .boxed()
}

/// Does something while all agents run and nobody ever sees two functions with one MAC.
async fn guarded(fleet: &Fleet, clock: &Clock, story: impl Future<Output = ()>) {
    meanwhile([fleet.agents(clock)], async {
        tokio::select! {
            () = guard(fleet) => {}
            () = story => {}
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_younger_waits_on_another_dpu_and_goes_on_when_the_other_is_gone() {
    let (client, writes, clock) = embedded_api().await;
    let fleet = Fleet::new(client, &["dpu-a", "dpu-b", "dpu-c"]);
    guarded(&fleet, &clock, async {
        fleet.create("old", on("dpu-a", MAC)).await;
        sleep(LATER).await;
        fleet.create("young", on("dpu-b", &MAC.to_uppercase())).await;
        sleep(LATER).await;
        fleet.create("youngest", on("dpu-c", MAC)).await;
        fleet.until(&[("Ready", 1), ("MacClaimed", 2)]).await;
        until_claimed(&fleet, "young", MAC, "default/old on dpu-a").await;
        // Who came when the MAC was taken noted nothing, and is silent.
        writes.take();
        sleep(Duration::from_secs(300)).await;
        let idle: Vec<_> = writes.take().into_iter().filter(|write| write.resource != "leases").collect();
        assert!(idle.is_empty(), "{idle:#?}");
        let labels = fleet.devices().get("young").await.unwrap().metadata.labels.unwrap_or_default();
        assert!(labels.is_empty(), "{labels:?}");

        delete(&fleet, "old").await;
        fleet.until(&[("Ready", 1), ("MacClaimed", 1)]).await;
        assert_eq!(said(&fleet, "young").await, None);
        until_claimed(&fleet, "youngest", MAC, "default/young on dpu-b").await;
        // Another MAC is as good as the other's end.
        edit(&fleet, "young", json!({"mac": "0c:c4:7a:00:00:02", "rebindPolicy": "Always"})).await;
        fleet.until(&[("Ready", 2)]).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn who_keeps_a_mac_for_a_vf_to_come_has_it_of_an_older_one_too() {
    let (client, _, clock) = embedded_api().await;
    let fleet = Fleet::new(client, &["dpu-a", "dpu-b"]);
    guarded(&fleet, &clock, async {
        let mut old = on("dpu-a", "0c:c4:7a:00:00:02");
        old["rebindPolicy"] = json!("Always");
        fleet.create("old", old).await;
        sleep(LATER).await;
        fleet
            .create("to-come", json!({"dpu": "dpu-b", "function": {"vf": {"pf": 0, "vf": 0}}, "mac": MAC}))
            .await;
        fleet.until(&[("Ready", 1), ("VfAbsent", 1)]).await;
        edit(&fleet, "old", json!({"mac": MAC})).await;
        until_claimed(&fleet, "old", MAC, "default/to-come on dpu-b").await;
        delete(&fleet, "to-come").await;
        fleet.until(&[("Ready", 1)]).await;
        let function = fleet.devices().get("old").await.unwrap().status.unwrap().function.unwrap();
        assert_eq!(function.mac.as_deref(), Some(MAC));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_mac_is_no_more_free_while_nobody_can_ask_the_controller_of_its_function() {
    let (client, _, clock) = embedded_api().await;
    let fleet = Fleet::new(client, &["dpu-a", "dpu-b"]);
    let own = fleet.sims["dpu-a"].controller().observe().await.unwrap();
    let own = own.functions.values().next().unwrap().mac.to_string();
    guarded(&fleet, &clock, async {
        fleet.create("fixed", json!({"dpu": "dpu-a", "function": {"static": {"pf": 0}}})).await;
        fleet.until(&[("Ready", 1)]).await;
        fleet.create("waits", on("dpu-b", &own)).await;
        until_claimed(&fleet, "waits", &own, "default/fixed on dpu-a").await;
        fleet.sims["dpu-a"].cut_off_controller(Duration::from_secs(300));
        fleet.until(&[("ControllerUnavailable", 1), ("MacClaimed", 1)]).await;
        sleep(Duration::from_secs(240)).await;
        let function = fleet.devices().get("fixed").await.unwrap().status.unwrap().function.unwrap();
        assert_eq!(function.mac.as_ref(), Some(&own));
        fleet.until(&[("Ready", 1), ("MacClaimed", 1)]).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn of_those_that_come_in_one_moment_each_mac_is_the_eldest_ones() {
    let (client, _, clock) = embedded_api().await;
    let fleet = Fleet::new(client, &["dpu-a", "dpu-b", "dpu-c", "dpu-d"]);
    let dpus: Vec<_> = fleet.sims.keys().cloned().collect();
    // Created before their agents begin, all in one second: the uid decides.
    for number in 0..8 {
        for (index, dpu) in dpus.iter().enumerate() {
            fleet
                .create(&format!("web-{number}-{index}"), on(dpu, &format!("0c:c4:7a:00:00:{number:02x}")))
                .await;
        }
    }
    guarded(&fleet, &clock, async {
        fleet.until(&[("Ready", 8), ("MacClaimed", 24)]).await;
        let devices = fleet.list().await;
        for number in 0..8 {
            let of_mac = |device: &&VirtnetDevice| {
                device.metadata.name.as_deref().unwrap().starts_with(&format!("web-{number}-"))
            };
            let eldest =
                devices.iter().filter(of_mac).min_by_key(|device| device.metadata.uid.clone()).unwrap();
            assert_eq!(reason(eldest), None, "{:?}", eldest.metadata.name);
        }
        for device in devices.iter().filter(|device| reason(device).is_none()) {
            delete(&fleet, device.metadata.name.as_deref().unwrap()).await;
        }
        fleet.until(&[("Ready", 8), ("MacClaimed", 16)]).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn functions_that_nobody_declares_and_macs_of_the_controllers_own_are_counted() {
    let (client, _, clock) = embedded_api().await;
    let fleet = Fleet::new(client, &["dpu-a", "dpu-b"]);
    let made = fleet.sims["dpu-a"].plug_foreign(MAC.parse().unwrap()).await.unwrap();
    guarded(&fleet, &clock, async {
        // Its agent reports the function, and a static PF with the MAC that the controller gave it.
        fleet.create("fixed", json!({"dpu": "dpu-a", "function": {"static": {"pf": 0}}})).await;
        fleet.until(&[("Ready", 1)]).await;
        sleep(LATER).await;
        let fixed = fleet.devices().get("fixed").await.unwrap();
        let own = fixed.status.unwrap().function.unwrap().mac.unwrap();
        fleet.create("of-the-pf", on("dpu-b", &own)).await;
        fleet.create("of-nobody", on("dpu-b", MAC)).await;
        fleet.until(&[("Ready", 1), ("MacClaimed", 2)]).await;
        until_claimed(&fleet, "of-the-pf", &own, "default/fixed on dpu-a").await;
        let by_hand = format!("{} of dpu-a, which no object declares", made.vuid);
        until_claimed(&fleet, "of-nobody", MAC, &by_hand).await;
        // The function goes: then its MAC is free.
        fleet.sims["dpu-a"].controller().unplug(&made.target().unwrap()).await.unwrap();
        fleet.until(&[("Ready", 2), ("MacClaimed", 1)]).await;
        // A static PF that is declared no longer keeps its MAC all the same.
        delete(&fleet, "fixed").await;
        until_claimed(&fleet, "of-the-pf", &own, "VNETS0D0F0 of dpu-a, which no object declares").await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_function_keeps_its_mac_while_the_wanted_one_is_anothers() {
    let (client, _, clock) = embedded_api().await;
    let fleet = Fleet::new(client, &["dpu-a", "dpu-b"]);
    guarded(&fleet, &clock, async {
        fleet.create("first", on("dpu-a", MAC)).await;
        fleet.create("second", on("dpu-b", "0c:c4:7a:00:00:02")).await;
        fleet.until(&[("Ready", 2)]).await;
        edit(&fleet, "second", json!({"mac": MAC, "mtu": 9000, "rebindPolicy": "Always"})).await;
        until_claimed(&fleet, "second", MAC, "default/first on dpu-a").await;
        let mac_of = |state: virtnet_model::ControllerState| {
            state.functions.into_values().find(|function| function.id.pf.get() >= 4).unwrap().mac.to_string()
        };
        let second = fleet.sims["dpu-b"].controller();
        assert_eq!(mac_of(second.observe().await.unwrap()), "0c:c4:7a:00:00:02");
        edit(&fleet, "first", json!({"mac": "0c:c4:7a:00:00:03", "rebindPolicy": "Always"})).await;
        fleet.until(&[("Ready", 2)]).await;
        assert_eq!(mac_of(second.observe().await.unwrap()), MAC);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_mac_is_kept_over_a_power_cycle_and_by_an_agent_that_begins_anew() {
    let (client, _, clock) = embedded_api().await;
    let fleet = Fleet::new(client.clone(), &["dpu-a", "dpu-b"]);
    let other = fleet.agent("dpu-b", &clock);
    meanwhile([other], async {
        let story = async {
            meanwhile([fleet.agent("dpu-a", &clock)], async {
                fleet.create("young", on("dpu-a", MAC)).await;
                fleet.until(&[("Ready", 1)]).await;
            })
            .await;
            // With its agent away its functions go, and an elder comes to want the MAC.
            fleet.sims["dpu-a"].power_cycle().await;
            fleet.create("other", on("dpu-b", MAC)).await;
            until_claimed(&fleet, "other", MAC, "default/young on dpu-a").await;
            meanwhile([fleet.agent("dpu-a", &clock)], async {
                sleep(Duration::from_secs(120)).await;
                assert_eq!(said(&fleet, "young").await, None);
                until_claimed(&fleet, "other", MAC, "default/young on dpu-a").await;
            })
            .await;
        };
        tokio::select! {
            () = guard(&fleet) => {}
            () = story => {}
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_device_is_not_bound_to_wait_there_for_its_mac() {
    let (client, _, clock) = embedded_api().await;
    let fleet = Fleet::new(client.clone(), &["dpu-a", "dpu-b"]);
    let anywhere = |mac: &str| json!({"dpuSelector": {}, "function": {"hotplug": {}}, "mac": mac});
    let operators = [fleet.operator(&client, &clock), fleet.operator(&client, &clock), fleet.agents(&clock)];
    meanwhile(operators, async {
        let story = async {
            sleep(Duration::from_secs(5)).await;
            fleet.create("old", anywhere(MAC)).await;
            fleet.create("young", anywhere(&MAC.to_uppercase())).await;
            fleet.until(&[("Ready", 1), ("MacClaimed", 1)]).await;
            let devices = fleet.list().await;
            let waits = devices.iter().find(|device| device.spec.dpu.is_none()).unwrap();
            let conditions = &waits.status.as_ref().unwrap().conditions;
            let bound = conditions.iter().find(|condition| condition.type_ == "Bound").unwrap();
            assert_eq!((bound.status.as_str(), bound.reason.as_str()), ("False", "MacClaimed"));
            let has = devices.iter().find(|device| device.spec.dpu.is_some()).unwrap();
            delete(&fleet, has.metadata.name.as_deref().unwrap()).await;
            fleet.until(&[("Ready", 1)]).await;
        };
        tokio::select! {
            () = guard(&fleet) => {}
            () = story => {}
        }
    })
    .await;
}
