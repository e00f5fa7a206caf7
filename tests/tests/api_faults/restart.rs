//! The API server is killed and started again.

use http::StatusCode;
use serde_json::json;
use virtnet_tests::control_plane::ControlPlane;

use crate::rig::Rig;

#[tokio::test]
async fn what_is_declared_around_the_death_of_the_api_server_is_made_and_nothing_else() {
    let mut plane = ControlPlane::start().await.unwrap();
    let mut rig = Rig::start(&plane, "restart").await;
    rig.declare_all().await;
    rig.until_settled().await;

    rig.tag(0, 7).await;
    plane.kill_apiserver().unwrap();
    plane.start_apiserver().await.unwrap();
    rig.declare_what_is_left().await;
    rig.tag(1, 8).await;
    rig.delete(2).await;
    rig.until_settled().await;

    // The agent hears of none of this, and the API server that it comes back to knows no more of what was before.
    rig.way.cut_off();
    rig.tag(0, 9).await;
    plane.kill_apiserver().unwrap();
    plane.start_apiserver().await.unwrap();
    rig.tag(3, 10).await;
    rig.delete(1).await;
    rig.declare("hot-again", json!({"hotplug": {}})).await;
    let before = rig.way.passed().len();
    rig.way.heal();
    rig.check().await;
    let told_too_old = rig
        .way
        .passed()
        .into_iter()
        .skip(before)
        .any(|passed| passed.status == StatusCode::GONE && passed.is_of("virtnetdevices"));
    assert!(told_too_old, "the watch of devices was to be met with 410");
}
