//! Every link leads to a file of the repository and to a heading in it; addresses on the web are checked for their form.

use super::markdown::{Document, documents, repository};

/// What is wrong with a link of a document; `None` if it leads somewhere.
fn broken(document: &Document, link: &str, all: &[Document]) -> Option<String> {
    if link.contains("://") {
        let good = reqwest::Url::parse(link)
            .is_ok_and(|url| url.scheme() == "https" && url.host_str().is_some_and(|host| host.contains('.')));
        return (!good).then(|| "not an https address".to_owned());
    }
    let (file, anchor) = link.split_once('#').map_or((link, None), |(file, anchor)| (file, Some(anchor)));
    let target = if file.is_empty() {
        document.path.clone()
    } else {
        let mut path = document.path.parent().unwrap_or("".as_ref()).to_path_buf();
        for part in file.split('/') {
            if part == ".." {
                path.pop();
            } else {
                path.push(part);
            }
        }
        path
    };
    if !repository().join(&target).exists() {
        return Some("no such file".to_owned());
    }
    let anchor = anchor?;
    let anchors = &all.iter().find(|other| other.path == target)?.anchors;
    (!anchors.iter().any(|known| known == anchor)).then(|| "no such heading".to_owned())
}

#[test]
fn every_link_leads_somewhere() {
    let all = documents();
    let wrong: Vec<String> = all
        .iter()
        .flat_map(|document| document.links.iter().map(move |link| (document, link)))
        .filter_map(|(document, link)| {
            Some(format!("{}: {link}: {}", document.path.display(), broken(document, link, &all)?))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(all.iter().map(|document| document.links.len()).sum::<usize>() > 20, "links are not found");
}

#[test]
fn every_document_can_be_reached_from_the_readme() {
    let all = documents();
    let mut reached = vec!["README.md".to_owned()];
    let mut next = 0;
    while let Some(name) = reached.get(next).cloned() {
        next += 1;
        let Some(document) = all.iter().find(|document| document.path.to_str() == Some(&name)) else { continue };
        for link in &document.links {
            let file = link.split('#').next().unwrap_or("");
            let path = if name.starts_with("docs/") && !file.starts_with("../") {
                format!("docs/{file}")
            } else {
                file.trim_start_matches("../").to_owned()
            };
            if !reached.contains(&path) {
                reached.push(path);
            }
        }
    }
    let lost: Vec<_> = all
        .iter()
        .filter(|document| !reached.iter().any(|name| document.path.to_str() == Some(name)))
        .map(|document| document.path.display().to_string())
        .collect();
    assert!(lost.is_empty(), "no link leads to {lost:?}");
}

#[test]
fn a_link_to_nowhere_is_found() {
    let text = "# One\n[a](#one) [b](#two) [c](docs/none.md) [d](http://example.org) [e](README.md)\n";
    let document = Document::parse("CHANGELOG.md", text.to_owned());
    let all = [Document::parse("CHANGELOG.md", text.to_owned())];
    let found: Vec<Option<String>> = document.links.iter().map(|link| broken(&document, link, &all)).collect();
    let texts: Vec<Option<&str>> = found.iter().map(Option::as_deref).collect();
    assert_eq!(texts, [None, Some("no such heading"), Some("no such file"), Some("not an https address"), None]);
}
