//! What only the later generation has. Pure.

use anyhow::bail;
use virtnet_model::Generation;

/// Refuses what the guide's generation does not have, and says what to do about it.
pub(crate) fn later(generation: Generation, what: &str, instead: &str) -> anyhow::Result<()> {
    match generation {
        Generation::Later => Ok(()),
        Generation::Guide => bail!(
            "the controller is of the guide's generation, which has no {what}: {instead}, or set generation to later in \
             virtnet.conf and restart the controller"
        ),
    }
}
