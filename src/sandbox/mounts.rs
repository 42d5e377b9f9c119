//! Mounts the root filesystem of a sandbox in namespaces, and everything in it ([`plan`]).

use std::ffi::CString;
use std::fs;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, fstat, open, openat, symlinkat, unlinkat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, mount, mount_bind, mount_change,
};
use rustix::process::chdir;

use super::mount_target::{MountTarget, attach, copy_mount, restrict};
use super::plan::{Mount, plan};
use super::protocol::{At, SetupStep, StageError};
use super::spec::{Bind, Root, Spec};
use super::stage::fd_path;

const DIR: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
const QUIET: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID.union(MountAttrFlags::MOUNT_ATTR_NODEV);

/// Mounts the root in this mount namespace, and everything in it.
pub(super) fn build(spec: &Spec) -> Result<MountTarget, StageError> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).at(SetupStep::Private, "/")?;
    let at = match &spec.root {
        Root::Overlay { lowers, upper, work } => overlay(lowers, upper, work)?,
        Root::Plain { dir } | Root::Chroot { dir } => {
            mount_bind(dir, dir).at(SetupStep::Root, dir.to_string_lossy())?;
            dir.clone()
        }
    };
    let root = open(&at, DIR, Mode::empty()).at(SetupStep::Root, at.to_string_lossy())?;
    restrict(&root, MountFlags::NOSUID | MountFlags::NODEV).at(SetupStep::Root, at.to_string_lossy())?;
    let mut target = MountTarget::new(root);
    for mount in plan(spec) {
        apply(&mut target, &mount)?;
    }
    Ok(target)
}

/// Tries the kinds of mounts that [`build`] makes, in a mount namespace that is not used for anything else.
pub(super) fn try_at(dir: &Path) -> Result<(), StageError> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).at(SetupStep::Private, "/")?;
    let name = || dir.to_string_lossy();
    mount_bind(dir, dir).at(SetupStep::Root, name())?;
    let onto = open(dir, DIR, Mode::empty()).at(SetupStep::Root, name())?;
    proc().at(SetupStep::Proc, "/proc")?;
    copy_mount(CWD, "/dev/null").at(SetupStep::Device, "/dev/null")?;
    tmpfs("755", None).and_then(|tmpfs| attach(&tmpfs, &onto)).at(SetupStep::Tmpfs, name())
}

/// Mounts the overlay and returns its path. The mount is volatile, because otherwise unmounting it syncs the whole file
/// system of `upper`.
///
/// mount(2) takes one page of options, and fsconfig(2) 256 bytes for each: the paths of many layers do not fit. So they
/// get short names, symbolic links in a tmpfs over `work`, which becomes the working directory.
fn overlay(lowers: &[PathBuf], upper: &Path, work: &Path) -> Result<PathBuf, StageError> {
    let name = || work.to_string_lossy();
    clear_work_dir(work);
    let below = open(work, DIR, Mode::empty()).at(SetupStep::Root, name())?;
    mount("tmpfs", work, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, c"mode=700,size=16m")
        .at(SetupStep::Tmpfs, name())?;
    chdir(work).at(SetupStep::Root, name())?;
    for (number, lower) in lowers.iter().enumerate() {
        symlink(lower, number.to_string()).at(SetupStep::Root, lower.to_string_lossy())?;
    }
    symlink(upper, "u").at(SetupStep::Root, upper.to_string_lossy())?;
    symlink(fd_path(&below), "w").at(SetupStep::Root, name())?;
    fs::create_dir("root").at(SetupStep::Root, name())?;
    let numbers: Vec<String> = (0..lowers.len()).map(|number| number.to_string()).collect();
    let options = format!("lowerdir={},upperdir=u,workdir=w,userxattr,volatile", numbers.join(":"));
    let options = CString::new(options).map_err(|_| Errno::INVAL).at(SetupStep::Overlay, name())?;
    if let Err(error) = mount("overlay", "root", "overlay", MountFlags::NOSUID | MountFlags::NODEV, &*options) {
        let absent = lowers.iter().map(PathBuf::as_path).chain([upper]).find(|dir| !dir.is_dir());
        let on = absent.unwrap_or(upper).to_string_lossy();
        return Err(error).at(if absent.is_some() { SetupStep::Root } else { SetupStep::Overlay }, on);
    }
    Ok(work.join("root"))
}

/// Removes what the kernel leaves in an overlay's `work`: directories that are closed even to their owner, and the
/// marker of a volatile mount, which prevents the next one. If that fails, the next mount fails.
pub(super) fn clear_work_dir(work: &Path) {
    for left in ["work", "work/incompat", "work/incompat/volatile", "index"].map(|name| work.join(name)) {
        if left.is_dir() {
            drop(fs::set_permissions(&left, fs::Permissions::from_mode(0o700)));
        }
    }
    for left in ["work", "index"] {
        drop(fs::remove_dir_all(work.join(left)));
    }
}

