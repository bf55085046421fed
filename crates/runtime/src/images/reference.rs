//! Image references, normalised as Docker does: `nginx` is `docker.io/library/nginx:latest`.

use std::fmt;

use crate::{Error, Result};

/// A normalised reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Host and perhaps port (`docker.io`, `127.0.0.1:5000`).
    pub registry: String,
    /// Path in it (`library/nginx`).
    pub repository: String,
    /// Tag; `latest` if neither tag nor digest was given.
    pub tag: Option<String>,
    /// `sha256:...`.
    pub digest: Option<String>,
}

const DEFAULT_REGISTRY: &str = "docker.io";
/// Limits of the distribution specification.
const REPOSITORY_LIMIT_BYTES: usize = 255;
const TAG_LIMIT_BYTES: usize = 128;

impl Reference {
    /// Parses and normalises.
    ///
    /// # Errors
    /// [`Error::Reference`] with the rule that was broken.
    pub fn parse(text: &str) -> Result<Self> {
        parse(text).map_err(|reason| Error::Reference { reference: text.to_owned(), reason })
    }

    /// Registry and repository.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// Name and tag; none without a tag.
    pub fn tagged(&self) -> Option<String> {
        self.tag.as_ref().map(|tag| format!("{}:{tag}", self.name()))
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

fn parse(text: &str) -> Result<Reference, String> {
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(check_digest(digest)?)),
        None => (text, None),
    };
    let (path, tag) = match rest.rsplit_once(':') {
        // A colon before a slash belongs to a port.
        Some((path, tag)) if !tag.contains('/') => (path, Some(check_tag(tag)?)),
        _ => (rest, None),
    };
    let (registry, repository) = match path.split_once('/') {
        Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => (host, path),
        _ => (DEFAULT_REGISTRY, path),
    };
    let registry = if registry == "index.docker.io" { DEFAULT_REGISTRY } else { registry };
    let repository = if registry == DEFAULT_REGISTRY && !repository.contains('/') {
        format!("library/{repository}")
    } else {
        repository.to_owned()
    };
    check_registry(registry)?;
    check_repository(&repository)?;
    let tag = if tag.is_none() && digest.is_none() { Some("latest".to_owned()) } else { tag };
    Ok(Reference { registry: registry.to_owned(), repository, tag, digest })
}

fn check_digest(digest: &str) -> Result<String, String> {
    let hex = digest.strip_prefix("sha256:").ok_or("only sha256 digests are supported")?;
    if hex.len() != 64 || !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return Err("invalid digest format".to_owned());
    }
    Ok(digest.to_owned())
}

fn check_tag(tag: &str) -> Result<String, String> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let good = tag.len() <= TAG_LIMIT_BYTES
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-');
    if good { Ok(tag.to_owned()) } else { Err("invalid tag format".to_owned()) }
}

fn check_registry(host: &str) -> Result<(), String> {
    let good = !host.is_empty()
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:[]".contains(&b));
    if good { Ok(()) } else { Err("invalid registry name".to_owned()) }
}

fn check_repository(repository: &str) -> Result<(), String> {
    if repository.len() > REPOSITORY_LIMIT_BYTES {
        return Err("repository name must not be more than 255 characters".to_owned());
    }
    if repository.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err("repository name must be lowercase".to_owned());
    }
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let good = repository.split('/').all(|part| {
        edge(part.bytes().next())
            && edge(part.bytes().last())
            && part
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
    });
    if good { Ok(()) } else { Err("invalid reference format".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalised() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (text, want) in [
            ("nginx", "docker.io/library/nginx:latest"),
            ("nginx:1.27", "docker.io/library/nginx:1.27"),
            ("bitnami/redis", "docker.io/bitnami/redis:latest"),
            ("index.docker.io/library/x", "docker.io/library/x:latest"),
            ("localhost/x", "localhost/x:latest"),
            ("localhost:5000/a/b:c", "localhost:5000/a/b:c"),
            ("127.0.0.1:5000/x", "127.0.0.1:5000/x:latest"),
            ("ghcr.io/o/r_x:v1.0-rc.1", "ghcr.io/o/r_x:v1.0-rc.1"),
        ] {
            assert_eq!(Reference::parse(text).unwrap().to_string(), want, "{text}");
        }
        let both = Reference::parse(&format!("x:1@{digest}")).unwrap();
        assert_eq!(both.to_string(), format!("docker.io/library/x:1@{digest}"));
        let one = Reference::parse(&format!("x@{digest}")).unwrap();
        assert_eq!(one.tag, None);
    }

    #[test]
    fn refused() {
        for text in
            ["", "UPPER", "a//b", "x:", "x:-y", "x@sha256:12", "-x", "a b", "x@md5:12", "/x"]
        {
            assert!(Reference::parse(text).is_err(), "{text}");
        }
    }
}
