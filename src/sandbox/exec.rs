//! Starts the command in its root, and finds out why it does not start. It reads the few fields of ELF that name
//! the loader itself: no crate for all of ELF belongs in the process that becomes the command.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::libc;
use rustix::fs::{StatVfsMountFlags, statvfs};

use super::protocol::{Obstacle, StageError};
use super::spec::Spec;
use crate::image::DEFAULT_PATH;

/// Starts the command of a spec in the current root and working directory, and returns its process id.
pub(super) fn start(spec: &Spec, stdin: Option<File>) -> Result<i32, StageError> {
    start_as(spec, stdin, None)
}

/// As [`start`], as another user and group if they are given; that needs real root.
pub(super) fn start_as(spec: &Spec, stdin: Option<File>, user: Option<(u32, u32)>) -> Result<i32, StageError> {
    let name = spec.argv.first().map_or("", String::as_str);
    let path = spec.env.get("PATH").map_or(DEFAULT_PATH, String::as_str);
    let program = find(name, path).ok_or_else(|| StageError::Missing { command: name.to_owned() })?;
    let mut command = Command::new(&program);
    // A process group of its own: `kill 0` in the command must not reach this process.
    command.arg0(name).args(spec.argv.iter().skip(1)).env_clear().envs(&spec.env).process_group(0);
    if let Some(stdin) = stdin {
        command.stdin(stdin);
    }
    if let Some((uid, gid)) = user {
        command.uid(uid).gid(gid);
    }
    match command.spawn() {
        Ok(child) => Ok(i32::try_from(child.id()).unwrap_or(0)),
        Err(error) => Err(diagnose(name, &program, &error)),
    }
}

/// The program of a command, as execvp(3) searches for it.
fn find(name: &str, path: &str) -> Option<PathBuf> {
    if name.contains('/') {
        return Some(PathBuf::from(name)).filter(|program| fs::symlink_metadata(program).is_ok());
    }
    let executable = |program: &PathBuf| {
        fs::metadata(program).is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
    };
    path.split(':').filter(|_| !name.is_empty()).map(|dir| Path::new(dir).join(name)).find(executable)
}

/// How many interpreters of interpreters are looked at; the kernel follows as many.
const MAX_INTERPRETERS: usize = 5;

fn diagnose(name: &str, first: &Path, error: &io::Error) -> StageError {
    let command = name.to_owned();
    let errno = error.raw_os_error().unwrap_or(0);
    let unstartable = |obstacle| StageError::Unstartable { command: command.clone(), errno, obstacle };
    if errno == libc::ENOEXEC && begins_with_a_mark(first) {
        return unstartable(Some(Obstacle::ByteOrderMark));
    }
    if !matches!(errno, libc::ENOENT | libc::EACCES) {
        return unstartable(None);
    }
    if errno == libc::EACCES && statvfs(first).is_ok_and(|stat| stat.f_flag.contains(StatVfsMountFlags::NOEXEC)) {
        return unstartable(Some(Obstacle::NoExecMount));
    }
    let mut program = first.to_owned();
    for _ in 0..MAX_INTERPRETERS {
        let is_executable = |data: &fs::Metadata| data.is_file() && data.permissions().mode() & 0o111 != 0;
        if errno == libc::EACCES && fs::metadata(&program).is_ok_and(|data| !is_executable(&data)) {
            return unstartable(Some(Obstacle::NotExecutable(program.to_string_lossy().into_owned())));
        }
        let Some(interpreter) = interpreter(&program) else { break };
        if interpreter.ends_with('\r') {
            return unstartable(Some(Obstacle::CarriageReturn));
        }
        if fs::metadata(&interpreter).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            return StageError::Interpreter { command, interpreter };
        }
        program = interpreter.into();
    }
    // What is there and is reported as missing needs something else that is missing.
    let is_missing = errno == libc::ENOENT && fs::metadata(first).is_err();
    if is_missing { StageError::Missing { command } } else { unstartable(None) }
}

/// Whether a text begins with a byte order mark, as editors of Windows write it. The kernel then sees no `#!`.
fn begins_with_a_mark(program: &Path) -> bool {
    let mut head = Vec::new();
    File::open(program).is_ok_and(|file| file.take(3).read_to_end(&mut head).is_ok() && head == b"\xef\xbb\xbf")
}

/// The interpreter named in the first line of a script, or the loader named in the header of an ELF file.
fn interpreter(program: &Path) -> Option<String> {
    let mut head = Vec::new();
    File::open(program).ok()?.take(1 << 16).read_to_end(&mut head).ok()?;
    if let Some(line) = head.strip_prefix(b"#!") {
        let line = line.split(|byte| *byte == b'\n').next()?;
        let text = String::from_utf8_lossy(line).into_owned();
        return text.split([' ', '\t']).find(|word| !word.is_empty()).map(str::to_owned);
    }
    head.starts_with(b"\x7fELF\x02\x01").then(|| loader(&head)).flatten()
}

/// The segment `PT_INTERP` of a 64-bit little-endian file (elf(5)). A few lines, in place of a crate that reads all of
/// ELF.
fn loader(elf: &[u8]) -> Option<String> {
    let number = |at: usize, size: usize| {
        let bytes = elf.get(at..at.checked_add(size)?)?;
        usize::try_from(bytes.iter().rev().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte))).ok()
    };
    let (table, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    (0..count).find_map(|index| {
        let header = table.checked_add(index.checked_mul(size)?)?;
        if number(header, 4)? != 3 {
            return None;
        }
        let at = number(header + 8, 8)?;
        let text = elf.get(at..at.checked_add(number(header + 32, 8)?)?)?;
        Some(String::from_utf8_lossy(text).trim_end_matches('\0').to_owned())
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_interpreter_of_a_script_is_the_first_word_of_its_first_line() {
        let dir = tempfile::tempdir().unwrap();
        for (text, expected) in [
            ("#! /no/such/sh -e\necho", Some("/no/such/sh")),
            ("#!/bin/sh", Some("/bin/sh")),
            ("#!/bin/sh\r\n", Some("/bin/sh\r")),
            ("#!\n", None),
            ("echo", None),
            ("\x7fELF", None),
        ] {
            let script = dir.path().join("script");
            fs::write(&script, text).unwrap();
            assert_eq!(interpreter(&script).as_deref(), expected, "{text:?}");
        }
    }

    #[test]
    fn the_loader_of_a_dynamic_program_is_found() {
        let loader = interpreter(Path::new("/proc/self/exe"));
        assert!(loader.as_deref().is_some_and(|path| path.contains("ld")), "{loader:?}");
    }

    #[test]
    fn a_truncated_program_has_no_loader() {
        let whole = fs::read("/proc/self/exe").unwrap();
        for length in [6, 40, 64, 100] {
            assert_eq!(loader(&whole[..length]), None);
        }
    }

    #[test]
    fn a_name_is_looked_for_in_the_path_and_must_be_executable() {
        let dir = tempfile::tempdir().unwrap();
        let (plain, tool) = (dir.path().join("plain"), dir.path().join("tool"));
        fs::write(&plain, "").unwrap();
        fs::write(&tool, "").unwrap();
        fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
        let path = format!("/nowhere:{}", dir.path().display());
        assert_eq!(find("tool", &path), Some(tool));
        assert_eq!(find("plain", &path), None);
        assert_eq!(find("", &path), None);
    }
}
