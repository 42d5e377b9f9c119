//! `phial build --twice`.

use std::path::Path;
use std::process::Command;

use crate::build_matrix::apps::{generated, stress};
use crate::harness::busybox::busybox_base;
use crate::harness::prebuilt::elixir_base;
use crate::harness::{Output, Registry, Repo, TestEnv, run};

/// Builds the small app with this line in its `build` call.
fn checked(env: &TestEnv, line: &str) -> Output {
    let repo = env.shell_app();
    repo.script("script/prepare_code", &format!("#!/bin/sh\nset -eu\ncase \"$1\" in build) ({line}) >made ;; esac\n"));
    repo.commit("The second commit");
    build(env, &repo, &busybox_base(), &[])
}

fn build(env: &TestEnv, repo: &Repo, base: &Path, more: &[&str]) -> Output {
    let (from, to) = (format!("oci:{}", base.display()), format!("oci:{}", env.path("out")));
    let args = ["build", repo.source(), "--base", &from, "--to", &to, "--twice", "--progress", "plain"];
    run(env.phial([&args, more].concat()))
}

/// What differs each time for every user, and what only another machine would show.
const FAULTS: [(&str, &str); 7] = [
    ("a random number", "head -c 9 /dev/urandom"),
    ("the machine's uptime", "cat /proc/uptime"),
    // Busybox is linked statically: the clock that stands does not reach it.
    ("the time of day", "busybox date +%s"),
    ("the time of a file", "touch new; busybox stat -c %Y new; rm new"),
    ("the process's start", "busybox cut -d' ' -f22 /proc/self/stat"),
    ("the inode of a file", "ls -di /app"),
    ("what is mounted from where", "cat /proc/self/mountinfo"),
];

#[test]
fn a_seeded_fault_of_each_kind_is_caught_and_its_file_named() {
    for (what, line) in FAULTS {
        let env = TestEnv::with_empty_cache();
        let ran = checked(&env, line);
        assert_eq!(ran.code, Some(8), "{what}: {}", ran.stderr);
        let output = ran.stderr;
        assert!(
            output.contains("not reproducible") && output.contains("layer `build prod`: `app/made`: "),
            "{what}: {output}"
        );
        assert!(!Path::new(&env.path("out")).exists(), "{what}: nothing goes to a target");
    }
}

/// A static program that reads the clock in the way of its argument: `vdso` by the function of libc, `syscall` without the page that
/// the kernel maps, `coarse` by the clock of ticks.
const CLOCKS: &str = r#"#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
int main(int count, char **words)
{
    struct timespec now;
    if (count > 1 && !strcmp(words[1], "syscall"))
        syscall(SYS_clock_gettime, CLOCK_REALTIME, &now);
    else
        clock_gettime(count > 1 && !strcmp(words[1], "coarse") ? CLOCK_REALTIME_COARSE : CLOCK_REALTIME, &now);
    return printf("%lld\n", (long long)now.tv_sec) < 0;
}
"#;

#[test]
fn each_clock_of_a_static_program_is_caught_and_the_time_is_named() {
    for clock in ["vdso", "syscall", "coarse"] {
        let env = TestEnv::with_empty_cache();
        let (source, program) = (env.path("clocks.c"), env.path("clocks"));
        std::fs::write(&source, CLOCKS).expect("a source");
        let mut cc = Command::new("cc");
        cc.args(["-static", "-o", &program, &source]);
        run(cc).ok();
        let repo = env.shell_app();
        std::fs::copy(&program, repo.dir().join("clocks")).expect("a program");
        let script = format!("#!/bin/sh\nset -eu\ncase \"$1\" in build) ./clocks {clock} >made ;; esac\n");
        repo.script("script/prepare_code", &script);
        repo.commit("The second commit");
        let stderr = build(&env, &repo, &busybox_base(), &[]).failed(8);
        assert!(
            stderr.contains("`app/made`: ") && stderr.contains("hint: the bytes that differ look like a time"),
            "{stderr}"
        );
        assert!(stderr.contains("`SOURCE_DATE_EPOCH`"), "{stderr}");
    }
}

