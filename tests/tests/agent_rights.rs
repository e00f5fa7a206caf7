//! What agents and people may do on a real kube-apiserver with the manifests' rights: by RBAC, and by the policy that keeps
//! each agent to its own DPU.

#![expect(clippy::unwrap_used, reason = "the helpers of tests panic to fail as the tests themselves do")]

use std::fmt::Debug;
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};
use virtnet_agent::{Clock, Config, Metrics, Parts};
use virtnet_crds::{API_VERSION, Dpu, LEASE_NAMESPACE, VirtnetDevice, mac_label};
use virtnet_sim::{Sim, SimConfig};
use virtnet_tests::control_plane::{ControlPlane, client_of};
use virtnet_tests::kubectl::Kubectl;
use virtnet_tests::manifests;
use virtnet_tests::world::reason;

/// Far longer than any of it takes, on a machine that is busy too.
const LIMIT: Duration = Duration::from_secs(60);
const GROUP: &str = "virtnet:agents";
const ACCOUNT: &str = "virtnet-agent";

/// Asks again and again, since nothing tells of it, until this is so.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < LIMIT, "not seen within {} s: {what}", LIMIT.as_secs());
        sleep(Duration::from_millis(50)).await;
    }
}

/// What RBAC says to `kubectl auth can-i`.
fn can(kubectl: &Kubectl, who: &[&str], what: &str) -> bool {
    let words: Vec<_> = ["auth", "can-i"].into_iter().chain(what.split(' ')).collect();
    let run = kubectl.run(&[&words, who].concat()).unwrap();
    match run.stdout.trim() {
        "yes" => true,
        "no" => false,
        _ => panic!("{run:#?}"),
    }
}

/// Rights come into force some time after they are stored, all of one binding at once: what is granted is asked first.
async fn may(kubectl: &Kubectl, who: &[&str], granted: &[&str], refused: &[&str]) {
    for what in granted {
        until(&format!("{who:?} may {what}"), async || can(kubectl, who, what)).await;
    }
    for what in refused {
        assert!(!can(kubectl, who, what), "{who:?} may {what}");
    }
}

#[tokio::test]
async fn agents_have_the_rights_they_need_and_no_others() {
    let plane = ControlPlane::shared().await.unwrap();
    let kubectl = manifests::install(&plane).await.unwrap();
    let account = format!("--as=system:serviceaccount:{LEASE_NAMESPACE}:{ACCOUNT}");
    let group = format!("--as-group={GROUP}");
    for who in [&["--as=virtnet:agent:bf3-a", &group][..], &[&account]] {
        may(
            &kubectl,
            who,
            &[
                "get virtnetdevices -A",
                "list virtnetdevices -A",
                "watch virtnetdevices -A",
                "patch virtnetdevices -A",
                "patch virtnetdevices --subresource=status -A",
                "get dpus -A",
                "list dpus -A",
                "watch dpus -A",
                "create dpus -A",
                "patch dpus -A",
                "patch dpus --subresource=status -A",
                "create leases.coordination.k8s.io -n virtnet-system",
                "patch leases.coordination.k8s.io -n virtnet-system",
                "create events.events.k8s.io -A",
                "patch events.events.k8s.io -A",
            ],
            &[
                "create virtnetdevices -A",
                "update virtnetdevices -A",
                "delete virtnetdevices -A",
                "update virtnetdevices --subresource=status -A",
                "get virtnetdevicesets -A",
                "patch virtnetdevicesets -A",
                "update dpus -A",
                "delete dpus -A",
                "patch leases.coordination.k8s.io -n default",
                "patch leases.coordination.k8s.io -n kube-node-lease",
                "delete leases.coordination.k8s.io -n virtnet-system",
                "get secrets -n virtnet-system",
                "create pods -n virtnet-system",
                "create serviceaccounts --subresource=token -n virtnet-system",
                "create events -A",
                "delete events.events.k8s.io -A",
            ],
        )
        .await;
    }
}

