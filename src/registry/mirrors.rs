//! Pulls by way of mirrors, as `registries.conf` names them. Nothing is ever pushed there, and what must be seen as it is now
//! (tags before and after a push, records, the deps cache) is read where its name says.

use std::sync::PoisonError;

use super::client::Client;
use super::error::RegistryError;
use super::registries::Source;
use super::warnings::Warnings;
use crate::event::Event;
use crate::image::{RegistryRef, shown};

/// Where a client reads.
#[derive(Clone, Copy)]
pub(super) enum Reads {
    /// Where the name says.
    Named,
    /// At the mirrors of the name, then at its location. `by_digest` is whether the image was named so; `past` is whether the
    /// mirrors are passed over.
    Mirrored { by_digest: bool, past: bool },
    /// At a place that an entry led to.
    At { insecure: bool },
}

impl Client {
    /// The same with somebody who hears what a user should know.
    #[must_use]
    pub fn telling(mut self, to: impl Fn(Event) + Send + Sync + 'static) -> Self {
        self.transport.teller = Warnings::to(to);
        self
    }

    /// The same for reading this image: from its mirrors first, then from its location, if `registries.conf` names any. A
    /// mirror that does not have it or does not answer is passed over.
    #[must_use]
    pub fn pulling(&self, image: &RegistryRef) -> Self {
        Self { reads: Reads::Mirrored { by_digest: image.digest.is_some(), past: false }, ..self.clone() }
    }

    /// The same once a mirror has given other bytes than were asked for: from the location only.
    #[must_use]
    pub fn past_mirrors(mut self) -> Self {
        if let Reads::Mirrored { past, .. } = &mut self.reads {
            *past = true;
        }
        self
    }

    /// The places to read from, the best first; at least one. Mirrors that failed before are left out.
    pub(super) fn sources(&self, of: &RegistryRef) -> Result<Vec<(Self, RegistryRef)>, RegistryError> {
        let entry = self.transport.network().registries.entry(of)?;
        let (Some(entry), Reads::Mirrored { by_digest, past }) = (entry, self.reads) else {
            return Ok(vec![(self.clone(), of.clone())]);
        };
        let mut sources = entry.sources(of, by_digest)?;
        let location = sources.pop();
        if past && !sources.is_empty() {
            let name = shown(&of.name());
            self.transport
                .teller
                .tell(format!("the mirrors of `{name}` are passed over: other bytes came than were asked for"));
        }
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        sources.retain(|mirror| !past && !failed.contains(&mirror.at.host));
        let client =
            |source: Source| (Self { reads: Reads::At { insecure: source.insecure }, ..self.clone() }, source.at);
        Ok(sources.into_iter().chain(location).map(client).collect())
    }

    /// Reads at one place after the other until it works.
    pub(super) fn through<T>(
        &self,
        of: &RegistryRef,
        read: impl Fn(&Self, &RegistryRef) -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        let mut sources = self.sources(of)?.into_iter().peekable();
        while let Some((client, at)) = sources.next() {
            match read(&client, &at) {
                Err(error) if sources.peek().is_some() => self.pass_over(&at, &error),
                result => return result,
            }
        }
        Err(RegistryError::NotFound { reference: of.to_string() })
    }

    /// Notes that a mirror failed. One that is down is not asked again; one that lacks this may have that.
    pub(super) fn pass_over(&self, mirror: &RegistryRef, error: &RegistryError) {
        if !matches!(error, RegistryError::NotFound { .. } | RegistryError::Denied { .. }) {
            self.failed.lock().unwrap_or_else(PoisonError::into_inner).insert(mirror.host.clone());
        }
        let name = shown(&mirror.name());
        self.transport.teller.tell(format!("the mirror `{name}` is passed over: {error}"));
    }
}
