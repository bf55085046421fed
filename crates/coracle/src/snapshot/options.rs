//! Flags of snapshots, named as k3s names those of `etcd-snapshot`, so that people find their way.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Hint, Outcome, While};

/// A passphrase is a line; more is another file.
const MAX_PASSPHRASE_BYTES: u64 = 4096;

/// Where snapshots are, and what they are encrypted with.
#[derive(Debug, Clone, Default, Args)]
pub struct Places {
    /// Folder for snapshots [default: server/snapshots in the data folder]
    #[arg(long, alias = "dir", env = "CORACLE_SNAPSHOT_DIR", value_name = "FOLDER", global = true)]
    pub snapshot_dir: Option<PathBuf>,
    /// File whose first line encrypts snapshots (in age's format) and opens them again
    #[arg(
        long,
        aliases = ["encrypt-passphrase-file", "passphrase-file"],
        env = "CORACLE_SNAPSHOT_PASSPHRASE_FILE",
        value_name = "FILE",
        global = true
    )]
    pub snapshot_passphrase_file: Option<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub s3: S3Options,
}

/// When a server takes snapshots by itself.
#[derive(Debug, Clone, Args)]
pub struct ScheduleOptions {
    /// Take no snapshots by schedule
    #[arg(long, env = "CORACLE_DISABLE_SNAPSHOTS")]
    pub disable_snapshots: bool,
    /// When to take one, as cron has it, in this board's time zone
    #[arg(
        long,
        env = "CORACLE_SNAPSHOT_SCHEDULE_CRON",
        default_value = "0 */12 * * *",
        value_parser = cron
    )]
    pub snapshot_schedule_cron: String,
    /// How many of these are kept
    #[arg(long, env = "CORACLE_SNAPSHOT_RETENTION", default_value_t = 5)]
    pub snapshot_retention: usize,
    /// How the names of these begin
    #[arg(
        long,
        env = "CORACLE_SNAPSHOT_NAME",
        default_value = super::names::SCHEDULED,
        value_parser = super::names::prefix
    )]
    pub snapshot_name: String,
}

/// A storage that speaks S3.
#[derive(Clone, Default, Args, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct S3Options {
    /// Keep snapshots in an S3-compatible storage too
    #[arg(long, env = "CORACLE_S3", global = true)]
    pub s3: bool,
    /// Host and port of the storage
    #[arg(
        long,
        env = "CORACLE_S3_ENDPOINT",
        default_value = "s3.amazonaws.com",
        value_name = "HOST",
        global = true
    )]
    pub s3_endpoint: String,
    /// Authority that its certificate comes from, PEM [default: those of this machine]
    #[arg(long, env = "CORACLE_S3_ENDPOINT_CA", value_name = "FILE", global = true)]
    pub s3_endpoint_ca: Option<PathBuf>,
    /// Believe any certificate
    #[arg(long, env = "CORACLE_S3_SKIP_SSL_VERIFY", global = true)]
    pub s3_skip_ssl_verify: bool,
    /// No TLS at all
    #[arg(long, env = "CORACLE_S3_INSECURE", global = true)]
    pub s3_insecure: bool,
    /// Access key
    #[arg(long, env = "AWS_ACCESS_KEY_ID", value_name = "KEY", global = true)]
    pub s3_access_key: Option<String>,
    /// Secret key
    #[arg(
        long,
        env = "AWS_SECRET_ACCESS_KEY",
        hide_env_values = true,
        value_name = "SECRET",
        global = true
    )]
    pub s3_secret_key: Option<String>,
    /// Session token, where keys are lent
    #[arg(
        long,
        env = "AWS_SESSION_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN",
        global = true
    )]
    pub s3_session_token: Option<String>,
    /// Bucket
    #[arg(long, env = "CORACLE_S3_BUCKET", value_name = "NAME", global = true)]
    pub s3_bucket: Option<String>,
    /// Region
    #[arg(
        long,
        env = "CORACLE_S3_REGION",
        default_value = "us-east-1",
        value_name = "NAME",
        global = true
    )]
    pub s3_region: String,
    /// Folder in the bucket
    #[arg(long, env = "CORACLE_S3_FOLDER", value_name = "FOLDER", global = true)]
    pub s3_folder: Option<String>,
    /// How long one request may take, in seconds
    #[arg(
        long,
        env = "CORACLE_S3_TIMEOUT",
        default_value_t = 300,
        value_name = "SECONDS",
        global = true
    )]
    pub s3_timeout: u64,
}
base::hides!(S3Options, s3, s3_endpoint, s3_bucket);

impl Places {
    /// The folder for snapshots.
    pub fn folder(&self, data_dir: &Path) -> PathBuf {
        self.snapshot_dir.clone().unwrap_or_else(|| data_dir.join("server/snapshots"))
    }

    /// What to encrypt with, if anything.
    pub fn passphrase(&self) -> Outcome<Option<String>> {
        self.snapshot_passphrase_file.as_deref().map(read_passphrase).transpose()
    }
}

impl S3Options {
    /// How long one request may take.
    pub fn timeout(&self) -> Duration {
        Duration::from_secs(self.s3_timeout.max(1))
    }
}

fn read_passphrase(path: &Path) -> Outcome<String> {
    let doing = || format!("reading the passphrase {}", path.display());
    let wrong = |what: &str| {
        Err(Failure::new(format!("{} {what}", path.display()))
            .hint("its first line is the passphrase; keep a copy of it off this board"))
    };
    let size = fs::metadata(path).doing(doing).hint(|| "name another file".into())?.len();
    if size > MAX_PASSPHRASE_BYTES {
        return wrong("is too large for a passphrase");
    }
    let text = fs::read_to_string(path).doing(doing)?;
    match text.lines().next().map(str::trim_end).filter(|line| !line.is_empty()) {
        Some(line) => Ok(line.to_owned()),
        None => wrong("holds no passphrase"),
    }
}

fn cron(text: &str) -> Result<String, String> {
    match controllers::CronSchedule::parse(text) {
        Some(_) => Ok(text.to_owned()),
        None => Err("five fields are needed: minute, hour, day, month, weekday".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_the_passphrase() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("passphrase");
        fs::write(&path, "correct horse \r\nnotes\n").expect("written");
        assert_eq!(read_passphrase(&path).expect("read"), "correct horse");
        fs::write(&path, "\n").expect("written");
        assert!(read_passphrase(&path).expect_err("refused").to_string().contains("no passphrase"));
    }
}
