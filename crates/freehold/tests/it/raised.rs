//! Errors raised by a baseline's own code, as a service that embeds the library answers them.

use axum_core::response::IntoResponse as _;
use freehold::{Error, ErrorKind, axum};

use crate::support::{house, notes_and};

const TRIGGER: &str = "CREATE TABLE codes (code text);
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'quota reached' USING ERRCODE = NEW.code, DETAIL = 'plan free', HINT = 'upgrade'; END $$;
CREATE TRIGGER refuse BEFORE INSERT ON codes FOR EACH ROW EXECUTE FUNCTION refuse();
CREATE FUNCTION posing() RETURNS void LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'freehold: of our own' USING ERRCODE = 'P0002', DETAIL = 'secret'; END $$";

#[tokio::test]
async fn raise_is_answered_with_its_status_and_its_words() {
    let house = house().await;
    house.migrate(&notes_and(&[TRIGGER])).await.unwrap();
    let acme = house.tenant("acme").await;
    let insert = async |code: &str| -> Error {
        let sql = "INSERT INTO codes VALUES ($1)";
        house.freehold.query(&acme, sql, &[&code]).await.unwrap_err()
    };
    for (code, status) in [
        ("PT402", 402),
        ("PT503", 503),
        ("PT600", 400),
        ("UE001", 400),
        ("45000", 400),
        ("P0001", 400),
        ("P0002", 400),
        ("23505", 409),
        ("23514", 400),
        ("55000", 400),
    ] {
        let error = insert(code).await;
        assert_eq!(error.kind(), ErrorKind::Rejected, "{code}");
        let raised = error.raised().unwrap();
        assert_eq!((raised.status, raised.code.as_str()), (status, code));
        assert_eq!(
            (raised.message.as_str(), raised.detail.as_deref()),
            ("quota reached", Some("plan free"))
        );
        assert_eq!(raised.hint.as_deref(), Some("upgrade"));
        assert_eq!(axum::status(&error).as_u16(), status);
        assert_eq!(axum::detail(&error), "quota reached");
        assert_eq!(error.into_response().status().as_u16(), status);
    }
    // These mean the same by whomever they are raised.
    for (code, kind) in [
        ("42501", ErrorKind::Forbidden),
        ("40001", ErrorKind::Retryable),
        ("55P03", ErrorKind::Retryable),
        ("57014", ErrorKind::Timeout),
    ] {
        let error = insert(code).await;
        assert_eq!((error.kind(), error.raised()), (kind, None), "{code}");
        assert!(!axum::detail(&error).contains("quota"));
    }
    // Messages of PostgreSQL itself and of Freehold's functions are only logged.
    for sql in ["SELECT 1 / 0", "SELECT posing()"] {
        let error = house.freehold.query(&acme, sql, &[]).await.unwrap_err();
        assert_eq!((error.kind(), error.raised()), (ErrorKind::Statement, None), "{sql}");
        assert_eq!(axum::detail(&error), "something failed on our side");
    }
}
