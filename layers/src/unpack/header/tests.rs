//! Headers made by hand, and what is read of them.

use super::super::stream::tests::stream;
use super::*;

/// A header with the type `flag` and the right checksum, after `change` was made to its bytes.
fn block(flag: u8, change: impl Fn(&mut [u8])) -> Vec<u8> {
    let mut header = Header::new_ustar();
    header.as_old_mut().name[..4].copy_from_slice(b"name");
    header.as_old_mut().linkflag = [flag];
    header.set_size(0);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    change(header.as_mut_bytes());
    header.set_cksum();
    header.as_bytes().to_vec()
}

fn extension(flag: u8, body: &[u8]) -> Vec<u8> {
    let size = format!("{:011o}", body.len());
    let mut blocks = block(flag, |bytes| bytes[124..135].copy_from_slice(size.as_bytes()));
    blocks.extend_from_slice(body);
    blocks.resize(blocks.len().next_multiple_of(BLOCK), 0);
    blocks
}

fn read(blocks: &[Vec<u8>]) -> Result<Option<TarEntry>, &'static str> {
    next(&mut stream(&[&blocks.concat()], 4 << 20)).map_err(|error| error.code())
}

fn entry(blocks: &[Vec<u8>]) -> TarEntry {
    read(blocks).unwrap().unwrap()
}

fn refused(blocks: &[Vec<u8>]) -> &'static str {
    read(blocks).err().unwrap()
}

#[test]
fn numbers_are_read_as_other_tars_read_them() {
    for (field, value) in [
        (&b"0000644\0"[..], 0o644),
        (b"   644 \0", 0o644),
        (b"\0\0\0\0", 0),
        (b"", 0),
        (b"00000000001\0", 1),
        (b"644\08", 0o644),
        (b"\0 7", 7),
        (b"07777777777777777777", 0o7_777_777_777_777_777_777),
        (&[0x80, 0, 0, 1, 0], 256),
        (&[0xff, 0xff, 0xff], -1),
        (&[0xff, 0xff, 0xfe], -2),
        (&[0x81, 0, 2], 0x1_0002),
        (&[0xbf, 0xf0], 0x3ff0),
        (&[0xc0, 0], -0x4000),
        (&[0x80, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], i64::MAX),
        (&[0xff, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0], i64::MIN),
    ] {
        assert_eq!(parse_numeric(field).unwrap(), value, "{field:?}");
    }
    for bad in [
        &b"0008\0"[..],
        b"-1\0",
        b"6 4\0",
        b"/",
        b"000000000000000000001",
        &[0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0],
        &[0x80, 0, 0x80, 0, 0, 0, 0, 0, 0, 0],
    ] {
        assert_eq!(parse_numeric(bad).unwrap_err().code(), "layer.tar-header", "{bad:?}");
    }
}

#[test]
fn the_type_of_an_entry_is_its_flag() {
    let numbers = |bytes: &mut [u8]| {
        bytes[329..337].copy_from_slice(b"0000010\0");
        bytes[337..345].copy_from_slice(b"0000003\0");
    };
    for (flag, kind) in [
        (0, EntryKind::File),
        (b'0', EntryKind::File),
        (b'7', EntryKind::File),
        (b'1', EntryKind::Hardlink),
        (b'2', EntryKind::Symlink),
        (b'3', EntryKind::CharDevice { major: 8, minor: 3 }),
        (b'4', EntryKind::BlockDevice { major: 8, minor: 3 }),
        (b'5', EntryKind::Directory),
        (b'6', EntryKind::Fifo),
    ] {
        assert_eq!(entry(&[block(flag, numbers)]).kind, kind);
    }
    assert_eq!(entry(&[block(0, |bytes| bytes[4] = b'/')]).kind, EntryKind::Directory);
    assert_eq!(entry(&[block(b'0', |bytes| bytes[4] = b'/')]).kind, EntryKind::File);
    let negative = |bytes: &mut [u8]| bytes[329..337].fill(0xff);
    assert_eq!(entry(&[block(b'3', negative)]).kind, EntryKind::CharDevice { major: 0, minor: 0 });
    for flag in [b'8', b'A', b'D', b'V', b' ', 1] {
        assert_eq!(refused(&[block(flag, |_| {})]), "layer.entry-type", "{flag}");
    }
}

#[test]
fn the_prefix_of_a_name_depends_on_the_format() {
    let prefix = |bytes: &mut [u8]| bytes[345..348].copy_from_slice(b"pre");
    assert_eq!(entry(&[block(b'0', prefix)]).name, b"pre/name");
    assert_eq!(entry(&[block(b'0', |bytes| bytes[345..500].fill(b'p'))]).name.len(), 155 + 5);
    let star = |bytes: &mut [u8]| {
        bytes[345..500].fill(b'p');
        bytes[508..].copy_from_slice(b"tar\0");
    };
    assert_eq!(entry(&[block(b'0', star)]).name.len(), 131 + 5);
    let old = |bytes: &mut [u8]| {
        prefix(bytes);
        bytes[257..265].fill(0);
    };
    assert_eq!(entry(&[block(b'0', old)]).name, b"name", "no format has a prefix");
    let gnu = |times: &'static [u8; 24]| {
        block(b'0', move |bytes| {
            bytes[257..265].copy_from_slice(b"ustar  \0");
            bytes[345..369].copy_from_slice(times);
        })
    };
    assert_eq!(entry(&[gnu(b"00000000001\x0000000000002\0")]).name, b"name", "times of a GNU header");
    assert_eq!(refused(&[gnu(b"pre\0\0\0\0\0\0\0\0\x0000000000002\0")]), "layer.tar-header");
    assert_eq!(refused(&[gnu(b"00000000001\0x0000000002\0")]), "layer.tar-header");
}

