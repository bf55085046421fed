//! Upstream's own end-to-end tests, built from Debian's source package and run against this
//! binary: `cargo xtask conformance build|run|report`.
//!
//! Nothing of that tree is in the repository. Everything is made below a cache folder outside the
//! checkout ([`cache`]) and made again only where its recipe changed. A run has a cluster of its
//! own ([`cluster`]) in namespaces of its own and leaves its JUnit files in the cache; the report
//! puts the newest result of each test together ([`report`]).

mod archive;
mod cache;
mod cluster;
mod commands;
mod images;
mod internet;
mod junit;
mod packages;
mod peer;
mod programs;
mod report;
mod suite;

use clap::{Args, Subcommand, ValueEnum};

use crate::run::Outcome;
use cache::Cache;

/// What can be done with upstream's tests.
#[derive(Subcommand)]
pub enum Conformance {
    /// Build the tests, what they drive and the images they run; only what is missing
    Build,
    /// Build upstream's control plane, as a peer to measure beside; prints its folder
    Peer,
    /// Run tests against a cluster of its own, which is gone afterwards
    Run(Run),
    /// Write conformance/RESULTS.md from the newest result of each test
    Report,
    /// Run upstream's shell test of kubectl, and write conformance/COMMANDS.md
    Commands {
        /// Functions of it, such as run_pod_tests; without any all, and only then the file is written
        functions: Vec<String>,
    },
}

/// How tests are run.
#[derive(Args)]
pub struct Run {
    /// Which tests, as a regular expression over their names
    #[arg(long, default_value = r"\[Conformance\]")]
    pub focus: String,
    /// Which not
    #[arg(long)]
    pub skip: Option<String>,
    /// Take focus and skip from the subset that CI runs
    #[arg(long, conflicts_with_all = ["focus", "skip"])]
    pub fast: bool,
    /// Boards of the cluster; the first is its server
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub nodes: u8,
    /// What the tests' clients speak
    #[arg(long, value_enum, default_value_t = ContentType::Protobuf)]
    pub content_type: ContentType,
    /// Tests that run at a time; those marked `[Serial]` come after the others
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=32))]
    pub parallel: u8,
}

/// What the tests' clients speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ContentType {
    /// `application/json`
    Json,
    /// `application/vnd.kubernetes.protobuf`, the suite's default
    Protobuf,
}

impl ContentType {
    /// As a folder's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Protobuf => "protobuf",
        }
    }

    /// As the suite's flag takes it.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Protobuf => "application/vnd.kubernetes.protobuf",
        }
    }
}

/// Carries out one of the commands.
pub fn conformance(command: &Conformance) -> Outcome {
    let cache = Cache::open()?;
    match command {
        Conformance::Build => build(&cache).map(|_| ()),
        Conformance::Peer => peer::build(&cache).map(|folder| println!("{}", folder.display())),
        Conformance::Run(options) => suite::run(&cache, options),
        Conformance::Report => report::write(&cache),
        Conformance::Commands { functions } => commands::commands(&cache, functions),
    }
}

/// Makes what is missing; the images' archives.
fn build(cache: &Cache) -> Outcome<Vec<std::path::PathBuf>> {
    let apt = packages::Apt::new(cache)?;
    let tree = programs::Tree::unpack(cache, &apt)?;
    tree.build_all()?;
    images::build(cache, &apt, &tree)
}
