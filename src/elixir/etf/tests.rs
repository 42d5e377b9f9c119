//! Terms are decoded and encoded; damaged bytes are errors, never panics.

use super::*;

/// `bytes` (without the version) read as `term`, and `term` is written as `canonical`.
fn check(bytes: &[u8], term: &Term, canonical: &[u8]) {
    let with_version = |bytes: &[u8]| [&[VERSION], bytes].concat();
    assert_eq!(decode(&with_version(bytes)).as_ref(), Ok(term), "{bytes:?}");
    assert_eq!(encode(term), with_version(canonical), "{term:?}");
    assert_eq!(decode(&with_version(canonical)).as_ref(), Ok(term), "{canonical:?}");
}

fn same(bytes: &[u8], term: &Term) {
    check(bytes, term, bytes);
}

#[test]
fn numbers_have_one_form() {
    same(&[97, 255], &Term::Int(255));
    same(&[98, 255, 255, 255, 255], &Term::Int(-1));
    check(&[98, 0, 0, 0, 7], &Term::Int(7), &[97, 7]);
    same(&[110, 4, 0, 0, 0, 0, 128], &Term::Int(1 << 31));
    same(&[110, 8, 1, 0, 0, 0, 0, 0, 0, 0, 128], &Term::Int(i64::MIN));
    check(&[110, 5, 0, 1, 0, 0, 0, 0], &Term::Int(1), &[97, 1]);
    same(&[110, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], &Term::Big(0, vec![0, 0, 0, 0, 0, 0, 0, 0, 1]));
    let digits = vec![7_u8; 300];
    same(&[&[111, 0, 0, 1, 44, 1], &digits[..]].concat(), &Term::Big(1, digits.clone()));
    same(&[70, 192, 9, 33, 251, 84, 68, 45, 24], &Term::Float([192, 9, 33, 251, 84, 68, 45, 24]));
}

#[test]
fn old_atoms_become_utf8() {
    check(&[100, 0, 2, b'o', b'k'], &Term::atom("ok"), &[119, 2, b'o', b'k']);
    check(&[115, 1, 0xe9], &Term::atom("é"), &[119, 2, 0xc3, 0xa9]);
    let long = "é".repeat(200);
    same(&[&[118, 1, 144], long.as_bytes()].concat(), &Term::atom(&long));
}

#[test]
fn lists_of_bytes_are_strings_and_other_lists_are_not() {
    let list = Term::List(vec![Term::Int(1), Term::Int(2)], Box::new(Term::Nil));
    assert_eq!(encode(&list), [131, 107, 0, 2, 1, 2]);
    same(&[107, 0, 2, 1, 2], &Term::Str(vec![1, 2]));
    same(&[108, 0, 0, 0, 1, 97, 1, 97, 2], &Term::List(vec![Term::Int(1)], Box::new(Term::Int(2))));
    same(&[108, 0, 0, 0, 1, 98, 0, 0, 1, 0, 106], &Term::List(vec![Term::Int(256)], Box::new(Term::Nil)));
    same(&[106], &Term::Nil);
}

#[test]
fn a_long_string_is_a_list_again() {
    let bytes = vec![9_u8; 70_000];
    let items = bytes.iter().map(|byte| Term::Int(i64::from(*byte))).collect();
    let written = encode(&Term::List(items, Box::new(Term::Nil)));
    assert_eq!(written[..6], [131, 108, 0, 1, 17, 112]);
    assert_eq!(decode(&written).map(|term| encode(&term)), Ok(written));
}

#[test]
fn a_map_is_sorted_by_the_bytes_of_its_keys() {
    let pairs = vec![(Term::atom("b"), Term::Int(1)), (Term::atom("a"), Term::Int(2))];
    let canonical = [131, 116, 0, 0, 0, 2, 119, 1, b'a', 97, 2, 119, 1, b'b', 97, 1];
    assert_eq!(encode(&Term::Map(pairs)), canonical);
}

#[test]
fn what_has_no_meaning_here_keeps_its_bytes() {
    let node = [119, 1, b'n'];
    let pid = [&[88][..], &node, &[0; 12]].concat();
    let reference = [&[90, 0, 2][..], &node, &[7; 12]].concat();
    let export = [&[113][..], &node, &[119, 1, b'f', 97, 1]].concat();
    let fun = [112, 0, 0, 0, 6, 42, 43];
    for bytes in [&pid[..], &reference, &export, &fun, &[99; 32]] {
        same(bytes, &Term::Opaque(bytes.to_vec()));
    }
    same(&[77, 0, 0, 0, 1, 3, 160], &Term::Bits(vec![160], 3));
    same(&[109, 0, 0, 0, 1, 160], &Term::Bin(vec![160]));
}

