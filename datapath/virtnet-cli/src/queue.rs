//! A queue as JSON: [`Queue`], with the names that later guides have in `virtnet query`, and what went through it as
//! [`Counters`]. Pure.
//!
//! Counters are texts, as those guides show them.

use serde::Serialize;
use virtnet_model::{PeriodMode, QueueCounters, QueueRole, QueueState};

use crate::device::{NO_VECTOR, hex};

/// A queue as `query` shows it.
#[derive(Debug, Serialize)]
pub(crate) struct Queue {
    index: u16,
    size: u16,
    msix_vector: String,
    enable: u8,
    notify_offset: String,
    descriptor_address: String,
    driver_address: String,
    device_address: String,
    #[serde(flatten)]
    counters: Counters,
}

/// What went through it, and when its driver is interrupted.
#[derive(Debug, Serialize)]
pub(crate) struct Counters {
    received_desc: String,
    completed_desc: String,
    bad_desc_errors: String,
    error_cqes: String,
    exceed_max_chain: String,
    invalid_buffer: String,
    batch_number: String,
    dma_q_used_number: String,
    total_bytes: String,
    #[serde(flatten)]
    moderation: Option<Moderation>,
}

/// Of a receive queue alone.
#[derive(Debug, Serialize)]
struct Moderation {
    rq_cq_max_count: String,
    rq_cq_period: String,
    rq_cq_period_mode: String,
}

impl Counters {
    pub(crate) fn of(queue: &QueueState) -> Self {
        let QueueCounters {
            received_desc,
            completed_desc,
            bad_desc_errors,
            error_cqes,
            exceed_max_chain,
            invalid_buffer,
            batches,
            dma_queues,
            total_bytes,
            packets: _,
        } = queue.counters;
        let moderation = queue.moderation;
        let mode = match moderation.mode {
            PeriodMode::Event => 0,
            PeriodMode::Completion => 1,
        };
        let moderation = (queue.role == QueueRole::Receive).then(|| Moderation {
            rq_cq_max_count: moderation.max_count.to_string(),
            rq_cq_period: moderation.period.to_string(),
            rq_cq_period_mode: mode.to_string(),
        });
        Self {
            received_desc: received_desc.to_string(),
            completed_desc: completed_desc.to_string(),
            bad_desc_errors: bad_desc_errors.to_string(),
            error_cqes: error_cqes.to_string(),
            exceed_max_chain: exceed_max_chain.to_string(),
            invalid_buffer: invalid_buffer.to_string(),
            batch_number: batches.to_string(),
            dma_q_used_number: dma_queues.to_string(),
            total_bytes: total_bytes.to_string(),
            moderation,
        }
    }
}

impl Queue {
    pub(crate) fn of(queue: &QueueState) -> Self {
        Self {
            index: queue.index,
            size: queue.size,
            msix_vector: hex(queue.vector.unwrap_or(NO_VECTOR)),
            enable: queue.enabled.into(),
            notify_offset: hex(queue.notify_offset),
            descriptor_address: hex(queue.descriptor_area),
            driver_address: hex(queue.driver_area),
            device_address: hex(queue.device_area),
            counters: Counters::of(queue),
        }
    }
}
