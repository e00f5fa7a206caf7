//! The agent's writes are put off, refused, or answered late.

use std::time::Duration;

use http::{Method, StatusCode};
use virtnet_tests::control_plane::ControlPlane;
use virtnet_tests::faulty_way::Fault;

use crate::rig::Rig;

/// How often each fault befalls the batch.
const TIMES: usize = 12;

#[tokio::test]
async fn a_batch_becomes_ready_though_its_writes_are_put_off_refused_and_slow() {
    let plane = ControlPlane::shared().await.unwrap();
    let mut rig = Rig::start(&plane, "answers").await;
    for fault in [
        Fault::Answer(StatusCode::TOO_MANY_REQUESTS),
        Fault::Late(Duration::from_secs(3)),
        Fault::Answer(StatusCode::SERVICE_UNAVAILABLE),
        Fault::Answer(StatusCode::CONFLICT),
    ] {
        rig.way.befall(fault, TIMES, is_registration);
        rig.way.befall(fault, TIMES, is_status);
    }
    rig.declare_all().await;
    rig.until_settled().await;
    rig.tag(0, 7).await;
    rig.delete(1).await;
    rig.declare_what_is_left().await;
    rig.check().await;
    assert_eq!(rig.way.left(), 0, "not all faults befell");
}

fn is_status(method: &Method, target: &str) -> bool {
    method == Method::PATCH && target.contains("virtnetdevices") && target.contains("/status?")
}

fn is_registration(method: &Method, target: &str) -> bool {
    method == Method::PATCH && target.contains("virtnetdevices") && !target.contains("/status?")
}
