use gantry_proto::v1::{RecordCounts, offset_change::Place};

use super::*;

fn fields(name: &str, kind: Kind) -> Fields {
    [(name.to_owned(), Value { kind: Some(kind) })].into()
}

fn file(name: &str) -> Fields {
    fields("path", Kind::StringValue(name.to_owned()))
}

fn byte(n: u64) -> Fields {
    fields("byte", Kind::Uint64Value(n))
}

fn at(seconds: i64) -> Timestamp {
    Timestamp { seconds, nanos: 0 }
}

fn record(name: &str, n: u64) -> OffsetRecord {
    OffsetRecord {
        partition: file(name),
        position: byte(n),
        sink_state: vec![1],
        counts: Some(RecordCounts {
            r#in: 3,
            ..RecordCounts::default()
        }),
        time: Some(at(100)),
        history: vec![PastPosition {
            position: byte(1),
            time: Some(at(10)),
            sink_state: vec![7],
        }],
        ..OffsetRecord::default()
    }
}

fn to(name: &str, n: u64) -> Settled {
    Settled {
        partition: file(name),
        position: byte(n),
        sink_state: None,
    }
}

fn change(name: &str, position: Fields, target: Option<Target>) -> OffsetChange {
    OffsetChange {
        partition: file(name),
        position,
        target,
    }
}

#[test]
fn a_request_says_one_thing_of_each_partition() {
    let latest = Some(Target::Place(Place::Latest.into()));
    let refused = |list: &[OffsetChange], others: Option<&OffsetChange>| -> Vec<String> {
        let violations = changes(&[], list, others).expect_err("it is not valid");
        violations.into_iter().map(|v| v.field).collect()
    };
    assert_eq!(refused(&[], None), ["changes"]);
    let list = [
        change("a", byte(1), None),
        change("a", byte(2), None),
        change("b", byte(2), latest),
        change("c", Fields::new(), None),
        change("d", Fields::new(), Some(Target::Place(0))),
    ];
    let named = change("e", Fields::new(), latest);
    assert_eq!(
        refused(&list, Some(&named)),
        [
            "changes[1].partition",
            "changes[2]",
            "changes[3]",
            "changes[4].place",
            "others.partition"
        ]
    );
    let all = OffsetChange {
        target: latest,
        ..OffsetChange::default()
    };
    let (found, others) = changes(&[], &list[..1], Some(&all)).expect("it is valid");
    assert_eq!(
        (found[0].path.as_str(), others),
        ("changes[0]", Some(Wanted::Ask(all)))
    );
}

#[test]
fn an_integer_is_the_same_whatever_its_type() {
    let signed = fields("partition", Kind::Int64Value(3));
    let unsigned = fields("partition", Kind::Uint64Value(3));
    let present = [OffsetRecord {
        partition: unsigned.clone(),
        ..record("", 1)
    }];
    let list = [OffsetChange {
        partition: signed.clone(),
        position: byte(2),
        target: None,
    }];
    let (found, _) = changes(&present, &list, None).expect("it is valid");
    assert_eq!(found[0].partition, unsigned);
    assert_ne!(
        identity(&fields("partition", Kind::Int64Value(-3))),
        identity(&signed)
    );
    assert_ne!(
        identity(&fields("partition", Kind::StringValue("3".into()))),
        identity(&signed)
    );
}

#[test]
fn altered_partitions_count_anew_and_remember_where_they_were() {
    let present = [record("a", 5), record("b", 6)];
    let after = altered(&present, &[to("b", 2), to("c", 9)], at(200));
    assert_eq!(after[0], present[0], "what is not named stays as it is");
    assert_eq!(
        (&after[1].position, after[1].counts, after[1].time),
        (&byte(2), None, Some(at(200)))
    );
    assert_eq!(after[1].sink_state, [1], "what the sink has written stays");
    let last = after[1].history.last().expect("it remembers");
    assert_eq!(
        (&last.position, last.time, &last.sink_state),
        (&byte(6), Some(at(100)), &vec![1])
    );
    assert_eq!((&after[2].partition, &after[2].position), (&file("c"), &byte(9)));
    let diff = difference(&present, &after);
    let shown: Vec<_> = diff
        .iter()
        .map(|d| (shown(&d.partition), shown(&d.before), shown(&d.after)))
        .collect();
    let text = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
    assert_eq!(
        shown,
        [text("path=b", "byte=6", "byte=2"), text("path=c", "", "byte=9")]
    );
    // To where it is: nothing is forgotten.
    assert_eq!(altered(&present, &[to("a", 5)], at(200)), present);
}

#[test]
fn history_stays_bounded() {
    let mut records = vec![record("a", 0)];
    for n in 1..50 {
        records = altered(&records, &[to("a", n)], at(200));
    }
    assert_eq!(records[0].history.len(), KEPT);
    assert_eq!(records[0].history[KEPT - 1].position, byte(48));
}

#[test]
fn a_time_finds_the_last_position_before_it() {
    let record = record("a", 5);
    let found = |seconds| committed_at(&record, at(seconds)).map(|s| (s.position, s.sink_state));
    assert_eq!(found(1000), Ok((byte(5), Some(vec![1]))));
    assert_eq!(found(100), Ok((byte(5), Some(vec![1]))));
    assert_eq!(found(99), Ok((byte(1), Some(vec![7]))), "with the state of then");
    assert!(found(9).is_err_and(|why| why.contains("path=a")));
}

#[test]
fn a_reset_forgets_what_a_source_had_and_sends_queues_to_their_beginning() {
    let present = [record("a", 5), record("b", 6)];
    assert_eq!(forgotten(&present, None), []);
    assert_eq!(forgotten(&present, Some(&[file("a")])), [present[1].clone()]);
    let gone = difference(&present, &forgotten(&present, None));
    assert_eq!((gone.len(), gone[0].after.is_empty()), (2, true));
    let queue = queue_partition(&Queue {
        topic: "t".into(),
        broker: "b".into(),
        id: 0,
    });
    let after = altered(&present[..1], &earliest([&present[0].partition, &queue]), at(200));
    assert_eq!(shown(&after[0].position), "offset=EARLIEST");
    assert!(after[0].sink_state.is_empty() && after[0].history.len() == 2);
    assert_eq!(shown(&after[1].partition), "broker=b,queue=0,topic=t");
}
