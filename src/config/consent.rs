//! What settings may have of the caller's: which variables steps see, and where an image goes.
//!
//! Settings that the caller has chosen (`--config`, the working tree or the repository on this machine that is built) may name
//! variables, targets and images of this machine. Untrusted settings (a commit fetched by URL, an image) may have only what a
//! flag of this call names.
//! The secrets of [`CALLER_SECRETS`](super::CALLER_SECRETS) are never passed because settings name them.

use super::caller::SettingsOrigin;
use super::error::ConfigError;
use super::plan::{BuildFlags, BuildPlan, PreparePlan};
use super::test_plan::TestPlan;
use crate::image::{Reference, Target, shown};
use crate::recipe::PASSED;

/// Those of [`PASSED`] that are secrets: steps of untrusted settings get them only if the caller names them.
const PASSED_SECRETS: [&str; 2] = ["HEX_API_KEY", "HEX_REPOS_KEY"];

impl PreparePlan {
    /// An error if untrusted settings name a variable that the caller has and has not passed by a flag. `is_set` tells whether
    /// the caller has a variable.
    pub fn check_consent(&self, is_set: impl Fn(&str) -> bool) -> Result<(), ConfigError> {
        let unasked = |name: &&String| !self.passed_by_flag.contains(name) && !PASSED.contains(&name.as_str());
        match self.pass.iter().find(|name| unasked(name) && is_set(name)) {
            Some(name) if self.origin != SettingsOrigin::Caller => {
                Err(ConfigError::NotPassed { settings: self.origin.name(), name: shown(name) })
            }
            _ => Ok(()),
        }
    }

    /// The names of the caller's variables that steps may see, each once.
    pub fn visible(&self) -> Vec<&str> {
        let listed = PASSED.iter().copied().filter(|name| !self.withheld().contains(name));
        let named = self.pass.iter().chain(&self.passed_by_flag).map(String::as_str);
        let mut names: Vec<&str> = Vec::new();
        for name in listed.chain(named.filter(|name| !self.withheld().contains(name))) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    /// The secrets of [`PASSED`] that steps do not see.
    pub fn withheld(&self) -> Vec<&'static str> {
        let is_named = |name: &&str| self.passed_by_flag.iter().any(|passed| passed == name);
        match self.origin {
            SettingsOrigin::Caller => Vec::new(),
            _ => PASSED_SECRETS.into_iter().filter(|name| !is_named(name)).collect(),
        }
    }
}

impl BuildPlan {
    /// The registry of the base image, if only untrusted settings name it: it gets no login of the caller's.
    pub fn foreign_registry(&self, flags: &BuildFlags) -> Option<&str> {
        let Reference::Registry(base) = &self.base else { return None };
        let is_foreign = self.prepare.origin != SettingsOrigin::Caller && flags.base.is_none();
        let is_named = self.targets.iter().any(|to| matches!(to, Target::Registry(name) if name.host == base.host));
        (is_foreign && !is_named).then_some(base.host.as_str())
    }

    /// An error if untrusted settings name the target, or as the base image one of this machine, which steps could send away.
    pub fn check_places_are_the_callers(&self, flags: &BuildFlags) -> Result<(), ConfigError> {
        let is_path = !matches!(self.base, Reference::Registry(_));
        if is_path && flags.base.is_none() && self.prepare.origin != SettingsOrigin::Caller {
            let name = shown(&self.base.to_string());
            return Err(ConfigError::ForeignBase { settings: self.prepare.origin.name(), name });
        }
        match &self.image.name {
            Some(name) if flags.to.is_empty() && self.prepare.origin != SettingsOrigin::Caller => {
                Err(ConfigError::ForeignTarget { settings: self.prepare.origin.name(), name: shown(name) })
            }
            _ => Ok(()),
        }
    }
}

