use std::error::Error;
use std::fmt;

/// Exit code of a server that was removed from its cluster: its service is not started again by
/// itself.
pub const REMOVED: u8 = fleet::board::unit::REMOVED;

/// A failure that reaches a person: what was being done and to what, what caused it, and the
/// next step.
#[derive(Debug)]
pub struct Failure {
    what: String,
    source: Option<Box<dyn Error + Send + Sync>>,
    hint: Option<String>,
    code: u8,
}

/// What every command ends with.
pub type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// A failure without a deeper cause.
    pub fn new(what: impl Into<String>) -> Self {
        Failure { what: what.into(), source: None, hint: None, code: 1 }
    }

    /// A failure and what caused it.
    pub fn caused(
        what: impl Into<String>,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Failure { source: Some(source.into()), ..Failure::new(what) }
    }

    /// Adds the next step, as a sentence; an empty one is none.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into()).filter(|hint| !hint.is_empty());
        self
    }

    /// Says in which larger undertaking it happened; the next step stays.
    pub fn within(mut self, what: impl Into<String>) -> Self {
        let (hint, code) = (self.hint.take(), self.code);
        Failure { what: what.into(), source: Some(Box::new(self)), hint, code }
    }

    /// The next step, if there is one.
    pub fn next_step(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Has the process end with this code.
    pub fn code(mut self, code: u8) -> Self {
        self.code = code;
        self
    }

    /// What the process ends with.
    pub fn exit_code(&self) -> u8 {
        self.code
    }

    /// Prints the chain of causes on one line, and the next step on another.
    pub fn print(&self) {
        eprintln!("error: {}", base::chain(self));
        if let Some(hint) = &self.hint {
            eprintln!("hint: {hint}");
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}

impl From<fleet::Trouble> for Failure {
    fn from(trouble: fleet::Trouble) -> Self {
        Failure::new(trouble.to_string()).hint(trouble.hint())
    }
}

impl From<fleet::ssh::SshError> for Failure {
    fn from(error: fleet::ssh::SshError) -> Self {
        Failure::new(error.to_string()).hint(error.hint())
    }
}

/// Says what was being done when something failed.
pub trait While<T> {
    /// Wraps the error as the cause of a [`Failure`] that says `what` was being done.
    fn doing(self, what: impl FnOnce() -> String) -> Outcome<T>;
}

impl<T, E: Into<Box<dyn Error + Send + Sync>>> While<T> for Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Outcome<T> {
        self.map_err(|source| Failure {
            what: what(),
            source: Some(source.into()),
            hint: None,
            code: 1,
        })
    }
}

/// Adds the next step to a failure.
pub trait Hint<T> {
    /// The next step, as a sentence.
    fn hint(self, hint: impl FnOnce() -> String) -> Outcome<T>;
}

impl<T> Hint<T> for Outcome<T> {
    fn hint(self, hint: impl FnOnce() -> String) -> Outcome<T> {
        self.map_err(|failure| match failure.hint {
            Some(_) => failure,
            None => failure.hint(hint()),
        })
    }
}