fn apply(target: &mut MountTarget, mount: &Mount<'_>) -> Result<(), StageError> {
    match *mount {
        Mount::Tmpfs { at, mode, size } => {
            let onto = if at == "/dev" { target.real_dir(at)? } else { target.dir(at)? };
            tmpfs(mode, size).and_then(|tmpfs| attach(&tmpfs, &onto)).at(SetupStep::Tmpfs, at)
        }
        Mount::Dir { at, mode } => {
            let before = target.made.len();
            let dir = target.dir(at)?;
            let mode = fs::Permissions::from_mode(mode);
            if target.made.len() > before {
                fs::set_permissions(fd_path(&dir), mode).at(SetupStep::MountPoint, at)
            } else {
                Ok(())
            }
        }
        Mount::Device(name) => {
            let host = format!("/dev/{name}");
            let onto = target.file(&host)?;
            copy_mount(CWD, &host).and_then(|node| attach(&node, &onto)).at(SetupStep::Device, host)
        }
        Mount::Devpts => {
            let onto = target.dir("/dev/pts")?;
            devpts().and_then(|devpts| attach(&devpts, &onto)).at(SetupStep::Device, "/dev/pts")
        }
        Mount::Link(name, points_to) => {
            let dev = target.dir("/dev")?;
            symlinkat(points_to, &dev, name).at(SetupStep::Device, format!("/dev/{name}"))
        }
        Mount::Proc => {
            let onto = target.real_dir("/proc")?;
            proc().and_then(|proc| attach(&proc, &onto)).at(SetupStep::Proc, "/proc")
        }
        Mount::Mask(name) => over_proc(target, name, mask),
        Mount::ReadOnly(name) => over_proc(target, name, |entry| copy_mount(entry, "")),
        Mount::Content { at, content } => mount_content(target, at, content),
        Mount::Bind(bind) => mount_bind_at(target, bind),
    }
}

/// A detached mount of a new file system.
fn new_mount(kind: &str, options: &[(&str, Option<&str>)], attributes: MountAttrFlags) -> rustix::io::Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        match value {
            Some(value) => fsconfig_set_string(&context, *key, *value)?,
            None => fsconfig_set_flag(&context, *key)?,
        }
    }
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// A tmpfs of `size` bytes, and no more than the kernel gives without a size: half of the memory.
fn tmpfs(mode: &str, size: Option<u64>) -> rustix::io::Result<OwnedFd> {
    let memory = rustix::system::sysinfo();
    let half = memory.totalram.saturating_mul(memory.mem_unit.into()) / 2;
    let size = size.filter(|size| *size < half).map(|size| size.to_string());
    let mut options = vec![("mode", Some(mode))];
    options.extend(size.as_deref().map(|size| ("size", Some(size))));
    new_mount("tmpfs", &options, QUIET)
}

fn devpts() -> rustix::io::Result<OwnedFd> {
    let options = [("newinstance", None), ("ptmxmode", Some("0666")), ("mode", Some("0620"))];
    new_mount("devpts", &options, MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC)
}

fn proc() -> rustix::io::Result<OwnedFd> {
    new_mount("proc", &[], QUIET | MountAttrFlags::MOUNT_ATTR_NOEXEC)
}

fn mask(entry: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    if FileType::from_raw_mode(fstat(entry)?.st_mode) == FileType::Directory {
        new_mount("tmpfs", &[("mode", Some("755")), ("size", Some("4k"))], QUIET | MountAttrFlags::MOUNT_ATTR_RDONLY)
    } else {
        copy_mount(CWD, "/dev/null")
    }
}

/// Mounts `cover` read-only over an entry of `/proc`, if the kernel has that entry.
fn over_proc(
    target: &MountTarget,
    name: &str,
    cover: fn(&OwnedFd) -> rustix::io::Result<OwnedFd>,
) -> Result<(), StageError> {
    let path = format!("/proc/{name}");
    let Ok(entry) = target.find(&path) else { return Ok(()) };
    let covered = || -> rustix::io::Result<()> {
        attach(&cover(&entry)?, &entry)?;
        restrict(&target.find(&path)?, MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NOEXEC)
    };
    covered().at(SetupStep::Mask, path)
}

/// Mounts a new read-only file over one of the image. Its inode is in the tmpfs of `/dev`, without a name there.
fn mount_content(target: &mut MountTarget, at: &str, content: &str) -> Result<(), StageError> {
    let onto = target.file(at)?;
    let dev = target.find("/dev").at(SetupStep::File, at)?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = openat(&dev, ".supplied", flags, Mode::from_raw_mode(0o644)).at(SetupStep::File, at)?;
    fs::File::from(file).write_all(content.as_bytes()).at(SetupStep::File, at)?;
    let bound = || -> rustix::io::Result<()> {
        attach(&copy_mount(&dev, ".supplied")?, &onto)?;
        unlinkat(&dev, ".supplied", AtFlags::empty())?;
        restrict(&target.find(at)?, MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV)
    };
    bound().at(SetupStep::File, at)
}

fn mount_bind_at(target: &mut MountTarget, bind: &Bind) -> Result<(), StageError> {
    let name = bind.source.to_string_lossy();
    let source = open(&bind.source, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).at(SetupStep::Bind, &name)?;
    let is_dir = FileType::from_raw_mode(fstat(&source).at(SetupStep::Bind, &name)?.st_mode) == FileType::Directory;
    let onto = if is_dir { target.dir(&bind.target)? } else { target.file(&bind.target)? };
    let more = if bind.read_only { MountFlags::RDONLY } else { MountFlags::empty() };
    let bound = || -> rustix::io::Result<()> {
        attach(&copy_mount(&source, "")?, &onto)?;
        restrict(&target.find(&bind.target)?, more | MountFlags::NOSUID | MountFlags::NODEV)
    };
    bound().at(SetupStep::Bind, name)
}
