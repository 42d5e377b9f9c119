//! Tokens and passwords: which header a request gets, and what to do when the registry asks for another
//! (distribution, `spec/auth/{token,oauth,scope}.md`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{CONTENT_TYPE, HeaderMap, WWW_AUTHENTICATE};
use reqwest::{Method, Url};
use serde::Deserialize;

use super::challenge::{self, Challenge, check_realm, checked_realm};
use super::credentials::{Credentials, Login};
use super::error::RegistryError;
use super::http::{Body, Call, Response, Transport, bounded, error_text, is_passing, place, refusal};
use super::secret::Secret;

/// A token's answer is not larger.
const MAX_TOKEN: u64 = 1 << 20;
/// How long a token lasts that does not say so (`spec/auth/token.md`).
const DEFAULT_LIFE: u64 = 60;

/// What a request needs rights for.
#[derive(Clone, Debug)]
pub(super) struct Access<'a> {
    pub(super) host: &'a str,
    pub(super) base: &'a Url,
    /// As `Site::is_lax`.
    pub(super) is_lax: bool,
    pub(super) repository: &'a str,
    pub(super) push: bool,
    /// Another repository on the same host, to mount from.
    pub(super) mount: Option<&'a str>,
}

impl Access<'_> {
    fn scopes(&self) -> BTreeSet<String> {
        let own = format!("repository:{}:{}", self.repository, if self.push { "pull,push" } else { "pull" });
        let mount = self.mount.map(|source| format!("repository:{source}:pull"));
        [own].into_iter().chain(mount).collect()
    }

    fn name(&self) -> String {
        format!("{}/{}", self.host, self.repository)
    }
}

/// What is known of registries so far.
pub(super) struct Auth {
    credentials: Credentials,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// How each host asks.
    challenges: BTreeMap<String, Challenge>,
    /// By host and repository, since keys may hold paths.
    logins: BTreeMap<(String, String), Option<Login>>,
    /// By host and scopes.
    tokens: BTreeMap<(String, BTreeSet<String>), Token>,
}

impl Known {
    /// A token for these scopes that is good for a while, or one for more than them: who may push may pull.
    fn token(&self, key: &(String, BTreeSet<String>)) -> Option<&Token> {
        let now = Instant::now();
        let is_fresh = |token: &&Token| now < token.fresh_until;
        let covers = |have: &BTreeSet<String>| key.1.iter().all(|scope| have.iter().any(|more| is_within(scope, more)));
        let own = self.tokens.get(key).filter(is_fresh);
        own.or_else(|| {
            let others = self.tokens.iter().filter(|((host, have), _)| *host == key.0 && covers(have));
            others.map(|(_, token)| token).find(is_fresh)
        })
    }
}

/// Whether a scope is no more than another: `repository:a:pull` of `repository:a:pull,push`.
fn is_within(scope: &str, more: &str) -> bool {
    scope == more || scope.strip_suffix(":pull").is_some_and(|name| more.strip_suffix(":pull,push") == Some(name))
}

struct Token {
    header: Secret,
    fresh_until: Instant,
}

#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<f64>,
}

impl Auth {
    pub(super) fn new(credentials: Credentials) -> Self {
        Self { credentials, known: Mutex::default() }
    }

