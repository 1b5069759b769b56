//! What goes on beside the service of `freehold dev`: its PostgreSQL is kept running, and new migrations are
//! taken while they are written.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use freehold::{ErrorKind, Freehold, MigrateOptions, MigrateReport};
use freehold_embedded::postgres::EmbeddedPostgres;

use super::{Failure, progress};
use crate::config::LayoutSettings;

/// More ends than these within the time, and the server is not started again.
const ENDS_MAX: usize = 5;
const ENDS_WITHIN: Duration = Duration::from_secs(60);

/// How often the folder of migrations is looked at. A file that was written since the last look is left
/// for the next: an editor may not be done.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Folders within folders: no layout has more.
const DEPTH_MAX: usize = 3;

/// Starts the server again whenever it has ended, and returns why that cannot be done any more.
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

/// The files of a folder with what changes when they are written.
type Files = BTreeMap<PathBuf, (Option<SystemTime>, u64)>;

fn files(folder: &Path) -> Files {
    let mut found = Files::new();
    collect(folder, DEPTH_MAX, &mut found);
    found
}

fn collect(folder: &Path, depth: usize, found: &mut Files) {
    // What cannot be read now is told of when the folder is read as a baseline.
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

/// Takes new migrations of a folder for as long as it is polled, and says why it does not take one.
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
        .up(&baseline, MigrateOptions::default(), &|_, _| {})
        .await
        .map_err(explain)
}

/// Why migrations were not applied, and the way out where these data are worth nothing.
pub(super) fn explain(error: freehold::Error) -> String {
    match error.kind() {
        ErrorKind::Migration => {
            format!("{error}. Or start over with empty tables: `freehold dev --reset`")
        }
        _ => error.to_string(),
    }
}

/// Says what has become of migrations.
pub(super) fn tell(report: &MigrateReport) {
    for name in &report.adopted {
        progress(&format!("Applied {name}."));
    }
    for failure in &report.failed {
        progress(&format!("{} could not be migrated: {}", failure.tenant, failure.error));
    }
}
