//! How registries differ. The profiles say what is known of each, as far as a client can see it.

use std::time::Duration;

/// How a cross-repository mount is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mount {
    Works,
    /// 202: an upload is opened instead.
    Opens,
    /// Refused with this status.
    Refused(u16),
}

/// How HEAD of a blob is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Head {
    Works,
    /// This status, though GET works.
    Refused(u16),
}

/// Where an upload goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Location {
    /// A path, without a host.
    Path,
    /// A whole URL with an opaque `_state`.
    State,
    /// A path outside of `/v2/` (Google).
    Outside,
}

/// What a registry does otherwise than the specification, or than others do.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(crate) struct Quirks {
    pub(crate) name: &'static str,
    pub(crate) mount: Mount,
    pub(crate) head_blob: Head,
    pub(crate) head_manifest: Head,
    pub(crate) location: Location,
    /// Longest body that is taken, and the status for longer ones.
    pub(crate) max_body: Option<(u64, u16)>,
    /// Whether that holds for a PUT of a whole blob too.
    pub(crate) max_put: bool,
    /// Shortest chunk but for the last; announced by `OCI-Chunk-Min-Length` if `says_min`.
    pub(crate) min_chunk: u64,
    pub(crate) says_min: bool,
    /// The answer to PATCH.
    pub(crate) patch_status: u16,
    /// The answer to POST of an upload.
    pub(crate) post_status: u16,
    /// `Range` stays at the first chunk (Amazon).
    pub(crate) sticky_range: bool,
    /// An upload that breaks off keeps what came of it; else the session is dead.
    pub(crate) keeps_partial: bool,
    /// Blobs are fetched from another host.
    pub(crate) storage: bool,
    pub(crate) referrers: bool,
    /// `OCI-Subject` is sent, whatever the API does (Amazon, before it had the API; Quay has it without the header).
    pub(crate) says_subject: Option<bool>,
    /// So many referrers are listed in one answer.
    pub(crate) referrers_page: usize,
    /// So many questions for referrers are answered as if nothing had been put.
    pub(crate) referrers_late: usize,
    /// Any path that is not known is answered by a page for people.
    pub(crate) pages: bool,
    /// The tag `sha256-<hex>` is read as the digest `sha256:<hex>` (GitLab).
    pub(crate) tags_as_digests: bool,
    /// Tags cannot be moved, not even to where they are.
    pub(crate) immutable: Option<u16>,
    /// A repository must be made first.
    pub(crate) made_first: bool,
    /// `null` for a repository without tags; digests among the tags.
    pub(crate) odd_tags: bool,
    /// Media types of Docker are refused.
    pub(crate) only_oci: bool,
    /// 401 without `WWW-Authenticate` but on `/v2/`.
    pub(crate) bare_401: bool,
    /// A manifest's blobs are not looked for.
    pub(crate) lax: bool,
    /// No `Docker-Content-Digest`.
    pub(crate) no_digest: bool,
    /// Parts of blobs are sent.
    pub(crate) ranges: bool,
    /// Requests that a token lasts for. Twice as many as are sent at a time, or it may be used up by others before who asked for it is
    /// scheduled again.
    pub(crate) token_uses: usize,
    /// DELETE is known.
    pub(crate) deletes: bool,
    /// How long each answer takes.
    pub(crate) latency: Duration,
}

impl Quirks {
    /// What the specification says.
    pub(crate) fn none() -> Self {
        Self {
            name: "specification",
            mount: Mount::Works,
            head_blob: Head::Works,
            head_manifest: Head::Works,
            location: Location::Path,
            max_body: None,
            max_put: false,
            min_chunk: 0,
            says_min: false,
            patch_status: 202,
            post_status: 202,
            sticky_range: false,
            keeps_partial: true,
            storage: false,
            referrers: true,
            says_subject: None,
            referrers_page: usize::MAX,
            referrers_late: 0,
            pages: false,
            tags_as_digests: false,
            immutable: None,
            made_first: false,
            odd_tags: false,
            only_oci: false,
            bare_401: false,
            lax: false,
            no_digest: false,
            ranges: true,
            token_uses: usize::MAX,
            deletes: true,
            latency: Duration::ZERO,
        }
    }

    pub(crate) fn ecr() -> Self {
        Self {
            name: "ecr",
            mount: Mount::Opens,
            min_chunk: 5 << 20,
            patch_status: 201,
            sticky_range: true,
            keeps_partial: false,
            storage: true,
            immutable: Some(400),
            made_first: true,
            no_digest: true,
            ..Self::none()
        }
    }

    pub(crate) fn ghcr() -> Self {
        Self { name: "ghcr", max_body: Some((4 << 20, 416)), storage: true, referrers: false, ..Self::none() }
    }

    pub(crate) fn docker_hub() -> Self {
        Self {
            name: "docker hub",
            storage: true,
            referrers: false,
            location: Location::State,
            token_uses: 12,
            ..Self::none()
        }
    }

    pub(crate) fn gitlab() -> Self {
        let quirks =
            Self { name: "gitlab", location: Location::State, token_uses: 9, referrers: false, ..Self::none() };
        Self { keeps_partial: false, tags_as_digests: true, ..quirks }
    }

    pub(crate) fn gar() -> Self {
        let (location, bare_401) = (Location::Outside, true);
        Self { name: "gar", location, bare_401, storage: true, deletes: false, ..Self::none() }
    }

    pub(crate) fn acr() -> Self {
        let max_body = Some((6 << 20, 413));
        Self { name: "acr", max_body, max_put: true, mount: Mount::Opens, storage: true, ..Self::none() }
    }

    pub(crate) fn quay() -> Self {
        let (mount, says_subject) = (Mount::Refused(401), Some(false));
        Self { name: "quay", deletes: false, storage: true, mount, says_subject, ..Self::none() }
    }

    pub(crate) fn harbor() -> Self {
        let (mount, head_manifest) = (Mount::Refused(400), Head::Refused(412));
        Self { name: "harbor", mount, head_manifest, immutable: Some(412), keeps_partial: false, ..Self::none() }
    }

    pub(crate) fn artifactory() -> Self {
        Self { name: "artifactory", odd_tags: true, location: Location::State, ..Self::none() }
    }

    pub(crate) fn nexus() -> Self {
        let (odd_tags, mount) = (true, Mount::Refused(404));
        Self { name: "nexus", odd_tags, mount, referrers: false, ranges: false, ..Self::none() }
    }

    pub(crate) fn zot() -> Self {
        Self { name: "zot", only_oci: true, ..Self::none() }
    }

    pub(crate) fn cloudflare() -> Self {
        let (max_body, head_blob) = (Some((3 << 20, 413)), Head::Refused(405));
        Self { name: "cloudflare", max_body, max_put: true, head_blob, token_uses: 10, ..Self::none() }
    }

    /// Debian's `docker-registry` 2.8.
    pub(crate) fn debian() -> Self {
        let (location, keeps_partial) = (Location::State, false);
        Self { name: "distribution 2.8", location, keeps_partial, referrers: false, ..Self::none() }
    }

    /// Each of them.
    pub(crate) fn profiles() -> Vec<Self> {
        vec![
            Self::none(),
            Self::ecr(),
            Self::ghcr(),
            Self::docker_hub(),
            Self::gitlab(),
            Self::gar(),
            Self::acr(),
            Self::quay(),
            Self::harbor(),
            Self::artifactory(),
            Self::nexus(),
            Self::zot(),
            Self::cloudflare(),
            Self::debian(),
        ]
    }
}