#[test]
fn a_compressed_term_is_written_plain() {
    use std::io::Write as _;
    let term = Term::Tuple((0..300).map(|n| Term::Int(n % 3)).collect());
    let plain = encode(&term);
    let mut packed = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    packed.write_all(&plain[1..]).expect("into memory");
    let size = u32::try_from(plain.len() - 1).expect("small");
    let packed = [&[131, 80][..], &size.to_be_bytes(), &packed.finish().expect("into memory")].concat();
    assert_eq!(decode(&packed).map(|term| encode(&term)), Ok(plain));
    let mut lying = packed.clone();
    lying[5] -= 1;
    assert_eq!(decode(&lying), Err(EtfError::Compression));
}

#[test]
fn limits_hold() {
    let deep = [&[131][..], &[104, 1].repeat(10_000), &[106]].concat();
    assert_eq!(decode(&deep), Err(EtfError::Limit));
    assert_eq!(decode(&[131, 108, 255, 255, 255, 255, 106]), Err(EtfError::Short));
    assert_eq!(decode(&[131, 80, 255, 255, 255, 255, 0]), Err(EtfError::Limit));
    assert_eq!(decode(&[131, 97, 1, 0]), Err(EtfError::Trailing));
    assert_eq!(decode(&[131, 82, 0]), Err(EtfError::Tag(82)));
    assert_eq!(decode(&[131, 112, 0, 0, 0, 3]), Err(EtfError::Short));
}

#[test]
fn a_list_in_pieces_is_the_whole_list() {
    let whole = Term::List(vec![Term::Int(300), Term::Int(2), Term::Int(3)], Box::new(Term::Nil));
    let first = [108, 0, 0, 0, 1, 98, 0, 0, 1, 44];
    let nothing = [108, 0, 0, 0, 0];
    for tail in [&[107, 0, 2, 2, 3][..], &[108, 0, 0, 0, 2, 97, 2, 97, 3, 106]] {
        let bytes = [&[131], &nothing[..], &first, &nothing, tail].concat();
        assert_eq!(decode(&bytes).as_ref(), Ok(&whole), "{bytes:?}");
        assert_eq!(decode(&encode(&whole)).as_ref(), Ok(&whole));
    }
    assert_eq!(decode(&[&[131], &nothing[..], &nothing, &[106]].concat()), Ok(Term::Nil));
    assert_eq!(decode(&[&[131], &nothing[..], &[97, 1]].concat()), Ok(Term::Int(1)));
}

#[test]
fn the_elements_of_a_list_are_counted_wherever_they_stand() {
    let text = [&[107, 255, 255][..], &vec![1; 65_535]].concat();
    let list = [&[108, 0, 0, 0, 1, 97, 1][..], &text].concat();
    let many = |count: u32| [&[131, 105][..], &count.to_be_bytes(), &list.repeat(count as usize)].concat();
    assert!(decode(&many(60)).is_ok());
    assert_eq!(decode(&many(65)), Err(EtfError::Limit));
}

#[test]
fn an_atom_that_has_no_canonical_form_is_refused() {
    let atom = |length: u16| [&[131, 100][..], &length.to_be_bytes(), &vec![0xe9; length.into()]].concat();
    let written = encode(&decode(&atom(255)).expect("an atom"));
    assert_eq!(decode(&written), Ok(Term::Atom("é".repeat(255).into())));
    assert_eq!(decode(&atom(256)), Err(EtfError::Limit));
    assert_eq!(decode(&atom(40_000)), Err(EtfError::Limit));
}

#[test]
fn mutated_terms_never_panic_and_what_is_read_can_be_written() {
    let seed = encode(&Term::Tuple(vec![
        Term::Map(vec![(
            Term::atom("k"),
            Term::List(vec![Term::Int(1 << 40), Term::Str(vec![1])], Box::new(Term::Nil)),
        )]),
        Term::Opaque(vec![113, 119, 1, b'm', 119, 1, b'f', 97, 1]),
        Term::Bits(vec![1, 2], 4),
        Term::Big(1, vec![5; 12]),
    ]));
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut read = 0;
    for _ in 0..20_000 {
        let mut bytes = seed.clone();
        for _ in 0..3 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let at = usize::try_from(state >> 32).expect("64 bits") % bytes.len();
            bytes[at] = state.to_le_bytes()[0];
        }
        bytes[0] = VERSION;
        if let Ok(term) = decode(&bytes) {
            read += 1;
            let written = encode(&term);
            assert_eq!(decode(&written).map(|again| encode(&again)), Ok(written), "{bytes:?}");
        }
    }
    assert!(read > 100, "only {read} were terms");
}
