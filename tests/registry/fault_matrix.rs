//! Every kind of request meets every fault, at its first and at its last occurrence, and each time: it ends in the right digest
//! or in the right error, no tag ever names an incomplete image, no credential is seen by another host, and a plain rerun
//! converges.

use std::io::Read as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use phial::error::UserError as _;
use phial::event::discard;
use phial::image::{Image, OCI_INDEX, Platform, RegistryRef, assemble};
use phial::registry::{BaseLayers, Client, Credentials, Push, RegistryError};
use phial_layers::Digest;

use super::sample_images::{BlobMap, chain, noise, options};
use super::scripted::{Fault, Kind, Quirks, Registry, When, quick_timeouts};

/// How each cell ends: `o` well, or the exit code; `?` either, since a token that expires under one transfer is another's too.
/// For each kind of request: the fault at its first occurrence, at its last, each time. Columns are those of [`Fault::ALL`]:
/// reset before and in the middle, stall, truncated, answer lost; 429, 500, 503, 404; expired, wrong digest, elsewhere, garbage.
#[rustfmt::skip]
const ENDS: [(Kind, [&str; 3]); 16] = [
    // Nobody says how to be asked: that is for who knows the registry.
    (Kind::Ping,         ["ooooo ooo5 oo55", "ooooo ooo5 oo55", "4ooo4 4445 oo55"]),
    // The last is for a mount, which nobody needs.
    (Kind::Token,        ["ooooo ooo5 5555", "ooooo oooo oooo", "44444 4445 5555"]),
    (Kind::HeadManifest, ["ooooo oooo oooo", "ooooo oooo oooo", "44444 4444 54oo"]),
    (Kind::HeadTag,      ["ooooo oooo oooo", "ooooo oooo oooo", "44444 4444 54oo"]),
    // What is not there is not asked for twice.
    (Kind::GetManifest,  ["ooooo ooo3 oooo", "ooooo ooo3 oooo", "44444 4443 53o4"]),
    (Kind::GetTag,       ["ooooo ooo3 oooo", "ooooo ooo3 oooo", "44444 4443 53o4"]),
    (Kind::HeadBlob,     ["ooooo oooo oooo", "ooooo oooo oooo", "ooooo oooo ?ooo"]),
    // A layer is a stream: that its bytes are wrong shows at its end, and who reads it must start again.
    (Kind::GetBlob,      ["ooooo ooo3 oooo", "ooooo ooo3 o3oo", "4ooo4 4443 53o3"]),
    (Kind::GetRange,     ["ooooo oooo oooo", "ooooo oooo oooo", "44444 444o 5ooo"]),
    // Nothing is written elsewhere.
    (Kind::PostUpload,   ["ooooo ooo3 oo44", "ooooo ooo3 oo44", "44444 4443 5o44"]),
    (Kind::PostMount,    ["ooooo oooo oooo", "ooooo oooo oooo", "ooooo oooo ?ooo"]),
    (Kind::Patch,        ["ooooo oooo oo4o", "ooooo oooo oo4o", "444oo 4443 5o44"]),
    (Kind::Status,       ["ooooo oooo oooo", "ooooo oooo oooo", "ooooo oooo ?ooo"]),
    (Kind::PutBlob,      ["ooooo oooo oo4o", "ooooo oooo oo4o", "4oooo 4443 5o44"]),
    (Kind::PutManifest,  ["ooooo ooo3 oo4o", "ooooo ooo3 oo4o", "444oo 4443 5o44"]),
    (Kind::PutTag,       ["ooooo ooo3 oo4o", "ooooo ooo3 oo4o", "444oo 4443 5o44"]),
];

/// What is pushed: a layer of a base that only the registry has, and one of our own.
struct Goods {
    base: Image,
    index: Vec<u8>,
    image: Image,
    all: BlobMap,
    own: BlobMap,
}

fn goods() -> Goods {
    let (mut all, mut own) = (BlobMap::default(), BlobMap::default());
    let base = assemble(&Image::scratch(&Platform::host()), &[all.layer("base", &noise(1, 100_000))], &options("sh"));
    let image = assemble(&base, &[own.layer("app", &noise(2, 400_000))], &options("run"));
    let platform = Platform::host();
    let index = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [{
            "mediaType": base.manifest.media_type(),
            "digest": base.manifest_digest,
            "size": base.manifest_bytes.len(),
            "platform": { "os": platform.os, "architecture": platform.architecture },
        }],
    });
    Goods { base, index: index.to_string().into_bytes(), image, all, own }
}

fn client(registry: &Registry) -> Client {
    let mut host = phial::host::Host::read();
    host.env = [("DOCKER_AUTH_CONFIG".to_owned(), registry.config().to_string())].into();
    host.home = "/nonexistent".into();
    Client::new(Credentials::from_host(&host)).unwrap().with_retry_policy(quick_timeouts())
}

