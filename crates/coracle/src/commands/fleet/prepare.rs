//! `coracle image prepare`: a stock image becomes one for each board, as a file or on a card.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use fleet::config::{Board, CARD, Cluster};
use fleet::image::device::Device;
use fleet::image::{Given, ImageError, Layout, Plan, Source, changes, first_start};
use fleet::up::beside;

use super::ClusterFile;
use crate::cli::FirstStart;
use crate::failure::{Failure, Outcome, While};

/// Where large files are kept for a while: /tmp is often in memory.
const LARGE_TEMPORARY: &str = "/var/tmp";

/// Options of `coracle image prepare`.
#[derive(Debug, Args)]
pub struct Options {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub file: ClusterFile,
    /// The stock image, plain or packed by xz, gzip or zstd
    #[arg(long)]
    pub image: PathBuf,
    /// Folder that the boards' images are written to, NAME.img each
    #[arg(long, short)]
    pub output: Option<PathBuf>,
    /// Only these boards
    #[arg(long, value_delimiter = ',')]
    pub board: Vec<String>,
    /// Binary for another processor than this machine's; the one that fits the image is taken, also
    /// of those that lie beside this one as coracle-x86_64 and coracle-aarch64. `up` takes it in the
    /// same form
    #[arg(long, value_name = "[ARCH=]FILE", value_parser = binary)]
    pub binary: Vec<PathBuf>,
    /// Print what would be changed in the image, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Card or stick to write the (single) board's image to, such as /dev/sdb. Everything on it is
    /// lost: it is described, and has to be confirmed
    #[arg(long)]
    pub device: Option<PathBuf>,
    /// Confirms the device beforehand, by its path
    #[arg(long, requires = "device", value_name = "DEVICE")]
    pub yes_i_mean: Option<PathBuf>,
}

/// A binary says itself for which processor it is.
fn binary(text: &str) -> Result<PathBuf, std::convert::Infallible> {
    Ok(text.split_once('=').map_or(text, |(_, file)| file).into())
}

/// Makes the images.
pub fn run(options: &Options) -> Outcome {
    let cluster = options.file.read()?;
    let boards = boards(&cluster, &options.board)?;
    if options.device.is_some() && boards.len() != 1 {
        return Err(Failure::new(format!(
            "one card is for one board, and there are {}",
            boards.len()
        ))
        .hint("name the board with --board"));
    }
    // A wrong device is said before minutes of work.
    let device =
        options.device.as_deref().map(|path| Device::look(path).map_err(told)).transpose()?;
    if let Some(device) = &device {
        let image = std::fs::metadata(&options.image).map_or(0, |about| about.len());
        device.must_take(image).map_err(told)?;
    }
    let temporary = tempfile::tempdir_in(LARGE_TEMPORARY)
        .doing(|| format!("making a folder in {LARGE_TEMPORARY}"))?;
    let folder = match &options.output {
        Some(folder) => folder.clone(),
        None if options.dry_run || device.is_some() => temporary.path().to_owned(),
        None => {
            return Err(Failure::new("where to write the images is not said")
                .hint("--output DIR, --device /dev/X, or --dry-run to see what would be written"));
        }
    };
    std::fs::create_dir_all(&folder).doing(|| format!("making {}", folder.display()))?;
    // Everything that can be refused is, before the first image is written.
    let source = Source::open(&options.image, &folder).map_err(told)?;
    let mut planned = Vec::new();
    for board in boards {
        let plan = plan(&cluster, board, &source, options)?;
        planned.push((board, plan, target(&folder, board, options.dry_run)?));
    }
    for (board, plan, target) in &planned {
        show(board, plan, options.dry_run);
        if options.dry_run {
            continue;
        }
        let on_card = cluster.settings(board).data.is_some_and(|data| data.device == CARD);
        source.prepare(target, plan, on_card).map_err(told)?;
        match &device {
            Some(device) => write(device, target, options.yes_i_mean.as_deref())?,
            None => println!("{}: {}", board.name, target.display()),
        }
    }
    Ok(())
}

/// What a prepared board does at its first start.
pub fn first_start(command: FirstStart) -> Outcome {
    match command {
        FirstStart::Disks => first_start::disks(),
        FirstStart::Packages => first_start::packages(),
    }
    .map_err(told)
}