#[tokio::test]
async fn people_have_the_rights_of_their_roles() {
    let plane = ControlPlane::shared().await.unwrap();
    let kubectl = manifests::install(&plane).await.unwrap();
    let run = |arguments: &str| {
        kubectl.run(&arguments.split(' ').collect::<Vec<_>>()).unwrap().ok().unwrap();
    };
    // What Kubernetes adds to its own roles by these labels.
    for (own, ours) in [("view", "virtnet-view"), ("edit", "virtnet-edit"), ("admin", "virtnet-admin")] {
        let get = |role: &str, path: &str| {
            let output = format!("-o=jsonpath={{{path}}}");
            let text = kubectl.run(&["get", "clusterrole", role, &output]).unwrap().ok().unwrap();
            serde_json::from_str::<Value>(&text).unwrap()
        };
        let wanted = get(own, ".aggregationRule.clusterRoleSelectors[0].matchLabels");
        let wanted = wanted.as_object().unwrap().clone();
        let labels = get(ours, ".metadata.labels");
        assert!(
            !wanted.is_empty() && wanted.iter().all(|(key, value)| labels[key] == *value),
            "{ours}: {labels}"
        );
    }

    run("create namespace shop");
    run("create rolebinding reads -n shop --clusterrole=virtnet-view --user=viewer --user=editor");
    run("create rolebinding writes -n shop --clusterrole=virtnet-edit --user=editor");
    run("create clusterrolebinding reads-all --clusterrole=virtnet-view --user=watcher");
    run("create clusterrolebinding writes-dpus --clusterrole=virtnet-admin --user=owner");
    let reads = [
        "list virtnetdevices -n shop",
        "watch virtnetdevices -n shop",
        "get virtnetdevicesets -n shop",
        "get virtnetdevicesets --subresource=scale -n shop",
    ];
    let writes = [
        "create virtnetdevices -n shop",
        "patch virtnetdevices -n shop",
        "delete virtnetdevices -n shop",
        "create virtnetdevicesets -n shop",
        "update virtnetdevicesets --subresource=scale -n shop",
    ];
    let never = ["patch virtnetdevices --subresource=status -n shop", "patch dpus --subresource=status -A"];
    let elsewhere = ["list virtnetdevices -n default", "create virtnetdevices -n default", "patch dpus -A"];
    may(&kubectl, &["--as=viewer"], &reads, &[&writes[..], &never, &elsewhere, &["get dpus -A"]].concat())
        .await;
    may(&kubectl, &["--as=editor"], &[&reads[..], &writes].concat(), &[&never[..], &elsewhere].concat())
        .await;
    let all = ["list virtnetdevices -A", "get virtnetdevicesets -A", "list dpus -A"];
    may(&kubectl, &["--as=watcher"], &all, &[&writes[..], &never, &["patch dpus -A"]].concat()).await;
    may(&kubectl, &["--as=owner"], &["create dpus -A", "patch dpus -A", "delete dpus -A"], &never).await;
}

/// What a refusal by the policy says.
#[track_caller]
fn refusal<T: Debug>(result: kube::Result<T>) -> String {
    let policy = format!("ValidatingAdmissionPolicy '{ACCOUNT}' with binding '{ACCOUNT}' denied request: ");
    match result {
        Err(kube::Error::Api(status)) if status.code == 403 && status.message.contains(&policy) => {
            status.message.split_once(&policy).unwrap().1.to_owned()
        }
        other => panic!("not refused by the policy: {other:?}"),
    }
}

fn patch_params() -> PatchParams {
    PatchParams::apply("virtnet-agent").force()
}

fn create_params() -> PostParams {
    PostParams { field_manager: Some("virtnet-agent".into()), ..PostParams::default() }
}

fn lease(name: &str) -> Patch<Value> {
    let version = "coordination.k8s.io/v1";
    Patch::Apply(json!({
        "apiVersion": version, "kind": "Lease", "metadata": {"name": name}, "spec": {"holderIdentity": name},
    }))
}

fn dpu(name: &str) -> Dpu {
    Dpu::new(name, Default::default())
}

