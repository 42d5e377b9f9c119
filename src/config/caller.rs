//! The caller's secrets, which settings cannot have passed to a step, and who wrote the settings.

use super::checks::check_name;
use super::error::ConfigError;
use crate::image::shown;

/// Who wrote the settings that a command obeys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettingsOrigin {
    /// The caller: a file of `--config`, or a commit of a repository on this machine.
    Caller,
    /// A commit that was fetched by URL.
    Url,
    /// An image.
    Image,
}

impl SettingsOrigin {
    /// The settings in an error.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Caller => "`phial.toml`",
            Self::Url => "the `phial.toml` of the fetched commit",
            Self::Image => "the image's `phial.toml`",
        }
    }
}

/// Variables of one kind that are secrets, or lead to some.
#[derive(Clone, Copy, Debug)]
pub struct SecretKind {
    /// What they give access to.
    pub of: &'static str,
    /// Their names; `*` stands for any characters.
    pub names: &'static [&'static str],
}

/// The caller's variables that Phial or the CI uses to log in, or that name files with logins. Settings cannot have them passed to
/// a step. `docs/isolation.md` has the same table.
pub const CALLER_SECRETS: [SecretKind; 4] = [
    SecretKind {
        of: "git",
        names: &[
            "GIT_TOKEN",
            "GIT_USERNAME",
            "GIT_PASSWORD",
            "GIT_ASKPASS",
            "GIT_CONFIG*",
            "GIT_CREDENTIAL*",
            "GIT_SSH*",
            "SSH_*",
            "NETRC",
            "GH_*TOKEN",
            "GITHUB_*TOKEN",
            "GITLAB_*TOKEN",
            "GITEA_*TOKEN",
            "FORGEJO_*TOKEN",
            "BITBUCKET_*TOKEN",
            "BITBUCKET_*PASSWORD",
        ],
    },
    SecretKind {
        of: "registries",
        names: &[
            "PHIAL_*AUTH*",
            "PHIAL_*PASSWORD*",
            "PHIAL_*SECRET*",
            "PHIAL_*TOKEN*",
            "DOCKER_AUTH*",
            "DOCKER_CONFIG",
            "DOCKER_PASSWORD",
            "DOCKER_USERNAME",
            "DOCKER_*TOKEN",
            "DOCKERHUB_*",
            "REGISTRY_AUTH*",
            "REGISTRY_*PASSWORD",
            "REGISTRY_*TOKEN",
            "QUAY_*",
            "COSIGN_*",
            "SIGSTORE_*",
        ],
    },
    SecretKind {
        of: "a cloud",
        names: &[
            "AWS_*",
            "AMAZON_*",
            "GOOGLE_*",
            "GCLOUD_*",
            "GCP_*",
            "CLOUDSDK_*",
            "AZURE_*",
            "ARM_*",
            "ALIBABA_*",
            "ALICLOUD_*",
            "CLOUDFLARE_*",
            "DIGITALOCEAN_*",
            "FLY_*TOKEN",
            "HCLOUD_*",
            "HEROKU_*",
            "IBMCLOUD_*",
            "LINODE_*",
            "OCI_CLI_*",
            "SCW_*",
            "KUBECONFIG",
            "KUBE_*",
            "VAULT_*",
        ],
    },
    SecretKind {
        of: "the CI",
        names: &[
            "ACTIONS_*TOKEN*",
            "ACTIONS_RUNTIME_*",
            "BUILDKITE_AGENT_*",
            "BUILDKITE_*TOKEN*",
            "CIRCLE_*TOKEN*",
            "CI_*JWT*",
            "CI_*PASSWORD",
            "CI_*TOKEN",
            "CI_*_USER",
            "CI_REPOSITORY_URL",
            "DRONE_*PASSWORD",
            "DRONE_*SECRET",
            "DRONE_*TOKEN",
            "JENKINS_*TOKEN",
            "SEMAPHORE_*TOKEN*",
            "SYSTEM_ACCESSTOKEN",
            "TEAMCITY_*",
            "TRAVIS_*TOKEN",
            "WOODPECKER_*TOKEN",
        ],
    },
];

/// What the secret `name` gives access to; `None` if it is not in [`CALLER_SECRETS`].
pub fn secret_of(name: &str) -> Option<&'static str> {
    CALLER_SECRETS.iter().find(|kind| kind.names.iter().any(|pattern| fits(pattern, name))).map(|kind| kind.of)
}

/// Whether a name fits a pattern, in which `*` stands for any characters.
fn fits(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((head, rest)) => {
            let Some(tail) = name.strip_prefix(head) else { return false };
            (0..=tail.len()).filter(|at| tail.is_char_boundary(*at)).any(|at| fits(rest, &tail[at..]))
        }
    }
}

/// Names of variables in a setting: none of them may be a secret.
pub(super) fn check_pass(key: &str, names: &[String]) -> Result<(), ConfigError> {
    for name in names {
        check_name(key, name)?;
        if let Some(of) = secret_of(name) {
            return Err(ConfigError::Secret { key: key.into(), name: shown(name), of });
        }
    }
    Ok(())
}
