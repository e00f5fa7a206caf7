//! Fleets in turmoil, by seeds: programs killed, ways to the API on which everything goes wrong, two operators that both act,
//! MACs and slots that are fought for.
//!
//! `VIRTNET_FLEETS=N` plays N seeds under the paused clock instead of 60; `VIRTNET_SEED=S` plays one.

use std::time::Duration;

use virtnet_tests::fleet::embedded_api;
use virtnet_tests::turmoil::{Ground, Outcome, Tempo, play};
use virtnet_tests::world::LEASES;

const VIRTUAL: Tempo = Tempo {
    turmoil: Duration::from_secs(120),
    pause: Duration::from_secs(10),
    recovery: Duration::from_secs(1800),
    silence: Duration::from_secs(300),
};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|error| panic!("{name}={text}: {error}")))
}

fn under_a_paused_clock(seed: u64) -> anyhow::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()?;
    runtime.block_on(async {
        let (client, _, clock) = embedded_api().await;
        play(seed, Ground { client, clock, leases: LEASES, number: 1 }, VIRTUAL).await
    })
}

#[test]
fn under_a_paused_clock_every_seed_comes_to_rest_as_it_was_wanted() {
    let seeds: Vec<u64> = match number("VIRTNET_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("VIRTNET_FLEETS").unwrap_or(60)).collect(),
    };
    let next = std::sync::Mutex::new(seeds.iter().copied());
    let (totals, failures) = (std::sync::Mutex::new(Outcome::default()), std::sync::Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, std::num::NonZero::get) {
            scope.spawn(|| {
                loop {
                    let Some(seed) = next.lock().unwrap().next() else { return };
                    match under_a_paused_clock(seed) {
                        Ok(Outcome { devices, ready, claimed, deaths }) => {
                            let mut totals = totals.lock().unwrap();
                            totals.devices += devices;
                            totals.ready += ready;
                            totals.claimed += claimed;
                            totals.deaths += deaths;
                        }
                        Err(error) => failures.lock().unwrap().push(format!("{error:#}")),
                    }
                }
            });
        }
    });
    let (totals, failures) = (totals.into_inner().unwrap(), failures.into_inner().unwrap());
    println!("{} fleets: {totals:?}", seeds.len());
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), seeds.len(), failures.join("\n\n"));
    assert!(
        seeds.len() < 20 || (totals.ready * 2 > totals.devices && totals.claimed > 0 && totals.deaths > 0),
        "the fleets have become too tame, or too wild: {totals:?}"
    );
}
