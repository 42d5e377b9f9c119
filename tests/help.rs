//! Every word of `--help`, as a snapshot that reviewers read. After a change: `INSTA_UPDATE=always cargo test --test phial help::`.

use std::process::Command;

use insta::assert_snapshot;

use crate::harness::run;

/// The help of a command, and of each command below it, with its name as the snapshots have it.
fn help(command: &[&str], found: &mut Vec<(String, String)>) {
    let mut phial = Command::new(env!("CARGO_BIN_EXE_phial"));
    phial.args(command).arg("--help").env_clear();
    let text = run(phial).ok();
    let list = text.split_once("\nCommands:\n").map_or("", |(_, list)| list);
    let lines = list.lines().take_while(|line| !line.is_empty()).filter_map(|line| line.strip_prefix("  "));
    let names = lines.filter_map(|line| line.split(' ').next()).filter(|name| !name.is_empty());
    let below: Vec<String> = names.filter(|name| *name != "help").map(str::to_owned).collect();
    found.push(([&["phial"], command].concat().join("-"), text));
    for name in &below {
        help(&[command, &[name]].concat(), found);
    }
}

#[test]
fn every_command_explains_itself_in_the_words_that_were_reviewed() {
    let mut found = Vec::new();
    help(&[], &mut found);
    assert!(found.len() > 10, "{found:?}");
    for (name, text) in found {
        assert_snapshot!(name, text);
    }
}
