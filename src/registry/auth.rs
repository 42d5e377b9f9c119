//! The `Authorization` of requests: passwords, tokens, and what to do when a registry asks for another one
//! (distribution, `spec/auth/{token,oauth,scope}.md`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{CONTENT_TYPE, HeaderMap, WWW_AUTHENTICATE};
use reqwest::{Method, Url};
use serde::Deserialize;

use super::access::RepositoryAccess;
use super::challenge::{self, Challenge, check_realm, checked_realm};
use super::credentials::Credentials;
use super::error::{LoginUse, RegistryError, is_retryable};
use super::http::{HttpRequest, RequestBody, Response, Transport, error_text, read_bounded, refusal};
use super::login::Login;
use super::url::display_url;
use crate::secret::Secret;

/// Bytes of a token server's response that are read.
const MAX_TOKEN: u64 = 1 << 20;
/// Seconds that a token lasts if its response does not state it (`spec/auth/token.md`).
const DEFAULT_LIFETIME: u64 = 60;

/// The authorization for requests to any number of registries.
pub(super) struct Auth {
    credentials: Credentials,
    state: Mutex<AuthState>,
}

/// What was learned about registries.
#[derive(Default)]
struct AuthState {
    /// The challenge of each host.
    challenges: BTreeMap<String, Challenge>,
    /// By host and repository, since keys of logins may have paths.
    logins: BTreeMap<(String, String), Option<Login>>,
    /// By host and scopes.
    tokens: BTreeMap<(String, BTreeSet<String>), Token>,
    /// Hosts that get no login.
    withheld: BTreeSet<String>,
}

impl AuthState {
    /// An error that tells a login that is withheld from one that was not found.
    fn explain(&self, access: &RepositoryAccess, error: RegistryError) -> RegistryError {
        match error {
            RegistryError::Denied { name, text, .. } if self.withheld.contains(&access.host) => {
                RegistryError::Denied { name, text, login: LoginUse::Withheld }
            }
            other => other,
        }
    }

    /// A fresh token for these scopes, or for more than these: a token for pushing also serves for pulling.
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

/// Whether a scope is part of another one, as `repository:a:pull` is of `repository:a:pull,push`.
fn is_within(scope: &str, more: &str) -> bool {
    scope == more || scope.strip_suffix(":pull").is_some_and(|name| more.strip_suffix(":pull,push") == Some(name))
}

/// An access token.
struct Token {
    /// The value of `Authorization`.
    header: Secret,
    fresh_until: Instant,
}

/// A token server's response, as JSON.
#[derive(Deserialize)]
struct TokenResponse {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<f64>,
}

/// The token in a token server's response, and its lifetime in seconds: at most a day.
pub(super) fn token_of_response(bytes: &[u8]) -> Result<(String, u64), &'static str> {
    let answer: TokenResponse = serde_json::from_slice(bytes).map_err(|_| "its response is not JSON with a token")?;
    let token = answer.token.or(answer.access_token).filter(|token| !token.is_empty());
    let token = token.ok_or("its response has neither `token` nor `access_token`")?;
    let lifetime = answer.expires_in.filter(|lifetime| *lifetime >= 1.0).map_or(DEFAULT_LIFETIME, |lifetime| {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to a day just here")]
        let seconds = lifetime.min(86_400.0) as u64;
        seconds
    });
    Ok((token, lifetime))
}

impl Auth {
    pub(super) fn new(credentials: Credentials) -> Self {
        Self { credentials, state: Mutex::default() }
    }

    pub(super) fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// The way in which a host asked for credentials, for `phial doctor`; `None` if it did not.
    pub(super) fn auth_scheme(&self, host: &str) -> Option<String> {
        match self.state().challenges.get(host)? {
            Challenge::Basic => Some("a user and a password with each request".into()),
            Challenge::Bearer { realm, .. } => {
                let realm = Url::parse(realm).map_or_else(|_| crate::image::shown(realm), |url| display_url(&url));
                Some(format!("a token from `{realm}`"))
            }
        }
    }

    /// From here on the host gets no login.
    pub(super) fn withhold(&self, host: &str) {
        self.state().withheld.insert(host.to_owned());
    }

