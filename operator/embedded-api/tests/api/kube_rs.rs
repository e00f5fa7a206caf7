//! kube-rs uses the API in process, on one thread, under a paused clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Event as CoreEvent;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, PropagationPolicy};
use kube::runtime::controller::Action;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::runtime::watcher::{self, Event as Seen};
use kube::runtime::{Controller, WatchStreamExt, watcher as watch};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;
use virtnet_crds::{VirtnetDevice, VirtnetDeviceSet};

use crate::support::{client, device, open, open_recorded};

fn devices(client: &Client) -> Api<VirtnetDevice> {
    Api::namespaced(client.clone(), "default")
}

fn typed(name: &str) -> VirtnetDevice {
    serde_json::from_value(device(name)).unwrap()
}

async fn make(api: &Api<VirtnetDevice>, name: &str) -> VirtnetDevice {
    api.create(&PostParams::default(), &typed(name)).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn objects_are_made_read_replaced_and_deleted() {
    let devices = devices(&client(&open().await));
    let made = make(&devices, "web-0").await;
    assert_eq!(made.metadata.generation, Some(1));
    assert_eq!(made.creation_timestamp().unwrap().0.to_string(), "2026-01-01T00:00:00Z");
    assert_eq!(made.status.as_ref().unwrap().observed_generation, -1);

    let mut changed = made.clone();
    changed.spec.mtu = Some(9000);
    let replaced = devices.replace("web-0", &PostParams::default(), &changed).await.unwrap();
    assert_eq!(replaced.metadata.generation, Some(2));
    let stale = devices.replace("web-0", &PostParams::default(), &changed).await.unwrap_err();
    assert!(matches!(stale, kube::Error::Api(status) if status.code == 409 && status.reason == "Conflict"));

    let twice = devices.create(&PostParams::default(), &typed("web-0")).await.unwrap_err();
    assert!(
        matches!(twice, kube::Error::Api(status) if status.code == 409 && status.reason == "AlreadyExists")
    );
    assert!(devices.delete("web-0", &DeleteParams::default()).await.unwrap().is_right());
    assert!(devices.get_opt("web-0").await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_streaming_list_begins_with_all_and_goes_on_with_changes() {
    let client = client(&open().await);
    let devices = devices(&client);
    make(&devices, "a").await;
    make(&devices, "b").await;
    for strategy in [watcher::InitialListStrategy::StreamingList, watcher::InitialListStrategy::ListWatch] {
        let config = watcher::Config { initial_list_strategy: strategy, ..watcher::Config::default() };
        let mut stream = watch(devices.clone(), config).boxed();
        let mut initial = Vec::new();
        loop {
            match stream.try_next().await.unwrap().unwrap() {
                Seen::Init => {}
                Seen::InitApply(device) => initial.push(device.name_any()),
                Seen::InitDone => break,
                other => panic!("{other:?} before the initial list was complete"),
            }
        }
        assert_eq!(initial, ["a", "b"]);
        make(&devices, "c").await;
        assert!(
            matches!(stream.try_next().await.unwrap().unwrap(), Seen::Apply(one) if one.name_any() == "c")
        );
        devices.delete("c", &DeleteParams::default()).await.unwrap();
        assert!(
            matches!(stream.try_next().await.unwrap().unwrap(), Seen::Delete(one) if one.name_any() == "c")
        );
    }
}

#[tokio::test(start_paused = true)]
async fn objects_move_in_and_out_of_a_field_selection() {
    let devices = devices(&client(&open().await));
    let config = watcher::Config { field_selector: Some("spec.dpu=bf3-b".to_owned()), ..Default::default() };
    let mut stream = watch(devices.clone(), config.streaming_lists()).boxed();
    while !matches!(stream.try_next().await.unwrap().unwrap(), Seen::InitDone) {}
    make(&devices, "web-0").await;
    let bind = |dpu: &str| Patch::Merge(json!({ "spec": { "dpu": dpu } }));
    devices.patch("web-0", &PatchParams::default(), &bind("bf3-b")).await.unwrap();
    assert!(
        matches!(stream.try_next().await.unwrap().unwrap(), Seen::Apply(one) if one.name_any() == "web-0")
    );
    devices.patch("web-0", &PatchParams::default(), &bind("bf3-a")).await.unwrap();
    assert!(
        matches!(stream.try_next().await.unwrap().unwrap(), Seen::Delete(one) if one.name_any() == "web-0")
    );
}

#[tokio::test(start_paused = true)]
async fn a_watch_outlives_hours_of_virtual_time() {
    let devices = devices(&client(&open().await));
    let mut stream =
        watch(devices.clone(), watcher::Config::default().streaming_lists()).applied_objects().boxed();
    make(&devices, "a").await;
    assert_eq!(stream.try_next().await.unwrap().unwrap().name_any(), "a");
    let late = tokio::spawn({
        let devices = devices.clone();
        async move {
            tokio::time::sleep(Duration::from_secs(5 * 3600)).await;
            make(&devices, "b").await
        }
    });
    // A list that is begun anew shows "a" again before "b".
    let seen =
        stream.try_filter(|one| std::future::ready(one.name_any() == "b")).boxed().try_next().await.unwrap();
    let age = seen.unwrap().creation_timestamp().unwrap();
    assert_eq!(age.0.to_string(), "2026-01-01T05:00:00Z");
    late.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn status_and_spec_are_separate_writes() {
    let devices = devices(&client(&open().await));
    make(&devices, "web-0").await;
    let both = json!({ "spec": { "mtu": 9000 }, "status": { "observedGeneration": 1 } });
    let status = devices.patch_status("web-0", &PatchParams::default(), &Patch::Merge(&both)).await.unwrap();
    assert_eq!((status.spec.mtu, status.status.unwrap().observed_generation), (Some(1500), 1));
    assert_eq!(status.metadata.generation, Some(1));
    let both = json!({ "spec": { "mtu": 9000 }, "status": { "observedGeneration": 7 } });
    let main = devices.patch("web-0", &PatchParams::default(), &Patch::Merge(&both)).await.unwrap();
    assert_eq!((main.spec.mtu, main.status.unwrap().observed_generation), (Some(9000), 1));
    assert_eq!(main.metadata.generation, Some(2));
}

#[tokio::test(start_paused = true)]
async fn an_agents_writes_are_two_and_its_repetitions_change_nothing() {
    let (api, recorder) = open_recorded().await;
    let devices = devices(&client(&api));
    let made = make(&devices, "web-0").await;
    recorder.take();
    let finalizer = json!([
        { "op": "test", "path": "/metadata/uid", "value": made.uid() },
        { "op": "test", "path": "/metadata/resourceVersion", "value": made.resource_version() },
        { "op": "add", "path": "/metadata/finalizers", "value": ["virtnet.dev/function"] },
    ]);
    let finalizer = Patch::<()>::Json(serde_json::from_value(finalizer).unwrap());
    devices.patch("web-0", &PatchParams::apply("virtnet-agent"), &finalizer).await.unwrap();
    let status = json!({
        "apiVersion": "virtnet.dev/v1alpha1",
        "kind": "VirtnetDevice",
        "metadata": { "name": "web-0", "uid": made.uid() },
        "status": { "observedGeneration": 1 },
    });
    let params = PatchParams::apply("virtnet-agent");
    let first = devices.patch_status("web-0", &params, &Patch::Apply(&status)).await.unwrap();
    let again = devices.patch_status("web-0", &params, &Patch::Apply(&status)).await.unwrap();
    assert_eq!(first.resource_version(), again.resource_version());
    let writes: Vec<_> =
        recorder.take().into_iter().map(|write| (write.verb, write.subresource, write.changed)).collect();
    assert_eq!(writes, [("patch", "", true), ("apply", "status", true), ("apply", "status", false)]);

    let stale = devices.patch("web-0", &PatchParams::default(), &finalizer).await.unwrap_err();
    assert!(matches!(stale, kube::Error::Api(status) if status.code == 422));
    devices.delete("web-0", &DeleteParams::default()).await.unwrap();
    let none = json!({ "metadata": { "finalizers": null } });
    devices.patch("web-0", &PatchParams::default(), &Patch::Merge(none)).await.unwrap();
    let ghost = devices.patch_status("web-0", &params, &Patch::Apply(&status)).await.unwrap_err();
    assert!(matches!(ghost, kube::Error::Api(status) if status.code == 404));
    let ghost = devices.patch("web-0", &params, &Patch::Apply(&status)).await.unwrap_err();
    assert!(matches!(ghost, kube::Error::Api(status) if status.code == 409));
}

#[tokio::test(start_paused = true)]
async fn a_controller_reconciles_each_object_and_its_dependents_go_with_it() {
    let client = client(&open().await);
    let sets: Api<VirtnetDeviceSet> = Api::namespaced(client.clone(), "default");
    let devices = devices(&client);
    let set = json!({
        "apiVersion": "virtnet.dev/v1alpha1",
        "kind": "VirtnetDeviceSet",
        "metadata": { "name": "web" },
        "spec": {
            "dpuSelector": { "matchLabels": { "rack": "a" } },
            "replicas": 2,
            "template": { "spec": { "function": { "hotplug": {} } } },
        },
    });
    let reconciled = Arc::new(AtomicUsize::new(0));
    let controller = Controller::new(sets.clone(), watcher::Config::default().streaming_lists())
        .owns(devices.clone(), watcher::Config::default())
        .run(
            reconcile,
            |_, error, _| panic!("{error}"),
            Arc::new((devices.clone(), Arc::clone(&reconciled))),
        );
    let running = tokio::spawn(controller.for_each(|_| std::future::ready(())));
    let set = sets.create(&PostParams::default(), &serde_json::from_value(set).unwrap()).await.unwrap();

    let mut stream = watch(devices.clone(), watcher::Config::default()).applied_objects().boxed();
    for _ in 0..2 {
        let owned = stream.try_next().await.unwrap().unwrap();
        assert_eq!(owned.owner_references()[0].uid, set.uid().unwrap());
    }
    sets.delete("web", &DeleteParams::default()).await.unwrap();
    assert_eq!(devices.list(&ListParams::default()).await.unwrap().items.len(), 0);
    running.abort();
    assert!(reconciled.load(Ordering::SeqCst) >= 1);
}

type Context = (Api<VirtnetDevice>, Arc<AtomicUsize>);

async fn reconcile(set: Arc<VirtnetDeviceSet>, context: Arc<Context>) -> Result<Action, kube::Error> {
    context.1.fetch_add(1, Ordering::SeqCst);
    for index in 0..set.spec.replicas {
        let mut device = typed(&format!("{}-{index}", set.name_any()));
        device.metadata.owner_references = Some(vec![set.controller_owner_ref(&()).unwrap()]);
        device.metadata.managed_fields = None;
        let params = PatchParams::apply("virtnet-set");
        context.0.patch(&device.name_any(), &params, &Patch::Apply(&device)).await?;
    }
    Ok(Action::await_change())
}

#[tokio::test(start_paused = true)]
async fn dependents_are_orphaned_or_waited_for_where_asked() {
    let devices = devices(&client(&open().await));
    for policy in [PropagationPolicy::Orphan, PropagationPolicy::Foreground] {
        let owner = make(&devices, "owner").await;
        let mut dependent = typed("dependent");
        let mut reference = owner.controller_owner_ref(&()).unwrap();
        reference.block_owner_deletion = Some(true);
        dependent.metadata.owner_references = Some(vec![reference]);
        dependent.metadata.finalizers = Some(vec!["virtnet.dev/function".to_owned()]);
        devices.create(&PostParams::default(), &dependent).await.unwrap();
        let params = DeleteParams { propagation_policy: Some(policy.clone()), ..DeleteParams::default() };
        let left = devices.delete("owner", &params).await.unwrap().left();
        let held = devices.get("dependent").await.unwrap();
        let release = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
        if matches!(policy, PropagationPolicy::Orphan) {
            assert!(left.is_none() && held.owner_references().is_empty());
            devices.patch("dependent", &PatchParams::default(), &release).await.unwrap();
            devices.delete("dependent", &DeleteParams::default()).await.unwrap();
        } else {
            assert_eq!(left.unwrap().finalizers(), ["foregroundDeletion"]);
            assert!(held.meta().deletion_timestamp.is_some());
            devices.patch("dependent", &PatchParams::default(), &release).await.unwrap();
        }
        assert!(devices.get_opt("owner").await.unwrap().is_none());
        assert!(devices.get_opt("dependent").await.unwrap().is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_dependent_made_after_its_owner_went_goes_too() {
    let devices = devices(&client(&open().await));
    let owner = make(&devices, "owner").await;
    devices.delete("owner", &DeleteParams::default()).await.unwrap();
    // A new owner of the same name is another one.
    let second = make(&devices, "owner").await;
    let mut late = typed("late");
    late.metadata.owner_references = Some(vec![owner.controller_owner_ref(&()).unwrap()]);
    devices.create(&PostParams::default(), &late).await.unwrap();
    assert!(devices.get_opt("late").await.unwrap().is_none());

    // One owner that is left keeps the dependent, which forgets the one that went.
    let third = make(&devices, "third").await;
    let references = vec![second.owner_ref(&()).unwrap(), third.owner_ref(&()).unwrap()];
    late.metadata.owner_references = Some(references);
    devices.create(&PostParams::default(), &late).await.unwrap();
    devices.delete("owner", &DeleteParams::default()).await.unwrap();
    let left = devices.get("late").await.unwrap();
    assert_eq!(left.owner_references().len(), 1);
    assert_eq!(left.owner_references()[0].name, "third");
}

#[tokio::test(start_paused = true)]
async fn events_and_leases_are_kept_and_old_events_expire() {
    let client = client(&open().await);
    let device = make(&devices(&client), "web-0").await;
    let reporter = Reporter { controller: "virtnet-agent".to_owned(), instance: Some("bf3-a".to_owned()) };
    let recorder = Recorder::new(client.clone(), reporter);
    let event = Event {
        type_: EventType::Normal,
        reason: "Plugged".to_owned(),
        note: Some("plugged".to_owned()),
        action: "Plug".to_owned(),
        secondary: None,
    };
    // The recorder stamps events with the machine's time, which the expiry compares with the API's.
    recorder.publish(&event, &device.object_ref(&())).await.unwrap();
    recorder.publish(&event, &device.object_ref(&())).await.unwrap();
    let events: Api<CoreEvent> = Api::namespaced(client.clone(), "default");
    let of_device = ListParams::default().fields(&format!("involvedObject.uid={}", device.uid().unwrap()));
    let found = events.list(&of_device).await.unwrap().items;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].message.as_deref(), Some("plugged"));
    assert_eq!(found[0].series.as_ref().and_then(|series| series.count), Some(2));

    let old = json!({
        "apiVersion": "v1", "kind": "Event", "metadata": { "name": "old" },
        "involvedObject": { "kind": "Dpu", "name": "bf3-a" }, "lastTimestamp": "2025-12-31T23:00:01Z",
    });
    let old: CoreEvent = serde_json::from_value(old).unwrap();
    events.create(&PostParams::default(), &old).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3601)).await;
    let new = CoreEvent {
        metadata: kube::api::ObjectMeta { name: Some("new".to_owned()), ..Default::default() },
        ..old
    };
    events.create(&PostParams::default(), &new).await.unwrap();
    assert!(events.get_opt("old").await.unwrap().is_none());
    assert!(events.get_opt("new").await.unwrap().is_some());

    let leases: Api<Lease> = Api::namespaced(client, "kube-system");
    let lease = |seconds: u32| {
        json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": { "name": "bf3-a" },
            "spec": { "holderIdentity": "agent", "renewTime": format!("2026-01-01T00:00:{seconds:02}.000000Z") },
        })
    };
    let params = PatchParams::apply("virtnet-agent").force();
    leases.patch("bf3-a", &params, &Patch::Apply(lease(1))).await.unwrap();
    let renewed = leases.patch("bf3-a", &params, &Patch::Apply(lease(11))).await.unwrap();
    assert!(renewed.spec.unwrap().renew_time.is_some());
}