/// Policy and rights come into force some time after they are stored: waits until the policy is seen to refuse.
async fn until_in_force(agent: &Client) {
    let leases: Api<Lease> = Api::namespaced(agent.clone(), LEASE_NAMESPACE);
    let dpus: Api<Dpu> = Api::all(agent.clone());
    let is_refused =
        |error: kube::Error| error.to_string().contains(&format!("ValidatingAdmissionPolicy '{ACCOUNT}'"));
    until("the policy refuses the Lease and the Dpu of another", async || {
        let lease = leases.patch("no-agents", &patch_params().dry_run(), &lease("no-agents")).await;
        let params = PostParams { dry_run: true, ..create_params() };
        let dpu = dpus.create(&params, &dpu("no-agents")).await;
        lease.is_err_and(is_refused) && dpu.is_err_and(is_refused)
    })
    .await;
}

/// A namespace with a device of this DPU, `mine`, and one of another, `theirs`.
async fn make_devices(admin: &Client, dpu: &str) -> Api<VirtnetDevice> {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": dpu}});
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(admin.clone());
    namespaces.create(&PostParams::default(), &serde_json::from_value(namespace).unwrap()).await.unwrap();
    let devices: Api<VirtnetDevice> = Api::namespaced(admin.clone(), dpu);
    for (name, dpu) in [("mine", dpu), ("theirs", "bf3-z")] {
        let device = json!({
            "apiVersion": API_VERSION, "kind": "VirtnetDevice", "metadata": {"name": name},
            "spec": {"dpu": dpu, "function": {"hotplug": {}}},
        });
        let device = serde_json::from_value(device).unwrap();
        devices.create(&PostParams::default(), &device).await.unwrap();
    }
    devices
}

/// An agent of this DPU writes what is its own, and is refused what is another's.
async fn writes_only_its_own(admin: &Client, agent: &Client, own: &str) {
    let devices = make_devices(admin, own).await;
    until_in_force(agent).await;
    let mine: Api<VirtnetDevice> = Api::namespaced(agent.clone(), own);
    let begin = format!("the agent of DPU {own} may not ");

    let status = Patch::Apply(json!({
        "apiVersion": API_VERSION, "kind": "VirtnetDevice", "status": {"observedGeneration": 1},
    }));
    let written = mine.patch_status("mine", &patch_params(), &status).await.unwrap();
    assert_eq!(written.status.unwrap().observed_generation, 1);
    let theirs =
        "update VirtnetDevice {own}/theirs, whose spec.dpu is bf3-z: it writes only devices of its own DPU";
    let theirs = format!("{begin}{}", theirs.replace("{own}", own));
    assert_eq!(refusal(mine.patch_status("theirs", &patch_params(), &status).await), theirs);

    let merge = |patch: Value| (PatchParams::default(), Patch::Merge(patch));
    let (params, finalizer) = merge(
        json!({"metadata": {"finalizers": ["virtnet.dev/function"], "labels": {mac_label("0c:c4:7a:ff:22:93"): ""}}}),
    );
    mine.patch("mine", &params, &finalizer).await.unwrap();
    assert_eq!(refusal(mine.patch("theirs", &params, &finalizer).await), theirs);
    for change in [
        json!({"spec": {"mtu": 9000}}),
        json!({"spec": {"dpu": "bf3-z"}}),
        json!({"metadata": {"labels": {"a": "b"}}}),
        json!({"metadata": {"annotations": {"a": "b"}}}),
        json!({"metadata": {"ownerReferences": [
            {"apiVersion": "v1", "kind": "Namespace", "name": "default", "uid": "no-such"},
        ]}}),
    ] {
        let (params, patch) = merge(change);
        assert_eq!(
            refusal(mine.patch("mine", &params, &patch).await),
            format!(
                "{begin}update VirtnetDevice {own}/mine in its spec, labels, annotations or owners: it writes only \
                 finalizers, status and labels that note MACs"
            )
        );
    }

    writes_only_its_own_dpu(agent, own).await;

    let leases: Api<Lease> = Api::namespaced(agent.clone(), LEASE_NAMESPACE);
    for _ in 0..2 {
        leases.patch(own, &patch_params(), &lease(own)).await.unwrap();
    }
    assert_eq!(
        refusal(leases.patch("bf3-z", &patch_params(), &lease("bf3-z")).await),
        format!("{begin}create Lease {LEASE_NAMESPACE}/bf3-z: it writes only the Lease named {own}")
    );

    let events: Api<Event> = Api::namespaced(agent.clone(), own);
    events.create(&create_params(), &event(own, own)).await.unwrap();
    assert_eq!(
        refusal(events.create(&create_params(), &event("forged", "bf3-z")).await),
        format!(
            "{begin}create Event {own}/forged: it writes only Events with reportingController virtnet-agent and \
             reportingInstance {own}"
        )
    );

    // Others are none of the policy's business.
    let (params, patch) = merge(json!({"spec": {"mtu": 9000}, "metadata": {"finalizers": []}}));
    devices.patch("mine", &params, &patch).await.unwrap();
}

