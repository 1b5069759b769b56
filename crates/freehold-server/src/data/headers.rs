//! The request's headers: `Prefer`, `Accept`, `Content-Type` and `Range`.

use http::header::{ACCEPT, CONTENT_TYPE, RANGE};
use http::{HeaderMap, HeaderName, StatusCode};

use super::error::{DataError, clip};
use super::request::Action;

const PREFER: HeaderName = HeaderName::from_static("prefer");
const RANGE_UNIT: HeaderName = HeaderName::from_static("range-unit");

/// The preferences of RFC 7240 that this API supports.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Preferences {
    pub(super) returning: Option<Returning>,
    /// `count=exact`; `planned` and `estimated` have the same effect.
    pub(super) count: bool,
    pub(super) resolution: Option<Resolution>,
    /// `missing=default`: columns that an inserted object lacks get their defaults.
    pub(super) missing_default: bool,
    pub(super) affected_max: Option<u64>,
    /// `allow-unfiltered`: a PATCH or DELETE needs no filter.
    pub(super) allow_unfiltered: bool,
    /// `read=replica`: a replica may answer a read.
    pub(super) replica: bool,
    strict: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Returning {
    Minimal,
    HeadersOnly,
    Representation,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resolution {
    MergeDuplicates,
    IgnoreDuplicates,
}

impl Preferences {
    /// The first of repeated preferences counts. An unknown preference is ignored, unless `handling=strict`
    /// requires an error.
    pub(super) fn parse(headers: &HeaderMap) -> Result<Preferences, DataError> {
        let mut preferences = Preferences::default();
        let mut unknown = Vec::new();
        let mut seen = Vec::new();
        for preference in list(headers, &PREFER) {
            let (name, value) = preference.split_once('=').unwrap_or((preference, ""));
            let name = name.trim().to_ascii_lowercase();
            if seen.contains(&name) {
                continue;
            }
            let value = value.split(';').next().unwrap_or_default();
            if !preferences.set(&name, value.trim().trim_matches('"')) {
                unknown.push(clip(preference));
            }
            seen.push(name);
        }
        if preferences.strict && !unknown.is_empty() {
            return Err(DataError::new(
                StatusCode::BAD_REQUEST,
                "unknown_preference",
                format!("handling=strict, and these cannot be met: {}", unknown.join(", ")),
            ));
        }
        Ok(preferences)
    }

    /// False if the preference is unknown.
    fn set(&mut self, name: &str, value: &str) -> bool {
        match (name, value) {
            ("return", "minimal") => self.returning = Some(Returning::Minimal),
            ("return", "headers-only") => self.returning = Some(Returning::HeadersOnly),
            ("return", "representation") => self.returning = Some(Returning::Representation),
            ("count", "exact" | "planned" | "estimated") => self.count = true,
            ("resolution", "merge-duplicates") => {
                self.resolution = Some(Resolution::MergeDuplicates);
            }
            ("resolution", "ignore-duplicates") => {
                self.resolution = Some(Resolution::IgnoreDuplicates);
            }
            ("missing", "default") => self.missing_default = true,
            ("missing", "null") => self.missing_default = false,
            ("handling", "strict") => self.strict = true,
            ("handling", "lenient") => self.strict = false,
            ("allow-unfiltered", _) => self.allow_unfiltered = true,
            ("read", "replica") => self.replica = true,
            ("read", "primary") => self.replica = false,
            ("tx", "commit") => {} // what happens anyway
            ("max-affected", _) => match value.parse() {
                Ok(rows) => self.affected_max = Some(rows),
                Err(_) => return false,
            },
            _ => return false,
        }
        true
    }

    /// The requested preferences that a request of this kind honours.
    pub(super) fn applied(&self, action: Action) -> Vec<String> {
        let insert = action == Action::Insert;
        let by_filter = matches!(action, Action::Update | Action::Delete);
        let returning =
            self.returning.filter(|_| insert || by_filter).map(|returning| match returning {
                Returning::Minimal => "return=minimal",
                Returning::HeadersOnly => "return=headers-only",
                Returning::Representation => "return=representation",
            });
        let resolution = self.resolution.filter(|_| insert).map(|resolution| match resolution {
            Resolution::MergeDuplicates => "resolution=merge-duplicates",
            Resolution::IgnoreDuplicates => "resolution=ignore-duplicates",
        });
        let missing = (self.missing_default && insert).then_some("missing=default");
        let count = self.count.then_some("count=exact");
        let unfiltered = (self.allow_unfiltered && by_filter).then_some("allow-unfiltered");
        let fixed = [returning, resolution, missing, count, unfiltered];
        let affected = self.affected_max.filter(|_| by_filter);
        let affected = affected.map(|rows| format!("max-affected={rows}"));
        fixed.into_iter().flatten().map(str::to_owned).chain(affected).collect()
    }
}

/// The form of the answer's body.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct MediaType {
    /// A single object instead of an array; any other number of rows is an error.
    pub(super) single: bool,
    /// Requested by its own name, so the answer has this content type.
    pub(super) vendor: bool,
    /// Keys with null values are left out.
    pub(super) nulls_stripped: bool,
}

