//! Lists, pages and watches as the API's contract has them.

use std::sync::Arc;

use crate::support::{DEVICES, JSON, MERGE, config, create, get, open, send, send_bytes};
use futures::StreamExt;
use http_body_util::{BodyExt, BodyStream};
use serde_json::{Value, json};
use virtnet_embedded_api::{Api, Config, MemoryDisk};

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|one| one["metadata"]["name"].as_str().unwrap()).collect()
}

fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

async fn short_history() -> Api {
    let config = Config { history: 3, ..config(Arc::new(MemoryDisk::default())) };
    Api::open(config).await.unwrap()
}

/// The first events of a watch, which must come without waiting for time to pass.
async fn watch(api: &Api, query: &str, count: usize) -> Vec<(String, Value)> {
    let response =
        send_bytes(api, "GET", &format!("{DEVICES}?watch=1&{query}"), JSON, bytes::Bytes::new()).await;
    assert_eq!(response.status(), 200);
    let frames = BodyStream::new(response.into_body()).take(count);
    let events =
        frames.map(|frame| serde_json::from_slice::<Value>(&frame.unwrap().into_data().unwrap()).unwrap());
    let events: Vec<Value> = events.collect().await;
    events
        .into_iter()
        .map(|event| (event["type"].as_str().unwrap().to_owned(), event["object"].clone()))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn pages_are_of_one_state() {
    let api = open().await;
    for name in ["a", "b", "c", "d", "e"] {
        create(&api, name).await;
    }
    let (_, first) = get(&api, &format!("{DEVICES}?limit=2")).await;
    assert_eq!((names(&first), &first["metadata"]["remainingItemCount"]), (vec!["a", "b"], &json!(3)));
    send(&api, "DELETE", &format!("{DEVICES}/c"), JSON, &Value::Null).await;
    create(&api, "bb").await;
    send(&api, "PATCH", &format!("{DEVICES}/d"), MERGE, &json!({"spec": {"mtu": 9000}})).await;

    let token = first["metadata"]["continue"].as_str().unwrap();
    let (_, second) = get(&api, &format!("{DEVICES}?limit=2&continue={token}")).await;
    assert_eq!(names(&second), ["c", "d"]);
    assert_eq!(second["items"][1]["spec"]["mtu"], json!(1500));
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    let token = second["metadata"]["continue"].as_str().unwrap();
    let (_, third) = get(&api, &format!("{DEVICES}?limit=2&continue={token}")).await;
    assert_eq!((names(&third), &third["metadata"]["continue"]), (vec!["e"], &json!("")));

    let exact = format!("{DEVICES}?resourceVersion={}&resourceVersionMatch=Exact", version(&first));
    assert_eq!(names(&get(&api, &exact).await.1), ["a", "b", "c", "d", "e"]);
    assert_eq!(names(&get(&api, DEVICES).await.1), ["a", "b", "bb", "d", "e"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_longer_remembered_is_gone_with_410() {
    let api = short_history().await;
    for name in ["a", "b", "c"] {
        create(&api, name).await;
    }
    let (_, page) = get(&api, &format!("{DEVICES}?limit=1")).await;
    for name in ["d", "e", "f", "g"] {
        create(&api, name).await;
    }
    let token = page["metadata"]["continue"].as_str().unwrap();
    let (code, gone) = get(&api, &format!("{DEVICES}?limit=1&continue={token}")).await;
    assert_eq!((code, &gone["reason"]), (410, &json!("Expired")));
    let events = watch(&api, &format!("resourceVersion={}", version(&page)), 2).await;
    assert_eq!(events.len(), 1, "the watch goes on after its end");
    assert_eq!((events[0].0.as_str(), &events[0].1["code"]), ("ERROR", &json!(410)));
    assert_eq!(events[0].1["reason"], json!("Expired"));
    // Another collection's changes don't count: this one's history is still whole.
    let namespaces = "/api/v1/namespaces";
    let (_, list) = get(&api, namespaces).await;
    for index in 0..5 {
        create(&api, &format!("x-{index}")).await;
    }
    let path = format!("{namespaces}?resourceVersion={}&resourceVersionMatch=Exact", version(&list));
    assert_eq!(get(&api, &path).await.0, 200);
}

#[tokio::test(start_paused = true)]
async fn a_watch_continues_after_the_version_it_names() {
    let api = open().await;
    let first = create(&api, "a").await;
    create(&api, "b").await;
    send(&api, "DELETE", &format!("{DEVICES}/a"), JSON, &Value::Null).await;
    let events = watch(&api, &format!("resourceVersion={}", version(&first)), 2).await;
    let seen: Vec<(&str, &Value)> =
        events.iter().map(|(kind, object)| (kind.as_str(), &object["metadata"]["name"])).collect();
    assert_eq!(seen, [("ADDED", &json!("b")), ("DELETED", &json!("a"))]);
    assert!(version(&events[1].1) > version(&events[0].1), "a removal has a version of its own");
}

#[tokio::test(start_paused = true)]
async fn initial_events_end_with_an_annotated_bookmark() {
    let api = open().await;
    create(&api, "a").await;
    let streaming = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let events = watch(&api, streaming, 2).await;
    assert_eq!((events[0].0.as_str(), events[1].0.as_str()), ("ADDED", "BOOKMARK"));
    let bookmark = &events[1].1;
    assert_eq!(bookmark["metadata"]["annotations"]["k8s.io/initial-events-end"], json!("true"));
    assert_eq!(bookmark["kind"], json!("VirtnetDevice"));
    assert_eq!(version(bookmark), version(&events[0].1));
    for refused in ["sendInitialEvents=true", "resourceVersionMatch=NotOlderThan"] {
        let (code, status) = get(&api, &format!("{DEVICES}?watch=1&{refused}")).await;
        assert_eq!((code, &status["reason"]), (422, &json!("Invalid")), "{status}");
    }
    let (code, status) = get(&api, &format!("{DEVICES}?watch=1&resourceVersion=99999&{streaming}")).await;
    assert_eq!((code, &status["details"]["causes"][0]["reason"]), (504, &json!("ResourceVersionTooLarge")));
}

#[tokio::test(start_paused = true)]
async fn a_watch_ends_at_its_time_and_sends_bookmarks_until_then() {
    let api = open().await;
    let made = create(&api, "a").await;
    let path = format!(
        "{DEVICES}?watch=1&allowWatchBookmarks=true&timeoutSeconds=150&resourceVersion={}",
        version(&made)
    );
    let response = send_bytes(&api, "GET", &path, JSON, bytes::Bytes::new()).await;
    let start = tokio::time::Instant::now();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(start.elapsed().as_secs(), 150);
    let events: Vec<Value> =
        serde_json::Deserializer::from_slice(&body).into_iter().map(Result::unwrap).collect();
    assert_eq!(events.len(), 2);
    assert!(events.iter().all(|event| event["type"] == "BOOKMARK"));
}

#[tokio::test(start_paused = true)]
async fn versions_from_another_life_are_refused() {
    let api = open().await;
    let (code, status) = get(&api, &format!("{DEVICES}?resourceVersion=99999")).await;
    assert_eq!((code, &status["reason"]), (504, &json!("Timeout")));
    let events = watch(&api, "resourceVersion=99999", 1).await;
    assert_eq!((events[0].0.as_str(), &events[0].1["code"]), ("ERROR", &json!(410)));
    assert_eq!(get(&api, &format!("{DEVICES}?continue=nonsense")).await.0, 400);
    assert_eq!(get(&api, &format!("{DEVICES}?resourceVersion=x")).await.0, 400);
}

#[tokio::test(start_paused = true)]
async fn collections_are_deleted_by_selection() {
    let api = open().await;
    for name in ["a", "b"] {
        create(&api, name).await;
    }
    send(&api, "PATCH", &format!("{DEVICES}/a"), MERGE, &json!({"metadata": {"labels": {"x": "y"}}})).await;
    let (code, deleted) =
        send(&api, "DELETE", &format!("{DEVICES}?labelSelector=x%3Dy"), JSON, &Value::Null).await;
    assert_eq!((code, names(&deleted)), (200, vec!["a"]));
    assert_eq!(names(&get(&api, DEVICES).await.1), ["b"]);
}
