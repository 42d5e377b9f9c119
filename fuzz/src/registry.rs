//! Targets for what registries send in headers, and for the configuration of registries.

use phial::registry::fuzz as parsers;

fn seeds(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// Challenges of registries, several schemes in one header, token servers that may get no password, and links.
pub(crate) fn challenges() -> Vec<Vec<u8>> {
    seeds(&[
        r#"Bearer realm="https://a.example/t",service="r",scope="repository:x:pull,push",error="invalid_token""#,
        r#"Negotiate, Basic realm="x", Bearer realm="https://a/t""#,
        r#"Digest nonce="a, b", bearer realm=https://a/t , service=r"#,
        r#"Bearer realm="https://a/\"t\\""#,
        r#"Bearer realm="https://unclosed"#,
        r#"Bearer realm="http://169.254.169.254/latest""#,
        r#"Bearer realm="https://[::ffff:127.0.0.1]/""#,
        r#"Bearer realm="https://user:pw@auth.example/""#,
        r#"Bearer realm="http://127.0.0.1:6000/token""#,
        r#"Bearer realm="/token",service="#,
        ", ,=",
        r#"</v2/a/tags/list?n=2>; rel="next""#,
        "<http://o/x>; rel=prev, <?page=2>; rel=next",
    ])
}

/// `WWW-Authenticate` and `Link`.
pub(crate) fn challenge(bytes: &[u8]) {
    let header = String::from_utf8_lossy(bytes);
    parsers::challenge(&header);
    parsers::link(&header);
}

/// A name in the first line, and a file with mirrors, wildcards, blocked names, or mistakes.
pub(crate) fn confs() -> Vec<Vec<u8>> {
    seeds(&[
        "debian:12\nunqualified-search-registries = ['docker.io']\n[[registry]]\nprefix = 'docker.io'\nlocation = 'hub.example/proxy/'\n\
         [[registry.mirror]]\nlocation = 'm1.example:5000/hub'\ninsecure = true\n\
         [[registry.mirror]]\nlocation = 'm2.example'\npull-from-mirror = 'digest-only'\n",
        "a.wild.example:5000/b\n[[registry]]\nprefix = '*.wild.example'\nlocation = 'w.example'\n",
        "r.example/a:1\n[[registry]]\nprefix = 'r.example/a:1'\nlocation = 'x.example'\nblocked = true\n",
        "plain.example/a\n[[registry]]\nlocation = 'plain.example'\nmirror-by-digest-only = true\n[[registry.mirror]]\nlocation = 'm4.example'\n",
        "x.example/a\ncredential-helpers = ['h']\n[[registry]]\nlocation = 'https://x.example'\n",
        "x.example/a\n[registries.block]\nregistries = ['y.example']\n",
        "x.example/a\na = 1\n[[registry]\n",
        "r.example/a@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n[[registry]]\nprefix = 'r.example'\nlocation = 'l.example/x'\n",
    ])
}

/// Every mirror and location is the name of a repository.
pub(crate) fn registries_conf(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (name, file) = text.split_once('\n').unwrap_or(("r.example/a", &text));
    let fallback = || "r.example/a".parse().expect("a name");
    parsers::registries_conf(&name.parse().unwrap_or_else(|_| fallback()), file);
}
