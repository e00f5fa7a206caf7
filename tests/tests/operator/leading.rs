//! Which of several operators acts: on the embedded API under a paused clock, and as programs on a real kube-apiserver.

use std::time::Duration;

use futures::future::BoxFuture;
use http::StatusCode;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, ListParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use virtnet_agent::Clock;
use virtnet_crds::{API_VERSION, Dpu, LEASE_NAMESPACE, VirtnetDevice};
use virtnet_operator::{Leadership, Metrics, SERIES};
use virtnet_tests::cluster::{Cluster, Config};
use virtnet_tests::faulty_way::{Fault, FaultyWay};
use virtnet_tests::fleet::{Fleet, embedded_api, meanwhile};
use virtnet_tests::programs::get;

/// How long a hand-over may take.
const HAND_OVER: Duration = Duration::from_secs(10);
/// Far longer than any of it takes on a machine that is busy too.
const LIMIT: Duration = Duration::from_secs(120);

fn anywhere() -> Value {
    json!({"dpuSelector": {}, "function": {"hotplug": {}}})
}

/// An operator of a name, on a task of its own.
struct Contender {
    name: &'static str,
    metrics: Metrics,
    task: JoinHandle<()>,
}

impl Contender {
    fn start(fleet: &Fleet, client: &Client, name: &'static str, clock: &Clock) -> Self {
        let metrics = Metrics::default();
        let leadership = Leadership::by_lease(client.clone(), fleet.leases, name.to_owned(), clock.clone());
        let work: BoxFuture<'static, ()> = fleet.operator_by(client, clock, metrics.clone(), leadership);
        Self { name, metrics, task: tokio::spawn(work) }
    }

    fn leads(&self) -> bool {
        self.metrics.leads() && !self.task.is_finished()
    }
}

impl Drop for Contender {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The names of those that lead; never more than one.
fn leaders(all: &[Contender]) -> Vec<&'static str> {
    let leaders: Vec<_> = all.iter().filter(|one| one.leads()).map(|one| one.name).collect();
    assert!(leaders.len() <= 1, "{leaders:?} lead at once");
    leaders
}

