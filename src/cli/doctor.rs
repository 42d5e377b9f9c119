//! `phial doctor`.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::escape;
use super::ui::Ui;
use super::{Common, ExitResult};
use crate::context::Context;
use crate::error::{UserError as _, chain};
use crate::image::RegistryRef;
use crate::registry::{DoctorReport, Finding, LookupResult, LookupStep};

/// Check access to a registry: login, pull, push, mount, referrers
#[derive(Args)]
pub(super) struct DoctorArgs {
    /// Repository to check, as `registry/repo[:tag]`; nothing is stored in it
    #[arg(long, value_name = "REF", required = true)]
    registry: String,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) common: Common,
}

pub(super) fn doctor(args: &DoctorArgs, context: &Context<'_>, ui: &Ui) -> ExitResult {
    let reference: RegistryRef = args.registry.parse()?;
    let report = context.client.diagnose(&reference)?;
    if args.json {
        ui.json(&as_json(&report).to_string())?;
    } else {
        ui.data(&as_text(&report))?;
    }
    let Some(error) = report.first_failure() else { return Ok(ExitCode::SUCCESS) };
    if let Some(hint) = error.hint() {
        ui.info(&format!("hint: {hint}"));
    }
    Ok(error.exit_kind().into())
}

fn as_text(report: &DoctorReport) -> String {
    let mut lines = vec![format!("registry    `{}`", report.url)];
    lines.extend(report.connection.iter().map(|line| format!("            {line}")));
    if let Some(mirrors) = &report.mirrors {
        lines.push(format!("            {}", mirrors.entry));
        lines.extend(mirrors.sources.iter().map(|(at, finding)| format!("pulled from `{at}`: {}", text(finding))));
    }
    let scheme = report.auth_scheme.as_deref().unwrap_or("no login so far");
    lines.push(format!("asks        {scheme}"));
    let mut name = "login";
    for step in &report.login_lookup {
        lines.push(format!("{name:<12}{step}"));
        name = "";
    }
    match &report.login {
        Finding::Works(_) => {}
        Finding::Unknown(why) => lines.push(format!("{name:<12}{why}")),
        other => lines.push(format!("{name:<12}{}", text(other))),
    }
    for (name, finding) in
        [("pull", &report.pull), ("push", &report.push), ("mount", &report.mount), ("referrers", &report.referrers)]
    {
        lines.push(format!("{name:<12}{}", text(finding)));
    }
    lines.iter().map(|line| escape::line(line)).collect::<Vec<_>>().join("\n")
}

fn as_json(report: &DoctorReport) -> Value {
    let mirrors = report.mirrors.as_ref().map(|mirrors| {
        let source = |(at, result): &(String, Finding)| json!({ "at": at, "has": finding(result) });
        json!({ "entry": mirrors.entry, "sources": mirrors.sources.iter().map(source).collect::<Vec<_>>() })
    });
    json!({
        "registry": report.url,
        "way": report.connection,
        "mirrors": mirrors,
        "asks": report.auth_scheme,
        "looked": report.login_lookup.iter().map(lookup_step).collect::<Vec<_>>(),
        "login": finding(&report.login),
        "pull": finding(&report.pull),
        "push": finding(&report.push),
        "mount": finding(&report.mount),
        "referrers": finding(&report.referrers),
    })
}

fn lookup_step(step: &LookupStep) -> Value {
    let location = step.place.replace('`', "");
    match &step.result {
        LookupResult::Absent => json!({ "place": location, "found": "absent" }),
        LookupResult::NoLogin => json!({ "place": location, "found": "nothing" }),
        LookupResult::HelperWithoutLogin { helper } => {
            json!({ "place": location, "found": "nothing", "helper": helper })
        }
        LookupResult::Login { key, helper, kind } => {
            json!({ "place": location, "found": "login", "key": key, "helper": helper, "kind": kind })
        }
    }
}

fn finding(finding: &Finding) -> Value {
    match finding {
        Finding::Works(how) => json!({ "state": "works", "text": how }),
        Finding::Unsupported(why) => json!({ "state": "no", "text": why }),
        Finding::Unknown(why) => json!({ "state": "unknown", "text": why }),
        Finding::Failed(error) => {
            json!({ "state": "fails", "text": chain(error), "hint": error.hint(), "exit": error.exit_kind().code() })
        }
    }
}

fn text(finding: &Finding) -> String {
    match finding {
        Finding::Works(how) => format!("works: {how}"),
        Finding::Unsupported(why) => format!("no: {why}"),
        Finding::Unknown(why) => format!("unknown: {why}"),
        Finding::Failed(error) => format!("fails: {}", chain(error)),
    }
}
