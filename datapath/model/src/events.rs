//! The event stream that every part of a DPU offers.

use futures::stream::BoxStream;

/// The part's state may differ from what was last observed.
///
/// Carries nothing: whoever receives it observes again. Several changes may be told by one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed;

/// A part's events, from the call that made the stream on. The stream ends with its part.
pub type Events = BoxStream<'static, Changed>;
