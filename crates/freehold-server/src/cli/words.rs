//! Figures in words: counts, sizes, durations and times.

use freehold::jiff::Timestamp;

/// `1 tenant`, `2 tenants`.
pub(super) fn count(number: impl TryInto<u64>, one: &str) -> String {
    let number = number.try_into().unwrap_or(u64::MAX);
    match (number, one.strip_suffix('y')) {
        (1, _) => format!("1 {one}"),
        (_, Some(stem)) if !stem.ends_with(['a', 'e', 'o', 'u']) => format!("{number} {stem}ies"),
        _ if one.ends_with('x') || one.ends_with('s') => format!("{number} {one}es"),
        _ => format!("{number} {one}s"),
    }
}

/// In the units of PostgreSQL's `pg_size_pretty`: a kB is 1,024 bytes.
pub(super) fn bytes(bytes: f64) -> String {
    let sign = if bytes < 0.0 { "-" } else { "" };
    let mut left = bytes.abs();
    if left < 1024.0 {
        return format!("{sign}{left:.0} bytes");
    }
    let mut unit = "kB";
    left /= 1024.0;
    for larger in ["MB", "GB", "TB"] {
        // A value that rounds to 1024 is shown in the next larger unit.
        if left < 1023.5 {
            break;
        }
        unit = larger;
        left /= 1024.0;
    }
    let digits = usize::from(left < 9.95);
    format!("{sign}{left:.digits$} {unit}")
}

/// `45 s`, `5 min`, `1 h 30 min`, `2 d`: the two largest units.
pub(super) fn duration(seconds: u64) -> String {
    const UNITS: [(&str, u64); 4] = [("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)];
    let mut left = seconds;
    let mut parts = Vec::new();
    for (unit, size) in UNITS {
        if left >= size {
            parts.push(format!("{} {unit}", left / size));
            left %= size;
        }
    }
    if parts.is_empty() {
        return "0 s".to_owned();
    }
    parts.truncate(2);
    parts.join(" ")
}

/// To the second, in UTC.
pub(super) fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// The most similar name among `known`, if one is similar enough.
pub(super) fn nearest<'a>(typed: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let near = |name: &&str| strsim::jaro_winkler(typed, name);
    let best = known.max_by(|a, b| near(a).total_cmp(&near(b)))?;
    (near(&best) > 0.8).then_some(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_as_a_person_says_them() {
        for (number, one, said) in [
            (0, "tenant", "0 tenants"),
            (1, "tenant", "1 tenant"),
            (2, "query", "2 queries"),
            (2, "day", "2 days"),
            (3, "index", "3 indexes"),
        ] {
            assert_eq!(count(number, one), said);
        }
        for (number, said) in [
            (0.0, "0 bytes"),
            (1023.0, "1023 bytes"),
            (1024.0, "1.0 kB"),
            (8192.0, "8.0 kB"),
            (1_048_575.0, "1.0 MB"),
            (5.0 * 1024.0 * 1024.0 * 1024.0 * 1.5, "7.5 GB"),
            (-20_480.0, "-20 kB"),
        ] {
            assert_eq!(bytes(number), said);
        }
        for (seconds, said) in
            [(0, "0 s"), (59, "59 s"), (300, "5 min"), (5400, "1 h 30 min"), (90_061, "1 d 1 h")]
        {
            assert_eq!(duration(seconds), said);
        }
        assert_eq!(
            nearest("revenue_per_dya", ["orders", "revenue_per_day"].into_iter()),
            Some("revenue_per_day")
        );
        assert_eq!(nearest("zzz", ["orders", "revenue_per_day"].into_iter()), None);
    }
}
