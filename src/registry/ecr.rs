//! Amazon ECR, by its host names (amazon-ecr-credential-helper, `api/client.go`).

/// The region of an ECR registry; `None` for all other hosts.
pub(super) fn ecr_region(host: &str) -> Option<&str> {
    let (account, rest) = host.split_once('.')?;
    let is_account = account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit());
    let kinds = ["dkr.ecr.", "dkr.ecr-fips.", "dkr-ecr.", "dkr-ecr-fips."];
    let (region, domain) = kinds.iter().find_map(|kind| rest.strip_prefix(kind))?.split_once('.')?;
    let domains = ["amazonaws.com", "amazonaws.com.cn", "amazonaws.eu", "on.aws", "on.amazonwebservices.com.cn"];
    let is_region = !region.is_empty() && region.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    (is_account && is_region && domains.contains(&domain)).then_some(region)
}

/// Whether a host has ECR's limits of chunk sizes: ECR itself, and emulations of it under other domains.
pub(super) fn has_ecr_limits(host: &str) -> bool {
    host.contains(".dkr.ecr") || host.contains(".dkr-ecr")
}
