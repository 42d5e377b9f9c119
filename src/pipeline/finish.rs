//! What an image of ours says: its config, its annotations, the record of how it was made.

use std::collections::BTreeMap;

use phial_layers::Digest;

use super::far::{STEP, entry};
use super::{Report, environment};
use crate::config::Plan;
use crate::image::{Image, LABEL, NewLayer, Provenance, Reference, RegistryRef, Terms, assemble};
use crate::prepare::{FORMAT, MIX_HOME, Recipe, Script, WORKDIR};
use crate::source::Commit;

/// The user of an image that names none: `nonroot`, as distroless images number it.
const NOBODY: &str = "65532:65532";

/// The image: what is in the layers, and what it says of itself.
pub(super) fn finish(base: &Image, plan: &Plan, commit: &Commit, layers: &[Report], provenance: &Provenance) -> Image {
    let new: Vec<NewLayer> = layers
        .iter()
        .filter_map(|report| {
            let layer = report.layer.as_ref()?;
            Some(NewLayer {
                diff_id: layer.diff_id.clone(),
                digest: layer.digest.clone(),
                size: layer.size,
                compression: layer.compression,
                created_by: format!("phial {}", report.name),
            })
        })
        .collect();
    let wish = &plan.image;
    let mix = plan.script == Script::BuiltIn;
    let mut env = BTreeMap::new();
    if mix {
        let main = plan.envs.iter().find(|env| *env == "prod").or(plan.envs.last());
        env.extend(main.map(|env| ("MIX_ENV".to_owned(), env.clone())));
        env.insert("LANG".into(), "C.UTF-8".into());
        if !environment(base).contains_key("MIX_HOME") {
            env.insert("MIX_HOME".into(), MIX_HOME.into());
        }
    }
    env.extend(wish.env.clone().unwrap_or_default());
    let mut labels = wish.labels.clone().unwrap_or_default();
    labels.insert(LABEL.into(), provenance.json());
    let default_cmd = || ["mix", "run", "--no-halt"].map(String::from).to_vec();
    let terms = Terms {
        created: commit.time,
        entrypoint: wish.entrypoint.clone(),
        cmd: wish.cmd.clone().or_else(|| (mix && wish.entrypoint.is_none()).then(default_cmd)),
        env,
        working_dir: Some(WORKDIR.into()),
        user: Some(wish.user.clone().unwrap_or_else(|| NOBODY.into())),
        labels,
        annotations: provenance.annotations(),
    };
    assemble(base, &new, &terms)
}

/// What the image says of how it was made: nothing of the machine that made it.
pub(super) fn provenance(
    base: &Image,
    plan: &Plan,
    recipe: &Recipe,
    commit: &Commit,
    (layers, mix_lock): (&[Report], Option<&str>),
) -> Provenance {
    let deps = layers.iter().find(|report| report.name == STEP);
    let source = plan.image.source.clone().or_else(|| commit.origin.as_deref().and_then(web_address));
    let name = match &plan.base {
        Reference::Registry(name) => Some(RegistryRef { digest: None, ..name.clone() }.to_string()),
        _ => None,
    };
    Provenance {
        format: FORMAT,
        commit: commit.sha.clone(),
        source,
        base: name,
        base_digest: base.manifest_digest.clone(),
        envs: plan.envs.clone(),
        compression: format!("{:?}", plan.compression).to_lowercase(),
        network: format!("{:?}", plan.network).to_lowercase(),
        settings: plan.digest(),
        script: recipe.script_digest(),
        lock: mix_lock.map(|text| Digest::of(text.as_bytes())),
        deps_cache: deps.and_then(|report| Some(entry::digest(&report.key, report.layer.as_ref()?))),
    }
}

/// The address of a repository on the web, the same whichever way it was cloned: `https://host/path`. A repository on this
/// machine has none: it would mean nothing elsewhere.
pub(super) fn web_address(origin: &str) -> Option<String> {
    let (scheme, rest) = match origin.split_once("://") {
        Some((scheme, rest)) => (scheme, rest.to_owned()),
        None => ("ssh", origin.replacen(':', "/", 1)),
    };
    let (authority, path) = rest.split_once('/')?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let name = host.rsplit_once(':').map_or(host, |(name, port)| if port.ends_with(']') { host } else { name });
    if name == "localhost" || name.starts_with("127.") || name == "[::1]" {
        return None;
    }
    let host = if scheme == "ssh" { name } else { host };
    let path = path.trim_matches('/');
    Some(format!("https://{host}/{}", path.strip_suffix(".git").unwrap_or(path)))
}

#[cfg(test)]
mod tests {
    use super::web_address;

    #[test]
    fn a_repository_has_one_address_however_it_was_cloned() {
        for origin in [
            "https://git.example/team/app.git",
            "https://ann@git.example/team/app",
            "ssh://git@git.example:2222/team/app.git",
            "git@git.example:team/app.git",
        ] {
            assert_eq!(web_address(origin).as_deref(), Some("https://git.example/team/app"), "{origin}");
        }
        assert_eq!(web_address("https://git.example:8443/app").as_deref(), Some("https://git.example:8443/app"));
        assert_eq!(web_address("http://127.0.0.1:4000/app.git"), None);
        assert_eq!(web_address("http://[::1]:4000/app.git"), None);
    }
}
