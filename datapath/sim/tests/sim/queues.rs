//! What a driver sets up of a function's queues, and what goes through them.

use virtnet_model::{
    Change, Generation, Moderation, PeriodMode, QueueRole, QueueSize, QueueState, Refusal, Target,
};
use virtnet_sim::{Effect, Misuse, Sim, When};

use crate::common::{config, pf, request, rest, rested, state, unbind, vf};
use crate::refusals::expect;

/// Index and role of the queues that are set up.
fn set_up(queues: &[QueueState]) -> Vec<(u16, QueueRole)> {
    queues.iter().filter(|queue| queue.enabled).map(|queue| (queue.index, queue.role)).collect()
}

/// So many pairs, and the control queue after them.
fn pairs(count: u16) -> Vec<(u16, QueueRole)> {
    let role = |index| if index % 2 == 0 { QueueRole::Receive } else { QueueRole::Transmit };
    let data = (0..2 * count).map(|index| (index, role(index)));
    data.chain([(2 * count, QueueRole::Control)]).collect()
}

#[tokio::test(start_paused = true)]
async fn a_driver_sets_up_as_many_pairs_as_there_are_queues_and_vectors_for() {
    let sim = rested(&["VIRTIO_NET_EMULATION_NUM_MSIX=10"]).await;
    sim.write_num_vfs(pf(0), 1).unwrap();
    rest().await;
    let vf0 = Target::Vf(pf(0), vf(0));
    let queues = sim.queues().queues(&vf0).await.unwrap();
    assert_eq!(set_up(&queues), pairs(4));
    let vectors: Vec<_> = queues.iter().map(|queue| queue.vector).collect();
    let wanted: Vec<_> = (1..=8).map(Some).chain([None]).collect();
    assert_eq!(vectors, wanted, "the configuration has vector 0, and the control queue does without");
    assert_eq!(state(&sim).await.find(&vf0).unwrap().config_vector, Some(0));

    // Of four queues, one is of no use.
    unbind(&sim, state(&sim).await.find(&vf0).unwrap());
    let change = Change {
        num_msix: Some(5),
        queue_size: Some(QueueSize::try_from(512).unwrap()),
        ..Change::default()
    };
    sim.controller().modify(&vf0, &change).await.unwrap();
    let idle = sim.queues().queues(&vf0).await.unwrap();
    assert_eq!((idle.len(), set_up(&idle).len()), (4, 0));
    assert_eq!(state(&sim).await.find(&vf0).unwrap().config_vector, None);
    sim.bind(state(&sim).await.find(&vf0).unwrap().bdf.unwrap()).unwrap();
    rest().await;
    let queues = sim.queues().queues(&vf0).await.unwrap();
    assert_eq!(set_up(&queues), pairs(1));
    assert!(queues.iter().all(|queue| queue.size == 512));
    assert_eq!(queues[0].counters.received_desc, 512, "a driver fills its receive queues");
}

#[tokio::test(start_paused = true)]
async fn the_rings_of_no_two_functions_overlap() {
    let sim = rested(&["VIRTIO_NET_EMULATION_NUM_MSIX=300"]).await;
    let size = QueueSize::try_from(4096).unwrap();
    let mut rings = Vec::new();
    for last in 0..2 {
        let wanted = virtnet_model::HotplugRequest { max_queues: 256, queue_size: size, ..request(last) };
        let made = sim.controller().hotplug(&wanted).await.unwrap();
        rest().await;
        let queues = sim.queues().queues(&made.target().unwrap()).await.unwrap();
        assert_eq!(set_up(&queues), pairs(127));
        rings.extend(queues.iter().filter(|queue| queue.enabled).map(|queue| {
            let end = queue.device_area + 6 + 8 * u64::from(queue.size);
            assert!(queue.descriptor_area + 16 * u64::from(queue.size) <= queue.driver_area);
            assert!(queue.driver_area + 6 + 2 * u64::from(queue.size) <= queue.device_area);
            (queue.descriptor_area, end)
        }));
    }
    rings.sort_unstable();
    assert!(rings.windows(2).all(|two| two[0].1 <= two[1].0), "{rings:x?}");
}

