//! A tenant's reads of its own rows: each row must carry its mark, and the number of rows must be right.

use freehold::{Freehold, Params, Row};
use serde::Deserialize;

use crate::ground::CANARIES;
use crate::ledger::Rows;
use crate::wire::Answer;
use crate::worker::{Ask, Worker};

/// The number of marks in each row of an answer.
#[derive(Clone, Copy)]
enum Marks {
    Exactly(usize),
    /// A migration may have added a column, which carries one more.
    AtLeast(usize),
}

#[derive(Deserialize)]
struct LedgerRow {
    no: i32,
    revision: i32,
}

impl Worker {
    pub(crate) async fn http_row(&mut self, ask: &Ask) {
        let no = self.dice.between(1, CANARIES as usize) as u64;
        let id = self.resident(ask).mark.row_id(no);
        let path = format!("/v1/data/canaries?id=eq.{id}&select=id,no,tag,body,note");
        let Some(answer) = self.http(ask, "GET", &path, "", "").await else { return };
        if self.check_rows(ask, &answer, 1, Marks::Exactly(2)) {
            let mark = &self.resident(ask).mark;
            let (text, tag) = (&mark.text, mark.tag);
            let row = format!(
                r#"[{{"id":"{id}","no":{no},"tag":{tag},"body":"{text} {no}","note":"a note of {text}"}}]"#
            );
            if answer.body() != row.as_bytes() {
                let body = String::from_utf8_lossy(answer.body());
                self.leak(ask, &format!("another row than the one asked for: {body}"));
            }
        }
    }

    pub(crate) async fn http_page(&mut self, ask: &Ask) {
        let (offset, limit) = (self.dice.below(50) as u64, self.dice.between(1, 20) as u64);
        let path = format!("/v1/data/canaries?order=no&limit={limit}&offset={offset}");
        let Some(answer) = self.http(ask, "GET", &path, "", "").await else { return };
        self.check_rows(ask, &answer, limit.min(CANARIES - offset), Marks::AtLeast(2));
    }

    pub(crate) async fn http_filter(&mut self, ask: &Ask) {
        let first = self.dice.between(1, CANARIES as usize) as u64;
        let (other, own) = (self.other(ask), self.resident(ask).mark.clone());
        let foreign = self.run.ground.residents[other].mark.tag;
        // One in three asks for another tenant's tag, which none of its own rows has.
        let (tag, total) = match self.dice.below(3) {
            0 => (foreign, 0),
            _ => (own.tag, CANARIES + 1 - first),
        };
        let path = format!(
            "/v1/data/canaries?select=id,body&no=gte.{first}&or=(tag.eq.{tag},note.eq.nothing)&limit=5"
        );
        let Some(answer) = self.http(ask, "GET", &path, "count=exact", "").await else { return };
        if self.check_rows(ask, &answer, total.min(5), Marks::Exactly(1))
            && answer.rows().and_then(|(_, total)| total) != Some(total)
        {
            self.leak(ask, &format!("the count is not {total}: {}", answer.head()));
        }
    }

    pub(crate) async fn http_join(&mut self, ask: &Ask) {
        let worker = self.number;
        let path = format!(
            "/v1/data/pages?worker=eq.{worker}&select=no,revision,body,canary_body&order=no"
        );
        let Some(answer) = self.http(ask, "GET", &path, "", "").await else { return };
        let rows = self.ledgers[ask.tenant].rows().len() as u64;
        self.check_rows(ask, &answer, rows, Marks::Exactly(2));
    }

    pub(crate) async fn http_ledger(&mut self, ask: &Ask) {
        let worker = self.number;
        let path = format!("/v1/data/ledger?worker=eq.{worker}&select=no,revision,body&order=no");
        let Some(answer) = self.http(ask, "GET", &path, "", "").await else { return };
        let rows = self.ledgers[ask.tenant].rows().len() as u64;
        if self.check_rows(ask, &answer, rows, Marks::Exactly(1)) {
            let read = serde_json::from_slice::<Vec<LedgerRow>>(answer.body());
            let read = read.unwrap_or_default();
            self.check_ledger(ask, read.iter().map(|row| (row.no, row.revision)).collect());
        }
    }

    /// Whether the answer has the right number of rows and of marks.
    fn check_rows(&mut self, ask: &Ask, answer: &Answer, rows: u64, marks: Marks) -> bool {
        if !answer.is_success() {
            self.refused(ask, answer);
            return false;
        }
        self.served(ask);
        let found = answer.rows().map_or(0, |(rows, _)| rows);
        self.tally.rows += found;
        let seen = self.run.ground.watch.look(ask.tenant, answer.body()).own_marks;
        self.check_counts(ask, found, rows, seen, marks)
    }

    fn check_counts(
        &mut self,
        ask: &Ask,
        found: u64,
        rows: u64,
        seen: usize,
        marks: Marks,
    ) -> bool {
        let all_marked = match marks {
            Marks::Exactly(each) => seen == each * found as usize,
            Marks::AtLeast(each) => seen >= each * found as usize,
        };
        if !all_marked {
            self.leak(ask, &format!("{found} rows, and {seen} marks of the tenant in them"));
        } else if found > rows {
            self.leak(ask, &format!("{found} rows came, and the tenant has {rows}"));
        } else if found < rows {
            self.fault(ask, &format!("{found} rows came, and the tenant has {rows}"));
        }
        all_marked && found == rows
    }

