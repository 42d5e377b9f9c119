//! A URL, fetched into the mirror: what it costs, what it survives.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use phial::error::UserError as _;
use phial::event::discard;
use phial::source::{Location, SourceError, checkout, fetch, read_file};

use super::{SourceTest, T, access, commit, full_message, git, notices_of, write};
use crate::harness::git_http::GitServer;

#[test]
fn head_a_branch_a_tag_and_a_sha_of_a_server_are_fetched_without_their_history() {
    let test = SourceTest::new();
    let repo = test.repo("shop.git");
    let first = git(&repo, &["rev-parse", "HEAD"]);
    write(&repo, "lib/b.ex", "2\n");
    let second = commit(&repo, "second");
    git(&repo, &["branch", "feature/x"]);
    let server = GitServer::start(test.dir.path());
    let url = format!("{}/shop.git/.git", server.url);
    for rev in ["HEAD", "main", "refs/heads/main", "feature/x", &second] {
        let fetched = test.fetch(&url, rev).unwrap();
        assert_eq!(fetched.commit.sha, second, "{rev}");
        assert_eq!(fetched.commit.time, 1_600_000_000);
        assert_eq!(fetched.commit.origin.as_ref().map(ToString::to_string).as_deref(), Some(url.as_str()));
        assert_eq!(fetched.commit.name, "shop");
    }
    assert_eq!(test.commits_in_mirrors(), 1);
    let tagged = test.fetch(&url, "v1").unwrap();
    assert_eq!(tagged.commit.sha, first);
    assert_eq!(test.commits_in_mirrors(), 2);
    assert_eq!(test.tree(&tagged, "t1").keys().collect::<Vec<_>>(), ["", "lib", "lib/a.ex", "mix.exs"]);
    assert!(test.tree(&test.fetch(&url, &second).unwrap(), "t2").contains_key("lib/b.ex"));
}

#[test]
fn a_commit_that_was_fetched_once_needs_no_server() {
    let test = SourceTest::new();
    let repo = test.repo("shop");
    let sha = git(&repo, &["rev-parse", "HEAD"]);
    let server = GitServer::start(test.dir.path());
    let url = format!("{}/shop/.git", server.url);
    let first = test.tree(&test.fetch(&url, "main").unwrap(), "t1");
    let asked = server.requests().len();
    assert!(asked >= 2, "{:?}", server.requests());
    let again = test.fetch(&url, &sha.to_uppercase()).unwrap();
    assert_eq!(server.requests().len(), asked);
    assert_eq!(test.tree(&again, "t2"), first);
    drop(server);
    assert_eq!(test.fetch(&url, &sha).unwrap().commit, again.commit);
    let error = test.fetch(&url, "main").unwrap_err();
    assert_eq!((error.exit_kind().code(), error.hint().is_some()), (4, true), "{}", full_message(&error));
}

#[test]
fn a_server_that_sends_too_much_is_given_up() {
    let test = SourceTest::new();
    let repo = test.repo("shop");
    let mut seed = 1_u32; // bytes that do not compress
    let random = std::iter::repeat_with(|| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        char::from(b' ' + u8::try_from(seed >> 26).unwrap())
    });
    write(&repo, "large", &random.take(4 << 20).collect::<String>());
    let sha = commit(&repo, "large");
    let server = GitServer::start(test.dir.path());
    let url = format!("{}/shop/.git", server.url);
    let location: Location = url.parse().unwrap();
    for rev in ["main", &sha] {
        let limited = access(&[]).with_max_bytes(1 << 20);
        let error = fetch(&location, rev, &test.path("mirrors"), &limited, &discard).unwrap_err();
        let text = full_message(&error);
        assert!(text.contains("sends more than 1 MiB"), "{rev}: {text}");
        assert_eq!((error.exit_kind().code(), error.hint().is_some()), (4, true));
    }
    assert_eq!(test.fetch(&url, "main").unwrap().commit.sha, sha, "there is room for it by default");
}

#[test]
fn a_server_that_lists_references_without_end_is_given_up() {
    let test = SourceTest::new();
    let server = GitServer::start_list(512 << 20);
    let location: Location = format!("{}/shop.git", server.url).parse().unwrap();
    let limited = access(&[]).with_max_list(64 << 20);
    let error = fetch(&location, "main", &test.path("mirrors"), &limited, &discard).unwrap_err();
    let text = full_message(&error);
    assert!(text.contains("takes more than 64 MiB of memory"), "{text}");
    assert_eq!((error.exit_kind().code(), error.hint().is_some()), (4, true));
}

