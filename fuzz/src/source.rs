//! Files of a commit that say what its other files are: `.gitattributes`, `.gitmodules`.

use phial::source::fuzz as parsers;

/// The path of a file, and attributes after its line: names and paths, macros, quoted patterns, brackets, and many stars.
pub(crate) fn attributes() -> Vec<Vec<u8>> {
    [
        "a/b.bin\n# none\n*.bin filter=lfs diff=lfs -text\nkeep.bin !filter\n",
        "a/c/x.txt\n[attr]wide working-tree-encoding=UTF-16LE -filter\n/a/**/*.txt wide\n",
        "a/q\n\"a b\\303\\251\" filter=x\n[a-z[:digit:]\\]]? filter=y\n",
        "aaaaaaaaaaaaaaaaaaaaaaaa\n*a*a*a*a*a*a*b filter=x\n**/*a/**/b filter=x\n",
        "x\n[attr]loop loop filter=x\n* -loop\n* loop filter\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into()
}

/// Lines without an attribute that is looked for change nothing.
pub(crate) fn git_attributes(bytes: &[u8]) {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    parsers::git_attributes(bytes.get(end + 1..).unwrap_or_default(), &bytes[..end]);
}

/// Submodules as git writes them, and as a commit may: quotes, escapes, comments, names that lead out.
pub(crate) fn modules() -> Vec<Vec<u8>> {
    [
        "[submodule \"lib/a\"]\n\tpath = lib/a\n\turl = ../a.git\n\tbranch = main\n",
        "\u{feff}[Submodule \"a \\\"b\\\\\"] ; c\n path = \"x # y\" z ; w\r\n URL = a\\\nb\n update\n",
        "[submodule \"../../x\"]\nurl = ext::sh\n[submodule \"a\"] path=b\n[submodule \"a\"] path=c url=d\n",
        "[core]\n[submodule.a]\npath = b\n[submodule \"a",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into()
}

/// What is written of the submodules is read as the same.
pub(crate) fn git_modules(bytes: &[u8]) {
    parsers::git_modules(&String::from_utf8_lossy(bytes));
}
