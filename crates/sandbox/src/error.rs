use std::error::Error as StdError;

/// What failed, why, and what to do next.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct Error {
    what: String,
    #[source]
    source: Option<Box<dyn StdError + Send + Sync>>,
    hint: Option<String>,
}

/// What everything here ends with.
pub(crate) type Result<T = ()> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Error { what: what.into(), source: None, hint: None }
    }

    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The next step, as a sentence.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

/// Says what was being done when something failed.
pub(crate) trait Doing<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<Box<dyn StdError + Send + Sync>>> Doing<T> for std::result::Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error { what: what(), source: Some(source.into()), hint: None })
    }
}

/// Adds the next step to an error that has none.
pub(crate) trait Hinted<T> {
    fn hinted(self, hint: &str) -> Result<T>;
}

impl<T> Hinted<T> for Result<T> {
    fn hinted(self, hint: &str) -> Result<T> {
        self.map_err(|error| match error.hint {
            Some(_) => error,
            None => error.with_hint(hint),
        })
    }
}