async fn writes_only_its_own_dpu(agent: &Client, own: &str) {
    let begin = format!("the agent of DPU {own} may not ");
    let dpus: Api<Dpu> = Api::all(agent.clone());
    assert_eq!(
        refusal(dpus.create(&create_params(), &dpu("bf3-z")).await),
        format!("{begin}create Dpu bf3-z: it writes only the Dpu named {own}")
    );
    let full: Dpu = serde_json::from_value(json!({
        "metadata": {"name": own}, "spec": {"controller": {"recovery": true}},
    }))
    .unwrap();
    let mut labelled = dpu(own);
    labelled.labels_mut().insert("a".into(), "b".into());
    for object in [full, labelled] {
        assert_eq!(
            refusal(dpus.create(&create_params(), &object).await),
            format!(
                "{begin}create Dpu {own} with a spec or labels: it makes its Dpu empty, what is wanted of it is for \
                 people to say"
            )
        );
    }
    dpus.create(&create_params(), &dpu(own)).await.unwrap();
    let status = Patch::Apply(json!({
        "apiVersion": API_VERSION, "kind": "Dpu", "status": {"observedGeneration": 1},
    }));
    dpus.patch_status(own, &patch_params(), &status).await.unwrap();
    let patch = Patch::Merge(json!({"metadata": {"finalizers": ["virtnet.dev/bound"]}}));
    dpus.patch(own, &PatchParams::default(), &patch).await.unwrap();
    for change in [
        json!({"spec": {"controller": {}}}),
        json!({"metadata": {"labels": {"rack": "r1"}}}),
        json!({"metadata": {"labels": {mac_label("0c:c4:7a:ff:22:93"): ""}}}),
    ] {
        assert_eq!(
            refusal(dpus.patch(own, &PatchParams::default(), &Patch::Merge(change)).await),
            format!(
                "{begin}update Dpu {own} in its spec, labels, annotations or owners: it writes only finalizers, status and \
                 labels that note MACs"
            )
        );
    }
}

fn event(name: &str, reporter: &str) -> Event {
    serde_json::from_value(json!({
        "metadata": {"name": name},
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "reportingController": "virtnet-agent",
        "reportingInstance": reporter,
        "action": "Plugged",
        "reason": "Plugged",
        "type": "Normal",
        "regarding": {"apiVersion": API_VERSION, "kind": "VirtnetDevice", "name": "mine", "namespace": reporter},
    }))
    .unwrap()
}

/// A client by a token of the agents' account, bound to an object or to nothing.
async fn account_client(plane: &ControlPlane, bound: Option<BoundObjectReference>) -> Client {
    let accounts: Api<ServiceAccount> = Api::namespaced(plane.client().await.unwrap(), LEASE_NAMESPACE);
    let spec = TokenRequestSpec { bound_object_ref: bound, ..TokenRequestSpec::default() };
    let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
    let answer = accounts.create_token_request(ACCOUNT, &PostParams::default(), &request).await.unwrap();
    let text = std::fs::read_to_string(plane.kubeconfig()).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    config["users"][0]["user"] = json!({"token": answer.status.unwrap().token});
    let config: Kubeconfig = serde_json::from_value(config).unwrap();
    let config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

/// A client of the agent that runs as a pod on this node: the pod is the `DaemonSet`'s, though nothing runs it.
async fn pod_client(plane: &ControlPlane, kubectl: &Kubectl, node: &str) -> Client {
    let objects = manifests::objects(kubectl, "simulated").unwrap();
    let pod = manifests::pod(manifests::only(&objects, "DaemonSet").unwrap(), node, Some(node));
    let pods: Api<Pod> = Api::namespaced(plane.client().await.unwrap(), LEASE_NAMESPACE);
    let pod = pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
    let bound = BoundObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        name: Some(pod.name_any()),
        uid: pod.uid(),
    };
    account_client(plane, Some(bound)).await
}

