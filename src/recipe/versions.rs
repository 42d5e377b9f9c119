//! The versions of Elixir and Erlang that a project asks for, and those that a base image has.
//!
//! The crate `semver` reads neither versions of Erlang (`25.3.2.1`) nor requirements of Mix, whose `~>` and `or` it does not have.

use std::fmt;

/// Where a project says which versions it is written for, in this order.
pub const VERSION_FILES: [&str; 4] = [".tool-versions", "mise.toml", ".mise.toml", "mix.exs"];

/// A program of the base image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// Elixir.
    Elixir,
    /// Erlang/OTP.
    Erlang,
}

impl fmt::Display for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Elixir => "Elixir",
            Self::Erlang => "Erlang/OTP",
        })
    }
}

/// What a file of the project says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedVersion {
    /// Of which program.
    pub tool: Tool,
    /// A version, as far as it is given (`1.18`), or a requirement of Mix (`~> 1.15`).
    pub version: String,
    /// The file.
    pub file: &'static str,
}

/// How exactly versions must agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agreement {
    /// Elixir up to its minor version, Erlang/OTP up to its major version.
    Release,
    /// Every number that the project gives.
    Exact,
}

/// The versions that a file of [`VERSION_FILES`] asks for. What is no version, such as `latest`, is left out.
pub fn wanted_versions(file: &'static str, text: &str) -> Vec<WantedVersion> {
    let found = match file {
        ".tool-versions" => text.lines().filter_map(tool_line).collect(),
        "mix.exs" => requirement_in(text).into_iter().map(|version| (Tool::Elixir, version)).collect(),
        _ => mise_tools(text),
    };
    found.into_iter().map(|(tool, version)| WantedVersion { tool, version, file }).collect()
}

/// Whether a base image that has `version` is what is asked for.
pub fn agrees(wanted: &WantedVersion, version: &str, agreement: Agreement) -> bool {
    if wanted.file == "mix.exs" {
        return satisfies(&wanted.version, version);
    }
    let count = match (agreement, wanted.tool) {
        (Agreement::Exact, _) => usize::MAX,
        (Agreement::Release, Tool::Elixir) => 2,
        (Agreement::Release, Tool::Erlang) => 1,
    };
    let numbers = numbers(&wanted.version);
    let count = count.min(numbers.len());
    self::numbers(version).get(..count) == Some(&numbers[..count])
}

fn tool(name: &str) -> Option<Tool> {
    match name {
        "elixir" => Some(Tool::Elixir),
        "erlang" => Some(Tool::Erlang),
        _ => None,
    }
}

/// `1.18.3-otp-27` without what follows the version.
fn version(text: &str) -> Option<String> {
    let version = text.split(['-', '+']).next().unwrap_or_default();
    (!numbers(version).is_empty()).then(|| version.to_owned())
}

fn tool_line(line: &str) -> Option<(Tool, String)> {
    let mut words = line.split('#').next()?.split_whitespace();
    Some((tool(words.next()?)?, version(words.next()?)?))
}

/// `[tools]` of mise's settings: a version, a list of versions of which the first counts, or a table with `version`.
fn mise_tools(text: &str) -> Vec<(Tool, String)> {
    let Ok(settings) = text.parse::<toml::Table>() else { return vec![] };
    let Some(toml::Value::Table(tools)) = settings.get("tools") else { return vec![] };
    let text_of = |value: &toml::Value| {
        let value = match value {
            toml::Value::Array(versions) => versions.first()?,
            other => other,
        };
        let value = value.get("version").unwrap_or(value);
        value.as_str().map(str::to_owned)
    };
    tools.iter().filter_map(|(name, value)| Some((tool(name)?, version(&text_of(value)?)?))).collect()
}

/// The text of `elixir: "..."` in mix.exs.
fn requirement_in(text: &str) -> Option<String> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    let after = lines
        .filter_map(|line| line.split_once("elixir: \""))
        .find(|(before, _)| before.trim_end().is_empty() || before.trim_end().ends_with([',', '[']));
    after.and_then(|(_, rest)| Some(rest.split_once('"')?.0.to_owned()))
}

/// The leading numbers of a version. Empty for a text without any.
fn numbers(version: &str) -> Vec<u64> {
    version.split(['.', '-']).map_while(|part| part.parse().ok()).collect()
}

/// Whether a version satisfies a requirement of Elixir's module `Version`. What cannot be read is left to Mix.
fn satisfies(requirement: &str, version: &str) -> bool {
    requirement.split(" or ").any(|all| all.split(" and ").all(|one| satisfies_one(one.trim(), version)))
}

