//! Pulls through the mirrors of `registries.conf`. Nothing is pushed to a mirror, and whatever must be current (tags before
//! and after a push, test records, the deps cache) is read from the registry itself.

use std::sync::PoisonError;

use super::client::{Client, ReadFrom};
use super::error::RegistryError;
use super::registries::{NamedBy, PullSource};
use super::warnings::Warnings;
use crate::event::Event;
use crate::image::{RegistryRef, shown};

impl Client {
    /// The same client with a receiver of notices: warnings of registries, mirrors that failed.
    #[must_use]
    pub fn with_notices(mut self, to: impl Fn(Event) + Send + Sync + 'static) -> Self {
        self.transport.warnings = Warnings::to(to);
        self
    }

    /// A client that reads this image from its mirrors first, then from its location, if `registries.conf` names any. A mirror
    /// that does not have the image or does not respond is skipped.
    #[must_use]
    pub fn through_mirrors(&self, image: &RegistryRef) -> Self {
        let named_by = if image.digest.is_some() { NamedBy::Digest } else { NamedBy::Tag };
        Self { reads: ReadFrom::Mirrors { named_by, skip: false }, ..self.clone() }
    }

    /// The same client without its mirrors, after one of them sent other bytes than were requested.
    #[must_use]
    pub fn without_mirrors(mut self) -> Self {
        if let ReadFrom::Mirrors { skip, .. } = &mut self.reads {
            *skip = true;
        }
        self
    }

    /// The mirrors and the location of an image, in the order in which they are tried; at least one. Mirrors that failed before
    /// are left out.
    pub(super) fn sources(&self, image: &RegistryRef) -> Result<Vec<(Self, RegistryRef)>, RegistryError> {
        let entry = self.transport.network().registries.entry(image)?;
        let (Some(entry), ReadFrom::Mirrors { named_by, skip }) = (entry, self.reads) else {
            return Ok(vec![(self.clone(), image.clone())]);
        };
        let mut sources = entry.sources(image, named_by)?;
        let location = sources.pop();
        if skip && !sources.is_empty() {
            let name = shown(&image.name());
            self.transport
                .warnings
                .notice(format!("the mirrors of `{name}` are skipped: they sent other bytes than were requested"));
        }
        let failed = self.failed_mirrors.lock().unwrap_or_else(PoisonError::into_inner);
        sources.retain(|mirror| !skip && !failed.contains(&mirror.name.host));
        let client =
            |source: PullSource| (Self { reads: ReadFrom::Location { tls: source.tls }, ..self.clone() }, source.name);
        Ok(sources.into_iter().chain(location).map(client).collect())
    }

    /// Reads an image from its mirrors and its location, one after the other, until one of them has it.
    pub(super) fn read_from_each<T>(
        &self,
        image: &RegistryRef,
        read: impl Fn(&Self, &RegistryRef) -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        let mut sources = self.sources(image)?.into_iter().peekable();
        while let Some((client, at)) = sources.next() {
            match read(&client, &at) {
                Err(error) if sources.peek().is_some() => self.report_failed_mirror(&at, &error),
                result => return result,
            }
        }
        Err(RegistryError::NotFound { reference: image.to_string() })
    }

    /// Reports that a mirror failed. It is not tried again, unless it lacks this image only.
    pub(super) fn report_failed_mirror(&self, mirror: &RegistryRef, error: &RegistryError) {
        if !matches!(error, RegistryError::NotFound { .. } | RegistryError::Denied { .. }) {
            self.failed_mirrors.lock().unwrap_or_else(PoisonError::into_inner).insert(mirror.host.clone());
        }
        let name = shown(&mirror.name());
        self.transport.warnings.notice(format!("the mirror `{name}` is skipped: {error}"));
    }
}
