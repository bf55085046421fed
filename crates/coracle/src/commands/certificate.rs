//! `coracle certificate`: what certificates there are, and new ones in their place.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use jiff::{SignedDuration, Timestamp};
use x509_parser::pem::Pem;

use super::admin::Admin;
use crate::config::Common;
use crate::failure::{Failure, Outcome};
use crate::join::protocol::{Change, Changed};

/// Folders that are looked through for certificates, below the data folder.
const FOLDERS: [&str; 3] = ["server/tls", "server/tls/etcd", "agent/pki"];
/// A certificate that ends sooner is worth a warning: by then it should have been renewed.
const SOON: SignedDuration = SignedDuration::from_hours(2 * 24);

/// Commands on certificates.
#[derive(Debug, Subcommand)]
pub enum CertificateCommand {
    /// List the certificates on this board, with what is left of their lives
    Check,
    /// Have every certificate of the cluster made anew now, by the present authorities
    Rotate,
    /// Replace the cluster's authorities and the key of service accounts, while everything runs
    ///
    /// The old ones stay trusted until `--finish`: kubeconfigs, tokens and agents of before go
    /// on working. `coracle kubeconfig` prints one of the new authorities at once.
    RotateCa {
        /// End the trust in the old ones
        #[arg(long)]
        finish: bool,
        /// End it even where a node has not taken the new ones yet
        #[arg(long, requires = "finish")]
        force: bool,
    },
}

/// Carries out a command on certificates.
pub async fn run(common: Common, command: CertificateCommand) -> Outcome {
    let change = match command {
        CertificateCommand::Check => return check(&common.data_dir),
        CertificateCommand::Rotate => Change::Leaves,
        CertificateCommand::RotateCa { finish: false, .. } => Change::Authorities,
        CertificateCommand::RotateCa { finish: true, force } => Change::Finish { force },
    };
    let changed: Changed = Admin::open(&common).await?.change(&change).await?;
    println!("generation {} of the cluster's keys", changed.generation);
    eprintln!(
        "{}",
        match change {
            Change::Authorities =>
                "the new authorities sign from now on; the old ones stay trusted until \
                 `coracle certificate rotate-ca --finish`. Hand out the new tokens \
                 (`coracle token show`) and kubeconfigs (`coracle kubeconfig`) before that",
            Change::Finish { .. } =>
                "only the new authorities are trusted: kubeconfigs and tokens of before are void",
            _ => "servers and agents renew their certificates by themselves",
        }
    );
    Ok(())
}

/// One certificate of a file.
struct Found {
    file: String,
    subject: String,
    authority: bool,
    end: Timestamp,
}

fn check(data_dir: &Path) -> Outcome {
    let mut found = Vec::new();
    for folder in FOLDERS {
        let mut files: Vec<PathBuf> = fs::read_dir(data_dir.join(folder))
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|end| end == "crt" || end == "pem"))
            .collect();
        files.sort_unstable();
        for path in files {
            let file = path.strip_prefix(data_dir).unwrap_or(&path).display().to_string();
            found.extend(read(&file, &fs::read(&path).unwrap_or_default()));
        }
    }
    if found.is_empty() {
        return Err(Failure::new(format!("there are no certificates in {}", data_dir.display()))
            .hint("run this as root on a board of the cluster, with its --data-dir"));
    }
    let now = Timestamp::now();
    println!("{}", table(&found, now));
    let over: Vec<&str> =
        found.iter().filter(|one| one.end <= now).map(|one| one.file.as_str()).collect();
    match over.is_empty() {
        true => Ok(()),
        false => Err(Failure::new(format!("expired: {}", over.join(", ")))
            .hint("see that the clock is right, then start the server or agent anew")),
    }
}

fn read(file: &str, content: &[u8]) -> Vec<Found> {
    let certificates = Pem::iter_from_buffer(content).flatten();
    certificates
        .filter(|pem| pem.label == "CERTIFICATE")
        .filter_map(|pem| {
            let certificate = pem.parse_x509().ok()?;
            Some(Found {
                file: file.to_owned(),
                subject: certificate.subject().to_string(),
                authority: certificate.is_ca(),
                end: Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()?,
            })
        })
        .collect()
}

fn table(found: &[Found], now: Timestamp) -> String {
    let head = ["FILE", "SUBJECT", "USE", "EXPIRES", "RESIDUAL TIME", "STATUS"];
    let rows = found.iter().map(|one| {
        let left = one.end.duration_since(now);
        let residual = match left.as_hours() {
            hours if hours >= 48 => format!("{} days", hours / 24),
            hours if hours >= 0 => format!("{hours} hours"),
            _ => "none".to_owned(),
        };
        let status = match left {
            left if !left.is_positive() => "EXPIRED",
            left if left < SOON => "SOON",
            _ => "OK",
        };
        let used_as = if one.authority { "CA" } else { "leaf" };
        [
            one.file.clone(),
            one.subject.clone(),
            used_as.to_owned(),
            format!("{:.0}", one.end),
            residual,
            status.to_owned(),
        ]
    });
    super::columns(&head.map(str::to_owned), rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_shown() {
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().expect("a time");
        let at = |hours: i64| Found {
            file: "f".into(),
            subject: "CN=x".into(),
            authority: hours > 1000,
            end: now + SignedDuration::from_hours(hours),
        };
        let table = table(&[at(2400), at(30), at(-1)], now);
        let ends: Vec<String> = table
            .lines()
            .skip(1)
            .map(|line| line.split_whitespace().skip(4).collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(ends, ["100 days OK", "30 hours SOON", "none EXPIRED"]);
    }
}
