//! Targets of the crate `phial-layers`: tars, their compression, and the metadata document.

use std::fs;
use std::io::{Read as _, Write as _};
use std::num::NonZeroUsize;
use std::path::Path;

use phial_layers::{
    Compression, Digest, EntryPath, Limits, Listed, Metadata, PackError, PackOptions, UnpackError, Unpacked,
    decompressed,
};

use crate::hostile_cases;
use crate::tars::{TarBytes, listing};

const LIMITS: Limits = Limits { max_bytes: 4 << 20, max_entries: 500 };

/// The hostile tars of the tests, and one with every kind of entry.
pub(crate) fn tars() -> Vec<Vec<u8>> {
    let mut every = TarBytes::default();
    every.dir("d/").file("d/f", b"content").symlink("ln", "../d").hardlink("h", "d/f").file("d/.wh.x", b"");
    every.pax(&[("path", b"ln/new"), ("mtime", b"1.5"), ("SCHILY.xattr.user.x", b"v")]).file("a", b"body");
    every.extension(b'L', b"ln/long\0").extension(b'K', b"d/f\0").hardlink("b", "c").file("d/.wh..wh..opq", b"");
    let map = [&b"2\n4096\n5\n9000\n6\n"[..], &[0; 497]].concat();
    let sparse = |version: &[(&str, &[u8])], body: &[u8]| {
        let common: [(&str, &[u8]); 2] = [("GNU.sparse.name", b"s"), ("GNU.sparse.size", b"10000")];
        TarBytes::default().pax(&[&common, version].concat()).file("placeholder", body).end()
    };
    let pairs: [(&str, &[u8]); 2] = [("GNU.sparse.offset", b"4096"), ("GNU.sparse.numbytes", b"5")];
    let cases = hostile_cases::all().into_iter().map(|case| case.tar).filter(|tar| tar.len() < 20_000);
    cases
        .chain([
            every.end(),
            sparse(&[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0")], &[&map[..], b"firstsecond"].concat()),
            sparse(&[("GNU.sparse.map", b"4096,5,9000,6"), ("GNU.sparse.numblocks", b"2")], b"firstsecond"),
            sparse(&pairs, b"first"),
        ])
        .collect()
}

/// `bytes` with the right checksum in every header, so that changes get beyond its check.
fn with_checksums(bytes: &[u8]) -> Vec<u8> {
    let mut tar = bytes.to_vec();
    for block in tar.chunks_exact_mut(512).filter(|block| &block[257..262] == b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    tar
}

fn list(blob: &[u8], compression: Compression) -> Result<Listed, UnpackError> {
    phial_layers::list(blob, compression, &LIMITS, &|_, size| size < 1000, &mut |entry| {
        assert_eq!(EntryPath::new(entry.path.as_bytes()), entry.path, "a path is normalised");
        if let Some(bytes) = entry.bytes {
            assert_eq!((entry.size, entry.content), (bytes.len() as u64, Some(Digest::of(&bytes))));
        }
    })
}

/// No bytes make the tar reader panic, and errors are fit for a terminal.
pub(crate) fn list_tar(bytes: &[u8]) {
    let tar = with_checksums(bytes);
    match list(&tar, Compression::None) {
        Ok(listed) => assert_eq!((listed.diff_id.0, listed.digest), (Digest::of(&tar), Digest::of(&tar))),
        Err(error) => assert!(!error.to_string().contains(char::is_control), "{error}"),
    }
}

fn unpack(blob: &[u8], root: &Path) -> Result<Unpacked, UnpackError> {
    fs::create_dir(root).expect("an empty directory");
    phial_layers::unpack(blob, Compression::None, root, &LIMITS)
}

/// Nothing outside the root changes. What unpacks can be listed with the same digests, and packed: the second layer
/// unpacks to the same tree and metadata, and packs to the same bytes.
pub(crate) fn unpack_tar(bytes: &[u8]) {
    let tar = with_checksums(bytes);
    let dir = tempfile::tempdir().expect("a directory");
    let (first, second) = (dir.path().join("first"), dir.path().join("second"));
    let unpacked = unpack(&tar, &first);
    let outside: Vec<_> =
        fs::read_dir(dir.path()).expect("a directory").map(|entry| entry.expect("a name").path()).collect();
    assert_eq!(outside, std::slice::from_ref(&first), "nothing is created outside the root");
    let unpacked = match unpacked {
        Ok(unpacked) => unpacked,
        Err(error) => return assert!(!matches!(error, UnpackError::RootNotEmpty | UnpackError::Root(_)), "{error}"),
    };
    let listed = list(&tar, Compression::None).expect("what unpacks can be listed");
    assert_eq!((listed.diff_id, listed.digest, listed.entries), (unpacked.diff_id, unpacked.digest, unpacked.entries));
    let options = PackOptions { compression: Compression::None, mtime: 0, workers: NonZeroUsize::MIN };
    let mut blob = Vec::new();
    match phial_layers::pack(&first, &unpacked.metadata, &options, &mut blob) {
        Err(PackError::NameTooLong { .. }) => return, // a whiteout's name is longer in a tar
        packed => drop(packed.expect("what unpacks can be packed")),
    }
    let Ok(again) = unpack(&blob, &second) else { return assert!(blob.len() > 1 << 20, "what was packed unpacks") };
    assert_eq!(listing(&second), listing(&first));
    assert_eq!(again.metadata, unpacked.metadata);
    let packed = phial_layers::pack(&second, &again.metadata, &options, &mut std::io::sink()).expect("packs again");
    assert_eq!(packed.digest, Digest::of(&blob), "packing is a function of the tree");
}

fn halves() -> [Vec<u8>; 2] {
    let tar = TarBytes::default().file("a", b"content").symlink("b", "a").end();
    let (first, second) = tar.split_at(700);
    [first.to_vec(), second.to_vec()]
}

/// One member, two, one with all optional header fields, and one with bytes after it.
pub(crate) fn gzips() -> Vec<Vec<u8>> {
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).expect("a vector");
        encoder.finish().expect("a vector")
    };
    let [first, second] = halves();
    let whole = [&first[..], &second].concat();
    let named = flate2::GzBuilder::new().filename("name").comment("comment").extra(*b"xx\x02\0ab").mtime(1);
    let mut named = named.write(Vec::new(), flate2::Compression::none());
    named.write_all(&whole).expect("a vector");
    vec![
        gzip(&whole),
        [gzip(&first), gzip(&second)].concat(),
        named.finish().expect("a vector"),
        [gzip(&whole), b"junk".to_vec()].concat(),
        gzip(&whole)[..60].to_vec(),
    ]
}

/// One frame, two with a skippable one between them, one with a checksum, and one with bytes after it.
pub(crate) fn zstds() -> Vec<Vec<u8>> {
    let [first, second] = halves();
    let whole = [&first[..], &second].concat();
    let frame = |bytes: &[u8]| zstd::bulk::compress(bytes, 1).expect("a frame");
    let mut checked = zstd::stream::Encoder::new(Vec::new(), 1).expect("an encoder");
    checked.include_checksum(true).expect("a flag");
    checked.write_all(&whole).expect("a vector");
    let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"abc"].concat();
    vec![
        frame(&whole),
        [frame(&first), skippable, frame(&second)].concat(),
        checked.finish().expect("a vector"),
        [frame(&whole), b"junk".to_vec()].concat(),
    ]
}

