//! The command `phial`. Processes that it starts of itself begin with a special first argument.

use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    if let Some(exit) = phial::sandbox::entry(&args) {
        return exit;
    }
    phial::host::report_large_files();
    if args.get(1).is_some_and(|name| name == phial::runtime::userns_helper::NAME) {
        return phial::runtime::userns_helper::entry();
    }
    if args.get(1).is_some_and(|name| name == phial::build::rebuild_check::NAME) {
        return phial::build::rebuild_check::entry(&args[2..]);
    }
    phial::cli::main()
}