async fn certificate_client(plane: &ControlPlane, user: &str) -> Client {
    client_of(&plane.kubeconfig_of(user, GROUP).unwrap()).await.unwrap()
}

#[tokio::test]
async fn an_agent_with_a_certificate_writes_only_what_is_its_own() {
    let plane = ControlPlane::shared().await.unwrap();
    manifests::install(&plane).await.unwrap();
    let agent = certificate_client(&plane, "virtnet:agent:bf3-a").await;
    writes_only_its_own(&plane.client().await.unwrap(), &agent, "bf3-a").await;
}

#[tokio::test]
async fn an_agent_in_a_pod_writes_only_what_is_its_nodes() {
    let plane = ControlPlane::shared().await.unwrap();
    let kubectl = manifests::install(&plane).await.unwrap();
    let agent = pod_client(&plane, &kubectl, "node-a").await;
    writes_only_its_own(&plane.client().await.unwrap(), &agent, "node-a").await;
}

#[tokio::test]
async fn an_agent_of_no_dpu_writes_nothing() {
    let plane = ControlPlane::shared().await.unwrap();
    manifests::install(&plane).await.unwrap();
    let account = format!("system:serviceaccount:{LEASE_NAMESPACE}:{ACCOUNT}");
    let clients = [
        (account.as_str(), account_client(&plane, None).await),
        ("virtnet:agent:", certificate_client(&plane, "virtnet:agent:").await),
        ("bf3-b", certificate_client(&plane, "bf3-b").await),
    ];
    for (user, agent) in clients {
        until_in_force(&agent).await;
        let leases: Api<Lease> = Api::namespaced(agent.clone(), LEASE_NAMESPACE);
        let told = [
            refusal(leases.patch("bf3-b", &patch_params(), &lease("bf3-b")).await),
            refusal(Api::<Dpu>::all(agent).create(&create_params(), &dpu("bf3-b")).await),
        ];
        for told in told {
            assert_eq!(
                told,
                format!(
                    "{user} is the agent of no DPU, so it may write nothing: the user of a client certificate is to be \
                     virtnet:agent:NAME-OF-DPU, and the token of a pod is to be bound to that pod, on the node that is \
                     the DPU"
                )
            );
        }
    }
}

#[tokio::test]
async fn an_agent_makes_and_deletes_no_device_even_with_the_rights_to() {
    let plane = ControlPlane::shared().await.unwrap();
    let kubectl = manifests::install(&plane).await.unwrap();
    let user = "--user=virtnet:agent:bf3-c";
    let bind = ["create", "clusterrolebinding", "too-mighty", "--clusterrole=cluster-admin", user];
    kubectl.run(&bind).unwrap().ok().unwrap();
    may(&kubectl, &["--as=virtnet:agent:bf3-c"], &["delete virtnetdevices -A"], &[]).await;
    make_devices(&plane.client().await.unwrap(), "bf3-c").await;
    let agent = certificate_client(&plane, "virtnet:agent:bf3-c").await;
    until_in_force(&agent).await;
    let devices: Api<VirtnetDevice> = Api::namespaced(agent, "bf3-c");
    let mut device = devices.get("mine").await.unwrap();
    device.metadata = kube::api::ObjectMeta { name: Some("more".into()), ..kube::api::ObjectMeta::default() };
    let words = |verb: &str, name: &str| {
        format!("the agent of DPU bf3-c may not {verb} VirtnetDevice bf3-c/{name}: it only updates devices")
    };
    assert_eq!(refusal(devices.create(&create_params(), &device).await), words("create", "more"));
    assert_eq!(
        refusal(devices.delete("mine", &DeleteParams::default()).await.map(drop)),
        words("delete", "mine")
    );
}

