//! Who may have a name: the pure part of accepting a hello (protocol.md, Liveness 4, 5 and 8).

use std::collections::BTreeSet;

use gantry_proto::{
    agent::v1::{Hello, LockIdentity},
    error::{Reason, Refusal},
    name::Id,
};

use crate::domain::stored;

/// Instances proven gone that a session key carries on; older ones fall back to being absent for a whole lease.
const GONE_KEPT: usize = 32;
/// Chunks that an inventory may have.
const INVENTORY_CHUNKS: i32 = 1024;
/// Labels that an agent may have.
const LABELS: usize = 64;
/// Characters of anything that an agent says of itself.
const TEXT: usize = 256;

/// What is stored of a name when a hello is judged.
#[derive(Debug, Default, Clone, Copy)]
pub struct Known<'a> {
    /// sessions/{agent}
    pub session: Option<&'a stored::Session>,
    /// instances/{agent}
    pub instance: Option<&'a stored::Instance>,
}

/// What becomes of a hello.
#[derive(Debug)]
pub enum Verdict {
    /// It is accepted; these instances are proven gone by the lock.
    Accept {
        /// In order of proof, oldest first.
        gone: Vec<String>,
    },
    /// It is refused.
    Refuse(Refusal),
}

/// Checks what a hello says, regardless of what is stored.
///
/// # Errors
/// A refusal that names every field that is wrong.
pub fn check(hello: &Hello) -> Result<(), Refusal> {
    let mut wrong: Vec<(String, String)> = Vec::new();
    let mut need = |ok: bool, field: &str, what: &str| {
        if !ok {
            wrong.push((field.to_owned(), what.to_owned()));
        }
    };
    need(
        Id::parse(&hello.agent).is_ok(),
        "hello.agent",
        "must be an id: 1 to 63 of [a-z0-9-]",
    );
    need(
        is_token(&hello.instance_uid, 64),
        "hello.instance_uid",
        "must be 1 to 64 of [A-Za-z0-9-]",
    );
    let lock = hello.lock.as_ref();
    need(
        lock.is_some_and(|l| !l.boot_id.is_empty() && l.boot_id.len() <= TEXT),
        "hello.lock",
        "must name the lock file by boot id, device and inode",
    );
    need(
        hello.start_counter > 0,
        "hello.start_counter",
        "must be at least 1",
    );
    need(hello.dial_counter > 0, "hello.dial_counter", "must be at least 1");
    need(hello.capacity >= 0, "hello.capacity", "must not be negative");
    need(hello.labels.len() <= LABELS, "hello.labels", "must be at most 64");
    for (field, text) in [
        ("hello.version", &hello.version),
        ("hello.host", &hello.host),
        ("hello.host_id", &hello.host_id),
    ] {
        need(text.len() <= TEXT, field, "must be at most 256 bytes");
    }
    need(
        (0..=INVENTORY_CHUNKS).contains(&hello.inventory_chunks),
        "hello.inventory_chunks",
        "must be between 0 and 1024",
    );
    let mut seen = BTreeSet::new();
    for (i, plugin) in hello.plugins.iter().enumerate() {
        let field = format!("hello.plugins[{i}]");
        need(
            plugin_id(&plugin.name).is_some(),
            &field,
            "must have a name of the form plugins/{id}",
        );
        let version = &plugin.version;
        need(
            is_version(version),
            &field,
            "must have a version of 1 to 64 of [A-Za-z0-9.+-]",
        );
        need(seen.insert((&plugin.name, version)), &field, "is named twice");
    }
    if wrong.is_empty() {
        return Ok(());
    }
    let refusal = Refusal::new(Reason::InvalidField, "the hello is malformed");
    Err(wrong
        .into_iter()
        .fold(refusal, |r, (field, what)| r.field(field, what)))
}

/// Judges a hello by what is stored of its name.
pub fn judge(hello: &Hello, known: Known<'_>) -> Verdict {
    let lock = hello.lock.as_ref();
    if let Some(last) = known.instance
        && same_lock(last.lock.as_ref(), lock)
        && (hello.start_counter, hello.dial_counter) <= (last.start_counter, last.dial_counter)
    {
        return Verdict::Refuse(stale(hello, last));
    }
    if let Some(session) = known.session
        && !session.silent
        && !same_lock(session.lock.as_ref(), lock)
    {
        return Verdict::Refuse(taken(hello, session));
    }
    Verdict::Accept {
        gone: proven_gone(hello, known),
    }
}

/// Instances that the lock proves gone: whoever held it under a lower start counter has ended.
fn proven_gone(hello: &Hello, known: Known<'_>) -> Vec<String> {
    let lock = hello.lock.as_ref();
    let mut gone: Vec<String> = Vec::new();
    let mut last = Vec::new();
    if let Some(session) = known.session.filter(|s| same_lock(s.lock.as_ref(), lock)) {
        gone.clone_from(&session.gone);
        last.push((&session.instance_uid, session.start_counter));
    }
    if let Some(instance) = known.instance.filter(|i| same_lock(i.lock.as_ref(), lock)) {
        last.push((&instance.instance_uid, instance.start_counter));
    }
    for (uid, start) in last {
        if start < hello.start_counter && !gone.contains(uid) {
            gone.push(uid.clone());
        }
    }
    gone.retain(|uid| *uid != hello.instance_uid);
    let surplus = gone.len().saturating_sub(GONE_KEPT);
    gone.split_off(surplus)
}

