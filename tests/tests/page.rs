//! The page, looked at in a real Chromium: of a small fleet whose hosts and bridges fail and come back, and of objects that no API
//! would let through. `UPDATE_SCREENSHOT=1` writes docs/page.png, which the README shows.

#![expect(clippy::unwrap_used, reason = "a test that can not go on panics")]

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use kube::core::DeserializeGuard;
use kube::runtime::watcher::Event;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::time::{sleep, timeout};
use virtnet_agent::Clock;
use virtnet_crds::{API_VERSION, Dpu, VirtnetDevice};
use virtnet_operator::{Config, Leadership, Metrics};
use virtnet_page::{Board, Page};
use virtnet_tests::chromium::{Browser, Look};
use virtnet_tests::fleet::{Fleet, embedded_api, meanwhile};

/// Far longer than anything takes, on a machine that is busy too.
const LIMIT: Duration = Duration::from_secs(60);
const DESK: Look = Look { width: 1100, height: 1000, mobile: false, dark: false };
const PHONE: Look = Look { width: 360, height: 740, mobile: true, dark: false };
const ANYWHERE: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

/// A page that is served, on threads of its own: they end with it, and so do its connections.
struct Served {
    runtime: Option<Runtime>,
    address: SocketAddr,
}

impl Served {
    async fn start(board: &Board, address: SocketAddr) -> Self {
        let runtime = Runtime::new().unwrap();
        let page = runtime.spawn(Page::bind(address, board.clone())).await.unwrap().unwrap();
        let address = page.address().unwrap();
        drop(runtime.spawn(page.serve()));
        Self { runtime: Some(runtime), address }
    }

