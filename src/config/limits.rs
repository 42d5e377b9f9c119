//! Limits of a step, and the settings of sizes and times.

use std::time::Duration;

use serde::Deserialize;

use super::checks::invalid;
use super::error::ConfigError;
use super::units;
use crate::sandbox::UsageLimits;

/// The longest that a step may take. An honest build needs less.
const STEP_TIMEOUT: Duration = Duration::from_secs(6 * 3600);
/// The most output of one step or test command, in bytes.
const MAX_OUTPUT: u64 = 256_000_000;
/// The most processes and threads at one time.
const MAX_PROCESSES: u32 = 4096;
/// The most memory of all processes, in bytes: a compiler of Elixir needs a tenth of it.
const MAX_MEMORY: u64 = 32_000_000_000;

/// A number of seconds, or a text such as `90s`, `10m`, `1h`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "a time is a number of seconds, or a text such as `10m`")]
pub enum TimeSetting {
    /// Seconds.
    Seconds(u64),
    /// A number, with or without a unit.
    Text(String),
}

/// A number of bytes, or a text such as `500MB`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "a size is a number of bytes, or a text such as `500MB`")]
pub enum SizeSetting {
    /// Bytes.
    Bytes(u64),
    /// A number, with or without a unit.
    Text(String),
}

/// The limits of `[prepare]` that are set.
#[derive(Clone, Copy)]
pub(super) struct LimitSettings<'a> {
    pub(super) timeout: Option<&'a TimeSetting>,
    pub(super) max_output: Option<&'a SizeSetting>,
    pub(super) max_processes: Option<u32>,
    pub(super) max_memory: Option<&'a SizeSetting>,
}

/// The limits of a test command or a service, whose time has a setting of its own.
pub(crate) const TEST_LIMITS: UsageLimits =
    UsageLimits { time: None, output: Some(MAX_OUTPUT), processes: Some(MAX_PROCESSES), memory: Some(MAX_MEMORY) };

/// The limits of a step.
pub(super) fn step_limits(settings: LimitSettings<'_>) -> Result<UsageLimits, ConfigError> {
    let LimitSettings { timeout, max_output, max_processes, max_memory } = settings;
    if let Some(few) = max_processes.filter(|processes| *processes < 16) {
        return Err(invalid("prepare.max_processes", &few.to_string(), "but a step needs 16 processes or more"));
    }
    Ok(UsageLimits {
        time: Some(timeout.map_or(Ok(STEP_TIMEOUT), |time| duration("prepare.timeout", time))?),
        output: Some(max_output.map_or(Ok(MAX_OUTPUT), |size| bytes("prepare.max_output", size))?),
        processes: Some(max_processes.unwrap_or(MAX_PROCESSES)),
        memory: Some(max_memory.map_or(Ok(MAX_MEMORY), |size| bytes("prepare.max_memory", size))?),
    })
}

/// A time of at least one second.
pub(super) fn duration(key: &str, time: &TimeSetting) -> Result<Duration, ConfigError> {
    let (seconds, value) = match time {
        TimeSetting::Seconds(seconds) => (Some(*seconds), seconds.to_string()),
        TimeSetting::Text(text) => (units::seconds(text).or_else(|| units::seconds(&format!("{text}s"))), text.clone()),
    };
    let seconds = seconds.filter(|seconds| (1..=u64::from(u32::MAX)).contains(seconds));
    let reason = "but a time is a number of seconds above 0, or a text such as `90s`, `10m`, `1h`";
    seconds.map(Duration::from_secs).ok_or_else(|| invalid(key, &value, reason))
}

fn bytes(key: &str, size: &SizeSetting) -> Result<u64, ConfigError> {
    let (bytes, value) = match size {
        SizeSetting::Bytes(bytes) => (Some(*bytes), bytes.to_string()),
        SizeSetting::Text(text) => (units::bytes(text), text.clone()),
    };
    let reason = "but a size is a number of bytes above 0, or a text such as `500MB`, `1GB`";
    bytes.filter(|bytes| *bytes > 0).ok_or_else(|| invalid(key, &value, reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_set_has_a_limit_and_what_makes_no_sense_is_refused() {
        let none = LimitSettings { timeout: None, max_output: None, max_processes: None, max_memory: None };
        let limits = step_limits(none).unwrap();
        assert_eq!(limits.time.map(|time| time.as_secs()), Some(21600));
        assert_eq!((limits.output, limits.processes), (Some(256_000_000), Some(4096)));
        let (timeout, max_output) = (TimeSetting::Text("90s".into()), SizeSetting::Text("2kB".into()));
        assert_eq!(limits.memory, Some(32_000_000_000));
        let max_memory = SizeSetting::Text("3GB".into());
        let set = LimitSettings {
            timeout: Some(&timeout),
            max_output: Some(&max_output),
            max_processes: Some(16),
            max_memory: Some(&max_memory),
        };
        let limits = step_limits(set).unwrap();
        assert_eq!(limits.time.map(|time| time.as_secs()), Some(90));
        assert_eq!((limits.output, limits.processes, limits.memory), (Some(2000), Some(16), Some(3_000_000_000)));
        let error = step_limits(LimitSettings { max_processes: Some(15), ..none }).unwrap_err().to_string();
        assert!(error.contains("prepare.max_processes"), "{error}");
        for size in [SizeSetting::Bytes(0), SizeSetting::Text("much".into()), SizeSetting::Text("1.5GB".into())] {
            let error = step_limits(LimitSettings { max_output: Some(&size), ..none }).unwrap_err().to_string();
            assert!(error.contains("prepare.max_output"), "{error}");
        }
        let zero = TimeSetting::Seconds(0);
        assert!(step_limits(LimitSettings { timeout: Some(&zero), ..none }).is_err());
    }
}
