//! A connection against a server that does what a test has it do.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, Lines, ReadHalf, WriteHalf};
use tokio::net::UnixListener;
use virtnet_qmp::{ConnectError, Events, LINE_MAX, Qmp, QmpError};

const GREETING: &str =
    r#"{"QMP": {"version": {"qemu": {"micro": 3, "minor": 1, "major": 11}}, "capabilities": []}}"#;

/// The other side.
struct Server {
    lines: Lines<BufReader<ReadHalf<DuplexStream>>>,
    output: WriteHalf<DuplexStream>,
}

impl Server {
    async fn take(&mut self) -> Value {
        let line = self.lines.next_line().await.expect("a pipe").expect("the client has gone");
        serde_json::from_str(&line).expect("a line of JSON")
    }

    async fn send(&mut self, line: &str) {
        // As QEMU ends its lines.
        self.output.write_all(format!("{line}\r\n").as_bytes()).await.expect("the client has gone");
    }
}

/// A connection that is greeted, on the far side of a pipe that holds so many bytes.
async fn connected(pipe: usize) -> (Qmp, Events, Server) {
    let (ours, theirs) = tokio::io::duplex(pipe);
    let (reader, output) = tokio::io::split(theirs);
    let mut server = Server { lines: BufReader::new(reader).lines(), output };
    let serve = async {
        server.send(GREETING).await;
        let command = server.take().await;
        assert_eq!(command["execute"], "qmp_capabilities");
        server.send(&json!({"return": {}, "id": command["id"]}).to_string()).await;
        server
    };
    let (client, server) = tokio::join!(Qmp::greeted(ours), serve);
    let (qmp, events) = client.expect("a greeting");
    (qmp, events, server)
}

