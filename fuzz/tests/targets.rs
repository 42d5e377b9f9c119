//! Each target on its seeds, on inputs that once failed, and on mutations of both for a second.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use phial_fuzz::{TARGETS, Target, mutate::mutated};

/// The time and the number of mutations per target, whichever ends first.
const TIME: Duration = Duration::from_secs(1);
const MUTATIONS: usize = 20_000;

fn regressions(target: &Target) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions").join(target.name);
    let files = std::fs::read_dir(dir).into_iter().flatten();
    files.map(|file| std::fs::read(file.expect("a name").path()).expect("a file")).collect()
}

#[test]
fn no_target_fails() {
    for target in TARGETS {
        let inputs = [(target.seeds)(), regressions(target)].concat();
        assert!(!inputs.is_empty(), "{} has no seeds", target.name);
        for input in &inputs {
            run(target, input);
        }
        let mut rng = fastrand::Rng::with_seed(1);
        let start = Instant::now();
        let mut runs = 0;
        while runs < MUTATIONS && start.elapsed() < TIME {
            run(target, &mutated(&inputs, &mut rng));
            runs += 1;
        }
        println!("{}: {} inputs, {runs} mutations in {:?}", target.name, inputs.len(), start.elapsed());
    }
}

/// Runs `target`; a failure names the file that has the input.
#[expect(clippy::print_stderr, reason = "the input that fails is more than a line of a panic")]
fn run(target: &Target, input: &[u8]) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (target.run)(input))) {
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-failed", target.name));
        std::fs::write(&file, input).expect("a file");
        eprintln!("the target `{}` fails on {}", target.name, file.display());
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn the_names_of_targets_are_unique() {
    for target in TARGETS {
        assert_eq!(TARGETS.iter().filter(|other| other.name == target.name).count(), 1, "{}", target.name);
        assert!(phial_fuzz::target(target.name).is_some());
    }
}
