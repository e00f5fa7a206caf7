//! The operator's binder over a small fleet: simulated DPUs with an agent each, on the embedded API under a paused clock and on
//! a real kube-apiserver in real time. Two operators run at once, and neither knows of the other.

use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, StreamExt, stream};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::time::sleep;
use virtnet_agent::Clock;
use virtnet_crds::{API_VERSION, Dpu, VirtnetDevice, manager};
use virtnet_tests::control_plane::{ControlPlane, client_of};
use virtnet_tests::fleet::{Fleet, SLOTS, embedded_api, meanwhile};
use virtnet_tests::manifests;
use virtnet_tests::world::reason;

fn anywhere() -> Value {
    json!({"dpuSelector": {}, "function": {"hotplug": {}}, "port": {"bridge": "ovsbr1"}})
}

#[tokio::test(start_paused = true)]
async fn devices_are_spread_and_what_finds_no_room_says_so_until_there_is_some() {
    let (client, writes, clock) = embedded_api().await;
    let fleet = Fleet::new(client.clone(), &["dpu-a", "dpu-b", "dpu-c"]);
    let operator = || fleet.operator(&client, &clock);
    meanwhile([fleet.agents(&clock), operator(), operator()], async {
        // Until the DPUs have reported, nobody can know whether there is room.
        sleep(Duration::from_secs(5)).await;
        let all = 3 * SLOTS + 4;
        for number in 0..all {
            fleet.create(&format!("web-{number}"), anywhere()).await;
        }
        fleet.until(&[("Ready", 3 * SLOTS), ("NoDpuFits", 4)]).await;
        assert!(fleet.check().await.values().all(|count| *count == SLOTS));
        let waiting = fleet.by_reason().await.remove("NoDpuFits").unwrap();
        let device = fleet.devices().get(&waiting[0]).await.unwrap();
        let conditions = device.status.unwrap().conditions;
        let of = |type_: &str| conditions.iter().find(|condition| condition.type_ == type_).unwrap();
        assert_eq!(
            of("Bound").message,
            "dpu-a: 0 of 16 slots free; dpu-b: 0 of 16 slots free; dpu-c: 0 of 16 slots free"
        );
        assert_eq!((of("Bound").status.as_str(), of("Ready").status.as_str()), ("False", "False"));
        assert_eq!(of("Reconciling").status, "True");
        // Each bound device was written once, and of each that waits it was said once, although two operators are at it.
        let binder: Vec<_> =
            writes.take().into_iter().filter(|write| write.manager == manager::BINDER).collect();
        assert_eq!(binder.len(), all, "{binder:#?}");

        // A static PF is each DPU's own, and a selector that matches none says so.
        for number in 0..4 {
            fleet
                .create(
                    &format!("fixed-{number}"),
                    json!({"dpuSelector": {}, "function": {"static": {"pf": 0}}}),
                )
                .await;
        }
        fleet
            .create(
                "lost",
                json!({"dpuSelector": {"matchLabels": {"rack": "r9"}}, "function": {"hotplug": {}}}),
            )
            .await;
        fleet.until(&[("Ready", 3 * SLOTS + 3), ("NoDpuFits", 5), ("NoDpuSelected", 1)]).await;

        // Room appears: by a deletion, and by another function's.
        for number in 0..4 {
            let ready = fleet.by_reason().await.remove("Ready").unwrap();
            let gone = ready.iter().filter(|name| name.starts_with("web")).nth(number).unwrap();
            fleet.devices().delete(gone, &DeleteParams::default()).await.unwrap();
        }
        fleet.until(&[("Ready", 3 * SLOTS + 3), ("NoDpuFits", 1), ("NoDpuSelected", 1)]).await;
        let bound = fleet.list().await.into_iter().find(|device| device.name_any() == waiting[0]).unwrap();
        let conditions = bound.status.unwrap().conditions;
        assert!(!conditions.iter().any(|condition| condition.type_ == "Bound"), "{conditions:?}");

        // Then all is silent.
        sleep(Duration::from_secs(10)).await;
        writes.take();
        sleep(Duration::from_secs(600)).await;
        let written: Vec<_> = writes.take().into_iter().filter(|write| write.resource != "leases").collect();
        assert!(written.is_empty(), "{written:#?}");
    })
    .await;
    // And so it stays when others take over.
    let agents = fleet.agents(&clock);
    meanwhile([agents, operator()], async {
        sleep(Duration::from_secs(60)).await;
        let written: Vec<_> = writes.take().into_iter().filter(|write| write.resource != "leases").collect();
        assert!(written.is_empty(), "{written:#?}");
    })
    .await;
}

