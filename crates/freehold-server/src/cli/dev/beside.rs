//! Background work of `freehold dev`: its PostgreSQL is restarted when it ends, and new migrations are
//! applied as they are written.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use freehold::{ErrorKind, Freehold, MigrateOptions, MigrateReport, OperatorContext};
use freehold_embedded::postgres::EmbeddedPostgres;

use super::{Failure, progress};
use crate::config::LayoutSettings;

/// After more ends than this within the time, the server is not restarted.
const ENDS_MAX: usize = 5;
const ENDS_WITHIN: Duration = Duration::from_secs(60);

/// How often the folder of migrations is checked. A file that changed since the last check is left for the
/// next one: an editor may still be writing it.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The depth of nested folders: no layout has more.
const DEPTH_MAX: usize = 3;

/// Restarts the server whenever it has ended, and returns the reason once that is no longer possible.
pub(super) async fn keep_running(server: &mut EmbeddedPostgres) -> Failure {
    let mut ends: Vec<Instant> = Vec::new();
    loop {
        let how = server.ended().await;
        ends.retain(|end| end.elapsed() < ENDS_WITHIN);
        ends.push(Instant::now());
        if ends.len() > ENDS_MAX {
            return format!(
                "PostgreSQL has ended {} times within a minute, the last time with {how}; {} tells why",
                ends.len(),
                server.log_file().display()
            )
            .into();
        }
        progress(&format!("PostgreSQL has ended ({how}); starting it again."));
        if let Err(error) = server.restart(progress).await {
            return error.into();
        }
        progress("PostgreSQL runs again.");
    }
}

/// The files of a folder, with the metadata that changes when they are written.
type Files = BTreeMap<PathBuf, (Option<SystemTime>, u64)>;

fn files(folder: &Path) -> Files {
    let mut found = Files::new();
    collect(folder, DEPTH_MAX, &mut found);
    found
}

fn collect(folder: &Path, depth: usize, found: &mut Files) {
    // A file that is unreadable now is reported when the folder is read as a baseline.
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(meta) if meta.is_dir() && depth > 0 => collect(&entry.path(), depth - 1, found),
            Ok(meta) if meta.is_file() => {
                found.insert(entry.path(), (meta.modified().ok(), meta.len()));
            }
            _ => {}
        }
    }
}

/// Applies new migrations of a folder while it is polled, and reports those that fail.
pub(super) async fn follow(freehold: &Freehold, folder: &Path, layout: &LayoutSettings) {
    let look = || {
        let folder = folder.to_owned();
        async move { tokio::task::spawn_blocking(move || files(&folder)).await.unwrap_or_default() }
    };
    let mut taken = look().await;
    let mut before = taken.clone();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let now = look().await;
        if now == before && now != taken {
            taken.clone_from(&now);
            match take(freehold, folder, layout).await {
                Ok(report) => tell(&report),
                Err(why) => progress(&format!("No migration was taken: {why}")),
            }
        }
        before = now;
    }
}

async fn take(
    freehold: &Freehold,
    folder: &Path,
    layout: &LayoutSettings,
) -> Result<MigrateReport, String> {
    let baseline = layout.read(folder).map_err(|error| error.to_string())?;
    freehold
        .migrations()
        .up(
            &OperatorContext::system("freehold dev"),
            &baseline,
            MigrateOptions::default(),
            &|_, _| {},
        )
        .await
        .map_err(explain)
}

/// Why migrations were not applied, and the remedy if the data are not needed.
pub(super) fn explain(error: freehold::Error) -> String {
    match error.kind() {
        ErrorKind::Migration => {
            format!("{error}. Or start over with empty tables: `freehold dev --reset`")
        }
        _ => error.to_string(),
    }
}

/// Reports the result of migrations.
pub(super) fn tell(report: &MigrateReport) {
    for name in &report.adopted {
        progress(&format!("Applied {name}."));
    }
    for failure in &report.failed {
        progress(&format!("{} could not be migrated: {}", failure.tenant, failure.error));
    }
}
