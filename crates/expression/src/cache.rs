//! Programs that many objects share, so that they are compiled once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::check::CompileError;
use crate::kind::Kind;
use crate::program::{Program, compile};

/// How many programs are kept; when there are more, all are forgotten and made anew as needed.
const MAX_PROGRAMS: usize = 4096;

/// What compiling came to.
type Compiled = Result<Arc<Program>, CompileError>;

/// Programs by scope and source. A scope is a fixed set of variables that callers name.
#[derive(Debug, Default)]
pub struct Cache {
    programs: Mutex<HashMap<(&'static str, String), Compiled>>,
}

impl Cache {
    /// The program for this source; `variables` must be the same for all calls with one scope.
    ///
    /// # Errors
    /// Those of [`compile`].
    pub fn get(&self, scope: &'static str, source: &str, variables: &[(&str, Kind)]) -> Compiled {
        let key = (scope, source.to_owned());
        let mut programs = self.programs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = programs.get(&key) {
            return known.clone();
        }
        drop(programs);
        let compiled = compile(source, variables).map(Arc::new);
        programs = self.programs.lock().unwrap_or_else(PoisonError::into_inner);
        if programs.len() >= MAX_PROGRAMS {
            programs.clear();
        }
        programs.insert(key, compiled.clone());
        compiled
    }
}
