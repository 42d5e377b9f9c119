//! Builds tars byte by byte, and prints trees as text. The fuzz targets use it too.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::XattrFlags;

/// A tar that is being written.
#[derive(Default)]
pub(crate) struct TarBytes(pub(crate) Vec<u8>);

/// The fields of one header. The default is a regular file, 0644, owned by root.
#[derive(Clone)]
pub(crate) struct Fields<'a> {
    pub(crate) flag: u8,
    pub(crate) name: &'a [u8],
    pub(crate) link: &'a [u8],
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    pub(crate) size: Option<u64>,
    pub(crate) device: (u32, u32),
}

impl Default for Fields<'_> {
    fn default() -> Self {
        Self { flag: b'0', name: b"", link: b"", mode: 0o644, uid: 0, gid: 0, size: None, device: (0, 0) }
    }
}

impl TarBytes {
    pub(crate) fn entry(&mut self, fields: &Fields<'_>, body: &[u8]) -> &mut Self {
        self.raw(fields, body, |_| {})
    }

    /// An entry whose header `change` modifies before its checksum is computed.
    pub(crate) fn raw(&mut self, fields: &Fields<'_>, body: &[u8], change: impl Fn(&mut tar::Header)) -> &mut Self {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..fields.name.len()].copy_from_slice(fields.name);
        header.as_old_mut().linkname[..fields.link.len()].copy_from_slice(fields.link);
        header.as_old_mut().linkflag = [fields.flag];
        header.set_mode(fields.mode);
        header.set_uid(fields.uid);
        header.set_gid(fields.gid);
        header.set_size(fields.size.unwrap_or(body.len() as u64));
        header.set_mtime(1_700_000_000);
        header.set_device_major(fields.device.0).unwrap();
        header.set_device_minor(fields.device.1).unwrap();
        change(&mut header);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.body(body)
    }

    pub(crate) fn body(&mut self, body: &[u8]) -> &mut Self {
        self.0.extend_from_slice(body);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn file(&mut self, name: &str, body: &[u8]) -> &mut Self {
        self.entry(&Fields { name: name.as_bytes(), ..Fields::default() }, body)
    }

    pub(crate) fn dir(&mut self, name: &str) -> &mut Self {
        self.entry(&Fields { flag: b'5', name: name.as_bytes(), mode: 0o755, ..Fields::default() }, b"")
    }

    pub(crate) fn link(&mut self, flag: u8, name: &str, target: &str) -> &mut Self {
        self.entry(&Fields { flag, name: name.as_bytes(), link: target.as_bytes(), ..Fields::default() }, b"")
    }

    pub(crate) fn symlink(&mut self, name: &str, target: &str) -> &mut Self {
        self.link(b'2', name, target)
    }

    pub(crate) fn hardlink(&mut self, name: &str, target: &str) -> &mut Self {
        self.link(b'1', name, target)
    }

    pub(crate) fn extension(&mut self, flag: u8, body: &[u8]) -> &mut Self {
        self.entry(&Fields { flag, name: b"extension", ..Fields::default() }, body)
    }

    pub(crate) fn pax(&mut self, records: &[(&str, &[u8])]) -> &mut Self {
        let body: Vec<u8> = records.iter().flat_map(|(key, value)| record(key, value)).collect();
        self.extension(b'x', &body)
    }

    /// The tar so far, without its end.
    pub(crate) fn take(&mut self) -> Self {
        std::mem::take(self)
    }

    /// The tar, ended by two zero blocks.
    pub(crate) fn end(&mut self) -> Vec<u8> {
        let mut tar = std::mem::take(&mut self.0);
        tar.resize(tar.len() + 1024, 0);
        tar
    }
}

pub(crate) fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let length = (rest..rest + 9).find(|length| *length == rest + length.to_string().len()).unwrap();
    [length.to_string().as_bytes(), b" ", key.as_bytes(), b"=", value, b"\n"].concat()
}

/// Every entry below `root` as one line: kind, mode, name, and content, target or size.
pub(crate) fn listing(root: &Path) -> String {
    let mut text = String::new();
    let mut pending = vec![root.to_path_buf()];
    while let Some(dir) = pending.pop() {
        let mut entries: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        for path in entries {
            let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().escape_ascii().to_string();
            let stat = fs::symlink_metadata(&path).unwrap();
            let what = match stat.mode() & 0o170_000 {
                0o040_000 => {
                    pending.push(path.clone());
                    if is_opaque(&path) { "opaque".to_owned() } else { String::new() }
                }
                0o120_000 => format!("-> {}", fs::read_link(&path).unwrap().display()),
                0o100_000 if stat.len() > 64 => format!("{} bytes", stat.len()),
                0o100_000 => fs::read(&path).unwrap().escape_ascii().to_string(),
                0o020_000 => format!("device {}", stat.rdev()),
                _ => String::new(),
            };
            writeln!(text, "{:o} {name} {what}", stat.mode()).unwrap();
        }
    }
    let mut lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    lines.sort_by_key(|line| line.split_once(' ').unwrap().1);
    lines.join("\n")
}

/// Everything that an attacker could change in `dir`, which is outside the root.
pub(crate) fn canary_state(dir: &Path) -> String {
    let mut text = listing(dir);
    for path in [dir.to_path_buf(), dir.join("secret"), dir.join("dir"), dir.join("dir/inner")] {
        let stat = fs::symlink_metadata(&path).unwrap();
        write!(text, "\n{} {} {} {:?}", stat.mode(), stat.nlink(), stat.uid(), stat.modified().unwrap()).unwrap();
    }
    text
}

pub(crate) fn make_canary(dir: &Path) {
    fs::create_dir_all(dir.join("dir")).unwrap();
    fs::write(dir.join("secret"), "secret").unwrap();
    fs::write(dir.join("dir/inner"), "inner").unwrap();
}

pub(crate) fn is_opaque(dir: &Path) -> bool {
    let mut value = [0_u8; 8];
    matches!(rustix::fs::lgetxattr(dir, "user.overlay.opaque", &mut value[..]), Ok(1) if value[0] == b'y')
}

pub(crate) fn make_opaque(dir: &Path) {
    rustix::fs::lsetxattr(dir, "user.overlay.opaque", b"y", XattrFlags::empty()).unwrap();
}

pub(crate) fn make_whiteout(path: &Path) {
    use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
    mknodat(CWD, path, FileType::CharacterDevice, Mode::empty(), makedev(0, 0)).unwrap();
}
