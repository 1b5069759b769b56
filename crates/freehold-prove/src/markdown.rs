//! The report as Markdown, in a form that can be handed to an auditor.

use std::fmt::Write as _;

use super::ground::BaselineCode;
use super::report::{Ended, Report};

impl Report {
    /// The whole report.
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        self.write(&mut text).expect("writing to a String cannot fail");
        text
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let verdict = if self.passed { "passed" } else { "FAILED" };
        writeln!(out, "# Freehold: proof of isolation — {verdict}\n")?;
        writeln!(out, "{}\n", self.summary())?;
        self.write_figures(out)?;
        self.write_meaning(out)?;
        self.write_findings(out)?;
        self.write_tables(out)?;
        self.write_settings(out)
    }

    fn summary(&self) -> String {
        let Report { operations, cancellations, leaks, .. } = self;
        let ended = match self.ended {
            Ended::Operations => "",
            Ended::Seconds => " The time was up before all operations were done.",
            Ended::Interrupted => " It was interrupted before all operations were done.",
        };
        format!(
            "{} operations of {} tenants, {} of them dropped on the way; {} attempts at what must be \
             refused, {} of them refused; **{} leaks**, {} other findings.{ended}",
            grouped(*operations),
            self.settings.tenants,
            grouped(*cancellations),
            grouped(self.violations_provoked),
            grouped(self.violations_caught),
            grouped(*leaks),
            grouped(self.unexpected),
        )
    }

    fn write_figures(&self, out: &mut String) -> std::fmt::Result {
        let disturbances = &self.disturbances;
        let audit = &self.audit;
        writeln!(out, "| | |\n|---|--:|")?;
        for (name, count) in [
            ("Operations", self.operations),
            ("… whose answer was checked", self.checked),
            ("… dropped before their answer came", self.cancellations),
            ("… that ended with an error of the disturbances below", self.disturbed),
            ("Rows in the answers", self.rows),
            ("Bytes that were looked through", self.bytes),
            ("Violations provoked", self.violations_provoked),
            ("Violations caught", self.violations_caught),
            ("**Leaks**", self.leaks),
            ("Other findings", self.unexpected),
            ("Database sessions ended meanwhile", disturbances.sessions_ended),
            ("Queries cancelled meanwhile", disturbances.queries_cancelled),
            ("Suspensions, each followed by a resumption", disturbances.suspensions),
            ("Changes of a member's role", disturbances.role_changes),
            ("Migrations of all tenants meanwhile", disturbances.migrations),
            ("Restarts of the pooler, which had ended of itself", disturbances.pooler_restarts),
            ("Tables read at the end", audit.tables),
            ("Rows read at the end", audit.rows),
            ("… that were not of their table's tenant", audit.foreign_rows),
            ("Batches that are whole or absent", audit.batches),
        ] {
            writeln!(out, "| {name} | {} |", grouped(count))?;
        }
        writeln!(out)
    }

    fn write_meaning(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "## What follows\n")?;
        let Some(confidence) = self.confidence else {
            return writeln!(
                out,
                "There were leaks, or nothing could be checked: nothing follows but that.\n"
            );
        };
        writeln!(
            out,
            "{n} operations were checked and none leaked. If each operation leaks with one and the \
             same probability, independently of the others, then with 95 % confidence that \
             probability is at most 3/{n} = {rate:.2e}: were it higher, a run like this one would \
             have shown a leak in more than 95 of 100 cases (the rule of three).\n\n\
             It is a statement about random operations of this mix, on this version, settings and \
             machine. It says nothing about operations that are not in the mix, and operations that \
             run at the same time are not quite independent. What cannot happen by the rules of the \
             database is told in the documentation of the project; this is the attempt to find it \
             wrong.\n",
            n = grouped(confidence.trials),
            rate = confidence.leak_rate_max,
        )
    }

    fn write_findings(&self, out: &mut String) -> std::fmt::Result {
        for (title, count, told) in [
            ("Leaks", self.leaks, &self.leaks_told),
            ("Other findings", self.unexpected, &self.unexpected_told),
        ] {
            if count == 0 {
                continue;
            }
            writeln!(out, "## {title}\n")?;
            for words in told {
                let words = words.replace('\n', " ").replace('`', "'");
                writeln!(out, "- `{words}`")?;
            }
            if count > told.len() as u64 {
                writeln!(out, "- … {} in all", grouped(count))?;
            }
            writeln!(out)?;
        }
        Ok(())
    }

    fn write_tables(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "## Violations\n\n| | Provoked | Caught |\n|---|--:|--:|")?;
        for (what, attempts) in &self.violations {
            let (provoked, caught) = (grouped(attempts.provoked), grouped(attempts.caught));
            writeln!(out, "| {what} | {provoked} | {caught} |")?;
        }
        writeln!(out, "\n## Operations\n\n| | | Begun | Checked | Dropped | Disturbed |")?;
        writeln!(out, "|---|---|--:|--:|--:|--:|")?;
        for kind in &self.kinds {
            let counts = [kind.operations, kind.checked, kind.cancellations, kind.disturbed];
            let counts = counts.map(grouped).join(" | ");
            writeln!(out, "| {} | {} | {counts} |", kind.way, kind.name)?;
        }
        writeln!(out, "\n## Errors that the disturbances explain\n\n| Code | |\n|---|--:|")?;
        for (code, count) in &self.errors {
            writeln!(out, "| {code} | {} |", grouped(*count))?;
        }
        writeln!(out)
    }

    fn write_settings(&self, out: &mut String) -> std::fmt::Result {
        let (settings, conditions) = (&self.settings, &self.conditions);
        let code = match conditions.baseline {
            BaselineCode::ExecutesText => "executes text: a transaction can leave anything",
            BaselineCode::ChangesSettings => "changes settings, and can leave nothing else",
        };
        let init = if conditions.is_hardened { "as a superuser" } else { "without a superuser" };
        writeln!(out, "## How it was run\n\n| | |\n|---|---|")?;
        for (name, version) in &self.versions {
            writeln!(out, "| {name} | {version} |")?;
        }
        let rate = self.operations as f64 / self.duration_secs.max(0.001);
        for (name, value) in [
            ("connection", conditions.connection.clone()),
            ("seal", conditions.seal.clone()),
            ("`freehold init`", init.to_owned()),
            ("the baseline's code", code.to_owned()),
            ("began", self.began_at.clone()),
            ("took", format!("{:.1} s, {rate:.0} operations a second", self.duration_secs)),
            ("seed", settings.seed.to_string()),
            ("tenants", settings.tenants.to_string()),
            ("workers", settings.workers.to_string()),
            ("disturbance of sessions", format!("every {} ms", settings.disturb_ms)),
            ("limits", format!("{} operations, {} s", settings.operations, settings.seconds)),
        ] {
            writeln!(out, "| {name} | {value} |")?;
        }
        Ok(())
    }
}

/// A number with separated thousands.
fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::grouped;

    #[test]
    fn thousands_stand_apart() {
        assert_eq!([0, 999, 1000, 3_000_000].map(grouped), ["0", "999", "1,000", "3,000,000"]);
    }
}
