use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Map, Value as Json};

use super::{
    Rng, check_info,
    drive::{Manner, TaskOf, as_start, expect_nothing_more, positions_after, read},
};
use crate::{Domain, Env, Fields, Severity, SourcePlugin, SourceRecord, StartPosition};

/// An outside system that a source reads from.
pub trait SourceWorld {
    /// The plugin to check.
    fn plugin(&self) -> Arc<dyn SourcePlugin>;

    /// Sets the outside system up anew, always with the same content, and says how to read it.
    fn set_up(&mut self) -> (Map<String, Json>, Env);

    /// How many records there are in all, at most a few thousand. Of a source without end: how many are enough.
    fn records(&self) -> usize;

    /// Whether more than [`SourceWorld::records`] will come.
    fn endless(&self) -> bool {
        false
    }
}

type Sequences = BTreeMap<Fields, Vec<SourceRecord>>;

/// Checks a source against all that the contract of [`crate::Source`] says.
///
/// # Panics
/// When something is broken.
pub async fn check_source(world: &mut dyn SourceWorld, seed: u64) {
    let mut suite = Suite {
        plugin: world.plugin(),
        rng: Rng::new(seed),
        world,
    };
    check_info(&suite.plugin.info());
    suite.plans().await;
    let whole = suite.whole().await;
    suite.small_batches(&whole).await;
    suite.interrupted(&whole).await;
    suite.several_tasks(&whole).await;
    suite.restarts(&whole, seed).await;
    suite.alien_positions(&whole).await;
    suite.closes_early().await;
}

struct Suite<'a> {
    plugin: Arc<dyn SourcePlugin>,
    rng: Rng,
    world: &'a mut dyn SourceWorld,
}

