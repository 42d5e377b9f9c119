//! A boot file that brings every atom into one order before anything else happens.
//!
//! The BEAM numbers atoms as they appear, and since OTP 26 that number decides the order of a map's atom keys. Compilers that
//! run side by side, and even the modules that the VM loads while it starts, make atoms in a race. `init` decodes the boot file
//! before it loads anything (OTP, `erts/preloaded/src/init.erl`), so a list at its head settles the order for `mix`,
//! `rebar3`, `erlc` and whatever else they start.

use std::collections::BTreeSet;

use crate::determinism::etf::{self, EtfError, Term};

/// `boot` (a `start.boot` of OTP: `{script, {Name, Vsn}, Commands}`) with `atoms` made first, and the module in `module` (its
/// path inside without `.beam`) loaded at its end.
pub(super) fn seed(boot: &[u8], atoms: &BTreeSet<String>, module: Option<&str>) -> Result<Vec<u8>, EtfError> {
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
    fn atoms_come_first_and_the_module_just_before_the_end() {
        let atoms = ["b", "a", "é"].map(str::to_owned).into();
        let seeded = seed(&etf::encode(&boot()), &atoms, Some("/x/m")).expect("a boot file");
        let Ok(Term::Tuple(fields)) = etf::decode(&seeded) else { panic!("no tuple") };
        let Term::List(commands, _) = &fields[2] else { panic!("no list") };
        let names = ["a", "b", "é"].map(|name| Term::Atom(name.into())).to_vec();
        assert_eq!(commands[0], apply("erlang", "is_list", vec![list(names)]));
        assert_eq!(commands[2], apply("code", "load_abs", vec![Term::Str(b"/x/m".to_vec())]));
        assert_eq!(commands.len(), 4);
    }

    #[test]
    fn what_is_no_boot_file_is_refused() {
        assert!(seed(&etf::encode(&Term::Nil), &BTreeSet::new(), None).is_err());
        assert!(seed(b"", &BTreeSet::new(), None).is_err());
    }
}
