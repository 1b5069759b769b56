//! Tests of whole requests: built, planned and answered here. The integration tests run the statements in
//! PostgreSQL.

mod answers;
mod properties;
mod refusals;
mod requests;
mod statements;
mod translation;

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::*;

const SCHEMA: &str = "tenant_ab";

struct Case {
    method: Method,
    table: &'static str,
    query: String,
    role: Role,
    headers: HeaderMap,
    body: String,
}

fn get(table: &'static str, query: &str) -> Case {
    Case {
        method: Method::GET,
        table,
        query: query.to_owned(),
        role: Role::Admin,
        headers: HeaderMap::new(),
        body: String::new(),
    }
}

impl Case {
    fn method(mut self, method: Method) -> Case {
        self.method = method;
        self
    }

    fn by(mut self, role: Role) -> Case {
        self.role = role;
        self
    }

    fn body(mut self, body: &str) -> Case {
        self.body = body.to_owned();
        self
    }

    fn header(mut self, name: &'static str, value: &'static str) -> Case {
        self.headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        self
    }

    fn prefer(self, value: &'static str) -> Case {
        self.header("prefer", value)
    }

    fn plan(&self) -> Result<Plan, DataError> {
        let request = DataRequest {
            method: &self.method,
            table: self.table,
            query: &self.query,
            headers: &self.headers,
            body: self.body.as_bytes(),
        };
        plan(&fixture::shop(), SCHEMA, self.role, &request, &Limits::default())
    }

    fn sql(&self) -> (String, Vec<String>) {
        let plan = self.plan().unwrap_or_else(|error| panic!("{}: {error}", self.query));
        let values = plan.params.into_iter().map(|param| param.value);
        (plan.sql, values.collect())
    }

    fn error(&self) -> DataError {
        match self.plan() {
            Ok(plan) => panic!("{} was planned: {}", self.query, plan.sql),
            Err(error) => error,
        }
    }
}

fn post(table: &'static str, query: &str, body: &str) -> Case {
    get(table, query).method(Method::POST).body(body)
}

fn patch(table: &'static str, query: &str, body: &str) -> Case {
    get(table, query).method(Method::PATCH).body(body)
}

fn delete(table: &'static str, query: &str) -> Case {
    get(table, query).method(Method::DELETE)
}
