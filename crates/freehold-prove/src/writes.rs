//! A tenant's writes, whose requests are waited for: confirmed writes must be there afterwards, refused
//! writes must not, and after an error it must be one of the two.

use std::fmt::Write as _;

use freehold::{Error, TenantContext};
use uuid::Uuid;

use crate::ground::ledger_id;
use crate::ledger::{ROWS_MAX, Rows, Settled};
use crate::wire::Answer;
use crate::worker::{Ask, Worker};

const UPSERT: &str = "INSERT INTO ledger (id, worker, no, revision, tag, canary_id, body)
    VALUES ($1, $2, $3, $4, $5, $6, $7)
    ON CONFLICT (worker, no) DO UPDATE SET revision = excluded.revision, body = excluded.body";

impl Worker {
    pub(crate) async fn http_upsert(&mut self, ask: &Ask) {
        let numbers = self.choose_numbers();
        let revision = self.ledgers[ask.tenant].next_revision();
        let after = self.ledgers[ask.tenant].with(numbers.iter().copied(), revision);
        let mut body = "[".to_owned();
        let mark = &self.resident(ask).mark;
        for no in &numbers {
            let comma = if body.len() > 1 { "," } else { "" };
            let (id, canary) = (ledger_id(mark, self.number, *no), mark.row_id(1 + *no as u64));
            let (worker, tag, text) = (self.number, mark.tag, &mark.text);
            let _ = write!(
                body,
                r#"{comma}{{"id":"{id}","worker":{worker},"no":{no},"revision":{revision},"tag":{tag},"canary_id":"{canary}","body":"{text} {revision}"}}"#
            );
        }
        body.push(']');
        let prefer = "resolution=merge-duplicates,return=representation";
        let path = "/v1/data/ledger?on_conflict=worker,no&select=no,body";
        let answer = self.http(ask, "POST", path, prefer, &body).await;
        self.finish(ask, answer, numbers.len(), after).await;
    }

    pub(crate) async fn http_update(&mut self, ask: &Ask) {
        let below = self.dice.between(1, ROWS_MAX as usize) as i32;
        let revision = self.ledgers[ask.tenant].next_revision();
        let after = self.ledgers[ask.tenant].revised(|no| no < below, revision);
        let touched = after.values().filter(|known| **known == revision).count();
        let worker = self.number;
        let path = format!("/v1/data/ledger?worker=eq.{worker}&no=lt.{below}&select=no,body");
        let body = format!(
            r#"{{"revision":{revision},"body":"{} {revision}"}}"#,
            self.resident(ask).mark.text
        );
        let answer = self.http(ask, "PATCH", &path, "return=representation", &body).await;
        self.finish(ask, answer, touched, after).await;
    }

    pub(crate) async fn http_delete(&mut self, ask: &Ask) {
        let from = self.dice.between(ROWS_MAX as usize / 2, ROWS_MAX as usize - 1) as i32;
        let after = self.ledgers[ask.tenant].without(|no| no >= from);
        let touched = self.ledgers[ask.tenant].rows().len() - after.len();
        let worker = self.number;
        let path = format!("/v1/data/ledger?worker=eq.{worker}&no=gte.{from}&select=no,body");
        let answer = self.http(ask, "DELETE", &path, "return=representation", "").await;
        self.finish(ask, answer, touched, after).await;
    }

    /// A write over HTTP whose answer returns the affected rows.
    async fn finish(&mut self, ask: &Ask, answer: Option<Answer>, touched: usize, after: Rows) {
        let Some(answer) = answer else { return self.settle(ask, after).await };
        if !answer.is_success() {
            self.refused(ask, &answer);
            return self.settle(ask, after).await;
        }
        self.served(ask);
        self.tally.rows += touched as u64;
        self.ledgers[ask.tenant].commit(after);
        let seen = self.run.ground.watch.look(ask.tenant, answer.body()).own_marks;
        if seen != touched {
            let body = String::from_utf8_lossy(answer.body());
            let words = format!("{touched} rows were to be touched, {seen} were: {body}");
            match seen < touched {
                true => self.fault(ask, &words),
                false => self.leak(ask, &words),
            }
        }
    }

    pub(crate) async fn library_transaction(&mut self, ask: &Ask) {
        let numbers = self.choose_numbers();
        let keep = self.dice.percent(75);
        let revision = self.ledgers[ask.tenant].next_revision();
        let after = self.ledgers[ask.tenant].with(numbers.iter().copied(), revision);
        let handle = self.handle();
        let Some(context) = self.context(ask, &handle).await else { return };
        let work = self.transact(ask, &handle, &context, &numbers, revision, keep).await;
        match work {
            Ok(found) => {
                self.served(ask);
                self.compare(ask, &found, &after);
                if keep {
                    self.ledgers[ask.tenant].commit(after);
                }
            }
            Err(error) => {
                self.failed(ask, &error);
                self.settle(ask, after).await;
            }
        }
    }

    /// Writes, reads the state, and commits or rolls back.
    async fn transact(
        &self,
        ask: &Ask,
        handle: &freehold::Freehold,
        context: &TenantContext,
        numbers: &[i32],
        revision: i32,
        keep: bool,
    ) -> Result<Rows, Error> {
        let mark = &self.resident(ask).mark;
        let body = format!("{} {revision}", mark.text);
        let mut tx = handle.begin(context).await?;
        let fresh = tx
            // Removing temporary objects of an earlier transaction is a write, too.
            .query_one(
                "SELECT freehold.tenant(), pg_current_xact_id_if_assigned() IS NULL OR pg_my_temp_schema() <> 0",
                &[],
            )
            .await?;
        if fresh.get::<_, Option<Uuid>>(0) != Some(context.tenant().as_uuid()) {
            self.leak(ask, "the transaction is in another tenant's context");
        }
        if !fresh.get::<_, bool>(1) {
            self.leak(ask, "somebody wrote in the transaction before it began");
        }
        for no in numbers {
            let (id, canary) = (ledger_id(mark, self.number, *no), mark.row_id(1 + *no as u64));
            tx.execute(UPSERT, &[&id, &self.number, no, &revision, &mark.tag, &canary, &body])
                .await?;
        }
        let read = "SELECT no, revision FROM ledger WHERE worker = $1";
        let rows = tx.query(read, &[&self.number]).await?;
        match keep {
            true => tx.commit().await?,
            false => tx.rollback().await?,
        }
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    fn choose_numbers(&mut self) -> Vec<i32> {
        let mut numbers: Vec<i32> = (0..self.dice.between(1, 4))
            .map(|_| self.dice.below(ROWS_MAX as usize) as i32)
            .collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }

    /// After an error: reads, with a role to which no policy applies, what became of the write.
    async fn settle(&mut self, ask: &Ask, after: Rows) {
        let schema = self.resident(ask).id.schema();
        let sql = format!("SELECT no, revision FROM {schema}.ledger WHERE worker = $1");
        let found = match self.run.ground.observer.query(&sql, &[&self.number]).await {
            Ok(rows) => rows.iter().map(|row| (row.get(0), row.get(1))).collect::<Rows>(),
            Err(error) => return self.fault(ask, &format!("the observer cannot look: {error}")),
        };
        let known = self.ledgers[ask.tenant].rows().clone();
        if self.ledgers[ask.tenant].settle(&after, found.clone()) == Settled::Wrong {
            let words = format!(
                "a write ended in an error and is neither done nor undone: {known:?} was to become \
                 {after:?} and is {found:?}"
            );
            self.fault(ask, &words);
        }
    }
}
