//! Reads the files of authentication and authorization again when they have changed, at upstream's
//! pace. What cannot be used is told of once, and the server goes on as it was.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use apiserver::{ApiServer, Authorizers, JwtAuthenticator};
use tokio_util::sync::CancellationToken;

use super::access::AccessOptions;
use crate::failure::{Outcome, While};

/// How often the files are looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// What another file comes to.
#[derive(Debug)]
enum Change {
    Authorizers(Authorizers),
    Issuers(Vec<JwtAuthenticator>),
}

/// The files, and what stood in them last.
pub struct Reload {
    options: AccessOptions,
    authorization: Option<String>,
    authentication: Option<String>,
}

impl Reload {
    /// The files that the flags name; `None` where they name none.
    pub fn of(options: &AccessOptions) -> Option<Self> {
        let named =
            options.authorization_config.is_some() || options.authentication_config.is_some();
        named.then(|| Reload {
            authorization: text(options.authorization_config.as_deref()),
            authentication: text(options.authentication_config.as_deref()),
            options: options.clone(),
        })
    }

    /// Runs until `stop`.
    pub async fn keep(mut self, api: Arc<ApiServer>, stop: CancellationToken) -> Outcome {
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK_AGAIN) => {}
                () = stop.cancelled() => return Ok(()),
            }
            for (path, change) in self.look() {
                let file = path.display();
                match change.and_then(|change| apply(&api, &change)) {
                    Ok(()) => tracing::info!(%file, "has changed and counts from now on"),
                    Err(failure) => tracing::error!(
                        %file,
                        error = %base::chain(&failure),
                        "has changed and cannot be used; what was read before counts"
                    ),
                }
            }
        }
    }

    /// What is another since the last look. A file that is away for a moment is no change.
    fn look(&mut self) -> Vec<(PathBuf, Outcome<Change>)> {
        let mut changes = Vec::new();
        let options = &self.options;
        if let Some(path) = differs(&mut self.authorization, &options.authorization_config) {
            changes.push((path, options.authorizers().map(Change::Authorizers)));
        }
        if let Some(path) = differs(&mut self.authentication, &options.authentication_config) {
            changes.push((path, options.issuers().map(|(issuers, _)| Change::Issuers(issuers))));
        }
        changes
    }
}

fn apply(api: &ApiServer, change: &Change) -> Outcome {
    match change {
        Change::Authorizers(authorizers) => api.set_authorizers(authorizers),
        Change::Issuers(issuers) => api.set_issuers(issuers),
    }
    .doing(|| "reading a file about access again".into())
}

fn text(path: Option<&Path>) -> Option<String> {
    std::fs::read_to_string(path?).ok()
}

/// The path, where the file says something else than it was `seen` to say.
fn differs(seen: &mut Option<String>, path: &Option<PathBuf>) -> Option<PathBuf> {
    let found = text(path.as_deref())?;
    if seen.as_ref() == Some(&found) {
        return None;
    }
    *seen = Some(found);
    path.clone()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        access: AccessOptions,
    }

    #[test]
    fn a_change_is_seen_once_and_one_that_is_wrong_too() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("authorization.yaml");
        let write = |kind: &str| {
            let text = format!(
                "{{apiVersion: apiserver.config.k8s.io/v1, kind: AuthorizationConfiguration, authorizers: [{{type: {kind}, name: one}}]}}"
            );
            std::fs::write(&path, text).expect("written");
        };
        write("RBAC");
        let flag = format!("--authorization-config={}", path.display());
        let line = Line::try_parse_from(["x", &flag]).expect("the flag is known");
        let mut reload = Reload::of(&line.access).expect("there is a file");
        assert!(reload.look().is_empty());
        write("AlwaysDeny");
        assert!(
            matches!(&reload.look()[..], [(found, Ok(Change::Authorizers(_)))] if *found == path)
        );
        assert!(reload.look().is_empty());
        write("Odd");
        let looked = reload.look();
        let [(_, Err(failure))] = &looked[..] else { panic!("it is refused: {looked:?}") };
        assert!(base::chain(failure).to_string().contains("Unsupported value: \"Odd\""));
        assert!(reload.look().is_empty());
        std::fs::remove_file(&path).expect("gone");
        assert!(reload.look().is_empty());
        let nothing = Line::try_parse_from(["x"]).expect("no flags");
        assert!(Reload::of(&nothing.access).is_none());
    }
}
