//! The methods of a controller's socket, and their parameters. Each answers with what its constant says.

use serde::{Deserialize, Serialize};
use virtnet_model::{Change, Target};

/// The device table and the limits: a [`ControllerState`](virtnet_model::ControllerState).
pub const OBSERVE: &str = "observe";
/// Makes a function; takes a [`HotplugRequest`](virtnet_model::HotplugRequest) and answers with the
/// [`Function`](virtnet_model::Function).
pub const HOTPLUG: &str = "hotplug";
/// Removes a hot-plugged function; takes an [`Unplug`] and answers with null.
pub const UNPLUG: &str = "unplug";
/// Changes settings; takes a [`Modify`] and answers with null.
pub const MODIFY: &str = "modify";
/// From now on [`CHANGED`] is told on this connection; answers with null.
pub const SUBSCRIBE: &str = "subscribe";
/// Told, not asked: what [`OBSERVE`] answers may be another by now. Several changes may be told at once.
pub const CHANGED: &str = "changed";
/// How much is logged from now on; takes a [`Log`] and answers with null.
pub const LOG: &str = "log";
/// The running version and the installed one: a [`Version`].
pub const VERSION: &str = "version";

/// Lets the controller begin anew, without parameters; functions stay. Answers with null at once.
pub const RESTART: &str = "restart";

/// Begins a live update (the guide, section 1.1.4), without parameters: the installed program takes over, and functions stay.
/// Answers with null at once; refused while one runs.
pub const UPDATE: &str = "update";
/// How a live update goes: an [`UpdateStatus`].
pub const UPDATE_STATUS: &str = "update.status";

/// Which function to unplug.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unplug {
    /// The function.
    pub target: Target,
}

/// Which function to change, and how.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Modify {
    /// The function, or a VF that is not there yet.
    pub target: Target,
    /// What of it.
    pub change: Change,
}

/// How much is logged.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// From which level on.
    pub level: Level,
}

/// The levels of `virtnet log -l` (the guide, section 1.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// What is done and seen.
    Info,
    /// What failed.
    Err,
    /// Everything.
    Debug,
}

/// Live updates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UpdateStatus {
    /// One is running.
    pub running: bool,
    /// The one that ended last; `None`: there was none since the service began.
    pub last: Option<LastUpdate>,
}

/// A live update that has ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LastUpdate {
    /// Why the program of before serves again; `None`: it went well.
    pub failure: Option<String>,
    /// How long it took, in seconds.
    pub seconds: f64,
}

/// Versions of the controller (the guide, section 1.1.4).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Of the one that runs.
    pub running: String,
    /// Of the one that is installed, which the next start or update runs.
    pub installed: String,
}
