//! Certificates that one host wants or shows: `certs.d` as Docker and containers-certs.d(5) have it. `HOST[:PORT]/*.crt` are
//! certificates to trust for that host, `X.cert` with `X.key` is what one shows it.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use reqwest::{Certificate, Identity};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::error::RegistryError;
use super::network::quoted;
use crate::host::Host;

/// No file of certificates is larger.
const MAX_FILE: u64 = 4 << 20;

/// The folders, in the order of their weight.
#[derive(Clone, Debug, Default)]
pub(super) struct CertDirs(pub(super) Vec<PathBuf>);

/// What one folder holds for a host.
pub(super) struct HostCerts {
    /// The folder.
    pub(super) dir: PathBuf,
    pub(super) trusted: Vec<Certificate>,
    pub(super) own: Option<Identity>,
}

impl CertDirs {
    pub(super) fn from_host(host: &Host) -> Self {
        let config = host.var("XDG_CONFIG_HOME").map_or_else(|| host.home.join(".config"), PathBuf::from);
        let own = config.join("containers/certs.d");
        Self(vec![own, "/etc/containers/certs.d".into(), "/etc/docker/certs.d".into()])
    }

    /// What the first folder that knows the host has for it. `name` is `host[:port]`. A folder that may not be read counts
    /// as absent, as it does for others; a file in it that is broken is an error.
    pub(super) fn of(&self, name: &str) -> Result<Option<HostCerts>, RegistryError> {
        let others = match name {
            "registry-1.docker.io" => vec!["docker.io".to_owned()],
            bare if !bare.ends_with(|c: char| c.is_ascii_digit()) || !bare.contains(':') => vec![format!("{bare}:443")],
            _ => vec![],
        };
        let names = || std::iter::once(name).chain(others.iter().map(String::as_str));
        let found = self.0.iter().flat_map(|dir| names().map(|name| dir.join(name))).find_map(|dir| {
            let entries = fs::read_dir(&dir).ok()?;
            let mut files: Vec<PathBuf> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
            files.sort();
            Some((dir, files))
        });
        let Some((dir, files)) = found else { return Ok(None) };
        let mut certs = HostCerts { dir, trusted: Vec::new(), own: None };
        for path in files {
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("crt") => certs.trusted.extend(certificates(&path)?),
                // Of several pairs the first by name: which of them a host wants cannot be told before it is asked.
                Some("cert") if certs.own.is_none() => certs.own = Some(pair(&path)?),
                Some("key") if !path.with_extension("cert").exists() => {
                    return Err(bad(&path, "there is no `.cert` of the same name beside it"));
                }
                _ => {}
            }
        }
        Ok(Some(certs))
    }
}

fn bad(path: &Path, why: &str) -> RegistryError {
    RegistryError::Setting { place: quoted(path), why: why.into() }
}

/// The certificates to trust instead of the system's: `SSL_CERT_FILE`, and the files in the folders of `SSL_CERT_DIR`, as
/// OpenSSL and Go have them.
#[derive(Clone, Debug, Default)]
pub(super) struct Roots {
    file: Option<PathBuf>,
    dirs: Vec<PathBuf>,
}

impl Roots {
    pub(super) fn from_host(host: &Host) -> Self {
        let file = host.var("SSL_CERT_FILE").map(|path| host.cwd.join(path));
        let dirs = host.var("SSL_CERT_DIR").unwrap_or_default().split(':').filter(|dir| !dir.is_empty());
        Self { file, dirs: dirs.map(|dir| host.cwd.join(dir)).collect() }
    }

    /// The variables that name them; none if the system's certificates count.
    pub(super) fn shown(&self) -> Option<String> {
        let file = self.file.iter().map(|path| format!("{} of `SSL_CERT_FILE`", quoted(path)));
        let dirs = self.dirs.iter().map(|path| format!("{} of `SSL_CERT_DIR`", quoted(path)));
        Some(file.chain(dirs).collect::<Vec<_>>().join(", ")).filter(|text| !text.is_empty())
    }

