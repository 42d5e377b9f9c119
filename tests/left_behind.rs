//! A step, a test and a command end with the process that was started, whatever it leaves running, and nothing is left.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::busybox::busybox_base_with;
use crate::harness::prebuilt::elixir_base;
use crate::harness::{TestEnv, isolations};

/// How long a command may take that is not held up.
const LIMIT: Duration = Duration::from_secs(300);

/// Runs a command, and fails if it does not end. What it writes goes to a file, so that a process that is left cannot hold up
/// the test.
#[track_caller]
fn ends(env: &TestEnv, mut command: Command) {
    let log = env.path("log");
    let file = fs::File::create(&log).expect("a log");
    command.stdout(file.try_clone().expect("a log")).stderr(file).stdin(Stdio::null());
    let mut child = command.spawn().expect("phial");
    let start = Instant::now();
    let status = loop {
        match child.try_wait().expect("waited") {
            Some(status) => break Some(status),
            None if start.elapsed() > LIMIT => break None,
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    drop(child.kill());
    let text = fs::read_to_string(&log).unwrap_or_default();
    assert!(status.is_some_and(|status| status.success()), "{status:?} of {command:?}:\n{text}");
}

/// Whether a process of this machine has this argument.
fn is_running(argument: &str) -> bool {
    let processes = fs::read_dir("/proc").expect("/proc").filter_map(Result::ok);
    let lines = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    let mut arguments = lines.map(|line| line.split(|byte| *byte == 0).any(|text| text == argument.as_bytes()));
    arguments.any(|found| found)
}

#[test]
fn whatever_a_command_leaves_running_is_killed_when_it_ends() {
    let env = TestEnv::with_empty_cache();
    let repo = env.shell_app();
    for (number, isolation) in isolations().into_iter().enumerate() {
        let left = format!("3141590{number}");
        // One holds the output, one only stderr as a compiler cache does, one is in another session.
        let leave = format!(
            "sleep {left} & sleep {left} </dev/null >/dev/null & (trap '' HUP TERM; exec sleep {left} </dev/null) &\n"
        );
        let mix = format!("#!/bin/sh\n{leave}echo mix $1\n");
        let base = busybox_base_with(&env, &[("bin/mix", &mix), ("bin/erl", "#!/bin/sh\n")]);
        repo.write("phial.toml", "[image]\nenvs = [\"prod\"]\n");
        repo.write("mix.exs", format!("# {isolation}\n"));
        repo.commit(isolation);
        let (base, image) = (format!("oci:{}", base.display()), format!("oci:{}", env.path(isolation)));
        let with = ["--isolation", isolation];
        let mut build = env.phial(["build", repo.source(), "--base", &base, "--to", &image]);
        build.args(with);
        ends(&env, build);
        let mut command = env.phial(["run", &image]);
        command.args(with).args(["--", "sh", "-c", &format!("{leave}echo ran")]);
        ends(&env, command);
        let mut test = env.phial(["test", &image]);
        test.args(with).args(["--", "sh", "-c", &format!("{leave}echo tested")]);
        ends(&env, test);
        assert!(!is_running(&left), "{isolation}");
        fs::remove_dir_all(env.path("base-with")).expect("the base");
        fs::remove_dir_all(env.path("rootfs")).expect("its files");
    }
}

#[test]
fn a_process_that_mix_leaves_does_not_hold_up_the_step() {
    let env = TestEnv::with_elixir_base_in_cache();
    let repo = env.app("hello");
    let mix = fs::read_to_string(repo.dir().join("mix.exs")).expect("mix.exs");
    let left = "31415910";
    let first = format!("System.cmd(\"sh\", [\"-c\", \"sleep {left} </dev/null >/dev/null &\"])\n");
    repo.write("mix.exs", first + &mix);
    repo.commit("A process is left");
    let (base, image) = (format!("oci:{}", elixir_base().display()), format!("oci:{}", env.path("out")));
    ends(&env, env.phial(["build", repo.source(), "--base", &base, "--to", &image, "--env", "prod"]));
    ends(&env, env.phial(["run", &image, "--", "mix", "run", "--no-start", "-e", ":ok"]));
    assert!(!is_running(left));
}
