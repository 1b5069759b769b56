//! `freehold migrate import`: a dump becomes a folder of migrations.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use freehold::{Imported, import_dumps};
use serde::Serialize;

use super::Failure;
use super::output::Output;

#[derive(clap::Args)]
pub(super) struct ImportArgs {
    /// A dump of pg_dump, a structure.sql, or a folder of such files, which are taken in the order of their names, numbers in them by their value
    #[arg(value_name = "FILE|FOLDER")]
    from: PathBuf,

    /// The folder to write the migrations to; nothing in it is overwritten
    #[arg(long, value_name = "FOLDER", default_value = "migrations")]
    to: PathBuf,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A file of the baseline.
#[derive(Serialize)]
struct Written {
    from: PathBuf,
    to: PathBuf,
    #[serde(flatten)]
    imported: Imported,
}

pub(super) fn run(args: &ImportArgs) -> Result<ExitCode, Failure> {
    let mut files = Vec::new();
    let mut refused = 0;
    let sources = sources(&args.from)?;
    let read = |from: &PathBuf| {
        fs::read_to_string(from).map_err(|error| format!("{}: {error}", from.display()))
    };
    let texts: Vec<String> = sources.iter().map(read).collect::<Result<_, _>>()?;
    for (at, (from, imported)) in sources.into_iter().zip(import_dumps(&texts)).enumerate() {
        let shown = from.display();
        match imported {
            Ok(imported) => {
                let to = args.to.join(format!("{:04}_{}.sql", at + 1, name_of(&from)));
                files.push(Written { from, to, imported });
            }
            Err(refusals) => {
                refused += refusals.len();
                for refusal in refusals {
                    Output::note(&format!("{shown} line {}: {}", refusal.line, refusal.why));
                }
            }
        }
    }
    if refused > 0 {
        return Err("nothing was written".into());
    }
    if let Some(there) = files.iter().find(|file| file.to.exists()) {
        let there = there.to.display();
        return Err(format!("{there} is there already: name another folder with --to").into());
    }
    fs::create_dir_all(&args.to).map_err(|error| format!("{}: {error}", args.to.display()))?;
    for file in &files {
        write(&file.to, &file.imported.sql)
            .map_err(|error| format!("{}: {error}", file.to.display()))?;
    }
    if args.json {
        Output::json(&files);
        return Ok(ExitCode::SUCCESS);
    }
    for Written { from, to, imported } in &files {
        for remark in &imported.remarks {
            let times =
                if remark.count > 1 { format!(" ({} times)", remark.count) } else { String::new() };
            Output::text(&format!(
                "{} line {}: {}{times}",
                from.display(),
                remark.first_line,
                remark.what
            ));
        }
        Output::text(&format!("{}: {} statements", to.display(), imported.statements));
    }
    Output::text(&format!(
        "Try it: freehold migrate up --baseline {} --dry-run",
        args.to.display()
    ));
    Ok(ExitCode::SUCCESS)
}

fn sources(from: &Path) -> Result<Vec<PathBuf>, Failure> {
    if !from.is_dir() {
        return Ok(vec![from.to_owned()]);
    }
    let shown = from.display();
    let mut files = Vec::new();
    for entry in fs::read_dir(from).map_err(|error| format!("{shown}: {error}"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "sql") {
            files.push(path);
        }
    }
    files.sort_by_cached_key(|path| order_of(path));
    if files.is_empty() {
        return Err(format!("{shown} has no file that ends in .sql").into());
    }
    Ok(files)
}

/// Numbers in names count as numbers: `2_b.sql` comes before `10_c.sql`.
fn order_of(path: &Path) -> Vec<(u128, String)> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut rest = name.as_str();
    let mut parts = Vec::new();
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (digits, after) = rest.split_at(end);
        let end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (word, after) = after.split_at(end);
        parts.push((digits.parse().unwrap_or_default(), word.to_owned()));
        rest = after;
    }
    parts
}

/// A file's name as a migration's: small letters, digits and underscores.
fn name_of(path: &Path) -> String {
    let stem =
        path.file_stem().map(|stem| stem.to_string_lossy().to_lowercase()).unwrap_or_default();
    let name: String =
        stem.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    let name = name.trim_matches(|c: char| c == '_' || c.is_ascii_digit());
    if name.is_empty() { "imported".to_owned() } else { name.to_owned() }
}

/// Fails if the file is there.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
