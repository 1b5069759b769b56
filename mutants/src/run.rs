//! Builds the copy and runs some of its tests beside a new PostgreSQL: a fault may change roles, which a
//! server's databases share.

use std::fmt;
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::Result;
use crate::copy::Copy;
use crate::list::Suite;

/// A build after a change of one file takes some tens of seconds; the first one takes minutes.
const BUILD_MAX: Duration = Duration::from_secs(30 * 60);
/// Timeout of all tests together, without a fault.
pub(crate) const ALL_TESTS_MAX: Duration = Duration::from_secs(20 * 60);
/// Timeout of one mutant's tests: tests that hang count as having noticed it.
pub(crate) const TESTS_MAX: Duration = Duration::from_secs(180);
const POLL: Duration = Duration::from_millis(50);
const MESSAGE_CHARS_MAX: usize = 160;

pub(crate) struct Runner {
    freehold: PathBuf,
    tree: PathBuf,
    build: PathBuf,
    database: PathBuf,
    log: PathBuf,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Passed,
    /// The tests that failed.
    Failed(Vec<String>),
    /// They did not end in time.
    Hung,
    Unbuildable(String),
    /// Whether the tests ran is unknown.
    Unclear(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Passed => f.write_str("passed"),
            Outcome::Failed(tests) => write!(f, "failed: {}", tests.join(", ")),
            Outcome::Hung => f.write_str("did not end in time"),
            Outcome::Unbuildable(why) => write!(f, "does not build: {why}"),
            Outcome::Unclear(why) => f.write_str(why),
        }
    }
}

impl Runner {
    pub(crate) fn new(copy: &Copy, freehold: &Path) -> Result<Runner> {
        let folder = copy.tree.parent().ok_or("the copy has no folder")?;
        Ok(Runner {
            freehold: freehold.to_owned(),
            tree: copy.tree.clone(),
            build: copy.build.clone(),
            database: folder.join("database"),
            log: folder.join("last.log"),
        })
    }

    /// Builds and runs the suite's tests.
    pub(crate) fn run(&self, suite: &Suite, time_max: Duration) -> Result<Outcome> {
        let mut build = self.command(Path::new("cargo"));
        build.args(cargo_test(suite)).arg("--no-run");
        match self.finish(build, BUILD_MAX)? {
            Some(true) => {}
            Some(false) => return Ok(Outcome::Unbuildable(self.first_error()?)),
            None => return Err("the build did not end in time".into()),
        }
        let mut tests = self.command(&self.freehold);
        tests.args(["dev", "--database-only", "--reset", "--dir"]).arg(&self.database).arg("--");
        tests.arg("cargo").args(cargo_test(suite)).args(["--", "--exact"]).args(&suite.tests);
        let Some(succeeded) = self.finish(tests, time_max)? else { return Ok(Outcome::Hung) };
        self.judge(suite, succeeded)
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(&self.tree)
            .env("CARGO_TARGET_DIR", &self.build)
            .env("CARGO_PROFILE_DEV_DEBUG", "0")
            .stdin(Stdio::null())
            .process_group(0);
        command
    }

    /// Whether the command succeeded; `None` if it had to be killed.
    fn finish(&self, mut command: Command, time_max: Duration) -> Result<Option<bool>> {
        let log = File::create(&self.log)?;
        let mut child = command.stdout(log.try_clone()?).stderr(log).spawn()?;
        let began = Instant::now();
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(Some(status.success()));
            }
            if began.elapsed() > time_max {
                // The whole process group: cargo, the tests, and the server beside them.
                Command::new("kill").args(["--", &format!("-{}", child.id())]).status()?;
                child.wait()?;
                return Ok(None);
            }
            std::thread::sleep(POLL);
        }
    }

    fn judge(&self, suite: &Suite, succeeded: bool) -> Result<Outcome> {
        let log = std::fs::read_to_string(&self.log)?;
        let of = |ending: &str| -> Vec<String> {
            let lines = log.lines().filter_map(|line| line.strip_prefix("test "));
            lines.filter_map(|line| line.strip_suffix(ending)).map(str::to_owned).collect()
        };
        let (passed, failed) = (of(" ... ok"), of(" ... FAILED"));
        if !failed.is_empty() {
            let with_message = |test: String| format!("{test}: {}", message_of(&log, &test));
            return Ok(Outcome::Failed(failed.into_iter().map(with_message).collect()));
        }
        // A test's output may be within its line, so only the count is reliable.
        let ran = log.lines().any(|line| {
            line.starts_with("test result: ok.")
                && line.contains(&format!(" {} passed", suite.tests.len()))
        });
        match succeeded && ran {
            true => Ok(Outcome::Passed),
            false => Err(format!(
                "{suite}: only {} of {} tests are known to have run; {} says why",
                passed.len(),
                suite.tests.len(),
                self.log.display()
            )
            .into()),
        }
    }

    fn first_error(&self) -> Result<String> {
        let log = std::fs::read_to_string(&self.log)?;
        let error = log.lines().find(|line| line.starts_with("error"));
        Ok(error.unwrap_or("cargo does not say why").to_owned())
    }
}

/// The first message of a failed test: a reader judges whether it failed for the right reason.
fn message_of(log: &str, test: &str) -> String {
    let panicked = format!("thread '{test}'");
    let mut lines = log.lines().skip_while(|line| !line.starts_with(&panicked));
    let message = lines.nth(1).unwrap_or("it does not say why");
    message.chars().take(MESSAGE_CHARS_MAX).collect()
}

fn cargo_test(suite: &Suite) -> Vec<String> {
    let target = match suite.target {
        "lib" => "--lib".to_owned(),
        target => format!("--test={target}"),
    };
    let package = format!("--package={}", suite.package);
    ["test", "--locked", "--all-features"]
        .map(str::to_owned)
        .into_iter()
        .chain([package, target])
        .collect()
}
