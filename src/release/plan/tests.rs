use std::collections::BTreeSet;

use super::*;
use crate::error::UserError as _;
use crate::image::RegistryRef;
use crate::release::judge;

fn registry(name: &str) -> ImageLocation {
    ImageLocation::Registry(name.parse::<RegistryRef>().unwrap())
}

fn digest(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}

/// A place, and its tags with what they name.
type Asked<'a> = (&'a str, &'a [(&'a str, Option<&'a str>)]);

/// The image `new` in `r.example/app`, for these places and tags; what a tag names now is named by its image.
fn facts(places: &[Asked<'_>], proven: bool) -> Facts {
    let places = places.iter().map(|(place, tags)| Seen {
        place: registry(place),
        tags: tags.iter().map(|(tag, now)| ((*tag).to_owned(), now.map(digest))).collect(),
    });
    let verdict = if proven { Verdict::default() } else { judge(vec![], &BTreeSet::from(["test".to_owned()])) };
    Facts { source: registry("r.example/app"), digest: digest("new"), verdict, places: places.collect() }
}

fn leave(moving: bool, expect: Option<&str>, untested: Option<&str>) -> ReleasePolicy {
    ReleasePolicy { moving, expect: expect.map(digest), untested: untested.map(str::to_owned) }
}

#[test]
fn a_name_is_given_kept_moved_or_refused() {
    let now = |now: Option<&'static str>| {
        move |leave: &ReleasePolicy| plan(facts(&[("r.example/app", &[("v1", now)])], true), leave)
    };
    let nothing = leave(false, None, None);
    let moving = leave(true, None, None);
    assert!(now(None)(&nothing).is_ok() && now(Some("new"))(&nothing).is_ok());
    assert!(matches!(now(Some("old"))(&nothing), Err(ReleaseError::Taken { found, .. }) if found == digest("old")));
    assert_eq!(now(Some("old"))(&moving).unwrap().names[0].was, Some(digest("old")));
    let expected = leave(false, Some("old"), None);
    assert!(now(Some("old"))(&expected).is_ok(), "what is expected may be taken");
    assert!(now(Some("new"))(&expected).is_ok(), "done before");
    for found in [None, Some("other")] {
        assert!(matches!(now(found)(&expected), Err(ReleaseError::Unexpected { .. })));
        let moving = ReleasePolicy { moving: true, ..expected.clone() };
        assert!(matches!(now(found)(&moving), Err(ReleaseError::Unexpected { .. })), "`--move` is no way around it");
    }
}

#[test]
fn one_refused_name_refuses_all() {
    let places: [Asked<'_>; 2] = [("r.example/app", &[("v1", None)]), ("s.example/app", &[("v1", Some("old"))])];
    let refused = plan(facts(&places, true), &ReleasePolicy::default()).unwrap_err();
    assert_eq!((refused.to_string().contains("s.example/app:v1"), refused.exit_kind().code()), (true, 7));
}

#[test]
fn places_other_than_the_images_own_get_a_copy() {
    let places: [Asked<'_>; 3] = [
        ("r.example/app", &[("v1", None)]),
        ("s.example/app", &[("v1", None), ("v2", Some("new"))]),
        ("t.example/app", &[]),
    ];
    let plan = plan(facts(&places, true), &ReleasePolicy::default()).unwrap();
    assert_eq!(plan.copies, [registry("s.example/app"), registry("t.example/app")]);
    let names: Vec<String> = plan.names.iter().map(Name::text).collect();
    assert_eq!(names, ["r.example/app:v1", "s.example/app:v1", "s.example/app:v2", "t.example/app"]);
}

#[test]
fn an_excuse_is_written_down_only_where_it_is_needed() {
    let place: [Asked<'_>; 1] = [("r.example/app", &[("v1", None)])];
    let refused = plan(facts(&place, false), &ReleasePolicy::default()).unwrap_err();
    assert_eq!(refused.exit_kind().code(), 7);
    assert!(refused.to_string().contains("it has no test record"), "{refused}");
    let excused = plan(facts(&place, false), &leave(false, None, Some("hotfix"))).unwrap().excuse.unwrap();
    assert_eq!((excused.reason.as_str(), excused.doubts), ("hotfix", vec!["it has no test record".to_owned()]));
    assert_eq!(plan(facts(&place, true), &leave(false, None, Some("hotfix"))).unwrap().excuse, None);
    let taken: [Asked<'_>; 1] = [("r.example/app", &[("v1", Some("old"))])];
    assert!(plan(facts(&taken, false), &leave(false, None, Some("hotfix"))).is_err(), "an excuse takes no name");
}
