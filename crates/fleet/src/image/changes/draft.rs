use super::super::change::{Change, Content, Owner, ROOT};
use super::super::layout::Layout;

/// Changes as they come together.
#[derive(Debug)]
pub struct Draft<'a> {
    layout: &'a Layout,
    changes: Vec<Change>,
    warnings: Vec<String>,
}

impl<'a> Draft<'a> {
    /// Nothing is changed yet.
    pub fn new(layout: &'a Layout) -> Self {
        Draft { layout, changes: Vec::new(), warnings: Vec::new() }
    }

    /// What there is to begin with.
    pub fn layout(&self) -> &'a Layout {
        self.layout
    }

    /// What was decided.
    pub fn finish(self) -> (Vec<Change>, Vec<String>) {
        (self.changes, self.warnings)
    }

    /// Something a person should know before the board is started.
    pub fn warn(&mut self, text: impl Into<String>) {
        self.warnings.push(text.into());
    }

    /// A change as it is. One of the same path that came before is replaced.
    pub fn push(&mut self, change: Change) {
        self.changes.retain(|before| before.path() != change.path());
        self.changes.push(change);
    }

    /// A text that root owns and everybody may read.
    pub fn file(&mut self, path: impl Into<String>, text: impl Into<String>) {
        self.put(path, text, 0o644, ROOT, false);
    }

    /// A text for root only, which is not shown.
    pub fn secret(&mut self, path: impl Into<String>, text: impl Into<String>) {
        self.put(path, text, 0o600, ROOT, true);
    }

    /// A text.
    pub fn put(
        &mut self,
        path: impl Into<String>,
        text: impl Into<String>,
        mode: u16,
        owner: Owner,
        secret: bool,
    ) {
        let (path, content) = (path.into(), Content::Bytes(text.into().into_bytes()));
        let before = self.layout.text(&path).map(str::to_owned);
        self.push(Change::File { path, content, mode, owner, secret, before });
    }

    /// A symbolic link.
    pub fn link(&mut self, path: impl Into<String>, target: impl Into<String>) {
        self.push(Change::Link { path: path.into(), target: target.into() });
    }

    /// Takes something away, if it is there.
    pub fn remove(&mut self, path: &str) {
        if self.layout.has(path) {
            self.push(Change::Remove { path: path.into() });
        }
    }

    /// A unit that nothing can start.
    pub fn mask(&mut self, unit: &str) {
        if self.layout.has_unit(unit) {
            self.link(format!("/etc/systemd/system/{unit}"), "/dev/null");
        }
    }

    /// A unit that is started with the target.
    pub fn enable(&mut self, unit: &str, target: &str, file: &str) {
        self.link(format!("/etc/systemd/system/{target}.wants/{unit}"), file);
    }

    /// A file's text as far as it is decided.
    pub fn text(&self, path: &str) -> Option<String> {
        let changed = self.changes.iter().find_map(|change| match change {
            Change::File { path: at, content: Content::Bytes(bytes), .. } if at == path => {
                Some(String::from_utf8_lossy(bytes).into_owned())
            }
            _ => None,
        });
        changed.or_else(|| self.layout.text(path).map(str::to_owned))
    }

    /// Changes a file's text, where there is one; its permissions stay. Nothing happens where the
    /// text stays the same.
    pub fn edit(&mut self, path: &str, edit: impl FnOnce(&str) -> String) {
        let Some(before) = self.text(path) else { return };
        let after = edit(&before);
        if after != before {
            let (mode, owner) = self.layout.rights(path).unwrap_or((0o644, ROOT));
            // Permissions other than "everybody reads" mean that not everybody should.
            self.put(path, after, mode, owner, mode & 0o004 == 0);
        }
    }
}
