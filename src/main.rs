//! The command: everything it does is in the library.

use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    phial::sandbox::entry(&args).unwrap_or(ExitCode::from(2))
}
