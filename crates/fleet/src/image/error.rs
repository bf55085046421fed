use std::io;

/// What goes wrong with an image or a card.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A file or device could not be read or written.
    #[error("{doing}")]
    Io {
        /// What was being done, and to what.
        doing: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A file system could not be read.
    #[error("{doing}")]
    Ext {
        /// What was being done, and to what.
        doing: String,
        /// Why it failed.
        #[source]
        source: Box<ext4_view::Ext4Error>,
    },
    /// Another program did not do what it was asked for.
    #[error("{doing}: {said}")]
    Tool {
        /// The program and what it worked on.
        doing: String,
        /// What it said.
        said: String,
    },
    /// Something about the image, the board or the device does not allow it.
    #[error("{what}")]
    Refused {
        /// What, in a sentence.
        what: String,
        /// The next step.
        hint: String,
    },
}

impl ImageError {
    /// A refusal and the next step.
    pub fn refused(what: impl Into<String>, hint: impl Into<String>) -> Self {
        ImageError::Refused { what: what.into(), hint: hint.into() }
    }

    /// The next step, where there is one.
    pub fn hint(&self) -> Option<&str> {
        match self {
            ImageError::Refused { hint, .. } => Some(hint),
            ImageError::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                Some("make room there, or name another folder")
            }
            _ => None,
        }
    }
}

/// Says what was being done when reading or writing failed.
pub trait Doing<T> {
    /// Wraps the error as the cause of one that says `what` was being done.
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, ImageError>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, ImageError> {
        self.map_err(|source| ImageError::Io { doing: what(), source })
    }
}

impl<T> Doing<T> for Result<T, ext4_view::Ext4Error> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, ImageError> {
        self.map_err(|source| ImageError::Ext { doing: what(), source: Box::new(source) })
    }
}