    pub(super) fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// How a host asked for credentials, as it may be shown; none if it did not.
    pub(super) fn asks(&self, host: &str) -> Option<String> {
        match self.known().challenges.get(host)? {
            Challenge::Basic => Some("a user and a password with each request".into()),
            Challenge::Bearer { realm, .. } => {
                let realm = Url::parse(realm).map_or_else(|_| crate::image::shown(realm), |url| place(&url));
                Some(format!("a token from `{realm}`"))
            }
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The header for a request, as far as the registry has said what it wants. One thread asks for a token, the others wait.
    pub(super) fn header(&self, transport: &Transport, access: &Access<'_>) -> Result<Option<Secret>, RegistryError> {
        let mut known = self.known();
        let Some(challenge) = known.challenges.get(access.host).cloned() else { return Ok(None) };
        let login = self.login(&mut known, access)?;
        match (challenge, login) {
            (_, Some(Login::Bearer(token))) => Ok(Some(bearer(token.expose()))),
            (Challenge::Basic, login) => match login.as_ref().and_then(Login::pair) {
                Some((user, password)) => Ok(Some(basic(user, password))),
                None => Err(self.denied(&mut known, access, String::new())),
            },
            (Challenge::Bearer { realm, service, .. }, login) => {
                let key = (access.host.to_owned(), access.scopes());
                if let Some(token) = known.token(&key) {
                    return Ok(Some(token.header.clone()));
                }
                let ask =
                    Ask { access, realm: &realm, service: service.as_deref(), scopes: &key.1, login: login.as_ref() };
                let token = ask.token(transport)?;
                let header = token.header.clone();
                known.tokens.insert(key, token);
                Ok(Some(header))
            }
        }
    }

    /// Takes a 401 in, so that [`Auth::header`] does better. `used` is what was sent.
    pub(super) fn learn(
        &self,
        transport: &Transport,
        access: &Access<'_>,
        used: Option<&Secret>,
        response: Response,
    ) -> Result<(), RegistryError> {
        let found = match from_headers(response.headers()) {
            None => ping(transport, access)?,
            found => found,
        };
        let text = error_text(response);
        let mut known = self.known();
        let Some(challenge) = found.or_else(|| known.challenges.get(access.host).cloned()) else {
            let why = if text.is_empty() { "no `WWW-Authenticate`".into() } else { text };
            return Err(RegistryError::Challenge { host: access.host.to_owned(), why });
        };
        let login = self.login(&mut known, access)?;
        let is_hopeless = match &challenge {
            Challenge::Basic => {
                let has_some = |login: &Login| login.pair().is_some() || matches!(login, Login::Bearer(_));
                used.is_some() || !login.as_ref().is_some_and(has_some)
            }
            Challenge::Bearer { .. } => used.is_some() && matches!(login, Some(Login::Bearer(_))),
        };
        if is_hopeless {
            return Err(self.denied(&mut known, access, text));
        }
        let key = (access.host.to_owned(), access.scopes());
        known.tokens.retain(|(host, _), token| *host != key.0 || used != Some(&token.header));
        if let Challenge::Bearer { realm, service, scope: Some(scope), error: Some(error) } = &challenge
            && error == "insufficient_scope"
        {
            let more = scope.split(' ').filter(|scope| scope.starts_with("repository:") && !scope.contains('*'));
            let scopes = key.1.iter().cloned().chain(more.map(str::to_owned)).collect();
            let ask = Ask { access, realm, service: service.as_deref(), scopes: &scopes, login: login.as_ref() };
            let token = ask.token(transport)?;
            known.tokens.insert(key, token);
        }
        known.challenges.insert(access.host.to_owned(), challenge);
        Ok(())
    }

    /// The error for a last 401 or a 403.
    pub(super) fn refused(&self, access: &Access<'_>, response: Response) -> RegistryError {
        let text = error_text(response);
        self.denied(&mut self.known(), access, text)
    }

    fn denied(&self, known: &mut Known, access: &Access<'_>, text: String) -> RegistryError {
        let had_login = self.login(known, access).is_ok_and(|login| login.is_some());
        RegistryError::Denied { name: access.name(), text, had_login }
    }

    /// Looked up once: a helper may be slow.
    fn login(&self, known: &mut Known, access: &Access<'_>) -> Result<Option<Login>, RegistryError> {
        let key = (access.host.to_owned(), access.repository.to_owned());
        if let Some(login) = known.logins.get(&key) {
            return Ok(login.clone());
        }
        let login = self.credentials.find(access.host, access.repository)?;
        known.logins.insert(key, login.clone());
        Ok(login)
    }
}

fn basic(user: &str, password: &Secret) -> Secret {
    Secret::new(format!("Basic {}", STANDARD.encode(format!("{user}:{}", password.expose()))))
}

fn bearer(token: &str) -> Secret {
    Secret::new(format!("Bearer {token}"))
}

fn from_headers(headers: &HeaderMap) -> Option<Challenge> {
    challenge::parse(headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok()))
}

/// Some registries say how they want to be asked at `/v2/` only.
fn ping(transport: &Transport, access: &Access<'_>) -> Result<Option<Challenge>, RegistryError> {
    let Ok(url) = access.base.join("/v2/") else { return Ok(None) };
    let call = Call::new(Method::GET, url);
    let response = transport.patience.retry(|| {
        let response = transport.follow(&call, None)?;
        if is_passing(response.status()) { Err(refusal(&call, response)) } else { Ok(response) }
    })?;
    Ok(from_headers(response.headers()))
}

/// One question to a token server.
struct Ask<'a> {
    access: &'a Access<'a>,
    realm: &'a str,
    service: Option<&'a str>,
    scopes: &'a BTreeSet<String>,
    login: Option<&'a Login>,
}