fn same_lock(a: Option<&LockIdentity>, b: Option<&LockIdentity>) -> bool {
    a.is_some() && a == b
}

fn stale(hello: &Hello, last: &stored::Instance) -> Refusal {
    Refusal::new(
        Reason::StaleHello,
        format!(
            "agent '{}' said hello as start {} dial {}, but start {} dial {} was accepted before",
            hello.agent, hello.start_counter, hello.dial_counter, last.start_counter, last.dial_counter
        ),
    )
    .with("agent", &hello.agent)
}

fn taken(hello: &Hello, session: &stored::Session) -> Refusal {
    Refusal::new(
        Reason::AgentNameTaken,
        format!(
            "the agent name '{}' is in use by another process on host '{}'; give this one a name of its own",
            hello.agent, session.host
        ),
    )
    .with("agent", &hello.agent)
    .with("host", &session.host)
}

/// The plugin's id from its resource name.
pub(super) fn plugin_id(name: &str) -> Option<&str> {
    let id = name.strip_prefix("plugins/").unwrap_or(name);
    Id::parse(id).is_ok().then_some(id)
}

fn is_token(text: &str, max: usize) -> bool {
    (1..=max).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

fn is_version(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'+'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(inode: u64) -> Option<LockIdentity> {
        Some(LockIdentity {
            boot_id: "b".into(),
            device: 1,
            inode,
        })
    }

    fn hello(uid: &str, inode: u64, start: u64, dial: u64) -> Hello {
        Hello {
            agent: "a".into(),
            instance_uid: uid.into(),
            lock: lock(inode),
            start_counter: start,
            dial_counter: dial,
            ..Hello::default()
        }
    }

    fn instance(uid: &str, inode: u64, start: u64, dial: u64) -> stored::Instance {
        stored::Instance {
            instance_uid: uid.into(),
            lock: lock(inode),
            start_counter: start,
            dial_counter: dial,
            ..stored::Instance::default()
        }
    }

    fn session(uid: &str, inode: u64, start: u64, silent: bool, gone: &[&str]) -> stored::Session {
        stored::Session {
            instance_uid: uid.into(),
            lock: lock(inode),
            start_counter: start,
            silent,
            gone: gone.iter().map(|g| (*g).to_owned()).collect(),
            ..stored::Session::default()
        }
    }

    fn judged(
        hello: &Hello,
        session: Option<&stored::Session>,
        instance: Option<&stored::Instance>,
    ) -> Result<Vec<String>, Reason> {
        match judge(hello, Known { session, instance }) {
            Verdict::Accept { gone } => Ok(gone),
            Verdict::Refuse(refusal) => Err(refusal.reason()),
        }
    }

    #[test]
    fn a_hello_that_is_not_later_is_refused() {
        let last = instance("i1", 7, 3, 5);
        for (start, dial) in [(3, 5), (3, 4), (2, 9)] {
            assert_eq!(
                judged(&hello("i0", 7, start, dial), None, Some(&last)),
                Err(Reason::StaleHello)
            );
        }
        assert_eq!(judged(&hello("i1", 7, 3, 6), None, Some(&last)), Ok(vec![]));
    }

    #[test]
    fn a_later_start_proves_the_earlier_ones_gone() {
        let s = session("i2", 7, 2, false, &["i1"]);
        let i = instance("i2", 7, 2, 9);
        assert_eq!(
            judged(&hello("i3", 7, 3, 1), Some(&s), Some(&i)),
            Ok(vec!["i1".into(), "i2".into()])
        );
        assert_eq!(
            judged(&hello("i3", 7, 3, 1), None, Some(&i)),
            Ok(vec!["i2".into()])
        );
        assert_eq!(
            judged(&hello("i2", 7, 2, 10), Some(&s), Some(&i)),
            Ok(vec!["i1".into()])
        );
    }

    #[test]
    fn a_twin_is_refused_while_the_first_is_heard() {
        let i = instance("i1", 7, 1, 1);
        let s = session("i1", 7, 1, false, &[]);
        assert_eq!(
            judged(&hello("x", 8, 1, 1), Some(&s), Some(&i)),
            Err(Reason::AgentNameTaken)
        );
        let silent = session("i1", 7, 1, true, &[]);
        assert_eq!(judged(&hello("x", 8, 1, 1), Some(&silent), Some(&i)), Ok(vec![]));
        assert_eq!(judged(&hello("x", 8, 1, 1), None, Some(&i)), Ok(vec![]));
    }

    #[test]
    fn a_malformed_hello_names_its_fields() {
        assert!(check(&hello("i1", 1, 1, 1)).is_ok());
        for bad in [
            Hello {
                agent: "A b".into(),
                ..hello("i1", 1, 1, 1)
            },
            Hello {
                lock: None,
                ..hello("i1", 1, 1, 1)
            },
            Hello {
                instance_uid: "a/b".into(),
                ..hello("i1", 1, 1, 1)
            },
            hello("i1", 1, 0, 1),
            Hello {
                inventory_chunks: -1,
                ..hello("i1", 1, 1, 1)
            },
        ] {
            assert_eq!(check(&bad).unwrap_err().reason(), Reason::InvalidField, "{bad:?}");
        }
    }
}
