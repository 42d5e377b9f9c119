//! `phial doctor`.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::ui::Ui;
use super::{Common, Outcome};
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

pub(super) fn doctor(args: &DoctorArgs, context: &Context<'_>, ui: &Ui) -> Outcome {
    let reference: RegistryRef = args.registry.parse()?;
    let found = context.client.diagnose(&reference)?;
    let text = if args.json { as_json(&found).to_string() } else { lines(&found).join("\n") };
    Ui::data(&text)?;
    let Some(error) = found.first_failure() else { return Ok(ExitCode::SUCCESS) };
    if let Some(hint) = error.hint() {
        ui.info(&format!("hint: {hint}"));
    }
    Ok(error.exit_kind().into())
}

fn lines(found: &DoctorReport) -> Vec<String> {
    let mut lines = vec![format!("registry    `{}`", found.url)];
    lines.extend(found.connection.iter().map(|way| format!("            {way}")));
    if let Some(mirrored) = &found.mirrors {
        lines.push(format!("            {}", mirrored.entry));
        lines.extend(mirrored.sources.iter().map(|(at, finding)| format!("pulled from `{at}`: {}", text(finding))));
    }
    let asks = found.auth_scheme.as_deref().unwrap_or("for no login so far");
    lines.push(format!("asks        {asks}"));
    let mut name = "login";
    for look in &found.login_lookup {
        lines.push(format!("{name:<12}{look}"));
        name = "";
    }
    match &found.login {
        Finding::Works(_) => {}
        Finding::Unknown(why) => lines.push(format!("{name:<12}{why}")),
        other => lines.push(format!("{name:<12}{}", text(other))),
    }
    for (name, finding) in
        [("pull", &found.pull), ("push", &found.push), ("mount", &found.mount), ("referrers", &found.referrers)]
    {
        lines.push(format!("{name:<12}{}", text(finding)));
    }
    lines
}

fn as_json(found: &DoctorReport) -> Value {
    let mirrored = found.mirrors.as_ref().map(|mirrored| {
        let source = |(at, has): &(String, Finding)| json!({ "at": at, "has": finding(has) });
        json!({ "entry": mirrored.entry, "sources": mirrored.sources.iter().map(source).collect::<Vec<_>>() })
    });
    json!({
        "registry": found.url,
        "way": found.connection,
        "mirrors": mirrored,
        "asks": found.auth_scheme,
        "looked": found.login_lookup.iter().map(look).collect::<Vec<_>>(),
        "login": finding(&found.login),
        "pull": finding(&found.pull),
        "push": finding(&found.push),
        "mount": finding(&found.mount),
        "referrers": finding(&found.referrers),
    })
}

fn look(look: &LookupStep) -> Value {
    let place = look.place.replace('`', "");
    match &look.result {
        LookupResult::Absent => json!({ "place": place, "found": "absent" }),
        LookupResult::NoLogin => json!({ "place": place, "found": "nothing" }),
        LookupResult::HelperWithoutLogin { helper } => json!({ "place": place, "found": "nothing", "helper": helper }),
        LookupResult::Login { key, helper, kind } => {
            json!({ "place": place, "found": "login", "key": key, "helper": helper, "kind": kind })
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
        Finding::Unknown(why) => format!("not known: {why}"),
        Finding::Failed(error) => format!("fails: {}", chain(error)),
    }
}
