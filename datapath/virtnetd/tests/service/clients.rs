//! Clients of all kinds: those that wait for changes, that send nonsense, that never read, that go away.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::timeout;
use virtnet_model::{Controller, ErrorKind};
use virtnet_rpc::Client;
use virtnet_sim::{Effect, Sim, SimConfig, When};

use crate::common::{LIMIT, Service, kill, request};

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_told_and_the_end_of_a_worker_is_one() {
    let service = Service::start(&[]).await;
    let mut events = service.client.events();
    // All that is of the beginning has been told, and nothing is told at rest.
    let rests = async { while timeout(Duration::from_secs(2), events.next()).await.is_ok() {} };
    timeout(LIMIT, rests).await.unwrap();
    service.client.hotplug(&request(1)).await.unwrap();
    timeout(LIMIT, events.next()).await.unwrap().unwrap();
    let rests = async { while timeout(Duration::from_secs(2), events.next()).await.is_ok() {} };
    timeout(LIMIT, rests).await.unwrap();
    let worker = service.worker().borrow().unwrap();
    kill(worker);
    service.worker_after(Some(worker)).await;
    timeout(LIMIT, events.next()).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_costs_the_connection_that_it_came_on_and_no_other() {
    let service = Service::start(&[]).await;
    for nonsense in ["nonsense\n", "{}\n", "[1, 2]\n", "{\"jsonrpc\": \"2.0\", \"id\": 1}x\n", "\u{0}\u{1}\n"]
    {
        let mut stream = UnixStream::connect(service.socket()).await.unwrap();
        stream.write_all(nonsense.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        timeout(LIMIT, stream.read_to_end(&mut rest)).await.unwrap().unwrap();
        assert!(rest.is_empty(), "{nonsense:?}: {rest:?}");
    }
    // A line without an end is not kept for ever.
    let mut stream = UnixStream::connect(service.socket()).await.unwrap();
    let part = vec![b'x'; 1 << 20];
    let refused = async { while stream.write_all(&part).await.is_ok() {} };
    timeout(LIMIT, refused).await.unwrap();
    service.state().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_asks_and_never_reads_is_read_from_no_more() {
    let service = Service::start(&[]).await;
    let mut stream = UnixStream::connect(service.socket()).await.unwrap();
    let line = "{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"observe\"}\n".repeat(1000);
    let mut written = 0;
    while let Ok(result) = timeout(Duration::from_secs(1), stream.write_all(line.as_bytes())).await {
        result.unwrap();
        written += line.len();
        assert!(written < 1 << 26, "it is read without an end");
    }
    // Others are served as ever, and its own answers are there for when it reads.
    service.client.hotplug(&request(1)).await.unwrap();
    let mut lines = BufReader::new(stream).lines();
    for _ in 0..1000 {
        let line = timeout(LIMIT, lines.next_line()).await.unwrap().unwrap().unwrap();
        assert!(line.starts_with("{\"jsonrpc\":\"2.0\",\"id\":7,\"result\":{"), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_goes_on_when_who_asked_has_gone() {
    let mut config = SimConfig::default();
    config.timing.latency.insert(Effect::DevicePlug, Duration::from_millis(500));
    let service = Service::over(Sim::device_only(config, None), "{}", None).await;
    let (begun, mut has_begun) = watch::channel(false);
    service.sim.set_hook(Some(Arc::new(move |effect, when| {
        if (effect, when) == (Effect::DevicePlug, When::Before) {
            begun.send_replace(true);
        }
    })));
    let mut stream = UnixStream::connect(service.socket()).await.unwrap();
    let params = serde_json::to_string(&request(5)).unwrap();
    let line = format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"hotplug\",\"params\":{params}}}\n");
    stream.write_all(line.as_bytes()).await.unwrap();
    timeout(LIMIT, has_begun.wait_for(|begun| *begun)).await.unwrap().unwrap();
    drop(stream);
    assert!(service.state().await.functions.values().all(|one| one.mac != request(5).mac), "it is under way");
    service.until("a function", |state| state.functions.values().any(|one| one.mac == request(5).mac)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_no_more_is_answered_all_the_same() {
    let service = Service::start(&[]).await;
    for round in 0..50 {
        let mut stream = UnixStream::connect(service.socket()).await.unwrap();
        let line = format!("{{\"jsonrpc\":\"2.0\",\"id\":{round},\"method\":\"observe\"}}\n");
        stream.write_all(line.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answers = String::new();
        timeout(LIMIT, stream.read_to_string(&mut answers)).await.unwrap().unwrap();
        let answers: Vec<serde_json::Value> =
            answers.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(answers.len(), 1, "round {round}");
        assert_eq!(answers[0]["id"], round);
        assert!(answers[0]["result"].is_object(), "{}", answers[0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_connects_when_there_is_a_service() {
    let folder = tempfile::tempdir().unwrap();
    let client = Client::connect(&folder.path().join("nobody.sock"));
    let error = client.observe().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(error.message.contains("nobody.sock: No such file"), "{error}");
    let service = Service::start(&[]).await;
    std::fs::rename(service.socket(), folder.path().join("nobody.sock")).unwrap();
    let mut events = client.events();
    while client.observe().await.is_err() {
        timeout(LIMIT, events.next()).await.unwrap().unwrap();
    }
}