#[test]
fn records_and_long_names_replace_fields() {
    let records = b"9 path=p\n14 linkpath=l\n9 uid=11\n9 gid=12\n13 mtime=1.5\n";
    let link = block(b'2', |bytes| bytes[157..161].copy_from_slice(b"link"));
    let long = [extension(b'L', b"long\0rest"), extension(b'K', b"target\0"), link.clone()];
    let (plain, pax, long) =
        (entry(std::slice::from_ref(&link)), entry(&[extension(b'x', records), link]), entry(&long));
    assert_eq!((plain.name, plain.link, plain.mtime), (b"name".to_vec(), b"link".to_vec(), (0, 0)));
    assert_eq!((pax.name, pax.link, pax.uid, pax.gid), (b"p".to_vec(), b"l".to_vec(), 11, 12));
    assert_eq!(pax.mtime, (1, 500_000_000));
    assert_eq!((long.name, long.link), (b"long".to_vec(), b"target".to_vec()));
}

#[test]
fn only_files_have_a_body() {
    let sized = |flag| block(flag, |bytes| bytes[124..135].copy_from_slice(b"00000001001"));
    let (file, dir) = (entry(&[sized(b'0')]), entry(&[sized(b'5')]));
    assert_eq!((file.stored, file.padding, dir.stored, dir.padding), (513, 511, 0, 0));
    let pax = entry(&[extension(b'x', b"10 size=7\n"), sized(b'0')]);
    assert_eq!((pax.stored, pax.padding), (7, 505));
}

#[test]
fn extensions_that_contradict_each_other_are_refused() {
    let (pax, name, link) = (extension(b'x', b"9 path=p\n"), extension(b'L', b"n\0"), extension(b'K', b"l\0"));
    let last = block(b'0', |_| {});
    for [first, second] in
        [[&pax, &pax], [&pax, &name], [&pax, &link], [&name, &pax], [&link, &pax], [&name, &name], [&link, &link]]
    {
        assert_eq!(refused(&[first.clone(), second.clone(), last.clone()]), "layer.pax");
    }
    assert_eq!(refused(&[extension(b'L', b"\0n"), last.clone()]), "layer.pax", "an empty name");
    for alone in [pax.clone(), name, link] {
        assert_eq!(refused(&[alone, vec![0; 1024]]), "layer.truncated", "an extension of nothing");
    }
    let sparse = extension(b'x', b"21 GNU.sparse.size=9\n");
    assert_eq!(refused(&[sparse.clone(), block(b'5', |_| {})]), "layer.sparse", "of a directory");
    assert_eq!(refused(&[sparse, block(b'S', |_| {})]), "layer.pax", "two formats");
    assert_eq!(refused(&[extension(b'x', b"10 size=7\n"), block(b'S', |_| {})]), "layer.pax");
}

#[test]
fn an_extension_has_at_most_1_mib() {
    let comment = |size: usize| {
        let body = [format!("{size} comment=").as_bytes(), &vec![b'c'; size - 17], b"\n"].concat();
        [extension(b'x', &body), block(b'0', |_| {})]
    };
    assert!(read(&comment(1 << 20)).is_ok());
    assert_eq!(refused(&comment((1 << 20) + 1)), "layer.pax");
}

#[test]
fn a_checksum_may_be_of_signed_bytes_but_must_be_right() {
    let summed = |wrong: i64, signed: bool| {
        let mut bytes = block(b'0', |bytes| bytes[..2].fill(0xe9));
        bytes[148..156].fill(b' ');
        let sum = |b: &u8| if signed { i64::from(b.cast_signed()) } else { i64::from(*b) };
        let sum = bytes.iter().map(sum).sum::<i64>() + wrong;
        bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        read(&[bytes]).map(|entry| entry.unwrap().name)
    };
    let name = Ok(b"\xe9\xe9me".to_vec());
    assert_eq!((summed(0, false), summed(0, true)), (name.clone(), name));
    assert_eq!((summed(1, false), summed(1, true)), (Err("layer.tar-header"), Err("layer.tar-header")));
}

#[test]
fn a_tar_ends_with_two_zero_blocks_or_with_the_stream() {
    assert!(read(&[]).unwrap().is_none());
    assert!(read(&[vec![0; 1024]]).unwrap().is_none());
    assert!(read(&[vec![0; 512]]).unwrap().is_none());
    assert_eq!(refused(&[vec![0; 512], block(b'0', |_| {})]), "layer.tar-header");
}

#[test]
fn ids_modes_and_times_are_read_to_their_limits() {
    let extreme = |bytes: &mut [u8]| {
        bytes[100..108].copy_from_slice(b"0177777\0");
        bytes[108..116].copy_from_slice(&[0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
        bytes[136..148].fill(0xff);
    };
    let entry = entry(&[block(b'0', extreme)]);
    assert_eq!((entry.mode, entry.uid, entry.mtime), (0o7777, u32::MAX, (-1, 0)));
    let large = |bytes: &mut [u8]| bytes[108..116].copy_from_slice(&[0x80, 0, 0, 1, 0, 0, 0, 0]);
    assert_eq!(refused(&[block(b'0', large)]), "layer.tar-header");
}
