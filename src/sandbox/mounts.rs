//! The root filesystem of a sandbox in namespaces, and all that is mounted in it.

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
use super::protocol::{At, StageError, Step};
use super::spec::{Bind, Root, Spec};
use super::stage::fd_path;

const DIR: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
const QUIET: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID.union(MountAttrFlags::MOUNT_ATTR_NODEV);

/// Mounts the root somewhere in this mount namespace, and everything in it.
pub(super) fn build(order: &Spec) -> Result<MountTarget, StageError> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).at(Step::Private, "/")?;
    let at = match &order.root {
        Root::Overlay { lowers, upper, work } => overlay(lowers, upper, work)?,
        Root::Plain { dir } | Root::Chroot { dir } => {
            mount_bind(dir, dir).at(Step::Root, dir.to_string_lossy())?;
            dir.clone()
        }
    };
    let root = open(&at, DIR, Mode::empty()).at(Step::Root, at.to_string_lossy())?;
    restrict(&root, MountFlags::NOSUID | MountFlags::NODEV).at(Step::Root, at.to_string_lossy())?;
    let mut place = MountTarget::new(root);
    for mount in plan(order) {
        put(&mut place, &mount)?;
    }
    Ok(place)
}

/// Mounts the overlay and gives its path. Volatile, because otherwise unmounting it flushes the whole file system that
/// `upper` is on.
///
/// The kernel takes one page of options, and 256 bytes of one of them through `fsconfig`: many layers with long names
/// do not fit. So they get short names: symbolic links in a tmpfs over `work`, which becomes the working directory.
fn overlay(lowers: &[PathBuf], upper: &Path, work: &Path) -> Result<PathBuf, StageError> {
    let name = || work.to_string_lossy();
    clear(work);
    let below = open(work, DIR, Mode::empty()).at(Step::Root, name())?;
    mount("tmpfs", work, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, c"mode=700,size=16m")
        .at(Step::Tmpfs, name())?;
    chdir(work).at(Step::Root, name())?;
    for (number, lower) in lowers.iter().enumerate() {
        symlink(lower, number.to_string()).at(Step::Root, lower.to_string_lossy())?;
    }
    symlink(upper, "u").at(Step::Root, upper.to_string_lossy())?;
    symlink(fd_path(&below), "w").at(Step::Root, name())?;
    fs::create_dir("root").at(Step::Root, name())?;
    let numbers: Vec<String> = (0..lowers.len()).map(|number| number.to_string()).collect();
    let options = format!("lowerdir={},upperdir=u,workdir=w,userxattr,volatile", numbers.join(":"));
    let options = CString::new(options).map_err(|_| Errno::INVAL).at(Step::Overlay, name())?;
    if let Err(error) = mount("overlay", "root", "overlay", MountFlags::NOSUID | MountFlags::NODEV, &*options) {
        let absent = lowers.iter().map(PathBuf::as_path).chain([upper]).find(|dir| !dir.is_dir());
        let on = absent.unwrap_or(upper).to_string_lossy();
        return Err(error).at(if absent.is_some() { Step::Root } else { Step::Overlay }, on);
    }
    Ok(work.join("root"))
}

/// Removes what the kernel leaves in an overlay's `work`: directories that not even their owner may enter, among them
/// the mark of a volatile mount, which forbids the next one. If it cannot, the next mount says so.
pub(super) fn clear(work: &Path) {
    for left in ["work", "work/incompat", "work/incompat/volatile", "index"].map(|name| work.join(name)) {
        if left.is_dir() {
            drop(fs::set_permissions(&left, fs::Permissions::from_mode(0o700)));
        }
    }
    for left in ["work", "index"] {
        drop(fs::remove_dir_all(work.join(left)));
    }
}

