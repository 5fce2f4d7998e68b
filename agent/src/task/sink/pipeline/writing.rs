//! What the sink is given to do, and what becomes of it.

use super::*;

impl Pipeline {
    /// Gives the thread something to do, if it has nothing.
    pub(super) fn advance(&mut self) {
        let now = Instant::now();
        let flushing = self.ending.as_ref().is_none_or(|e| e.flush);
        match &self.stage {
            Stage::Idle if !self.based => {}
            Stage::Idle if flushing && self.flush_due(now) => {
                self.order(Order::Flush);
                self.stage = Stage::Flushing(now);
            }
            Stage::Idle if self.ending.is_none() && !self.chunks.is_empty() => {
                let limits = &self.ctx.limits;
                let (batch, records) =
                    batch::assemble(&mut self.chunks, limits.write_records, limits.write_bytes);
                self.write(batch, records);
            }
            Stage::FlushAgain(at) if *at <= now => {
                self.order(Order::Flush);
                self.stage = Stage::Flushing(now);
            }
            Stage::WriteAgain(batch, at) if *at <= now => {
                let fetch = batch::fetch(self.ctx.bus.clone(), self.names.clone(), batch.clone());
                self.working = Some(async move { Worked::Fetched(fetch.await) }.boxed());
                self.stage = Stage::Fetching(batch.clone());
            }
            _ => {}
        }
    }

    pub(super) fn write(&mut self, batch: Batch, records: Vec<SinkRecord>) {
        if records.is_empty() {
            self.written(batch, &[], Rejected::Skipped);
        } else {
            self.order(Order::Write(records));
            self.stage = Stage::Writing(batch, Instant::now());
        }
    }

    /// Whether what is written has to be flushed now.
    pub(super) fn flush_due(&self, now: Instant) -> bool {
        let Some(since) = self.flush.since else {
            return false;
        };
        self.ending.is_some()
            || self.flush.bytes >= self.ctx.limits.flush_bytes
            || since + self.ctx.limits.flush_interval <= now
    }

    pub(super) fn order(&mut self, order: Order) {
        // The thread has room for two and is never given a second one before it has answered.
        let _ = self.thread.orders.try_send(order);
    }

    pub(super) fn wrote(&mut self, result: Result<WriteReport, ConnectorError>) {
        let Stage::Writing(batch, _) = std::mem::replace(&mut self.stage, Stage::Idle) else {
            return;
        };
        match result {
            Ok(report) => {
                self.troubles.worked(Spot::Write);
                self.retries.reset();
                self.judge(batch, report);
            }
            Err(e) if e.domain() == Domain::Environment => {
                self.troubles
                    .failed(Spot::Write, Failure::connector("write", &e), Instant::now());
                self.stage = Stage::WriteAgain(batch, Instant::now() + self.retries.fail());
            }
            Err(e) => self.fail(Failure::connector("write", &e)),
        }
    }

    /// Does with rejected records what the error policy says.
    pub(super) fn judge(&mut self, batch: Batch, report: WriteReport) {
        let known = |(at, e): (usize, ConnectorError)| Some((*batch.records.get(at)?, at, e));
        let mut rejected: Vec<_> = report.rejected.into_iter().filter_map(known).collect();
        rejected.sort_by_key(|(_, at, _)| *at);
        rejected.dedup_by_key(|(_, at, _)| *at);
        let Some(((index, offset), _, first)) = rejected.first() else {
            self.written(batch, &[], Rejected::Skipped);
            return;
        };
        let policy = self
            .ctx
            .spec
            .error_policy
            .as_ref()
            .map(|p| p.on_record_error())
            .unwrap_or_default();
        match policy {
            OnRecordError::Unspecified | OnRecordError::Fail => {
                let queue = &self.names[*index as usize];
                let message = format!("record at offset {offset} of queue {queue}: {}", first.chain());
                let failure = Failure::new(Cause::Record, "RECORD_REJECTED", message)
                    .fix("correct the data or the sink's configuration, or set error_policy.on_record_error to SKIP or DEAD_LETTER");
                self.fail(failure);
            }
            OnRecordError::Skip => {
                self.ctx.metrics.skipped(rejected.len() as u64);
                let skipped: Vec<_> = rejected.iter().map(|(_, at, _)| *at).collect();
                self.written(batch, &skipped, Rejected::Skipped);
            }
            OnRecordError::DeadLetter => {
                self.ctx.metrics.dead_lettered(rejected.len() as u64);
                let indices: Vec<_> = rejected.iter().map(|(_, at, _)| *at).collect();
                let letters = rejected.into_iter().map(|((index, offset), _, e)| {
                    let queue = self.names[index as usize].clone();
                    let cause = dead_letter::Cause {
                        error: self.ctx.scrubber.scrub(&e.chain()),
                        stage: "write",
                        connector: self.ctx.spec.connector.clone(),
                        task: self.ctx.key.task,
                        partition: queue.to_string(),
                        position: format!("offset={offset}"),
                    };
                    (queue, offset, cause)
                });
                self.working = Some(
                    bury(self.letters.clone(), letters.collect())
                        .map(Worked::Buried)
                        .boxed(),
                );
                self.stage = Stage::Burying(batch, indices);
            }
        }
    }

    pub(super) fn buried(&mut self, result: Result<(), BusError>) {
        let Stage::Burying(batch, indices) = std::mem::replace(&mut self.stage, Stage::Idle) else {
            return;
        };
        match result {
            Ok(()) => {
                self.troubles.worked(Spot::DeadLetter);
                self.written(batch, &indices, Rejected::DeadLettered);
            }
            Err(e) => {
                let mut failure = Failure::bus(&e);
                failure.message = format!("the dead letter cannot be stored: {}", failure.message);
                self.fail(failure);
            }
        }
    }

