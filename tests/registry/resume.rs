//! Going on after something broke off, was refused for its size, or went missing meanwhile.

use std::sync::atomic::{AtomicUsize, Ordering};

use phial::image::{BlobReader, Descriptor, Image};
use phial::registry::Pushed;
use phial_layers::Digest;

use super::faults::{client, layer, push, read};
use super::sample_images::{BlobMap, two_layers};
use super::scripted::{Request, Response, Server, respond};

/// Serves `hello` in parts: the first answer breaks off after two bytes, further ones are `rest`.
fn in_parts(rest: impl Fn(&Request) -> Response + Send + Sync + 'static) -> Server {
    let count = AtomicUsize::new(0);
    Server::start(move |request| match count.fetch_add(1, Ordering::Relaxed) {
        0 => respond(200).with("Content-Length", "5").body("he"),
        _ => rest(request),
    })
}

#[test]
fn an_interrupted_download_resumes_with_or_without_range_requests() {
    let part = |range: &'static str| move |_: &Request| respond(206).with("Content-Range", range).body("llo");
    let good = in_parts(part("bytes 2-4/5"));
    assert_eq!(read(&good, &layer(b"hello")).unwrap(), b"hello");
    assert_eq!(good.requests()[1].headers["range"], "bytes=2-");
    assert_eq!(read(&in_parts(part("bytes 2-4/*")), &layer(b"hello")).unwrap(), b"hello");
    // The whole instead of the rest; a part that is another one; a refusal of parts: the whole is read again.
    let whole = |request: &Request, odd: Response| {
        if request.headers.contains_key("range") { odd } else { respond(200).body("hello") }
    };
    for odd in [
        respond(200).body("hello"),
        respond(206).with("Content-Range", "bytes 0-2/5").body("hel"),
        respond(206).with("Content-Range", "bytes 2-4/6").body("llo"),
        respond(206).with("Content-Range", "bytes 99999999999999999999-4/5").body("llo"),
        respond(206).body("llo"),
        respond(416).with("Content-Range", "bytes */5"),
        respond(404),
        respond(403),
    ] {
        let odd_length = format!("{odd:?}");
        let server = in_parts(move |request| whole(request, odd.clone()));
        let read = read(&server, &layer(b"hello"));
        // 403 is the registry's word about us, and no word about parts.
        if odd_length.contains("status: 403") {
            assert!(read.unwrap_err().contains("refuses access"), "{odd_length}");
        } else {
            assert_eq!(read.unwrap(), b"hello", "{odd_length}");
        }
    }
    let stubborn = in_parts(|_| respond(200).with("Content-Length", "5").body("he"));
    let error = read(&stubborn, &layer(b"hello")).unwrap_err();
    assert!(error.contains("broke off"), "{error}");
    assert_eq!(stubborn.requests().len(), 5, "not for ever");
}

#[test]
fn an_expired_signed_url_is_requested_again() {
    let count = AtomicUsize::new(0);
    let store =
        Server::start(move |request| match (count.fetch_add(1, Ordering::Relaxed), request.path.contains("sign=2")) {
            (0, _) => respond(200).with("Content-Length", "5").body("he"),
            (_, true) => respond(206).with("Content-Range", "bytes 2-4/5").body("llo"),
            _ => respond(403).body("<Error>Request has expired</Error>"),
        });
    let (to, count) = (store.host.clone(), AtomicUsize::new(0));
    let server = Server::start(move |_| {
        let nth = count.fetch_add(1, Ordering::Relaxed) + 1;
        respond(307).with("Location", format!("http://{to}/blob?sign={nth}"))
    });
    assert_eq!(read(&server, &layer(b"hello")).unwrap(), b"hello");
}

#[test]
fn the_minimum_chunk_size_of_a_registry_is_obeyed_and_nonsense_is_not() {
    for (odd_length, expected) in
        [("400000", 3), ("abc", 3), ("-1", 3), ("999999999999999999999999", 3), ("99999999999", 1)]
    {
        let bytes = super::sample_images::noise(3, 1_000_000);
        let patched = std::sync::Arc::new(AtomicUsize::new(0));
        let count = std::sync::Arc::clone(&patched);
        let server = Server::start(move |request| match request.method.as_str() {
            "POST" => respond(202).with("Location", "/u").with("OCI-Chunk-Min-Length", odd_length),
            "PUT" if !request.body.is_empty() => respond(413),
            "PUT" => respond(201),
            "PATCH" if odd_length == "400000" && request.body.len() < 400_000 && request.body.len() != 200_000 => {
                respond(400)
            }
            "PATCH" => {
                count.fetch_add(1, Ordering::Relaxed);
                respond(202).with("Location", "/u").with("Range", "0-0")
            }
            _ => respond(404),
        });
        let blob = layer(&bytes);
        let open = move |_: &Digest| {
            let noise = super::sample_images::noise(3, 1_000_000);
            Ok(Some(Box::new(std::io::Cursor::new(noise)) as BlobReader))
        };
        let pushed = client().push_blob(&server.reference("app"), &blob, &open, &[]);
        assert_eq!(pushed.unwrap(), Pushed::Uploaded, "{odd_length}");
        let chunks = patched.load(Ordering::Relaxed);
        assert!(chunks <= expected && chunks > 0, "{odd_length}: {chunks}");
        let sent: usize = server
            .requests()
            .iter()
            .filter(|request| request.method == "PATCH")
            .map(|request| request.body.len())
            .sum();
        assert_eq!(sent, 1_000_000, "{odd_length}");
        let ranges: Vec<String> =
            server.requests().iter().filter_map(|request| request.headers.get("content-range").cloned()).collect();
        assert!(ranges[0].starts_with("0-") && ranges.last().unwrap().ends_with("-999999"), "{ranges:?}");
    }
}

