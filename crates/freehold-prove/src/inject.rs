//! SQL injected into a tenant's query, and helper functions of its baseline that are called with more than
//! they are meant for: each attempt must be refused by the rule for it.

use freehold::{Error, ErrorKind, Freehold, Params, PipelineError, Row, TenantContext};

use crate::ground::BaselineCode;
use crate::injections::{HELPERS, INJECTIONS, Injections, Must, OPEN_WITHOUT_SUPERUSER};
use crate::worker::{Ask, End, Worker};

/// Returns to the login's role, as any SQL in a query can.
const AS_APP: &str = "SELECT set_config('role', 'none', true)";

const FIRST: &str = "SELECT count(*) FROM canaries";

/// How a statement is sent.
#[derive(Clone, Copy)]
enum Sent {
    Alone,
    Second,
    Executed,
    AtTheEnd,
    Pipelined,
    PipelinedByItself,
    Utility,
}

impl Worker {
    pub(crate) async fn library_injected(&mut self, ask: &Ask) {
        let is_hardened = self.run.ground.conditions.is_hardened;
        let can_fail = |of: &&Injections| {
            is_hardened || !of.statements.iter().all(|sql| OPEN_WITHOUT_SUPERUSER.contains(sql))
        };
        let all: Vec<_> = INJECTIONS.iter().filter(can_fail).collect();
        let injections = *self.dice.pick(&all);
        self.inject(ask, injections).await;
    }

    pub(crate) async fn library_helper(&mut self, ask: &Ask) {
        match self.run.ground.conditions.baseline {
            BaselineCode::ExecutesText => self.inject(ask, &HELPERS).await,
            // It has no helpers.
            BaselineCode::ChangesSettings => self.library_injected(&ask.writing()).await,
        }
    }

    fn choose_statement(&mut self, injections: &Injections) -> &'static str {
        loop {
            let statement = *self.dice.pick(injections.statements);
            let is_hardened = self.run.ground.conditions.is_hardened;
            if is_hardened || !OPEN_WITHOUT_SUPERUSER.contains(&statement) {
                return statement;
            }
        }
    }

    async fn inject(&mut self, ask: &Ask, injections: &Injections) {
        let statement = self.choose_statement(injections);
        let other = self.other(ask);
        let schema = self.run.ground.residents[other].id.schema();
        let mark = &self.resident(ask).mark.text;
        let sql = statement.replace("{other}", &schema).replace("{mark}", mark);
        let as_app = injections.as_app && self.dice.percent(50);
        let sent = self.choose_way(injections.must);
        let handle = self.handle();
        let Some(context) = self.context(ask, &handle).await else { return };
        let outcome = match as_app {
            true => send_as_app(&handle, &context, &sql).await,
            false => send(&handle, &context, sent, &sql).await,
        };
        self.judge_injection(ask, injections, &sql, outcome);
    }

    fn choose_way(&mut self, must: Must) -> Sent {
        const WAYS: [Sent; 6] = [
            Sent::Alone,
            Sent::Second,
            Sent::Executed,
            Sent::AtTheEnd,
            Sent::Pipelined,
            Sent::PipelinedByItself,
        ];
        match must {
            Must::BeRunByNothing if self.dice.percent(30) => Sent::Utility,
            _ => *self.dice.pick(&WAYS),
        }
    }

    fn judge_injection(
        &mut self,
        ask: &Ask,
        injections: &Injections,
        sql: &str,
        outcome: Result<Vec<Row>, Error>,
    ) {
        let (what, must) = (injections.what, injections.must);
        match outcome {
            Ok(rows) => {
                let texts = texts_of(&rows);
                self.look_through(ask, texts.as_bytes());
                let is_nothing = must == Must::ShowNothing && rows.is_empty();
                let end = if is_nothing { End::Refused } else { End::Served };
                self.attempted(ask, what, end, &format!("{sql}: {texts}"));
            }
            Err(error) => {
                self.look_through(ask, error.message().as_bytes());
                if !self.is_beside_the_point(ask, error.kind().code()) {
                    let words = format!("{sql}: {error}");
                    let end = match is_as_it_must(must, &error) {
                        true => End::Refused,
                        false => End::RefusedOtherwise,
                    };
                    self.attempted(ask, what, end, &words);
                }
            }
        }
    }
}

fn is_as_it_must(must: Must, error: &Error) -> bool {
    let sqlstate = error.database().map(|db| db.code().code());
    match must {
        // The database was not asked.
        Must::BeNoQuery | Must::BeRunByNothing => {
            error.kind() == ErrorKind::Statement && sqlstate.is_none()
        }
        Must::LackTheRight => matches!(error.kind(), ErrorKind::Forbidden | ErrorKind::Violation),
        Must::NotEndTheTransaction => sqlstate == Some("2D000"),
        Must::ShowNothing => false,
    }
}

async fn send(
    handle: &Freehold,
    context: &TenantContext,
    sent: Sent,
    sql: &str,
) -> Result<Vec<Row>, Error> {
    let pieces: [(&str, Params<'_>); 2] = [(FIRST, &[]), (sql, &[])];
    match sent {
        Sent::Alone => handle.query(context, sql, &[]).await,
        Sent::Pipelined => {
            let answers = handle.pipeline(context, &pieces).await;
            Ok(last(answers.map_err(PipelineError::into_error)?).rows)
        }
        Sent::PipelinedByItself => {
            let answers = handle.pipeline_each(context, &pieces).await?;
            Ok(last(answers)?.rows)
        }
        Sent::Second | Sent::Executed | Sent::AtTheEnd | Sent::Utility => {
            let mut tx = handle.begin(context).await?;
            tx.query(FIRST, &[]).await?;
            if let Sent::AtTheEnd = sent {
                return tx.query_and_commit(sql, &[]).await;
            }
            let rows = match sent {
                Sent::Executed => tx.execute(sql, &[]).await.map(|_| Vec::new())?,
                Sent::Utility => tx.run_utility(sql, &[]).await?,
                _ => tx.query(sql, &[]).await?,
            };
            tx.rollback().await?;
            Ok(rows)
        }
    }
}

async fn send_as_app(
    handle: &Freehold,
    context: &TenantContext,
    sql: &str,
) -> Result<Vec<Row>, Error> {
    let mut tx = handle.begin(context).await?;
    tx.query(AS_APP, &[]).await?;
    let rows = tx.query(sql, &[]).await?;
    tx.rollback().await?;
    Ok(rows)
}

fn last<T>(mut answers: Vec<T>) -> T {
    answers.pop().expect("there are as many answers as statements")
}

/// The texts in an answer, to be searched for canaries.
pub(crate) fn texts_of(rows: &[Row]) -> String {
    let mut texts = String::new();
    for row in rows {
        for column in 0..row.len() {
            texts.push_str(row.try_get(column).unwrap_or_default());
            texts.push(' ');
        }
    }
    texts
}
