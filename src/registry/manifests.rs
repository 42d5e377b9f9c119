//! Puts manifests under a digest or a tag, and checks that they are there.

use std::thread::sleep;

use phial_layers::Digest;
use reqwest::Method;
use reqwest::header::CONTENT_TYPE;

use super::access::Rights;
use super::client::Client;
use super::error::RegistryError;
use super::http::{HttpRequest, RequestBody, refusal};
use crate::image::{ImageError, MAX_MANIFEST_PUSH, RegistryRef};

impl Client {
    /// Puts a manifest under its digest or a tag, and checks that it is there.
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
        let access = self.access(to, Rights::Push)?;
        let mut request = HttpRequest::new(Method::PUT, access.manifest_url(selector)).with(CONTENT_TYPE, media_type);
        request.body = RequestBody::Bytes(bytes);
        // Once more if it is not there afterwards: a proxy may have reported success.
        for is_last in [false, true] {
            let response = match self.send(&access, &request) {
                // Perhaps only the response was lost.
                Err(error) if error.is_transient() => match self.head(&named, Rights::Push) {
                    Ok(Some(found)) if found == digest => return Ok(()),
                    _ => return Err(error),
                },
                response => response?,
            };
            let status = response.status();
            // Registries with immutable tags refuse even the same manifest: what the tag names decides.
            let may_be_there = matches!(status.as_u16(), 400 | 409 | 412);
            if !status.is_success() && !may_be_there {
                return Err(refusal(&request, response));
            }
            let refused = (!status.is_success()).then(|| refusal(&request, response));
            let found = match refused {
                None => self.wait_for(&named, &digest)?,
                Some(_) => self.head(&named, Rights::Push)?,
            };
            match (found, refused) {
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
                    let found = found.map_or_else(|| "no manifest".into(), |found| format!("`{found}`"));
                    return Err(RegistryError::Verify { reference: named.to_string(), expected: digest, found });
                }
            }
        }
        Ok(())
    }

    /// The digest that a name has after a manifest was put there. A registry of several machines may take a moment to know the name. If
    /// it names another manifest twice, somebody else has moved it.
    fn wait_for(&self, named: &RegistryRef, expected: &Digest) -> Result<Option<Digest>, RegistryError> {
        let policy = self.transport.retry_policy;
        for tried in 1..policy.tries {
            match self.head(named, Rights::Push)? {
                Some(found) if found != *expected => return self.head(named, Rights::Push),
                None => sleep(policy.pause(tried)),
                found => return Ok(found),
            }
        }
        self.head(named, Rights::Push)
    }
}

fn is_immutable(error: &RegistryError) -> bool {
    let RegistryError::Status { status, text, .. } = error else { return false };
    let text = text.to_ascii_lowercase();
    *status != 400
        || ["immutable", "already exists", "alreadyexists", "tag_invalid"].iter().any(|word| text.contains(word))
}
