//! Watches are cut, and told that their version is too old, while the user edits.

use http::{Method, StatusCode};
use virtnet_tests::control_plane::ControlPlane;
use virtnet_tests::faulty_way::Fault;

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

#[tokio::test]
async fn a_watch_that_is_refused_for_its_version_begins_anew() {
    let plane = ControlPlane::shared().await.unwrap();
    let mut rig = Rig::start(&plane, "refused").await;
    rig.declare_all().await;
    rig.until_settled().await;
    rig.way.befall(Fault::Answer(StatusCode::GONE), usize::MAX, |method, target| {
        is_watch(method, target)
            && !target.contains("sendInitialEvents=true")
            && target.contains("virtnetdevices")
    });
    rig.way.cut_watches();
    rig.tag(0, 7).await;
    rig.until_settled().await;
    rig.way.heal();
    rig.check().await;
}

fn is_watch(method: &Method, target: &str) -> bool {
    method == Method::GET && target.contains("watch=true")
}