    fn url(&self) -> String {
        format!("http://{}/", self.address)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// An operator of a name, which waits for its turn to lead.
fn operator(
    fleet: &Fleet,
    clock: &Clock,
    name: &str,
    metrics: &Metrics,
    board: Option<Board>,
) -> BoxFuture<'static, ()> {
    let (client, clock, metrics) = (fleet.client.clone(), clock.clone(), metrics.clone());
    let leadership = Leadership::by_lease(client.clone(), fleet.leases, name.to_owned(), clock.clone());
    let config = Config { lease_namespace: fleet.leases.to_owned(), identity: name.to_owned(), board };
    async move { virtnet_operator::run(config, client, clock, metrics, &leadership).await }.boxed()
}

/// The devices of the first DPU, and one that fits nowhere.
fn devices() -> Vec<(&'static str, Value)> {
    let on = |function: Value, port: Value| json!({"dpu": "dpu-0", "function": function, "port": port});
    let mut web = on(json!({"hotplug": {}}), json!({"bridge": "ovsbr1"}));
    web["mac"] = json!("0c:c4:7a:ff:22:93");
    let mut jumbo = on(json!({"static": {"pf": 1}}), json!({"bridge": "ovsbr2"}));
    jumbo["mtu"] = json!(9000);
    vec![
        ("web-0", web),
        ("access", on(json!({"hotplug": {}}), json!({"bridge": "ovsbr1", "tag": 100}))),
        ("trunk", on(json!({"hotplug": {}}), json!({"bridge": "ovsbr1", "trunks": [100, 200, 201]}))),
        ("storage", on(json!({"static": {"pf": 0}}), json!({"bridge": "ovsbr2"}))),
        ("jumbo", jumbo),
        ("tenant-a-3", on(json!({"vf": {"pf": 0, "vf": 3}}), json!({"bridge": "ovsbr1"}))),
        ("nowhere", json!({"dpuSelector": {"matchLabels": {"rack": "r9"}}, "function": {"hotplug": {}}})),
    ]
}

/// JavaScript: the words of a part of a row, also of one that is out of sight and so is not laid out.
fn words(device: &str, part: &str) -> String {
    format!("document.querySelector('[data-key=\"default/{device}\"] {part}')?.textContent")
}

fn says(device: &str, part: &str, wanted: &str) -> String {
    format!("{}?.includes({wanted:?}) === true", words(device, part))
}

/// JavaScript: a figure of a DPU's card.
fn figure(dpu: &str, what: &str) -> String {
    format!("document.querySelector('[data-dpu={dpu:?}] [data-use={what:?}]')?.textContent")
}

fn enter(query: &str) -> String {
    format!(
        "{{ const q = document.getElementById('query'); q.value = {query:?}; q.dispatchEvent(new Event('input')); }}"
    )
}

const FOUND: &str = "[...document.querySelectorAll('.hit .name')].map((name) => name.textContent)";
const TOO_WIDE: &str = "document.documentElement.scrollWidth > document.documentElement.clientWidth";

/// Nothing was complained of, and nobody but the page's own server was asked.
fn is_quiet(browser: &Browser, served: &Served) {
    assert_eq!(browser.complaints(), Vec::<String>::new());
    let requests = browser.requests();
    assert!(requests.len() >= 4, "{requests:?}");
    for request in requests {
        assert!(request.starts_with(&served.url()) || request.starts_with("data:"), "{request}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_becomes_of_a_fleet_is_seen_as_it_happens() {
    let (client, _, clock) = embedded_api().await;
    let fleet = Fleet::new(client, &["dpu-0", "dpu-1"]);
    let [leading, watching] = [(); 2].map(|()| Metrics::default());
    let board = Board::default();
    let first = operator(&fleet, &clock, "one", &leading, None);
    let second = async {
        until(|| leading.leads()).await;
        operator(&fleet, &clock, "two", &watching, Some(board.clone())).await;
    };
    let second = second.boxed();
    let story = async {
        let served = Served::start(&board, ANYWHERE.into()).await;
        let mut browser = Browser::start().await.unwrap();
        browser.look(DESK).await.unwrap();
        browser.open(&served.url()).await.unwrap();
        browser.eval("window.wasHereBefore = true").await.unwrap();
        for (name, spec) in devices() {
            fleet.create(name, spec).await;
        }
        overview(&mut browser).await;
        search(&mut browser).await;
        picture(&mut browser, &fleet).await;
        phone_and_dark(&mut browser).await;
        assert_eq!(browser.eval("window.wasHereBefore").await.unwrap(), true, "it was never loaded again");
        assert!(leading.leads() && !watching.leads(), "it is served by the one that does not act");
        is_quiet(&browser, &served);
        browser.close().await.unwrap();
    };
    meanwhile([fleet.agents(&clock), first], async {
        tokio::select! {
            () = second => panic!("the operator ended"),
            () = story => {}
        }
    })
    .await;
}

async fn until(is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(LIMIT, waiting).await.unwrap();
}

/// The cards tell what is in use.
async fn overview(browser: &mut Browser) {
    for (dpu, what, value) in [
        ("dpu-0", "Slots", "3/16"),
        ("dpu-0", "VFs", "0/504"),
        // Four static PFs and three hot-plugged ones.
        ("dpu-0", "SFs p0", "7/508"),
        ("dpu-0", "SFs p1", "0/1"),
        ("dpu-0", "Devices", "4/6 Ready, 1 Reconciling, 1 Stalled"),
        ("dpu-0", "Undeclared", "2"),
        ("dpu-1", "Slots", "0/16"),
        ("dpu-1", "Devices", "0/0 Ready"),
        ("dpu-1", "Undeclared", "4"),
    ] {
        browser.until(&format!("{} === {value:?}", figure(dpu, what))).await.unwrap();
    }
    browser
        .until("document.querySelector('[data-dpu=\"dpu-0\"] .state').innerText === '✓ Ready'")
        .await
        .unwrap();
    browser.until("document.getElementById('link').innerText === '● Live'").await.unwrap();
    // What is bound to nothing is there too, with the reason.
    browser.eval("document.querySelector('[data-dpu=\"~unbound\"]').click()").await.unwrap();
    browser.until(&says("nowhere", ".why", "NoDpuSelected")).await.unwrap();
    browser.until(&says("nowhere", ".why", "no Dpu has the labels rack=r9")).await.unwrap();
    browser.eval("location.hash = ''").await.unwrap();
}

/// A device is found by whatever it is called.
async fn search(browser: &mut Browser) {
    // Those of web-0, as the controller gave them.
    browser.eval("location.hash = '#dpu-0'").await.unwrap();
    browser.until(&says("web-0", ".function", "✓ Ready")).await.unwrap();
    let codes = "[...document.querySelectorAll('[data-key=\"default/web-0\"] .function .code')].map((code) => code.textContent)";
    let codes: Vec<String> = serde_json::from_value(browser.eval(codes).await.unwrap()).unwrap();
    let [bdf, mac, vuid] = <[String; 3]>::try_from(codes).unwrap();
    assert_eq!(mac, "0c:c4:7a:ff:22:93");
    assert!(bdf.contains(':') && vuid.starts_with("VNETS"), "{bdf} {vuid}");
    browser.eval("location.hash = ''").await.unwrap();
    let queries = [
        "web-0",
        "default/web",
        "7a:ff:22:93",
        "0C-C4-7A-FF-22-93",
        &format!("0000:{bdf}"),
        &vuid.to_lowercase(),
    ];
    for query in queries {
        browser.eval(&enter(query)).await.unwrap();
        // The hosts of two DPUs may give the same address.
        browser.until(&format!("{FOUND}.includes('default/web-0')")).await.unwrap();
        assert_eq!(browser.eval("document.getElementById('fleet').hidden").await.unwrap(), true);
    }
    browser.eval(&enter("7a:ff:22:93")).await.unwrap();
    assert_eq!(browser.eval(FOUND).await.unwrap(), json!(["default/web-0"]));
    browser.eval(&enter("nothing is called so")).await.unwrap();
    assert_eq!(browser.eval(FOUND).await.unwrap(), json!([]));
    // From what was found to the picture of its DPU, by the keyboard.
    browser.eval(&enter("web-0")).await.unwrap();
    browser.eval("document.getElementById('query').focus()").await.unwrap();
    for key in ["Tab", "Enter"] {
        browser.press(key).await.unwrap();
    }
    browser.until("location.hash === '#dpu-0/default/web-0'").await.unwrap();
    browser.until("document.querySelector('.row.aim')?.dataset.key === 'default/web-0'").await.unwrap();
}

/// The picture is of what is, and follows it.
async fn picture(browser: &mut Browser, fleet: &Fleet) {
    browser.eval("location.hash = '#dpu-0'").await.unwrap();
    for (device, part, wanted) in [
        ("web-0", ".function", "driver virtio-pci"),
        ("web-0", ".representor", "✓ Ready"),
        ("web-0", ".port", "untagged"),
        ("access", ".port", "VLAN 100"),
        ("trunk", ".port", "trunk of VLANs 100, 200, 201"),
        ("storage", ".function", "static PF 0"),
        ("jumbo", ".why", "✕ Stalled: MtuFixed"),
        ("tenant-a-3", ".why", "◐ Reconciling: VfAbsent"),
    ] {
        browser.until(&says(device, part, wanted)).await.unwrap();
    }
    let bridges = "[...document.querySelectorAll('.group')].map((group) => group.dataset.bridge)";
    assert_eq!(browser.eval(bridges).await.unwrap(), json!(["ovsbr1", "ovsbr2", ""]));
    if std::env::var_os("UPDATE_SCREENSHOT").is_some() {
        let png = browser.screenshot().await.unwrap();
        assert!(png.len() < 200_000, "{} bytes", png.len());
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/page.png"), png).unwrap();
    }

    let colour = |part| {
        format!(
            "getComputedStyle(document.querySelector('[data-key=\"default/web-0\"] {part}')).borderLeftColor"
        )
    };
    let green = browser.eval(&colour(".function")).await.unwrap();
    let sim = &fleet.sims["dpu-0"];
    sim.shut_down_host();
    browser.until(&says("web-0", ".why", "◐ Reconciling: HostOff")).await.unwrap();
    browser.until(&says("web-0", ".function", "HostOff")).await.unwrap();
    browser.until(&says("web-0", ".port", "✓ Ready")).await.unwrap();
    assert_ne!(browser.eval(&colour(".function")).await.unwrap(), green);
    assert_eq!(browser.eval(&colour(".port")).await.unwrap(), green);
    sim.boot_host();
    browser.until(&says("web-0", ".function", "✓ Ready")).await.unwrap();
    assert_eq!(browser.eval(&colour(".function")).await.unwrap(), green);

    let bridge = "ovsbr1".parse().unwrap();
    sim.delete_bridge(&bridge);
    browser.until(&says("web-0", ".port", "BridgeNotFound")).await.unwrap();
    browser.until(&says("web-0", ".why", "◐ Reconciling: BridgeNotFound")).await.unwrap();
    browser.until(&says("storage", ".port", "✓ Ready")).await.unwrap();
    assert_ne!(browser.eval(&colour(".port")).await.unwrap(), green);
    sim.add_bridge(bridge);
    browser.until(&says("web-0", ".port", "✓ Ready")).await.unwrap();
    assert_eq!(browser.eval(&colour(".port")).await.unwrap(), green);

    fleet.devices().delete("trunk", &Default::default()).await.unwrap();
    browser.until("document.querySelector('[data-key=\"default/trunk\"]') === null").await.unwrap();
}

/// Nothing is wider than a phone, and who prefers dark pages has one.
async fn phone_and_dark(browser: &mut Browser) {
    let ground = "getComputedStyle(document.body).backgroundColor";
    let light = browser.eval(ground).await.unwrap();
    for dark in [true, false] {
        for look in [PHONE, DESK] {
            browser.look(Look { dark, ..look }).await.unwrap();
            for hash in ["", "#dpu-0", "#~unbound"] {
                browser.eval(&format!("location.hash = {hash:?}")).await.unwrap();
                browser
                    .until(&format!("document.getElementById('picture').hidden === {}", hash.is_empty()))
                    .await
                    .unwrap();
                assert_eq!(browser.eval(TOO_WIDE).await.unwrap(), false, "{look:?} {hash}");
            }
            browser.eval(&enter("e")).await.unwrap();
            assert_eq!(browser.eval(TOO_WIDE).await.unwrap(), false, "{look:?}");
            assert_eq!(browser.eval(ground).await.unwrap() == light, !dark, "{look:?}");
            browser.eval(&enter("")).await.unwrap();
        }
    }
}

fn dpu(name: &str, message: &str) -> DeserializeGuard<Dpu> {
    let condition = json!({
        "type": "Ready", "status": "False", "reason": "ControllerUnavailable", "message": message,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    });
    let dpu = json!({
        "apiVersion": API_VERSION, "kind": "Dpu", "metadata": {"name": name, "generation": 1}, "spec": {},
        "status": {"observedGeneration": 1, "conditions": [condition]},
    });
    serde_json::from_value(dpu).unwrap()
}

fn vf(number: usize, dpu: &str, text: &str) -> DeserializeGuard<VirtnetDevice> {
    let condition = |type_: &str| {
        json!({
            "type": type_, "status": if text.is_empty() { "True" } else { "False" },
            "reason": if text.is_empty() { "Ready" } else { "PortError" }, "message": text,
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        })
    };
    let conditions: Vec<_> =
        ["FunctionReady", "RepresentorReady", "PortReady", "Ready"].map(condition).into();
    let device = json!({
        "apiVersion": API_VERSION, "kind": "VirtnetDevice",
        "metadata": {"namespace": "default", "name": format!("vf-{number}{text}"), "generation": 1},
        "spec": {"dpu": dpu, "function": {"vf": {"pf": 0, "vf": number}}, "port": {"bridge": "ovsbr1"}},
        "status": {
            "observedGeneration": 1, "conditions": conditions,
            "function": {"vuid": format!("VNETS0D0F0VF{number}{text}"), "type": "VF", "pf": 0, "vf": number},
            "representor": {"name": format!("en3f0pf0sf{}{text}", 3000 + number), "sfNumber": 3000 + number},
            "port": {"bridge": format!("ovsbr1{text}")},
            "host": {"seen": true, "driver": format!("virtio-pci{text}")},
            "pending": {"reason": "RebindPending", "message": text},
        },
    });
    serde_json::from_value(device).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn markup_is_text_and_of_many_functions_only_what_changes_is_drawn_again() {
    const MARKUP: &str = "<script>window.wasRun = 1</script><img src=x onerror='window.wasRun = 1'>\"&amp;";
    let board = Board::default();
    let served = Served::start(&board, ANYWHERE.into()).await;
    let mut browser = Browser::start().await.unwrap();
    browser.look(DESK).await.unwrap();
    let strange = format!("dpu-x{MARKUP}");
    board.dpu(&Event::Apply(dpu(&strange, MARKUP)));
    board.device(&Event::Apply(vf(7, &strange, MARKUP)));
    browser.open(&served.url()).await.unwrap();
    browser.until("document.querySelectorAll('.card').length === 1").await.unwrap();
    browser.eval(&enter("script")).await.unwrap();
    assert_eq!(browser.eval(FOUND).await.unwrap(), json!([strange, format!("default/vf-7{MARKUP}")]));
    browser.eval(&enter("")).await.unwrap();
    browser.eval("document.querySelector('.card').click()").await.unwrap();
    browser.until("document.querySelectorAll('.row').length === 1").await.unwrap();
    let shown = browser.eval("document.querySelector('.row').textContent").await.unwrap();
    assert_eq!(
        shown.as_str().unwrap().matches("<script>window.wasRun = 1</script><img").count(),
        5,
        "{shown}"
    );
    let made = "document.querySelectorAll('main script, main img').length";
    assert_eq!(browser.eval(made).await.unwrap(), 0);
    assert_eq!(browser.eval("typeof window.wasRun").await.unwrap(), "undefined");
    assert_eq!(browser.eval(TOO_WIDE).await.unwrap(), false);

    board.dpu(&Event::Apply(dpu("dpu-0", "")));
    for number in 0..504 {
        board.device(&Event::Apply(vf(number, "dpu-0", "")));
    }
    browser.eval("location.hash = '#dpu-0'").await.unwrap();
    browser.until("document.querySelectorAll('.row').length === 504").await.unwrap();
    let order = "[...document.querySelectorAll('.row')].every((row, index) => row.dataset.key === `default/vf-${index}`)";
    assert_eq!(browser.eval(order).await.unwrap(), true);
    browser.eval("for (const row of document.querySelectorAll('.row')) row.stays = true").await.unwrap();
    let mut changed = vf(300, "dpu-0", "");
    changed.0.as_mut().unwrap().status.as_mut().unwrap().conditions[3].status = "Unknown".to_owned();
    board.device(&Event::Apply(changed));
    browser.until(&says("vf-300", ".why", "? Unknown")).await.unwrap();
    let others =
        "[...document.querySelectorAll('.row')].filter((row) => !row.stays).map((row) => row.dataset.key)";
    assert_eq!(browser.eval(others).await.unwrap(), json!(["default/vf-300"]));
    is_quiet(&browser, &served);
    browser.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_is_told_and_taken_up_again() {
    let board = Board::default();
    board.dpu(&Event::Apply(dpu("dpu-0", "")));
    board.dpu(&Event::Apply(dpu("dpu-1", "")));
    let served = Served::start(&board, ANYWHERE.into()).await;
    let address = served.address;
    let mut browser = Browser::start().await.unwrap();
    browser.open(&served.url()).await.unwrap();
    browser.until("document.querySelectorAll('.card').length === 2").await.unwrap();
    drop(served);
    browser.until("document.getElementById('link').innerText.startsWith('✕ Connection lost')").await.unwrap();
    // What is shown stays, until there is something newer.
    assert_eq!(browser.eval("document.querySelectorAll('.card').length").await.unwrap(), 2);
    board.dpu(&Event::Delete(dpu("dpu-1", "")));
    let _served = Served::start(&board, address).await;
    browser.until("document.getElementById('link').dataset.link === 'live'").await.unwrap();
    browser.until("document.querySelectorAll('.card').length === 1").await.unwrap();
    browser.close().await.unwrap();
}