#[tokio::test(start_paused = true)]
async fn what_goes_through_queues_is_counted_and_what_can_not_is_refused() {
    let sim = rested(&[]).await;
    let pf0 = Target::Static(pf(0));
    let bdf = state(&sim).await.find(&pf0).unwrap().bdf.unwrap();
    sim.traffic(bdf, 1, 60, 300).unwrap();
    sim.misuse(bdf, 1, Misuse::LongChain, 2).unwrap();
    let counters = sim.queues().queues(&pf0).await.unwrap()[1].counters.clone();
    assert_eq!((counters.received_desc, counters.completed_desc, counters.errors()), (302, 300, 2));
    assert_eq!((counters.batches, counters.total_bytes, counters.packets[0]), (2, 18_000, 300));
    for (queue, bytes, why) in
        [(0, 1519, "with an MTU of 1500"), (0, 13, "14 to 1518"), (2, 60, "commands"), (3, 60, "no driver")]
    {
        let error = sim.traffic(bdf, queue, bytes, 1).unwrap_err();
        assert!(error.message.contains(why), "{error}");
    }
    unbind(&sim, state(&sim).await.find(&pf0).unwrap());
    assert!(sim.misuse(bdf, 1, Misuse::BadBuffer, 1).is_err());
}

#[tokio::test(start_paused = true)]
async fn moderation_is_the_functions_and_fails_as_the_device_does() {
    let mut config = config(&["VIRTIO_NET_EMULATION_NUM_VF=4"]);
    config.engine.generation = Generation::Later;
    let sim = Sim::new(config);
    rest().await;
    sim.write_num_vfs(pf(0), 2).unwrap();
    rest().await;
    let wanted = Moderation { mode: PeriodMode::Event, period: 10, max_count: 30 };
    let vf0 = Target::Vf(pf(0), vf(0));
    sim.fail_next(Effect::DeviceModerate, When::Before, 1);
    assert!(sim.queues().moderate(&vf0, wanted).await.is_err());
    let of = async |target: &Target| sim.queues().queues(target).await.unwrap()[0].moderation;
    assert_eq!(of(&vf0).await, Moderation::default());
    sim.queues().moderate(&vf0, wanted).await.unwrap();
    assert_eq!((of(&vf0).await, of(&Target::Vf(pf(0), vf(1))).await), (wanted, Moderation::default()));
    // Another function in its place has none of it.
    sim.write_num_vfs(pf(0), 0).unwrap();
    rest().await;
    sim.write_num_vfs(pf(0), 1).unwrap();
    rest().await;
    assert_eq!(of(&vf0).await, Moderation::default());
    expect(
        sim.queues().moderate(&Target::Vf(pf(0), vf(3)), wanted).await,
        Refusal::NoSuchFunction,
        "no VF 3 of PF 0",
    );
}

#[tokio::test(start_paused = true)]
async fn a_function_that_is_being_moved_is_left_alone() {
    let sim = rested(&[]).await;
    let made = sim.controller().hotplug(&request(0)).await.unwrap();
    rest().await;
    let bdf = state(&sim).await.find(&made.target().unwrap()).unwrap().bdf.unwrap();
    sim.set_migrating(bdf, true).unwrap();
    rest().await;
    assert!(state(&sim).await.find(&made.target().unwrap()).unwrap().migrating);
    let why = "migrating: try again";
    expect(sim.controller().unplug(&made.target().unwrap()).await, Refusal::Migrating, why);
    expect(
        sim.controller().modify(&made.target().unwrap(), &Change::default()).await,
        Refusal::Migrating,
        why,
    );
    expect(sim.queues().queues(&made.target().unwrap()).await, Refusal::Migrating, why);
    // Its host is reset, and so is what had it.
    sim.reboot_host();
    rest().await;
    sim.controller().unplug(&made.target().unwrap()).await.unwrap();
}
