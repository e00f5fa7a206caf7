//! The agent's token is no longer valid, and a while later there is a new one.

use std::path::Path;
use std::time::Duration;

use http::StatusCode;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use kube::api::{Api, DeleteParams, PostParams};
use kube::config::Kubeconfig;
use kube::{Client, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use virtnet_tests::control_plane::ControlPlane;
use virtnet_tests::faulty_way::Passed;

use crate::rig::{Rig, make_namespace};

const NAME: &str = "token";
/// Far longer than the API server remembers that a token was good.
const LIMIT: Duration = Duration::from_secs(60);
/// How many requests an agent with nothing to do makes in a minute at most while all of them are refused: those for its
/// Lease and its two watches.
const REFUSED_A_MINUTE: usize = 30;

fn object<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

/// A pod of the agent's account; a node that is not there never ends it.
async fn make_pod(user: &Client, name: &str) -> Pod {
    let pods: Api<Pod> = Api::namespaced(user.clone(), NAME);
    let pod = object(json!({
        "metadata": {"name": name},
        "spec": {
            "serviceAccountName": NAME, "automountServiceAccountToken": false, "nodeName": "none",
            "containers": [{"name": "agent", "image": "agent"}],
        },
    }));
    pods.create(&PostParams::default(), &pod).await.unwrap()
}

/// A token that is good for as long as the pod is there.
async fn token_of(user: &Client, pod: &Pod) -> String {
    let accounts: Api<ServiceAccount> = Api::namespaced(user.clone(), NAME);
    let request: TokenRequest = object(json!({
        "metadata": {},
        "spec": {
            "audiences": [],
            "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": pod.name_any(), "uid": pod.uid()},
        },
    }));
    let answer = accounts.create_token_request(NAME, &PostParams::default(), &request).await.unwrap();
    answer.status.unwrap().token.unwrap()
}

/// Puts a token into the file as a kubelet does: whoever reads sees the old one or the new one.
fn put(token: &str, path: &Path) {
    let new = path.with_extension("new");
    std::fs::write(&new, token).unwrap();
    std::fs::rename(new, path).unwrap();
}

#[tokio::test]
async fn an_agent_goes_on_with_its_new_token_once_it_is_there() {
    let plane = ControlPlane::shared().await.unwrap();
    let user = plane.client().await.unwrap();
    make_namespace(&user, NAME).await;
    let accounts: Api<ServiceAccount> = Api::namespaced(user.clone(), NAME);
    let account = object(json!({"metadata": {"name": NAME}}));
    accounts.create(&PostParams::default(), &account).await.unwrap();
    let binding = object::<ClusterRoleBinding>(json!({
        "metadata": {"name": NAME},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": NAME}],
    }));
    Api::all(user.clone()).create(&PostParams::default(), &binding).await.unwrap();

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    let pod = make_pod(&user, "first").await;
    put(&token_of(&user, &pod).await, &path);
    let mut kubeconfig = Kubeconfig::read_from(plane.kubeconfig()).unwrap();
    kubeconfig.auth_infos[0].auth_info = Some(object(json!({"tokenFile": path.display().to_string()})));
    let mut rig = Rig::start_as(&plane, NAME, kubeconfig).await;
    rig.declare_all().await;
    rig.until_settled().await;
    rig.until_silent().await;

    let pods: Api<Pod> = Api::namespaced(user.clone(), NAME);
    pods.delete("first", &DeleteParams::default().grace_period(0)).await.unwrap();
    let end = Instant::now() + LIMIT;
    let until = async |count: usize, what: &str, is_meant: fn(&Passed) -> bool| {
        while refused(&rig).into_iter().filter(is_meant).count() < count {
            assert!(Instant::now() < end, "{count} {what} were not refused within {} s", LIMIT.as_secs());
            sleep(Duration::from_millis(100)).await;
        }
    };
    until(1, "renewals of the Lease", |passed| passed.is_of("leases")).await;
    let before = rig.counters();
    // A watch that runs is not asked for its token.
    rig.way.cut_watches();
    until(3, "watches of devices", |passed| passed.is_of("virtnetdevices")).await;
    assert_eq!(rig.counters(), before, "the DPU was touched");

    rig.tag(0, 7).await;
    rig.delete(1).await;
    let pod = make_pod(&user, "second").await;
    put(&token_of(&user, &pod).await, &path);
    rig.check().await;
    let refused = refused(&rig);
    let lasted = refused.last().unwrap().at - refused[0].at;
    let most = REFUSED_A_MINUTE * (1 + usize::try_from(lasted.as_secs()).unwrap() / 60);
    assert!(refused.len() <= most, "{} requests were refused in {lasted:?}", refused.len());
}

/// What the API server refused for its token.
fn refused(rig: &Rig) -> Vec<Passed> {
    let mut passed = rig.way.passed();
    passed.retain(|passed| passed.status == StatusCode::UNAUTHORIZED);
    passed
}
