//! The home of the base image's user, where `mix local.hex` and `mix local.rebar` leave Hex and rebar3.

use std::collections::BTreeMap;

use crate::error::Error;
use crate::runtime::{RuntimeError, user};
use crate::store::Tree;

/// The variable that tells the built-in script this home, if it is not [`HOME`].
pub(super) const BASE_HOME: &str = "PHIAL_BASE_HOME";
/// The home in steps, where the built-in script looks, too.
pub(super) const HOME: &str = "/root";

/// The home of the user `base_user` of the base image's config, if it is another than [`HOME`]. `base_env` are the image's
/// variables, and `trees` those of its layers, topmost first.
pub(super) fn home_of_base(
    base_env: &BTreeMap<String, String>,
    base_user: &str,
    trees: &[Tree],
) -> Result<Option<String>, Error> {
    let of_user = match user(trees, base_user) {
        Err(error) if matches!(error.downcast_ref(), Some(RuntimeError::UnknownUser(_))) => None,
        user => Some(user?.home),
    };
    let home = base_env.get("HOME").cloned().or(of_user);
    Ok(home.filter(|home| home.starts_with('/') && !["/", HOME].contains(&home.as_str())))
}
