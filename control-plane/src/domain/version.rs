//! Versions of plugins, and which of several a connector runs.

use std::cmp::Ordering;

/// Order of semantic versions; build metadata and what is not a version come last in doubt, as text.
pub fn compare(a: &str, b: &str) -> Ordering {
    let (core_a, pre_a) = parts(a);
    let (core_b, pre_b) = parts(b);
    identifiers(core_a, core_b)
        .then_with(|| match (pre_a, pre_b) {
            (None, None) => Ordering::Equal,
            (None, Some(_)) => Ordering::Greater,
            (Some(_), None) => Ordering::Less,
            (Some(a), Some(b)) => identifiers(a, b),
        })
        .then_with(|| a.cmp(b))
}

fn parts(version: &str) -> (&str, Option<&str>) {
    let version = version.split_once('+').map_or(version, |(v, _)| v);
    version
        .split_once('-')
        .map_or((version, None), |(core, pre)| (core, Some(pre)))
}

fn identifiers(a: &str, b: &str) -> Ordering {
    let mut a = a.split('.');
    let mut b = b.split('.');
    loop {
        let order = match (a.next(), b.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => Ordering::Less,
            (Some(_), None) => Ordering::Greater,
            (Some(x), Some(y)) => match (x.parse::<u64>(), y.parse::<u64>()) {
                (Ok(x), Ok(y)) => x.cmp(&y),
                (Ok(_), Err(_)) => Ordering::Less,
                (Err(_), Ok(_)) => Ordering::Greater,
                (Err(_), Err(_)) => x.cmp(y),
            },
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

/// Of versions with the number of agents that have each: the highest that more than half of the agents have, else the one
/// that most have, else the highest.
///
/// While agents are upgraded one by one, connectors change over once, in the middle.
pub fn choose<'a>(offers: impl IntoIterator<Item = (&'a str, usize)> + Clone) -> Option<&'a str> {
    let all: usize = offers.clone().into_iter().map(|(_, n)| n).sum();
    let rank = |(version, n): (&'a str, usize)| (n * 2 > all && n > 0, n, version);
    let best = offers.into_iter().map(rank).max_by(|a, b| {
        // Only one version can be with more than half of the agents, unless agents have several.
        let by_version = || compare(a.2, b.2);
        a.0.cmp(&b.0).then_with(|| {
            if a.0 {
                by_version()
            } else {
                a.1.cmp(&b.1).then_with(by_version)
            }
        })
    });
    best.map(|(_, _, version)| version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_by_meaning() {
        let sorted = [
            "0.9.0",
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0",
            "1.2.0",
            "1.10.0",
            "2.0.0",
        ];
        for (i, a) in sorted.iter().enumerate() {
            for (j, b) in sorted.iter().enumerate() {
                assert_eq!(compare(a, b), i.cmp(&j), "{a} {b}");
            }
        }
        assert_eq!(compare("", "x"), Ordering::Less);
        assert_ne!(compare("1.0.0+a", "1.0.0+b"), Ordering::Equal);
    }

    #[test]
    fn enough_agents_decide() {
        assert_eq!(choose([("1.0.0", 1)]), Some("1.0.0"));
        assert_eq!(choose([("1.0.0", 3), ("2.0.0", 1)]), Some("1.0.0"));
        assert_eq!(choose([("1.0.0", 1), ("2.0.0", 2)]), Some("2.0.0"));
        assert_eq!(choose([("1.0.0", 1), ("2.0.0", 1)]), Some("2.0.0"));
        assert_eq!(choose([("1.0.0", 0), ("2.0.0", 0)]), Some("2.0.0"));
        assert_eq!(
            choose([("1.9.0", 2), ("1.10.0", 2), ("1.2.0", 1)]),
            Some("1.10.0")
        );
        assert_eq!(choose([]), None);
    }
}
