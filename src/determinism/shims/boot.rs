//! A boot file that creates all atoms in one order before the Erlang VM loads anything.
//!
//! The VM numbers atoms as they are created, and since OTP 26 these numbers decide the order of a map's atom keys.
//! Compilers that run in parallel, and modules that the VM loads while it starts, create atoms in any order. `init`
//! decodes the boot file before it loads anything (OTP, `erts/preloaded/src/init.erl`), so a list of atoms in its first
//! command fixes the order for `mix`, `rebar3`, `erlc` and every program that they start.

use std::collections::BTreeSet;

use crate::elixir::etf::{self, EtfError, Term};

/// The boot file `boot` (`start.boot` of OTP: `{script, {Name, Vsn}, Commands}`) with a first command that creates
/// `atoms`, and one before the last that loads `module` (its path in the sandbox without `.beam`).
pub(super) fn with_atoms(boot: &[u8], atoms: &BTreeSet<String>, module: Option<&str>) -> Result<Vec<u8>, EtfError> {
    let mut term = etf::decode(boot)?;
    let Term::Tuple(fields) = &mut term else { return Err(EtfError::Tag(0)) };
    let [_, _, Term::List(commands, _)] = fields.as_mut_slice() else { return Err(EtfError::Tag(0)) };
    let names: Vec<Term> = atoms.iter().map(|name| Term::Atom(name.as_bytes().to_vec())).collect();
    if let Some(path) = module {
        let load = apply("code", "load_abs", vec![Term::Str(path.as_bytes().to_vec())]);
        commands.insert(commands.len().saturating_sub(1), load);
    }
    if !names.is_empty() {
        commands.insert(0, apply("erlang", "is_list", vec![list(names)]));
    }
    Ok(etf::encode(&term))
}

/// `{apply, {Module, Function, Arguments}}`.
fn apply(module: &str, function: &str, arguments: Vec<Term>) -> Term {
    Term::Tuple(vec![Term::atom("apply"), Term::Tuple(vec![Term::atom(module), Term::atom(function), list(arguments)])])
}

fn list(items: Vec<Term>) -> Term {
    Term::List(items, Box::new(Term::Nil))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boot() -> Term {
        let commands =
            vec![apply("kernel", "start", vec![]), Term::Tuple(vec![Term::atom("progress"), Term::atom("started")])];
        Term::Tuple(vec![Term::atom("script"), Term::Nil, list(commands)])
    }

    #[test]
    fn atoms_are_created_first_and_the_module_is_loaded_before_the_last_command() {
        let atoms = ["b", "a", "é"].map(str::to_owned).into();
        let seeded = with_atoms(&etf::encode(&boot()), &atoms, Some("/x/m")).expect("a boot file");
        let Ok(Term::Tuple(fields)) = etf::decode(&seeded) else { panic!("no tuple") };
        let Term::List(commands, _) = &fields[2] else { panic!("no list") };
        let names = ["a", "b", "é"].map(|name| Term::Atom(name.into())).to_vec();
        assert_eq!(commands[0], apply("erlang", "is_list", vec![list(names)]));
        assert_eq!(commands[2], apply("code", "load_abs", vec![Term::Str(b"/x/m".to_vec())]));
        assert_eq!(commands.len(), 4);
    }

    #[test]
    fn a_term_that_is_no_boot_file_is_refused() {
        assert!(with_atoms(&etf::encode(&Term::Nil), &BTreeSet::new(), None).is_err());
        assert!(with_atoms(b"", &BTreeSet::new(), None).is_err());
    }
}