fn satisfies_one(requirement: &str, version: &str) -> bool {
    let operator_length = requirement.find(|c: char| c.is_ascii_digit()).unwrap_or(requirement.len());
    let (operator, wanted) = requirement.split_at(operator_length);
    let (wanted, present) = (numbers(wanted), three(&numbers(version)));
    if wanted.is_empty() {
        return true;
    }
    let least = three(&wanted);
    match operator.trim() {
        "~>" => {
            let fixed = wanted.len().saturating_sub(1).max(1);
            present >= least && present[..fixed.min(3)] == least[..fixed.min(3)]
        }
        ">=" => present >= least,
        ">" => present > least,
        "<" => present < least,
        "<=" => present <= least,
        "" | "==" => present == least,
        "!=" | "!" => present != least,
        _ => true,
    }
}

fn three(numbers: &[u64]) -> [u64; 3] {
    [0, 1, 2].map(|nth| numbers.get(nth).copied().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(file: &'static str, text: &str) -> Vec<String> {
        wanted_versions(file, text).iter().map(|wanted| format!("{} {}", wanted.tool, wanted.version)).collect()
    }

    #[test]
    fn asdf_and_mise_name_versions() {
        let asdf = "# tools\nerlang 27.2\nelixir 1.18.3-otp-27 # with OTP\nnodejs 20.1.0\nelixir\n";
        assert_eq!(wanted(".tool-versions", asdf), ["Erlang/OTP 27.2", "Elixir 1.18.3"]);
        assert_eq!(wanted(".tool-versions", "elixir latest\nerlang ref:master\n"), Vec::<String>::new());
        let mise = "[tools]\nelixir = \"1.18\"\nerlang = ['27.2', '26']\nnode = \"20\"\n";
        assert_eq!(wanted("mise.toml", mise), ["Elixir 1.18", "Erlang/OTP 27.2"]);
        assert_eq!(wanted(".mise.toml", "[tools]\nelixir = { version = \"1.19\" }\n"), ["Elixir 1.19"]);
        assert_eq!(wanted("mise.toml", "[tools"), Vec::<String>::new());
    }

    #[test]
    fn mix_names_a_requirement() {
        let mix = "def project do\n  [app: :shop, elixir: \"~> 1.15\",\n   # elixir: \"~> 1.2\"\n  ]\nend";
        assert_eq!(wanted("mix.exs", mix), ["Elixir ~> 1.15"]);
        assert_eq!(wanted("mix.exs", "    elixir: \">= 1.14.0\","), ["Elixir >= 1.14.0"]);
        assert_eq!(wanted("mix.exs", "[app: :shop, using_elixir: \"yes\"]"), Vec::<String>::new());
    }

    #[test]
    fn releases_agree_by_their_numbers_and_exact_ones_by_all() {
        let agree = |tool, asked: &str, present, agreement| {
            agrees(&WantedVersion { tool, version: asked.into(), file: ".tool-versions" }, present, agreement)
        };
        assert!(agree(Tool::Elixir, "1.18.3", "1.18.4", Agreement::Release));
        assert!(!agree(Tool::Elixir, "1.18.3", "1.18.4", Agreement::Exact));
        assert!(agree(Tool::Elixir, "1.18", "1.18.4", Agreement::Exact));
        assert!(!agree(Tool::Elixir, "1.17.3", "1.18.3", Agreement::Release));
        assert!(agree(Tool::Erlang, "27.2", "27.3.4.1", Agreement::Release));
        assert!(!agree(Tool::Erlang, "26.2", "27.3", Agreement::Release));
        assert!(agree(Tool::Elixir, "1.20.0", "1.20.0-rc.4", Agreement::Exact));
    }

    #[test]
    fn requirements_are_those_of_elixir() {
        for (requirement, version, expected) in [
            ("~> 1.15", "1.18.3", true),
            ("~> 1.15", "1.14.5", false),
            ("~> 1.15", "2.0.0", false),
            ("~> 1.15.2", "1.15.9", true),
            ("~> 1.15.2", "1.15.1", false),
            ("~> 1.15.2", "1.16.0", false),
            (">= 1.14.0 and < 1.18.0", "1.17.3", true),
            (">= 1.14.0 and < 1.18.0", "1.18.0", false),
            ("~> 1.14 or ~> 2.0", "2.1.0", true),
            ("1.18.3", "1.18.3", true),
            ("!= 1.18.3", "1.18.3", false),
            ("> 1.18.3", "1.18.3", false),
            ("<= 1.18.3", "1.18.3", true),
            ("what", "1.18.3", true),
        ] {
            assert_eq!(satisfies(requirement, version), expected, "{requirement} {version}");
        }
    }
}