impl Ask<'_> {
    fn token(&self, transport: &Transport) -> Result<Token, RegistryError> {
        let host = self.access.host.to_owned();
        let realm = checked_realm(self.realm, self.access.base).map_err(|(realm, why)| RegistryError::Realm {
            host,
            realm,
            why,
        })?;
        let asked = Instant::now();
        let response = match self.login {
            Some(Login::Identity { token, .. }) => {
                let posted = self.post(transport, &realm, token)?;
                // A token server that knows no exchange (go-containerregistry, `bearer.go`).
                let is_unknown = matches!(posted.status().as_u16(), 404 | 405 | 501);
                if is_unknown { self.get(transport, &realm)? } else { posted }
            }
            _ => self.get(transport, &realm)?,
        };
        let refused = |why: String| RegistryError::Token { realm: place(&realm), why };
        if !response.status().is_success() {
            if matches!(response.status().as_u16(), 400 | 401 | 403) {
                let (name, had_login) = (self.access.name(), self.login.is_some());
                return Err(RegistryError::Denied { name, text: error_text(response), had_login });
            }
            let status = response.status();
            return Err(refused(format!("{} {}", status.as_u16(), error_text(response)).trim().to_owned()));
        }
        let bytes = bounded(response, &format!("GET {}", place(&realm)), MAX_TOKEN)?;
        let answer: Answer = serde_json::from_slice(&bytes).map_err(|_| refused("its answer is not a token".into()))?;
        let token = answer.token.or(answer.access_token).filter(|token| !token.is_empty());
        let token = token.ok_or_else(|| refused("its answer has neither `token` nor `access_token`".into()))?;
        let life = answer.expires_in.filter(|life| *life >= 1.0).map_or(DEFAULT_LIFE, |life| {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to a day just here")]
            let seconds = life.min(86_400.0) as u64;
            seconds
        });
        // Renewed at four fifths of its life, so that it does not end on the way.
        let fresh_until = asked + Duration::from_secs(life) * 4 / 5;
        Ok(Token { header: bearer(&token), fresh_until })
    }

    fn get(&self, transport: &Transport, realm: &Url) -> Result<Response, RegistryError> {
        let mut url = realm.clone();
        {
            let mut query = url.query_pairs_mut();
            query.extend_pairs(self.service.map(|service| ("service", service)));
            query.extend_pairs(self.scopes.iter().map(|scope| ("scope", scope.as_str())));
        }
        let header = self.login.and_then(Login::pair).map(|(user, password)| basic(user, password));
        self.send(transport, Call::new(Method::GET, url), header.as_ref())
    }

    fn post(&self, transport: &Transport, realm: &Url, identity: &Secret) -> Result<Response, RegistryError> {
        let scopes: Vec<&str> = self.scopes.iter().map(String::as_str).collect();
        let mut form = realm.clone();
        form.set_query(None);
        form.query_pairs_mut()
            .append_pair("grant_type", "refresh_token")
            .append_pair("service", self.service.unwrap_or(self.access.host))
            .append_pair("client_id", "phial")
            .append_pair("scope", &scopes.join(" "))
            .append_pair("refresh_token", identity.expose());
        let mut call = Call::new(Method::POST, realm.clone()).with(CONTENT_TYPE, "application/x-www-form-urlencoded");
        let body = form.query().unwrap_or_default().as_bytes();
        call.body = Body::Bytes(body);
        self.send(transport, call, None)
    }

    /// Redirects of the token server are held to the rule for token servers, and get no credentials elsewhere.
    fn send(&self, transport: &Transport, call: Call<'_>, header: Option<&Secret>) -> Result<Response, RegistryError> {
        let rule = |url: &Url| check_realm(url, self.access.base);
        let call = Call { rule: Some(&rule), ..call };
        let response = transport.follow(&call, header).map_err(|error| match error {
            RegistryError::Redirect { to, why, .. } => {
                RegistryError::Realm { host: self.access.host.to_owned(), realm: to, why }
            }
            other => other,
        })?;
        if is_passing(response.status()) { Err(refusal(&call, response)) } else { Ok(response) }
    }
}
