use std::io::{self, BufRead, IsTerminal, Write};
use std::net::IpAddr;

use clap::{Args, ValueEnum};
use fleet::config::Addressing;
use fleet::discover::{self, Ground};
use fleet::init::{self, Ask, Given, NewBoard};

use super::{ClusterFile, say};
use crate::failure::{Failure, Outcome};

/// Options of `coracle init`.
#[derive(Debug, Args)]
pub struct Options {
    #[command(flatten)]
    #[allow(missing_docs)]
    file: ClusterFile,
    /// Name of the cluster
    #[arg(long)]
    name: Option<String>,
    /// A board, such as pi1=192.168.1.11; may be given several times
    #[arg(long = "board", value_name = "NAME=ADDRESS")]
    boards: Vec<NewBoard>,
    /// Take the boards that are found on the network
    #[arg(long, conflicts_with = "boards")]
    discover: bool,
    /// How many of the boards, from the first, are servers
    #[arg(long)]
    servers: Option<usize>,
    /// Model of all boards; `coracle plan --models` lists those that are known
    #[arg(long)]
    model: Option<String>,
    /// Network of the boards, such as 192.168.1.0/24
    #[arg(long)]
    subnet: Option<ipnet::IpNet>,
    /// Way out of it
    #[arg(long)]
    gateway: Option<IpAddr>,
    /// Whether the boards' addresses are set on them or reserved at the router
    #[arg(long, value_enum)]
    addressing: Option<Addresses>,
    /// Address that is on one server at any time
    #[arg(long)]
    vip: Option<IpAddr>,
    /// Account on the boards
    #[arg(long)]
    user: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Addresses {
    Static,
    Dhcp,
}

pub fn run(options: &Options) -> Outcome {
    let path = &options.file.file;
    if path.exists() {
        // Whoever has answered ten questions does not want to hear it then.
        return Err(Failure::new(format!(
            "{} is there already, and is left as it is",
            path.display()
        ))
        .hint("name another with --file, or move that one away"));
    }
    let mut given = given(options);
    if options.discover {
        look(&mut given)?;
    }
    let mut terminal = Terminal;
    let ask: Option<&mut dyn Ask> = match io::stdin().is_terminal() {
        true => Some(&mut terminal),
        false => None,
    };
    let text = init::compose(given, ask)?;
    init::write(path, &text)?;
    say(&format!(
        "{} is written. Look it over, then: coracle plan --file {}\n",
        path.display(),
        path.display()
    ))
}

fn given(options: &Options) -> Given {
    Given {
        name: options.name.clone(),
        boards: options.boards.clone(),
        servers: options.servers,
        model: options.model.clone(),
        subnet: options.subnet,
        gateway: options.gateway,
        addressing: options.addressing.map(|addressing| match addressing {
            Addresses::Static => Addressing::Static,
            Addresses::Dhcp => Addressing::Dhcp,
        }),
        vip: options.vip,
        user: options.user.clone(),
    }
}

/// Fills in what the network shows.
fn look(given: &mut Given) -> Outcome {
    let subnet = match given.subnet {
        Some(ipnet::IpNet::V4(subnet)) => Some(subnet),
        _ => None,
    };
    let ground = Ground::find(subnet)?;
    eprintln!("looking for boards on {} ...", ground.subnet);
    given.boards = discover::new_boards(&discover::look(&ground)?);
    if given.boards.is_empty() {
        return Err(Failure::new(format!("nobody on {} answers by SSH", ground.subnet)).hint(
            "switch the boards on, and enable SSH on their cards; or name each with --board",
        ));
    }
    given.subnet.get_or_insert(ground.subnet.into());
    given.gateway = given.gateway.or(ground.gateway.map(IpAddr::from));
    Ok(())
}

/// Whoever sits at the terminal.
struct Terminal;

impl Ask for Terminal {
    fn ask(&mut self, question: &str, usual: &str) -> io::Result<Option<String>> {
        let usual = if usual.is_empty() { String::new() } else { format!(" [{usual}]") };
        eprint!("{question}{usual}: ");
        io::stderr().flush()?;
        let mut answer = String::new();
        let length = io::stdin().lock().read_line(&mut answer)?;
        Ok((length > 0).then_some(answer))
    }

    fn tell(&mut self, what: &str) {
        eprintln!("  {what}");
    }
}
