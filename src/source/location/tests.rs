use super::Location;

#[test]
fn a_repository_has_one_web_address_however_it_was_cloned() {
    let address = |text: &str| text.parse::<Location>().unwrap().web_address();
    for text in [
        "https://git.example/team/app.git",
        "https://ann@git.example/team/app",
        "ssh://git@git.example:2222/team/app.git",
        "git@git.example:team/app.git",
        "git.example:/team/app.git",
    ] {
        assert_eq!(address(text).as_deref(), Some("https://git.example/team/app"), "{text}");
    }
    assert_eq!(address("https://git.example:8443/app").as_deref(), Some("https://git.example:8443/app"));
    for text in ["http://127.0.0.1:4000/app.git", "http://[::1]:4000/app.git", "ssh://localhost/app", "dir/app"] {
        assert_eq!(address(text), None, "{text}");
    }
}

#[test]
fn a_relative_url_stays_on_its_server() {
    for (origin, url, result) in [
        ("https://git.example/team/app.git", "../util", Some("https://git.example/team/util")),
        ("https://git.example/team/app/", "../../other/.github/", Some("https://git.example/other/.github")),
        ("https://git.example:8443/app", "../util.git", Some("https://git.example:8443/util.git")),
        ("https://git.example/team/app", "./util", Some("https://git.example/team/app/util")),
        ("https://git.example/team/app", ".././util", Some("https://git.example/team/util")),
        ("git@git.example:team/app.git", "../util", Some("git.example:team/util")),
        ("git@git.example:app.git", "../util", Some("git.example:util")),
        ("ssh://git@git.example/~/app", "../util", Some("ssh://git.example/~/util")),
        ("https://git.example/team/app", "../../../util", None),
        ("git@git.example:app.git", "../../util", None),
        ("https://git.example/team/app", "../..", None),
        ("https://git.example/team/app", "../util/../../x", None),
        ("https://git.example/team/app", "../a b", None),
        ("dir/app", "../util", None),
    ] {
        let found = origin.parse::<Location>().unwrap().relative(url);
        assert_eq!(found.map(|found| found.to_string()).as_deref(), result, "{origin} {url}");
    }
}

#[test]
fn a_user_is_one_line_and_one_part_of_a_url() {
    for text in [
        "https://x%0ahost=github.com@git.example/a/b",
        "https://x%0D@git.example/a/b",
        "ssh://x%40evil.example%2f@git.example/a/b",
        "ssh://x%3a1@git.example/a/b",
        "x%40evil.example:y@git.example:a/b",
    ] {
        let error = text.parse::<Location>().unwrap_err().to_string();
        assert!(!error.contains("evil") && !error.contains('\n'), "{error}");
    }
    for text in ["https://ann%40team.example@git.example/a/b", "ssh://ann@git.example/a/b", "ann@git.example:a/b"] {
        text.parse::<Location>().unwrap();
    }
}
