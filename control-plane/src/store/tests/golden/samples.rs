//! One value of each stored message with every field of its own set.

use gantry_proto::{
    agent::v1 as agent,
    v1::{self, Value, value::Kind},
};
use pbjson_types::Timestamp;

use super::{Names, golden};
use crate::{domain::stored, store::tests::world::map};

fn text(text: &str) -> String {
    text.to_owned()
}

fn time(seconds: i64) -> Option<Timestamp> {
    Some(Timestamp { seconds, nanos: 5 })
}

fn problem() -> Option<v1::Problem> {
    let domain = v1::problem::Domain::External.into();
    Some(v1::Problem {
        domain,
        reason: text("R"),
        message: text("m"),
        fix: text("f"),
        time: time(1),
    })
}

fn lock() -> Option<agent::LockIdentity> {
    Some(agent::LockIdentity {
        boot_id: text("boot"),
        device: 1,
        inode: u64::MAX,
    })
}

fn config() -> Option<pbjson_types::Struct> {
    let value = pbjson_types::value::Kind::StringValue(text("/data"));
    let fields = [(text("path"), pbjson_types::Value { kind: Some(value) })].into();
    Some(pbjson_types::Struct { fields })
}

fn definition() -> Option<v1::Connector> {
    Some(v1::Connector {
        name: text("connectors/orders"),
        plugin: text("file-source"),
        config: config(),
        topic: text("orders"),
        tasks_max: 3,
        target_state: v1::connector::TargetState::Running.into(),
        labels: [(text("team"), text("a"))].into(),
        ..Default::default()
    })
}

fn refusal() -> stored::Refusal {
    stored::Refusal {
        agent: text("a"),
        until: time(2),
        times: 3,
        message: text("no such plugin"),
        spec_hash: text("ab"),
    }
}

fn spec() -> Option<agent::TaskSpec> {
    let queues = vec![v1::Queue {
        topic: text("t"),
        broker: text("b"),
        id: 3,
    }];
    let (connector, plugin, config) = (text("orders"), text("file-source"), config());
    Some(agent::TaskSpec {
        connector,
        plan_generation: 2,
        tasks: 3,
        plugin,
        config,
        queues,
        ..Default::default()
    })
}

fn partition() -> crate::store::Partition {
    let value = |kind| Value { kind: Some(kind) };
    [
        (text("b"), value(Kind::BytesValue(vec![0, 255]))),
        (text("i"), value(Kind::Int64Value(i64::MIN))),
        (text("s"), value(Kind::StringValue(text("x")))),
        (text("t"), value(Kind::BoolValue(true))),
        (text("u"), value(Kind::Uint64Value(u64::MAX))),
    ]
    .into()
}

