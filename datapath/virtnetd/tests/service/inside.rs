//! What is told of queues and of the service itself, through the worker and without one.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use virtnet_model::{
    Controller, ErrorKind, Generation, Moderation, PeriodMode, QueueRole, QueueState, Queues, Target, Uplink,
};
use virtnet_rpc::method::{self, Health, Validate, Validated};
use virtnet_sim::{Effect, Sim, SimConfig, When};
use virtnetd::parent::{Patience, Wish};

use crate::common::{LIMIT, Service, mac, pf, request};

const LATER: &str = r#"{"generation": "later"}"#;

async fn health(service: &Service) -> Health {
    service.client.call(method::HEALTH, &()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn queues_are_told_as_the_device_has_them_whichever_worker_is_asked() {
    // Of the later generation, which has no slots beside more than 127 VFs.
    let firmware = ["VIRTIO_NET_EMULATION_NUM_MSIX=6", "VIRTIO_NET_EMULATION_NUM_VF=4"];
    let service = Service::with(&firmware, LATER).await;
    let made = service.client.hotplug(&request(1)).await.unwrap();
    let in_use = service.until("the driver", |state| {
        state.find(&made.target().unwrap()).is_some_and(|function| function.driver.in_use)
    });
    let bdf = in_use.await.find(&made.target().unwrap()).unwrap().bdf.unwrap();
    let first = service.client.queues(&made.target().unwrap()).await.unwrap();
    let roles: Vec<_> = first.iter().map(|queue| (queue.role, queue.enabled, queue.vector)).collect();
    let wanted = [
        (QueueRole::Receive, true, Some(1)),
        (QueueRole::Transmit, true, Some(2)),
        (QueueRole::Control, true, None),
    ];
    assert_eq!(roles, wanted);
    let areas = |queue: &QueueState| [queue.descriptor_area, queue.driver_area, queue.device_area];
    let mut all: Vec<_> = first.iter().flat_map(areas).collect();
    assert!(all.is_sorted() && all[0] > 0, "{all:x?}");
    all.dedup();
    assert_eq!(all.len(), 9, "rings don't overlap");

    let moderation = Moderation { mode: PeriodMode::Event, period: 10, max_count: 30 };
    service.client.moderate(&made.target().unwrap(), moderation).await.unwrap();
    service.sim.traffic(bdf, 0, 1514, 1000).unwrap();
    let now = service.client.queues(&made.target().unwrap()).await.unwrap();
    assert_eq!(now[0].moderation, moderation);
    assert_eq!(now[0].counters.total_bytes, 1_514_000);
    assert_eq!(now[0].counters.packets[5], 1000);
    // A queue of 256 descriptors holds no more at once.
    assert_eq!(now[0].counters.batches, 4);
    let worker = *service.worker().borrow();
    service.wish(Wish::Restart).await;
    service.worker_after(worker).await;
    assert_eq!(service.client.queues(&made.target().unwrap()).await.unwrap(), now);

    service.sim.unbind(bdf).unwrap();
    let unbound = service.until("no driver", |state| {
        state.find(&made.target().unwrap()).is_some_and(|function| !function.driver.in_use)
    });
    unbound.await;
    let idle = service.client.queues(&made.target().unwrap()).await.unwrap();
    assert!(idle.iter().all(|queue| !queue.enabled && queue.vector.is_none() && areas(queue) == [0; 3]));
    assert_eq!(idle[0].counters.total_bytes, 0);
    let gone = service.client.queues(&Target::Static(pf(9))).await.unwrap_err();
    assert!(gone.message.contains("no static PF 9"), "{gone}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_is_validated_by_itself_and_against_the_firmware() {
    let service = Service::with(&["PF_TOTAL_SF=10"], LATER).await;
    let validated = async |conf: Option<&str>| -> Validated {
        let params = Validate { conf: conf.map(str::to_owned) };
        service.client.call(method::VALIDATE, &params).await.unwrap()
    };
    let own = validated(None).await;
    assert!(own.errors.is_empty() && own.file.is_none(), "{own:?}");
    assert!(own.warnings.iter().any(|one| one.contains("PF_TOTAL_SF=10 of p0 is less than")), "{own:?}");
    let wrong = validated(Some("{\n\"is_lag\": 2\n}")).await;
    assert_eq!(wrong.errors, ["line 2: is_lag: 2 is not 0 or 1"]);
    let conf = r#"{"generation": "later", "vf": {"mac_base": "00:11:22:33:44:55", "vfs_per_pf": 500}}"#;
    let wrong = validated(Some(conf)).await;
    assert!(wrong.errors[0].contains("vf.vfs_per_pf 500 is above"), "{wrong:?}");
    // Nothing of it was used.
    assert_eq!(service.state().await.limits.generation, Generation::Later);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_known_inside_is_told() {
    let service = Service::with(&["VIRTIO_NET_EMULATION_NUM_VF=4"], LATER).await;
    let made = service.client.hotplug(&request(1)).await.unwrap();
    let inside: serde_json::Value = service.client.call(method::DEBUG, &()).await.unwrap();
    assert_eq!(inside["worker"]["process"], service.worker().borrow().unwrap());
    assert_eq!(inside["parent"]["process"], std::process::id());
    let sfs = inside["device"]["sfs"].as_array().unwrap();
    assert_eq!(sfs.len(), service.state().await.functions.len(), "{sfs:?}");
    assert!(inside.to_string().contains(&made.mac.to_string()));
    let health = health(&service).await;
    assert_eq!((health.generation, health.workers, health.failures), (Generation::Later, 1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rdma_devices_are_told_as_they_are_configured() {
    let service = Service::with(&[], r#"{"ib_dev_p0": "mlx5_1", "ib_dev_p1": "mlx5_0"}"#).await;
    let names = health(&service).await.rdma_devices;
    assert_eq!((names[&Uplink::P0].as_str(), names[&Uplink::P1].as_str()), ("mlx5_1", "mlx5_0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_worker_that_hangs_has_asked_of_a_device_that_hangs_too_is_given_up_and_told() {
    let patience = Patience {
        ping: Duration::from_millis(50),
        hangs: Duration::from_secs(2),
        device: Duration::from_millis(200),
    };
    let sim = Sim::device_only(SimConfig::default(), None);
    let service = Service::patient(sim, "{}", None, patience);
    service.state().await;
    let (asked, mut is_asked) = tokio::sync::mpsc::unbounded_channel();
    service.sim.set_hook(Some(std::sync::Arc::new(move |effect, when| {
        if (effect, when) == (Effect::DevicePlug, When::Before) {
            let _ = asked.send(());
        }
    })));
    service.sim.set_latency(Effect::DevicePlug, Duration::from_secs(3600));
    let worker = service.worker().borrow().unwrap();
    let stop = async {
        is_asked.recv().await.unwrap();
        kill(Pid::from_raw(i32::try_from(worker).unwrap()), Signal::SIGSTOP).unwrap();
    };
    let wanted = request(1);
    let (answer, ()) = tokio::join!(service.client.hotplug(&wanted), stop);
    let error = answer.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    let what = format!("plug {} into slot 0", mac(1));
    assert!(error.message.contains("ended before it answered"), "{error}");
    let told = format!("the device did not come to the end of what was given up then ({what})");
    assert!(error.message.contains(&told), "{error}");
    let degraded = health(&service).await;
    assert_eq!(degraded.given_up, [what]);

    // The next worker clears away what was begun, by which the device shows that it does what it is asked to again.
    service.sim.set_hook(None);
    service.sim.set_latency(Effect::DevicePlug, Duration::ZERO);
    service.worker_after(Some(worker)).await;
    let made = tokio::time::timeout(LIMIT, service.client.hotplug(&wanted)).await.unwrap().unwrap();
    assert_eq!(made.sf.unwrap().number.get(), 2000);
    let health = health(&service).await;
    assert_eq!((health.given_up, health.failures, health.workers), (vec![], 1, 2));
    let why = health.last_failure.unwrap();
    assert!(why.contains("had not answered for 2s and was killed"), "{why}");
}
