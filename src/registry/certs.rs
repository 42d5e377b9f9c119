//! Certificates: those of one host in `certs.d` (Docker; containers-certs.d(5)), and those that replace the system's.
//!
//! In `certs.d/HOST[:PORT]`, `*.crt` are certificates to trust for that host, `X.cert` with `X.key` is a client certificate.
//! Crates for Docker's API read its own configuration only; PEM is read by the TLS library.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use reqwest::{Certificate, Identity};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::error::RegistryError;
use crate::host::Host;

/// Bytes of the largest file of certificates that is read.
const MAX_FILE: u64 = 4 << 20;

/// The `certs.d` directories, the one that wins first.
#[derive(Clone, Debug, Default)]
pub(super) struct CertDirs(pub(super) Vec<PathBuf>);

/// The certificates of a host.
pub(super) struct HostCerts {
    /// The directory that has them.
    pub(super) dir: PathBuf,
    pub(super) trusted: Vec<Certificate>,
    /// The client certificate.
    pub(super) identity: Option<Identity>,
}

impl CertDirs {
    pub(super) fn from_host(host: &Host) -> Self {
        let own = host.config_dir().join("containers/certs.d");
        Self(vec![own, "/etc/containers/certs.d".into(), "/etc/docker/certs.d".into()])
    }

    /// The certificates of a host in the first directory that has any. `name` is `host[:port]`. A directory that may not be
    /// read counts as absent, as for other tools; a broken file in it is an error.
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
        let mut certs = HostCerts { dir, trusted: Vec::new(), identity: None };
        for path in files {
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("crt") => certs.trusted.extend(certificates(&path)?),
                // Of several pairs the first by name: which one the host wants is not known before the connection.
                Some("cert") if certs.identity.is_none() => certs.identity = Some(client_certificate(&path)?),
                Some("key") if !path.with_extension("cert").exists() => {
                    return Err(RegistryError::setting(&path, "there is no `.cert` of the same name in its directory"));
                }
                _ => {}
            }
        }
        Ok(Some(certs))
    }
}

/// The certificates to trust instead of the system's: `SSL_CERT_FILE`, and the files in the directories of `SSL_CERT_DIR`,
/// as in OpenSSL and Go.
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

    /// The paths and the variables that name them; `None` if the system's certificates are trusted.
    pub(super) fn describe(&self) -> Option<String> {
        let file = self.file.iter().map(|path| format!("`{}` of `SSL_CERT_FILE`", path.display()));
        let dirs = self.dirs.iter().map(|path| format!("`{}` of `SSL_CERT_DIR`", path.display()));
        Some(file.chain(dirs).collect::<Vec<_>>().join(", ")).filter(|text| !text.is_empty())
    }

    /// The certificates; `None` if the system's are trusted. Other files in a directory are skipped, and so is a directory
    /// that does not exist. It is an error if no certificate is left, or if the file has none.
    pub(super) fn read(&self) -> Result<Option<Vec<Certificate>>, RegistryError> {
        let Some(places) = self.describe() else { return Ok(None) };
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

/// The certificates of a PEM file, at least one. Those that cannot be parsed are skipped: bundles have all kinds.
pub(super) fn certificates(path: &Path) -> Result<Vec<Certificate>, RegistryError> {
    let bytes = read(path)?;
    let read = CertificateDer::pem_slice_iter(&bytes).filter_map(Result::ok);
    let usable = read.filter(|der| RootCertStore::empty().add(der.clone()).is_ok());
    let found: Vec<Certificate> = usable.filter_map(|der| Certificate::from_der(&der).ok()).collect();
    if found.is_empty() { Err(RegistryError::setting(path, "it has no certificate in PEM form")) } else { Ok(found) }
}

/// A client certificate, and the key of the same name.
fn client_certificate(path: &Path) -> Result<Identity, RegistryError> {
    let key = path.with_extension("key");
    if !key.exists() {
        return Err(RegistryError::setting(path, "there is no `.key` of the same name in its directory"));
    }
    let mut both = read(path)?;
    both.push(b'\n');
    both.extend(read(&key)?);
    Identity::from_pem(&both).map_err(|_| {
        RegistryError::setting(path, "it and its `.key` are not a certificate and a private key in PEM form")
    })
}

fn read(path: &Path) -> Result<Vec<u8>, RegistryError> {
    let broken = |error: std::io::Error| RegistryError::setting(path, error.to_string());
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
    fn the_first_directory_with_the_host_wins_and_a_broken_file_in_it_is_named() {
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
        for (name, expected) in [
            ("unknown.example", None),
            ("trust.example:5000", None),
            ("h", None),
            ("trust.example", Some("ca.crt`: it has no certificate")),
            ("registry-1.docker.io", Some("x.key`: there is no `.cert`")),
            ("h:5000", Some("x.cert`: there is no `.key`")),
        ] {
            match (dirs.of(name), expected) {
                (Ok(None), None) => {}
                (Err(error), Some(expected)) => assert!(error.to_string().contains(expected), "{name}: {error}"),
                (other, _) => panic!("{name}: {:?}", other.map(|found| found.map(|found| found.dir))),
            }
        }
        let found = dirs.of("empty.example").unwrap().unwrap();
        assert_eq!((found.dir, found.trusted.len()), (home.path().join("a/empty.example"), 0));
    }
}
