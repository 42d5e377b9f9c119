//! `phial test`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use phial_layers::Digest;
use serde_json::json;

use super::ui::Ui;
use super::{Common, ExitResult, IsolationArg};
use crate::app_test::{self, TestOutcome, TestRequest};
use crate::attest::{CommandResult, ImageLocation};
use crate::config::TestFlags;
use crate::context::Context;
use crate::error::ExitKind;
use crate::tree::OutputPath;

/// Run an app's tests inside its image and record the result
#[derive(Args)]
pub(super) struct TestArgs {
    /// Image to test: `registry/repo[:tag][@digest]`, `oci:DIR[:tag]` or `oci-archive:FILE[:tag]`
    image: String,
    /// Command and arguments [default: the test commands of the image's `phial.toml`]
    #[arg(last = true)]
    command: Vec<String>,
    /// Run only the test command with this name; may be repeated
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Set a variable: `NAME=value`, or `NAME` to pass on its current value; may be repeated
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Let the step that compiles dependencies see this variable of yours; may be repeated
    #[arg(long, value_name = "NAME")]
    pass: Vec<String>,
    /// Run one part of the tests, such as `1/4` [default: from the parallel job variables of the CI]
    #[arg(long, value_name = "NTH/OF")]
    partition: Option<String>,
    /// Time limit for each command: seconds, or `90s`, `10m`, `1h` [default: 1h]
    #[arg(long, value_name = "TIME")]
    timeout: Option<String>,
    /// Where a report of the tests goes.
    #[arg(long, value_name = "FILE", help = "Write a JUnit report to this file")]
    junit: Option<PathBuf>,
    /// Copy logs and the files of `test.artifacts` to this directory
    #[arg(long, value_name = "DIR")]
    artifacts: Option<PathBuf>,
    /// Sandbox isolation
    #[arg(long, value_enum, default_value_t = IsolationArg::Auto)]
    isolation: IsolationArg,
    /// Settings file to use instead of the image's `phial.toml`
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Compile dependencies even if that result is cached
    #[arg(long)]
    no_cache: bool,
    /// Do not store a test record
    #[arg(long)]
    no_record: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) common: Common,
}

pub(super) fn test(args: &TestArgs, context: &Context<'_>, ui: &Ui) -> ExitResult {
    let at = |path: &Option<PathBuf>| path.as_ref().map(|path| OutputPath::new(path, &context.host.cwd));
    let request = TestRequest {
        image: args.image.clone(),
        flags: TestFlags { command: args.command.clone(), only: args.only.clone(), timeout: args.timeout.clone() },
        config: args.config.clone(),
        env: args.env.clone(),
        pass: args.pass.clone(),
        partition: args.partition.clone(),
        isolation: args.isolation.into(),
        junit: at(&args.junit),
        artifacts: at(&args.artifacts),
        no_cache: args.no_cache,
    };
    request.junit.as_ref().map_or(Ok(()), OutputPath::check_file)?;
    request.artifacts.as_ref().map_or(Ok(()), OutputPath::check_directory)?;
    if let (false, Ok(image)) = (args.no_record, args.image.parse()) {
        ImageLocation::of(&image).check_links(&context.host.cwd)?;
    }
    let tested = app_test::test(&request, context)?;
    let record = if args.no_record { None } else { app_test::attach_record(&tested, context)? };
    let digest = &tested.run.image;
    let text = tested.image.to_string();
    let location = text.trim_end_matches(&format!("@{digest}"));
    if args.json {
        ui.json(&as_json(&tested, location, record.as_ref()))?;
    } else {
        ui.data(&format!("{location}@{digest}"))?;
    }
    if let Some(error) = tested.service_error {
        return Err(error);
    }
    if tested.run.passed() {
        return tested.output_error.map_or(Ok(ExitCode::SUCCESS), Err);
    }
    if let Some(error) = &tested.output_error {
        ui.error(error);
    }
    let failed = tested.run.commands.iter().filter(|command| !command.passed);
    let failed: Vec<String> = failed.map(|command| format!("`{}` ({})", command.name, command.outcome)).collect();
    ui.error_text(&format!("tests failed: {}", failed.join(", ")), None);
    Ok(ExitKind::Failed.into())
}

fn as_json(tested: &TestOutcome, place: &str, record: Option<&Digest>) -> String {
    let command = |command: &CommandResult| {
        let counts = command
            .counts
            .map(|counts| json!({ "tests": counts.tests, "failures": counts.failures, "skipped": counts.skipped }));
        json!({
            "name": command.name,
            "passed": command.passed,
            "ended": command.outcome,
            "counts": counts,
            "millis": command.millis,
        })
    };
    json!({
        "image": place,
        "digest": tested.run.image,
        "passed": tested.run.passed(),
        "partition": tested.run.partition.map(|partition| partition.to_string()),
        "commands": tested.run.commands.iter().map(command).collect::<Vec<_>>(),
        "record": record,
    })
    .to_string()
}
