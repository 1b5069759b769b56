//! Rows and their columns, read like those of tokio-postgres.

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use fallible_iterator::FallibleIterator as _;
use postgres_protocol::message::backend::DataRowBody;
use postgres_types::{FromSql, Type, WrongType};

use super::WireError;
use crate::error::{Error, ErrorKind};

/// A row that a query returned.
#[derive(Clone)]
pub struct Row {
    columns: Arc<[Column]>,
    body: DataRowBody,
    ranges: Vec<Option<Range<usize>>>,
}

/// A column of a row.
#[derive(Clone, Debug)]
pub struct Column {
    name: String,
    ty: Type,
}

impl Column {
    pub(super) fn new(name: String, ty: Type) -> Column {
        Column { name, ty }
    }

    /// Its name, or its alias in the query.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its type.
    pub fn type_(&self) -> &Type {
        &self.ty
    }
}

/// How a column is addressed: by its index from 0, or by its name.
pub trait RowIndex: fmt::Display {
    /// The index of the column, if it exists.
    fn find(&self, columns: &[Column]) -> Option<usize>;
}

impl RowIndex for usize {
    fn find(&self, columns: &[Column]) -> Option<usize> {
        (*self < columns.len()).then_some(*self)
    }
}

impl RowIndex for str {
    fn find(&self, columns: &[Column]) -> Option<usize> {
        columns.iter().position(|column| column.name == self)
    }
}

impl<T: RowIndex + ?Sized> RowIndex for &T {
    fn find(&self, columns: &[Column]) -> Option<usize> {
        T::find(self, columns)
    }
}

impl Row {
    pub(super) fn new(columns: Arc<[Column]>, body: DataRowBody) -> Result<Row, WireError> {
        let ranges: Vec<_> = body.ranges().collect().map_err(WireError::Unreadable)?;
        if ranges.len() != columns.len() {
            return Err(WireError::Unreadable(io::Error::new(
                io::ErrorKind::InvalidData,
                "a row has other columns than were described",
            )));
        }
        Ok(Row { columns, body, ranges })
    }

    /// Its columns, in order.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// How many columns it has.
    pub fn len(&self) -> usize {
        self.columns.len()
    }

    /// Whether it has no columns.
    pub fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    /// The value of a column, by index or name.
    ///
    /// # Panics
    /// If there is no such column, or it has another type. [`try_get`](Self::try_get) returns an error
    /// instead.
    #[track_caller]
    pub fn get<'a, I: RowIndex, T: FromSql<'a>>(&'a self, index: I) -> T {
        match self.try_get(&index) {
            Ok(value) => value,
            Err(error) => panic!("column {index}: {error}"),
        }
    }

    /// The value of a column, by index or name.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if there is no such column, or it has another type.
    pub fn try_get<'a, I: RowIndex, T: FromSql<'a>>(&'a self, index: I) -> Result<T, Error> {
        let refuse = |why: &str| Error::new(ErrorKind::Internal, format!("column {index} {why}"));
        let at = index.find(&self.columns).ok_or_else(|| refuse("is not in the row"))?;
        let ty = &self.columns[at].ty;
        if !T::accepts(ty) {
            return Err(refuse("is of another type").because(WrongType::new::<T>(ty.clone())));
        }
        let bytes = self.ranges[at].clone().map(|range| &self.body.buffer()[range]);
        T::from_sql_nullable(ty, bytes).map_err(|cause| refuse("cannot be read").because(cause))
    }
}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Row").field("columns", &self.columns).finish_non_exhaustive()
    }
}
