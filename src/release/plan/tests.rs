use std::collections::BTreeSet;

use super::*;
use crate::error::UserError as _;
use crate::image::RegistryRef;
use crate::release::evaluate;

fn registry(name: &str) -> ImageLocation {
    ImageLocation::Registry(name.parse::<RegistryRef>().unwrap())
}

fn digest(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}

/// A repository, and its tags with the content of the image that each points to.
type Asked<'a> = (&'a str, &'a [(&'a str, Option<&'a str>)]);

/// The image `new` in `r.example/app`, to be released in these repositories under these tags.
fn inspection(places: &[Asked<'_>], proven: bool) -> Inspection {
    let destinations = places.iter().map(|(place, tags)| Destination {
        location: registry(place),
        tags: tags.iter().map(|(tag, now)| TagState { tag: (*tag).to_owned(), current: now.map(digest) }).collect(),
    });
    let verdict = if proven { Verdict::default() } else { evaluate(vec![], &BTreeSet::from(["test".to_owned()])) };
    Inspection {
        source: registry("r.example/app"),
        digest: digest("new"),
        verdict,
        destinations: destinations.collect(),
    }
}

fn policy(may_move: bool, expect: Option<&str>, untested: Option<&str>) -> ReleasePolicy {
    ReleasePolicy { may_move, expect: expect.map(digest), untested: untested.map(str::to_owned) }
}

#[test]
fn a_name_is_given_kept_moved_or_refused() {
    let now = |now: Option<&'static str>| {
        move |policy: &ReleasePolicy| plan(inspection(&[("r.example/app", &[("v1", now)])], true), policy)
    };
    let nothing = policy(false, None, None);
    let may_move = policy(true, None, None);
    assert!(now(None)(&nothing).is_ok() && now(Some("new"))(&nothing).is_ok());
    assert!(matches!(now(Some("old"))(&nothing), Err(ReleaseError::Taken { found, .. }) if found == digest("old")));
    assert_eq!(now(Some("old"))(&may_move).unwrap().names[0].previous, Some(digest("old")));
    let expected = policy(false, Some("old"), None);
    assert!(now(Some("old"))(&expected).is_ok(), "what is expected may be taken");
    assert!(now(Some("new"))(&expected).is_ok(), "done before");
    for found in [None, Some("other")] {
        assert!(matches!(now(found)(&expected), Err(ReleaseError::Unexpected { .. })));
        let may_move = ReleasePolicy { may_move: true, ..expected.clone() };
        assert!(matches!(now(found)(&may_move), Err(ReleaseError::Unexpected { .. })), "`--move` is no way around it");
    }
}

#[test]
fn one_refused_name_refuses_all() {
    let locations: [Asked<'_>; 2] = [("r.example/app", &[("v1", None)]), ("s.example/app", &[("v1", Some("old"))])];
    let refused = plan(inspection(&locations, true), &ReleasePolicy::default()).unwrap_err();
    assert_eq!((refused.to_string().contains("s.example/app:v1"), refused.exit_kind().code()), (true, 7));
}

#[test]
fn places_other_than_the_images_own_get_a_copy() {
    let locations: [Asked<'_>; 3] = [
        ("r.example/app", &[("v1", None)]),
        ("s.example/app", &[("v1", None), ("v2", Some("new"))]),
        ("t.example/app", &[]),
    ];
    let plan = plan(inspection(&locations, true), &ReleasePolicy::default()).unwrap();
    assert_eq!(plan.copies, [registry("s.example/app"), registry("t.example/app")]);
    let names: Vec<String> = plan.names.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["r.example/app:v1", "s.example/app:v1", "s.example/app:v2", "t.example/app"]);
}

#[test]
fn a_reason_is_recorded_only_where_it_is_needed() {
    let locations: [Asked<'_>; 1] = [("r.example/app", &[("v1", None)])];
    let refused = plan(inspection(&locations, false), &ReleasePolicy::default()).unwrap_err();
    assert_eq!(refused.exit_kind().code(), 7);
    assert!(refused.to_string().contains("it has no test record"), "{refused}");
    let untested = plan(inspection(&locations, false), &policy(false, None, Some("hotfix"))).unwrap().untested.unwrap();
    assert_eq!((untested.reason.as_str(), untested.problems), ("hotfix", vec!["it has no test record".to_owned()]));
    assert_eq!(plan(inspection(&locations, true), &policy(false, None, Some("hotfix"))).unwrap().untested, None);
    let taken: [Asked<'_>; 1] = [("r.example/app", &[("v1", Some("old"))])];
    assert!(plan(inspection(&taken, false), &policy(false, None, Some("hotfix"))).is_err(), "a reason moves no tag");
}
