//! A package that downloads a part of itself while it compiles: its client of TLS checks the server's certificate by the clock of
//! the step, which stands at the time of the sources.

use std::fs;
use std::path::Path;

use crate::harness::nginx::{Nginx, authority, certificate};
use crate::harness::prebuilt::elixir_base;
use crate::harness::{Output, Repo, TestEnv, hex_registry, in_rootfs, run};

const MIX: &str = r#"defmodule Native.MixProject do
  use Mix.Project
  def project, do: [app: :native, version: "0.1.0", deps: [{:nimble_parsec, "~> 1.4"}]]
end
"#;

/// A module of a package that is compiled with what a server has, as packages with a compiled part do it.
const DOWNLOAD: &str = r#"defmodule Part do
  for app <- [:inets, :ssl] do
    Mix.ensure_application!(app)
    {:ok, _} = Application.ensure_all_started(app)
  end
  options = [ssl: [verify: :verify_peer, cacertfile: ~c"ca.pem"]]
  case :httpc.request(:get, {~c"https://127.0.0.1:@PORT@/part", []}, options, []) do
    {:ok, {{_, 200, _}, _, body}} -> def it, do: unquote(to_string(body))
    {:error, reason} -> raise "cannot download the compiled part: #{inspect(reason)}"
  end
end
"#;

/// A server with a certificate that begins to be valid now.
fn server() -> Nginx {
    let dir = authority();
    certificate(dir.path(), "server", "subjectAltName=IP:127.0.0.1");
    Nginx::start(dir, |tls| format!("server {{ {tls} location /part {{ return 200 'it is here'; }} }}\n"))
}

fn build(env: &TestEnv, repo: &Repo) -> Output {
    let (from, to) = (format!("oci:{}", elixir_base().display()), format!("oci:{}", env.path("out")));
    let args = ["build", repo.source(), "--base", &from, "--to", &to, "--env", "prod", "--progress", "plain"];
    run(env.phial(args))
}

#[test]
fn a_package_that_cannot_download_its_part_gets_the_setting_and_with_it_its_part() {
    let env = TestEnv::with_elixir_base_in_cache();
    let nginx = server();
    let repo = Repo::at(&env.dir().join("native"));
    fs::create_dir(repo.dir()).unwrap();
    repo.git(["init", "-q", "-b", "main"]);
    repo.write("mix.exs", MIX);
    repo.write("lib/native.ex", "defmodule Native do\nend\n");
    run(in_rootfs(repo.dir(), ["mix", "deps.get"], &hex_registry().env())).ok();
    fs::remove_dir_all(repo.dir().join("_build")).unwrap();
    repo.write("deps/nimble_parsec/lib/part.ex", DOWNLOAD.replace("@PORT@", &nginx.port.to_string()));
    repo.write("deps/nimble_parsec/ca.pem", fs::read_to_string(nginx.path("ca.pem")).unwrap());
    repo.commit("A package with a part elsewhere");
    let stderr = build(&env, &repo).failed(1);
    assert!(
        stderr.contains("error: the step `deps prod` failed") && stderr.contains("certificate_expired"),
        "{stderr}"
    );
    assert_hint(&stderr);

    repo.write("phial.toml", "[prepare]\nclock = \"real\"\n");
    repo.commit("The machine's clock");
    build(&env, &repo).ok();
    let image = format!("oci:{}", env.path("out"));
    let say = ["run", &image, "--progress", "quiet", "--", "mix", "run", "--no-start", "-e", "IO.puts(Part.it())"];
    assert_eq!(run(env.phial(say)).ok(), "it is here");
}

#[test]
fn a_step_whose_programs_use_openssl_gets_the_setting() {
    let env = TestEnv::with_elixir_base_in_cache();
    let nginx = server();
    let repo = env.shell_app();
    let connect = format!("openssl s_client -verify_return_error -CAfile ca.pem -connect 127.0.0.1:{}", nginx.port);
    let script = format!("#!/bin/sh\nset -eu\ncase $1 in build) {connect} </dev/null >made ;; esac\n");
    repo.script("script/prepare_code", &script);
    repo.write("ca.pem", fs::read_to_string(nginx.path("ca.pem")).unwrap());
    repo.commit("A download");
    let stderr = build(&env, &repo).failed(1);
    assert!(stderr.contains("certificate is not yet valid"), "{stderr}");
    assert_hint(&stderr);
    let settings = fs::read_to_string(repo.dir().join("phial.toml")).unwrap();
    repo.write("phial.toml", settings.replace("[prepare]\n", "[prepare]\nclock = \"real\"\n"));
    repo.commit("The machine's clock");
    build(&env, &repo).ok();
    assert!(Path::new(&env.path("out")).exists());
}

#[track_caller]
fn assert_hint(stderr: &str) {
    let hint = stderr.lines().find(|line| line.starts_with("hint: ")).unwrap_or_default();
    assert!(
        hint.contains("the clock of this step stands at ") && hint.contains("`prepare.clock = \"real\"`"),
        "{stderr}"
    );
}
