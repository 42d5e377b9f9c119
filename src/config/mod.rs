//! Settings and plans: in `phial.toml` and on the command line everything may be left out; in a plan nothing is.
//!
//! [`BuildPlan`] and [`TestPlan`] combine the flags, the settings file and the defaults, in this order of precedence.

mod caller;
mod checks;
mod consent;
mod error;
mod file;
mod keys;
mod limits;
mod lock;
mod plan;
mod test_plan;
mod test_settings;
pub mod units;

pub use caller::{CALLER_SECRETS, SecretKind, SettingsOrigin, secret_of};
pub use checks::{check_root, reference, targets, variables};
pub use error::ConfigError;
pub use file::{ClockSetting, FileConfig, ImageSettings, NetworkAccess, PrepareSettings, ReleaseSettings, parse, read};
pub use keys::{KEYS, NAME, SettingKey, ValueKind};
pub(crate) use limits::TEST_LIMITS;
pub use limits::{SizeSetting, TimeSetting};
pub use lock::{LockFile, LockedBase};
pub use plan::{BuildFlags, BuildPlan, ENVS, PreparePlan};
pub use test_plan::{NamedCommand, ReadyCheck, ServicePlan, TestCommands, TestFlags, TestPlan};
pub use test_settings::{CommandLine, CommandSetting, ServiceSettings, TestSettings};

#[cfg(test)]
mod tests;
