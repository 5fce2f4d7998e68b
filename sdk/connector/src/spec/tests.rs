use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::Config;

fn spec() -> ConfigSpec {
    ConfigSpec::new()
        .param(
            Param::path_list("paths")
                .doc("p")
                .required()
                .min(1)
                .example("/var/log/*.log"),
        )
        .param(Param::string("name").doc("p"))
        .param(Param::int("count").doc("p").min(1).max(10).default(3))
        .param(Param::float("ratio").doc("p").min(0).max(1))
        .param(Param::bool("follow").doc("p").default(true))
        .param(
            Param::one_of("start", ["beginning", "end"])
                .doc("p")
                .default("beginning"),
        )
        .param(
            Param::duration("idle")
                .doc("p")
                .min(100)
                .max(60_000)
                .default("5s"),
        )
        .param(Param::size("block").doc("p").min(1_024).default("64KiB"))
        .param(Param::list("tags").doc("p"))
        .param(Param::path("dir").doc("p"))
        .param(Param::map("labels").doc("p"))
        .param(Param::string("password").doc("p").secret())
        .param(Param::map("tokens").doc("p").secret())
        .param(Param::new("extra", ParamType::Any).doc("p"))
        .rule(Rule::required_when("dir", "start", "end"))
        .rule(Rule::only_when("idle", "follow", true))
        .rule(Rule::at_most_one(["name", "tags"]))
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => panic!("not an object: {other}"),
    }
}

fn check(value: Value) -> Result<Config, Vec<Violation>> {
    spec().check(&object(value))
}

/// The violations of a configuration in which everything else is right.
fn refused(mut value: Value) -> Vec<(String, String)> {
    value
        .as_object_mut()
        .unwrap()
        .entry("paths")
        .or_insert(json!(["/a"]));
    check(value)
        .unwrap_err()
        .into_iter()
        .map(|v| (v.param, format!("{} | {}", v.message, v.fix)))
        .collect()
}

#[test]
fn the_spec_itself_is_sound() {
    assert_eq!(spec().faults(), Vec::<String>::new());
}

#[test]
fn defaults_are_filled_in() {
    let c = check(json!({"paths": ["/a"]})).unwrap();
    let wanted = json!({
        "paths": ["/a"], "count": 3, "follow": true, "start": "beginning", "idle": "5s", "block": "64KiB",
    });
    assert_eq!(Value::Object(c.into()), wanted);
}

#[test]
fn texts_are_read_as_the_type_wanted() {
    let c = check(json!({
        "paths": "/a", "count": "2", "ratio": "0.5", "follow": "false", "block": "4096", "tags": "x",
    }))
    .unwrap();
    assert_eq!(c.list("paths").unwrap(), ["/a"]);
    assert_eq!(c.int("count").unwrap(), 2);
    assert_eq!(c.float("ratio").unwrap(), 0.5);
    assert!(!c.bool("follow").unwrap());
    assert_eq!(c.size("block").unwrap(), 4096);
    assert_eq!(c.list("tags").unwrap(), ["x"]);
}

#[test]
fn whole_doubles_count_as_integers() {
    let c = check(json!({"paths": ["/a"], "count": 2.0, "block": 4096.0})).unwrap();
    assert_eq!((c.int("count").unwrap(), c.size("block").unwrap()), (2, 4096));
    assert_eq!(refused(json!({"count": 2.5})).len(), 1);
}

#[test]
fn all_violations_come_at_once() {
    let found = check(json!({
        "pahts": ["/a"], "count": 11, "ratio": "x", "follow": "yes", "start": "ende", "idle": "1ms", "block": "1",
        "tags": [1, "b"], "dir": "relative", "labels": {"a": 1}, "password": "hunter2",
    }))
    .unwrap_err();
    let params: Vec<_> = found.iter().map(|v| v.param.as_str()).collect();
    let wanted = [
        "pahts", "paths", "count", "ratio", "follow", "start", "idle", "block", "tags[0]", "dir", "labels.a",
        "password",
    ];
    assert_eq!(params, wanted);
    assert!(found.iter().all(|v| !v.fix.is_empty()));
}

#[test]
fn messages_say_what_is_wrong_and_what_to_do() {
    let first = |value| refused(value).remove(0);
    let is = |value: Value, param: &str, text: &str| {
        assert_eq!(first(value), (param.to_owned(), text.to_owned()));
    };
    is(
        json!({"folow": 1}),
        "folow",
        "there is no parameter \"folow\" | did you mean follow?",
    );
    is(
        json!({"count": 11}),
        "count",
        "must be from 1 to 10, but is 11 | give a value that is from 1 to 10",
    );
    is(
        json!({"block": "1"}),
        "block",
        "must be at least 1KiB, but is 1 | give a value that is at least 1KiB",
    );
    is(
        json!({"idle": 5}),
        "idle",
        "must be a duration, but is 5 | give a whole number with a unit: 500ms, 5s, 2m, 1h",
    );
    is(
        json!({"start": "End"}),
        "start",
        "must be one of beginning, end, but is \"End\" | did you mean end?",
    );
    is(
        json!({"paths": []}),
        "paths",
        "must have at least 1 elements, but has 0 | add the missing elements",
    );
    is(
        json!({"start": "end"}),
        "dir",
        "is required when start is \"end\" | set dir, or change start",
    );
    is(
        json!({"follow": false, "idle": "1s"}),
        "idle",
        "may be given only when follow is true | remove idle, or set follow to true",
    );
    is(
        json!({"name": "a", "tags": ["b"]}),
        "tags",
        "name and tags exclude each other | keep one of name, tags",
    );
    let missing = check(json!({})).unwrap_err().remove(0);
    assert_eq!(
        (missing.param.as_str(), missing.message.as_str()),
        ("paths", "is required")
    );
    assert_eq!(missing.fix, "set paths, for example to /var/log/*.log");
}

