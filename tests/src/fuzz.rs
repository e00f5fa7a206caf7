//! Fuzzing without a tool beside cargo: inputs of a corpus, changed by chance, for a bounded time.
//!
//! It knows nothing of coverage. What it is for: that no bytes are a panic, a hang or more memory than they are worth.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The longest that one input may take. They are short, so this is a hang and no slowness.
const ONE: Duration = Duration::from_secs(5);
/// The longest input.
const LONGEST: usize = 64 << 10;

/// What a run came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    /// How many inputs there were.
    pub inputs: u64,
    /// How many of them the target took for whole and right.
    pub taken: u64,
}

/// Puts changed inputs of a corpus, a folder of files, into a target for this long. The target says whether it took one for
/// right.
///
/// # Errors
/// An input that makes it panic or hang, in hexadecimal.
pub fn fuzz(
    corpus: &Path,
    seed: u64,
    time: Duration,
    target: impl Fn(&[u8]) -> bool,
) -> anyhow::Result<Outcome> {
    let mut files: Vec<_> = std::fs::read_dir(corpus)
        .with_context(|| format!("reading the corpus {}", corpus.display()))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    files.sort();
    let inputs =
        files.iter().map(std::fs::read).collect::<Result<Vec<_>, _>>().context("reading the corpus")?;
    ensure!(!inputs.is_empty(), "the corpus {} is empty", corpus.display());
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (begun, mut outcome) = (Instant::now(), Outcome::default());
    // The inputs themselves come first.
    let mut given = inputs.iter().cloned();
    while begun.elapsed() < time || outcome.inputs < inputs.len() as u64 {
        let input = given.next().unwrap_or_else(|| changed(&mut rng, &inputs));
        let one = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(|| target(&input)));
        let hex = || input.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        match result {
            Ok(taken) => outcome.taken += u64::from(taken),
            Err(_) => anyhow::bail!("input {} of seed {seed} is a panic: {}", outcome.inputs, hex()),
        }
        ensure!(
            one.elapsed() < ONE,
            "input {} of seed {seed} takes {:?}: {}",
            outcome.inputs,
            one.elapsed(),
            hex()
        );
        outcome.inputs += 1;
    }
    Ok(outcome)
}

/// An input of the corpus after some changes.
fn changed(rng: &mut ChaCha8Rng, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut input = pick(rng, corpus).clone();
    for _ in 0..rng.random_range(1..8) {
        let at = rng.random_range(0..=input.len());
        let end = (at + rng.random_range(1..64)).min(input.len());
        match rng.random_range(0..7) {
            0 if at < input.len() => input[at] ^= 1 << rng.random_range(0..8),
            1 if at < input.len() => input[at] = rng.random(),
            2 => drop(input.drain(at..end)),
            3 => {
                let piece = input[at..end].to_vec();
                input.splice(at..at, piece);
            }
            4 => {
                let other = pick(rng, corpus);
                let from = rng.random_range(0..=other.len());
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            // Bytes that mean much: brackets and quotes of JSON, lengths at their ends.
            5 => input.insert(at, *pick(rng, b"{}[]\",:\\\0\x01\x7f\x80\xff")),
            _ => input[at..end].fill(*pick(rng, b"\0\xff[{1")),
        }
    }
    input.truncate(LONGEST);
    input
}

fn pick<'c, T>(rng: &mut ChaCha8Rng, from: &'c [T]) -> &'c T {
    &from[rng.random_range(0..from.len())]
}
