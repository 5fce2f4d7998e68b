//! A TCP relay that can be cut: what is on its way then waits, as behind a cable that was pulled.

use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::ports::Ports;

/// Relays connections to an address until it is cut. It ends with the value.
#[derive(Debug)]
pub struct Proxy {
    ports: Ports,
    open: Arc<watch::Sender<bool>>,
    listening: JoinHandle<()>,
}

impl Proxy {
    /// Relays to `target`, a `HOST:PORT`.
    pub async fn start(target: &str) -> Result<Self> {
        let ports = Ports::reserve(1)?;
        let listener = TcpListener::bind(ports.address(0)).await;
        let listener = listener.with_context(|| format!("listening on {}", ports.address(0)))?;
        let (open, seen) = watch::channel(true);
        let open = Arc::new(open);
        let target = target.to_owned();
        let listening = tokio::spawn(async move {
            while let Ok((from, _)) = listener.accept().await {
                let (target, seen) = (target.clone(), seen.clone());
                // It ends when either side does, or when the sender of `seen` is gone.
                tokio::spawn(async move {
                    let _ = relay(from, &target, seen).await;
                });
            }
        });
        Ok(Self {
            ports,
            open,
            listening,
        })
    }

    /// `127.0.0.1:PORT`, where it listens.
    pub fn address(&self) -> String {
        self.ports.address(0)
    }

    /// Nothing passes any more. Connections stay, new ones are accepted, and nothing is answered.
    pub fn cut(&self) {
        self.open.send_replace(false);
    }

    /// Everything passes again, what has waited first.
    pub fn heal(&self) {
        self.open.send_replace(true);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn relay(from: TcpStream, target: &str, mut open: watch::Receiver<bool>) -> Result<()> {
    open.wait_for(|open| *open).await?;
    let to = TcpStream::connect(target).await?;
    for stream in [&from, &to] {
        stream.set_nodelay(true)?;
    }
    let ((from_read, from_write), (to_read, to_write)) = (from.into_split(), to.into_split());
    tokio::try_join!(
        pass(from_read, to_write, open.clone()),
        pass(to_read, from_write, open)
    )?;
    Ok(())
}

/// Passes bytes on while it is open. An end of one side, too, reaches the other only then.
async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut open: watch::Receiver<bool>,
) -> Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let length = from.read(&mut buffer).await.unwrap_or(0);
        open.wait_for(|open| *open).await?;
        if length == 0 {
            // Both ways end: the peers close whole connections.
            anyhow::bail!("one side has ended");
        }
        to.write_all(&buffer[..length]).await?;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    async fn echo() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                });
            }
        });
        address
    }

    async fn answer(stream: &mut TcpStream) -> String {
        let mut buffer = [0; 3];
        timeout(LIMIT, stream.read_exact(&mut buffer))
            .await
            .unwrap()
            .unwrap();
        String::from_utf8(buffer.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn what_is_sent_while_it_is_cut_arrives_afterwards() {
        let proxy = Proxy::start(&echo().await).await.unwrap();
        let mut old = TcpStream::connect(proxy.address()).await.unwrap();
        old.write_all(b"one").await.unwrap();
        assert_eq!(answer(&mut old).await, "one");

        proxy.cut();
        let mut new = TcpStream::connect(proxy.address()).await.unwrap();
        for stream in [&mut old, &mut new] {
            stream.write_all(b"two").await.unwrap();
            let mut byte = [0; 1];
            let read = timeout(Duration::from_millis(100), stream.read(&mut byte)).await;
            assert!(read.is_err(), "something was answered");
        }
        proxy.heal();
        for stream in [&mut old, &mut new] {
            assert_eq!(answer(stream).await, "two");
        }
    }

    #[tokio::test]
    async fn an_end_reaches_the_other_side() {
        let proxy = Proxy::start(&echo().await).await.unwrap();
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut rest = Vec::new();
        timeout(LIMIT, stream.read_to_end(&mut rest))
            .await
            .unwrap()
            .unwrap();
        assert!(rest.is_empty());
    }
}