fn put(place: &mut MountTarget, mount: &Mount<'_>) -> Result<(), StageError> {
    match *mount {
        Mount::Tmpfs { at, mode, size } => {
            let onto = if at == "/dev" { place.real_dir(at)? } else { place.dir(at)? };
            tmpfs(mode, size).and_then(|tmpfs| attach(&tmpfs, &onto)).at(Step::Tmpfs, at)
        }
        Mount::Device(name) => {
            let host = format!("/dev/{name}");
            let onto = place.file(&host)?;
            copy_mount(CWD, &host).and_then(|node| attach(&node, &onto)).at(Step::Device, host)
        }
        Mount::Devpts => {
            let onto = place.dir("/dev/pts")?;
            devpts().and_then(|devpts| attach(&devpts, &onto)).at(Step::Device, "/dev/pts")
        }
        Mount::Link(name, target) => {
            let dev = place.dir("/dev")?;
            symlinkat(target, &dev, name).at(Step::Device, format!("/dev/{name}"))
        }
        Mount::Proc => {
            let onto = place.real_dir("/proc")?;
            proc().and_then(|proc| attach(&proc, &onto)).at(Step::Proc, "/proc")
        }
        Mount::Mask(name) => over_proc(place, name, mask),
        Mount::ReadOnly(name) => over_proc(place, name, |found| copy_mount(found, "")),
        Mount::Content { at, content } => supply(place, at, content),
        Mount::Bind(bind) => bind_in(place, bind),
    }
}

fn new(kind: &str, options: &[(&str, Option<&str>)], attributes: MountAttrFlags) -> rustix::io::Result<OwnedFd> {
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

fn tmpfs(mode: &str, size: Option<&str>) -> rustix::io::Result<OwnedFd> {
    let mut options = vec![("mode", Some(mode))];
    options.extend(size.map(|size| ("size", Some(size))));
    new("tmpfs", &options, QUIET)
}

fn devpts() -> rustix::io::Result<OwnedFd> {
    let options = [("newinstance", None), ("ptmxmode", Some("0666")), ("mode", Some("0620"))];
    new("devpts", &options, MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC)
}

fn proc() -> rustix::io::Result<OwnedFd> {
    new("proc", &[], QUIET | MountAttrFlags::MOUNT_ATTR_NOEXEC)
}

fn mask(found: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    if FileType::from_raw_mode(fstat(found)?.st_mode) == FileType::Directory {
        new("tmpfs", &[("mode", Some("755")), ("size", Some("4k"))], QUIET | MountAttrFlags::MOUNT_ATTR_RDONLY)
    } else {
        copy_mount(CWD, "/dev/null")
    }
}

/// Covers something in `/proc`, read-only, if the kernel has it.
fn over_proc(
    place: &MountTarget,
    name: &str,
    cover: fn(&OwnedFd) -> rustix::io::Result<OwnedFd>,
) -> Result<(), StageError> {
    let path = format!("/proc/{name}");
    let Ok(found) = place.find(&path) else { return Ok(()) };
    let covered = || -> rustix::io::Result<()> {
        attach(&cover(&found)?, &found)?;
        restrict(&place.find(&path)?, MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NOEXEC)
    };
    covered().at(Step::Mask, path)
}

/// A file of ours, read-only over the image's. Its inode is in the `/dev` tmpfs, without a name there.
fn supply(place: &mut MountTarget, at: &str, content: &str) -> Result<(), StageError> {
    let onto = place.file(at)?;
    let dev = place.find("/dev").at(Step::File, at)?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = openat(&dev, ".supplied", flags, Mode::from_raw_mode(0o644)).at(Step::File, at)?;
    fs::File::from(file).write_all(content.as_bytes()).at(Step::File, at)?;
    let bound = || -> rustix::io::Result<()> {
        attach(&copy_mount(&dev, ".supplied")?, &onto)?;
        unlinkat(&dev, ".supplied", AtFlags::empty())?;
        restrict(&place.find(at)?, MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV)
    };
    bound().at(Step::File, at)
}

fn bind_in(place: &mut MountTarget, bind: &Bind) -> Result<(), StageError> {
    let name = bind.source.to_string_lossy();
    let source = open(&bind.source, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).at(Step::Bind, &name)?;
    let is_dir = FileType::from_raw_mode(fstat(&source).at(Step::Bind, &name)?.st_mode) == FileType::Directory;
    let onto = if is_dir { place.dir(&bind.target)? } else { place.file(&bind.target)? };
    let more = if bind.read_only { MountFlags::RDONLY } else { MountFlags::empty() };
    let bound = || -> rustix::io::Result<()> {
        attach(&copy_mount(&source, "")?, &onto)?;
        restrict(&place.find(&bind.target)?, more | MountFlags::NOSUID | MountFlags::NODEV)
    };
    bound().at(Step::Bind, name)
}
