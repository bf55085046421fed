use std::error::Error;
use std::fmt;

/// What went wrong and what to do about it, in words for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    what: String,
    hint: String,
}

impl Trouble {
    /// What was being done and why it did not work, and the next step.
    pub fn new(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { what: what.into(), hint: hint.into() }
    }

    /// The next step; empty where there is none.
    pub fn hint(&self) -> &str {
        &self.hint
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl Error for Trouble {}
