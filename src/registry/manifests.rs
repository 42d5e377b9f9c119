//! A manifest under its digest or a tag, and a look whether it is there.

use std::thread::sleep;

use phial_layers::Digest;
use reqwest::Method;
use reqwest::header::CONTENT_TYPE;

use super::client::Client;
use super::error::RegistryError;
use super::http::{Body, Call, refusal};
use crate::image::{ImageError, MAX_MANIFEST_PUSH, RegistryRef};

impl Client {
    /// Puts a manifest under its digest or a tag, and looks whether it is there.
    pub(super) fn put(
        &self,
        to: &RegistryRef,
        selector: &str,
        bytes: &[u8],
        media_type: &str,
    ) -> Result<(), RegistryError> {
        let digest = Digest::of(bytes);
        let mut named = to.repository_only();
        if selector == digest.as_str() {
            named.digest = Some(digest.clone());
        } else {
            named.tag = Some(selector.into());
        }
        let (length, limit) = (bytes.len() as u64, MAX_MANIFEST_PUSH);
        if length > limit {
            let source = ImageError::TooLarge { what: "the manifest", size: length, limit };
            return Err(RegistryError::Image { reference: named.to_string(), source });
        }
        let site = self.site(to)?;
        let mut call = Call::new(Method::PUT, site.manifest(selector)).with(CONTENT_TYPE, media_type);
        call.body = Body::Bytes(bytes);
        // Once more if it is not there afterwards: something else may have said yes for the registry.
        for is_last in [false, true] {
            let response = match self.send(&site.access(true), &call) {
                // Only the answers may be lost.
                Err(error) if error.is_transient() => match self.head(&named, true) {
                    Ok(Some(found)) if found == digest => return Ok(()),
                    _ => return Err(error),
                },
                response => response?,
            };
            let status = response.status();
            // Registries with immutable tags refuse even the same manifest: only what the tag names counts.
            let may_be_there = matches!(status.as_u16(), 400 | 409 | 412);
            if !status.is_success() && !may_be_there {
                return Err(refusal(&call, response));
            }
            let refused = (!status.is_success()).then(|| refusal(&call, response));
            match (self.settled(&named, &digest, refused.is_none())?, refused) {
                (Some(found), _) if found == digest => return Ok(()),
                (Some(found), Some(error)) if named.tag.is_some() => {
                    let reference = named.to_string();
                    return Err(if is_immutable(&error) {
                        RegistryError::Immutable { reference, found }
                    } else {
                        error
                    });
                }
                (_, Some(error)) => return Err(error),
                (None, None) if !is_last => {}
                (found, None) => {
                    let found = found.map_or_else(|| "that there is none".into(), |found| format!("`{found}`"));
                    return Err(RegistryError::Verify { reference: named.to_string(), expected: digest, found });
                }
            }
        }
        Ok(())
    }

    /// What a name has come to name. Registries of several machines need a moment until all of them know it; that it names
    /// something else is looked at twice, and is then another's doing.
    fn settled(
        &self,
        named: &RegistryRef,
        expected: &Digest,
        was_taken: bool,
    ) -> Result<Option<Digest>, RegistryError> {
        let patience = self.transport.patience;
        for tried in 1..patience.tries {
            match self.head(named, true)? {
                Some(found) if was_taken && found != *expected => return self.head(named, true),
                None if was_taken => sleep(patience.pause(tried)),
                found => return Ok(found),
            }
        }
        self.head(named, true)
    }
}

fn is_immutable(error: &RegistryError) -> bool {
    let RegistryError::Status { status, text, .. } = error else { return false };
    let text = text.to_ascii_lowercase();
    *status != 400
        || ["immutable", "already exists", "alreadyexists", "tag_invalid"].iter().any(|word| text.contains(word))
}
