//! The report as SARIF 2.1.0: every check is a rule, every example a result at the name of an
//! object in the database.
//!
//! <https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html>

use freehold::doctor::{Check, DoctorReport, Severity, checks};
use serde_json::{Value, json};

pub(super) fn log(report: &DoctorReport) -> Value {
    let rules = checks();
    let results: Vec<Value> = report
        .findings
        .iter()
        .flat_map(|finding| {
            let rule = rules.iter().position(|rule| rule.code == finding.check.code);
            finding.examples.iter().map(move |example| {
                json!({
                    "ruleId": finding.check.code,
                    "ruleIndex": rule,
                    "level": level(finding.check.severity),
                    "message": {"text": format!("{}: {}", example.object, example.detail)},
                    "locations": [{"logicalLocations": [{"fullyQualifiedName": example.object, "kind": "object"}]}],
                    "properties": {"objects": finding.count},
                })
            })
        })
        .collect();
    let not_checked: Vec<Value> = report
        .not_checked
        .iter()
        .map(|missing| {
            json!({
                "level": "warning",
                "message": {"text": format!("Not checked, because {}", missing.reason)},
                "associatedRule": {"id": missing.code},
            })
        })
        .collect();
    json!({
        "$schema": "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "freehold doctor",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": rules.iter().map(rule).collect::<Vec<_>>(),
            }},
            "invocations": [{"executionSuccessful": true, "toolExecutionNotifications": not_checked}],
            "results": results,
        }],
    })
}

fn rule(check: &Check) -> Value {
    json!({
        "id": check.code,
        "shortDescription": {"text": check.title},
        "fullDescription": {"text": check.meaning},
        "help": {"text": check.remedy},
        "defaultConfiguration": {"level": level(check.severity)},
    })
}

fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => "error",
        Severity::Warning => "warning",
        Severity::Info => "note",
    }
}
