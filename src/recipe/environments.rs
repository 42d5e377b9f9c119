//! The configuration that Mix reads for an environment: `config/config.exs` usually ends with
//! `import_config "#{config_env()}.exs"`, and Mix fails for an environment without that file.

/// The directory of `config.exs`, relative to the root of the app.
const CONFIG: &str = "config";

/// The file that names others by the environment.
pub const CONFIG_FILE: &str = "config/config.exs";

/// A file that `config/config.exs` imports for whichever environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvironmentFile {
    before: String,
    after: String,
}

impl EnvironmentFile {
    /// Its path for an environment, from the root of the app.
    pub fn path(&self, env: &str) -> String {
        format!("{CONFIG}/{}{env}{}", self.before, self.after)
    }
}

/// The files that `config/config.exs` imports for every environment, by its text. An import inside a condition is indented,
/// and is none of these; nor is a pattern or a path that leaves the directory.
pub fn environment_files(config: &str) -> Vec<EnvironmentFile> {
    config.lines().filter_map(imported).collect()
}

fn imported(line: &str) -> Option<EnvironmentFile> {
    let rest = line.strip_prefix("import_config")?.trim_start();
    let rest = rest.strip_prefix('(').map_or(rest, str::trim_start);
    let (before, rest) = rest.strip_prefix('"')?.split_once("#{")?;
    let (expression, rest) = rest.split_once('}')?;
    let (after, rest) = rest.split_once('"')?;
    let is_env = matches!(expression.trim().trim_end_matches("()"), "config_env" | "Mix.env");
    let is_alone = rest.trim().trim_end_matches(')').is_empty();
    let is_plain = |text: &str| !text.contains(['*', '\\', '{', '#', '"']) && !text.contains("..");
    (is_env && is_alone && is_plain(before) && is_plain(after))
        .then(|| EnvironmentFile { before: before.trim_start_matches("./").to_owned(), after: after.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::environment_files;

    fn paths(config: &str) -> Vec<String> {
        environment_files(config).iter().map(|file| file.path("staging")).collect()
    }

    #[test]
    fn an_import_by_the_environment_names_its_file() {
        for line in [
            r##"import_config "#{config_env()}.exs""##,
            r##"import_config "#{Mix.env()}.exs""##,
            r##"import_config("#{Mix.env}.exs")"##,
            r#"import_config "./#{ config_env() }.exs""#,
        ] {
            let config = format!("import Config\nconfig :a, b: 1\n{line}\n");
            assert_eq!(paths(&config), ["config/staging.exs"], "{line}");
        }
        assert_eq!(paths(r#"import_config "envs/#{config_env()}/main.exs""#), ["config/envs/staging/main.exs"]);
    }

    #[test]
    fn other_imports_do_not() {
        for line in [
            r##"# import_config "#{config_env()}.exs""##,
            r##"  import_config "#{config_env()}.exs""##,
            r##"import_config "#{config_env()}.exs", if: true"##,
            r#"import_config "../apps/*/config/#{config_env()}.exs""#,
            r##"import_config "#{System.get_env("X")}.exs""##,
            r#"import_config "secrets.exs""#,
            r##"import_config "#{config_env()"##,
            "import_config",
        ] {
            assert_eq!(paths(line), Vec::<String>::new(), "{line}");
        }
    }
}
