//! What expressions know beside the language and the libraries that are the same everywhere.

/// What is particular to the place of an expression.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Language {
    /// `cel.bind`, which upstream has in selectors of devices only.
    pub has_bindings: bool,
    /// `Object{}`, `JSONPatch{}` and `jsonpatch.escapeKey`, which mutations have.
    pub has_objects: bool,
}

impl Language {
    /// Of a mutating policy's changes.
    pub const MUTATION: Language = Language { has_bindings: false, has_objects: true };
    /// Of selectors of devices.
    pub const DEVICE: Language = Language { has_bindings: true, has_objects: false };
}
