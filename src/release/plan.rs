//! Plans a release: decides what is written, as a list, before anything is written.

use std::fmt;

use phial_layers::Digest;

use super::error::ReleaseError;
use super::verdict::Verdict;
use crate::attest::ImageLocation;

/// What was found out about an image and its destinations.
#[derive(Debug)]
pub struct Inspection {
    /// Where the image is.
    pub source: ImageLocation,
    /// The digest of its manifest.
    pub digest: Digest,
    /// What its test records prove.
    pub verdict: Verdict,
    /// Where it gets names, in the order of the command line.
    pub destinations: Vec<Destination>,
}

/// A repository or layout in which the image gets names.
#[derive(Debug)]
pub struct Destination {
    /// The repository or layout.
    pub location: ImageLocation,
    /// The tags that the image is to get.
    pub tags: Vec<TagState>,
}

/// A tag before the release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagState {
    /// The tag.
    pub tag: String,
    /// The manifest that it points to; `None` if there is no such tag.
    pub current: Option<Digest>,
}

/// What the user allows a release to do.
#[derive(Clone, Debug, Default)]
pub struct ReleasePolicy {
    /// `--move`: tags that point to other images may be moved.
    pub may_move: bool,
    /// `--expect`: tags may be moved if they point to this image, and only then.
    pub expect: Option<Digest>,
    /// `--untested`: why the image is released without proof.
    pub untested: Option<String>,
}

/// What is written, in this order: tags come last, so that none points to an incomplete image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReleasePlan {
    /// The manifest of the image.
    pub digest: Digest,
    /// Repositories and layouts that get a copy of the image and its referrers.
    pub copies: Vec<ImageLocation>,
    /// Why the image is released without proof; recorded in each destination.
    pub untested: Option<Override>,
    /// The names that the image gets.
    pub names: Vec<ReleaseName>,
}

/// The reason for a release without proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// The argument of `--untested`.
    pub reason: String,
    /// Why the test records do not suffice.
    pub problems: Vec<String>,
}

/// A name that the image gets. As text as a user writes it: `registry/repo:tag`, `oci:DIR:tag`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReleaseName {
    /// The repository or layout.
    pub location: ImageLocation,
    /// The tag; `None` where the image is only copied.
    pub tag: Option<String>,
    /// The manifest that the tag pointed to before.
    pub previous: Option<Digest>,
}

impl fmt::Display for ReleaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.tag {
            Some(tag) => write!(f, "{}:{tag}", self.location),
            None => write!(f, "{}", self.location),
        }
    }
}

/// Decides what a release writes. Every refusal that is known before writing comes from here.
pub fn plan(inspection: Inspection, policy: &ReleasePolicy) -> Result<ReleasePlan, ReleaseError> {
    let Inspection { source, digest, verdict, destinations } = inspection;
    let untested = match &policy.untested {
        _ if verdict.problems.is_empty() => None,
        Some(reason) => {
            let problems = verdict.problems.iter().map(ToString::to_string).collect();
            Some(Override { reason: reason.clone(), problems })
        }
        None => {
            return Err(ReleaseError::Unproven { image: format!("{source}@{digest}"), problems: verdict.problems });
        }
    };
    let mut names = Vec::new();
    let mut copies = Vec::new();
    for Destination { location, tags } in destinations {
        if location != source {
            copies.push(location.clone());
        }
        if tags.is_empty() {
            names.push(ReleaseName { location: location.clone(), tag: None, previous: None });
        }
        for TagState { tag, current } in tags {
            let name = ReleaseName { location: location.clone(), tag: Some(tag), previous: current };
            check(&name, &digest, policy)?;
            names.push(name);
        }
    }
    Ok(ReleasePlan { digest, copies, untested, names })
}

/// Refuses a tag that may not be moved.
fn check(name: &ReleaseName, digest: &Digest, policy: &ReleasePolicy) -> Result<(), ReleaseError> {
    if name.previous.as_ref() == Some(digest) {
        return Ok(());
    }
    if let Some(expected) = &policy.expect {
        if name.previous.as_ref() == Some(expected) {
            return Ok(());
        }
        let (expected, found) = (expected.clone(), name.previous.clone());
        return Err(ReleaseError::Unexpected { name: name.to_string(), expected, found });
    }
    match &name.previous {
        Some(found) if !policy.may_move => Err(ReleaseError::Taken { name: name.to_string(), found: found.clone() }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