/// Compares all of them.
pub(super) fn compare(names: &mut Names) {
    golden(
        names,
        stored::StoreId {
            format: 0,
            id: text("0123"),
        },
    );
    golden(names, stored::ClusterFormat { format: 0, writes: 1 });
    let (replica, incarnation, address) = (text("r1"), text("i1"), text("http://h:1"));
    golden(
        names,
        stored::Leader {
            format: 0,
            replica,
            incarnation: incarnation.clone(),
            address: address.clone(),
        },
    );
    golden(
        names,
        stored::Replica {
            format: 0,
            incarnation,
            address,
            agent_address: text("http://h:2"),
            reads: 1,
        },
    );
    let labels = [(text("zone"), text("a"))].into();
    golden(
        names,
        stored::AgentSettings {
            format: 0,
            cordoned: true,
            draining: true,
            labels,
        },
    );
    golden(
        names,
        stored::Instance {
            format: 0,
            instance_uid: text("u1"),
            lock: lock(),
            start_counter: 3,
            dial_counter: 4,
        },
    );
    golden(
        names,
        stored::Session {
            format: 0,
            instance_uid: text("u1"),
            lock: lock(),
            start_counter: 3,
            gone: vec![text("u0")],
            replica: text("r1"),
            silent: true,
            version: text("0.1.0"),
            host: text("h"),
            host_id: text("id"),
            labels: [(text("zone"), text("a"))].into(),
            capacity: 10,
            plugins: vec![text("file-source@0.1.0")],
            connect_time: time(1),
            dial_counter: 4,
        },
    );
    let plugin = v1::Plugin {
        name: text("plugins/file-source"),
        version: text("0.1.0"),
        ..Default::default()
    };
    golden(
        names,
        stored::PluginRecord {
            format: 0,
            plugin: Some(plugin),
            hash: text("ab"),
        },
    );
    golden(
        names,
        stored::Connector {
            format: 0,
            uid: text("0011223344556677"),
            definition: definition(),
            generation: 2,
            restart_nonce: text("n"),
            task_restart_nonces: [(1, text("m"))].into(),
            create_time: time(1),
            update_time: time(2),
            delete_time: time(3),
            keep_offsets: true,
            traceparent: text("00-1-2-01"),
            revision: 4,
        },
    );
    golden(
        names,
        stored::Revision {
            format: 0,
            definition: definition(),
            principal: text("p"),
            time: time(1),
            request_id: text("id"),
        },
    );
    golden(
        names,
        stored::PlannedTask {
            format: 0,
            spec: spec(),
            spec_hash: text("ab"),
        },
    );
    golden(
        names,
        stored::PlanPointer {
            format: 0,
            plan_generation: 2,
            tasks: 3,
            generation: 4,
            input_hash: text("ab"),
            problem: problem(),
            problem_generation: 5,
            problem_final: true,
            next_attempt_time: time(1),
            attempts: 6,
            plugin_version: text("0.1.0"),
        },
    );
    golden(
        names,
        stored::Grant {
            format: 0,
            agent: text("a"),
            instance_uid: text("u1"),
            plan_generation: 2,
            host_id: text("h"),
        },
    );
    golden(
        names,
        stored::Want {
            format: 0,
            want: agent::task_assignment::Want::Pause.into(),
            spec_hash: text("ab"),
            restart_nonce: text("n"),
            plan_generation: 2,
            traceparent: text("00-1-2-01"),
            host_id: text("h"),
            refusals: vec![refusal()],
        },
    );
    golden(
        names,
        stored::Status {
            format: 0,
            agent: text("a"),
            instance_uid: text("u1"),
            fence: 7,
            want_revision: 8,
            state: v1::task::State::BackingOff.into(),
            problem: problem(),
            next_attempt_time: time(1),
            restarts: 2,
            state_time: time(2),
            restart_nonce: text("n"),
            replan_wanted: true,
            refusal: Some(refusal()),
            gaps: Vec::new(),
        },
    );
    let alteration = stored::Alteration {
        epoch: 2,
        time: time(1),
        principal: text("p"),
        kind: text("RESET"),
        request_id: String::new(),
    };
    golden(
        names,
        stored::OffsetsHead {
            format: 0,
            epoch: 2,
            history: vec![alteration],
        },
    );
    let past = stored::PastPosition {
        position: map("offset", 1),
        time: time(1),
        sink_state: vec![1],
    };
    golden(
        names,
        stored::OffsetRecord {
            format: 0,
            partition: partition(),
            position: map("offset", 2),
            sink_state: vec![2, 3],
            counts: Some(v1::RecordCounts {
                r#in: 5,
                out: 1,
                filtered: 1,
                skipped: 1,
                dead_lettered: 2,
            }),
            time: time(2),
            history: vec![past],
        },
    );
    golden(
        names,
        stored::RetainedOffsets {
            format: 0,
            connector: text("orders"),
            plugin: text("file-source"),
            delete_time: time(3),
            copying: true,
        },
    );
    let event = v1::Event {
        sequence: 3,
        r#type: text("CREATED"),
        problem: problem(),
        ..Default::default()
    };
    golden(
        names,
        stored::EventRecord {
            format: 0,
            event: Some(event),
        },
    );
    let question = agent::ask::Question::PlanTasks(agent::PlanTasks {
        tasks_max: 3,
        route: Vec::new(),
    });
    let ask = agent::Ask {
        id: text("1"),
        config: config(),
        question: Some(question),
        ..Default::default()
    };
    golden(
        names,
        stored::AskRecord {
            format: 0,
            ask: Some(ask),
            instance_uid: text("u1"),
        },
    );
    let answer = agent::ask_answer::Answer::Validate(agent::ValidateAnswer::default());
    let answer = agent::AskAnswer {
        id: text("1"),
        answer: Some(answer),
    };
    golden(
        names,
        stored::AnswerRecord {
            format: 0,
            answer: Some(answer),
        },
    );
    golden(
        names,
        stored::RequestRecord {
            format: 0,
            hash: vec![9; 32],
            resource: text("connectors/orders"),
            changed: true,
        },
    );
}