impl MediaType {
    /// The acceptable type that the `Accept` header ranks highest.
    pub(super) fn negotiate(headers: &HeaderMap) -> Result<MediaType, DataError> {
        if !headers.contains_key(ACCEPT) {
            return Ok(MediaType::default());
        }
        let mut best: Option<(f32, MediaType)> = None;
        for range in list(headers, &ACCEPT) {
            let Some((weight, media_type)) = MediaType::parse(range) else {
                continue;
            };
            if weight > best.map_or(0.0, |(weight, _)| weight) {
                best = Some((weight, media_type));
            }
        }
        best.map(|(_, media_type)| media_type).ok_or_else(|| {
            DataError::new(
                StatusCode::NOT_ACCEPTABLE,
                "not_acceptable",
                "the answer can be application/json, application/vnd.pgrst.object+json or \
                 application/vnd.pgrst.array+json",
            )
        })
    }

    /// One media range and its weight; `None` if this API cannot produce it.
    fn parse(range: &str) -> Option<(f32, MediaType)> {
        let mut parts = range.split(';').map(str::trim);
        let (single, vendor) = match parts.next()?.to_ascii_lowercase().as_str() {
            "*/*" | "application/*" | "application/json" => (false, false),
            "application/vnd.pgrst.object+json" | "application/vnd.pgrst.object" => (true, true),
            "application/vnd.pgrst.array+json" | "application/vnd.pgrst.array" => (false, true),
            _ => return None,
        };
        let (mut weight, mut nulls_stripped) = (1.0, false);
        for parameter in parts {
            match parameter.split_once('=') {
                Some(("q", value)) => weight = value.parse().ok()?,
                Some(("nulls", "stripped")) if vendor => nulls_stripped = true,
                _ => {}
            }
        }
        let media_type = MediaType { single, vendor, nulls_stripped };
        Some((weight, media_type))
    }

    /// The `Content-Type` of the answer.
    pub(super) fn content_type(self) -> &'static str {
        match (self.vendor, self.single, self.nulls_stripped) {
            (false, _, _) => "application/json; charset=utf-8",
            (_, true, false) => "application/vnd.pgrst.object+json; charset=utf-8",
            (_, true, true) => "application/vnd.pgrst.object+json; nulls=stripped; charset=utf-8",
            (_, false, false) => "application/vnd.pgrst.array+json; charset=utf-8",
            (_, false, true) => "application/vnd.pgrst.array+json; nulls=stripped; charset=utf-8",
        }
    }
}

/// A body must be JSON; one without a content type is assumed to be.
pub(super) fn check_content_type(headers: &HeaderMap) -> Result<(), DataError> {
    let Some(value) = headers.get(CONTENT_TYPE) else {
        return Ok(());
    };
    let essence = value.to_str().unwrap_or_default().split(';').next();
    match essence.unwrap_or_default().trim().to_ascii_lowercase().as_str() {
        "application/json"
        | "application/vnd.pgrst.object+json"
        | "application/vnd.pgrst.array+json" => Ok(()),
        other => Err(DataError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            format!("send application/json, not {}", clip(other)),
        )),
    }
}

