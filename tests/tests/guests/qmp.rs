//! The client of QMP against a QEMU without a machine.

use serde_json::json;
use tokio::net::UnixListener;
use virtnet_local_switch::Programs;
use virtnet_qmp::{ConnectError, Qmp};
use virtnet_tests::guest::qemu;

#[tokio::test]
async fn a_real_qemu_is_asked_and_tells() {
    let folder = tempfile::tempdir().unwrap();
    let mut programs = Programs::new(folder.path());
    // One monitor to which QEMU connects, by which it is known that it runs, and one to which it is connected.
    let told = UnixListener::bind(folder.path().join("told")).unwrap();
    let mut command = qemu().unwrap();
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-machine", "none"]);
    command.args(["-qmp", &format!("unix:{},server=on,wait=off", folder.path().join("qmp").display())]);
    command.args(["-qmp", &format!("unix:{},server=off", folder.path().join("told").display())]);
    programs.start("qemu", &command).unwrap();
    let (stream, _) = told.accept().await.unwrap();
    let (other, mut events) = Qmp::greeted(stream).await.unwrap();

    let path = folder.path().join("qmp");
    let (qmp, _events) = Qmp::connect(&path).await.unwrap();
    let mut numbers = qmp.version().split('.').map(|number| number.parse::<u32>().unwrap());
    let version = (numbers.next().unwrap(), numbers.next().unwrap());
    assert!(version >= (11, 1), "{}: VFs of virtio-net come with 11.1", qmp.version());
    assert_eq!(qmp.execute("query-status", json!({})).await.unwrap()["status"], "running");
    let schema = qmp.execute("query-qmp-schema", json!({})).await.unwrap();
    assert!(schema.as_array().unwrap().len() > 500, "the longest answer of all");

    let unknown = qmp.execute("query-nothing", json!({})).await.unwrap_err();
    assert_eq!(unknown.refused().unwrap().class, "CommandNotFound");
    let absent = qmp.execute("device_del", json!({"id": "x"})).await.unwrap_err();
    assert!(absent.refused().unwrap().is_not_found(), "{absent}");

    // It serves one client at a time.
    let second = Qmp::connect(&path).await.unwrap_err();
    assert!(matches!(second, ConnectError::NoGreeting(_)), "{second}");

    other.execute("quit", json!({})).await.unwrap();
    let event = events.next().await.unwrap();
    assert_eq!((event.name.as_str(), event.text("reason")), ("SHUTDOWN", Some("host-qmp-quit")));
    assert_eq!(events.next().await, None);
    assert!(Qmp::connect(&path).await.unwrap_err().is_absent());
}