/// Waits until one of them leads, and says which, and how long that took.
async fn until_led(all: &[Contender]) -> (&'static str, Duration) {
    let begun = Instant::now();
    loop {
        if let [leader] = leaders(all)[..] {
            return (leader, begun.elapsed());
        }
        assert!(begun.elapsed() < LIMIT, "nobody leads");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn one_of_three_operators_acts_and_another_takes_over_within_ten_seconds() {
    let (client, writes, clock) = embedded_api().await;
    let fleet = Fleet::new(client.clone(), &["dpu-a", "dpu-b"]);
    meanwhile([fleet.agents(&clock)], async {
        let start = |name| Contender::start(&fleet, &client, name, &clock);
        let mut all = ["one", "two", "three"].map(start).into_iter().collect::<Vec<_>>();
        for number in 0..3 {
            let (leader, took) = until_led(&all).await;
            assert!(took < HAND_OVER, "{took:?}");
            fleet.create(&format!("web-{number}"), anywhere()).await;
            fleet.until(&[("Ready", number + 1)]).await;
            // It goes on leading, and nobody but it writes to the Lease.
            writes.take();
            for _ in 0..1000 {
                assert_eq!(leaders(&all), [leader]);
                sleep(Duration::from_millis(100)).await;
            }
            let renewals =
                writes.take().into_iter().filter(|write| write.manager == "virtnet-operator").count();
            assert!((40..=55).contains(&renewals), "{renewals} renewals in 100 s");
            // As if it were killed: it gives nothing up.
            all.retain(|one| one.name != leader);
        }
        assert!(all.is_empty());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn who_can_not_know_the_fleet_does_not_lead() {
    let (client, _, clock) = embedded_api().await;
    let fleet = Fleet::new(client.clone(), &["dpu-a"]);
    let way = FaultyWay::new(client.clone());
    way.befall(Fault::Answer(StatusCode::FORBIDDEN), usize::MAX, |_, target| {
        target.contains("virtnetdevicesets")
    });
    meanwhile([fleet.agents(&clock)], async {
        let mut all = vec![Contender::start(&fleet, &way.client(), "blind", &clock)];
        sleep(Duration::from_secs(60)).await;
        assert_eq!(leaders(&all), [""; 0]);
        all.push(Contender::start(&fleet, &client, "seeing", &clock));
        assert_eq!(until_led(&all).await.0, "seeing");
        fleet.create("web-0", anywhere()).await;
        fleet.until(&[("Ready", 1)]).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_operator_that_is_cut_off_stops_before_another_begins_and_yields_when_it_is_back() {
    let (client, _, clock) = embedded_api().await;
    let fleet = Fleet::new(client.clone(), &["dpu-a"]);
    let way = FaultyWay::new(client.clone());
    meanwhile([fleet.agents(&clock)], async {
        let mut all = vec![Contender::start(&fleet, &way.client(), "one", &clock)];
        assert_eq!(until_led(&all).await.0, "one");
        all.push(Contender::start(&fleet, &client, "two", &clock));
        sleep(Duration::from_secs(30)).await;
        assert_eq!(leaders(&all), ["one"]);
        way.cut_off();
        let begun = Instant::now();
        while leaders(&all) != ["two"] {
            assert!(begun.elapsed() < HAND_OVER, "{:?}", begun.elapsed());
            sleep(Duration::from_millis(10)).await;
        }
        way.heal();
        for _ in 0..600 {
            assert_eq!(leaders(&all), ["two"]);
            sleep(Duration::from_millis(100)).await;
        }
        // An outage for both: whoever leads afterwards, there was never more than one.
        all.push(Contender::start(&fleet, &way.client(), "three", &clock));
        all.retain(|one| one.name != "two");
        for outage in [1, 4, 6, 20] {
            way.cut_off();
            for _ in 0..outage * 100 {
                leaders(&all);
                sleep(Duration::from_millis(10)).await;
            }
            way.heal();
            // The watch of the Lease may be slow to come back, and is not needed.
            until_led(&all).await;
            sleep(Duration::from_secs(1)).await;
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_operator_that_ends_gives_its_lease_up() {
    let (client, _, clock) = embedded_api().await;
    let fleet = Fleet::new(client.clone(), &[]);
    let metrics = Metrics::default();
    let leadership = Leadership::by_lease(client.clone(), fleet.leases, "one".to_owned(), clock.clone());
    let config = virtnet_operator::Config {
        lease_namespace: fleet.leases.into(),
        identity: "one".into(),
        board: None,
    };
    let second;
    tokio::select! {
        () = virtnet_operator::run(config, client.clone(), clock.clone(), metrics.clone(), &leadership) => unreachable!(),
        contender = async {
            while !metrics.leads() {
                sleep(Duration::from_millis(10)).await;
            }
            let second = Contender::start(&fleet, &client, "two", &clock);
            sleep(Duration::from_secs(20)).await;
            assert!(!second.leads());
            second
        } => second = [contender],
    }
    leadership.resign().await;
    let (_, took) = until_led(&second).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    let leases: Api<Lease> = Api::namespaced(client, fleet.leases);
    let spec = leases.get("virtnet-operator").await.unwrap().spec.unwrap();
    assert_eq!((spec.holder_identity.as_deref(), spec.lease_transitions), (Some("two"), Some(1)));
}

async fn holder(leases: &Api<Lease>) -> String {
    let lease = leases.get_opt("virtnet-operator").await.unwrap();
    lease.and_then(|lease| lease.spec?.holder_identity).unwrap_or_default()
}

/// Waits until what is asked for is there.
async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(begun.elapsed() < LIMIT, "waiting for {what}");
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_programs_one_acts_with_no_more_rights_than_it_needs_and_the_other_takes_over_when_it_is_killed()
 {
    let config = Config { dpus: vec!["dpu-a".into()], operators: 2, ..Config::default() };
    let mut cluster = Cluster::start(config).await.unwrap();
    let client = cluster.plane().client().await.unwrap();
    let (devices, leases): (Api<VirtnetDevice>, Api<Lease>) =
        (Api::default_namespaced(client.clone()), Api::namespaced(client.clone(), LEASE_NAMESPACE));
    let first = until("a leader", async || Some(holder(&leases).await).filter(|name| !name.is_empty())).await;
    for number in 0..2 {
        let name = format!("web-{number}");
        let object = json!({
            "apiVersion": API_VERSION, "kind": "VirtnetDevice", "metadata": {"name": name}, "spec": anywhere(),
        });
        devices.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
        until("the device to be bound", async || {
            cluster.check().unwrap();
            devices.get(&name).await.unwrap().spec.dpu
        })
        .await;
        if number == 0 {
            // Killed, it can't give the Lease up.
            cluster.kill_operator(&first).unwrap();
        }
    }
    let second = holder(&leases).await;
    assert_ne!(first, second);

    // That it bound the device it says by an Event, and nothing that it asked for was refused.
    let events: Api<Event> = Api::default_namespaced(client.clone());
    let event = until("its Event", async || {
        let found = events.list(&ListParams::default()).await.unwrap().items;
        found.into_iter().find(|event| {
            let regarding = event.regarding.as_ref().and_then(|regarding| regarding.name.as_deref());
            regarding == Some("web-1") && event.reason.as_deref() == Some("Bound")
        })
    })
    .await;
    assert_eq!(event.note.as_deref(), Some("bound to dpu-a"));
    assert_eq!(event.reporting_controller.as_deref(), Some("virtnet-operator"));
    assert_eq!(event.reporting_instance.as_deref(), Some(second.as_str()));

    let port = cluster.operator_port(&second).unwrap();
    for path in ["/healthz", "/readyz"] {
        assert_eq!(get(port, path).await.unwrap(), (200, "ok".to_owned()), "{path}");
    }
    let (_, metrics) = get(port, "/metrics").await.unwrap();
    let series: Vec<_> = metrics.lines().filter(|line| !line.starts_with('#')).collect();
    assert!(series.len() <= SERIES, "{} series\n{metrics}", series.len());
    for wanted in [
        "virtnet_operator_leads 1",
        "virtnet_operator_objects{kind=\"Dpu\"} 1",
        "virtnet_operator_objects{kind=\"VirtnetDevice\"} 2",
    ] {
        assert!(series.contains(&wanted), "{wanted}\n{metrics}");
    }
    let refused: Vec<_> = series.iter().filter(|line| line.contains("result=\"refused\"")).collect();
    assert!(refused.len() == 3 && refused.iter().all(|line| line.ends_with(" 0")), "{refused:?}");
    let dpus: Api<Dpu> = Api::all(client);
    assert_eq!(dpus.list(&ListParams::default()).await.unwrap().items.len(), 1);
    assert_eq!(event.name_any().split('.').next(), Some("web-1"));
}