    /// The sink has taken the batch, except these records, for which this was done instead.
    pub(super) fn written(&mut self, batch: Batch, rejected: &[usize], instead: Rejected) {
        self.moved += 1;
        for run in &batch.runs {
            let q = &mut self.queues[run.index];
            let jumped = run
                .next
                .saturating_sub(q.written)
                .saturating_sub(run.count as u64);
            if jumped > 0 {
                q.counts.skipped += jumped;
                self.gaps.push(hole(&q.queue, q.written, run.next, jumped));
            }
            q.dirty |= q.written != run.next;
            q.written = run.next;
            q.counts.r#in += run.count as u64;
            q.counts.out += run.count as u64;
        }
        for at in rejected {
            let counts = &mut self.queues[batch.records[*at].0 as usize].counts;
            counts.out -= 1;
            match instead {
                Rejected::Skipped => counts.skipped += 1,
                Rejected::DeadLettered => counts.dead_lettered += 1,
            }
        }
        self.budget.free(batch.weight);
        self.ctx
            .metrics
            .out((batch.records.len() - rejected.len()) as u64, batch.weight);
        self.ctx
            .metrics
            .lag(self.queues.iter().map(QueueState::lag).sum());
        self.flush.bytes += batch.weight;
        if self.queues.iter().any(|q| q.dirty) {
            self.flush.since.get_or_insert_with(Instant::now);
        }
    }

    pub(super) fn flushed(&mut self, result: Result<Flushed, ConnectorError>) {
        self.stage = Stage::Idle;
        match result {
            Ok(flushed) => {
                self.moved += 1;
                self.troubles.worked(Spot::Write);
                self.retries.reset();
                for (index, state) in flushed.states {
                    if let Some(q) = self.queues.get_mut(index as usize) {
                        q.dirty |= q.state.as_ref() != Some(&state);
                        q.state = Some(state);
                    }
                }
                for q in self.queues.iter_mut().filter(|q| q.dirty) {
                    q.dirty = false;
                    self.ledger.put(q.fields.clone(), q.mark());
                }
                self.flush = FlushState {
                    bytes: 0,
                    since: None,
                };
                self.based |= self.ledger.is_clean();
            }
            Err(e) if e.domain() == Domain::Environment => {
                self.troubles
                    .failed(Spot::Write, Failure::connector("flush", &e), Instant::now());
                self.stage = Stage::FlushAgain(Instant::now() + self.retries.fail());
            }
            Err(e) => self.fail(Failure::connector("flush", &e)),
        }
    }

    pub(super) fn fetched_again(&mut self, result: Result<Vec<SinkRecord>, BusError>) {
        let Stage::Fetching(mut batch) = std::mem::replace(&mut self.stage, Stage::Idle) else {
            return;
        };
        match result {
            Ok(records) => {
                batch.records = records.iter().map(|r| (r.partition, r.offset)).collect();
                for run in &mut batch.runs {
                    let of_run = |(index, offset): &&(u32, u64)| {
                        *index as usize == run.index && (run.from..run.next).contains(offset)
                    };
                    run.count = batch.records.iter().filter(of_run).count();
                }
                self.write(batch, records);
            }
            Err(e) if e.kind() == BusErrorKind::OffsetOutOfRange => self.fail(Failure::bus(&e)),
            Err(e) => {
                tracing::debug!(error = %e, "the batch cannot be read again yet");
                self.stage = Stage::WriteAgain(batch, Instant::now() + self.retries.fail());
            }
        }
    }

    /// The failure, if the thread takes too long.
    pub(super) fn overdue(&self) -> Option<Failure> {
        let (hook, since) = match &self.stage {
            Stage::Writing(_, since) => ("write", *since),
            Stage::Flushing(since) => ("flush", *since),
            _ => return None,
        };
        let limit = self.ctx.limits.hooks.write;
        (since + limit <= Instant::now()).then(|| hung(hook, limit))
    }
}

/// Offsets between two positions that the bus has no message for: nothing is filtered on the broker.
fn hole(queue: &Queue, from: u64, to: u64, jumped: u64) -> Gap {
    let message = format!("queue {queue} has no message at {jumped} of the offsets from {from} to {to}");
    Gap {
        amount: jumped,
        unit: "messages",
        why: Failure::new(Cause::External, "MESSAGES_MISSING", message),
    }
}

/// Stores dead letters of these records, many at a time.
async fn bury(dead: DeadLetters, letters: Vec<(Queue, u64, dead_letter::Cause)>) -> Result<(), BusError> {
    stream::iter(letters.into_iter().map(Ok::<_, BusError>))
        .try_for_each_concurrent(32, |(queue, offset, cause)| {
            let dead = dead.clone();
            async move {
                let mut backoff = Backoff::new(OUTSIDE, dead.jitter.clone());
                let message = loop {
                    match batch::fetch_one(&*dead.bus, &queue, offset).await {
                        Ok(message) => break message,
                        Err(e) if e.kind() == BusErrorKind::OffsetOutOfRange => return Err(e),
                        Err(_) => tokio::time::sleep(backoff.fail()).await,
                    }
                };
                let record = convert::to_record(message, 0);
                let value = convert::value_bytes(record.value);
                let letter = dead_letter::message(
                    &cause,
                    record.key.as_deref(),
                    record.tag.as_deref(),
                    value.as_ref(),
                );
                dead.store(letter).await
            }
        })
        .await
}
