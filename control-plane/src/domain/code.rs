//! Reasons why a task is not where it should be, for programs: [`super::Reason::code`].

/// No agent that is connected has the plugin in the version needed.
pub const NO_AGENT_WITH_PLUGIN: &str = "NO_AGENT_WITH_PLUGIN";
/// Agents have the plugin, but not the labels asked for.
pub const SELECTOR: &str = "SELECTOR";
/// No agent on the host where the task's data is.
pub const HOST_GONE: &str = "HOST_GONE";
/// All agents that could take it are cordoned or draining.
pub const CORDONED: &str = "CORDONED";
/// All agents that could take it are full.
pub const NO_CAPACITY: &str = "NO_CAPACITY";
/// All agents that could take it have refused it.
pub const REFUSED: &str = "REFUSED";
/// The holder is not heard, and it is not proven that it is gone.
pub const OLD_INSTANCE_NOT_GONE: &str = "OLD_INSTANCE_NOT_GONE";
/// The holder is gone, and too many others are too.
pub const BRAKE: &str = "BRAKE";
/// The holder is gone, and no other agent can take it.
pub const NO_OTHER_AGENT: &str = "NO_OTHER_AGENT";
/// Tasks of the plan before have not all ended.
pub const WAITING_FOR_OLD_PLAN: &str = "WAITING_FOR_OLD_PLAN";
/// The present generation is not planned yet.
pub const WAITING_FOR_PLAN: &str = "WAITING_FOR_PLAN";
/// An agent is being asked to split the connector into tasks.
pub const PLANNING: &str = "PLANNING";
/// Planning has failed.
pub const PLAN_FAILED: &str = "PLAN_FAILED";
/// The holder was told to stop and has not confirmed it.
pub const STOPPING: &str = "STOPPING";
/// The task is on its way to another agent.
pub const MOVING: &str = "MOVING";
/// The task should move, and many others do right now.
pub const MOVE_LATER: &str = "MOVE_LATER";
/// The task should move, and no other agent can take it.
pub const CANNOT_MOVE: &str = "CANNOT_MOVE";
