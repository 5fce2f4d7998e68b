use gantry_connector::{Config, ConfigSpec, ConnectorError, Param};

/// The parameters.
pub(super) fn spec() -> ConfigSpec {
    ConfigSpec::new()
        .param(
            Param::string("password")
                .doc("What it gives away.")
                .required()
                .secret(),
        )
        .param(
            Param::one_of("tells", ["log", "open", "poll", "refusal", "panic", "plan"])
                .doc("Where it gives it away, besides its log: in an error of a hook, in a panic, or in the plan of its task.")
                .default("log"),
        )
        .param(Param::string("note").doc("Where a plan tells it."))
}

/// The parameters of a task.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) password: String,
    pub(super) tells: Tells,
}

/// Where the secret is given away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tells {
    Log,
    Open,
    Poll,
    Refusal,
    Panic,
    Plan,
}

impl Settings {
    pub(super) fn read(config: &Config) -> Result<Self, ConnectorError> {
        Ok(Self {
            password: config.str("password")?.to_owned(),
            tells: match config.str("tells")? {
                "open" => Tells::Open,
                "poll" => Tells::Poll,
                "refusal" => Tells::Refusal,
                "panic" => Tells::Panic,
                "plan" => Tells::Plan,
                _ => Tells::Log,
            },
        })
    }

    /// A sentence with the secret in it.
    pub(super) fn gossip(&self) -> String {
        format!("cannot log in as bob with {}", self.password)
    }
}
