//! The seeded simulation: API, agent and DPU on one thread under a paused clock, with crashes before and after every effect,
//! failures, stale and cut watches, and what people and hardware do meanwhile.
//!
//! `VIRTNET_SEEDS=N` runs N seeds instead of 1000; `VIRTNET_SEED=S` runs one and prints its trace.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use mimalloc::MiMalloc;
use virtnet_tests::scenario::{Outcome, run};

// The simulation makes small allocations all the time: this allocator takes two fifths off it.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|error| panic!("{name}={text}: {error}")))
}

#[test]
fn every_seed_converges_and_then_is_silent() {
    if let Some(seed) = number("VIRTNET_SEED") {
        let Outcome { trace, devices: (all, ready), deaths, failure } = run(seed).unwrap();
        println!("{}\n{ready} of {all} devices Ready, {deaths} deaths", trace.join("\n"));
        assert_eq!(failure, None);
        return;
    }
    let seeds = number("VIRTNET_SEEDS").unwrap_or(1000);
    let (next, failures, totals) = (AtomicU64::new(0), Mutex::new(Vec::new()), Mutex::new((0, 0, 0)));
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        return;
                    }
                    let failure = match std::panic::catch_unwind(|| run(seed)) {
                        Ok(Ok(Outcome { devices: (all, ready), deaths, failure, .. })) => {
                            let mut totals = totals.lock().unwrap_or_else(PoisonError::into_inner);
                            *totals = (totals.0 + all, totals.1 + ready, totals.2 + deaths);
                            failure
                        }
                        Ok(Err(error)) => Some(format!("{error:#}")),
                        Err(_) => Some(format!("seed {seed}: panicked")),
                    };
                    failures.lock().unwrap_or_else(PoisonError::into_inner).extend(failure);
                }
            });
        }
    });
    let (all, ready, deaths) = totals.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!("{seeds} seeds: {ready} of {all} devices Ready at the end, {deaths} deaths of agents");
    let failures = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
    assert!(failures.is_empty(), "{} of {seeds} seeds:\n{}", failures.len(), failures.join("\n"));
    assert!(
        seeds < 100 || (deaths > 0 && ready * 2 > all),
        "the scenarios have become too tame, or too wild"
    );
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..5 {
        assert_eq!(run(seed).unwrap(), run(seed).unwrap(), "seed {seed}");
    }
}