#[test]
fn a_later_fetch_adds_to_a_shallow_mirror() {
    let test = SourceTest::new();
    let repo = test.repo("shop");
    let server = GitServer::start(test.dir.path());
    let url = format!("{}/shop/.git", server.url);
    let one = test.fetch(&url, "main").unwrap();
    for n in 0..3 {
        write(&repo, "lib/a.ex", &format!("{n}\n"));
        commit(&repo, "more");
    }
    let two = test.fetch(&url, "main").unwrap();
    assert_eq!(read_file(&two, "lib/a.ex").unwrap().unwrap(), b"2\n");
    assert_eq!(read_file(&one, "lib/a.ex").unwrap().unwrap(), b"1\n");
    assert_eq!(test.commits_in_mirrors(), 2);
    assert_eq!(test.tree(&two, "t2").len(), 4);
}

#[test]
fn a_server_that_gives_no_single_sha_costs_its_history_or_a_clear_error() {
    let test = SourceTest::new();
    let repo = test.repo("shop");
    let old = git(&repo, &["rev-parse", "HEAD"]);
    git(&repo, &["tag", "-d", "v1"]);
    write(&repo, "lib/a.ex", "2\n");
    commit(&repo, "second");
    git(&repo, &["checkout", "-q", "--detach"]);
    write(&repo, "lib/a.ex", "3\n");
    let lost = commit(&repo, "on no branch");
    git(&repo, &["checkout", "-q", "main"]);
    let server = GitServer::start(test.dir.path());
    let url = format!("{}/shop/.git", server.url);

    let output = notices_of(|watch| {
        let location: Location = url.parse().unwrap();
        let fetched = fetch(&location, &old, &test.path("mirrors"), &access(&[]), watch).unwrap();
        assert_eq!(read_file(&fetched, "lib/a.ex").unwrap().unwrap(), b"1\n");
    });
    assert!(output.contains("the whole history is fetched"), "{output}");
    let asked = server.requests().len();
    test.fetch(&url, &old).unwrap();
    assert_eq!(server.requests().len(), asked);
    let error = test.fetch(&url, &lost).unwrap_err();
    assert_eq!(error.exit_kind().code(), 3);
    assert!(full_message(&error).contains("allowAnySHA1InWant"), "{}", full_message(&error));

    git(&repo, &["config", "uploadpack.allowAnySHA1InWant", "true"]);
    let other = SourceTest::new();
    let fetched = other.fetch(&url, &lost).unwrap();
    assert_eq!((fetched.commit.sha.as_str(), other.commits_in_mirrors()), (lost.as_str(), 1));
    git(&repo, &["config", "uploadpack.allowAnySHA1InWant", "false"]);
    git(&repo, &["config", "uploadpack.allowReachableSHA1InWant", "true"]);
    let third = SourceTest::new();
    assert_eq!(third.fetch(&url, &old).unwrap().commit.sha, old);
    assert_eq!(third.commits_in_mirrors(), 1);
}

#[test]
fn a_revision_or_repository_that_is_not_there_is_a_clear_error() {
    let test = SourceTest::new();
    test.repo("shop");
    let server = GitServer::start(test.dir.path());
    let url = format!("{}/shop/.git", server.url);
    for rev in ["nope", "refs/heads/nope", "0123456789012345678901234567890123456789", "0123456"] {
        for location in [&url, test.path("shop").to_str().unwrap()] {
            let error = test.fetch(location, rev).unwrap_err();
            assert_eq!(
                (error.exit_kind().code(), error.hint().is_some()),
                (3, true),
                "{rev}: {}",
                full_message(&error)
            );
            assert!(full_message(&error).contains("searched"), "{}", full_message(&error));
        }
    }
    assert_eq!(test.fetch(test.path("nowhere").to_str().unwrap(), "HEAD").unwrap_err().exit_kind().code(), 3);
    assert_eq!(test.fetch("/", "HEAD").unwrap_err().exit_kind().code(), 3);
    assert_eq!(test.fetch(&format!("{}/nowhere", server.url), "HEAD").unwrap_err().exit_kind().code(), 3);
}

#[test]
fn an_empty_repository_and_one_of_sha256_are_clear_errors() {
    let test = SourceTest::new();
    git(test.dir.path(), &["init", "-q", "empty"]);
    git(test.dir.path(), &["init", "-q", "--object-format=sha256", "other"]);
    let server = GitServer::start(test.dir.path());
    for location in [test.path("empty").to_str().unwrap(), &format!("{}/empty/.git", server.url)] {
        let error = test.fetch(location, "HEAD").unwrap_err();
        assert!(matches!(error, SourceError::Empty { .. }), "{}", full_message(&error));
    }
    let error = test.fetch(test.path("other").to_str().unwrap(), "HEAD").unwrap_err();
    assert_eq!(error.exit_kind().code(), 3);
    assert!(error.hint().unwrap().contains("SHA-256"), "{}", full_message(&error));
}

