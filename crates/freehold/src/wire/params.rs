//! Parameters of statements.

use tokio_postgres::types::{Format, IsNull, ToSql, Type};

/// Parameters of a statement, `$1` and on: `&[&name, &count]`.
pub type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

/// A value in PostgreSQL's text form, for a parameter of any type; `None` is NULL.
///
/// The server parses it as the type that the statement needs, and refuses a malformed value.
#[derive(Debug)]
pub struct TextParam<'a>(pub Option<&'a str>);

impl ToSql for TextParam<'_> {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut tokio_postgres::types::private::BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match self.0 {
            Some(text) => {
                out.extend_from_slice(text.as_bytes());
                Ok(IsNull::No)
            }
            None => Ok(IsNull::Yes),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    tokio_postgres::types::to_sql_checked!();
}
