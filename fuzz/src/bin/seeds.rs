//! Without an argument: prints the names of the targets. With a directory: writes the seeds of each target to `DIR/TARGET/`.

#![expect(clippy::print_stdout, reason = "it prints a list")]

use std::path::Path;

fn main() -> std::io::Result<()> {
    for target in phial_fuzz::TARGETS {
        let Some(dir) = std::env::args_os().nth(1) else {
            println!("{}", target.name);
            continue;
        };
        let dir = Path::new(&dir).join(target.name);
        std::fs::create_dir_all(&dir)?;
        for (n, seed) in (target.seeds)().iter().enumerate() {
            std::fs::write(dir.join(format!("seed-{n}")), seed)?;
        }
    }
    Ok(())
}
