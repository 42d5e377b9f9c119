//! Media types of the OCI image specification (`media-types.md`), and Docker's types for the same documents.

use phial_layers::Compression;

use super::error::{ImageError, shown};

/// An OCI image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// An OCI image index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// An OCI image config.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// A layer that is a plain tar.
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// A layer compressed by gzip.
pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// A layer compressed by zstd.
pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
/// The empty config `{}` of artifacts.
pub const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// An in-toto statement without an envelope (in-toto attestation framework, `spec/v1/envelope.md`).
pub const IN_TOTO: &str = "application/vnd.in-toto+json";
/// Docker's image manifest, version 2, schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker's manifest list.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker's image config.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// Docker's plain layer.
pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
/// Docker's layer compressed by gzip.
pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
/// Docker's layer compressed by zstd.
pub const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";

/// How a layer of this media type is compressed. Non-distributable, encrypted and unknown types are refused by name.
pub fn layer_compression(media_type: &str) -> Result<Compression, ImageError> {
    let why = match media_type {
        OCI_LAYER | DOCKER_LAYER => return Ok(Compression::None),
        OCI_LAYER_GZIP | DOCKER_LAYER_GZIP => return Ok(Compression::Gzip),
        OCI_LAYER_ZSTD | DOCKER_LAYER_ZSTD => return Ok(Compression::Zstd),
        OCI_MANIFEST | OCI_INDEX | OCI_CONFIG | EMPTY => "not a layer type",
        other if other.contains(".layer.nondistributable.") => "a non-distributable layer is not fetched",
        other if other.contains(".foreign.") => "a foreign layer is not fetched",
        other if other.ends_with("+encrypted") => "the layer is encrypted",
        _ => "unknown layer type",
    };
    Err(ImageError::LayerType { media_type: shown(media_type), why })
}

/// The OCI media type of a layer.
pub const fn layer_media_type(compression: Compression) -> &'static str {
    match compression {
        Compression::None => OCI_LAYER,
        Compression::Gzip => OCI_LAYER_GZIP,
        Compression::Zstd => OCI_LAYER_ZSTD,
    }
}

/// Whether this is the config of a container image, in OCI's or Docker's format.
pub(super) fn is_image_config(media_type: &str) -> bool {
    matches!(media_type, OCI_CONFIG | DOCKER_CONFIG)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_that_cannot_be_unpacked_are_refused_by_name() {
        for (media_type, reason) in [
            (
                "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
                "a non-distributable layer is not fetched",
            ),
            ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "a foreign layer is not fetched"),
            ("application/vnd.oci.image.layer.v1.tar+gzip+encrypted", "the layer is encrypted"),
            ("application/vnd.oci.image.config.v1+json", "not a layer type"),
            ("text/plain", "unknown layer type"),
        ] {
            let error = layer_compression(media_type).unwrap_err().to_string();
            assert!(error.contains(reason) && error.contains(media_type), "{error}");
        }
    }

    #[test]
    fn oci_and_docker_types_name_the_same_compressions() {
        for (oci, docker) in
            [(OCI_LAYER, DOCKER_LAYER), (OCI_LAYER_GZIP, DOCKER_LAYER_GZIP), (OCI_LAYER_ZSTD, DOCKER_LAYER_ZSTD)]
        {
            let compression = layer_compression(docker).unwrap();
            assert_eq!(layer_media_type(compression), oci);
            assert_eq!(layer_compression(oci).unwrap(), compression);
        }
    }
}
