//! The pool beside other job libraries, on one machine. `README.md` says what is measured and how.
//!
//! ```text
//! $ cargo run --release --manifest-path benches/peers/Cargo.toml                    # all
//! $ cargo run --release --manifest-path benches/peers/Cargo.toml -- --quick         # in two minutes
//! $ cargo run --release --manifest-path benches/peers/Cargo.toml -- --only memory --json
//! ```

use clap::Parser;
use peers_harness::Command;

use crate::figures::{Amount, Measured};
use crate::list::{ALL, Entry, Kind, Program, Role};
use crate::process::Processes;

mod figures;
mod list;
mod machine;
mod peers;
mod plot;
mod process;
mod table;

#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    command: Option<Command>,
    /// Fewer jobs, for a look.
    #[arg(long)]
    quick: bool,
    /// Only the peers of one kind.
    #[arg(long)]
    only: Option<Kind>,
    /// Only this peer, beside ours and the baseline. Can be given more than once.
    #[arg(long)]
    peer: Vec<String>,
    /// How often everything is measured.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..))]
    rounds: u8,
    /// Print lines of JSON instead of a table.
    #[arg(long)]
    json: bool,
    /// Also write the table into README.md, and a picture.
    #[arg(long, conflicts_with_all = ["quick", "only", "peer"])]
    write: bool,
}

fn main() {
    let options = Options::parse();
    if let Some(Command::Child(child)) = &options.command {
        let entry = list::find(&child.peer).expect("an entry of the list");
        let Program::Here(run) = entry.program else { panic!("it has a program of its own") };
        return run(child);
    }
    let rounds = usize::from(options.rounds);
    let amount = if options.quick { Amount::quick(rounds) } else { Amount::full(rounds) };
    let entries = selected(&options);
    let processes = Processes::prepare(&entries);
    let measured = Measured::measure(&entries, &amount, &processes);
    if options.json {
        for line in measured.lines(&entries, &amount) {
            println!("{line}");
        }
    } else {
        print!("{}", table::markdown(&measured, &entries, &amount));
    }
    if options.write {
        table::write(&table::markdown(&measured, &entries, &amount));
        plot::write(&measured, &entries);
    }
}

fn selected(options: &Options) -> Vec<&'static Entry> {
    for name in &options.peer {
        if list::find(name).is_none() {
            let names: Vec<_> = ALL.iter().map(|entry| entry.name).collect();
            eprintln!("there is no {name}; there are {}", names.join(", "));
            std::process::exit(2);
        }
    }
    // With a peer, the others of its kind that are not peers come along.
    let wanted = |entry: &&Entry| {
        let named = |other: &String| match entry.role {
            Role::Peer => other == entry.name,
            Role::Ours | Role::Baseline => {
                list::find(other).is_some_and(|it| it.kind == entry.kind)
            }
        };
        options.only.is_none_or(|kind| kind == entry.kind)
            && (options.peer.is_empty() || options.peer.iter().any(named))
    };
    ALL.iter().filter(wanted).collect()
}
