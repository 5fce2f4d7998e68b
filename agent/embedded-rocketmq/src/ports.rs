//! Which ports to use: those asked for, else those used before on the directory, else free ones.

use std::{
    fs, io,
    net::{Ipv4Addr, TcpListener},
    path::Path,
};

use crate::{Options, StartError};

/// The broker takes its port, the one two below (for clients that ask for the "VIP channel") and the one above (replication).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ports {
    pub(crate) namesrv: u16,
    pub(crate) broker: u16,
}

const FILE: &str = "ports";
const ATTEMPTS: u32 = 100;

/// Chooses the ports and writes them down in the directory, for the next start.
pub(crate) fn choose(dir: &Path, options: Options) -> Result<Ports, StartError> {
    let before = fs::read_to_string(dir.join(FILE))
        .ok()
        .and_then(|text| parse(&text));
    let broker = match options.broker_port {
        Some(port) => check_broker(port).map(|()| port)?,
        None => match before
            .map(|ports| ports.broker)
            .filter(|port| check_broker(*port).is_ok())
        {
            Some(port) => port,
            None => free(|port| check_broker(port).is_ok())?,
        },
    };
    let apart = |port: u16| ![broker - 2, broker, broker + 1].contains(&port);
    let namesrv = match options.namesrv_port {
        Some(port) => check(port, "name server").map(|()| port)?,
        None => match before
            .map(|ports| ports.namesrv)
            .filter(|port| apart(*port) && is_free(*port))
        {
            Some(port) => port,
            None => free(apart)?,
        },
    };
    let ports = Ports { namesrv, broker };
    fs::write(dir.join(FILE), format!("namesrv={namesrv}\nbroker={broker}\n")).map_err(|source| {
        StartError::Directory {
            dir: dir.to_path_buf(),
            source,
        }
    })?;
    Ok(ports)
}

fn parse(text: &str) -> Option<Ports> {
    let value = |name: &str| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
        line.trim().parse().ok()
    };
    Some(Ports {
        namesrv: value("namesrv")?,
        broker: value("broker")?,
    })
}

fn bind(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
}

fn is_free(port: u16) -> bool {
    bind(port).is_ok()
}

fn check(port: u16, part: &'static str) -> Result<(), StartError> {
    bind(port)
        .map(drop)
        .map_err(|source| StartError::PortTaken { port, part, source })
}

fn check_broker(port: u16) -> Result<(), StartError> {
    let out_of_range = || StartError::PortTaken {
        port,
        part: "broker, which takes the port two below and the one above too",
        source: io::Error::from(io::ErrorKind::InvalidInput),
    };
    let vip = port
        .checked_sub(2)
        .filter(|port| *port > 0)
        .ok_or_else(out_of_range)?;
    let replication = port.checked_add(1).ok_or_else(out_of_range)?;
    check(port, "broker")?;
    check(vip, "broker, VIP channel")?;
    check(replication, "broker, replication")
}

/// A port the system calls free and the condition accepts.
fn free(accept: impl Fn(u16) -> bool) -> Result<u16, StartError> {
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..ATTEMPTS {
        match bind(0).and_then(|listener| listener.local_addr()) {
            Ok(address) if accept(address.port()) => return Ok(address.port()),
            Ok(_) => {}
            Err(error) => last = error,
        }
    }
    Err(StartError::NoFreePorts { source: last })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_kept_while_they_are_free() {
        let dir = tempfile::tempdir().unwrap();
        let first = choose(dir.path(), Options::default()).unwrap();
        assert_eq!(choose(dir.path(), Options::default()).unwrap(), first);
        let _taken = bind(first.broker - 2).unwrap();
        let second = choose(dir.path(), Options::default()).unwrap();
        assert_eq!(second.namesrv, first.namesrv);
        assert_ne!(second.broker, first.broker);
    }

    #[test]
    fn a_taken_port_is_named_with_its_use() {
        let dir = tempfile::tempdir().unwrap();
        let taken = free(|port| check_broker(port).is_ok()).unwrap();
        let _listener = bind(taken + 1).unwrap();
        let error = choose(
            dir.path(),
            Options {
                broker_port: Some(taken),
                namesrv_port: None,
            },
        )
        .unwrap_err();
        assert!(error.to_string().contains(&format!("{}", taken + 1)), "{error}");
        assert!(error.to_string().contains("replication"), "{error}");
    }

    #[test]
    fn a_damaged_file_is_like_none() {
        assert_eq!(
            parse("namesrv=1\nbroker=2\n"),
            Some(Ports {
                namesrv: 1,
                broker: 2
            })
        );
        assert_eq!(parse("namesrv=1\n"), None);
        assert_eq!(parse("namesrv=1\nbroker=x\n"), None);
    }
}