#[test]
fn a_broken_mirror_is_moved_away_and_fetched_again() {
    let test = SourceTest::new();
    let repo = test.repo("shop");
    let sha = git(&repo, &["rev-parse", "HEAD"]);
    let server = GitServer::start(test.dir.path());
    let url = format!("{}/shop/.git", server.url);
    let good = test.tree(&test.fetch(&url, &sha).unwrap(), "good");
    let mirror = fs::read_dir(test.path("mirrors"))
        .unwrap()
        .flatten()
        .map(|e| e.path())
        .find(|p| p.extension().is_some_and(|e| e == "git"))
        .unwrap();
    let packs = mirror.join("objects/pack");
    let damage: [(&str, &dyn Fn()); 4] = [
        ("packs lost", &|| fs::remove_dir_all(&packs).unwrap()),
        ("no HEAD", &|| fs::remove_file(mirror.join("HEAD")).unwrap()),
        ("packs cut", &|| {
            for pack in fs::read_dir(&packs).unwrap().flatten() {
                let half = pack.metadata().unwrap().len() / 2;
                fs::set_permissions(pack.path(), fs::Permissions::from_mode(0o600)).unwrap();
                fs::File::options().write(true).open(pack.path()).unwrap().set_len(half).unwrap();
            }
        }),
        ("half made", &|| {
            fs::remove_dir_all(&mirror).unwrap();
            fs::create_dir(&mirror).unwrap();
        }),
    ];
    for (n, (what, damage)) in damage.iter().enumerate() {
        damage();
        let output = notices_of(|watch| {
            let fetched = fetch(&url.parse().unwrap(), &sha, &test.path("mirrors"), &access(&[]), watch);
            let fetched = fetched.map_err(|error| full_message(&error)).expect(what);
            assert_eq!(test.tree(&fetched, &format!("again{n}")), good, "{what}");
        });
        assert!(output.contains("is fetched again"), "{what}: {output}");
    }
    // a wrong bit in a blob is seen when it is read; the run after that starts afresh
    let pack = fs::read_dir(&packs)
        .unwrap()
        .flatten()
        .map(|e| e.path())
        .find(|p| p.extension().is_some_and(|e| e == "pack"))
        .unwrap();
    fs::set_permissions(&pack, fs::Permissions::from_mode(0o600)).unwrap();
    let mut bytes = fs::read(&pack).unwrap();
    let end = bytes.len() - 24;
    bytes[end] ^= 0x55;
    fs::write(&pack, bytes).unwrap();
    let fetched = test.fetch(&url, &sha).unwrap();
    let error = checkout(&fetched, &test.path("flip"), T).unwrap_err();
    assert_eq!(error.exit_kind().code(), 4, "{}", full_message(&error));
    drop(fetched); // libgit2 shares packs by their path as long as one is open
    assert_eq!(test.tree(&test.fetch(&url, &sha).unwrap(), "after"), good);
}

#[test]
fn many_fetches_at_once_into_one_mirror_all_succeed() {
    let test = SourceTest::new();
    test.repo("shop");
    let server = GitServer::start(test.dir.path());
    let url = format!("{}/shop/.git", server.url);
    std::thread::scope(|scope| {
        for n in 0..6 {
            let (test, url) = (&test, &url);
            scope.spawn(move || {
                let rev = ["main", "v1", "HEAD"][n % 3];
                assert_eq!(test.tree(&test.fetch(url, rev).unwrap(), &format!("t{n}")).len(), 4);
            });
        }
    });
    assert_eq!(test.commits_in_mirrors(), 1);
}

#[test]
fn a_silent_server_times_out() {
    let test = SourceTest::new();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let location: Location = format!("http://{}/x", silent.local_addr().unwrap()).parse().unwrap();
    let access = access(&[]).with_timeout(Duration::from_secs(1));
    let error = fetch(&location, "main", &test.path("mirrors"), &access, &discard).unwrap_err();
    assert!(
        matches!(error, SourceError::Stalled { seconds: 1, .. }) && error.exit_kind().code() == 4,
        "{}",
        full_message(&error)
    );
}

#[test]
fn what_a_killed_fetch_left_is_removed_by_the_next() {
    let test = SourceTest::new();
    let repo = test.repo("shop");
    let server = GitServer::start(test.dir.path());
    let url = format!("{}/shop/.git", server.url);
    test.fetch(&url, "main").unwrap();
    let mirror = fs::read_dir(test.path("mirrors")).unwrap().flatten().map(|e| e.path()).find(|p| p.is_dir()).unwrap();
    let left = mirror.join("objects/pack/pack_git2_a1b2c3");
    fs::write(&left, b"PACK").unwrap();
    commit(&repo, "second");
    assert_eq!(test.tree(&test.fetch(&url, "main").unwrap(), "tree").len(), 4);
    assert!(!left.exists());
}