fn blobs(image: &Image) -> Vec<Descriptor> {
    image.manifest.layers.iter().chain([&image.manifest.config]).cloned().collect()
}

/// The answer to HEAD of a blob that is there.
fn has(blobs: &[Descriptor], request: &Request) -> Response {
    let found = blobs.iter().find(|blob| request.path.ends_with(blob.digest.as_str()));
    found.map_or_else(|| respond(404), |blob| respond(200).with("Content-Length", blob.size.to_string()))
}

#[test]
fn a_blob_that_was_cleaned_up_meanwhile_is_sent_again() {
    let mut blob_map = BlobMap::default();
    let image = two_layers(&mut blob_map, b"one");
    let (digest, blobs) = (image.manifest_digest.to_string(), blobs(&image));
    let count = AtomicUsize::new(0);
    let gone = r#"{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"gone"}]}"#;
    let server = Server::start(move |request| match request.method.as_str() {
        "HEAD" if request.path.contains("/blobs/") => has(&blobs, request),
        "HEAD" if count.load(Ordering::Relaxed) > 1 => respond(200).with("Docker-Content-Digest", digest.clone()),
        "POST" => respond(202).with("Location", "/u"),
        "PUT" if request.path.contains("/manifests/sha256") && count.fetch_add(1, Ordering::Relaxed) == 0 => {
            respond(400).body(gone)
        }
        "PUT" => respond(201),
        _ => respond(404),
    });
    push(&server, &image, &blob_map).unwrap();
    assert_eq!(server.count("PUT", "/u?"), 3, "two layers and the config");
    assert_eq!(server.count("PUT", "/manifests/sha256"), 2);
}

#[test]
fn a_manifest_that_is_not_replicated_yet_is_waited_for() {
    let mut blob_map = BlobMap::default();
    let image = two_layers(&mut blob_map, b"one");
    let (digest, blobs) = (image.manifest_digest.to_string(), blobs(&image));
    let looks = AtomicUsize::new(0);
    let server = Server::start(move |request| match request.method.as_str() {
        "HEAD" if request.path.contains("/blobs/") => has(&blobs, request),
        "HEAD" if looks.fetch_add(1, Ordering::Relaxed) > 4 => {
            respond(200).with("Docker-Content-Digest", digest.clone())
        }
        "PUT" => respond(201),
        _ => respond(404),
    });
    push(&server, &image, &blob_map).unwrap();
    assert_eq!(server.count("PUT", ""), 2, "the manifest and the tag, each once");
}

#[test]
fn tags_are_read_to_their_end_and_no_further() {
    let client = client();
    let pages = Server::start(|request| {
        let next = |to: &str| format!("<{to}>; rel=\"next\"");
        match request.path.split_once('?').unwrap().1 {
            "n=1000" => respond(200)
                .with("Link", next("/v2/app/tags/list?n=1000&last=b"))
                .body(r#"{"name":"app","tags":["b","a",null,"sha256:0"]}"#),
            "n=1000&last=b" => {
                respond(200).with("Link", next("/v2/app/tags/list?n=1000&last=b")).body(r#"{"tags":["c","a"]}"#)
            }
            _ => respond(400),
        }
    });
    assert_eq!(client.tags(&pages.reference("app")).unwrap(), ["a", "b", "c"]);
    assert_eq!(pages.requests().len(), 2, "a page that leads to itself is the last");
    for none in [respond(404), respond(200).body(r#"{"name":"app","tags":null}"#), respond(200).body("{}")] {
        let server = Server::start(move |_| none.clone());
        assert_eq!(client.tags(&server.reference("app")).unwrap(), Vec::<String>::new());
    }
    let elsewhere = Server::start(|_| respond(200).body(r#"{"tags":["stolen"]}"#));
    let to = format!("<http://{}/v2/app/tags/list>; rel=\"next\"", elsewhere.host);
    let leads = Server::start(move |_| respond(200).with("Link", to.clone()).body(r#"{"tags":["a"]}"#));
    assert!(
        client
            .tags(&leads.reference("app"))
            .unwrap_err()
            .to_string()
            .contains("the next page of a list is on another host")
    );
    assert_eq!(elsewhere.requests().len(), 0);
    let endless = Server::start(|request| {
        let nth = request.query("last").and_then(|last| last.parse::<u64>().ok()).unwrap_or(0) + 1;
        respond(200)
            .with("Link", format!("</v2/app/tags/list?last={nth}>; rel=\"next\""))
            .body(format!(r#"{{"tags":["{nth}"]}}"#))
    });
    assert!(client.tags(&endless.reference("app")).unwrap_err().to_string().contains("more than 1000 pages"));
    let page = Server::start(|_| respond(200).body("<html>"));
    assert!(client.tags(&page.reference("app")).unwrap_err().to_string().contains("its list of tags is not the JSON"));
}
