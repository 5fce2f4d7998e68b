//! One request and its answer, behind the gate of the address.

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use cheetah_string::CheetahString;
use gantry_rocketmq_session::NoAnswer;
use parking_lot::Mutex;
use rocketmq_protocol::protocol::remoting_command::RemotingCommand;

use super::{
    answer::Answer,
    client::Request,
    gate::{Change, Gate, Shut},
    lanes::Lanes,
};
use crate::{BusError, BusErrorKind};

/// How long a call waits for an address that cannot be reached before it fails.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a call other than a pull waits for its answer. A dead broker is noticed by the gate long before that.
///
/// It is long for the sake of sends: one that is given up may have taken effect, and what it carries arrives twice. Other
/// calls wait as long because one without an answer puts the connection in doubt, and the sends on it.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// Codes of requests.
pub(super) mod code {
    pub(crate) const PULL_MESSAGE: i32 = 11;
    pub(crate) const QUERY_CONSUMER_OFFSET: i32 = 14;
    pub(crate) const UPDATE_CONSUMER_OFFSET: i32 = 15;
    pub(crate) const UPDATE_AND_CREATE_TOPIC: i32 = 17;
    pub(crate) const SEARCH_OFFSET_BY_TIMESTAMP: i32 = 29;
    pub(crate) const GET_MAX_OFFSET: i32 = 30;
    pub(crate) const GET_MIN_OFFSET: i32 = 31;
    pub(crate) const GET_ROUTE_BY_TOPIC: i32 = 105;
    pub(crate) const GET_CLUSTER_INFO: i32 = 106;
    pub(crate) const UPDATE_AND_CREATE_SUBSCRIPTION_GROUP: i32 = 200;
    pub(crate) const GET_SUBSCRIPTION_GROUP_CONFIG: i32 = 352;
}

/// A request: its code, header fields and body.
pub(super) fn request<const N: usize>(
    code: i32,
    fields: [(&'static str, CheetahString); N],
    body: Bytes,
) -> Request<'static> {
    let fields = fields
        .into_iter()
        .map(|(name, value)| (CheetahString::from_static_str(name), value))
        .collect();
    let request = RemotingCommand::create_remoting_command(code).set_ext_fields(fields);
    Request::Command(if body.is_empty() {
        request
    } else {
        request.set_body(body)
    })
}

/// A header field's value.
pub(super) fn field(value: impl fmt::Display) -> CheetahString {
    CheetahString::from_string(value.to_string())
}

/// What a call is for, in error texts: a verb and its object.
#[derive(Clone, Copy)]
pub(super) struct What<'a>(pub(super) &'static str, pub(super) &'a (dyn fmt::Display + Sync));

impl fmt::Display for What<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0, self.1)
    }
}

/// Calls to any address, each behind its gate.
///
/// Pulls have their own connections: hundreds wait, and what they bring must not hold up sends.
pub(super) struct Calls {
    pulls: Lanes,
    others: Lanes,
    gates: Mutex<HashMap<Arc<str>, Arc<Gate>>>,
}

impl Calls {
    /// Name servers as `host:port`, several separated by `;`.
    pub(super) fn new(namesrv: Arc<str>) -> Self {
        Self {
            pulls: Lanes::new(namesrv.clone()),
            others: Lanes::new(namesrv),
            gates: Mutex::default(),
        }
    }

    /// Sends the request and waits for its answer, whatever it says.
    ///
    /// # Errors
    /// `Unavailable`: after [`PATIENCE`] if the address cannot be reached, within milliseconds if the connection falls
    /// meanwhile, after the timeout if there is no answer. The text says whether the request may have taken effect.
    pub(super) async fn call(
        &self,
        what: What<'_>,
        address: &Arc<str>,
        request: Request<'_>,
        timeout: Duration,
    ) -> Result<Answer, BusError> {
        self.call_patiently(what, address, request, timeout, PATIENCE)
            .await
    }

    /// The same with another patience.
    pub(super) async fn call_patiently(
        &self,
        what: What<'_>,
        address: &Arc<str>,
        request: Request<'_>,
        timeout: Duration,
        patience: Duration,
    ) -> Result<Answer, BusError> {
        let gate = self.gate(address);
        let pass = gate
            .pass(patience)
            .await
            .map_err(|shut| unreachable(what, address, &shut))?;
        tokio::select! {
            biased;
            result = self.lanes(&request).call(address, request, timeout) => result.map_err(|failed| {
                if failed.doubtful {
                    gate.doubt();
                }
                no_answer(what, address, failed)
            }),
            () = gate.closed_since(pass) => Err(BusError::new(
                BusErrorKind::Unavailable,
                format!("{what}: lost the connection to {address}; whether it took effect is unknown"),
            )),
        }
    }

    /// Whether the address is known to be out of reach.
    pub(super) fn is_out_of_reach(&self, address: &str) -> bool {
        self.gates
            .lock()
            .get(address)
            .is_some_and(|gate| gate.is_closed())
    }

    /// Closes all connections; calls fail from now on.
    pub(super) async fn shutdown(&self) {
        for (_, gate) in self.gates.lock().drain() {
            gate.end();
        }
        tokio::join!(self.pulls.shutdown(), self.others.shutdown());
    }

    fn lanes(&self, request: &Request<'_>) -> &Lanes {
        match request {
            Request::Command(command) if command.code() == code::PULL_MESSAGE => &self.pulls,
            Request::Command(_) | Request::Messages(..) => &self.others,
        }
    }

    fn gate(&self, address: &Arc<str>) -> Arc<Gate> {
        let mut gates = self.gates.lock();
        if let Some(gate) = gates.get(address) {
            return gate.clone();
        }
        let told = address.clone();
        let gate = Arc::new(Gate::new(address, move |change| match change {
            Change::Closed => {
                tracing::warn!(address = %told, "rocketmq address cannot be reached, waiting for it");
            }
            Change::Reopened(outage) => {
                tracing::info!(
                    address = %told,
                    outage_s = outage.as_secs_f64(),
                    "rocketmq address can be reached again"
                );
            }
        }));
        gates.insert(address.clone(), gate.clone());
        gate
    }
}

fn unreachable(what: What<'_>, address: &str, shut: &Shut) -> BusError {
    let Shut { outage, why } = shut;
    BusError::new(
        BusErrorKind::Unavailable,
        format!(
            "{what}: {address} cannot be reached for {:.1} s: {why}",
            outage.as_secs_f64()
        ),
    )
}

fn no_answer(what: What<'_>, address: &str, failed: NoAnswer) -> BusError {
    let effect = if failed.unsent {
        "it was not sent"
    } else {
        "whether it took effect is unknown"
    };
    let text = format!("{what}: no answer from {address}: {}; {effect}", failed.why);
    match failed.source {
        Some(source) => BusError::caused_by(BusErrorKind::Unavailable, text, source),
        None => BusError::new(BusErrorKind::Unavailable, text),
    }
}
