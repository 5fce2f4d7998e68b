//! Ports that no other test on this machine uses, before, during and after a restart of the server.

use std::fs::{self, File};
use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context, Result, bail};

use crate::env;

/// Below the range from which the kernel takes ports for outgoing connections: none of those gets in the way of a
/// server that is restarted.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// Neighbouring ports of this test alone until the value is dropped.
///
/// Test programs that run at the same time agree by locks on files, one for each port. A port that something else
/// listens on is passed over.
#[derive(Debug)]
pub struct Ports {
    first: u16,
    _locks: Vec<File>,
}

impl Ports {
    /// Reserves `count` ports in a row.
    pub fn reserve(count: u16) -> Result<Self> {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let locks = env::cache().join("ports");
        fs::create_dir_all(&locks).with_context(|| format!("making {}", locks.display()))?;
        // Programs start to look at different places; the locks decide.
        let program = (std::process::id() % u32::from(COUNT)) as u16;
        for _ in 0..COUNT / count {
            let offset = NEXT.fetch_add(count, Ordering::Relaxed) % COUNT;
            let first = FIRST + (program / 8 * 8 + offset) % COUNT;
            let taken: Option<Vec<File>> = (first..first + count)
                .map(|port| {
                    let lock = File::create(locks.join(port.to_string())).ok()?;
                    lock.try_lock().ok()?;
                    TcpListener::bind(("127.0.0.1", port)).ok()?;
                    Some(lock)
                })
                .collect();
            if let Some(locks) = taken {
                return Ok(Self { first, _locks: locks });
            }
        }
        bail!(
            "no {count} free ports in a row between {FIRST} and {}",
            FIRST + COUNT
        )
    }

    /// The port at `index`, counted from 0.
    pub fn get(&self, index: u16) -> u16 {
        assert!(
            usize::from(index) < self._locks.len(),
            "{index} is beyond the ports that were reserved"
        );
        self.first + index
    }

    /// `127.0.0.1:PORT` of the port at `index`.
    pub fn address(&self, index: u16) -> String {
        format!("127.0.0.1:{}", self.get(index))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_port_is_given_twice_while_it_is_held() {
        let held: Vec<Ports> = (0..50).map(|_| Ports::reserve(4).unwrap()).collect();
        let ports: BTreeSet<u16> = held
            .iter()
            .flat_map(|ports| (0..4).map(|index| ports.get(index)))
            .collect();
        assert_eq!(ports.len(), 200);
        for port in ports {
            TcpListener::bind(("127.0.0.1", port)).unwrap();
        }
    }

    #[test]
    fn a_port_that_is_listened_on_is_passed_over() {
        let held = Ports::reserve(1).unwrap();
        let _listener = TcpListener::bind(("127.0.0.1", held.get(0))).unwrap();
        let port = held.get(0);
        drop(held);
        let others: Vec<Ports> = (0..100).map(|_| Ports::reserve(1).unwrap()).collect();
        assert!(others.iter().all(|ports| ports.get(0) != port));
    }
}
