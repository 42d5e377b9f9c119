//! Lists of several pages: the link from one to the next (RFC 8288; distribution specification, "listing tags").
//!
//! Of `Link` only the target and `rel` are read, which is less code than a crate for the whole header.

use reqwest::Url;

use super::error::RegistryError;
use super::http::HttpRequest;
use super::url::{check_user, display_url};

/// Whether the page `next` of a list that begins at `first` may be read; an error names the rule that it breaks.
fn check_page(first: &Url, next: &Url) -> Result<(), &'static str> {
    if next.origin() != first.origin() {
        return Err("the next page of a list is on another host");
    }
    check_user(next)
}

/// The next page of a list that begins at `first`, if it may be read.
pub(super) fn checked_page(request: &HttpRequest<'_>, first: &Url, next: Url) -> Result<Url, RegistryError> {
    match check_page(first, &next) {
        Ok(()) => Ok(next),
        Err(why) => Err(RegistryError::Redirect { request: request.describe(), to: display_url(&next), why }),
    }
}

/// The target of a `Link` with `rel="next"`, resolved against the page's own URL.
pub(super) fn next_page(link: &str, from: &Url) -> Option<Url> {
    link.split(',').find_map(|one| {
        let (target, rest) = one.trim().strip_prefix('<')?.split_once('>')?;
        let is_next = rest.split(';').any(|part| matches!(part.trim(), "rel=\"next\"" | "rel=next"));
        if is_next { from.join(target).ok() } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found_among_links() {
        let from: Url = "http://r/v2/a/referrers/sha256:1".parse().unwrap();
        for (link, next) in [
            ("</v2/a/referrers/sha256:1?n=2>; rel=\"next\"", Some("http://r/v2/a/referrers/sha256:1?n=2")),
            ("<http://o/x>; rel=prev, <?page=2>; rel=next", Some("http://r/v2/a/referrers/sha256:1?page=2")),
            ("</v2/a>; rel=\"first\"", None),
            ("nonsense", None),
        ] {
            assert_eq!(next_page(link, &from).as_ref().map(Url::as_str), next, "{link}");
        }
    }

    #[test]
    fn a_page_is_on_the_same_server_and_has_no_login() {
        let from: Url = "https://r.example/v2/a".parse().unwrap();
        for (next, is_read) in [
            ("https://r.example/v2/a?n=2", true),
            ("https://other.example/v2/a?n=2", false),
            ("https://me:pw@r.example/v2/a?n=2", false),
            ("http://r.example/v2/a", false),
        ] {
            assert_eq!(check_page(&from, &next.parse().unwrap()).is_ok(), is_read, "{next}");
        }
    }
}
