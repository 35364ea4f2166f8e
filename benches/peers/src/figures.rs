//! What has been measured, and what follows from it.

use std::collections::BTreeMap;

use peers_harness::{Measure, Report};
use serde_json::{Value, json};

use crate::list::{EFFECTUM, Entry, KAMEO, Kind, OURS_IN_FILE, OURS_IN_MEMORY, Role};
use crate::process::Processes;

/// How much is measured.
pub struct Amount {
    pub rounds: usize,
    memory: Jobs,
    durable: Jobs,
}

#[derive(Clone, Copy)]
pub struct Jobs {
    /// For the rate, and for the memory.
    pub whole_life: u64,
    /// For the time until a job is picked up.
    pub one_by_one: u64,
}

impl Amount {
    pub fn full(rounds: usize) -> Amount {
        Amount {
            rounds,
            memory: Jobs { whole_life: 400_000, one_by_one: 2_000 },
            durable: Jobs { whole_life: 20_000, one_by_one: 500 },
        }
    }

    pub fn quick(rounds: usize) -> Amount {
        Amount {
            rounds,
            memory: Jobs { whole_life: 100_000, one_by_one: 300 },
            durable: Jobs { whole_life: 4_000, one_by_one: 100 },
        }
    }

    pub fn of(&self, kind: Kind) -> Jobs {
        match kind {
            Kind::Memory => self.memory,
            Kind::Durable => self.durable,
        }
    }
}

/// One entry, in one round or in the median of all.
#[derive(Clone, Debug)]
pub struct Figures {
    pub per_second: f64,
    pub p50: f64,
    pub p99: f64,
    pub resident_bytes: f64,
    pub durability: String,
}

/// All rounds.
#[derive(Default)]
pub struct Measured {
    entries: BTreeMap<&'static str, Vec<Figures>>,
    /// The median and the 99th percentile of a synced append, of each round.
    fsyncs: Vec<(f64, f64)>,
}

impl Measured {
    /// Measures the entries in turn, so often.
    pub fn measure(entries: &[&'static Entry], amount: &Amount, processes: &Processes) -> Measured {
        let mut measured = Measured::default();
        for round in 1..=amount.rounds {
            if entries.iter().any(|entry| entry.kind == Kind::Durable) {
                measured.fsyncs.push(micros(processes.fsyncs(amount.durable.one_by_one)));
            }
            for entry in entries {
                eprintln!("round {round} of {}: {}", amount.rounds, entry.name);
                let figures = Figures::measure(entry, amount.of(entry.kind), processes);
                measured.entries.entry(entry.name).or_default().push(figures);
            }
        }
        measured
    }

    /// The medians of an entry, if it has been measured.
    pub fn medians(&self, name: &str) -> Option<Figures> {
        let rounds = self.entries.get(name)?;
        let of = |figure: fn(&Figures) -> f64| median(rounds.iter().map(figure).collect());
        Some(Figures {
            per_second: of(|round| round.per_second),
            p50: of(|round| round.p50),
            p99: of(|round| round.p99),
            resident_bytes: of(|round| round.resident_bytes),
            durability: rounds.first()?.durability.clone(),
        })
    }

    pub fn fsync(&self) -> Option<(f64, f64)> {
        let of = |figure: fn(&(f64, f64)) -> f64| median(self.fsyncs.iter().map(figure).collect());
        (!self.fsyncs.is_empty()).then(|| (of(|round| round.0), of(|round| round.1)))
    }

    /// The median over the rounds of one entry's figure divided by the best of others', in the same round.
    fn ratio(&self, ours: &str, others: &[&str], figure: fn(&Figures) -> f64) -> Option<f64> {
        let ours = self.entries.get(ours)?;
        let others: Option<Vec<_>> = others.iter().map(|name| self.entries.get(name)).collect();
        let others = others.filter(|others| !others.is_empty())?;
        let ratios = ours.iter().enumerate().map(|(round, ours)| {
            let theirs = others.iter().map(|rounds| figure(&rounds[round]));
            figure(ours) / theirs.fold(f64::MIN, f64::max)
        });
        Some(median(ratios.collect()))
    }

    /// The figures that are watched: a name, the ratio, and what it is in words.
    pub fn ratios(&self, entries: &[&'static Entry]) -> Vec<(&'static str, f64, &'static str)> {
        let in_memory: Vec<_> = entries
            .iter()
            .filter(|entry| entry.kind == Kind::Memory && entry.role == Role::Peer)
            .map(|entry| entry.name)
            .collect();
        let rate = self.ratio(OURS_IN_MEMORY, &in_memory, |round| round.per_second);
        let pick_up = self.ratio(OURS_IN_MEMORY, &[KAMEO], |round| round.p50);
        let durable = self.ratio(OURS_IN_FILE, &[EFFECTUM], |round| round.per_second);
        [
            ("peers/memory", rate, "jobs/s ÷ the best of the peers in memory that are measured"),
            ("peers/pick_up", pick_up, "pick-up p50 in memory ÷ kameo's (less is better)"),
            ("peers/durable", durable, "jobs/s in the file ÷ effectum's"),
        ]
        .into_iter()
        .filter_map(|(name, ratio, words)| Some((name, ratio?, words)))
        .collect()
    }

    /// One line of JSON for each entry, and for each ratio.
    pub fn lines(&self, entries: &[&'static Entry], amount: &Amount) -> Vec<Value> {
        let entry_line = |entry: &&'static Entry| {
            let figures = self.medians(entry.name)?;
            let kind = format!("{:?}", entry.kind).to_lowercase();
            Some(json!({
                "case": format!("peers/{kind}/{}", entry.name),
                "works_per_s": figures.per_second.round(),
                "p50_us": figures.p50.round(),
                "p99_us": figures.p99.round(),
                "resident_bytes": figures.resident_bytes,
                "durability": figures.durability,
                "works": amount.of(entry.kind).whole_life,
            }))
        };
        let fsync_line = self.fsync().map(
            |(p50, p99)| json!({ "case": "peers/fsync", "p50_us": p50.round(), "p99_us": p99.round() }),
        );
        let ratio_line = |(name, ratio, words): (&str, f64, &str)| json!({ "case": name, "ratio": round(ratio), "of": words });
        entries
            .iter()
            .filter_map(entry_line)
            .chain(fsync_line)
            .chain(self.ratios(entries).into_iter().map(ratio_line))
            .collect()
    }
}

impl Figures {
    fn measure(entry: &Entry, jobs: Jobs, processes: &Processes) -> Figures {
        let rate = processes.measure(entry, Measure::Rate, jobs.whole_life);
        let Report::Rate { per_second, resident_bytes, durability } = rate else {
            panic!("a rate was asked for");
        };
        let (p50, p99) = micros(processes.measure(entry, Measure::PickUp, jobs.one_by_one));
        Figures { per_second, p50, p99, resident_bytes: resident_bytes as f64, durability }
    }
}

fn micros(report: Report) -> (f64, f64) {
    let Report::Micros { p50, p99 } = report else { panic!("times were asked for") };
    (p50, p99)
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn round(ratio: f64) -> f64 {
    (ratio * 100.0).round() / 100.0
}
