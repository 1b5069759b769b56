//! Runs a migration in the transaction and schema of a connection, statement by statement.
//!
//! PostgreSQL reports no position for errors in ALTER, DROP and the like, and for a text of many statements
//! not even which one failed. So each statement is sent separately, as psql does with a file: then the
//! failing one is known. They are sent in one flush, so this costs a fleet no time. Each runs through
//! `freehold.run_migration`, where PostgreSQL refuses everything that would end the transaction, in
//! procedures and `DO` too.

use std::borrow::Cow;

use super::rewriting::rewritten;
use super::{Migration, check, serial};
use crate::error::DbError;
use crate::error::{Error, ErrorKind, Result};
use crate::model::ids::TenantId;
use crate::schema::policy;
use crate::sql::script::{Kind, Statement, Token, lines_in};
use crate::wire::{Connection, WireError};

/// The number of statements per flush: few enough that their answers fit into buffers, since no answer is
/// read before all statements are sent.
const FLUSH: usize = 64;

/// Runs one statement of a migration, its parameter.
pub(crate) const RUN_SQL: &str = "SELECT freehold.run_migration($1)";

impl Migration {
    /// # Errors
    /// [`ErrorKind::Migration`], with the file and the line of the statement that was refused.
    pub(crate) async fn run(&self, client: &mut Connection, tenant: TenantId) -> Result<()> {
        let as_run = self.rewritten_for(tenant);
        let statements = check::require_plain_sql(&as_run)?;
        let run = client.batch().run_and_prepare(String::new(), RUN_SQL).await?;
        for some in with_preparation(&statements).chunks(FLUSH) {
            let mut batch = client.batch();
            for (text, _) in some {
                batch.quiet(&run, &[&text.as_ref()])?;
            }
            batch.run_as_one().await.map_err(|failure| {
                // After the last statement only the Sync follows, which checks nothing within a transaction.
                let (_, statement) = &some[failure.step.min(some.len() - 1)];
                self.refused(statement, failure.error)
            })?;
        }
        Ok(())
    }

    /// Its statements as they are run for a tenant.
    pub(crate) fn statements_for(&self, tenant: TenantId) -> Result<Vec<String>> {
        let as_run = self.rewritten_for(tenant);
        let statements = check::require_plain_sql(&as_run)?;
        Ok(with_preparation(&statements).into_iter().map(|(text, _)| text.into_owned()).collect())
    }

    fn rewritten_for(&self, tenant: TenantId) -> Migration {
        let statements = rewritten(&self.statements, &tenant.schema());
        Migration { statements, ..self.clone() }
    }

    /// Those of these relations whose columns stay as they are while it runs.
    pub(crate) fn untouched_of(&self, relations: &[String]) -> Vec<String> {
        let mut untouched = relations.to_vec();
        for statement in crate::sql::script::statements(&self.statements) {
            serial::leave_untouched(&statement, &mut untouched);
        }
        untouched
    }

    /// Whether the text alone decides what it does: DDL that neither asks whether something exists nor runs
    /// code.
    pub(crate) fn is_unconditional(&self) -> bool {
        crate::sql::script::statements(&self.statements).iter().all(is_plain_ddl)
    }

    /// Checks at once what the file has left to the commit, where its name would be forgotten. The
    /// file is the transaction's last.
    pub(crate) async fn check_deferred(&self, client: &mut Connection) -> Result<()> {
        client.batch_execute("SET CONSTRAINTS ALL IMMEDIATE").await.map_err(|source| match source {
            WireError::Database(db) => {
                let message = format!("{}, at its end: {}", self.label, db.message());
                Error::new(ErrorKind::Migration, message).because(*db)
            }
            other => Error::from(other),
        })
    }

    /// The error for PostgreSQL's refusal, with the file, the line and the remedy.
    fn refused(&self, statement: &Statement<'_>, source: WireError) -> Error {
        let WireError::Database(db) = source else { return Error::from(source) };
        let line = match db.internal() {
            // Positions count characters from 1, within the text that EXECUTE was given.
            Some((position, query)) if query == statement.text => {
                let before = query.chars().take((position as usize).saturating_sub(1));
                statement.line + before.filter(|c| *c == '\n').count()
            }
            _ => statement.line,
        };
        let code = policy::cure(db.code().code(), db.where_());
        let advice = code.as_deref().or(cure(&db, statement)).or(db.hint());
        let advice = advice.map(|advice| format!(" ({advice})")).unwrap_or_default();
        let message = format!("{} line {line}: {}{advice}", self.label, db.message());
        Error::new(ErrorKind::Migration, message).because(*db)
    }

    /// The last line of the file that mentions this name, for errors that are found after the whole file has
    /// run.
    pub(crate) fn line_of(&self, name: &str) -> Option<usize> {
        let statements = crate::sql::script::statements(&self.statements);
        let token = |statement: &Statement<'_>| {
            let mut tokens = statement.tokens.iter();
            tokens.find(|token| token.names(name)).map(|token| token.start)
        };
        let at = statements.iter().rev().find_map(token)?;
        Some(1 + lines_in(&self.statements[..at]))
    }
}

/// What is run, with the statement of the file that it belongs to.
fn with_preparation<'s>(statements: &'s [Statement<'s>]) -> Vec<(Cow<'s, str>, &'s Statement<'s>)> {
    let mut run = Vec::with_capacity(statements.len());
    for statement in statements {
        run.extend(serial::before(statement).map(|sql| (Cow::Owned(sql), statement)));
        run.push((Cow::Borrowed(statement.text), statement));
    }
    run
}

