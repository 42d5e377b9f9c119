//! `phial doctor`.

use std::process::ExitCode;

use clap::Args;

use super::mouth::Mouth;
use super::{Common, Outcome};
use crate::image::RegistryRef;
use crate::pipeline::{BuildError, World};
use crate::registry::{Examination, Finding};

/// Say what works here and what does not
#[derive(Args)]
pub(super) struct DoctorArgs {
    /// The repository to look at, as `registry/repo[:tag]`: which login fits, and whether pull, push, mount and referrers
    /// work; nothing is left in it
    #[arg(long, value_name = "REF", required = true)]
    registry: String,
    #[command(flatten)]
    pub(super) common: Common,
}

pub(super) fn doctor(args: &DoctorArgs, world: &World<'_>, mouth: &Mouth) -> Outcome {
    let reference: RegistryRef = args.registry.parse()?;
    let found = world.client.examine(&reference)?;
    for line in lines(&found) {
        Mouth::data(&line).map_err(BuildError::Stdout)?;
    }
    let Some(error) = found.first_failure() else { return Ok(ExitCode::SUCCESS) };
    if let Some(hint) = error.hint() {
        mouth.say(&format!("hint: {hint}"));
    }
    Ok(ExitCode::from(error.exit_code()))
}

fn lines(found: &Examination) -> Vec<String> {
    let mut lines = vec![format!("registry    `{}`", found.at)];
    lines.extend(found.way.iter().map(|way| format!("            {way}")));
    if let Some(mirrored) = &found.mirrored {
        lines.push(format!("            {}", mirrored.entry));
        lines.extend(mirrored.sources.iter().map(|(at, finding)| format!("pulled from `{at}`: {}", text(finding))));
    }
    let asks = found.asks.as_deref().unwrap_or("for no login so far");
    lines.push(format!("asks        {asks}"));
    let mut name = "login";
    for look in &found.looks {
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

fn text(finding: &Finding) -> String {
    match finding {
        Finding::Works(how) => format!("works: {how}"),
        Finding::Not(why) => format!("no: {why}"),
        Finding::Unknown(why) => format!("not known: {why}"),
        Finding::Failed(error) => format!("fails: {}", super::failure::chain(error)),
    }
}
