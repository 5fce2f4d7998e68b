use gantry_proto::v1::{
    self,
    connector::{Kind, State, TargetState},
};
use proptest::prelude::*;

use super::Filter;

fn connector() -> v1::Connector {
    v1::Connector {
        name: "connectors/orders-in".into(),
        plugin: "file-source".into(),
        kind: Kind::Source.into(),
        state: State::Degraded.into(),
        target_state: TargetState::Running.into(),
        labels: [("team".into(), "blue".into()), ("a b/c".into(), String::new())].into(),
        ..Default::default()
    }
}

#[test]
fn what_matches() {
    for (text, expected) in [
        ("", true),
        ("  ", true),
        ("name = orders-in", true),
        ("name=\"connectors/orders-in\"", true),
        ("name = orders", false),
        ("name = orders-*", true),
        ("name = *-in", true),
        ("name = o*d*s*n", true),
        ("name = o*x*n", false),
        ("name = orders-in*in", false),
        ("name : rders", true),
        ("name != orders-in", false),
        ("plugin = file-source", true),
        ("plugin:sink", false),
        ("kind = SOURCE AND state = degraded", true),
        ("state = STATE_DEGRADED", true),
        ("state:DEGRADED", true),
        ("target_state != RUNNING", false),
        ("target_state = TARGET_STATE_RUNNING", true),
        ("labels.team = blue", true),
        ("labels.team = bl*", true),
        ("labels.team != red", true),
        ("labels.none != red", true),
        ("labels.none = red", false),
        ("labels:team", true),
        ("labels:none", false),
        ("labels.team:*", true),
        ("labels.team:\"*\"", false),
        ("labels.\"a b/c\":*", true),
        ("NOT labels:none", true),
        ("NOT (kind = SOURCE OR kind = SINK)", false),
        // OR binds tighter: kind = SINK AND (name = orders-in OR plugin = x).
        ("kind = SINK AND plugin = x OR name = orders-in", false),
        ("(kind = SINK AND plugin = x) OR name = orders-in", true),
        ("name = orders-in OR plugin = x AND kind = SINK", false),
    ] {
        let filter = Filter::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(filter.matches(&connector()), expected, "{text}");
    }
}

#[test]
fn what_is_not_understood_says_where() {
    for (text, at, part) in [
        ("nam = x", 1, "did you mean name?"),
        ("xyz = x", 1, "use name, plugin"),
        ("name", 5, "expected '='"),
        ("name =", 7, "expected a value"),
        ("name = a b", 10, "expected AND"),
        ("name = a AND", 13, "expected one of name"),
        ("(name = a", 10, "expected ')'"),
        ("name = a)", 9, "expected AND"),
        ("name > a", 6, "not understood"),
        ("state = BROKEN", 9, "none of PENDING"),
        ("kind = SOURC", 8, "none of SOURCE"),
        ("labels = x", 8, "one by one"),
        ("labels. = x", 9, "key of a label"),
        ("name = \"x", 8, "does not end"),
        ("name = a and kind = SINK", 10, "expected AND"),
        ("-name = a", 1, "no field"),
    ] {
        let error = Filter::parse(text).unwrap_err();
        assert_eq!(error.at, at, "{text}: {error}");
        assert!(error.message.contains(part), "{text}: {error}");
    }
    assert!(Filter::parse(&"(".repeat(4_000)).is_err());
    assert!(Filter::parse(&"NOT ".repeat(1_000)).is_err());
    assert!(Filter::parse(&"x".repeat(5_000)).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,80}") {
        if let Ok(filter) = Filter::parse(&text) {
            filter.matches(&connector());
        }
    }

    #[test]
    fn no_tokens_make_it_panic(words in prop::collection::vec(prop::sample::select(vec![
        "name", "kind", "labels.", "labels.a", "labels", "state", "=", "!=", ":", "!", "(", ")", "AND", "OR", "NOT", "*", "\"x\"", "'", "RUNNING", "é*é",
    ]), 0..30)) {
        if let Ok(filter) = Filter::parse(&words.join(" ")) {
            filter.matches(&connector());
        }
    }
}
