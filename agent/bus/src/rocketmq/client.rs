//! RocketMQ's transport: one connection per address, requests and answers matched. Built at the first call and built
//! anew when it keeps failing although the address can be reached.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use cheetah_string::CheetahString;
use parking_lot::Mutex;
use rocketmq_protocol::protocol::remoting_command::RemotingCommand;
use rocketmq_runtime::{RuntimeContext, ShutdownDeadline};
use rocketmq_transport::api::{
    ConnectConfig, DefaultRequestProcessor, OutboundRequestOutcome, OutboundRequestRejectionReason,
    OutboundRequestStage, RemotingClient, TransportClientConfig, TransportError,
};
use tokio::time::Instant;

use super::answer::Answer;

/// So many failures to connect in a row, with the port open, and the transport is built anew.
const FAILURES_BEFORE_REBUILD: u32 = 3;
/// It is built anew at most this often.
const REBUILD_INTERVAL: Duration = Duration::from_secs(1);
/// How long a request waits for room in its connection's queue.
const QUEUE_PATIENCE: Duration = Duration::from_secs(2);
const QUEUE_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_QUEUE_PAUSE: Duration = Duration::from_millis(20);
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// Why there is no answer.
#[derive(Debug)]
pub(super) struct NoAnswer {
    /// In words, to follow "no answer from ADDRESS: ".
    pub(super) why: &'static str,
    /// What the transport said.
    pub(super) source: Option<TransportError>,
    /// Nothing was written, so the call has had no effect.
    pub(super) unsent: bool,
    /// The connection may be gone.
    pub(super) doubtful: bool,
}

impl NoAnswer {
    pub(super) fn shut_down() -> Self {
        Self {
            why: "the bus was shut down",
            source: None,
            unsent: true,
            doubtful: false,
        }
    }
}

struct Transport {
    remoting: Arc<RemotingClient>,
    /// The tasks of the transport live as long as this.
    _context: RuntimeContext,
}

#[derive(Default)]
struct State {
    transport: Option<Arc<Transport>>,
    built: Option<Instant>,
    failures: u32,
    shut_down: bool,
}

/// A transport, for any number of addresses.
#[derive(Default)]
pub(super) struct Client {
    state: Mutex<State>,
}

impl Client {
    /// Sends the request and waits for its answer.
    ///
    /// What was certainly not sent is sent again: once if a connection or the transport had to be replaced, and for
    /// [`QUEUE_PATIENCE`] while the connection's queue is full, which a burst of a thousand requests does.
    pub(super) async fn call(
        &self,
        address: &str,
        request: RemotingCommand,
        timeout: Duration,
    ) -> Result<Answer, NoAnswer> {
        let start = Instant::now();
        let mut replaced = false;
        let mut pause = QUEUE_PAUSE;
        loop {
            let failed = match self.call_once(address, request.clone(), timeout).await {
                Err(failed) if failed.unsent => failed,
                decided => return decided,
            };
            match failed.why {
                CONNECTION_CLOSED | REFUSES_TO_CONNECT if !replaced => replaced = true,
                QUEUE_FULL if start.elapsed() < QUEUE_PATIENCE => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_QUEUE_PAUSE);
                }
                _ => return Err(failed),
            }
        }
    }

    async fn call_once(
        &self,
        address: &str,
        request: RemotingCommand,
        timeout: Duration,
    ) -> Result<Answer, NoAnswer> {
        let transport = self.transport()?;
        let address = CheetahString::from(address);
        let result = transport
            .remoting
            .invoke_request(Some(&address), request, timeout.as_millis() as u64)
            .await;
        let result = answer_of(result);
        self.learn(&transport, &result);
        result
    }

    /// Forgets the connection to the address, so that the next call makes a new one.
    pub(super) fn disconnect(&self, address: &str) {
        let transport = self.state.lock().transport.clone();
        if let Some(transport) = transport {
            transport.remoting.close_clients(vec![address.to_owned()]);
        }
    }

    /// Closes all connections. Calls fail from now on.
    pub(super) async fn shutdown(&self) {
        let transport = {
            let mut state = self.state.lock();
            state.shut_down = true;
            state.transport.take()
        };
        if let Some(transport) = transport {
            stop(transport).await;
        }
    }

    fn transport(&self) -> Result<Arc<Transport>, NoAnswer> {
        let mut state = self.state.lock();
        if state.shut_down {
            return Err(NoAnswer::shut_down());
        }
        if let Some(transport) = &state.transport {
            return Ok(transport.clone());
        }
        let transport = Arc::new(build()?);
        state.transport = Some(transport.clone());
        state.built = Some(Instant::now());
        state.failures = 0;
        Ok(transport)
    }

    /// Lets go of the transport that was used if it does not connect. The caller saw the port open.
    fn learn(&self, used: &Arc<Transport>, result: &Result<Answer, NoAnswer>) {
        let mut state = self.state.lock();
        let failures = match result {
            Ok(_) => 0,
            Err(failed) if failed.why == REFUSES_TO_CONNECT => FAILURES_BEFORE_REBUILD,
            Err(failed) if failed.why == CANNOT_CONNECT => state.failures + 1,
            Err(_) => return,
        };
        state.failures = failures;
        let current = state
            .transport
            .as_ref()
            .is_some_and(|current| Arc::ptr_eq(current, used));
        let old_enough = state
            .built
            .is_some_and(|built| built.elapsed() >= REBUILD_INTERVAL);
        if failures >= FAILURES_BEFORE_REBUILD && current && old_enough {
            tracing::info!(
                "rocketmq transport does not connect although the port is open, building a new one"
            );
            if let Some(old) = state.transport.take() {
                tokio::spawn(stop(old));
            }
        }
    }
}

