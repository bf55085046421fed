//! How objects stand in etcd, readable with etcdctl.
//!
//! ```text
//! /coracle/objects/<collection>//<namespace>/<name>   the value, a line break, the mark
//! /coracle/base       what is added to etcd's revisions, so that a cluster that was moved
//!                     here goes on counting
//! /coracle/fence      compared by every write; whoever writes it shuts out what is under way
//! /coracle/deleted    the mark of the newest deletion
//! /coracle/nudge      written so that something newer than another tenant's write comes
//! /coracle/compacted  who compacts, and up to where, as upstream's API servers agree on it
//! /coracle/filling    there while a dump is written
//! ```

use bytes::Bytes;
use etcd_client::KeyValue;

use crate::{Change, Key, Revision};

/// The keys below a prefix.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub(super) root: String,
    pub(super) objects: String,
    pub(super) base: String,
    pub(super) fence: String,
    pub(super) deleted: String,
    pub(super) nudge: String,
    pub(super) compacted: String,
    pub(super) filling: String,
}

impl Layout {
    pub(super) fn below(prefix: &str) -> Self {
        let root = format!("{}/", prefix.trim_end_matches('/'));
        let key = |name: &str| format!("{root}{name}");
        Self {
            objects: key("objects/"),
            base: key("base"),
            fence: key("fence"),
            deleted: key("deleted"),
            nudge: key("nudge"),
            compacted: key("compacted"),
            filling: key("filling"),
            root,
        }
    }

    /// Where an object stands.
    pub(super) fn path(&self, key: &Key) -> String {
        let Key { collection, namespace, name } = key;
        format!("{}{collection}//{namespace}/{name}", self.objects)
    }

    /// Which object stands there, if one does.
    pub(super) fn key(&self, path: &[u8]) -> Option<Key> {
        let path = std::str::from_utf8(path).ok()?.strip_prefix(&self.objects)?;
        let (collection, rest) = path.split_once("//")?;
        let (namespace, name) = rest.split_once('/')?;
        Some(Key::new(collection, namespace, name))
    }

    /// An object as etcd gave it; `None` for what is no object.
    pub(super) fn change(&self, kv: KeyValue, base: Revision) -> Option<(Change, Option<Mark>)> {
        let key = self.key(kv.key())?;
        let (created, modified) = (kv.create_revision(), kv.mod_revision());
        let (_, value) = kv.into_key_value();
        let (value, mark) = unmarked(value.into());
        let change = Change {
            key,
            created: created.unsigned_abs() + base,
            revision: modified.unsigned_abs() + base,
            value: Some(value),
        };
        Some((change, mark))
    }
}

/// Names one attempt to write: the process, and a number it never uses again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) process: u64,
    pub(super) number: u64,
}

impl Mark {
    /// A value with this mark behind it.
    pub(super) fn put_behind(self, value: &[u8]) -> Vec<u8> {
        let mut marked = Vec::with_capacity(value.len() + 34);
        marked.extend_from_slice(value);
        marked.push(b'\n');
        marked.extend_from_slice(self.to_string().as_bytes());
        marked
    }

    pub(super) fn read(text: &[u8]) -> Option<Self> {
        let (process, number) = std::str::from_utf8(text).ok()?.split_once('.')?;
        let hex = |digits| u64::from_str_radix(digits, 16).ok();
        Some(Self { process: hex(process)?, number: hex(number)? })
    }
}

impl std::fmt::Display for Mark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:x}.{:x}", self.process, self.number)
    }
}

/// Takes the mark off a value. One that was put there by hand may have none.
pub(super) fn unmarked(mut value: Bytes) -> (Bytes, Option<Mark>) {
    let Some(at) = value.iter().rposition(|&b| b == b'\n') else { return (value, None) };
    let mark = Mark::read(&value[at + 1..]);
    if mark.is_some() {
        value.truncate(at);
    }
    (value, mark)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_back() {
        let layout = Layout::below("/coracle");
        for (collection, namespace, name, path) in [
            ("pods", "default", "a", "/coracle/objects/pods//default/a"),
            ("apps/deployments", "x", "a.b", "/coracle/objects/apps/deployments//x/a.b"),
            ("nodes", "", "n:1/2", "/coracle/objects/nodes///n:1/2"),
        ] {
            let key = Key::new(collection, namespace, name);
            assert_eq!(layout.path(&key), path);
            assert_eq!(layout.key(path.as_bytes()), Some(key));
        }
        for other in ["/coracle/base", "/coracle/objects/pods", "/registry/pods//default/a"] {
            assert_eq!(layout.key(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn marks_come_off() {
        let mark = Mark { process: 0xabc, number: 17 };
        let marked = mark.put_behind(b"{}\n{}");
        assert_eq!(unmarked(marked.into()), ("{}\n{}".into(), Some(mark)));
        for plain in ["{}", "{}\n{}", "a\nb.c.d", ""] {
            assert_eq!(unmarked(plain.into()), (plain.into(), None), "{plain:?}");
        }
    }
}
