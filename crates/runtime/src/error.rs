//! What can go wrong, sorted by what a caller would do about it.

use std::io;

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failed runtime call.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no such sandbox, container or image. Removal treats this as success.
    #[error("{kind} {id:?} not found")]
    NotFound {
        /// `sandbox`, `container` or `image`.
        kind: &'static str,
        /// What was asked for.
        id: String,
    },
    /// The call does not fit the object's state, for example exec in an exited container.
    #[error("{kind} {id:?} is {state}, cannot {action}")]
    State {
        /// `sandbox` or `container`.
        kind: &'static str,
        /// Which one.
        id: String,
        /// The state it is in.
        state: String,
        /// What was asked of it.
        action: &'static str,
    },
    /// The caller's configuration cannot work; trying again without a change is useless.
    #[error("{0}")]
    Invalid(String),
    /// An image reference cannot be parsed (`InvalidImageName` for a kubelet).
    #[error("couldn't parse image reference {reference:?}: {reason}")]
    Reference {
        /// The text given.
        reference: String,
        /// Why it is none.
        reason: String,
    },
    /// The registry refused, was not reached, or sent something else than it promised. The
    /// message carries the registry's own words.
    #[error("failed to pull image {reference:?}: {message}")]
    Pull {
        /// The image asked for, normalised.
        reference: String,
        /// The registry's answer or the transport's error.
        message: String,
        /// Whether the registry itself did not answer (as against: answered with a refusal).
        unreachable: bool,
    },
    /// An archive or a stored image is damaged or of an unknown form.
    #[error("{what}: {reason}")]
    Image {
        /// The archive, blob or layer.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The image is used by a container and was not removed.
    #[error("image {0:?} is in use by a container")]
    InUse(String),
    /// The container's process could not be made or started; the message is meant for people
    /// (`exec: "foo": executable file not found in $PATH`).
    #[error("{message}")]
    Start {
        /// What the container tool said.
        message: String,
    },
    /// Something took longer than it was given.
    #[error("{what}: timed out after {seconds} s")]
    Timeout {
        /// The action.
        what: String,
        /// Its limit.
        seconds: u64,
    },
    /// The sandbox's shim does not answer or answered with nonsense.
    #[error("shim of sandbox {id:?}: {reason}")]
    Shim {
        /// The sandbox.
        id: String,
        /// What happened.
        reason: String,
    },
    /// The operating system refused.
    #[error("{what}")]
    Io {
        /// What was being done, and to what.
        what: String,
        /// The system's error.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// Whether the thing asked for does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// Wraps a system error with what was being done: `map_err(Error::io("reading /x"))`.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
