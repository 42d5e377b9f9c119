//! A repository over ssh: a real sshd on loopback, a real agent with the key.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::busybox::busybox_base;
use crate::harness::{Output, TestEnv, free_port, run, search_path, fixtures_dir, testdata};

/// Servers that end with the test, and whether the user `sshd` was made for them.
struct Servers(Vec<Child>, bool);

impl Drop for Servers {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
        if self.1 {
            let _ = Command::new("userdel").arg("sshd").output();
        }
    }
}

fn key(path: &Path) {
    let mut keygen = Command::new("ssh-keygen");
    keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"]).arg(path);
    run(keygen).ok();
}

/// sshd for the caller's own user, and an agent at `agent` that holds the key.
fn start(env: &TestEnv) -> (Servers, u16) {
    let parts = fixtures_dir().join("sshd");
    let mut get = Command::new(testdata("sshd"));
    get.arg(&parts);
    run(get).ok();
    let dir = env.dir();
    key(&dir.join("host"));
    key(&dir.join("user"));
    fs::copy(dir.join("user.pub"), dir.join("authorized")).unwrap();
    let port = free_port();
    let settings = format!(
        "Port {port}\nListenAddress 127.0.0.1\nHostKey {0}/host\nAuthorizedKeysFile {0}/authorized\nStrictModes no\n\
         UsePAM no\nPidFile none\nPermitRootLogin yes\nPasswordAuthentication no\n",
        dir.display()
    );
    fs::write(dir.join("sshd_config"), settings).unwrap();
    let mut made = false;
    if rustix::process::geteuid().is_root() {
        // Where root's sshd locks itself in, and as whom; Debian's package makes both when it is installed.
        fs::create_dir_all("/run/sshd").unwrap();
        let mut add = Command::new("useradd");
        add.args(["--system", "--no-create-home", "--home-dir", "/run/sshd", "--shell", "/usr/sbin/nologin", "sshd"]);
        let added = run(add);
        assert!(matches!(added.code, Some(0 | 9)), "9: there is one. {}", added.stderr);
        made = added.code == Some(0);
    }
    let multiarch = format!("{}-linux-gnu", std::env::consts::ARCH);
    let libraries = ["usr/lib", "lib"].map(|lib| parts.join(lib).join(&multiarch).display().to_string()).join(":");
    let mut sshd = Command::new(parts.join("usr/sbin/sshd"));
    sshd.arg("-D").arg("-f").arg(dir.join("sshd_config")).env("LD_LIBRARY_PATH", libraries);
    let mut agent = Command::new("ssh-agent");
    agent.arg("-D").arg("-a").arg(dir.join("agent"));
    let quiet = |mut command: Command| command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let servers = Servers(vec![quiet(sshd), quiet(agent)], made);
    let end = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() || !dir.join("agent").exists() {
        assert!(Instant::now() < end, "sshd and its agent do not start");
        std::thread::sleep(Duration::from_millis(50));
    }
    let mut add = Command::new("ssh-add");
    add.arg("-q").arg(dir.join("user")).env("SSH_AUTH_SOCK", dir.join("agent"));
    run(add).ok();
    (servers, port)
}

fn build(env: &TestEnv, url: &str, agent: bool) -> Output {
    let (from, to) = (format!("oci:{}", busybox_base().display()), format!("oci:{}", env.path("out")));
    let mut build = env.phial(["build", url, "--base", &from, "--to", &to, "--progress", "quiet"]);
    if agent {
        build.env("SSH_AUTH_SOCK", env.path("agent"));
    }
    run(build)
}

#[test]
fn a_repository_over_ssh_is_fetched_with_the_agents_key_from_a_known_host() {
    let env = TestEnv::with_empty_cache();
    let repo = env.shell_app();
    let (_servers, port) = start(&env);
    let mut id = Command::new("id");
    id.arg("-un").env("PATH", search_path());
    let url = format!("ssh://{}@127.0.0.1:{port}{}", run(id).ok(), repo.source());

    let output = build(&env, &url, true).failed(5);
    assert!(output.contains("known_hosts"), "a host that nobody knows: {output}");

    let known = fs::read_to_string(env.dir().join("host.pub")).unwrap();
    fs::create_dir(env.path("home/.ssh")).unwrap();
    fs::write(env.path("home/.ssh/known_hosts"), format!("[127.0.0.1]:{port} {known}")).unwrap();
    let output = build(&env, &url, false).failed(5);
    assert!(output.contains("ssh"), "no agent: {output}");

    let there = build(&env, &url, true).ok();
    let here = build(&env, repo.source(), false).ok();
    assert_eq!(there, here, "the digest of the path");
}