impl Suite<'_> {
    fn anew(&mut self) -> TaskOf {
        let (map, env) = self.world.set_up();
        let spec = self.plugin.info().spec;
        let config = spec
            .check(&map)
            .unwrap_or_else(|v| panic!("the world's configuration is refused: {v:?}"));
        TaskOf {
            config,
            env,
            task: 0,
            tasks: 1,
        }
    }

    async fn plans(&mut self) {
        let task = self.anew();
        let findings = self.plugin.validate(&task.config, &task.env).await;
        let errors: Vec<_> = findings
            .iter()
            .filter(|f| f.severity == Severity::Error)
            .collect();
        assert!(
            errors.is_empty(),
            "validate refuses a world that can be read: {errors:?}"
        );
        for tasks_max in [1, 2, 5] {
            let plan = || self.plugin.plan_tasks(&task.config, tasks_max, &task.env);
            let (first, second) = (plan().await, plan().await);
            let (first, second) = (
                first.expect("plan_tasks failed"),
                second.expect("plan_tasks failed"),
            );
            assert!(
                (1..=tasks_max as usize).contains(&first.len()),
                "{} tasks of at most {tasks_max}",
                first.len()
            );
            assert!(first == second, "two plans of the same state differ");
        }
    }

    /// All there is, as one undisturbed task reads it.
    async fn whole(&mut self) -> Vec<SourceRecord> {
        let task = self.anew();
        let mut source = task.must_open(&*self.plugin, vec![]).await;
        let mut manner = Manner::calm();
        let mut records = read(&mut *source, self.world.records(), &mut manner).await;
        if self.world.endless() {
            records.truncate(self.world.records());
        } else {
            expect_nothing_more(&mut *source, &mut manner).await;
        }
        source.close().await.expect("close failed");
        assert_eq!(records.len(), self.world.records(), "number of records");
        for (partition, sequence) in sequences(&records) {
            let shared = sequence
                .windows(2)
                .all(|w| Arc::ptr_eq(&w[0].partition, &w[1].partition));
            assert!(shared, "records of {partition} do not share one Arc of it");
            for (i, record) in sequence.iter().enumerate() {
                // Equal neighbours are indivisible; an equal position further on would mean a step back.
                let back = sequence[i + 1..]
                    .iter()
                    .skip_while(|r| r.position == record.position);
                let again = back.into_iter().any(|r| r.position == record.position);
                assert!(!again, "position {} of {partition} comes twice", record.position);
            }
        }
        records
    }

    async fn small_batches(&mut self, whole: &[SourceRecord]) {
        let task = self.anew();
        let mut source = task.must_open(&*self.plugin, vec![]).await;
        let mut manner = Manner {
            max_bytes: 1,
            interrupt: None,
        };
        let mut records = read(&mut *source, whole.len(), &mut manner).await;
        source.close().await.expect("close failed");
        records.truncate(whole.len());
        same(&sequences(&records), &sequences(whole), "with max_bytes = 1");
    }

    async fn interrupted(&mut self, whole: &[SourceRecord]) {
        for round in 0..10 {
            let task = self.anew();
            let mut source = task.must_open(&*self.plugin, vec![]).await;
            let interrupt = Rng::new(self.rng.any());
            let mut manner = Manner {
                max_bytes: 1 << (4 + self.rng.below(14)),
                interrupt: Some(interrupt),
            };
            let mut records = read(&mut *source, whole.len(), &mut manner).await;
            if !self.world.endless() {
                expect_nothing_more(&mut *source, &mut manner).await;
            }
            source.close().await.expect("close failed");
            records.truncate(whole.len());
            same(
                &sequences(&records),
                &sequences(whole),
                &format!("when poll is dropped (round {round})"),
            );
        }
    }

    async fn several_tasks(&mut self, whole: &[SourceRecord]) {
        if self.world.endless() {
            return;
        }
        let wanted = sequences(whole);
        for tasks_max in [2, 3] {
            let one = self.anew();
            let plan = self
                .plugin
                .plan_tasks(&one.config, tasks_max, &one.env)
                .await
                .expect("plan_tasks failed");
            let tasks = plan.len() as u32;
            let mut all = Sequences::new();
            for (task, config) in (0..tasks).zip(plan) {
                let task = TaskOf {
                    config,
                    env: one.env.clone(),
                    task,
                    tasks,
                };
                let mut source = task.must_open(&*self.plugin, vec![]).await;
                let records = drain(&mut *source).await;
                source.close().await.expect("close failed");
                for (partition, sequence) in sequences(&records) {
                    let taken = all.insert(partition.clone(), sequence);
                    assert!(taken.is_none(), "{partition} is read by two of {tasks} tasks");
                }
            }
            same(&all, &wanted, &format!("split into {tasks} tasks"));
        }
    }

    /// Stops after some records, commits a part of them, and starts again from there.
    async fn restarts(&mut self, whole: &[SourceRecord], seed: u64) {
        let wanted = sequences(whole);
        let few = whole.len() <= 40;
        let rounds = if few { whole.len() + 1 } else { 40 };
        for round in 0..rounds {
            let read_first = if few {
                round
            } else {
                self.rng.below(whole.len() + 1)
            };
            let task = self.anew();
            let mut source = task.must_open(&*self.plugin, vec![]).await;
            let mut manner = Manner {
                max_bytes: 1 + self.rng.below(4096),
                interrupt: None,
            };
            let records = read(&mut *source, read_first, &mut manner).await;
            let commit = if self.rng.one_in(2) {
                read_first
            } else {
                self.rng.below(read_first + 1)
            };
            let commit = divisible(&records, commit);
            let positions = positions_after(&records[..commit]);
            let told = self.rng.one_in(2);
            if told {
                source.committed(&positions).await.expect("committed failed");
            }
            let closed = self.rng.one_in(2);
            if closed {
                source.close().await.expect("close failed");
            }
            drop(source);

            let mut source = task.must_open(&*self.plugin, as_start(&positions)).await;
            let done = sequences(&records[..commit]);
            let rest: Sequences = wanted
                .iter()
                .map(|(p, all)| {
                    (
                        p.clone(),
                        all[done.get(p).map_or(0, Vec::len).min(all.len())..].to_vec(),
                    )
                })
                .filter(|(_, rest)| !rest.is_empty())
                .collect();
            let how_many = rest.values().map(Vec::len).sum();
            let mut again = read(&mut *source, how_many, &mut manner).await;
            if self.world.endless() {
                again.truncate(how_many);
            } else {
                expect_nothing_more(&mut *source, &mut manner).await;
            }
            source.close().await.expect("close failed");
            let how = format!(
                "after a restart (seed {seed}, round {round}): {read_first} read, {commit} committed, told: {told}, closed: {closed}"
            );
            same(&sequences(&again), &rest, &how);
        }
    }

    async fn alien_positions(&mut self, whole: &[SourceRecord]) {
        let alien = Fields::new().with("gantry_testkit_alien", true);
        let Some(record) = whole.first() else { return };
        let cases = [
            ("an alien partition", alien.clone(), record.position.clone()),
            ("an alien position", (*record.partition).clone(), alien),
            ("an empty position", (*record.partition).clone(), Fields::new()),
        ];
        for (what, partition, position) in cases {
            let task = self.anew();
            match task
                .open(&*self.plugin, vec![StartPosition { partition, position }])
                .await
            {
                Ok(_) => panic!("{what} is accepted"),
                Err((mut source, e)) => {
                    assert_eq!(e.domain(), Domain::User, "{what} is refused as {}", e.chain());
                    source.close().await.expect("close after a failed open failed");
                }
            }
        }
    }

    async fn closes_early(&mut self) {
        let task = self.anew();
        let mut source = task.must_open(&*self.plugin, vec![]).await;
        source
            .committed(&[])
            .await
            .expect("committed with nothing failed");
        source.close().await.expect("close right after open failed");
    }
}

