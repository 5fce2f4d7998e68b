use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

/// A network whose one address is up or down as the test says.
#[derive(Clone)]
struct Fake {
    up: watch::Sender<bool>,
    attempts: Arc<AtomicU32>,
}

struct FakeWire(watch::Receiver<bool>);

impl Fake {
    fn new(up: bool) -> Self {
        Self {
            up: watch::channel(up).0,
            attempts: Arc::default(),
        }
    }

    fn set(&self, up: bool) {
        self.up.send_replace(up);
    }
}

impl Line for Fake {
    type Wire = FakeWire;

    async fn connect(&self) -> io::Result<FakeWire> {
        self.attempts.fetch_add(1, Ordering::SeqCst);
        if *self.up.borrow() {
            Ok(FakeWire(self.up.subscribe()))
        } else {
            Err(io::ErrorKind::ConnectionRefused.into())
        }
    }
}

impl Wire for FakeWire {
    async fn broken(&mut self) {
        _ = self.0.wait_for(|up| !up).await;
    }
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

#[test]
fn attempts_start_at_50_ms_and_back_off_to_a_second() {
    assert_eq!(pause(Duration::ZERO), ms(50));
    assert_eq!(pause(Duration::from_secs(10)), ms(50));
    assert_eq!(pause(Duration::from_secs(100)), ms(500));
    assert_eq!(pause(Duration::from_secs(3600)), ms(1000));
}

#[tokio::test(start_paused = true)]
async fn an_open_gate_lets_pass_at_once() {
    let gate = Gate::over(Fake::new(true), |_| {});
    let start = Instant::now();
    gate.pass(ms(1000)).await.unwrap();
    gate.pass(Duration::ZERO).await.unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_closed_gate_refuses_after_the_patience_and_says_why() {
    let gate = Gate::over(Fake::new(false), |_| {});
    let start = Instant::now();
    let shut = gate.pass(ms(1000)).await.unwrap_err();
    assert_eq!(start.elapsed(), ms(1000));
    assert_eq!(shut.outage, ms(1000));
    assert!(shut.why.contains("refused"), "{}", shut.why);
}

#[tokio::test(start_paused = true)]
async fn a_gate_that_opens_in_time_lets_the_waiting_pass_within_a_pause() {
    let fake = Fake::new(false);
    let gate = Gate::over(fake.clone(), |_| {});
    let start = Instant::now();
    let opens = async {
        sleep(ms(610)).await;
        fake.set(true);
    };
    let (passed, ()) = tokio::join!(gate.pass(ms(1000)), opens);
    passed.unwrap();
    assert!(start.elapsed() <= ms(660), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn calls_in_flight_hear_at_once_that_it_closed_even_if_it_is_open_again() {
    let fake = Fake::new(true);
    let changes = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let count = changes.clone();
    let gate = Gate::over(fake.clone(), move |change| count.lock().push(change));
    let pass = gate.pass(ms(1000)).await.unwrap();
    sleep(ms(5000)).await;
    fake.set(false);
    let start = Instant::now();
    gate.closed_since(pass).await;
    assert_eq!(start.elapsed(), Duration::ZERO);
    sleep(ms(500)).await;
    fake.set(true);
    let later = gate.pass(ms(1000)).await.unwrap();
    gate.closed_since(pass).await;
    assert!(timeout(ms(60_000), gate.closed_since(later)).await.is_err());
    assert_eq!(*changes.lock(), [Change::Closed, Change::Reopened(ms(500))]);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_falls_and_is_made_again_does_not_close_the_gate() {
    let fake = Fake::new(true);
    let gate = Gate::over(fake.clone(), |change| panic!("{change:?}"));
    let pass = gate.pass(ms(1000)).await.unwrap();
    for _ in 0..3 {
        sleep(ms(1000)).await;
        gate.doubt();
    }
    assert!(timeout(ms(1000), gate.closed_since(pass)).await.is_err());
    assert_eq!(fake.attempts.load(Ordering::SeqCst), 4);
}

#[tokio::test(start_paused = true)]
async fn a_long_outage_is_probed_about_once_a_second() {
    let fake = Fake::new(false);
    let _gate = Gate::over(fake.clone(), |_| {});
    sleep(Duration::from_secs(600)).await;
    let before = fake.attempts.load(Ordering::SeqCst);
    sleep(Duration::from_secs(100)).await;
    assert_eq!(fake.attempts.load(Ordering::SeqCst) - before, 100);
}

#[tokio::test]
async fn a_real_connection_that_the_other_side_drops_is_noticed() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gate = Gate::new(&listener.local_addr().unwrap().to_string(), |_| {});
    let (accepted, _) = listener.accept().await.unwrap();
    let pass = gate.pass(ms(1000)).await.unwrap();
    drop((accepted, listener));
    timeout(ms(1000), gate.closed_since(pass)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_gate_that_is_ended_lets_go_of_calls_in_flight_and_waiting() {
    let gate = Gate::over(Fake::new(true), |_| {});
    let pass = gate.pass(ms(1000)).await.unwrap();
    gate.end();
    timeout(ms(10), gate.closed_since(pass)).await.unwrap();
}