    /// A worker's part of the ledger must be what the worker expects.
    fn check_ledger(&self, ask: &Ask, found: Rows) {
        self.compare(ask, &found, self.ledgers[ask.tenant].rows());
    }

    pub(crate) fn compare(&self, ask: &Ask, found: &Rows, known: &Rows) {
        if found == known {
            return;
        }
        let words = format!("the ledger holds {found:?}, and was written {known:?}");
        match self.ledgers[ask.tenant].wrote(found) {
            true => self.fault(ask, &format!("a write was lost: {words}")),
            false => self.leak(ask, &format!("a write of somebody else is there: {words}")),
        }
    }

    pub(crate) async fn library_row(&mut self, ask: &Ask) {
        let no = self.dice.between(1, CANARIES as usize) as i32;
        let id = self.resident(ask).mark.row_id(no as u64);
        let sql = "SELECT no, tag, body, note FROM canaries WHERE id = $1";
        let rows = self
            .read(ask, sql, &[&id], |row| {
                Ok((
                    format!("{} {}", text(row, 2)?, text(row, 3)?),
                    (row.try_get(0)?, row.try_get(1)?),
                ))
            })
            .await;
        let Some((rows, marks)) = rows else { return };
        if self.check_counts(ask, rows.len() as u64, 1, marks, Marks::Exactly(2))
            && rows != [(no, self.resident(ask).mark.tag)]
        {
            self.leak(ask, &format!("another row than number {no}: {rows:?}"));
        }
    }

    pub(crate) async fn library_page(&mut self, ask: &Ask) {
        let (offset, limit) = (self.dice.below(50) as i64, self.dice.between(1, 20) as i64);
        let sql = "SELECT * FROM canaries ORDER BY no LIMIT $1 OFFSET $2";
        let rows = self
            .read(ask, sql, &[&limit, &offset], |row| {
                let body: &str = row.try_get("body")?;
                Ok((format!("{body} {}", row.try_get::<_, &str>("note")?), ()))
            })
            .await;
        let Some((rows, marks)) = rows else { return };
        let expected = limit.min(CANARIES as i64 - offset) as u64;
        self.check_counts(ask, rows.len() as u64, expected, marks, Marks::Exactly(2));
    }

    pub(crate) async fn library_totals(&mut self, ask: &Ask) {
        let sql = "SELECT count(*), min(tag), max(tag), count(DISTINCT body) FROM canaries";
        let rows = self
            .read(ask, sql, &[], |row| {
                let column = |at| row.try_get::<_, i64>(at);
                Ok((String::new(), [column(0)?, column(1)?, column(2)?, column(3)?]))
            })
            .await;
        let Some((rows, _)) = rows else { return };
        let (count, tag) = (CANARIES as i64, self.resident(ask).mark.tag);
        if rows != [[count, tag, tag, count]] {
            self.leak(ask, &format!("{count} rows of {tag} were added up to {rows:?}"));
        }
    }

    pub(crate) async fn library_join(&mut self, ask: &Ask) {
        let sql = "SELECT body, canary_body FROM pages WHERE worker = $1";
        let worker = self.number;
        let rows = self
            .read(ask, sql, &[&worker], |row| {
                Ok((format!("{} {}", text(row, 0)?, text(row, 1)?), ()))
            })
            .await;
        let Some((rows, marks)) = rows else { return };
        let expected = self.ledgers[ask.tenant].rows().len() as u64;
        self.check_counts(ask, rows.len() as u64, expected, marks, Marks::Exactly(2));
    }

    pub(crate) async fn library_ledger(&mut self, ask: &Ask) {
        let sql = "SELECT no, revision, body FROM ledger WHERE worker = $1";
        let worker = self.number;
        let rows = self
            .read(ask, sql, &[&worker], |row| {
                Ok((text(row, 2)?.to_owned(), (row.try_get(0)?, row.try_get(1)?)))
            })
            .await;
        let Some((rows, marks)) = rows else { return };
        let expected = self.ledgers[ask.tenant].rows().len() as u64;
        if self.check_counts(ask, rows.len() as u64, expected, marks, Marks::Exactly(1)) {
            self.check_ledger(ask, rows.into_iter().collect());
        }
    }

    /// Runs a statement of the library: returns what `take` makes of each row, and the number of the tenant's
    /// marks in the texts of all rows. `None` if it failed, which has been judged then.
    async fn read<T>(
        &mut self,
        ask: &Ask,
        sql: &str,
        params: Params<'_>,
        take: impl Fn(&Row) -> Result<(String, T), freehold::Error>,
    ) -> Option<(Vec<T>, usize)> {
        let handle: Freehold = self.handle();
        let context = self.context(ask, &handle).await?;
        let rows = match handle.query(&context, sql, params).await {
            Ok(rows) => rows,
            Err(error) => {
                self.failed(ask, &error);
                return None;
            }
        };
        self.served(ask);
        self.tally.rows += rows.len() as u64;
        let (mut texts, mut taken) = (String::new(), Vec::with_capacity(rows.len()));
        for row in &rows {
            match take(row) {
                Ok((text, more)) => {
                    texts.push_str(&text);
                    texts.push('\n');
                    taken.push(more);
                }
                Err(error) => {
                    self.leak(ask, &format!("the answer to another question came: {error}"));
                    return None;
                }
            }
        }
        Some((taken, self.look_through(ask, texts.as_bytes())))
    }
}

fn text(row: &Row, column: usize) -> Result<&str, freehold::Error> {
    row.try_get(column)
}
