//! The methods of a controller's socket, and their parameters. Each answers with what its constant says.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use virtnet_model::{Change, Generation, Moderation, Target, Uplink};

/// The device table and the limits: a [`ControllerState`](virtnet_model::ControllerState).
pub const OBSERVE: &str = "observe";
/// Makes a function; takes a [`HotplugRequest`](virtnet_model::HotplugRequest) and answers with the
/// [`Function`](virtnet_model::Function).
pub const HOTPLUG: &str = "hotplug";
/// Removes a hot-plugged function; takes an [`Unplug`] and answers with null.
pub const UNPLUG: &str = "unplug";
/// Changes settings; takes a [`Modify`] and answers with null.
pub const MODIFY: &str = "modify";
/// The queues of a function; takes a [`QueuesOf`] and answers with [`QueueState`](virtnet_model::QueueState)s.
pub const QUEUES: &str = "queues";
/// When a driver is interrupted for what it receives; takes a [`Moderate`] and answers with null.
pub const MODERATE: &str = "moderate";
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

/// How the service is: a [`Health`].
pub const HEALTH: &str = "health";
/// Whether a virtnet.conf can be used here; takes a [`Validate`] and answers with a [`Validated`].
pub const VALIDATE: &str = "validate";
/// All that is known inside, for who looks for a mistake: JSON of no lasting shape.
pub const DEBUG: &str = "debug";

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

/// Of which function.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueuesOf {
    /// The function.
    pub target: Target,
}

/// Whose interrupts are moderated, and how.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Moderate {
    /// The function.
    pub target: Target,
    /// What holds from now on.
    pub moderation: Moderation,
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

/// How the service is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Whose rules hold.
    pub generation: Generation,
    /// The RDMA devices of the uplinks by virtnet.conf.
    #[serde(default)]
    pub rdma_devices: BTreeMap<Uplink, String>,
    /// Workers that have begun since the service did.
    pub workers: u64,
    /// Those of them that hung, were killed or ended by themselves.
    pub failures: u64,
    /// Why the last of those ended.
    pub last_failure: Option<String>,
    /// What the device was asked to do, did not come to the end of, and was given up; until it comes to the end of something.
    pub given_up: Vec<String>,
}

/// What is to be validated.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Validate {
    /// The text of a virtnet.conf; `None`: that which the next start would read.
    pub conf: Option<String>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Validated {
    /// The file that was read; `None`: the text was sent, or there is no file.
    pub file: Option<String>,
    /// For what it can't be used.
    pub errors: Vec<String>,
    /// What could not be done with it on this device.
    pub warnings: Vec<String>,
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