/// The agent itself does all its work with this client: a device becomes Ready, follows its spec, and goes.
async fn lives_by_its_rights(admin: Client, agent: Client, dpu: &str) {
    until_in_force(&agent).await;
    let sim = Sim::new(SimConfig::default());
    let config = Config { dpu: dpu.into(), lease_namespace: LEASE_NAMESPACE.into() };
    let agent = virtnet_agent::run(config, agent, Parts::from(&sim), Clock::system(), Metrics::default());
    tokio::select! {
        () = agent => panic!("the agent ended"),
        () = use_it(admin, dpu) => {}
    }
}

async fn use_it(admin: Client, dpu: &str) {
    let devices = make_devices(&admin, dpu).await;
    let is_ready = |device: Option<&VirtnetDevice>| device.is_some_and(|device| reason(device).is_none());
    timeout(LIMIT, await_condition(devices.clone(), "mine", is_ready)).await.unwrap().unwrap();
    // Not Ready for a while, so that the Event of Ready is said twice.
    let mtu = async |mtu: u16| {
        let patch = Patch::Merge(json!({"spec": {"mtu": mtu}}));
        devices.patch("mine", &PatchParams::default(), &patch).await.unwrap();
    };
    let waits = |device: Option<&VirtnetDevice>| {
        device.and_then(reason).is_some_and(|(reason, _)| reason == "RebindPending")
    };
    mtu(9000).await;
    timeout(LIMIT, await_condition(devices.clone(), "mine", waits)).await.unwrap().unwrap();
    mtu(1500).await;
    timeout(LIMIT, await_condition(devices.clone(), "mine", is_ready)).await.unwrap().unwrap();

    let is_told = |dpu: Option<&Dpu>| {
        let finalizers = dpu.map(|dpu| dpu.finalizers().to_vec()).unwrap_or_default();
        dpu.is_some_and(|dpu| dpu.status.is_some()) && finalizers == ["virtnet.dev/bound"]
    };
    timeout(LIMIT, await_condition(Api::<Dpu>::all(admin.clone()), dpu, is_told)).await.unwrap().unwrap();
    let leases: Api<Lease> = Api::namespaced(admin.clone(), LEASE_NAMESPACE);
    assert!(leases.get(dpu).await.unwrap().spec.unwrap().renew_time.is_some());
    let events: Api<Event> = Api::namespaced(admin.clone(), dpu);
    until("an Event said again, which is a patch", async || {
        let events = events.list(&ListParams::default()).await.unwrap();
        events
            .items
            .iter()
            .any(|event| event.reporting_instance.as_deref() == Some(dpu) && event.series.is_some())
    })
    .await;

    let mine = devices.get("mine").await.unwrap().uid().unwrap();
    devices.delete("mine", &DeleteParams::default()).await.unwrap();
    let gone = await_condition(devices.clone(), "mine", conditions::is_deleted(&mine));
    timeout(LIMIT, gone).await.unwrap().unwrap();
    let own: Api<Dpu> = Api::all(admin);
    let uid = own.get(dpu).await.unwrap().uid().unwrap();
    own.delete(dpu, &DeleteParams::default()).await.unwrap();
    timeout(LIMIT, await_condition(own, dpu, conditions::is_deleted(&uid))).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_agent_with_a_certificate_needs_no_other_rights() {
    let plane = ControlPlane::shared().await.unwrap();
    manifests::install(&plane).await.unwrap();
    let agent = certificate_client(&plane, "virtnet:agent:bf3-d").await;
    lives_by_its_rights(plane.client().await.unwrap(), agent, "bf3-d").await;
}

#[tokio::test]
async fn an_agent_in_a_pod_needs_no_other_rights() {
    let plane = ControlPlane::shared().await.unwrap();
    let kubectl = manifests::install(&plane).await.unwrap();
    let agent = pod_client(&plane, &kubectl, "node-d").await;
    lives_by_its_rights(plane.client().await.unwrap(), agent, "node-d").await;
}
