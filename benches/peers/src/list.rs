//! Who is compared.

use clap::ValueEnum;
use peers_harness::{Child, run_child};

use crate::peers::{
    ApalisMemory, ApalisSqlite, ByHand, InFile, InMemory, Kameo, Ractor, Riverqueue,
};

pub struct Entry {
    pub name: &'static str,
    pub kind: Kind,
    pub role: Role,
    /// What it has of each job besides the argument, and what it does about failures.
    pub keeps: &'static str,
    pub program: Program,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    Memory,
    Durable,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Ours,
    Peer,
    /// Not a library: what the others are measured against.
    Baseline,
}

/// Where it is measured.
pub enum Program {
    /// In this program.
    Here(fn(&Child)),
    /// In a package of its own, in the folder with this name.
    Sibling(&'static str),
}

pub const BY_HAND: &str = "by-hand";
pub const OURS_IN_MEMORY: &str = "workpool";
pub const OURS_IN_FILE: &str = "workpool-redb";
pub const KAMEO: &str = "kameo";
pub const EFFECTUM: &str = "effectum";

pub const ALL: &[Entry] = &[
    Entry {
        name: BY_HAND,
        kind: Kind::Memory,
        role: Role::Baseline,
        keeps: "nothing",
        program: Program::Here(run_child::<ByHand>),
    },
    Entry {
        name: OURS_IN_MEMORY,
        kind: Kind::Memory,
        role: Role::Ours,
        keeps: "ids, status, retries, results, the last 100,000 jobs",
        program: Program::Here(run_child::<InMemory>),
    },
    Entry {
        name: KAMEO,
        kind: Kind::Memory,
        role: Role::Peer,
        keeps: "restarts of actors",
        program: Program::Here(run_child::<Kameo>),
    },
    Entry {
        name: "ractor",
        kind: Kind::Memory,
        role: Role::Peer,
        keeps: "keys, restarts of actors",
        program: Program::Here(run_child::<Ractor>),
    },
    Entry {
        name: "apalis",
        kind: Kind::Memory,
        role: Role::Peer,
        keeps: "ids",
        program: Program::Here(run_child::<ApalisMemory>),
    },
    Entry {
        name: OURS_IN_FILE,
        kind: Kind::Durable,
        role: Role::Ours,
        keeps: "ids, status, retries, results, the last 100,000 jobs",
        program: Program::Here(run_child::<InFile>),
    },
    Entry {
        name: EFFECTUM,
        kind: Kind::Durable,
        role: Role::Peer,
        keeps: "ids, status, retries, results, all jobs",
        program: Program::Sibling("effectum"),
    },
    Entry {
        name: "effectum-shipped",
        kind: Kind::Durable,
        role: Role::Peer,
        keeps: "ids, status, retries, results, all jobs",
        program: Program::Sibling("effectum"),
    },
    Entry {
        name: "apalis-sqlite",
        kind: Kind::Durable,
        role: Role::Peer,
        keeps: "ids, status, retries, results, all jobs",
        program: Program::Here(run_child::<ApalisSqlite>),
    },
    Entry {
        name: "riverqueue",
        kind: Kind::Durable,
        role: Role::Peer,
        keeps: "ids, status, retries, results, the jobs of a day",
        program: Program::Here(run_child::<Riverqueue>),
    },
];

pub fn find(name: &str) -> Option<&'static Entry> {
    ALL.iter().find(|entry| entry.name == name)
}
