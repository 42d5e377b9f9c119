//! Commands that keep running while others run.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use phial::sandbox::{Exit, Ids, Loopback, Network, Ready, SandboxError, SandboxEvent, Spec, run_with_events};

use super::{SandboxTest, exe, stdout_of};

/// Serves `spec` while `during` runs, which begins when it is ready, and gives how it ended.
fn served(spec: &Spec, during: impl FnOnce()) -> Result<Exit, SandboxError> {
    let cancel = AtomicBool::new(false);
    let (ready, heard) = std::sync::mpsc::channel();
    thread::scope(|scope| {
        let server = scope.spawn(|| {
            run_with_events(&exe(), spec, &cancel, &mut move |output| {
                if output == SandboxEvent::Ready {
                    ready.send(()).unwrap();
                }
            })
        });
        if heard.recv_timeout(Duration::from_secs(10)).is_ok() {
            during();
        }
        cancel.store(true, Ordering::Relaxed);
        server.join().unwrap()
    })
}

#[test]
fn sandboxes_share_a_loopback_that_nobody_else_reaches() {
    let loopback = Loopback::open(&exe(), Ids::Single).unwrap();
    let (one, two, other) = (SandboxTest::new(), SandboxTest::new(), SandboxTest::new());
    let mut server = one.spec("while true; do echo hello | nc -l -p 5432; done");
    (server.network, server.user, server.ready) = (loopback.network(), (70, 70), Some(Ready::Port(5432)));
    let mut client = two.spec("until nc 127.0.0.1 5432 2>/dev/null; do sleep 0.1; done");
    client.network = loopback.network();
    let ended = served(&server, || {
        assert_eq!(stdout_of(&client), "hello\n");
        let apart = Loopback::open(&exe(), Ids::Single).unwrap();
        for network in [apart.network(), Network::None, Network::Host] {
            let mut stranger = other.spec("nc 127.0.0.1 5432 2>&1 || echo none");
            stranger.network = network;
            assert!(stdout_of(&stranger).ends_with("none\n"), "{network:?}");
        }
    });
    assert!(matches!(ended, Err(SandboxError::Interrupted)), "{ended:?}");
}

#[test]
fn a_command_is_ready_when_its_probe_says_so() {
    let test = SandboxTest::new();
    let mut spec = test.spec("sleep 0.3; echo now >/tmp/there; sleep 60");
    spec.ready = Some(Ready::Command(["sh", "-c", "test -e /tmp/there"].map(str::to_owned).into()));
    let begun = Instant::now();
    let ended = served(&spec, || assert!(begun.elapsed() >= Duration::from_millis(300)));
    assert!(matches!(ended, Err(SandboxError::Interrupted)) && begun.elapsed() < Duration::from_secs(5), "{ended:?}");

    spec.argv[2] = "exit 3".to_owned();
    assert_eq!(served(&spec, || panic!("it was never ready")).unwrap(), Exit::Code(3));
    spec.ready = Some(Ready::Command(vec!["no-such-probe".to_owned()]));
    spec.argv[2] = "sleep 60".to_owned();
    let missing = served(&spec, || panic!("it was never ready")).unwrap_err();
    assert!(missing.to_string().contains("`no-such-probe`"), "{missing}");
}
