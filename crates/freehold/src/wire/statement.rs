//! A statement as the server described it, and the messages that run it.

use std::sync::Arc;

use bytes::BytesMut;
use postgres_protocol::message::frontend::{self, BindError};
use postgres_protocol::{IsNull, Oid};
use postgres_types::{Format, ToSql, Type};

use super::row::Column;
use super::{Result, WireError};
use crate::wire::params::Params;

const BINARY: i16 = 1;

/// Cheap to clone. A named statement lives in the session until it is closed. An unnamed one is sent in full
/// each time and leaves nothing on the server.
#[derive(Clone)]
pub(crate) struct Statement(Arc<Inner>);

struct Inner {
    name: String,
    /// Stored for unnamed statements only.
    sql: String,
    parameters: Vec<Type>,
    columns: Arc<[Column]>,
}

impl Statement {
    pub(super) fn new(
        name: String,
        sql: &str,
        parameters: Vec<Type>,
        columns: Arc<[Column]>,
    ) -> Statement {
        let sql = if name.is_empty() { sql.to_owned() } else { String::new() };
        Statement(Arc::new(Inner { name, sql, parameters, columns }))
    }

    /// An unnamed statement whose parameter types are known, so that it need not be described first.
    pub(crate) fn unnamed(sql: &str, parameters: &[Type]) -> Statement {
        Statement::new(String::new(), sql, parameters.to_vec(), Arc::new([]))
    }

    /// A name only, to be closed.
    pub(crate) fn named(name: String) -> Statement {
        Statement::new(name, "", Vec::new(), Arc::new([]))
    }

    /// How many parameters it takes.
    pub(crate) fn parameters(&self) -> usize {
        self.0.parameters.len()
    }

    pub(super) fn name(&self) -> &str {
        &self.0.name
    }

    pub(super) fn is_unnamed(&self) -> bool {
        self.0.name.is_empty()
    }

    pub(super) fn columns(&self) -> Arc<[Column]> {
        Arc::clone(&self.0.columns)
    }

    /// Whether the columns are unchanged.
    pub(super) fn describes(&self, fields: &[(String, Oid)]) -> bool {
        let known = self.0.columns.iter().map(|column| (column.name(), column.type_().oid()));
        known.eq(fields.iter().map(|(name, oid)| (name.as_str(), *oid)))
    }

    /// Writes the messages that run it.
    pub(super) fn put(
        &self,
        params: Params<'_>,
        describe: bool,
        outbox: &mut BytesMut,
    ) -> Result<()> {
        let Inner { name, sql, parameters, .. } = &*self.0;
        if params.len() != parameters.len() {
            return Err(WireError::Parameter(
                format!(
                    "the statement takes {} parameters, not {}",
                    parameters.len(),
                    params.len()
                )
                .into(),
            ));
        }
        if self.is_unnamed() {
            let types = parameters.iter().map(Type::oid);
            frontend::parse("", sql, types, outbox).map_err(WireError::Unsendable)?;
        }
        let formats =
            params.iter().zip(parameters).map(|(param, ty)| match param.encode_format(ty) {
                Format::Text => 0,
                Format::Binary => BINARY,
            });
        let serialise = |(param, ty): (&&(dyn ToSql + Sync), &Type), buf: &mut BytesMut| {
            Ok(match param.to_sql_checked(ty, buf)? {
                postgres_types::IsNull::Yes => IsNull::Yes,
                postgres_types::IsNull::No => IsNull::No,
            })
        };
        let values = params.iter().zip(parameters);
        frontend::bind("", name, formats, values, serialise, [BINARY], outbox).map_err(
            |error| match error {
                BindError::Conversion(cause) => WireError::Parameter(cause),
                BindError::Serialization(cause) => WireError::Unsendable(cause),
            },
        )?;
        if describe {
            frontend::describe(b'P', "", outbox).map_err(WireError::Unsendable)?;
        }
        frontend::execute("", 0, outbox).map_err(WireError::Unsendable)
    }
}
