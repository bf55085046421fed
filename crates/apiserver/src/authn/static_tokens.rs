//! Tokens in a file (upstream's `--token-auth-file`): a line each of token, user name, uid and,
//! optionally, groups, as comma-separated values.

use std::collections::HashMap;

use ring::digest::{SHA256, digest};

use crate::user::User;

/// Tokens that are not read any more.
const TOKENS_MAX: usize = 10_000;

/// Users by the digest of their token, so that finding one takes no longer the more of it is
/// guessed.
#[derive(Clone, Debug, Default)]
pub struct StaticTokens(HashMap<Vec<u8>, User>);

impl StaticTokens {
    /// Reads the text of a token file. The error says which line cannot be meant.
    pub fn parse(text: &str) -> Result<StaticTokens, String> {
        let mut users = HashMap::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let fields = fields(line).map_err(|why| format!("line {}: {why}", index + 1))?;
            let [token, name, uid, rest @ ..] = fields.as_slice() else {
                return Err(format!(
                    "line {}: token file must have at least 3 columns (token, user name, user uid), found {}",
                    index + 1,
                    fields.len()
                ));
            };
            if users.len() == TOKENS_MAX {
                return Err(format!("more than {TOKENS_MAX} tokens"));
            }
            if token.is_empty() {
                tracing::warn!(line = index + 1, "empty token has been found in token file");
                continue;
            }
            let groups = rest.first().map_or("", String::as_str).split(',');
            let mut user = User::new(name, groups.map(str::trim).filter(|one| !one.is_empty()));
            user.uid.clone_from(uid);
            users.insert(key(token), user);
        }
        Ok(StaticTokens(users))
    }

    /// The user that a token stands for.
    pub(crate) fn user(&self, token: &str) -> Option<&User> {
        if self.0.is_empty() { None } else { self.0.get(&key(token)) }
    }
}

fn key(token: &str) -> Vec<u8> {
    digest(&SHA256, token.as_bytes()).as_ref().to_vec()
}

/// The fields of a line of comma-separated values (RFC 4180): one in quotes may hold commas and
/// doubled quotes.
fn fields(line: &str) -> Result<Vec<String>, &'static str> {
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        rest = rest.trim_start();
        let (field, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_field(quoted)?,
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                (rest[..end].trim_end().to_owned(), &rest[end..])
            }
        };
        fields.push(field);
        match after.trim_start().strip_prefix(',') {
            Some(next) => rest = next,
            None if after.trim().is_empty() => return Ok(fields),
            None => return Err("something follows a quoted field"),
        }
    }
}

fn quoted_field(text: &str) -> Result<(String, &str), &'static str> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let end = rest.find('"').ok_or("a quote is not closed")?;
        field.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(next) => {
                field.push('"');
                rest = next;
            }
            None => return Ok((field, rest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_users() {
        let text =
            "# people\nabc,ann,7\nd-e,bob,8,\"devs, ops\"\n\n\"x\"\"y\",eve,9,one\n,none,1\n";
        let tokens = StaticTokens::parse(text).unwrap();
        let say = |token: &str| {
            tokens
                .user(token)
                .map(|user| format!("{} {} {}", user.name, user.uid, user.groups.join("+")))
        };
        assert_eq!(say("abc").unwrap(), "ann 7 system:authenticated");
        assert_eq!(say("d-e").unwrap(), "bob 8 devs+ops+system:authenticated");
        assert_eq!(say("x\"y").unwrap(), "eve 9 one+system:authenticated");
        assert_eq!(say(""), None);
        assert_eq!(say("d-"), None);
    }

    #[test]
    fn what_cannot_be_meant_is_said() {
        for (text, expected) in [
            (
                "a,b,c\nd,e",
                "line 2: token file must have at least 3 columns (token, user name, user uid), found 2",
            ),
            ("a,\"b,c", "line 1: a quote is not closed"),
            ("a,\"b\"c,d", "line 1: something follows a quoted field"),
        ] {
            assert_eq!(StaticTokens::parse(text).unwrap_err(), expected);
        }
    }
}
