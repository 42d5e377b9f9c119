//! Lists the tags of a repository, and deletes manifests.

use phial_layers::Digest;
use reqwest::header::LINK;
use reqwest::{Method, StatusCode};
use serde::Deserialize;

use super::access::Rights;
use super::client::Client;
use super::error::RegistryError;
use super::http::{HttpRequest, header, read_bounded, refusal};
use super::paging::{checked_page, next_page};
use super::url::display_url;
use crate::image::{MAX_MANIFEST_PULL, RegistryRef};

/// Pages that are read.
const MAX_PAGES: usize = 1000;
/// Tags in a page: the most that Amazon returns.
const PAGE: usize = 1000;

/// Tags that are kept: a page may have more than it was asked for.
const MAX_TAGS: usize = 1_000_000;
/// The longest tag, in bytes (distribution-spec).
const MAX_TAG: usize = 128;

/// A page of the list, as JSON.
#[derive(Deserialize)]
struct TagsPage {
    /// `null` where there are none (Nexus).
    tags: Option<Vec<Option<String>>>,
}

/// The tags in a page of the list; `None` if it is no such page.
pub(super) fn tags_of_page(bytes: &[u8]) -> Option<Vec<String>> {
    let page: TagsPage = serde_json::from_slice(bytes).ok()?;
    let is_tag = |tag: &String| tag.len() <= MAX_TAG && !tag.contains(':');
    Some(page.tags.into_iter().flatten().flatten().filter(is_tag).collect())
}

impl Client {
    /// The tags of a repository, sorted; none if there is no such repository. Digests, which Artifactory lists too, are left
    /// out.
    pub fn tags(&self, repository: &RegistryRef) -> Result<Vec<String>, RegistryError> {
        let access = self.access(repository, Rights::Pull)?;
        let mut url = access.url("tags/list");
        url.query_pairs_mut().append_pair("n", &PAGE.to_string());
        let first = url.clone();
        let mut tags = Vec::new();
        for _ in 0..MAX_PAGES {
            let request = HttpRequest::new(Method::GET, url.clone());
            let response = self.send(&access, &request)?;
            match response.status() {
                StatusCode::OK => {}
                StatusCode::NOT_FOUND => return Ok(Vec::new()),
                _ => return Err(refusal(&request, response)),
            }
            let at = display_url(response.url());
            let next = header(&response, LINK.as_str()).and_then(|link| next_page(&link, &url));
            let bytes = read_bounded(response, &request.describe(), MAX_MANIFEST_PULL)?;
            let page = tags_of_page(&bytes).ok_or_else(|| {
                let why = "its list of tags is not the JSON of the distribution specification".into();
                RegistryError::NotARegistry { place: at, why }
            })?;
            let before = tags.len();
            tags.extend(page);
            if tags.len() > MAX_TAGS {
                break;
            }
            match next {
                // A page that leads to itself, or adds nothing, is the last one.
                Some(next) if next != url && tags.len() > before => url = checked_page(&request, &first, next)?,
                _ => {
                    tags.sort();
                    tags.dedup();
                    return Ok(tags);
                }
            }
        }
        Err(RegistryError::NotARegistry {
            place: display_url(&first),
            why: format!("it has more than {MAX_PAGES} pages"),
        })
    }

    /// Deletes a manifest, and every tag that names it. One that is not there counts as deleted.
    pub fn delete(&self, repository: &RegistryRef, digest: &Digest) -> Result<(), RegistryError> {
        let access = self.access(repository, Rights::Push)?;
        let request = HttpRequest::new(Method::DELETE, access.manifest_url(digest.as_str()));
        let response = self.send(&access, &request)?;
        match response.status() {
            StatusCode::NOT_FOUND => Ok(()),
            status if status.is_success() => Ok(()),
            _ => Err(refusal(&request, response)),
        }
    }
}