    fn state(&self) -> MutexGuard<'_, AuthState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The `Authorization` of a request, if the registry has asked for one. One thread gets a token, the others wait for it.
    pub(super) fn header(
        &self,
        transport: &Transport,
        access: &RepositoryAccess,
    ) -> Result<Option<Secret>, RegistryError> {
        let mut state = self.state();
        let Some(challenge) = state.challenges.get(&access.host).cloned() else { return Ok(None) };
        let login = self.login(&mut state, access)?;
        match (challenge, login) {
            (_, Some(Login::Bearer(token))) => Ok(Some(bearer(token.expose()))),
            (Challenge::Basic, login) => match login.as_ref().and_then(Login::user_and_password) {
                Some((user, password)) => Ok(Some(basic(user, password))),
                None => Err(self.denied(&mut state, access, String::new())),
            },
            (Challenge::Bearer { realm, service, .. }, login) => {
                let key = (access.host.clone(), access.scopes());
                if let Some(token) = state.token(&key) {
                    return Ok(Some(token.header.clone()));
                }
                let request = TokenRequest {
                    access,
                    realm: &realm,
                    service: service.as_deref(),
                    scopes: &key.1,
                    login: login.as_ref(),
                };
                let token = request.token(transport).map_err(|error| state.explain(access, error))?;
                let header = token.header.clone();
                state.tokens.insert(key, token);
                Ok(Some(header))
            }
        }
    }

    /// Learns from a response of status 401, so that [`Auth::header`] returns something better than `used`, which was sent.
    pub(super) fn learn(
        &self,
        transport: &Transport,
        access: &RepositoryAccess,
        used: Option<&Secret>,
        response: Response,
    ) -> Result<(), RegistryError> {
        let found = match from_headers(response.headers()) {
            None => ping(transport, access)?,
            found => found,
        };
        let text = error_text(response);
        let mut state = self.state();
        let Some(challenge) = found.or_else(|| state.challenges.get(&access.host).cloned()) else {
            let why = if text.is_empty() { "no `WWW-Authenticate`".into() } else { text };
            return Err(RegistryError::Challenge { host: access.host.clone(), why });
        };
        let login = self.login(&mut state, access)?;
        let is_final = match &challenge {
            Challenge::Basic => {
                let has_some = |login: &Login| login.user_and_password().is_some() || matches!(login, Login::Bearer(_));
                used.is_some() || !login.as_ref().is_some_and(has_some)
            }
            Challenge::Bearer { .. } => used.is_some() && matches!(login, Some(Login::Bearer(_))),
        };
        if is_final {
            return Err(self.denied(&mut state, access, text));
        }
        let key = (access.host.clone(), access.scopes());
        state.tokens.retain(|(host, _), token| *host != key.0 || used != Some(&token.header));
        if let Challenge::Bearer { realm, service, scope: Some(scope), error: Some(error) } = &challenge
            && error == "insufficient_scope"
        {
            let more = scope.split(' ').filter(|scope| scope.starts_with("repository:") && !scope.contains('*'));
            let scopes = key.1.iter().cloned().chain(more.map(str::to_owned)).collect();
            let request =
                TokenRequest { access, realm, service: service.as_deref(), scopes: &scopes, login: login.as_ref() };
            let token = request.token(transport).map_err(|error| state.explain(access, error))?;
            state.tokens.insert(key, token);
        }
        state.challenges.insert(access.host.clone(), challenge);
        Ok(())
    }

    /// The error for a last 401 or a 403.
    pub(super) fn refused(&self, access: &RepositoryAccess, response: Response) -> RegistryError {
        let text = error_text(response);
        self.denied(&mut self.state(), access, text)
    }

    fn denied(&self, state: &mut AuthState, access: &RepositoryAccess, text: String) -> RegistryError {
        let login = LoginUse::of(self.login(state, access).is_ok_and(|login| login.is_some()));
        state.explain(access, RegistryError::Denied { name: access.name(), text, login })
    }