const QUEUE_FULL: &str = "too many requests are in flight";
const CONNECTION_CLOSED: &str = "the connection was closed";
const CANNOT_CONNECT: &str = "cannot connect";
const REFUSES_TO_CONNECT: &str = "the transport refuses to connect after failures";

fn build() -> Result<Transport, NoAnswer> {
    let cannot_build = |why| NoAnswer {
        why,
        source: None,
        unsent: true,
        doubtful: false,
    };
    let context = RuntimeContext::try_from_current("gantry-bus").map_err(|error| {
        tracing::error!(%error, "rocketmq transport cannot use this runtime");
        cannot_build("the transport needs a tokio runtime")
    })?;
    let config = TransportClientConfig {
        connect: ConnectConfig {
            timeout: Duration::from_secs(2),
        },
        ..Default::default()
    };
    let remoting = RemotingClient::builder(
        Arc::new(config),
        DefaultRequestProcessor,
        context.service_context("rocketmq"),
    )
    .build()
    .map_err(|error| {
        tracing::error!(%error, "rocketmq transport cannot be built");
        cannot_build("the transport cannot be built")
    })?;
    Ok(Transport {
        remoting: Arc::new(remoting),
        _context: context,
    })
}

async fn stop(transport: Arc<Transport>) {
    let stop = transport
        .remoting
        .shutdown_until(ShutdownDeadline::after(SHUTDOWN_TIMEOUT));
    if tokio::time::timeout(SHUTDOWN_TIMEOUT * 2, stop).await.is_err() {
        tracing::debug!("rocketmq transport did not stop in time");
    }
}

fn answer_of(outcome: Result<OutboundRequestOutcome, TransportError>) -> Result<Answer, NoAnswer> {
    use OutboundRequestRejectionReason as Reason;
    let unsent = |stage| stage == OutboundRequestStage::BeforeWrite;
    match outcome {
        Ok(OutboundRequestOutcome::Response(mut response)) => Ok(Answer {
            code: response.code(),
            remark: response
                .remark()
                .map(|remark| remark.as_str().into())
                .unwrap_or_default(),
            body: response.take_body().unwrap_or_else(Bytes::new),
            fields: response.ext_fields().cloned().unwrap_or_default(),
        }),
        Ok(OutboundRequestOutcome::Rejected(rejection)) => {
            let (why, doubtful) = match rejection.reason() {
                Reason::DeadlineExpired => ("no answer in time", true),
                Reason::SessionClosed | Reason::Cancelled => (CONNECTION_CLOSED, true),
                Reason::EndpointUnavailable => (REFUSES_TO_CONNECT, true),
                Reason::QueueSaturated => (QUEUE_FULL, false),
                Reason::ClientStopping => ("the transport is being replaced", false),
            };
            Err(NoAnswer {
                why,
                source: None,
                unsent: unsent(rejection.stage()),
                doubtful,
            })
        }
        Ok(OutboundRequestOutcome::Contract(_)) => Err(NoAnswer {
            why: "no address",
            source: None,
            unsent: true,
            doubtful: false,
        }),
        Err(error) => {
            let unsent = error.request_stage().is_some_and(unsent);
            let why = if unsent {
                CANNOT_CONNECT
            } else {
                "the connection failed"
            };
            Err(NoAnswer {
                why,
                source: Some(error),
                unsent,
                doubtful: true,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    /// Answers every request with success.
    async fn serve(mut stream: TcpStream) {
        let mut input = BytesMut::new();
        while stream.read_buf(&mut input).await.is_ok_and(|bytes| bytes > 0) {
            while let Ok(Some(request)) = RemotingCommand::decode(&mut input) {
                let mut answer =
                    RemotingCommand::create_response_command_with_code(0).set_opaque(request.opaque());
                let mut output = BytesMut::new();
                answer.fast_header_encode(&mut output);
                stream.write_all(&output).await.unwrap();
            }
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_transport_that_has_given_an_address_up_is_replaced_when_the_port_opens() {
        let address = TcpListener::bind("127.0.0.1:0")
            .await
            .unwrap()
            .local_addr()
            .unwrap();
        let client = Client::default();
        let name = address.to_string();
        let call = async || {
            client
                .call(
                    &name,
                    RemotingCommand::create_remoting_command(105),
                    Duration::from_secs(2),
                )
                .await
        };
        let first = client.transport().unwrap();
        let replaced = || !Arc::ptr_eq(&first, &client.transport().unwrap());
        while call().await.unwrap_err().why != REFUSES_TO_CONNECT && !replaced() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(REBUILD_INTERVAL).await;
        let listener = TcpListener::bind(address).await.unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream));
            }
        });
        assert_eq!(call().await.unwrap().code, 0);
        assert!(replaced());
        client.shutdown().await;
        assert_eq!(call().await.unwrap_err().why, "the bus was shut down");
    }
}
