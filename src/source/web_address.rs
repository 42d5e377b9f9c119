//! The address of a repository on the web.

/// The address of a repository on the web, the same whichever way it was cloned: `https://host/path`. A repository on this
/// machine has none: it would mean nothing elsewhere.
pub fn web_address(origin: &str) -> Option<String> {
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