    /// `None` if the system's certificates count. What is no certificate in a folder is passed over, and so is a folder that is
    /// not there; that nothing is left is an error, and so is a file without any.
    pub(super) fn read(&self) -> Result<Option<Vec<Certificate>>, RegistryError> {
        let Some(places) = self.shown() else { return Ok(None) };
        let of_file = self.file.as_deref().map(certificates).transpose();
        let mut found = match of_file {
            Err(RegistryError::Setting { why, .. }) => return Err(RegistryError::Setting { place: places, why }),
            of_file => of_file?.unwrap_or_default(),
        };
        let entries = self.dirs.iter().flat_map(fs::read_dir).flatten().filter_map(Result::ok);
        found.extend(entries.filter_map(|entry| certificates(&entry.path()).ok()).flatten());
        if found.is_empty() {
            return Err(RegistryError::Setting {
                place: places,
                why: "no file there is a certificate in PEM form".into(),
            });
        }
        Ok(Some(found))
    }
}

/// The certificates of a PEM file, at least one. Bundles hold all kinds: one that cannot be trusted, since it cannot be read, does
/// not take the others with it.
pub(super) fn certificates(path: &Path) -> Result<Vec<Certificate>, RegistryError> {
    let bytes = read(path)?;
    let read = CertificateDer::pem_slice_iter(&bytes).filter_map(Result::ok);
    let usable = read.filter(|der| RootCertStore::empty().add(der.clone()).is_ok());
    let found: Vec<Certificate> = usable.filter_map(|der| Certificate::from_der(&der).ok()).collect();
    if found.is_empty() { Err(bad(path, "it holds no certificate in PEM form")) } else { Ok(found) }
}

/// A client's certificate, and the key of the same name.
fn pair(path: &Path) -> Result<Identity, RegistryError> {
    let key = path.with_extension("key");
    if !key.exists() {
        return Err(bad(path, "there is no `.key` of the same name beside it"));
    }
    let mut both = read(path)?;
    both.push(b'\n');
    both.extend(read(&key)?);
    Identity::from_pem(&both).map_err(|_| bad(path, "it and its `.key` are no certificate and private key in PEM form"))
}

fn read(path: &Path) -> Result<Vec<u8>, RegistryError> {
    let broken = |error: std::io::Error| bad(path, &error.to_string());
    let size = fs::metadata(path).map_err(broken)?.len();
    if size > MAX_FILE {
        return Err(broken(ErrorKind::FileTooLarge.into()));
    }
    fs::read(path).map_err(broken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_folder_that_knows_the_host_counts_and_what_is_broken_in_it_is_named() {
        let home = tempfile::tempdir().unwrap();
        let dirs = CertDirs(vec![home.path().join("a"), home.path().join("b")]);
        let write = |name: &str| {
            let path = home.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "not a certificate").unwrap();
        };
        fs::create_dir_all(home.path().join("a/empty.example")).unwrap();
        for name in ["b/empty.example/ca.crt", "b/trust.example:443/ca.crt", "b/docker.io/x.key", "a/h:5000/x.cert"] {
            write(name);
        }
        for (name, said) in [
            ("unknown.example", None),
            ("trust.example:5000", None),
            ("h", None),
            ("trust.example", Some("ca.crt`: it holds no certificate")),
            ("registry-1.docker.io", Some("x.key`: there is no `.cert`")),
            ("h:5000", Some("x.cert`: there is no `.key`")),
        ] {
            match (dirs.of(name), said) {
                (Ok(None), None) => {}
                (Err(error), Some(said)) => assert!(error.to_string().contains(said), "{name}: {error}"),
                (other, _) => panic!("{name}: {:?}", other.map(|found| found.map(|found| found.dir))),
            }
        }
        let found = dirs.of("empty.example").unwrap().unwrap();
        assert_eq!((found.dir, found.trusted.len()), (home.path().join("a/empty.example"), 0));
    }
}