fn lost(error: &QmpError) -> &str {
    match error {
        QmpError::Lost { why, .. } => why,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn answers_find_their_questions_whatever_comes_between() {
    let (qmp, mut events, mut server) = connected(4096).await;
    assert_eq!(qmp.version(), "11.1.3");
    let serve = async {
        let (first, second) = (server.take().await, server.take().await);
        server.send(r#"{"event": "RESUME", "timestamp": {"seconds": 1, "microseconds": 0}}"#).await;
        let refused = json!({"class": "DeviceNotFound", "desc": "Device 'x' not found"});
        server.send(&json!({"error": refused, "id": second["id"]}).to_string()).await;
        server.send(&json!({"return": [1], "id": first["id"]}).to_string()).await;
        assert_eq!(second["arguments"], json!({"id": "x"}));
    };
    let arguments = json!({"id": "x"});
    let (one, two, ()) =
        tokio::join!(qmp.execute("one", json!({})), qmp.execute("device_del", arguments), serve);
    assert_eq!(one.unwrap(), json!([1]));
    let error = two.unwrap_err();
    assert_eq!(error.to_string(), "QEMU refused device_del");
    assert!(error.refused().unwrap().is_not_found());
    assert_eq!(events.next().await.unwrap().name, "RESUME");
}

#[tokio::test]
async fn what_is_no_answer_costs_the_connection_and_those_who_wait_are_told() {
    for (line, why) in [
        ("]", "none of QMP: it is not JSON"),
        (r#"{"return": {}, "id": 99}"#, "answered a command 99 that nobody gave"),
        (GREETING, "greeted a second time"),
        (r#"{"error": {"class": "GenericError", "desc": "JSON parse error"}}"#, "JSON parse error"),
        ("\u{0}", "not JSON"),
    ] {
        let (qmp, mut events, mut server) = connected(4096).await;
        let serve = async {
            server.take().await;
            server.send(line).await;
        };
        let (answer, ()) = tokio::join!(qmp.execute("query-pci", json!({})), serve);
        let error = answer.unwrap_err();
        assert!(lost(&error).contains(why), "{line}: {error}");
        assert_eq!(events.next().await, None);
        assert!(events.ended().unwrap().contains(why));
        let later = qmp.execute("query-pci", json!({})).await.unwrap_err();
        assert!(lost(&later).contains(why), "{later}");
    }
}

#[tokio::test]
async fn bytes_that_are_no_text_cost_the_connection() {
    let (qmp, mut events, mut server) = connected(4096).await;
    server.output.write_all(b"\xff\xfe{}\n").await.unwrap();
    assert_eq!(events.next().await, None);
    assert!(qmp.execute("query-pci", json!({})).await.is_err());
}

#[tokio::test]
async fn a_line_without_end_is_not_kept() {
    let (qmp, mut events, mut server) = connected(1 << 16).await;
    let serve = async {
        let piece = vec![b'x'; 1 << 16];
        let mut sent = 0;
        // Until nobody takes any more.
        while server.output.write_all(&piece).await.is_ok() {
            sent += piece.len();
        }
        sent
    };
    let (sent, none) = tokio::join!(serve, events.next());
    assert_eq!(none, None);
    assert!(sent <= LINE_MAX + (1 << 20), "{sent} bytes were taken");
    assert!(lost(&qmp.execute("stop", json!({})).await.unwrap_err()).contains("more than"));
}

#[tokio::test]
async fn events_that_nobody_takes_end_the_connection() {
    let (qmp, mut events, mut server) = connected(1 << 16).await;
    for _ in 0..2000 {
        if server.output.write_all(b"{\"event\": \"RTC_CHANGE\"}\n").await.is_err() {
            break;
        }
    }
    let mut kept = 0;
    while events.next().await.is_some() {
        kept += 1;
    }
    assert!((1..2000).contains(&kept), "{kept} events were kept");
    let why = qmp.execute("stop", json!({})).await.unwrap_err();
    assert!(lost(&why).contains("wait for somebody"), "{why}");
}

#[tokio::test]
async fn a_server_that_reads_nothing_until_it_is_heard_is_heard() {
    let (qmp, mut events, mut server) = connected(64).await;
    let serve = async {
        let long = "x".repeat(10_000);
        server.send(&json!({"event": "LONG", "data": {"x": long}}).to_string()).await;
        let command = server.take().await;
        server.send(&json!({"return": {}, "id": command["id"]}).to_string()).await;
    };
    let arguments = json!({"y": "y".repeat(10_000)});
    let (answer, ()) = tokio::join!(qmp.execute("long", arguments), serve);
    answer.unwrap();
    assert_eq!(events.next().await.unwrap().name, "LONG");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_does_not_come_is_given_up_and_may_come_yet() {
    let (qmp, _events, mut server) = connected(4096).await;
    let error = qmp.execute("netdev_add", json!({})).await.unwrap_err();
    assert!(error.to_string().contains("did not answer netdev_add within 60 s"), "{error}");
    let late = server.take().await;
    let serve = async {
        server.send(&json!({"return": {}, "id": late["id"]}).to_string()).await;
        let next = server.take().await;
        server.send(&json!({"return": 2, "id": next["id"]}).to_string()).await;
    };
    let (answer, ()) = tokio::join!(qmp.execute("query-status", json!({})), serve);
    assert_eq!(answer.unwrap(), json!(2));
}

#[tokio::test]
async fn the_connection_ends_with_whoever_has_it() {
    let (qmp, events, mut server) = connected(4096).await;
    drop(events);
    assert!(server.lines.next_line().await.unwrap().is_none());
    let error = qmp.execute("stop", json!({})).await.unwrap_err();
    assert!(lost(&error).contains("not needed"), "{error}");

    let (qmp, mut events, mut server) = connected(4096).await;
    drop(qmp);
    assert!(server.lines.next_line().await.unwrap().is_none());
    assert_eq!(events.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_socket_without_qemu_says_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("qmp");
    let absent = Qmp::connect(&path).await.unwrap_err();
    assert!(absent.is_absent(), "{absent}");
    let listener = UnixListener::bind(&path).unwrap();
    let busy = Qmp::connect(&path).await.unwrap_err();
    assert!(matches!(busy, ConnectError::NoGreeting(_)) && !busy.is_absent(), "{busy}");
    drop(listener);
    assert!(Qmp::connect(&path).await.unwrap_err().is_absent(), "nobody listens any more");
}

#[tokio::test]
async fn another_server_is_no_qemu() {
    for hello in ["SSH-2.0-OpenSSH_9.2\r\n", "{\"return\": {}, \"id\": 1}\n", ""] {
        let (ours, mut theirs) = tokio::io::duplex(4096);
        theirs.write_all(hello.as_bytes()).await.unwrap();
        drop(theirs);
        let greeted = tokio::time::timeout(Duration::from_secs(10), Qmp::greeted(ours)).await.unwrap();
        assert!(lost(&greeted.unwrap_err()).len() > 5, "{hello}");
    }
}
