//! Platforms, and the choice of an image from an index.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::error::{ImageError, shown};
use super::manifest::{Descriptor, Index};

/// Operating system and processor, named as in Go (`image-index.md`): `linux/amd64`, `linux/arm/v7`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Platform {
    /// `amd64`, `arm64`, ...
    pub architecture: String,
    /// `linux`.
    pub os: String,
    /// `v7`; absent for the usual variant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// Linux on this architecture.
    pub fn linux(architecture: &str) -> Self {
        Self { architecture: architecture.into(), os: "linux".into(), variant: None }
    }

    /// Linux on the architecture this program was compiled for.
    pub fn host() -> Self {
        Self::linux(match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" => "ppc64le",
            "loongarch64" => "loong64",
            same => same,
        })
    }

    /// The variant, unless it is the usual one.
    fn special(&self) -> Option<&str> {
        match (self.architecture.as_str(), self.variant.as_deref()) {
            ("arm64", Some("v8")) | ("amd64", Some("v1")) | (_, Some("")) => None,
            (_, variant) => variant,
        }
    }

    /// The one image of `index` for this platform. An image for the plain architecture wins over its variants; two
    /// images that fit equally are an error, and so is none.
    pub fn select<'a>(&self, index: &'a Index) -> Result<&'a Descriptor, ImageError> {
        let mut fitting: Vec<&Descriptor> = index.manifests.iter().filter(|d| self.fits(d, index)).collect();
        fitting.dedup_by(|a, b| a.digest == b.digest);
        let exact: Vec<&Descriptor> = fitting
            .iter()
            .copied()
            .filter(|d| d.platform.as_ref().is_none_or(|p| p.special() == self.special()))
            .collect();
        let candidates = if exact.is_empty() && self.special().is_none() { &fitting } else { &exact };
        if let [only] = candidates.as_slice() {
            return Ok(only);
        }
        let found = if candidates.is_empty() { "no".into() } else { candidates.len().to_string() };
        let offered: Vec<String> = index
            .manifests
            .iter()
            .filter_map(|d| d.platform.as_ref())
            .take(20)
            .map(|p| shown(&p.to_string()))
            .collect();
        let offered = if offered.is_empty() { "none with a platform".into() } else { offered.join(", ") };
        Err(ImageError::Platform { wanted: self.to_string(), found, offered })
    }

    fn fits(&self, descriptor: &Descriptor, index: &Index) -> bool {
        match &descriptor.platform {
            Some(platform) => platform.os == self.os && platform.architecture == self.architecture,
            None => index.manifests.len() == 1,
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.special().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use phial_layers::Digest;
    use std::collections::BTreeMap;

    fn index(platforms: &[(&str, &str, Option<&str>)]) -> Index {
        let manifests = platforms.iter().map(|(os, architecture, variant)| {
            let platform = Platform {
                os: (*os).into(),
                architecture: (*architecture).into(),
                variant: variant.map(str::to_owned),
            };
            let digest = Digest::of(format!("{platform:?}").as_bytes());
            Descriptor { platform: Some(platform), ..Descriptor::new(super::super::OCI_MANIFEST, digest, 2) }
        });
        Index { manifests: manifests.collect(), annotations: BTreeMap::new(), ..Index::default() }
    }

    #[test]
    fn exactly_one_image_is_chosen_from_an_index() {
        let many = index(&[("linux", "amd64", None), ("linux", "arm64", Some("v8")), ("unknown", "unknown", None)]);
        assert_eq!(Platform::linux("arm64").select(&many).unwrap().digest, many.manifests[1].digest);
        assert_eq!(Platform::linux("amd64").select(&many).unwrap().digest, many.manifests[0].digest);
        let error = Platform::linux("s390x").select(&many).unwrap_err().to_string();
        assert!(error.contains("no images for `linux/s390x`") && error.contains("linux/arm64"), "{error}");
    }

    #[test]
    fn the_plain_architecture_wins_over_its_variants_and_a_tie_is_refused() {
        let levels = index(&[("linux", "amd64", Some("v3")), ("linux", "amd64", None)]);
        assert_eq!(Platform::linux("amd64").select(&levels).unwrap().digest, levels.manifests[1].digest);
        let tie = index(&[("linux", "arm", Some("v6")), ("linux", "arm", Some("v7"))]);
        assert!(Platform::linux("arm").select(&tie).unwrap_err().to_string().starts_with("2 images"));
    }
}