/// How a step without the shim comes to a time that is in the image.
const TIMES: [(&str, &str); 6] = [
    ("seconds", "busybox date +%s"),
    ("a date and a time of day", "busybox date '+built on %F at %T'"),
    ("the time of a new file", "touch new; busybox stat -c %Y new; rm new"),
    ("how long the machine is up", "cat /proc/uptime"),
    ("when a process was started, in ticks", "busybox cut -d' ' -f22 /proc/self/stat"),
    // It waits for the next minute, so that the two builds are in two minutes.
    ("the minute", "now=$(busybox date +%M); while [ $now = $(busybox date +%M) ]; do sleep 1; done; busybox date +%M"),
];

#[test]
fn each_kind_of_time_is_caught_and_named_as_one() {
    let check = |(what, line): (&str, &str)| {
        let stderr = checked(&TestEnv::with_empty_cache(), line).failed(8);
        assert!(stderr.contains("`app/made`: "), "{what}: {stderr}");
        assert!(stderr.contains("hint: the bytes that differ look like a time"), "{what}: {stderr}");
    };
    std::thread::scope(|scope| {
        scope.spawn(|| check(TIMES[5]));
        TIMES[..5].iter().for_each(|time| check(*time));
    });
}

#[test]
fn the_clock_of_the_c_library_stands_and_is_caught_where_the_settings_let_it_run() {
    let env = TestEnv::with_elixir_base_in_cache();
    let repo = env.shell_app();
    let line = "date +%s; date +%M; perl -e 'print time'";
    repo.script("script/prepare_code", &format!("#!/bin/sh\nset -eu\ncase \"$1\" in build) ({line}) >made ;; esac\n"));
    repo.commit("Clocks");
    build(&env, &repo, &elixir_base(), &[]).ok();
    let settings = std::fs::read_to_string(repo.dir().join("phial.toml")).expect("settings");
    repo.write("phial.toml", format!("{settings}clock = \"real\"\n"));
    repo.commit("The machine's clock");
    let stderr = build(&env, &repo, &elixir_base(), &[]).failed(8);
    assert!(
        stderr.contains("`app/made`: ") && stderr.contains("hint: the bytes that differ look like a time"),
        "{stderr}"
    );
}

#[test]
fn what_differs_and_is_no_time_is_not_called_one() {
    let env = TestEnv::with_empty_cache();
    let stderr = checked(&env, "busybox head -c 9 /dev/urandom | busybox md5sum").failed(8);
    assert!(stderr.contains("not reproducible") && !stderr.contains("look like a time"), "{stderr}");
}

#[test]
fn the_number_of_cores_is_caught_where_there_are_several() {
    let env = TestEnv::with_empty_cache();
    let ran = checked(&env, "grep Cpus_allowed: /proc/self/status");
    let several = phial::host::Host::read().cores.get() > 1;
    assert_eq!(ran.code, Some(if several { 8 } else { 0 }), "{}", ran.stderr);
}

#[test]
fn what_the_sandbox_makes_equal_is_equal() {
    for line in ["hostname", "id", "env", "pwd", "umask", "cat /etc/hosts", "ls /app"] {
        let env = TestEnv::with_empty_cache();
        let line = format!("{line} 2>&1 | grep -v GLIBC");
        let ran = checked(&env, &line);
        assert_eq!(ran.code, Some(0), "{line}: {}", ran.stderr);
        assert!(Path::new(&env.path("out")).exists(), "{line}");
    }
}