/// A registry with the base in it, and with what makes a request of that kind happen.
fn registry(kind: Kind, goods: &Goods) -> Registry {
    let quirks = Quirks { lax: true, bare_401: kind == Kind::Ping, ..Quirks::none() };
    let quirks = match kind {
        Kind::Patch => Quirks { max_body: Some((300_000, 413)), max_put: true, ..quirks },
        _ => quirks,
    };
    let registry = Registry::with_tokens(quirks);
    let open = |digest: &Digest| goods.all.open(digest);
    let to = registry.reference("base");
    let push = Push { image: &goods.base, blobs: &open, base: None, tags: &[] };
    let client = client(&registry);
    client.push(&to, &push, &discard).unwrap();
    client.tag(&to, "1", &goods.index, OCI_INDEX).unwrap();
    match kind {
        Kind::Status => registry.fail(Kind::PutBlob, When::Nth(1), Fault::ResetMid),
        Kind::GetRange => registry.fail(Kind::GetBlob, When::Nth(2), Fault::ResetMid),
        _ => {}
    }
    registry
}

/// Resolve, push, pull.
fn there_and_back(registry: &Registry, goods: &Goods) -> Result<(), RegistryError> {
    let client = client(registry);
    let base = client.image(&registry.reference("base:1"), &Platform::host())?;
    assert_eq!(base, goods.base);
    let open = |digest: &Digest| goods.own.open(digest);
    let (from, to, tags) = (registry.reference("base"), registry.reference("app"), ["v1".to_owned()]);
    let push =
        Push { image: &goods.image, blobs: &open, base: Some(BaseLayers { repository: &from, count: 1 }), tags: &tags };
    client.push(&to, &push, &discard)?;
    let image = client.image(&RegistryRef { tag: Some("v1".into()), ..to.clone() }, &Platform::host())?;
    assert_eq!(image, goods.image);
    for layer in &image.manifest.layers {
        let mut bytes = Vec::new();
        client.blob(&to, layer)?.read_to_end(&mut bytes).map_err(|source| {
            let digest = layer.digest.clone();
            RegistryError::Source { digest, source: source.into() }
        })?;
        assert_eq!(Digest::of(&bytes), layer.digest);
    }
    Ok(())
}

/// One cell: how it ended, and what was wrong with that.
fn cell(kind: Kind, fault: Fault, when: When, goods: &Goods) -> Result<Result<(), String>, String> {
    let registry = registry(kind, goods);
    let before = registry.journal().len();
    registry.fail(kind, when, fault);
    let end = there_and_back(&registry, goods);
    let met = registry.journal().iter().skip(before).filter(|entry| entry.fault == Some(fault)).count();
    let output = match &end {
        Ok(()) => Ok(()),
        Err(error) => Err(format!("{} {}", error.exit_kind().code(), chain(error))),
    };
    let digest = &goods.image.manifest_digest;
    let check =
        |is_well: bool, what: &str| if is_well { Ok(()) } else { Err(format!("{what}; it ended with {output:?}")) };
    check(met > 0, "the fault did not happen")?;
    let tag = registry.tag("app", "v1");
    check(tag.as_ref().is_none_or(|tag| tag == digest), "the tag names another image")?;
    check(end.is_err() || tag.is_some(), "success is reported, and there is no tag")?;
    registry.heal();
    let again = there_and_back(&registry, goods);
    check(again.is_ok(), &format!("a rerun does not converge: {again:?}"))?;
    check(registry.tag("app", "v1").as_ref() == Some(digest), "a rerun makes another image")?;
    check(registry.broken_tags().is_empty(), "a tag named an incomplete image")?;
    let journal = registry.journal();
    check(journal.iter().all(|entry| entry.host == registry.host), "a request for another host came here")?;
    let storage_journal = registry.storage_journal();
    check(storage_journal.iter().all(|entry| entry.authorization.is_none()), "another host saw credentials")?;
    Ok(output)
}

#[test]
fn every_request_meets_every_fault() {
    let goods = goods();
    let mut cells = Vec::new();
    for (kind, rows) in ENDS {
        let calm = registry(kind, &goods);
        let before = calm.count(kind);
        there_and_back(&calm, &goods).unwrap();
        let times = calm.count(kind) - before;
        assert!(times > 0, "{kind:?} does not happen");
        for (row, when) in rows.into_iter().zip([When::Nth(1), When::Nth(times), When::Always]) {
            let expected: Vec<char> = row.chars().filter(|end| *end != ' ').collect();
            assert_eq!(expected.len(), Fault::ALL.len(), "{kind:?} {when:?}");
            cells.extend(Fault::ALL.into_iter().zip(expected).map(|(fault, end)| (kind, fault, when, end)));
        }
    }
    let (next, odd) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while let Some(&(kind, fault, when, expected)) = cells.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let end = cell(kind, fault, when, &goods);
                    let found = match &end {
                        Ok(Ok(())) => "o",
                        Ok(Err(output)) => &output[..1],
                        Err(_) => "x",
                    };
                    let is_open = expected == '?' && found != "x";
                    if !is_open && found != expected.to_string() {
                        odd.lock().unwrap().push(format!("{kind:?} {fault:?} {when:?}: not {expected} but {end:?}"));
                    }
                }
            });
        }
    });
    let odd = odd.into_inner().unwrap();
    assert!(odd.is_empty(), "{} of {} cells:\n{}", odd.len(), cells.len(), odd.join("\n"));
}
