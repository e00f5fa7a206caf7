//! Requests that can't be served get the right status, and none of them harms the server.

use crate::support::{
    APPLY, DEVICES, JSON, Kubectl, MERGE, create, device, get, open, send, send_bytes, text,
};
use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::{Config as Runs, TestRunner};
use serde_json::{Value, json};
use virtnet_embedded_api::{BODY_LIMIT, Listen, ServeError, Server};

#[tokio::test(start_paused = true)]
async fn each_refusal_has_its_status_and_reason() {
    let api = open().await;
    create(&api, "a").await;
    let one = format!("{DEVICES}/a");
    let strategic = "application/strategic-merge-patch+json";
    let json_patch = "application/json-patch+json";
    let with = |change: fn(&mut Value)| {
        let mut device = device("b");
        change(&mut device);
        device
    };
    let other_namespace = with(|device| device["metadata"]["namespace"] = "other".into());
    let other_kind = with(|device| device["kind"] = "Dpu".into());
    let unnamed = with(|device| device["metadata"] = json!({}));
    let misnamed = with(|device| device["metadata"]["name"] = "B_".into());
    let mislabelled = with(|device| device["metadata"]["labels"] = json!({"a": 1}));
    let owned = with(|device| device["metadata"]["ownerReferences"] = json!([{"kind": "Dpu"}]));
    let cases = [
        ("GET", "/nothing".to_owned(), JSON, json!(null), 404, "NotFound"),
        ("GET", "/apis/virtnet.dev/v2/dpus".to_owned(), JSON, json!(null), 404, "NotFound"),
        ("GET", "/openapi/v2".to_owned(), JSON, json!(null), 404, "NotFound"),
        ("GET", format!("{DEVICES}/missing"), JSON, json!(null), 404, "NotFound"),
        ("GET", format!("{one}/scale"), JSON, json!(null), 404, "NotFound"),
        ("DELETE", format!("{DEVICES}/missing"), JSON, json!(null), 404, "NotFound"),
        ("POST", one.clone(), JSON, device("a"), 405, "MethodNotAllowed"),
        ("PUT", DEVICES.to_owned(), JSON, device("a"), 405, "MethodNotAllowed"),
        ("POST", "/version".to_owned(), JSON, json!({}), 405, "MethodNotAllowed"),
        ("DELETE", format!("{one}/status"), JSON, json!(null), 405, "MethodNotAllowed"),
        ("DELETE", "/api/v1/namespaces".to_owned(), JSON, json!(null), 405, "MethodNotAllowed"),
        (
            "POST",
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions".to_owned(),
            JSON,
            json!({}),
            405,
            "MethodNotAllowed",
        ),
        ("POST", DEVICES.to_owned(), JSON, json!([]), 400, "BadRequest"),
        ("POST", DEVICES.to_owned(), JSON, other_kind, 422, "Invalid"),
        ("POST", DEVICES.to_owned(), JSON, other_namespace, 400, "BadRequest"),
        ("POST", DEVICES.to_owned(), JSON, unnamed, 422, "Invalid"),
        ("POST", DEVICES.to_owned(), JSON, misnamed, 422, "Invalid"),
        ("POST", DEVICES.to_owned(), JSON, mislabelled, 422, "Invalid"),
        ("POST", DEVICES.to_owned(), JSON, owned, 422, "Invalid"),
        ("POST", DEVICES.to_owned(), JSON, device("a"), 409, "AlreadyExists"),
        ("POST", DEVICES.to_owned(), "text/plain", device("b"), 415, "UnsupportedMediaType"),
        ("POST", DEVICES.replace("default", "none"), JSON, device("b"), 404, "NotFound"),
        ("POST", format!("{DEVICES}?dryRun=Some"), JSON, device("b"), 422, "Invalid"),
        ("POST", format!("{DEVICES}?fieldValidation=No"), JSON, device("b"), 422, "Invalid"),
        ("PUT", one.clone(), JSON, device("b"), 400, "BadRequest"),
        ("PUT", one.clone(), JSON, device("a"), 422, "Invalid"),
        ("PATCH", one.clone(), strategic, json!({}), 415, "UnsupportedMediaType"),
        ("PATCH", one.clone(), json_patch, json!({}), 400, "BadRequest"),
        ("PATCH", one.clone(), json_patch, json!([{"op": "remove", "path": "/x"}]), 422, "Invalid"),
        ("PATCH", one.clone(), APPLY, device("a"), 422, "Invalid"),
        ("PATCH", format!("{one}?force=true"), MERGE, json!({}), 422, "Invalid"),
        ("PATCH", one.clone(), MERGE, json!("x"), 400, "BadRequest"),
        ("GET", format!("{DEVICES}?fieldSelector=spec.mtu%3D1"), JSON, json!(null), 400, "BadRequest"),
        ("GET", format!("{DEVICES}?labelSelector=a%20b"), JSON, json!(null), 400, "BadRequest"),
        ("GET", format!("{DEVICES}?labelSelector=%zz"), JSON, json!(null), 400, "BadRequest"),
        ("DELETE", format!("{one}?propagationPolicy=Odd"), JSON, json!(null), 422, "Invalid"),
        ("DELETE", one.clone(), JSON, json!({"preconditions": {"uid": "x"}}), 409, "Conflict"),
        ("DELETE", one.clone(), JSON, json!({"preconditions": {"resourceVersion": "1"}}), 409, "Conflict"),
    ];
    for (method, path, media_type, body, code, reason) in cases {
        let (found, status) = send(&api, method, &path, media_type, &body).await;
        assert_eq!(
            (found, status["reason"].as_str()),
            (code, Some(reason)),
            "{method} {path} {body}: {status}"
        );
        assert_eq!((&status["kind"], &status["code"]), (&json!("Status"), &json!(code)));
        assert!(!status["message"].as_str().unwrap().is_empty(), "{method} {path}");
    }
    assert_eq!(get(&api, &one).await.0, 200);
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_stores_nothing() {
    let api = open().await;
    let made = create(&api, "a").await;
    let (_, before) = get(&api, DEVICES).await;
    let dry = |path: &str| format!("{path}?dryRun=All&fieldManager=x");
    let (code, rehearsed) = send(&api, "POST", &dry(DEVICES), JSON, &device("b")).await;
    assert_eq!((code, &rehearsed["metadata"]["resourceVersion"]), (201, &Value::Null));
    let one = format!("{DEVICES}/a");
    let (code, rehearsed) = send(&api, "PATCH", &dry(&one), MERGE, &json!({"spec": {"mtu": 9000}})).await;
    assert_eq!(
        (code, &rehearsed["spec"]["mtu"], &rehearsed["metadata"]["generation"]),
        (200, &json!(9000), &json!(2))
    );
    assert_eq!(rehearsed["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);
    assert_eq!(send(&api, "DELETE", &dry(&one), JSON, &Value::Null).await.0, 200);
    let options = json!({"dryRun": ["All"]});
    assert_eq!(send(&api, "DELETE", &one, JSON, &options).await.0, 200);
    assert_eq!(get(&api, DEVICES).await.1, before);
}

#[tokio::test(start_paused = true)]
async fn duplicate_and_unknown_fields_are_named_as_strictly_as_asked() {
    let api = open().await;
    let body = device("b").to_string().replacen("\"mtu\":1500", "\"mtu\":1400,\"mtu\":1500,\"odd\":1", 1);
    let (body, path) =
        (Bytes::from(body), |mode: &str| format!("{DEVICES}?dryRun=All&fieldValidation={mode}"));
    let strict = send_bytes(&api, "POST", &path("Strict"), JSON, body.clone()).await;
    assert_eq!(strict.status(), 400);
    let warned = send_bytes(&api, "POST", &path("Warn"), JSON, body.clone()).await;
    let warnings: Vec<&str> =
        warned.headers().get_all("warning").iter().map(|one| one.to_str().unwrap()).collect();
    assert_eq!(warned.status(), 201);
    assert_eq!(
        warnings,
        ["299 - \"duplicate field \\\"spec.mtu\\\"\"", "299 - \"unknown field \\\"spec.odd\\\"\""]
    );
    let ignored = send_bytes(&api, "POST", &path("Ignore"), JSON, body).await;
    assert!(ignored.headers().get("warning").is_none());
}

#[tokio::test(start_paused = true)]
async fn a_patch_can_not_blow_an_object_up() {
    let api = open().await;
    create(&api, "a").await;
    let copy = json!({"op": "copy", "from": "/metadata", "path": "/metadata/x"});
    let wide: Vec<Value> =
        (0..30).map(|index| json!({"op": "copy", "from": "", "path": format!("/x{index}")})).collect();
    for operations in
        [vec![copy; 200], wide, vec![json!({"op": "test", "path": "/kind", "value": "VirtnetDevice"}); 1001]]
    {
        let patch = Value::from(operations);
        let (code, status) =
            send(&api, "PATCH", &format!("{DEVICES}/a"), "application/json-patch+json", &patch).await;
        assert!(code == 422 || code == 413, "{status}");
    }
    let mut fields = json!({});
    for _ in 0..90 {
        fields = json!({"f:x": fields});
    }
    let entry = json!({"manager": "m", "operation": "Update", "apiVersion": "virtnet.dev/v1alpha1", "fieldsType": "FieldsV1", "fieldsV1": fields});
    let patch = json!({"metadata": {"managedFields": [entry]}});
    let (code, status) = send(&api, "PATCH", &format!("{DEVICES}/a"), MERGE, &patch).await;
    assert_eq!(code, 400, "{status}");
}

#[tokio::test(start_paused = true)]
async fn a_body_above_the_limit_is_not_read() {
    let api = open().await;
    let large = Bytes::from(vec![b' '; BODY_LIMIT + 1]);
    let response = send_bytes(&api, "POST", DEVICES, JSON, large).await;
    assert_eq!(response.status(), 413);
}

#[tokio::test]
async fn only_loopback_addresses_and_only_the_token_are_let_in() {
    let kubectl = Kubectl::start().await;
    let elsewhere = Listen::Tcp("0.0.0.0:0".parse().unwrap());
    let refused = Server::start(&kubectl.api, elsewhere, kubectl.state_dir()).await.unwrap_err();
    assert!(matches!(refused, ServeError::NotLoopback(_)), "{refused}");

    for name in ["kubeconfig", "token", "server.key", "ca.crt", "server.crt"] {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(kubectl.state_dir().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let stranger = kubectl.fails(&["get", "ns", "--token=guess"]).await;
    assert!(stranger.contains("provide credentials"), "{stranger}");
    let config = std::fs::read_to_string(kubectl.state_dir().join("kubeconfig")).unwrap();
    let untrusting =
        kubectl.manifest("kubeconfig-without-ca", &config.replace("certificate-authority-data", "x-ca"));
    let output = kubectl.output(&["--kubeconfig", &untrusting, "get", "ns"]).await;
    assert!(text(&output.stderr).contains("certificate"), "{}", text(&output.stderr));

    // A restart keeps CA and token, so that a kubeconfig at hand goes on working at the same address.
    let address = kubectl.server.address().unwrap();
    let Kubectl { api, server, dir } = kubectl;
    server.shutdown().await;
    let server = Server::start(&api, Listen::Tcp(address), dir.path()).await.unwrap();
    assert_eq!(std::fs::read_to_string(server.kubeconfig_path().unwrap()).unwrap(), config);
    let kubectl = Kubectl { api, server, dir };
    kubectl.ok(&["get", "ns"]).await;
    kubectl.server.shutdown().await;
}

#[tokio::test]
async fn a_unix_socket_serves_its_owner() {
    use std::os::unix::fs::PermissionsExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let dir = tempfile::tempdir().unwrap();
    let api = open().await;
    let path = dir.path().join("api.sock");
    let server = Server::start(&api, Listen::Unix(path.clone()), dir.path()).await.unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let token = std::fs::read_to_string(dir.path().join("token")).unwrap();
    for (token, status) in [(token.trim(), "200 OK"), ("", "401 Unauthorized")] {
        let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
        let request = format!(
            "GET /version HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
    }
    // One that is listened on is nobody else's.
    let second = Server::start(&api, Listen::Unix(path.clone()), dir.path()).await.unwrap_err();
    assert!(second.to_string().contains("api.sock"), "{second}");
    tokio::net::UnixStream::connect(&path).await.unwrap();
    server.shutdown().await;
    assert!(!path.exists());
    // One that was left behind is replaced, and what is no socket is left alone.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    Server::start(&api, Listen::Unix(path.clone()), dir.path()).await.unwrap().shutdown().await;
    std::fs::write(&path, "notes").unwrap();
    Server::start(&api, Listen::Unix(path.clone()), dir.path()).await.unwrap_err();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "notes");
}

#[tokio::test]
async fn a_watch_of_any_length_is_begun() {
    let api = open().await;
    let path = "/api/v1/namespaces?watch=1&timeoutSeconds=18446744073709551615";
    assert_eq!(send_bytes(&api, "GET", path, JSON, Bytes::new()).await.status(), 200);
}

/// Documents of the shapes that handlers look into, with the wrong things in the right places.
fn documents() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(|float| json!(float)),
        "[a-z$.:/~\\-]{0,12}".prop_map(Value::from),
        prop_oneof![
            Just("virtnet.dev/v1alpha1"),
            Just("VirtnetDevice"),
            Just("a"),
            Just("Scale"),
            Just("autoscaling/v1"),
            Just("test"),
            Just("/metadata/name"),
            Just("2026-01-01T00:00:00Z"),
            Just("delete"),
        ]
        .prop_map(Value::from),
    ];
    let keys = prop_oneof![
        prop_oneof![
            Just("apiVersion"),
            Just("kind"),
            Just("metadata"),
            Just("spec"),
            Just("status"),
            Just("name"),
            Just("labels"),
            Just("annotations"),
            Just("finalizers"),
            Just("ownerReferences"),
            Just("uid"),
            Just("managedFields"),
            Just("fieldsV1"),
            Just("operation"),
            Just("manager"),
            Just("conditions"),
            Just("type"),
            Just("features"),
            Just("function"),
            Just("hotplug"),
            Just("dpu"),
            Just("mtu"),
            Just("queues"),
            Just("port"),
            Just("op"),
            Just("path"),
            Just("value"),
            Just("from"),
            Just("$patch"),
            Just("replicas"),
            Just("f:spec"),
            Just("k:{}"),
            Just("."),
            Just("preconditions"),
            Just("dryRun"),
        ]
        .prop_map(str::to_owned),
        "[a-zA-Z:{}\"\\[\\]]{0,8}",
    ];
    leaf.prop_recursive(5, 40, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(keys.clone(), inner, 0..7)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

#[test]
fn no_request_brings_the_server_down() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let api = runtime.block_on(async {
        let api = open().await;
        create(&api, "a").await;
        api
    });
    let paths = prop_oneof![
        Just(DEVICES.to_owned()),
        Just(format!("{DEVICES}/a")),
        Just(format!("{DEVICES}/a/status")),
        Just("/apis/virtnet.dev/v1alpha1/namespaces/default/virtnetdevicesets/a/scale".to_owned()),
        Just("/api/v1/namespaces/a".to_owned()),
        Just("/api/v1/namespaces/default/events".to_owned()),
        Just("/apis/events.k8s.io/v1/namespaces/default/events".to_owned()),
        "/[a-z0-9/.%]{0,40}",
    ];
    let queries = prop_oneof![
        Just(String::new()),
        Just("fieldManager=m&force=true".to_owned()),
        Just("fieldManager=m".to_owned()),
        "(limit|continue|resourceVersion|labelSelector|fieldSelector|dryRun|includeObject)=[a-z0-9%=!(),.]{0,12}",
    ];
    let media_types = prop_oneof![
        Just(JSON),
        Just(MERGE),
        Just(APPLY),
        Just("application/json-patch+json"),
        Just("application/strategic-merge-patch+json"),
        Just("application/vnd.kubernetes.protobuf"),
    ];
    let methods =
        prop_oneof![Just("GET"), Just("POST"), Just("PUT"), Just("PATCH"), Just("DELETE"), Just("ODD")];
    let well_named = documents().prop_map(|mut document| {
        if let Value::Object(map) = &mut document {
            map.entry("apiVersion").or_insert("virtnet.dev/v1alpha1".into());
            map.entry("kind").or_insert("VirtnetDevice".into());
        }
        document
    });
    let mut runner = TestRunner::new(Runs { failure_persistence: None, ..Runs::with_cases(3000) });
    let requests = (methods, paths, queries, media_types, prop_oneof![documents(), well_named]);
    runner
        .run(&requests, |(method, path, query, media_type, body)| {
            let (code, answer) =
                runtime.block_on(send(&api, method, &format!("{path}?{query}"), media_type, &body));
            prop_assert!(
                (200..600).contains(&code) && answer["reason"] != "InternalError",
                "{} {}: {}",
                method,
                path,
                answer
            );
            prop_assert!(code < 400 || answer["kind"] == "Status", "{} {}: {}", method, path, answer);
            Ok(())
        })
        .unwrap();
}
