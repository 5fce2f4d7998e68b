//! An instance of RocketMQ's client, so one connection per address. Built at the first call and built anew when it keeps
//! failing although the address can be reached.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use gantry_rocketmq_session::{
    self as session, CANNOT_CONNECT, CONNECTION_CLOSED, NoAnswer, QUEUE_FULL, REFUSES_TO_CONNECT, Session,
    Target,
};
use parking_lot::Mutex;
use rocketmq_protocol::protocol::remoting_command::RemotingCommand;
use tokio::time::Instant;

use super::answer::Answer;
use crate::Queue;

/// So many failures to connect in a row, with the port open, and the client is built anew.
const FAILURES_BEFORE_REBUILD: u32 = 3;
/// It is built anew at most this often.
const REBUILD_INTERVAL: Duration = Duration::from_secs(1);
/// How long a request waits for room in its connection's queue.
const QUEUE_PATIENCE: Duration = Duration::from_secs(2);
const QUEUE_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_QUEUE_PAUSE: Duration = Duration::from_millis(20);

/// A request to an address.
#[derive(Clone)]
pub(super) enum Request<'a> {
    /// The command as it is.
    Command(RemotingCommand),
    /// Encoded messages for a queue, by the client's producer.
    Messages(&'a Queue, Bytes),
}

#[derive(Default)]
struct State {
    instance: Option<Arc<dyn Session>>,
    built: Option<Instant>,
    failures: u32,
    shut_down: bool,
}

/// An instance, for any number of addresses.
pub(super) struct Client {
    namesrv: Arc<str>,
    state: Mutex<State>,
}

impl Client {
    /// Name servers as `host:port`, several separated by `;`.
    pub(super) fn new(namesrv: Arc<str>) -> Self {
        Self {
            namesrv,
            state: Mutex::default(),
        }
    }

    /// Sends the request and waits for its answer.
    ///
    /// What was certainly not sent is sent again: once if a connection or the instance had to be replaced, and for
    /// [`QUEUE_PATIENCE`] while the connection's queue is full, which a burst of a thousand requests does.
    pub(super) async fn call(
        &self,
        address: &Arc<str>,
        request: Request<'_>,
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
        address: &Arc<str>,
        request: Request<'_>,
        timeout: Duration,
    ) -> Result<Answer, NoAnswer> {
        let instance = self.instance()?;
        let result = match request {
            Request::Command(command) => instance.call(address, command, timeout).await,
            Request::Messages(queue, batch) => {
                let target = Target {
                    topic: &queue.topic,
                    broker: &queue.broker,
                    queue: queue.id,
                    address,
                };
                instance.send(target, batch, timeout).await
            }
        };
        let result = result.map(Answer::from);
        self.learn(&instance, &result);
        result
    }

    /// Closes all connections. Calls fail from now on.
    pub(super) async fn shutdown(&self) {
        let instance = {
            let mut state = self.state.lock();
            state.shut_down = true;
            state.instance.take()
        };
        if let Some(instance) = instance {
            instance.stop().await;
        }
    }

    fn instance(&self) -> Result<Arc<dyn Session>, NoAnswer> {
        let mut state = self.state.lock();
        if state.shut_down {
            return Err(shut_down());
        }
        if let Some(instance) = &state.instance {
            return Ok(instance.clone());
        }
        let instance = session::open(&self.namesrv)?;
        state.instance = Some(instance.clone());
        state.built = Some(Instant::now());
        state.failures = 0;
        Ok(instance)
    }

    /// Lets go of the instance that was used if it does not connect. The caller saw the port open.
    fn learn(&self, used: &Arc<dyn Session>, result: &Result<Answer, NoAnswer>) {
        let mut state = self.state.lock();
        let failures = match result {
            Ok(_) => 0,
            Err(failed) if failed.why == REFUSES_TO_CONNECT => FAILURES_BEFORE_REBUILD,
            Err(failed) if failed.why == CANNOT_CONNECT => state.failures + 1,
            Err(_) => return,
        };
        state.failures = failures;
        let current = state
            .instance
            .as_ref()
            .is_some_and(|current| Arc::ptr_eq(current, used));
        let old_enough = state
            .built
            .is_some_and(|built| built.elapsed() >= REBUILD_INTERVAL);
        if failures >= FAILURES_BEFORE_REBUILD && current && old_enough {
            tracing::info!("rocketmq client does not connect although the port is open, building a new one");
            if let Some(old) = state.instance.take() {
                tokio::spawn(async move { old.stop().await });
            }
        }
    }
}

/// Why calls fail after a shutdown.
pub(super) fn shut_down() -> NoAnswer {
    NoAnswer::unsent("the bus was shut down", None)
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
    async fn a_client_that_has_given_an_address_up_is_replaced_when_the_port_opens() {
        let address = TcpListener::bind("127.0.0.1:0")
            .await
            .unwrap()
            .local_addr()
            .unwrap();
        let name: Arc<str> = address.to_string().into();
        let client = Client::new(name.clone());
        let call = async || {
            client
                .call(
                    &name,
                    Request::Command(RemotingCommand::create_remoting_command(105)),
                    Duration::from_secs(2),
                )
                .await
        };
        let first = client.instance().unwrap();
        let replaced = || !Arc::ptr_eq(&first, &client.instance().unwrap());
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
