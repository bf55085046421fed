//! Users by an image's own `passwd` and `group` files.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::{Error, Result, Security, UserSpec};

/// Largest file looked at.
const FILE_LIMIT_BYTES: u64 = 1 << 20;

/// Whom a process runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Further groups.
    pub groups: Vec<u32>,
    /// Home folder; empty if unknown.
    pub home: String,
}

/// Reads a file out of stacked layers, uppermost first.
pub fn read_from_layers(layers: &Path, lower: &[String], file: &str) -> String {
    for layer in lower {
        let path: PathBuf = layers.join(layer).join(file);
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        // A whiteout hides what is below; a link could lead out of the layer.
        if !meta.is_file() || meta.len() > FILE_LIMIT_BYTES {
            return String::new();
        }
        return fs::read_to_string(&path).unwrap_or_default();
    }
    String::new()
}

/// Works out the identity from the request, the image's user and its files.
///
/// # Errors
/// [`Error::Invalid`] for a name that the files do not have.
pub fn resolve(security: &Security, image: &str, passwd: &str, group: &str) -> Result<Identity> {
    let text = match &security.user {
        UserSpec::Image => image.to_owned(),
        UserSpec::Uid(uid) => uid.to_string(),
        UserSpec::Name(name) => name.clone(),
    };
    let (user, named_group) = match text.split_once(':') {
        Some((user, group)) => (user, group),
        None => (text.as_str(), ""),
    };
    let user = if user.is_empty() { "0" } else { user };
    let line = passwd.lines().map(|l| l.split(':').collect::<Vec<_>>()).find(|f| {
        f.len() >= 6 && (f[0] == user || user.parse::<u32>().is_ok_and(|u| f[2] == u.to_string()))
    });
    let uid = match (&line, user.parse()) {
        (Some(fields), Err(_)) => number(fields[2], "uid", user)?,
        (_, Ok(uid)) => uid,
        (None, Err(_)) => {
            return Err(Error::Invalid(format!(
                "unable to find user {user}: no matching entries in passwd file"
            )));
        }
    };
    let own = line.as_ref().map(|f| number(f[3], "gid", user)).transpose()?;
    let gid = match (security.group, named_group) {
        (Some(gid), _) => gid,
        (None, "") => own.unwrap_or(0),
        (None, name) => match name.parse() {
            Ok(gid) => gid,
            Err(_) => group_id(group, name).ok_or_else(|| {
                Error::Invalid(format!(
                    "unable to find group {name}: no matching entries in group file"
                ))
            })?,
        },
    };
    let mut groups: BTreeSet<u32> = security.supplemental_groups.iter().copied().collect();
    if let (false, Some(fields)) = (security.strict_groups, &line) {
        groups.extend(memberships(group, fields[0]));
    }
    groups.insert(gid);
    let home = line.map_or(String::new(), |f| f[5].to_owned());
    Ok(Identity { uid, gid, groups: groups.into_iter().collect(), home })
}

fn number(text: &str, what: &str, user: &str) -> Result<u32> {
    text.parse()
        .map_err(|_| Error::Invalid(format!("passwd file has {what} {text:?} for user {user}")))
}

fn group_id(file: &str, name: &str) -> Option<u32> {
    file.lines().find_map(|l| {
        let mut fields = l.split(':');
        (fields.next()? == name).then(|| fields.nth(1)?.parse().ok())?
    })
}

fn memberships(file: &str, user: &str) -> Vec<u32> {
    let member = |l: &str| {
        let fields: Vec<&str> = l.split(':').collect();
        let [_, _, gid, members, ..] = fields.as_slice() else { return None };
        members.split(',').any(|m| m == user).then(|| gid.parse().ok())?
    };
    file.lines().filter_map(member).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:w:/var/www:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nweb:x:34:\nmedia:x:50:root,web\n";

    fn got(user: UserSpec, image: &str) -> String {
        let security = Security { user, ..Security::default() };
        match resolve(&security, image, PASSWD, GROUP) {
            Ok(i) => format!("{}:{} {:?} {}", i.uid, i.gid, i.groups, i.home),
            Err(e) => e.to_string(),
        }
    }

    #[test]
    fn identities() {
        assert_eq!(got(UserSpec::Image, ""), "0:0 [0, 50] /root");
        assert_eq!(got(UserSpec::Image, "web"), "33:34 [34, 50] /var/www");
        assert_eq!(got(UserSpec::Image, "web:media"), "33:50 [50] /var/www");
        assert_eq!(got(UserSpec::Image, "65532:65532"), "65532:65532 [65532] ");
        assert_eq!(got(UserSpec::Uid(33), ""), "33:34 [34, 50] /var/www");
        assert_eq!(got(UserSpec::Uid(1000), "web"), "1000:0 [0] ");
        assert_eq!(
            got(UserSpec::Name("nobody".into()), ""),
            "unable to find user nobody: no matching entries in passwd file"
        );
    }
}