    /// The login for a repository. It is looked up once: a credential helper may be slow.
    fn login(&self, state: &mut AuthState, access: &RepositoryAccess) -> Result<Option<Login>, RegistryError> {
        if state.withheld.contains(&access.host) {
            return Ok(None);
        }
        let key = (access.host.clone(), access.repository.clone());
        if let Some(login) = state.logins.get(&key) {
            return Ok(login.clone());
        }
        let login = self.credentials.find(&access.host, &access.repository)?;
        state.logins.insert(key, login.clone());
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

/// The challenge at `/v2/`: some registries send it there only.
fn ping(transport: &Transport, access: &RepositoryAccess) -> Result<Option<Challenge>, RegistryError> {
    let Ok(url) = access.endpoint.url.join("/v2/") else { return Ok(None) };
    let request = HttpRequest::new(Method::GET, url);
    let response = transport.retry_policy.retry(|| {
        let response = transport.send(&request, None)?;
        if is_retryable(response.status().as_u16()) { Err(refusal(&request, response)) } else { Ok(response) }
    })?;
    Ok(from_headers(response.headers()))
}

/// A request for a token.
struct TokenRequest<'a> {
    access: &'a RepositoryAccess,
    realm: &'a str,
    service: Option<&'a str>,
    scopes: &'a BTreeSet<String>,
    login: Option<&'a Login>,
}

impl TokenRequest<'_> {
    fn token(&self, transport: &Transport) -> Result<Token, RegistryError> {
        let host = self.access.host.clone();
        let realm = checked_realm(self.realm, &self.access.endpoint.url, transport.network())
            .map_err(|(realm, why)| RegistryError::Realm { host, realm, why })?;
        let started = Instant::now();
        let response = match self.login {
            Some(Login::Identity { token, .. }) => {
                let posted = self.post(transport, &realm, token)?;
                // A token server without OAuth2 (go-containerregistry, `bearer.go`).
                let is_unknown = matches!(posted.status().as_u16(), 404 | 405 | 501);
                if is_unknown { self.get(transport, &realm)? } else { posted }
            }
            _ => self.get(transport, &realm)?,
        };
        let refused = |why: String| RegistryError::Token { realm: display_url(&realm), why };
        if !response.status().is_success() {
            if matches!(response.status().as_u16(), 400 | 401 | 403) {
                let (name, login) = (self.access.name(), LoginUse::of(self.login.is_some()));
                return Err(RegistryError::Denied { name, text: error_text(response), login });
            }
            let status = response.status();
            return Err(refused(format!("{} {}", status.as_u16(), error_text(response)).trim().to_owned()));
        }
        let bytes = read_bounded(response, &format!("GET {}", display_url(&realm)), MAX_TOKEN)?;
        let (token, lifetime) = token_of_response(&bytes).map_err(|why| refused(why.into()))?;
        // Renewed after four fifths of its lifetime, so that it does not expire on the way.
        let fresh_until = started + Duration::from_secs(lifetime) * 4 / 5;
        Ok(Token { header: bearer(&token), fresh_until })
    }

    fn get(&self, transport: &Transport, realm: &Url) -> Result<Response, RegistryError> {
        let mut url = realm.clone();
        {
            let mut query = url.query_pairs_mut();
            query.extend_pairs(self.service.map(|service| ("service", service)));
            query.extend_pairs(self.scopes.iter().map(|scope| ("scope", scope.as_str())));
        }
        let header = self.login.and_then(Login::user_and_password).map(|(user, password)| basic(user, password));
        self.send(transport, HttpRequest::new(Method::GET, url), header.as_ref())
    }

    fn post(&self, transport: &Transport, realm: &Url, identity: &Secret) -> Result<Response, RegistryError> {
        let scopes: Vec<&str> = self.scopes.iter().map(String::as_str).collect();
        let mut form = realm.clone();
        form.set_query(None);
        form.query_pairs_mut()
            .append_pair("grant_type", "refresh_token")
            .append_pair("service", self.service.unwrap_or(&self.access.host))
            .append_pair("client_id", "phial")
            .append_pair("scope", &scopes.join(" "))
            .append_pair("refresh_token", identity.expose());
        let mut request =
            HttpRequest::new(Method::POST, realm.clone()).with(CONTENT_TYPE, "application/x-www-form-urlencoded");
        let body = form.query().unwrap_or_default().as_bytes();
        request.body = RequestBody::Bytes(body);
        self.send(transport, request, None)
    }

    /// Redirects follow the rule for token servers.
    fn send(
        &self,
        transport: &Transport,
        request: HttpRequest<'_>,
        header: Option<&Secret>,
    ) -> Result<Response, RegistryError> {
        let rule = |url: &Url| check_realm(url, &self.access.endpoint.url, transport.network());
        let request = HttpRequest { redirect_rule: Some(&rule), ..request };
        let response = transport.send(&request, header).map_err(|error| match error {
            RegistryError::Redirect { to, why, .. } => {
                RegistryError::Realm { host: self.access.host.clone(), realm: to, why }
            }
            other => other,
        })?;
        if is_retryable(response.status().as_u16()) { Err(refusal(&request, response)) } else { Ok(response) }
    }
}
