//! A function's queues as a controller tells of them: [`queues`].

use virtnet_controller::Settings;
use virtnet_model::{Feature, Moderation, PACKET_LENGTHS, QueueCounters, QueueRole, QueueState};
use virtnet_soft::{QueueCounters as Counted, State};

/// The queues of a function with these settings, of which a driver has been seen to do this and the data queues have counted that. Where
/// rings are and which vectors they have stays with the front end, and is told as unknown.
pub(crate) fn queues(settings: &Settings, state: &State, counted: &[Counted]) -> Vec<QueueState> {
    let control = settings.features.contains(Feature::CtrlVq);
    let data = settings.max_queues - u16::from(control).min(settings.max_queues);
    let pairs = (data / 2).max(1);
    let size = u16::try_from(u32::from(settings.queue_size)).unwrap_or(u16::MAX);
    let queue = |index: u16| {
        let is_control = control && index == 2 * pairs;
        let role = match index % 2 {
            _ if is_control => QueueRole::Control,
            0 => QueueRole::Receive,
            _ => QueueRole::Transmit,
        };
        let negotiated = state.negotiated.as_ref();
        let enabled = match role {
            QueueRole::Control => negotiated.is_some_and(|features| features.contains(Feature::CtrlVq)),
            QueueRole::Receive | QueueRole::Transmit => index / 2 < state.active_pairs,
        };
        QueueState {
            index,
            role,
            size,
            enabled: state.in_use && enabled,
            vector: None,
            notify_offset: index,
            descriptor_area: 0,
            driver_area: 0,
            device_area: 0,
            moderation: Moderation::default(),
            // The front end has the control queue.
            counters: counted
                .get(usize::from(index))
                .filter(|_| !is_control)
                .map(counters)
                .unwrap_or_default(),
        }
    };
    (0..settings.max_queues).map(queue).collect()
}

fn counters(counted: &Counted) -> QueueCounters {
    let packets: [u64; PACKET_LENGTHS.len() + 1] = [
        counted.octets_64_or_less,
        counted.octets_65_to_127,
        counted.octets_128_to_255,
        counted.octets_256_to_511,
        counted.octets_512_to_1023,
        counted.octets_1024_to_1522,
        counted.octets_1523_to_2047,
        counted.octets_2048_to_4095,
        counted.octets_4096_to_8191,
        counted.octets_8192_to_9022,
        counted.octets_9023_or_more,
    ];
    QueueCounters {
        received_desc: counted.received_desc,
        completed_desc: counted.completed_desc,
        bad_desc_errors: counted.bad_desc_errors,
        error_cqes: counted.dropped,
        exceed_max_chain: counted.exceed_max_chain,
        invalid_buffer: counted.invalid_buffer,
        batches: counted.batches,
        dma_queues: 0,
        total_bytes: counted.total_bytes,
        packets,
    }
}

#[cfg(test)]
mod tests {
    use virtnet_model::{Features, Mac, Mtu, QueueSize};

    use super::*;

    #[test]
    fn queues_are_those_of_the_settings_and_enabled_as_the_driver_has_them() {
        let settings = Settings {
            mac: Mac::local([0; 5]),
            mtu: Mtu::DEFAULT,
            max_queues: 5,
            queue_size: QueueSize::DEFAULT,
            num_msix: 6,
            features: Features::controller_default(),
            transitional: false,
        };
        let idle = queues(&settings, &State::default(), &[]);
        let roles: Vec<_> = idle.iter().map(|queue| queue.role).collect();
        use QueueRole::*;
        assert_eq!(roles, [Receive, Transmit, Receive, Transmit, Control]);
        assert!(idle.iter().all(|queue| !queue.enabled));
        let state = State {
            in_use: true,
            active_pairs: 1,
            negotiated: Some(Features::controller_default()),
            ..State::default()
        };
        let counted = vec![Counted { packets: 3, octets_64_or_less: 3, ..Counted::default() }; 5];
        let used = queues(&settings, &state, &counted);
        let enabled: Vec<_> = used.iter().map(|queue| queue.enabled).collect();
        assert_eq!(enabled, [true, true, false, false, true]);
        assert_eq!((used[1].counters.packets[0], used[4].counters.packets[0]), (3, 0));
    }
}