/// An operator whose cache is far behind binds too much to one DPU.
#[tokio::test(start_paused = true)]
async fn what_an_agent_refuses_is_bound_elsewhere_and_a_persons_choice_stays() {
    let (client, _, clock) = embedded_api().await;
    let fleet = Fleet::new(client.clone(), &["dpu-a", "dpu-b"]);
    let operator = fleet.operator(&client, &clock);
    let begin = Arc::new(tokio::sync::Notify::new());
    let begun = Arc::clone(&begin);
    let later = async move {
        begun.notified().await;
        operator.await;
    };
    meanwhile([fleet.agents(&clock), later.boxed()], async {
        for number in 0..SLOTS + 4 {
            let name = format!("web-{number}");
            fleet.create(&name, anywhere()).await;
            let body = json!({
                "apiVersion": API_VERSION, "kind": "VirtnetDevice", "metadata": {"name": name},
                "spec": {"dpu": "dpu-a"},
            });
            fleet
                .devices()
                .patch(&name, &PatchParams::apply(manager::BINDER), &Patch::Apply(body))
                .await
                .unwrap();
        }
        // It is the youngest, so that it is among those refused.
        sleep(Duration::from_secs(5)).await;
        let mut chosen = anywhere();
        chosen["dpu"] = json!("dpu-a");
        fleet.create("chosen", chosen).await;
        fleet.until(&[("Ready", SLOTS), ("NoFreeSlot", 5)]).await;
        begin.notify_one();
        fleet.until(&[("Ready", SLOTS + 4), ("NoFreeSlot", 1)]).await;
        assert_eq!(fleet.by_reason().await["NoFreeSlot"], ["chosen"]);
        let devices = fleet.list().await;
        let on_b = devices.iter().filter(|device| device.spec.dpu.as_deref() == Some("dpu-b")).count();
        assert_eq!(on_b, 4);
    })
    .await;
}

/// People change what the binder had said something of, whether it runs or not.
#[tokio::test(start_paused = true)]
async fn a_person_who_binds_or_unbinds_a_device_is_followed() {
    let (client, _, clock) = embedded_api().await;
    let fleet = Fleet::new(client.clone(), &["dpu-a"]);
    let operator = || fleet.operator(&client, &clock);
    let set_dpu = async |name: &str, dpu: Value| {
        let patch = Patch::Merge(json!({"spec": {"dpu": dpu}}));
        fleet.devices().patch(name, &PatchParams::default(), &patch).await.unwrap();
    };
    let lost = json!({"dpuSelector": {"matchLabels": {"rack": "r9"}}, "function": {"hotplug": {}}});
    meanwhile([fleet.agents(&clock), operator()], async {
        fleet.create("lost", lost).await;
        fleet.until(&[("NoDpuSelected", 1)]).await;
    })
    .await;
    meanwhile([fleet.agents(&clock)], async {
        set_dpu("lost", json!("dpu-a")).await;
        fleet.until(&[("Ready", 1)]).await;
    })
    .await;
    meanwhile([fleet.agents(&clock), operator()], async {
        sleep(Duration::from_secs(5)).await;
        let conditions = fleet.devices().get("lost").await.unwrap().status.unwrap().conditions;
        assert!(!conditions.iter().any(|condition| condition.type_ == "Bound"), "{conditions:?}");
        for number in 1..SLOTS {
            fleet.create(&format!("web-{number}"), anywhere()).await;
        }
        fleet.until(&[("Ready", SLOTS)]).await;
        let mut one_more = anywhere();
        one_more["dpu"] = json!("dpu-a");
        fleet.create("one-more", one_more).await;
        fleet.until(&[("Ready", SLOTS), ("NoFreeSlot", 1)]).await;
        set_dpu("one-more", Value::Null).await;
        fleet.until(&[("Ready", SLOTS), ("NoDpuFits", 1)]).await;
    })
    .await;
}

/// Keeps operators from binding anything to dpu-a.
const POLICY: &str = r#"
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: not-dpu-a}
spec:
  matchConstraints:
    resourceRules:
    - {apiGroups: [virtnet.dev], apiVersions: ["*"], operations: [UPDATE], resources: [virtnetdevices]}
  matchConditions:
  - {name: operators, expression: "'virtnet:operators' in request.userInfo.groups"}
  validations:
  - {expression: "!has(object.spec.dpu) || object.spec.dpu != 'dpu-a'", message: dpu-a is for others}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: not-dpu-a}
spec: {policyName: not-dpu-a, validationActions: [Deny]}
"#;

