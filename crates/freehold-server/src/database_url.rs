//! URLs of databases that are derived from others.

/// The same database with another user.
pub fn with_user(url: &str, user: &str, password: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return format!("{url} user={user} password={password}");
    };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let encode =
        |text| percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC);
    let password =
        if password == "…" { password.to_owned() } else { encode(password).to_string() };
    format!("{scheme}://{user}:{password}@{host}{path}")
}

/// The same server with another database.
pub fn with_database(url: &str, database: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return format!("{url} dbname={database}");
    };
    let (rest, query) = rest.find('?').map_or((rest, ""), |at| rest.split_at(at));
    let authority = rest.split('/').next().unwrap_or(rest);
    format!("{scheme}://{authority}/{database}{query}")
}

#[cfg(test)]
mod tests {
    use super::{with_database, with_user};

    #[test]
    fn a_url_keeps_all_but_its_user() {
        for (url, expected) in [
            ("postgres://a:b@h:1/d?sslmode=require", "postgres://u:p%2F@h:1/d?sslmode=require"),
            ("postgresql://h/d", "postgresql://u:p%2F@h/d"),
            ("host=h user=x dbname=d", "host=h user=x dbname=d user=u password=p/"),
        ] {
            assert_eq!(with_user(url, "u", "p/"), expected);
        }
    }

    #[test]
    fn a_url_keeps_all_but_its_database() {
        for (url, expected) in [
            ("postgres://a:b@h:1/d?sslmode=require", "postgres://a:b@h:1/n?sslmode=require"),
            ("postgresql://h", "postgresql://h/n"),
            ("host=h dbname=d", "host=h dbname=d dbname=n"),
        ] {
            assert_eq!(with_database(url, "n"), expected);
        }
    }
}
