//! The session settings that this library relies on, which override those of the role and the database.
//!
//! A role may change its own defaults: `ALTER ROLE freehold_app SET …` needs no privilege, and this cannot be
//! revoked. Such a default outlives every connection. So each connection sends its settings. In the startup
//! packet they take precedence over the role's, and RESET ALL returns to them. A pooler refuses startup
//! parameters that it does not track, so behind one they are set at the entry point of each transaction.
//!
//! Not listed here is what an operator sets for a database on purpose and what breaks nothing: TimeZone,
//! memory, planner settings. Nor is `default_transaction_read_only`, by which managed services stop writes to
//! a full disk. The doctor reports settings of our roles (FH316).

/// A setting's name and value.
pub(crate) type Setting = (&'static str, &'static str);

/// For every role.
const COMMON: &[Setting] = &[
    ("client_min_messages", "notice"),
    ("DateStyle", "ISO"),
    ("IntervalStyle", "postgres"),
    ("extra_float_digits", "1"),
    ("bytea_output", "hex"),
    ("xmlbinary", "base64"),
    ("xmloption", "content"),
    ("array_nulls", "on"),
    ("backslash_quote", "safe_encoding"),
    ("standard_conforming_strings", "on"),
    ("transform_null_equals", "off"),
    ("quote_all_identifiers", "off"),
    ("row_security", "on"),
    ("gin_fuzzy_search_limit", "0"),
    ("plan_cache_mode", "auto"),
    ("lock_timeout", "0"),
    ("exit_on_error", "off"),
];

/// For every role, on servers that have them: `transaction_timeout` came with PostgreSQL 17,
/// `restrict_nonsystem_relation_kind` with 17, 16.4 and 15.8.
const NEWER: &[Setting] = &[("transaction_timeout", "0"), ("restrict_nonsystem_relation_kind", "")];

/// Settings that act before a transaction's first statement, or without one. They cannot be set at the entry
/// point.
const BEFORE_THE_DOOR: &[Setting] = &[
    ("role", "none"),
    ("local_preload_libraries", ""),
    ("default_transaction_isolation", "read committed"),
    ("default_transaction_deferrable", "off"),
    ("idle_session_timeout", "0"),
];

/// The time limits of `freehold_app`. `init` sets them for the role too, for connections through a pooler.
pub(crate) const APP_BOUNDS: &[Setting] = &[
    ("statement_timeout", "30s"),
    ("idle_in_transaction_session_timeout", "60s"),
    ("search_path", "pg_temp"),
];

/// The time limits in the form in which PostgreSQL stores them with the role.
pub(crate) fn app_bounds() -> Vec<String> {
    APP_BOUNDS.iter().map(|(name, value)| format!("{name}={value}")).collect()
}

/// An expression for those of [`NEWER`] that the server has, as an array of names.
pub(crate) const NEWER_SQL: &str = "ARRAY(SELECT name FROM pg_catalog.unnest(ARRAY['transaction_timeout', 'restrict_nonsystem_relation_kind']) name
    WHERE pg_catalog.current_setting(name, true) IS NOT NULL)";

pub(crate) fn newer(names: &[String]) -> Vec<Setting> {
    NEWER.iter().filter(|(name, _)| names.iter().any(|known| known == name)).copied().collect()
}

/// The settings for the startup packet of a connection as `user`, except those that `options` in the
/// connection string sets. A server refuses the connection if it lacks one of `newer`.
pub(crate) fn at_startup(user: &str, options: &str, newer: &[Setting]) -> Vec<Setting> {
    let bounds = if user == "freehold_app" { APP_BOUNDS } else { &[] };
    let all = [COMMON, BEFORE_THE_DOOR, bounds, newer].concat();
    let given: Vec<String> = options.split_whitespace().filter_map(name_of).collect();
    all.into_iter().filter(|(name, _)| !given.contains(&name.to_ascii_lowercase())).collect()
}

/// The name in `-c name=value`, `-cname=value` or `--name=value`, as PostgreSQL reads it.
fn name_of(option: &str) -> Option<String> {
    let named = option.strip_prefix("--").or(option.strip_prefix("-c")).unwrap_or(option);
    let (name, _) = named.split_once('=')?;
    Some(name.to_ascii_lowercase().replace('-', "_"))
}

/// For the entry point of a transaction behind a pooler: an expression that sets them for that transaction.
/// Poolers track the client encoding that this library needs as a startup parameter, but RESET ALL there
/// returns to the database's own.
pub(crate) fn at_the_door(newer: &[Setting]) -> String {
    let set = |(name, value): &Setting| {
        format!(" AND pg_catalog.set_config('{name}', '{value}', true) IS NOT NULL")
    };
    COMMON.iter().chain(newer).chain([&("client_encoding", "UTF8")]).map(set).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(user: &str, options: &str) -> Vec<&'static str> {
        at_startup(user, options, NEWER).into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn bounds_are_the_app_roles() {
        assert!(names("freehold_app", "").contains(&"statement_timeout"));
        assert!(!names("freehold_owner", "").contains(&"statement_timeout"));
    }

    #[test]
    fn what_the_connection_string_says_stands() {
        for options in [
            "-c statement_timeout=90s",
            "-cstatement_timeout=90s",
            "--statement-timeout=90s",
            "-c work_mem=8MB -c Statement_Timeout=90s",
        ] {
            assert!(!names("freehold_app", options).contains(&"statement_timeout"), "{options}");
        }
        let another = "-c log_min_duration=1 -c idle_in_transaction_session_timeout=1";
        assert!(names("freehold_app", another).contains(&"statement_timeout"));
        assert!(names("freehold_app", "-c application_name=role").contains(&"role"));
    }

    #[test]
    fn what_acts_before_the_door_is_not_set_there() {
        let door = at_the_door(NEWER);
        assert!(
            door.starts_with(" AND pg_catalog.set_config('client_min_messages', 'notice', true)")
        );
        assert!(BEFORE_THE_DOOR.iter().all(|(name, _)| !door.contains(&format!("'{name}'"))));
        assert!(NEWER.iter().all(|(name, _)| door.contains(&format!("'{name}'"))));
    }

    #[test]
    fn what_a_server_lacks_is_not_sent_to_it() {
        assert!(NEWER.iter().all(|(name, _)| NEWER_SQL.contains(&format!("'{name}'"))));
        let known = newer(&["restrict_nonsystem_relation_kind".to_owned()]);
        let sent = at_startup("freehold_app", "", &known);
        assert!(sent.contains(&("restrict_nonsystem_relation_kind", "")));
        assert!(!at_the_door(&known).contains("transaction_timeout"));
    }
}