#[test]
fn a_secret_is_a_reference_and_is_never_shown() {
    let c = check(
        json!({"paths": ["/a"], "password": "${env:GANTRY_SECRET_DB}", "tokens": {"a": "${file:/s:k}"}}),
    );
    assert_eq!(c.unwrap().str("password").unwrap(), "${env:GANTRY_SECRET_DB}");
    for value in [
        json!("hunter2"),
        json!("x${env:hunter2}"),
        json!(["hunter2"]),
        json!({"a": "hunter2"}),
        json!(17),
    ] {
        let found = refused(json!({"password": value, "tokens": {"a": "hunter2"}}));
        assert_eq!(
            found.iter().map(|f| f.0.as_str()).collect::<Vec<_>>(),
            ["password", "tokens.a"]
        );
        assert!(!format!("{found:?}").contains("hunter2"));
    }
    assert!(!format!("{:?}", refused(json!({"pasword": "hunter2"}))).contains("hunter2"));
}

#[test]
fn a_reference_outside_of_a_secret_is_refused() {
    for value in [
        json!({"name": "${env:X}"}),
        json!({"tags": ["a", "b ${file:/x}"]}),
        json!({"labels": {"k": "${env:X}"}}),
        json!({"extra": {"deep": [{"er": "${env:X}"}]}}),
        json!({"count": "${env:X}"}),
    ] {
        let found = refused(value.clone());
        assert_eq!(found.len(), 1, "{value}");
        assert!(found[0].1.contains("not a secret"), "{found:?}");
    }
    assert_eq!(
        refused(json!({"extra": {"deep": [{"er": "${env:X}"}]}}))[0].0,
        "extra.deep[0].er"
    );
}

#[test]
fn at_least_one_counts_defaults() {
    let spec = |p: Param| {
        ConfigSpec::new()
            .param(p)
            .param(Param::string("b").doc("d"))
            .rule(Rule::at_least_one(["a", "b"]))
    };
    let bare = spec(Param::string("a").doc("d"));
    assert_eq!(
        bare.check(&Map::new()).unwrap_err()[0].message,
        "at least one of a, b is required"
    );
    assert!(bare.check(&object(json!({"b": "x"}))).is_ok());
    assert!(
        spec(Param::string("a").doc("d").default("x"))
            .check(&Map::new())
            .is_ok()
    );
}

#[test]
fn faults_of_a_spec_are_found() {
    let bad = ConfigSpec::new()
        .param(Param::string("A-b").doc("d"))
        .param(Param::int("n").doc("d").max(3).default(4))
        .param(Param::string("n"))
        .param(Param::string("s").doc("d").secret().default("x"))
        .param(Param::string("r").doc("d").required().default("x"))
        .param(Param::one_of("e", Vec::<String>::new()).doc("d"))
        .rule(Rule::only_when("s", "ghost", true))
        .rule(Rule::only_when("s", "n", "text"))
        .rule(Rule::at_most_one(["s", "r"]));
    assert_eq!(bad.faults().len(), 11, "{:#?}", bad.faults());
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (0..20i64).prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        "[0-9]{1,22}(ms|s|m|h|d|KiB|MB|B)?".prop_map(Value::from),
        prop::sample::select(vec![
            "true",
            "/a",
            "end",
            "${env:X}",
            "${file:/x}",
            "${env:",
            "0.5",
            "NaN",
            "2"
        ])
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(".{0,6}", inner, 0..4)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

fn any_config() -> impl Strategy<Value = Map<String, Value>> {
    let names: Vec<String> = spec().params.into_iter().map(|p| p.name).collect();
    let key = prop_oneof![9 => prop::sample::select(names), 1 => ".{0,8}"];
    prop::collection::btree_map(key, any_json(), 0..8).prop_map(|m| m.into_iter().collect())
}

/// Values that mostly fit.
fn good_config() -> impl Strategy<Value = Map<String, Value>> {
    let some = |name: &'static str, values: Vec<Value>| {
        prop::option::of(prop::sample::select(values))
            .prop_map(move |v| (name.to_owned(), v.unwrap_or(Value::Null)))
    };
    (
        Just(("paths".to_owned(), json!("/a/*"))),
        some("count", vec![json!("2"), json!(7), json!(3.0), json!(3)]),
        some("ratio", vec![json!(1), json!("0.25"), json!(0.5)]),
        some("follow", vec![json!("true"), json!(false), json!("false")]),
        some("start", vec![json!("beginning"), json!("end")]),
        some(
            "idle",
            vec![json!("200ms"), json!(" 1 m"), json!("5s"), json!("5000ms")],
        ),
        some(
            "block",
            vec![json!(2048), json!("2048"), json!("1MiB"), json!(4096.0)],
        ),
        some("tags", vec![json!("one"), json!(["a", "b"]), json!([])]),
        some("dir", vec![json!("/d")]),
        some("password", vec![json!("${env:X}")]),
    )
        .prop_map(|(a, b, c, d, e, f, g, h, i, j)| [a, b, c, d, e, f, g, h, i, j].into_iter().collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_json_is_checked_without_panic(config in any_config()) {
        if let Err(found) = spec().check(&config) {
            prop_assert!(!found.is_empty());
        }
    }

    #[test]
    fn a_checked_configuration_passes_unchanged(config in prop_oneof![good_config(), any_config()]) {
        if let Ok(once) = spec().check(&config) {
            prop_assert_eq!(spec().check(once.as_map()), Ok(once));
        }
    }
}
