//! The names in a repository, and away with what they name.

use phial_layers::Digest;
use reqwest::header::LINK;
use reqwest::{Method, StatusCode};
use serde::Deserialize;

use super::client::{Client, header};
use super::error::RegistryError;
use super::http::{Call, bounded, place, refusal, request};
use super::referrers::next_page;
use crate::image::{MAX_MANIFEST_PULL, RegistryRef};

/// Pages of a list that are read.
const MAX_PAGES: usize = 1000;
/// Tags in a page: the most that Amazon gives.
const PAGE: usize = 1000;

#[derive(Deserialize)]
struct Page {
    /// `null` where there are none (Nexus).
    tags: Option<Vec<Option<String>>>,
}

impl Client {
    /// The tags of a repository, sorted; none if there is no such repository. Digests among them, which Artifactory lists, are
    /// left out.
    pub fn tags(&self, repository: &RegistryRef) -> Result<Vec<String>, RegistryError> {
        let site = self.site(repository)?;
        let mut url = site.url("tags/list");
        url.query_pairs_mut().append_pair("n", &PAGE.to_string());
        let first = url.clone();
        let mut tags = Vec::new();
        for _ in 0..MAX_PAGES {
            let call = Call::new(Method::GET, url.clone());
            let response = self.send(&site.access(false), &call)?;
            match response.status() {
                StatusCode::OK => {}
                StatusCode::NOT_FOUND => return Ok(Vec::new()),
                _ => return Err(refusal(&call, response)),
            }
            let at = place(response.url());
            let next = header(&response, LINK.as_str()).and_then(|link| next_page(&link, &url));
            let bytes = bounded(response, &request(&call), MAX_MANIFEST_PULL)?;
            let page: Page = serde_json::from_slice(&bytes).map_err(|_| {
                let why = "its list of tags is none".into();
                RegistryError::NotARegistry { place: at, why }
            })?;
            let before = tags.len();
            tags.extend(page.tags.into_iter().flatten().flatten().filter(|tag| !tag.contains(':')));
            match next {
                // A page that leads to itself, or to nothing new, is the last.
                Some(next) if next != url && tags.len() > before => {
                    if next.origin() != first.origin() {
                        let (request, to) = (request(&call), place(&next));
                        return Err(RegistryError::Redirect { request, to, why: "a list goes on where it began" });
                    }
                    url = next;
                }
                _ => {
                    tags.sort();
                    tags.dedup();
                    return Ok(tags);
                }
            }
        }
        Err(RegistryError::NotARegistry { place: place(&first), why: format!("it has more than {MAX_PAGES} pages") })
    }

    /// Removes a manifest, and every tag that names it. That it is not there is as good.
    pub fn delete(&self, repository: &RegistryRef, digest: &Digest) -> Result<(), RegistryError> {
        let site = self.site(repository)?;
        let call = Call::new(Method::DELETE, site.manifest(digest.as_str()));
        let response = self.send(&site.access(true), &call)?;
        match response.status() {
            StatusCode::NOT_FOUND => Ok(()),
            status if status.is_success() => Ok(()),
            _ => Err(refusal(&call, response)),
        }
    }
}
