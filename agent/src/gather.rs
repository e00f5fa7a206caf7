//! When a transaction of the switch begins: at once where nothing more is on its way, else a while later, so that what
//! comes meanwhile goes along. Each transaction costs ovs-vswitchd about as much as a look at all of its ports.

use std::time::Duration;

use tokio::time::Instant;

/// What the first transaction of a run waits for more. Each further one waits twice as long.
const FIRST: Duration = Duration::from_millis(25);
/// The longest that one waits.
const LONGEST: Duration = Duration::from_secs(2);
/// A run is over when there was no transaction for this long.
const RUN: Duration = Duration::from_secs(5);

/// The wait of the transaction to come.
#[derive(Debug, Default)]
pub(crate) struct Gather {
    /// Since when there is something to change.
    since: Option<Instant>,
    /// When the last transaction began, and how many of its run came before it.
    last: Option<(Instant, u32)>,
}

impl Gather {
    /// Until when what is to be changed waits; `None`: it begins now. `more`: further ports are on their way.
    pub(crate) fn wait(&mut self, more: bool, now: Instant) -> Option<Instant> {
        let since = *self.since.get_or_insert(now);
        let before = self.run(now);
        let due = since + FIRST.saturating_mul(1 << before.min(16)).min(LONGEST);
        if more && now < due {
            return Some(due);
        }
        self.since = None;
        self.last = Some((now, if more { before + 1 } else { 0 }));
        None
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
            assert_eq!(gather.wait(false, now), None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn in_a_run_each_waits_longer_up_to_a_bound() {
        let start = Instant::now();
        let (mut gather, mut now, mut waits) = (Gather::default(), start, Vec::new());
        for _ in 0..9 {
            let due = gather.wait(true, now).unwrap();
            waits.push((due - now).as_millis());
            assert_eq!(gather.wait(true, now), Some(due), "it counts from what waited first");
            assert_eq!(gather.wait(true, due), None);
            now = due;
        }
        assert_eq!(waits, [25, 50, 100, 200, 400, 800, 1600, 2000, 2000]);
        // Nothing more is on its way: that ends the wait, and the run.
        assert!(gather.wait(true, now).is_some());
        assert_eq!(gather.wait(false, now), None);
        assert_eq!(gather.wait(true, now), Some(now + FIRST));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_long_delays_nobody_else() {
        let now = Instant::now();
        let mut gather = Gather::default();
        for second in 0..20 {
            let now = now + 6 * second * Duration::from_secs(1);
            let due = gather.wait(true, now).unwrap();
            assert_eq!(due - now, FIRST);
            assert_eq!(gather.wait(true, due), None);
        }
    }
}
