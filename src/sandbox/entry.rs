//! The stages of the sandbox as `main` finds them: this program, executed again with the name of a stage as its
//! argument.

use std::ffi::OsString;
use std::process::ExitCode;

use super::protocol;
use super::stage::{self, Stage};
use super::stage1;
use crate::error::ExitKind;

/// Runs a stage of the sandbox if the arguments of the process name one. Must be the first thing in `main`, while the
/// process has one thread and has read nothing. `None` if the arguments name no stage.
///
/// The names of stages begin with `__sandbox-` and are no interface for users.
pub fn entry(args: &[OsString]) -> Option<ExitCode> {
    let stage: Stage = match args.get(1)?.to_str()? {
        protocol::STAGE1 => stage1::run,
        protocol::USER_NAMESPACE => stage1::exec_in_user_namespace,
        protocol::NETWORK => stage1::hold_network,
        _ => return None,
    };
    Some(if stage::run(stage).is_ok() { ExitCode::SUCCESS } else { ExitKind::Internal.into() })
}