/// Reads until nothing comes for a while.
async fn drain(source: &mut dyn crate::Source) -> Vec<SourceRecord> {
    let (mut records, mut quiet) = (Vec::new(), 0);
    while quiet < 50 {
        let answer = tokio::time::timeout(std::time::Duration::from_secs(10), source.poll(1 << 20)).await;
        let Ok(polled) = answer.map(|p| p.expect("poll failed")) else {
            break;
        };
        quiet = if polled.records.is_empty() { quiet + 1 } else { 0 };
        records.extend(polled.records);
        if polled.end {
            break;
        }
        tokio::time::sleep(polled.idle_for.unwrap_or_default()).await;
    }
    records
}

/// The largest number of records not above `commit` that does not end between indivisible ones.
fn divisible(records: &[SourceRecord], mut commit: usize) -> usize {
    let cuts = |n: usize| {
        let (before, after) = (&records[..n], &records[n..]);
        after.iter().any(|a| {
            let last = before.iter().rev().find(|b| b.partition == a.partition);
            last.is_some_and(|b| b.position == a.position)
        })
    };
    while commit > 0 && cuts(commit) {
        commit -= 1;
    }
    commit
}

fn sequences(records: &[SourceRecord]) -> Sequences {
    let mut all = Sequences::new();
    for r in records {
        all.entry((*r.partition).clone()).or_default().push(r.clone());
    }
    all
}

fn same(seen: &Sequences, wanted: &Sequences, how: &str) {
    let names = |s: &Sequences| s.keys().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(names(seen), names(wanted), "partitions {how}");
    for (partition, wanted) in wanted {
        let seen = &seen[partition];
        for (i, (s, w)) in seen.iter().zip(wanted).enumerate() {
            let fits = s.position == w.position
                && s.value == w.value
                && s.key == w.key
                && s.tag == w.tag
                && s.headers == w.headers;
            assert!(fits, "record {i} of {partition} {how}: {s:?} instead of {w:?}");
        }
        assert_eq!(seen.len(), wanted.len(), "number of records of {partition} {how}");
    }
}