#[tokio::test]
async fn operators_bind_on_a_real_api_server_with_no_more_rights_than_they_need() {
    let plane = ControlPlane::start().await.unwrap();
    let kubectl = manifests::install(&plane).await.unwrap();
    let fleet = Fleet::on_kubernetes(plane.client().await.unwrap(), &["dpu-a", "dpu-b"]);
    let clients: Vec<_> = stream::iter(["virtnet:operator:a", "virtnet:operator:b"])
        .then(async |user| client_of(&plane.kubeconfig_of(user, "virtnet:operators").unwrap()).await.unwrap())
        .collect()
        .await;
    let operators = clients.iter().map(|client| fleet.operator(client, &Clock::system()));
    let running = operators.chain([fleet.agents(&Clock::system())]);
    meanwhile(running, async {
        for number in 0..2 * SLOTS + 3 {
            fleet.create(&format!("web-{number}"), anywhere()).await;
        }
        // Each operator may see room that the other one gives away. Where an agent refuses, and no other DPU has room, the
        // device waits for its own.
        fleet
            .until_so(|found| {
                let count = |reason: &str| found.get(reason).map_or(0, Vec::len);
                count("Ready") == 2 * SLOTS && count("NoDpuFits") + count("NoFreeSlot") == 3
            })
            .await;
        let ready = fleet.by_reason().await.remove("Ready").unwrap();
        for name in &ready[..3] {
            fleet.devices().delete(name, &DeleteParams::default()).await.unwrap();
        }
        fleet.until(&[("Ready", 2 * SLOTS)]).await;
        fleet.check().await;

        // What an agent said only a person can end is taken off once a person unbinds the device.
        let stalled = json!({
            "dpu": "dpu-a", "dpuSelector": {"matchLabels": {"rack": "r9"}}, "function": {"hotplug": {}},
            "features": ["RSS"],
        });
        fleet.create("stalled", stalled).await;
        fleet.until(&[("Ready", 2 * SLOTS), ("FeatureUnsupported", 1)]).await;
        let unbind = Patch::Merge(json!({"spec": {"dpu": null}}));
        fleet.devices().patch("stalled", &PatchParams::default(), &unbind).await.unwrap();
        fleet.until(&[("Ready", 2 * SLOTS), ("NoDpuSelected", 1)]).await;
        let conditions = fleet.devices().get("stalled").await.unwrap().status.unwrap().conditions;
        assert!(!conditions.iter().any(|condition| condition.type_ == "Stalled"), "{conditions:?}");
        fleet.devices().delete("stalled", &DeleteParams::default()).await.unwrap();
        fleet.until(&[("Ready", 2 * SLOTS)]).await;

        // What the API does not let them do stops nothing else, and is told.
        kubectl.run_with(&["apply", "-f", "-"], POLICY).unwrap().ok().unwrap();
        let of_operator: Api<VirtnetDevice> = Api::default_namespaced(clients[0].clone());
        let on = async |dpu: &str| {
            let devices = fleet.list().await.into_iter();
            devices
                .filter(|device| device.spec.dpu.as_deref() == Some(dpu))
                .map(|device| device.name_any())
                .collect::<Vec<_>>()
        };
        let (on_a, on_b) = (on("dpu-a").await, on("dpu-b").await);
        let probe = Patch::Merge(json!({"metadata": {"labels": {"probe": "a"}}}));
        let try_out = PatchParams { dry_run: true, ..PatchParams::default() };
        while of_operator.patch(&on_a[0], &try_out, &probe).await.is_ok() {
            sleep(Duration::from_millis(100)).await;
        }
        for name in &on_a {
            fleet.devices().delete(name, &DeleteParams::default()).await.unwrap();
        }
        fleet.create("late", anywhere()).await;
        fleet.until(&[("Ready", SLOTS), ("NoDpuFits", 1)]).await;
        let (_, message) = reason(&fleet.devices().get("late").await.unwrap()).unwrap();
        assert!(
            message.contains("dpu-a: the API refused it: ") && message.contains("dpu-a is for others"),
            "{message}"
        );
        assert!(message.ends_with("; dpu-b: 0 of 16 slots free"), "{message}");
        fleet.devices().delete(&on_b[0], &DeleteParams::default()).await.unwrap();
        fleet.until(&[("Ready", SLOTS)]).await;
    })
    .await;
    // They may let a Dpu go that a person has deleted, and nothing else of it is theirs.
    let dpus: Api<Dpu> = Api::all(clients[0].clone());
    for patch in [
        json!({"metadata": {"labels": {"rack": "r1"}}}),
        json!({"metadata": {"finalizers": null}}),
        json!({"spec": {"host": {"sriov": [{"pf": 0, "numVfs": 1}]}}}),
    ] {
        let refused = dpus.patch("dpu-a", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap_err();
        assert!(refused.to_string().contains("virtnet-operator"), "{patch}: {refused}");
    }
    assert!(dpus.delete("dpu-a", &DeleteParams::default()).await.is_err());
}
