//! Watches are cut, and told that their version is too old, while the user edits.

use http::Method;
use virtnet_tests::control_plane::ControlPlane;

use crate::rig::Rig;

#[tokio::test]
async fn edits_are_heard_of_however_often_watches_are_cut() {
    let plane = ControlPlane::shared().await.unwrap();
    let mut rig = Rig::start(&plane, "watches").await;
    rig.declare_all().await;
    rig.way.cut_watches();
    rig.until_settled().await;
    let before = rig.way.passed().len();
    for round in 0..10 {
        rig.tag(round, 100).await;
        rig.way.cut_watches();
    }
    rig.until_settled().await;
    let watches = rig.way.passed().into_iter().skip(before);
    assert!(watches.filter(|passed| is_watch(&passed.method, &passed.target)).count() >= 10);

    for round in 0..3 {
        rig.tag(round, 200).await;
        rig.way.expire_watches();
    }
    rig.delete(9).await;
    rig.check().await;
}

fn is_watch(method: &Method, target: &str) -> bool {
    method == Method::GET && target.contains("watch=true")
}