/// Both decompressors read the same tar from what the strict one accepts.
fn compressed(bytes: &[u8], compression: Compression) {
    let Ok(listed) = list(bytes, compression) else { return };
    assert_eq!((listed.digest, listed.size), (Digest::of(bytes), bytes.len() as u64));
    let mut tar = Vec::new();
    let reader = decompressed(bytes, compression).expect("a decoder");
    reader.take(LIMITS.max_bytes + 1).read_to_end(&mut tar).expect("what can be listed can be decompressed");
    assert_eq!(listed.diff_id.0, Digest::of(&tar));
}

/// The framing of gzip.
pub(crate) fn gzip(bytes: &[u8]) {
    compressed(bytes, Compression::Gzip);
}

/// The framing of zstd.
pub(crate) fn zstd(bytes: &[u8]) {
    compressed(bytes, Compression::Zstd);
}

/// Documents with every field, and with paths that are escaped, or must be refused.
pub(crate) fn metadata_documents() -> Vec<Vec<u8>> {
    let documents = [
        r#"{"": {"uid": 1, "gid": 4294967295, "mode": 2541, "xattrs": {"user.a": [0, 255]}}, "a/b%0a%ff": {}}"#,
        r#"{"a%25": {"mode": null}, "\u00e9": {"xattrs": {}}, "..": {}}"#,
        r#"{"/a": {}, "a//b": {}, "%zz": {}, "%+f": {}, "%00": {}}"#,
        r#""sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855""#,
    ];
    documents.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// What parses is written and parsed to the same value, and paths are normalised. Digests are printed as they were parsed.
pub(crate) fn metadata(bytes: &[u8]) {
    if let Ok(digest) = serde_json::from_slice::<Digest>(bytes) {
        let text = serde_json::from_slice::<String>(bytes).expect("a string");
        assert_eq!((digest.as_str(), digest.to_string()), (text.as_str(), text.clone()));
        assert!(matches!((digest.algorithm(), digest.hex().len()), ("sha256", 64) | ("sha512", 128)));
    }
    let Ok(metadata) = serde_json::from_slice::<Metadata>(bytes) else { return };
    for path in metadata.0.keys() {
        assert_eq!(EntryPath::new(path.as_bytes()), *path);
        assert!(!path.as_bytes().contains(&0));
    }
    let json = serde_json::to_vec(&metadata).expect("JSON");
    assert_eq!(serde_json::from_slice::<Metadata>(&json).expect("what was written"), metadata);
}
