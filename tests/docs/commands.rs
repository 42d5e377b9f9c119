//! Every command in a shell block of the documents is run, in the order of its document, with its document's app.

use super::markdown::{Document, names, repository};
use super::runner::{App, Runner};

/// Commands that cannot run here, by how they begin, and why.
const NOT_RUN: [(&str, &str); 8] = [
    ("cargo install ", "fetches and compiles for minutes"),
    ("cargo build", "compiles Phial, as these tests do before they run"),
    ("cargo test", "is what runs these tests"),
    ("cargo fmt", "is a part of `just check`"),
    ("just ", "compiles or runs these tests; `the_recipes_are_in_the_justfile` looks for the recipe"),
    ("git clone ", "needs the network"),
    ("phial base debian --for postgres ", "`testdata/service-images` runs it, for the image that is used here"),
    (
        "phial base debian --to ",
        "takes a minute; `testdata/elixir-base` runs it, for the base that all commands here build on",
    ),
];

/// Commands that end otherwise than with 0, by how they begin.
const EXIT_CODES: [(&str, i32); 1] = [("phial diff ", 1)];

/// Servers: they are terminated after a moment, and must have run until then.
const SERVERS: [&str; 1] = ["phial run registry.example/team/shop:main --env PORT"];

/// The commands of a shell block, each on one line.
fn commands(text: &str) -> Vec<String> {
    let whole = text.replace("\\\n", " ");
    let lines = whole.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(str::to_owned).collect()
}

fn reason(command: &str) -> Option<&'static str> {
    NOT_RUN.iter().find(|(start, _)| command.starts_with(start)).map(|(_, reason)| *reason)
}

#[track_caller]
fn check(name: &str, app: App) {
    let document = Document::read(name);
    let shell = document.blocks.iter().filter(|block| block.language == "sh");
    let all: Vec<String> =
        shell.flat_map(|block| commands(&block.text)).filter(|line| reason(line).is_none()).collect();
    assert!(!all.is_empty(), "{name} shows no command: take it off the list");
    let runner = Runner::new(app);
    for command in all {
        let server = SERVERS.iter().any(|start| command.starts_with(start));
        let line = if server { format!("timeout --preserve-status 3 {command}") } else { command.clone() };
        let known = EXIT_CODES.iter().find(|(start, _)| command.starts_with(start)).map_or(0, |(_, code)| *code);
        let expected = if server { 143 } else { known };
        let ran = runner.run(&line);
        assert_eq!(ran.code, Some(expected), "{name}: {command}\nstdout:\n{}\nstderr:\n{}", ran.stdout, ran.stderr);
    }
    if name == "docs/records.md" {
        runner.test_with_settings_of(&document);
    }
}

macro_rules! documents_with_commands {
    ($($test:ident: $name:literal, $app:ident;)*) => {
        $(#[test]
        fn $test() {
            check($name, App::$app);
        })*

        const WITH_COMMANDS: &[&str] = &[$($name),*];
    };
}

documents_with_commands! {
    the_commands_of_the_readme_run: "README.md", Elixir;
    the_commands_of_getting_started_run: "docs/getting-started.md", Elixir;
    the_commands_about_records_run: "docs/records.md", Elixir;
    the_commands_about_registries_run: "docs/registries.md", Shell;
    the_commands_about_the_cache_run: "docs/cache.md", Shell;
    the_commands_about_reproducibility_run: "docs/reproducibility.md", Shell;
}

#[test]
fn no_document_has_commands_that_are_not_run() {
    for name in names() {
        let document = Document::read(&name);
        let shell = document.blocks.iter().filter(|block| block.language == "sh");
        let mut all = shell.flat_map(|block| commands(&block.text));
        let listed = WITH_COMMANDS.contains(&name.as_str());
        assert!(listed || all.all(|line| reason(&line).is_some()), "{name} is not among the documents with commands");
        let unnamed = document.blocks.iter().filter(|block| block.language.is_empty()).count();
        assert_eq!(unnamed, 0, "{name}: a code block without a language would escape these tests");
    }
}

#[test]
fn the_recipes_are_in_the_justfile() {
    let justfile = std::fs::read_to_string(repository().join("Justfile")).expect("the Justfile");
    let recipes: Vec<&str> = justfile.lines().filter_map(|line| line.split([' ', ':']).next()).collect();
    for name in names() {
        let document = Document::read(&name);
        let shell = document.blocks.iter().filter(|block| block.language == "sh");
        let blocks = shell.flat_map(|block| commands(&block.text));
        for line in blocks.chain(document.spans.iter().cloned()) {
            let Some(recipe) = line.strip_prefix("just ").and_then(|rest| rest.split_whitespace().next()) else {
                continue;
            };
            assert!(recipes.contains(&recipe), "{name}: `just {recipe}` is no recipe");
        }
    }
}

#[test]
fn commands_are_read_with_their_continued_lines() {
    let text = "# first\nphial build \\\n  --twice   # again\n\njust demo\n";
    assert_eq!(commands(text), ["phial build    --twice   # again", "just demo"]);
}
