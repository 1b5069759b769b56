//! How old an answer may be, which a caller states by `Cache-Control: max-age` on its GET. Without it,
//! nothing is cached. The cache key consists of the context and the plan's statement and values.

use std::time::Duration;

use freehold::{CacheKey, TenantContext};
use http::header::{AGE, CACHE_CONTROL};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::data::Plan;

/// RFC 9211: how a cache handled a request.
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
/// The name of answers in the cache.
pub(in crate::http) const CACHE: &str = "data";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Freshness {
    pub(super) max_age: Duration,
    /// The answer must be loaded now, and may be cached for other callers.
    pub(super) anew: bool,
}

impl Freshness {
    /// `None` unless a GET states how old its answer may be. A malformed value is ignored.
    pub(super) fn declared(method: &Method, headers: &HeaderMap) -> Option<Freshness> {
        if method != Method::GET {
            return None;
        }
        let (mut max_age, mut anew) = (None, false);
        for value in headers.get_all(CACHE_CONTROL) {
            for directive in value.to_str().ok()?.split(',') {
                let (name, argument) = directive.split_once('=').unwrap_or((directive, ""));
                match name.trim().to_ascii_lowercase().as_str() {
                    "no-store" => return None,
                    "no-cache" => anew = true,
                    "max-age" => {
                        let secs: u64 = argument.trim().trim_matches('"').parse().ok()?;
                        // Of two values, the stricter one.
                        max_age = Some(max_age.map_or(secs, |other: u64| other.min(secs)));
                    }
                    _ => {}
                }
            }
        }
        let max_age = Duration::from_secs(max_age.filter(|secs| *secs > 0)?);
        Some(Freshness { max_age, anew })
    }

    /// Sets the headers that report how the cache handled the request. `age` is that of a cached answer.
    pub(super) fn tell(self, age: Option<Duration>, headers: &mut HeaderMap) {
        let status = match (age, self.anew) {
            (Some(_), _) => "freehold; hit",
            (None, false) => "freehold; fwd=miss",
            (None, true) => "freehold; fwd=request",
        };
        headers.insert(CACHE_STATUS, HeaderValue::from_static(status));
        if let Some(age) = age {
            headers.insert(AGE, HeaderValue::from(age.as_millis().div_ceil(1000) as u64));
        }
    }
}

/// The inputs of an answer: actor, tenant and role, the statement and its values. The rest, such as the
/// format of the answer, is derived from the same row.
pub(super) fn key(context: &TenantContext, plan: &Plan) -> CacheKey {
    let key = CacheKey::of(context, CACHE).part(&plan.sql);
    plan.params.iter().fold(key, |key, param| key.part(&param.value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared(values: &[&str]) -> Option<(u64, bool)> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(CACHE_CONTROL, HeaderValue::from_str(value).unwrap());
        }
        let freshness = Freshness::declared(&Method::GET, &headers)?;
        Some((freshness.max_age.as_secs(), freshness.anew))
    }

    #[test]
    fn only_a_max_age_allows_an_answer_that_is_old() {
        for nothing in [
            &[][..],
            &[""],
            &["no-store"],
            &["no-cache"],
            &["max-age=0"],
            &["max-age"],
            &["max-age="],
            &["max-age=-1"],
            &["max-age=1.5"],
            &["max-age=99999999999999999999999"],
            &["max-stale=60"],
            &["s-maxage=60"],
            &["max-age=60, no-store"],
            &["max-age=60", "max-age=x"],
            &["max-age=60", "max-age=0"],
        ] {
            assert_eq!(declared(nothing), None, "{nothing:?}");
        }
        assert_eq!(declared(&["max-age=60"]), Some((60, false)));
        assert_eq!(declared(&[" Max-Age = \"60\" , min-fresh=3"]), Some((60, false)));
        assert_eq!(declared(&["max-age=60", "max-age=30"]), Some((30, false)));
        assert_eq!(declared(&["no-cache, max-age=60"]), Some((60, true)));
        assert_eq!(Freshness::declared(&Method::HEAD, &HeaderMap::new()), None);
    }

    #[test]
    fn an_age_is_never_told_too_young() {
        let mut headers = HeaderMap::new();
        let freshness = Freshness { max_age: Duration::from_secs(60), anew: false };
        freshness.tell(Some(Duration::from_millis(1001)), &mut headers);
        assert_eq!(headers[AGE], "2");
        freshness.tell(Some(Duration::ZERO), &mut headers);
        assert_eq!(headers[AGE], "0");
    }
}