/// The first and last row of `Range: 10-19` or `Range: 10-`. A range in another unit, such as bytes, is
/// ignored, as HTTP requires for unknown units.
pub(super) fn row_range(headers: &HeaderMap) -> Result<Option<(u64, Option<u64>)>, DataError> {
    if headers.get(RANGE_UNIT).is_some_and(|unit| unit != "items") {
        return Ok(None);
    }
    let range = headers.get(RANGE).and_then(|value| value.to_str().ok());
    let Some((first, last)) = range.and_then(|range| range.trim().split_once('-')) else {
        return Ok(None);
    };
    // PostgreSQL counts rows as int8.
    let Some(first) = first.parse().ok().filter(|first| i64::try_from(*first).is_ok()) else {
        return Ok(None);
    };
    match last.parse::<u64>() {
        Ok(last) if last < first => Err(DataError::malformed_query(format!(
            "the range {first}-{last} ends before it begins"
        ))),
        Ok(last) => Ok(Some((first, Some(last)))),
        Err(_) if last.is_empty() => Ok(Some((first, None))),
        Err(_) => Ok(None),
    }
}

/// The members of a comma-separated header, over all its lines.
fn list<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h str> {
    headers
        .get_all(name)
        .into_iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .map(str::trim)
        .filter(|member| !member.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let parse = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), http::HeaderValue::from_static(value))
        };
        lines.iter().map(parse).collect()
    }

    #[test]
    fn preferences_add_up_over_lines_and_the_first_one_wins() {
        let lines = [
            ("prefer", "return=representation, count=planned"),
            ("prefer", "Return=minimal, max-affected=\"10\", tx=rollback"),
        ];
        let preferences = Preferences::parse(&headers(&lines)).unwrap();
        assert_eq!(preferences.returning, Some(Returning::Representation));
        assert!(preferences.count);
        assert_eq!(preferences.affected_max, Some(10));
    }

    #[test]
    fn strict_handling_reports_what_cannot_be_met() {
        let strict = [("prefer", "handling=strict, tx=rollback, return=all")];
        let error = Preferences::parse(&headers(&strict)).unwrap_err();
        assert_eq!(error.code, "unknown_preference");
        assert!(error.message.contains("tx=rollback, return=all"));
        let lenient = [("prefer", "tx=rollback, return=all")];
        assert_eq!(Preferences::parse(&headers(&lenient)).unwrap(), Preferences::default());
    }

    #[test]
    fn the_accept_header_is_negotiated_by_weight() {
        let content_type = |accept| {
            MediaType::negotiate(&headers(&[("accept", accept)])).map(MediaType::content_type)
        };
        let json = Ok("application/json; charset=utf-8");
        assert_eq!(content_type("*/*"), json);
        assert_eq!(content_type("text/html, application/json;q=0.9"), json);
        assert_eq!(
            content_type("application/json;q=0.5, application/vnd.pgrst.object+json"),
            Ok("application/vnd.pgrst.object+json; charset=utf-8")
        );
        assert_eq!(
            content_type("application/vnd.pgrst.object+json;nulls=stripped"),
            Ok("application/vnd.pgrst.object+json; nulls=stripped; charset=utf-8")
        );
        for refused in ["text/csv", "application/json;q=0", "application/geo+json"] {
            assert_eq!(content_type(refused).unwrap_err().status, 406, "{refused}");
        }
    }

    #[test]
    fn a_range_of_rows_is_read_and_one_of_bytes_ignored() {
        let range = |value| row_range(&headers(&[("range", value)]));
        assert_eq!(range("0-24"), Ok(Some((0, Some(24)))));
        assert_eq!(range("10-"), Ok(Some((10, None))));
        for ignored in ["bytes=0-99", "-5", "x", "1-2-3", "9223372036854775808-", ""] {
            assert_eq!(range(ignored), Ok(None), "{ignored}");
        }
        assert!(range("9-3").is_err());
        let bytes = headers(&[("range", "0-1"), ("range-unit", "bytes")]);
        assert_eq!(row_range(&bytes), Ok(None));
    }
}
