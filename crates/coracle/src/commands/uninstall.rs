//! `coracle uninstall`: the way back.

use std::fs;
use std::io::{self, BufRead, ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::install::{must_be_root, token_file};
use super::unit::{self, Role, systemctl};
use crate::cli;
use crate::config::Common;
use crate::failure::{Failure, Hint, Outcome, While};
use crate::server;

/// Stops the service, ends its pods, and removes what Coracle has put on this machine.
pub async fn run(common: Common, options: cli::Uninstall) -> Outcome {
    must_be_root("removing Coracle")?;
    let everything = [&common.data_dir, &common.run_dir];
    if !options.yes && !confirmed(&everything)? {
        return Err(Failure::new("nothing was removed").hint("answer yes, or use --yes"));
    }
    let units = options.unit.clone().map_or(Role::ALL.map(Role::unit).to_vec(), |unit| vec![unit]);
    for unit in units.iter().filter(|unit| unit.exists()) {
        systemctl(&["disable", "--now", &unit::name(unit)])?;
        remove(unit)?;
        if let Some(file) = unit::logind_conf(unit) {
            remove(&file)?;
            unit::reload_logind();
        }
        systemctl(&["daemon-reload"])?;
    }
    server::must_be_stopped(&common.data_dir, "removing Coracle")?;
    server::remove_node_state(&common, &options).await?;
    for path in everything {
        remove(path)?;
    }
    remove(&options.write_kubeconfig)?;
    remove(&common.config)?;
    remove(&token_file(&common))?;
    remove_if_empty(common.config.parent());
    remove_if_empty(options.write_kubeconfig.parent());
    remove(&options.binary)?;
    println!("removed: nothing of Coracle is left on this machine");
    Ok(())
}

fn confirmed(folders: &[&PathBuf]) -> Outcome<bool> {
    println!("This ends all pods on this machine and removes for good:");
    folders.iter().for_each(|folder| println!("  {}", folder.display()));
    print!("Type yes to go on: ");
    let mut answer = String::new();
    io::stdout()
        .flush()
        .and_then(|()| io::stdin().lock().read_line(&mut answer))
        .doing(|| "asking".into())?;
    Ok(answer.trim() == "yes")
}

fn remove(path: &Path) -> Outcome {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error)
            .doing(|| format!("removing {}", path.display()))
            .hint(|| "see what uses it (`fuser -vm`), end that, and run the command again".into()),
        _ => Ok(()),
    }
}

fn remove_if_empty(folder: Option<&Path>) {
    if let Some(folder) = folder {
        // A folder that holds something else is somebody else's.
        let _ = fs::remove_dir(folder);
    }
}