fn told(error: ImageError) -> Failure {
    let hint = error.hint().map(str::to_owned);
    let failure = match std::error::Error::source(&error) {
        None => Failure::new(error.to_string()),
        Some(source) => {
            let cause = base::chain(source);
            Failure::caused(error.to_string(), cause)
        }
    };
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

fn boards<'a>(cluster: &'a Cluster, names: &[String]) -> Outcome<Vec<&'a Board>> {
    if names.is_empty() {
        return Ok(cluster.boards.iter().collect());
    }
    let known = || cluster.boards.iter().map(|board| board.name.as_str()).collect::<Vec<_>>();
    names
        .iter()
        .map(|name| {
            cluster.board(name).ok_or_else(|| {
                Failure::new(format!("there is no board {name} in {}", cluster.name))
                    .hint(format!("its boards are {}", known().join(", ")))
            })
        })
        .collect()
}

fn plan(cluster: &Cluster, board: &Board, source: &Source, options: &Options) -> Outcome<Plan> {
    let mut all = options.binary.clone();
    let own = std::env::current_exe().doing(|| "looking for this binary".into())?;
    all.extend(beside(&own));
    all.push(own);
    // What is looked at in the image depends on the account, and the binary on what is found.
    let given = Given::read(cluster, board, &all, None).map_err(told)?;
    let layout: Layout = source
        .layout(&given)
        .map_err(|error| told(error).within(format!("looking into {}", options.image.display())))?;
    let given = Given::read(cluster, board, &all, layout.machine()).map_err(told)?;
    changes(cluster, board, &layout, &given)
        .map_err(|error| told(error).within(format!("preparing an image for {}", board.name)))
}

fn target(folder: &Path, board: &Board, dry_run: bool) -> Outcome<PathBuf> {
    let target = folder.join(format!("{}.img", board.name));
    match target.exists() && !dry_run {
        false => Ok(target),
        true => Err(Failure::new(format!("{} is there already", target.display()))
            .hint("remove it, or name another folder with --output")),
    }
}

fn show(board: &Board, plan: &Plan, all: bool) {
    if all {
        println!("{}:", board.name);
        plan.changes.iter().for_each(|change| println!("  {change}"));
    }
    plan.warnings.iter().for_each(|warning| eprintln!("warning: {}: {warning}", board.name));
}

fn write(device: &Device, image: &Path, confirmed: Option<&Path>) -> Outcome {
    let length =
        std::fs::metadata(image).doing(|| format!("looking at {}", image.display()))?.len();
    device.must_take(length).map_err(told)?;
    confirm(device, confirmed)?;
    let live = std::io::stderr().is_terminal();
    let mut shown = 0;
    let outcome = device.write(image, |done, all| {
        let percent = done * 100 / all.max(1);
        if live && percent != shown {
            shown = percent;
            let doing = if percent < 50 { "writing" } else { "reading back" };
            eprint!("\r{doing} {} {percent:3} %  ", device.path.display());
        }
    });
    if live {
        eprintln!();
    }
    outcome.map_err(told)?;
    println!("wrote {}, and read it back", device.described());
    Ok(())
}

/// Whoever confirms has seen the model and the size, or has named the device twice.
fn confirm(device: &Device, confirmed: Option<&Path>) -> Outcome {
    let path = device.path.display().to_string();
    let named = match confirmed {
        Some(named) => std::fs::canonicalize(named).unwrap_or_default().display().to_string(),
        None if std::io::stdin().is_terminal() => {
            eprintln!("Everything on {} will be lost.", device.described());
            eprint!("Type {path} to go on: ");
            let _ = std::io::stderr().flush();
            let mut answer = String::new();
            std::io::stdin().read_line(&mut answer).doing(|| "reading the answer".into())?;
            answer.trim().to_owned()
        }
        None => {
            return Err(Failure::new(format!(
                "everything on {} would be lost",
                device.described()
            ))
            .hint(format!("if it is the right one: --yes-i-mean {path}")));
        }
    };
    match named == path {
        true => Ok(()),
        false => Err(Failure::new(format!("{path} was not confirmed")).hint("nothing was written")),
    }
}
