//! Where uids and generated names come from: the machine's entropy, or a seed.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use uuid::Uuid;

/// Letters of generated names: no vowels and no digits that look like letters, as upstream, so that no words arise.
const SUFFIX_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX_LENGTH: usize = 5;

/// The source of identities.
pub trait Ids: Send + Sync + fmt::Debug {
    /// Sixteen bytes that no other object got.
    fn bytes(&self) -> [u8; 16];
}

/// Identities from the operating system's entropy.
#[derive(Debug, Clone, Copy, Default)]
pub struct RandomIds;

impl Ids for RandomIds {
    fn bytes(&self) -> [u8; 16] {
        rand::random()
    }
}

/// The same identities for the same seed, in the order in which they are asked for.
#[derive(Debug)]
pub struct SeededIds(Mutex<ChaCha8Rng>);

impl SeededIds {
    /// A source that depends on `seed` alone.
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(ChaCha8Rng::seed_from_u64(seed)))
    }
}

impl Ids for SeededIds {
    fn bytes(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        self.0.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(&mut bytes);
        bytes
    }
}

/// A version 4 UUID in its usual form.
pub(crate) fn uid(ids: &dyn Ids) -> String {
    uuid::Builder::from_random_bytes(ids.bytes()).into_uuid().to_string()
}

/// The end of a name made from `generateName`.
pub(crate) fn suffix(ids: &dyn Ids) -> String {
    let bytes = Uuid::from_bytes(ids.bytes());
    bytes
        .as_bytes()
        .iter()
        .take(SUFFIX_LENGTH)
        .map(|byte| char::from(SUFFIX_ALPHABET[usize::from(*byte) % SUFFIX_ALPHABET.len()]))
        .collect()
}
