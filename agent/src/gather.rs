//! When a transaction of the switch begins: at once where nothing more is on its way, else a while later, so that what
//! comes meanwhile goes along. Each transaction costs ovs-vswitchd about as much as a look at all of its ports.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;
use virtnet_crds::Reason;

use crate::desired::Uid;
use crate::plan::{Assessment, Part, Stand, Step};

/// What the first transaction of a run waits for more. Each further one waits twice as long.
const FIRST: Duration = Duration::from_millis(25);
/// The longest that one waits.
const LONGEST: Duration = Duration::from_secs(2);
/// Where nothing more came for this part of its wait, it waits no longer: what is awaited may never come.
const QUIET: u32 = 8;
/// A run is over when there was no transaction for this long.
const RUN: Duration = Duration::from_secs(5);

/// Whether a device may come to have a port that is not among these steps: its function or its representor is awaited.
pub(crate) fn more_ports_to_come(devices: &BTreeMap<Uid, Assessment>, steps: &[Step]) -> bool {
    let of_ports = steps.iter().filter(|step| step.part() == Part::Port);
    let now: BTreeSet<_> = of_ports.filter_map(|step| Some(&step.device()?.uid)).collect();
    devices.iter().any(|(uid, assessment)| match &assessment.port {
        Some(Stand::Not(Reason::FunctionAbsent, _)) => true,
        Some(Stand::Not(Reason::Applying, _)) => assessment.found_port.is_none() && !now.contains(uid),
        _ => false,
    })
}

/// The wait of the transaction to come.
#[derive(Debug, Default)]
pub(crate) struct Gather {
    /// What is to be changed.
    waiting: Option<Waiting>,
    /// When the last transaction began, and how many of its run came before it.
    last: Option<(Instant, u32)>,
}

/// Changes that wait.
#[derive(Debug)]
struct Waiting {
    /// Since when there are any.
    since: Instant,
    /// How many there are.
    count: usize,
    /// When there came to be so many.
    counted: Instant,
}

impl Gather {
    /// Until when these changes, of which there is one at least, wait; `None`: they are made now. `more`: further ones may be
    /// on their way.
    pub(crate) fn wait(&mut self, count: usize, more: bool, now: Instant) -> Option<Instant> {
        let before = self.run(now);
        let wait = FIRST.saturating_mul(1 << before.min(16)).min(LONGEST);
        let quiet = (wait / QUIET).max(FIRST);
        let waiting = self.waiting.get_or_insert(Waiting { since: now, count, counted: now });
        if waiting.count != count {
            (waiting.count, waiting.counted) = (count, now);
        }
        let due = (waiting.since + wait).min(waiting.counted + quiet);
        if more && now < due {
            return Some(due);
        }
        self.waiting = None;
        self.last = Some((now, if more { before + 1 } else { 0 }));
        None
    }

    /// There is nothing to change, or no longer.
    pub(crate) fn nothing_waits(&mut self) {
        self.waiting = None;
    }

    /// How many transactions of a run that goes on there were.
    fn run(&self, now: Instant) -> u32 {
        self.last.filter(|(at, _)| now < *at + RUN).map_or(0, |(_, before)| before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn alone_it_begins_at_once() {
        let now = Instant::now();
        let mut gather = Gather::default();
        for _ in 0..10 {
            assert_eq!(gather.wait(1, false, now), None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn in_a_run_each_waits_longer_up_to_a_bound_while_more_comes() {
        let mut now = Instant::now();
        let (mut gather, mut waits) = (Gather::default(), Vec::new());
        for _ in 0..9 {
            let begun = now;
            let mut count = 1;
            while gather.wait(count, true, now).is_some() {
                now += Duration::from_millis(5);
                count += 1;
            }
            waits.push((now - begun).as_millis());
        }
        assert_eq!(waits, [25, 50, 100, 200, 400, 800, 1600, 2000, 2000]);
        // Nothing more is on its way: that ends the wait, and the run.
        assert!(gather.wait(1, true, now).is_some());
        assert_eq!(gather.wait(1, false, now), None);
        assert_eq!(gather.wait(1, true, now), Some(now + FIRST));
    }

    #[tokio::test(start_paused = true)]
    async fn where_nothing_comes_it_does_not_wait_for_long() {
        let mut now = Instant::now();
        let (mut gather, mut waits) = (Gather::default(), Vec::new());
        for _ in 0..9 {
            let due = gather.wait(3, true, now).unwrap();
            assert_eq!(gather.wait(3, true, due), None);
            waits.push((due - now).as_millis());
            now = due;
        }
        assert_eq!(waits, [25, 25, 25, 25, 50, 100, 200, 250, 250]);
        // A while later nothing is left of the run.
        let later = now + 6 * Duration::from_secs(1);
        assert_eq!(gather.wait(3, true, later), Some(later + FIRST));
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_no_longer_is_forgotten() {
        let now = Instant::now();
        let mut gather = Gather::default();
        assert_eq!(gather.wait(1, true, now), Some(now + FIRST));
        gather.nothing_waits();
        let later = now + 10 * FIRST;
        assert_eq!(gather.wait(1, true, later), Some(later + FIRST));
    }

    #[test]
    fn who_waits_for_a_person_is_not_waited_for() {
        let more = |port: Option<Stand>| {
            let stand = Stand::Not(Reason::FunctionAbsent, String::new());
            let assessment = Assessment {
                function: stand.clone(),
                representor: stand,
                port,
                pending: None,
                found: None,
                sf: None,
                found_port: None,
            };
            more_ports_to_come(&[(Uid::from("a"), assessment)].into(), &[])
        };
        assert!(!more(None) && !more(Some(Stand::Ready)));
        let not = |reason| Some(Stand::Not(reason, String::new()));
        for reason in [Reason::PortConflict, Reason::BridgeNotFound, Reason::PortError, Reason::SfExhausted] {
            assert!(!more(not(reason)), "{reason:?}");
        }
        assert!(more(not(Reason::FunctionAbsent)) && more(not(Reason::Applying)));
    }
}
