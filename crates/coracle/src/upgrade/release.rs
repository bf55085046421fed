use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

/// A release of Coracle. Each serves one level of the Kubernetes API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Release {
    /// Changes when clusters must be made anew.
    pub major: u32,
    /// Changes when something is added.
    pub minor: u32,
    /// Changes when something is repaired.
    pub patch: u32,
}

/// The release that this process is.
///
/// A build for debugging can be told to be another by `CORACLE_VERSION_OVERRIDE`: that is how the
/// tests upgrade without building the binary twice.
pub fn current() -> Release {
    static CURRENT: OnceLock<Release> = OnceLock::new();
    *CURRENT.get_or_init(|| {
        let told = std::env::var("CORACLE_VERSION_OVERRIDE").ok();
        let told = told.filter(|_| cfg!(debug_assertions)).and_then(|told| told.parse().ok());
        told.unwrap_or_else(built)
    })
}

/// Read when it is asked for: the tests of upgrades put another text in its place in the binary.
fn built() -> Release {
    env!("CARGO_PKG_VERSION").parse().expect("Cargo's version is made of three numbers")
}

impl Release {
    /// The release in what nodes and `/version` say, such as `v1.36.0+coracle0.1.0`.
    pub fn of_version(text: &str) -> Option<Release> {
        text.split_once("+coracle").and_then(|(_, release)| release.parse().ok())
    }

    /// Two releases of one minor differ in repairs alone.
    pub fn same_minor(self, other: Release) -> bool {
        (self.major, self.minor) == (other.major, other.minor)
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// A text that names no release.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no release, such as 0.1.0")]
pub struct NoRelease(String);

impl FromStr for Release {
    type Err = NoRelease;

    fn from_str(text: &str) -> Result<Self, NoRelease> {
        // What follows a dash tells builds of one release apart.
        let plain = text.split_once('-').map_or(text, |(plain, _)| plain);
        let numbers: Option<Vec<u32>> = plain.split('.').map(|part| part.parse().ok()).collect();
        match numbers.as_deref() {
            Some(&[major, minor, patch]) => Ok(Release { major, minor, patch }),
            _ => Err(NoRelease(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read_as_they_are_written() {
        for text in ["0.1.0", "12.3.45"] {
            assert_eq!(text.parse::<Release>().expect("a release").to_string(), text);
        }
        assert_eq!("1.2.3-rc1".parse::<Release>().expect("a release").to_string(), "1.2.3");
        for wrong in ["", "1.2", "v1.2.3", "1.2.3.4", "1..2"] {
            assert!(wrong.parse::<Release>().is_err(), "{wrong}");
        }
        let node = Release::of_version("v1.36.0+coracle0.2.1").expect("a release");
        assert_eq!(node.to_string(), "0.2.1");
        assert_eq!(Release::of_version("v1.36.0"), None);
        assert_eq!(built().to_string(), env!("CARGO_PKG_VERSION"));
    }
}