impl TestPlan {
    /// An error if untrusted settings name an image of this machine as a service, which tests could send away.
    pub fn check_services_are_the_callers(&self, origin: SettingsOrigin) -> Result<(), ConfigError> {
        let is_path = |image: &Reference| !matches!(image, Reference::Registry(_));
        match self.services.iter().find(|(_, service)| is_path(&service.image)) {
            Some((service, plan)) if origin != SettingsOrigin::Caller => Err(ConfigError::ForeignService {
                settings: origin.name(),
                service: shown(service),
                name: shown(&plan.image.to_string()),
            }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;
    use crate::config::{FileConfig, TestFlags};
    use crate::error::UserError as _;

    fn plan(toml: &str, flags: &BuildFlags, origin: SettingsOrigin) -> Result<PreparePlan, ConfigError> {
        PreparePlan::new(&parse("phial.toml", toml)?, flags, origin)
    }

    #[test]
    fn no_secret_of_the_caller_can_be_named_by_settings() {
        for name in [
            "GIT_TOKEN",
            "GIT_PASSWORD",
            "GIT_CONFIG_VALUE_0",
            "SSH_AUTH_SOCK",
            "SSH_PRIVATE_KEY",
            "GITHUB_TOKEN",
            "GH_TOKEN",
            "GH_ENTERPRISE_TOKEN",
            "GITLAB_TOKEN",
            "DOCKER_AUTH_CONFIG",
            "DOCKER_CONFIG",
            "REGISTRY_AUTH_FILE",
            "PHIAL_REGISTRY_AUTH",
            "AWS_SECRET_ACCESS_KEY",
            "AWS_SESSION_TOKEN",
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            "GOOGLE_APPLICATION_CREDENTIALS",
            "AZURE_CLIENT_SECRET",
            "ARM_CLIENT_SECRET",
            "KUBECONFIG",
            "VAULT_TOKEN",
            "BUILDKITE_AGENT_ACCESS_TOKEN",
            "ACTIONS_RUNTIME_TOKEN",
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
            "ACTIONS_ID_TOKEN_REQUEST_URL",
            "CI_JOB_TOKEN",
            "CI_JOB_JWT_V2",
            "CI_REGISTRY_PASSWORD",
            "CI_REGISTRY_USER",
            "CI_DEPLOY_PASSWORD",
            "CIRCLE_OIDC_TOKEN_V2",
            "SYSTEM_ACCESSTOKEN",
        ] {
            for origin in [SettingsOrigin::Caller, SettingsOrigin::Url, SettingsOrigin::Image] {
                // Not even if the caller names it as well: the settings have no say in it.
                let flags = BuildFlags { pass: vec![name.into()], ..BuildFlags::default() };
                let error = plan(&format!("[prepare]\npass = ['ERL_FLAGS', '{name}']"), &flags, origin).unwrap_err();
                let (text, hint) = (error.to_string(), error.hint().unwrap());
                assert!(text.contains(name) && text.contains("`prepare.pass`"), "{text}");
                assert!(hint.contains(&format!("--pass {name}")), "{hint}");
                assert_eq!(error.exit_kind().code(), 2);
            }
        }
    }

    #[test]
    fn names_that_only_look_like_secrets_are_passed() {
        for name in
            ["OBAN_LICENSE_KEY", "NPM_TOKEN", "OWN_TOKEN", "HEX_API_KEY", "CI_COMMIT_SHA", "GITHUB_SHA", "GITHUB_REF"]
        {
            let plan = plan(&format!("[prepare]\npass = ['{name}']"), &BuildFlags::default(), SettingsOrigin::Caller);
            assert!(plan.unwrap().visible().contains(&name), "{name}");
        }
    }

    #[test]
    fn a_name_that_no_variable_can_have_is_refused() {
        for name in ["", "A=B", "A\\u0000", "A\\nB"] {
            let error =
                plan(&format!("[prepare]\npass = [\"{name}\"]"), &BuildFlags::default(), SettingsOrigin::Caller);
            assert!(error.unwrap_err().to_string().contains("`prepare.pass` is"), "{name}");
            let flags =
                BuildFlags { pass: vec![name.replace("\\u0000", "\0").replace("\\n", "\n")], ..BuildFlags::default() };
            assert!(plan("", &flags, SettingsOrigin::Caller).unwrap_err().to_string().contains("`pass` is"), "{name}");
        }
    }

    #[test]
    fn settings_of_others_get_a_variable_that_the_caller_has_only_by_a_flag() {
        let toml = "[prepare]\npass = ['ONE', 'TWO', 'HEX_MIRROR']";
        let checked = |pass: &[&str], origin, set: &'static [&'static str]| {
            let flags =
                BuildFlags { pass: pass.iter().map(|name| (*name).to_owned()).collect(), ..BuildFlags::default() };
            plan(toml, &flags, origin).unwrap().check_consent(|name| set.contains(&name))
        };
        for origin in [SettingsOrigin::Url, SettingsOrigin::Image] {
            let error = checked(&["ONE"], origin, &["ONE", "TWO", "HEX_MIRROR"]).unwrap_err();
            assert!(error.to_string().contains("`TWO`") && error.hint().unwrap().contains("`--pass TWO`"), "{error}");
            assert!(checked(&["ONE", "TWO"], origin, &["ONE", "TWO", "HEX_MIRROR"]).is_ok());
            assert!(checked(&[], origin, &["HEX_MIRROR"]).is_ok(), "what the caller has not cannot be taken");
        }
        assert!(checked(&[], SettingsOrigin::Caller, &["ONE", "TWO"]).is_ok());
    }

    #[test]
    fn a_registry_gets_a_login_only_if_the_caller_names_it() {
        let file: FileConfig = parse("phial.toml", "[image]\nbase = 'r.example/elixir:1'").unwrap();
        let foreign = |base: Option<&str>, to: &str, origin| {
            let flags = BuildFlags { base: base.map(str::to_owned), to: vec![to.to_owned()], ..BuildFlags::default() };
            let plan = BuildPlan::new(file.clone(), origin, None, &flags, "app").unwrap();
            plan.foreign_registry(&flags).map(str::to_owned)
        };
        let named = Some("r.example/elixir:1");
        assert_eq!(foreign(None, "oci:out", SettingsOrigin::Url).as_deref(), Some("r.example"));
        assert_eq!(foreign(None, "other.example/app", SettingsOrigin::Url).as_deref(), Some("r.example"));
        assert_eq!(foreign(None, "r.example/app", SettingsOrigin::Url), None, "the target is there");
        assert_eq!(foreign(named, "oci:out", SettingsOrigin::Url), None, "a flag names it");
        assert_eq!(foreign(None, "oci:out", SettingsOrigin::Caller), None);
        assert_eq!(foreign(Some("oci:base"), "oci:out", SettingsOrigin::Url), None);
    }

    #[test]
    fn settings_of_others_name_no_service_of_this_machine() {
        let checked = |image: &str, origin| {
            let toml = format!("[test.services.web]\nimage = 'r.example/web'\n[test.services.db]\nimage = '{image}'");
            let file: FileConfig = parse("phial.toml", &toml).unwrap();
            TestPlan::new(&file.test, &TestFlags::default()).unwrap().check_services_are_the_callers(origin)
        };
        for image in ["oci:db", "oci-archive:/var/lib/db.tar"] {
            for origin in [SettingsOrigin::Url, SettingsOrigin::Image] {
                let error = checked(image, origin).unwrap_err();
                assert!(error.to_string().contains(&format!("`{image}` (`test.services.db.image`)")), "{error}");
                assert!(error.hint().unwrap().contains("`--config FILE`"));
                assert_eq!(error.exit_kind().code(), 2);
            }
            assert!(checked(image, SettingsOrigin::Caller).is_ok());
        }
        assert!(checked("r.example/db:1", SettingsOrigin::Image).is_ok());
    }

    #[test]
    fn keys_of_hex_reach_the_steps_of_others_only_by_a_flag() {
        let key = "HEX_API_KEY";
        let sees = |toml: &str, pass: &[&str], origin| {
            let flags =
                BuildFlags { pass: pass.iter().map(|name| (*name).to_owned()).collect(), ..BuildFlags::default() };
            plan(toml, &flags, origin).unwrap().visible().contains(&key)
        };
        assert!(sees("", &[], SettingsOrigin::Caller));
        assert!(!sees("", &[], SettingsOrigin::Url));
        assert!(!sees("[prepare]\npass = ['HEX_API_KEY']", &[], SettingsOrigin::Image));
        assert!(sees("", &[key], SettingsOrigin::Url));
    }
}
