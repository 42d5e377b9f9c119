//! What a release will write, before anything is written: a list that a test can read.

use phial_layers::Digest;

use super::error::ReleaseError;
use super::verdict::Verdict;
use crate::attest::ImageLocation;

/// What was looked at.
#[derive(Debug)]
pub struct Facts {
    /// Where the image is.
    pub source: ImageLocation,
    /// Its digest.
    pub digest: Digest,
    /// What its records say.
    pub verdict: Verdict,
    /// Where it gets names, in the order they were asked for.
    pub places: Vec<Seen>,
}

/// A place that the image goes to.
#[derive(Debug)]
pub struct Seen {
    /// The place.
    pub place: ImageLocation,
    /// The tags asked for, and what each names now.
    pub tags: Vec<(String, Option<Digest>)>,
}

/// What the user allows.
#[derive(Clone, Debug, Default)]
pub struct ReleasePolicy {
    /// `--move`: names may be taken from other images.
    pub moving: bool,
    /// `--expect`: from this image and no other.
    pub expect: Option<Digest>,
    /// `--untested`: why records are not needed.
    pub untested: Option<String>,
}

/// What is written, in this order: whatever goes wrong when, a name is given last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The image.
    pub digest: Digest,
    /// Places that get the image and what refers to it.
    pub copies: Vec<ImageLocation>,
    /// The reason to do without records, and why it was needed; written down in each place.
    pub excuse: Option<Override>,
    /// Names, each in its place.
    pub names: Vec<Name>,
}

/// Why an image is released that is not proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// As the user gave it.
    pub reason: String,
    /// What the records lack.
    pub doubts: Vec<String>,
}

/// A name and what it names now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// Where.
    pub place: ImageLocation,
    /// The tag; none where the image is only copied.
    pub tag: Option<String>,
    /// What it names before the release.
    pub was: Option<Digest>,
}

impl Name {
    /// As a user writes it: `registry/repo:tag`, `oci:DIR:tag`.
    pub fn text(&self) -> String {
        match &self.tag {
            Some(tag) => format!("{}:{tag}", self.place),
            None => self.place.to_string(),
        }
    }
}

/// Decides. Every refusal that can be known before writing is given here.
pub fn plan(facts: Facts, leave: &ReleasePolicy) -> Result<Plan, ReleaseError> {
    let Facts { source, digest, verdict, places } = facts;
    let excuse = match &leave.untested {
        _ if verdict.doubts.is_empty() => None,
        Some(reason) => {
            let doubts = verdict.doubts.iter().map(ToString::to_string).collect();
            Some(Override { reason: reason.clone(), doubts })
        }
        None => {
            return Err(ReleaseError::Unproven { image: format!("{source}@{digest}"), doubts: verdict.doubts });
        }
    };
    let mut names = Vec::new();
    let mut copies = Vec::new();
    for seen in places {
        if seen.place != source {
            copies.push(seen.place.clone());
        }
        if seen.tags.is_empty() {
            names.push(Name { place: seen.place.clone(), tag: None, was: None });
        }
        for (tag, was) in seen.tags {
            let name = Name { place: seen.place.clone(), tag: Some(tag), was };
            check(&name, &digest, leave)?;
            names.push(name);
        }
    }
    Ok(Plan { digest, copies, excuse, names })
}

fn check(name: &Name, digest: &Digest, leave: &ReleasePolicy) -> Result<(), ReleaseError> {
    if name.was.as_ref() == Some(digest) {
        return Ok(());
    }
    if let Some(expected) = &leave.expect {
        if name.was.as_ref() == Some(expected) {
            return Ok(());
        }
        let (expected, found) = (expected.clone(), name.was.clone());
        return Err(ReleaseError::Unexpected { name: name.text(), expected, found });
    }
    match &name.was {
        Some(found) if !leave.moving => Err(ReleaseError::Taken { name: name.text(), found: found.clone() }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
