//! The catalog: the functions of this process, without their code.

use std::time::Duration;

use hashbrown::HashMap;

use crate::model::{FunctionKind, Name, RetryPolicy, Spec};

/// A function that is registered, with its own defaults.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Registered {
    pub kind: FunctionKind,
    /// `true` if it is a blocking action.
    #[cfg_attr(not(feature = "ops"), allow(dead_code))]
    pub blocking: bool,
    pub retry: RetryPolicy,
    pub timeout: Option<Duration>,
}

/// The functions that a runtime can run, by name. Their code is in the `Program`.
#[derive(Default)]
pub(crate) struct Catalog(HashMap<Name, Registered>);

impl Catalog {
    pub fn get(&self, name: Name) -> Option<&Registered> {
        self.0.get(&name)
    }

    pub fn iter(&self) -> impl Iterator<Item = (Name, &Registered)> {
        self.0.iter().map(|(name, registered)| (*name, registered))
    }

    /// The names of all functions, in order.
    pub fn names(&self) -> Vec<&'static str> {
        let mut names: Vec<_> = self.0.keys().map(|name| name.as_str()).collect();
        names.sort_unstable();
        names
    }

    /// Adds a function. Returns the one that was registered under that name before.
    pub fn insert(&mut self, name: Name, registered: Registered) -> Option<Registered> {
        self.0.insert(name, registered)
    }

    /// Returns `true` if this process has the code that a job needs.
    pub fn can_run(&self, spec: &Spec) -> bool {
        self.get(spec.function).is_some_and(|registered| registered.kind == spec.kind)
    }
}
