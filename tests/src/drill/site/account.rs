//! The account at the end of a drill.

use anyhow::{Context, Result, ensure};

use super::{LONG, SOON, Site};
use crate::drill::audit::audit;

impl Site<'_> {
    /// Ends the feeders, waits until everything has arrived, and checks all that must hold.
    pub(super) async fn close(&mut self) -> Result<()> {
        let rolled = self.rolling.finish(&self.history, LONG).await;
        let rolled = rolled.context("the rolling series")?;
        for index in 0..self.flows.len() {
            let account = self.flows[index]
                .finish(&self.rocketmq, &self.history, LONG)
                .await?;
            let flow = &self.flows[index];
            let name = flow.name();
            let (restarts, again) = flow.restarts(self.history.view().changes())?;
            let bound = again + self.unknown.get(name).copied().unwrap_or(0);
            let at_kills = self.at_kills.get(name).copied().unwrap_or(0);
            self.report.say(format_args!(
                "{name}: {} written, 0 missing, {} repeated; {at_kills} were written and not committed when agents were struck, \
                 {bound} when the source's tasks started anew ({restarts} times); {} steps back",
                account.written, account.repeated, account.steps_back
            ));
            ensure!(
                account.repeated <= bound,
                "{name} has {} records more than once, and at most {bound} had been read and not committed",
                account.repeated
            );
            // The one before ends, and what it still sends after the next one has begun is at most one operation.
            ensure!(
                account.steps_back <= 2 * restarts + bound.min(1),
                "the records of {name} step back {} times, and its source has started anew only {restarts} times",
                account.steps_back
            );
        }
        self.history.catch_up(SOON).await?;
        let audited = audit(self.history.view().changes(), self.setup.lease())?;
        self.report.say(format_args!(
            "{} faults, {} of them met records in flight ({}); {} agents ended by themselves; {} commits, none went back; \
             {} rights given; {rolled}; {:.0} s",
            self.strikes,
            self.counted,
            self.in_flight,
            self.revived,
            audited.commits,
            audited.grants,
            self.begun.elapsed().as_secs_f64()
        ));
        ensure!(
            self.strikes == 0 || self.counted > 0,
            "no fault met records in flight: nothing was shown"
        );
        Ok(())
    }
}
