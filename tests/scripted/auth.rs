//! Authentication: none, a password, or tokens of a token server.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::fault::Kind;
use super::http::{Request, Response, pairs, respond};
use super::registry::{State, failure};

/// How the registry authenticates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Login {
    Open,
    Basic,
    Bearer,
}

/// The one user.
pub(crate) const USER: &str = "ann";
/// Her password, and her identity token.
pub(crate) const PASSWORD: &str = "a phial holds an elixir";

#[derive(Debug)]
struct Token {
    scopes: Vec<String>,
    uses: usize,
}

/// The tokens that are out.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    made: usize,
    valid: BTreeMap<String, Token>,
}

impl Tokens {
    /// All expire at once.
    pub(super) fn expire(&mut self) {
        self.valid.clear();
    }
}

impl State {
    /// The refusal, if the request may not be.
    pub(super) fn deny(&self, request: &Request, kind: Kind) -> Option<Response> {
        let given = request.header("authorization").unwrap_or_default();
        let is_write = !matches!(request.method.as_str(), "GET" | "HEAD") || kind == Kind::Status;
        let repository = self.repository_of(request).unwrap_or_default();
        match self.login {
            Login::Open => None,
            Login::Basic if is_user(given) => None,
            Login::Basic => Some(self.challenge(request, false)),
            Login::Bearer => {
                let mut contents = self.contents();
                let token = contents.tokens.valid.get_mut(given.strip_prefix("Bearer ").unwrap_or_default());
                let token = token.filter(|token| token.uses > 0);
                let Some(token) = token else { return Some(self.challenge(request, !given.is_empty())) };
                token.uses -= 1;
                let may = |repository: &str, action: &str| {
                    token.scopes.iter().any(|scope| {
                        let Some((name, actions)) = scope.rsplit_once(':') else { return false };
                        name == format!("repository:{repository}") && actions.split(',').any(|a| a == action)
                    })
                };
                let from = request.query("from").filter(|_| kind == Kind::PostMount);
                let is_good = kind == Kind::Ping
                    || may(&repository, if is_write { "push" } else { "pull" })
                        && from.is_none_or(|from| may(&from, "pull"));
                (!is_good).then(|| self.challenge(request, false))
            }
        }
    }

    /// 401, and how to do better.
    pub(super) fn challenge(&self, request: &Request, expired: bool) -> Response {
        let refused = failure(401, "UNAUTHORIZED", "authentication required");
        if self.quirks.bare_401 && request.bare_path() != "/v2/" {
            return refused;
        }
        let own = self.own();
        let mut header = match self.login {
            Login::Bearer => format!("Bearer realm=\"http://{own}/token\",service=\"{own}\""),
            _ => return refused.with("WWW-Authenticate", "Basic realm=\"scripted\""),
        };
        if let Some(repository) = self.repository_of(request) {
            let _ = write!(header, ",scope=\"repository:{repository}:pull,push\"");
        }
        if expired {
            header.push_str(",error=\"invalid_token\"");
        }
        refused.with("WWW-Authenticate", header)
    }

    /// The token server: by GET with the password, or by POST with it as a refresh token.
    pub(super) fn token(&self, request: &Request) -> Response {
        let form = pairs(&String::from_utf8_lossy(&request.body));
        let field = |name: &str| form.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let (is_known, scopes) = if request.method == "POST" {
            let scopes = field("scope").unwrap_or_default().split(' ').map(str::to_owned).collect();
            (field("refresh_token") == Some(PASSWORD), scopes)
        } else {
            (is_user(request.header("authorization").unwrap_or_default()), request.queries("scope"))
        };
        if !is_known {
            return failure(401, "UNAUTHORIZED", "who is that?");
        }
        let mut contents = self.contents();
        contents.tokens.made += 1;
        let name = format!("token-{}", contents.tokens.made);
        contents.tokens.valid.insert(name.clone(), Token { scopes, uses: self.quirks.token_uses });
        respond(200)
            .with("Content-Type", "application/json")
            .body(format!("{{\"token\":\"{name}\",\"expires_in\":300}}"))
    }
}

fn is_user(given: &str) -> bool {
    given == format!("Basic {}", STANDARD.encode(format!("{USER}:{PASSWORD}")))
}
