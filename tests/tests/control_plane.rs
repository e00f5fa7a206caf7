//! The real control plane itself: it serves, it controls, it knows its users, and it leaves nothing behind.

use virtnet_tests::control_plane::ControlPlane;

#[tokio::test]
async fn it_serves_and_ends() {
    let plane = ControlPlane::start().await.unwrap();
    let version = plane.client().await.unwrap().apiserver_version().await.unwrap();
    assert_eq!(version.major, "1", "{version:?}");
    let folder = plane.kubeconfig().parent().unwrap().to_owned();
    assert!(folder.exists());
    drop(plane);
    assert!(!folder.exists());
}
