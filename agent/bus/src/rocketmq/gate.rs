//! The gate of one address: whether it can be reached.
//!
//! A task keeps one idle TCP connection to the address. While the connection stands the gate is open; when it falls and
//! cannot be made again at once the gate closes, and the task tries again every 50 ms, backing off to 1 s. So
//! a killed broker is noticed within milliseconds, calls in flight fail at once instead of at their timeouts,
//! and RocketMQ's transport is never asked to connect to a closed port: five failures would make it
//! refuse that address for 30 s.
//!
//! ```text
//!   Unknown --connected--> Open(n) --broken, not connected again--> Closed --connected--> Open(n+1)
//!      \------not connected------------------------------------------^
//! ```

use std::{future::Future, io, sync::Arc, time::Duration};

use tokio::{
    net::TcpStream,
    sync::{Notify, watch},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

/// How long one attempt to connect may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The pause between two attempts, given how long the address has been out of reach: a 200th of it.
fn pause(outage: Duration) -> Duration {
    (outage / 200).clamp(SHORTEST_PAUSE, LONGEST_PAUSE)
}

#[derive(Clone, Debug)]
enum State {
    Unknown,
    Open(u64),
    Closed { since: Instant, why: Arc<str> },
}

/// What the gate tells its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It closed: the address cannot be reached.
    Closed,
    /// It opened again after so long.
    Reopened(Duration),
}

/// Leave to call the address, and the means to know when it was closed since.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pass(u64);

/// The address could not be reached within the patience of the caller.
#[derive(Debug)]
pub(super) struct Shut {
    /// For how long, if it was ever tried.
    pub(super) outage: Duration,
    /// Why, as the system said.
    pub(super) why: Arc<str>,
}

/// See the module's text. Dropping it ends the task.
pub(super) struct Gate {
    state: watch::Receiver<State>,
    doubted: Arc<Notify>,
    keeper: JoinHandle<()>,
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl Gate {
    /// Starts the task on the current tokio runtime. `told` is called at each [`Change`].
    pub(super) fn new(address: &str, told: impl Fn(Change) + Send + 'static) -> Self {
        Self::over(Tcp(address.into()), told)
    }

    fn over(line: impl Line, told: impl Fn(Change) + Send + 'static) -> Self {
        let (sender, state) = watch::channel(State::Unknown);
        let doubted = Arc::new(Notify::new());
        let keeper = tokio::spawn(keep(line, sender, doubted.clone(), told));
        Self {
            state,
            doubted,
            keeper,
        }
    }

    /// Leave to call the address: at once if the gate is open, else when it opens within the caller's patience.
    pub(super) async fn pass(&self, patience: Duration) -> Result<Pass, Shut> {
        if let State::Open(number) = *self.state.borrow() {
            return Ok(Pass(number));
        }
        let start = Instant::now();
        let mut state = self.state.clone();
        let opened = timeout(patience, state.wait_for(|state| matches!(state, State::Open(_)))).await;
        if let Ok(Ok(open)) = opened
            && let State::Open(number) = *open
        {
            return Ok(Pass(number));
        }
        Err(match &*self.state.borrow() {
            State::Closed { since, why } => Shut {
                outage: since.elapsed(),
                why: why.clone(),
            },
            State::Unknown | State::Open(_) => Shut {
                outage: start.elapsed(),
                why: "no connection yet".into(),
            },
        })
    }

    /// Returns when the gate has closed since the pass was given, or it was ended.
    pub(super) async fn closed_since(&self, pass: Pass) {
        let mut state = self.state.clone();
        _ = state
            .wait_for(|state| !matches!(state, State::Open(number) if *number == pass.0))
            .await;
    }

    /// Whether the last attempt to connect failed.
    pub(super) fn is_closed(&self) -> bool {
        matches!(*self.state.borrow(), State::Closed { .. })
    }

    /// Ends the task and all calls that passed.
    pub(super) fn end(&self) {
        self.keeper.abort();
    }

    /// A call failed in a way that puts the address in doubt: the connection is made anew to see.
    pub(super) fn doubt(&self) {
        self.doubted.notify_one();
    }
}

/// What the task needs of the network.
trait Line: Send + Sync + 'static {
    type Wire: Wire;
    fn connect(&self) -> impl Future<Output = io::Result<Self::Wire>> + Send;
}

trait Wire: Send {
    /// Returns when the connection has fallen.
    fn broken(&mut self) -> impl Future<Output = ()> + Send;
}

struct Tcp(String);

impl Line for Tcp {
    type Wire = TcpStream;

    async fn connect(&self) -> io::Result<TcpStream> {
        TcpStream::connect(&self.0).await
    }
}

impl Wire for TcpStream {
    async fn broken(&mut self) {
        let mut byte = [0];
        loop {
            let readable = self.readable().await;
            match readable.and_then(|()| self.try_read(&mut byte)) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    }
}

async fn keep(line: impl Line, state: watch::Sender<State>, doubted: Arc<Notify>, told: impl Fn(Change)) {
    let mut number = 0;
    loop {
        let attempt = Instant::now();
        let connected = timeout(CONNECT_TIMEOUT, line.connect()).await;
        let why: Arc<str> = match connected {
            Ok(Ok(mut wire)) => {
                let mut reopened = None;
                state.send_if_modified(|state| {
                    let opens = !matches!(state, State::Open(_));
                    if let State::Closed { since, .. } = state {
                        reopened = Some(since.elapsed());
                    }
                    if opens {
                        number += 1;
                        *state = State::Open(number);
                    }
                    opens
                });
                if let Some(outage) = reopened {
                    told(Change::Reopened(outage));
                }
                tokio::select! {
                    () = wire.broken() => {}
                    () = doubted.notified() => {}
                }
                if attempt.elapsed() < SHORTEST_PAUSE {
                    sleep(SHORTEST_PAUSE - attempt.elapsed()).await;
                }
                continue;
            }
            Ok(Err(error)) => error.to_string().into(),
            Err(_) => format!("no connection within {CONNECT_TIMEOUT:?}").into(),
        };
        let mut closes = false;
        let mut outage = Duration::ZERO;
        state.send_modify(|state| {
            let since = match state {
                State::Closed { since, .. } => *since,
                State::Unknown | State::Open(_) => {
                    closes = true;
                    Instant::now()
                }
            };
            outage = since.elapsed();
            *state = State::Closed { since, why };
        });
        if closes {
            told(Change::Closed);
        }
        sleep(pause(outage)).await;
    }
}

#[cfg(test)]
#[path = "gate_tests.rs"]
mod tests;
