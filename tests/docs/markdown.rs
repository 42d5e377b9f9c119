//! The documents as what the tests here need of them: headings, links, code.

use std::fs;
use std::path::{Path, PathBuf};

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

/// A Markdown file of the repository.
pub(super) struct Document {
    /// Relative to the repository.
    pub(super) path: PathBuf,
    pub(super) text: String,
    /// The anchors of its headings, as GitHub makes them.
    pub(super) anchors: Vec<String>,
    /// The targets of its links.
    pub(super) links: Vec<String>,
    /// Its code blocks.
    pub(super) blocks: Vec<Block>,
    /// Its code spans.
    pub(super) spans: Vec<String>,
}

/// A fenced block of code.
pub(super) struct Block {
    /// The word after the fence: `sh`, `toml`, `text`.
    pub(super) language: String,
    pub(super) text: String,
}

pub(super) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The names of all documents, relative to the repository.
pub(super) fn names() -> Vec<String> {
    let mut names: Vec<String> = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md"].map(str::to_owned).into();
    for entry in fs::read_dir(repository().join("docs")).expect("docs/") {
        let name = entry.expect("an entry").file_name().into_string().expect("UTF-8");
        if Path::new(&name).extension().is_some_and(|extension| extension == "md") {
            names.push(format!("docs/{name}"));
        }
    }
    names.sort();
    names
}

pub(super) fn documents() -> Vec<Document> {
    names().iter().map(|name| Document::read(name)).collect()
}

impl Document {
    pub(super) fn read(name: &str) -> Self {
        let text = fs::read_to_string(repository().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        Self::parse(name, text)
    }

    pub(super) fn parse(name: &str, text: String) -> Self {
        let mut found = Self {
            path: name.into(),
            text: String::new(),
            anchors: vec![],
            links: vec![],
            blocks: vec![],
            spans: vec![],
        };
        let mut heading: Option<String> = None;
        let mut block = false;
        for event in Parser::new_ext(&text, Options::ENABLE_TABLES) {
            match event {
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::End(TagEnd::Heading(_)) => {
                    let anchor = anchor(&heading.take().unwrap_or_default(), &found.anchors);
                    found.anchors.push(anchor);
                }
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    found.links.push(dest_url.into_string());
                }
                Event::Start(Tag::CodeBlock(kind)) => {
                    let language =
                        if let CodeBlockKind::Fenced(word) = kind { word.into_string() } else { String::new() };
                    found.blocks.push(Block { language, text: String::new() });
                    block = true;
                }
                Event::End(TagEnd::CodeBlock) => block = false,
                Event::Text(piece) if block => found.blocks.last_mut().expect("a block").text.push_str(&piece),
                Event::Code(span) => {
                    if let Some(heading) = &mut heading {
                        heading.push_str(&span);
                    }
                    found.spans.push(span.into_string());
                }
                Event::Text(piece) => {
                    if let Some(heading) = &mut heading {
                        heading.push_str(&piece);
                    }
                }
                _ => {}
            }
        }
        found.text = text;
        found
    }

    /// The rows of the table whose head has these cells, each as its cells.
    #[track_caller]
    pub(super) fn table(&self, head: &[&str]) -> Vec<Vec<String>> {
        let cells = |line: &str| -> Vec<String> {
            let inner = line.trim().trim_start_matches('|').trim_end_matches('|');
            inner.replace("\\|", "\u{0}").split('|').map(|cell| cell.trim().replace('\u{0}', "|")).collect()
        };
        let mut lines = self.text.lines().skip_while(|line| !line.starts_with('|') || cells(line) != head);
        assert!(lines.next().is_some(), "{}: no table with {head:?}", self.path.display());
        lines.skip(1).take_while(|line| line.starts_with('|')).map(cells).collect()
    }
}

/// A heading's anchor by GitHub's rule: lower case, spaces become hyphens, other punctuation goes; a second one of the same
/// name is counted.
fn anchor(heading: &str, before: &[String]) -> String {
    let kept = heading
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .collect::<String>();
    let anchor = kept.replace(' ', "-");
    let same = before.iter().filter(|other| {
        **other == anchor || other.strip_prefix(&format!("{anchor}-")).is_some_and(|n| n.parse::<u32>().is_ok())
    });
    match same.count() {
        0 => anchor,
        n => format!("{anchor}-{n}"),
    }
}

#[test]
fn a_document_is_read_as_github_shows_it() {
    let text = "# A `phial.toml`, read!\n\n[one](docs/x.md#y) and [two][t]\n\n```sh\nphial ls\n```\n\n## Same\n## Same\n\n[t]: https://example.org\n";
    let document = Document::parse("x.md", text.to_owned());
    assert_eq!(document.anchors, ["a-phialtoml-read", "same", "same-1"]);
    assert_eq!(document.links, ["docs/x.md#y", "https://example.org"]);
    assert_eq!((document.blocks[0].language.as_str(), document.blocks[0].text.as_str()), ("sh", "phial ls\n"));
    assert_eq!(document.spans, ["phial.toml"]);
}