fn is_plain_ddl(statement: &Statement<'_>) -> bool {
    let tokens = &statement.tokens;
    let is = |at: usize, word: &str| tokens.get(at).is_some_and(|token| token.is_word(word));
    let has = |words: &[&str]| tokens.iter().any(|t| words.iter().any(|word| t.is_word(word)));
    if has(&["if"]) {
        return false;
    }
    if is(0, "drop") || is(0, "comment") || is(0, "grant") || is(0, "revoke") {
        return true;
    }
    if is(0, "create") {
        // What these hold is run later, or computes nothing but values.
        const DEFINED: [&str; 13] = [
            "view",
            "function",
            "procedure",
            "trigger",
            "policy",
            "rule",
            "index",
            "type",
            "domain",
            "sequence",
            "aggregate",
            "operator",
            "collation",
        ];
        const BEFORE_KIND: [&str; 6] =
            ["or", "replace", "unique", "constraint", "recursive", "unlogged"];
        let is_before = |token: &&Token<'_>| BEFORE_KIND.iter().any(|word| token.is_word(word));
        let kind = tokens.iter().skip(1).find(|token| !is_before(token));
        let is_kind =
            |words: &[&str]| kind.is_some_and(|kind| words.iter().any(|w| kind.is_word(w)));
        let copies = tokens.windows(2).any(|two| {
            let makes_rows = ["table", "with", "values", "execute"];
            two[0].is_word("as") && makes_rows.iter().any(|word| two[1].is_word(word))
        });
        return is_kind(&DEFINED) || is_kind(&["table"]) && !has(&["select"]) && !copies;
    }
    is(0, "alter")
        && !has(&["select", "using", "execute"])
        && tokens.windows(2).all(is_plain_default)
}

/// A default is computed for each row that is there: by a function that runs no code of the baseline.
fn is_plain_default(two: &[Token<'_>]) -> bool {
    const PLAIN: [&str; 8] = [
        "true",
        "false",
        "null",
        "now",
        "current_timestamp",
        "current_date",
        "gen_random_uuid",
        "privileges",
    ];
    let is_literal = matches!(two[1].kind, Kind::Number | Kind::Text);
    let is_end = two[1].is_symbol(",") || two[1].is_symbol("-");
    let is_plain = PLAIN.iter().any(|word| two[1].is_word(word));
    !two[0].is_word("default") || is_literal || is_end || is_plain
}

/// The remedy for a statement that only the surrounding transaction prevents.
fn cure(db: &DbError, statement: &Statement<'_>) -> Option<&'static str> {
    let has = |word: &str| statement.tokens.iter().any(|token| token.is_word(word));
    match db.code().code() {
        "25001" if has("concurrently") => Some(
            "each file is one transaction: leave CONCURRENTLY out; a plain index locks one tenant's table while it is built",
        ),
        "25001" if has("vacuum") => {
            Some("each file is one transaction: take it out, autovacuum does the work")
        }
        "25001" => Some(
            "each file is one transaction: take it out, and run it by itself where it is needed",
        ),
        "2D000" => Some("each file is one transaction: take COMMIT and ROLLBACK out"),
        "55P04" => Some("add the value in one file, and use it in the next"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_at_rows_or_catalogs_is_not_unconditional() {
        let plain = |sql: &str| Migration::new(1, "m", sql).is_unconditional();
        for sql in [
            "ALTER TABLE t ADD COLUMN a boolean NOT NULL DEFAULT false, ADD b int DEFAULT -1, ALTER c DROP DEFAULT, ADD d text",
            "ALTER TABLE t ADD a timestamptz DEFAULT now(); ALTER TABLE t RENAME TO u",
            "CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY, b int CHECK (b > 0), c int GENERATED ALWAYS AS (b + 1) STORED); CREATE UNIQUE INDEX ON t (lower(b::text))",
            "CREATE OR REPLACE VIEW v AS SELECT 1; CREATE FUNCTION f() RETURNS int LANGUAGE sql AS $$ SELECT 1 $$",
            "CREATE TABLE p PARTITION OF t FOR VALUES IN (1); CREATE POLICY p ON t USING (a = (SELECT 1)); DROP INDEX i; GRANT SELECT ON t TO freehold_viewer; COMMENT ON TABLE t IS 'if'",
        ] {
            assert!(plain(sql), "{sql}");
        }
        for sql in [
            "DO $$ BEGIN END $$",
            "UPDATE t SET a = 1",
            "SELECT f()",
            "CREATE INDEX IF NOT EXISTS i ON t (a)",
            "ALTER TABLE t ADD COLUMN IF NOT EXISTS a int",
            "ALTER TABLE t ADD a int DEFAULT f()",
            "ALTER TABLE t ALTER a TYPE int USING f(a)",
            "CREATE TABLE t AS SELECT 1",
            "CREATE TABLE t AS TABLE u",
            "CREATE MATERIALIZED VIEW m AS SELECT 1",
            "CREATE TABLE t AS VALUES (f())",
            "CREATE EXTENSION citext",
            "CALL p()",
            "ALTER TABLE t ADD a int; INSERT INTO t VALUES (1)",
        ] {
            assert!(!plain(sql), "{sql}");
        }
    }
}