#[test]
fn the_second_build_has_the_logins_of_the_first_and_the_base_that_its_tag_was_then() {
    let (env, registry) = (TestEnv::with_empty_cache(), Registry::with_htpasswd());
    let repo = env.shell_app();
    let (login, base) = (env.path("login.json"), registry.reference("team/base:1"));
    let creds = format!("{}:{}", Registry::USER, Registry::PASSWORD);
    let mut copy = Command::new("skopeo");
    copy.args(["copy", "--quiet", "--dest-tls-verify=false", "--dest-creds", &creds]);
    copy.args([format!("oci:{}", busybox_base().display()), format!("docker://{base}")]);
    run(copy).ok();
    let mut enter = Command::new("skopeo");
    enter.args(["login", "--tls-verify=false", "--username", Registry::USER, "--password", Registry::PASSWORD]);
    enter.args(["--authfile", &login, &registry.host()]);
    run(enter).ok();
    let before = registry.requests().len();
    let to = format!("oci:{}", env.path("out"));
    let args = ["build", repo.source(), "--base", &base, "--to", &to, "--twice", "--authfile", &login];
    run(env.phial(args)).ok();
    let asked: Vec<String> = registry.requests().split_off(before);
    let got =
        |what: &str| asked.iter().filter(|line| line.contains(&format!("GET /v2/team/base/manifests/{what}"))).count();
    assert_eq!(got("1"), 2, "once without and once with the login: {asked:#?}");
    assert!(got("sha256:") > 0, "{asked:#?}");
}

#[test]
fn a_module_with_a_random_number_is_named_with_its_chunk() {
    let env = TestEnv::new();
    let repo = stress(&env, 4);
    repo.write(
        "lib/stress/luck.ex",
        "defmodule Stress.Luck do\n  def luck, do: unquote(:rand.uniform(1_000_000))\nend\n",
    );
    repo.commit("Luck");
    let output = build(&env, &repo, &elixir_base(), &["--env", "prod", "--no-cache"]).failed(8);
    assert!(
        output.contains("layer `build prod`: `app/_build/prod/lib/stress/ebin/Elixir.Stress.Luck.beam`"),
        "{output}"
    );
    assert!(output.contains("chunk") && output.contains("`function luck/0`"), "{output}");
}

#[test]
fn what_the_compilers_processes_count_is_in_no_layer_and_every_manifest_is_known() {
    let env = TestEnv::new();
    let repo = generated(&env, 24);
    let line = build(&env, &repo, &elixir_base(), &["--env", "prod", "--no-cache", "--json"]).ok();
    let json: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(json["unknown_manifests"], serde_json::json!([]), "the table of Mix's manifests lacks a version");
    let again = "touch /tmp/now; mix compile --no-all-warnings; find /app -newer /tmp/now";
    let image = format!("oci:{}", env.path("out"));
    let run_again = ["run", &image, "--user", "0", "--progress", "quiet", "--", "sh", "-c", again];
    assert_eq!(run(env.phial(run_again)).ok(), "", "nothing is compiled again");
}

/// Names that no source text has, as keys of a map that is traversed during compilation.
const MADE_UP: &str = r#"defmodule Stress.MadeUp@N@ do
  names = for n <- 1..20, do: String.to_atom("made_#{n * @N@}_up")
  for name <- Enum.shuffle(names), do: Process.put(name, name)
  map = Map.new(names, &{&1, 1})
  def order, do: unquote(Map.keys(map))
end
"#;

#[test]
fn names_made_up_while_compiling_have_one_order_with_strict_settings() {
    let env = TestEnv::new();
    let repo = stress(&env, 2);
    for n in 1..=24 {
        repo.write(&format!("lib/stress/made_up{n}.ex"), MADE_UP.replace("@N@", &n.to_string()));
    }
    repo.commit("Names");
    let settings = std::fs::read_to_string(repo.dir().join("phial.toml")).unwrap();
    repo.write("strict.toml", settings.replace("[prepare]\n", "[prepare]\nstrict = true\n"));
    let file = repo.dir().join("strict.toml").display().to_string();
    let ran = build(&env, &repo, &elixir_base(), &["--env", "prod", "--no-cache", "--config", &file]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
}
