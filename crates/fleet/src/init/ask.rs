use std::fmt::Display;
use std::io;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

use super::{Given, NewBoard};
use crate::config::Addressing;
use crate::{Trouble, hardware, nearest};

/// Somebody who can be asked.
pub trait Ask {
    /// Asks a question; nothing at the end of the input.
    fn ask(&mut self, question: &str, usual: &str) -> io::Result<Option<String>>;
    /// Says why an answer cannot be taken.
    fn tell(&mut self, what: &str);
}

/// The questions, in their order; each is left out where its answer is known.
pub(super) struct Questions<'a> {
    ask: &'a mut dyn Ask,
}

/// Who mistypes as often has another problem.
const MOST_TRIES: usize = 5;
/// The answer that leaves out what has a usual value.
const NONE: &str = "-";
/// Servers of a cluster that can have three.
const USUAL_SERVERS: usize = 3;

impl<'a> Questions<'a> {
    pub fn new(ask: &'a mut dyn Ask) -> Self {
        Questions { ask }
    }

    pub fn settle(&mut self, mut given: Given) -> Result<Given, Trouble> {
        if given.name.is_none() {
            given.name = Some(self.one("Name of the cluster", "home", name)?);
        }
        if given.boards.is_empty() {
            given.boards = self.boards(given.subnet)?;
        }
        if given.subnet.is_none() {
            let usual = neighbourhood(&given.boards);
            given.subnet = Some(self.one("Network of the boards", &usual, parse::<IpNet>)?);
        }
        if given.gateway.is_none() {
            let usual = given.subnet.and_then(|subnet| subnet.hosts().next());
            let usual = usual.map(|address| address.to_string()).unwrap_or_default();
            given.gateway = Some(self.one("Gateway to the world", &usual, parse::<IpAddr>)?);
        }
        if given.servers.is_none() {
            let most = given.boards.len();
            let usual = if most >= USUAL_SERVERS { USUAL_SERVERS } else { 1 };
            let question = format!("How many of the {most} boards are servers (3 bear a failure)");
            let number = |text: &str| match parse::<usize>(text) {
                Ok(number) if (1..=most).contains(&number) => Ok(number),
                _ => Err(format!("a number of 1 to {most} is needed")),
            };
            given.servers = Some(self.one(&question, &usual.to_string(), number)?);
        }
        if given.vip.is_none() && given.servers > Some(1) {
            let question = "Free address that is always on one server (empty for none)";
            given.vip = self.one(question, "", optional(parse::<IpAddr>))?;
        }
        if given.addressing.is_none() {
            let question =
                "Addresses: `static` (set on the boards) or `dhcp` (your router keeps them)";
            given.addressing = Some(self.one(question, "static", addressing)?);
        }
        if given.model.is_none() {
            let question = "Model of the boards (- if they differ)";
            given.model = self.one(question, "raspberry-pi-4-4gb", optional(model))?;
        }
        if given.user.is_none() {
            given.user =
                self.one("Account on the boards (- to leave it to ssh)", "pi", optional(word))?;
        }
        Ok(given)
    }

    fn boards(&mut self, subnet: Option<IpNet>) -> Result<Vec<NewBoard>, Trouble> {
        let mut boards = Vec::new();
        loop {
            let number = boards.len() + 1;
            let question = format!("Board {number}, as name=address (- if there are no more)");
            let usual = match (number, subnet) {
                (1, Some(IpNet::V4(subnet))) => {
                    subnet.hosts().nth(10).map(|address| format!("pi1={address}"))
                }
                _ => None,
            };
            let usual = usual.unwrap_or_default();
            match self.one(&question, &usual, optional(|text| text.parse::<NewBoard>()))? {
                Some(board) => boards.push(board),
                None if boards.is_empty() => self.ask.tell("a cluster has one board at the least"),
                None => return Ok(boards),
            }
        }
    }

    /// Asks until the answer can be taken.
    fn one<T>(
        &mut self,
        question: &str,
        usual: &str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, Trouble> {
        let open = |why: &dyn Display| {
            let hint = "answer it, or say it on the command line (`coracle init --help`)";
            Trouble::new(format!("{question:?} has no answer: {why}"), hint)
        };
        for _ in 0..MOST_TRIES {
            let answer = self.ask.ask(question, usual).map_err(|error| open(&error))?;
            let Some(answer) = answer else { return Err(open(&"the input ended")) };
            let answer = answer.trim();
            match read(if answer.is_empty() { usual } else { answer }) {
                Ok(value) => return Ok(value),
                Err(why) => self.ask.tell(&why),
            }
        }
        Err(open(&"it was tried five times"))
    }
}

fn parse<T: FromStr>(text: &str) -> Result<T, String>
where
    T::Err: Display,
{
    text.parse().map_err(|error| format!("{text:?}: {error}"))
}

fn optional<T>(
    read: impl Fn(&str) -> Result<T, String>,
) -> impl Fn(&str) -> Result<Option<T>, String> {
    move |text| if matches!(text, "" | NONE) { Ok(None) } else { read(text).map(Some) }
}

fn name(text: &str) -> Result<String, String> {
    let wanted = crate::config::dns_label(text);
    wanted.map(|()| text.to_owned()).map_err(|wanted| format!("{text:?}: {wanted} are needed"))
}

fn word(text: &str) -> Result<String, String> {
    match text.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)) {
        true => Ok(text.to_owned()),
        false => Err(format!("{text:?} is no account")),
    }
}

fn addressing(text: &str) -> Result<Addressing, String> {
    match text {
        "static" => Ok(Addressing::Static),
        "dhcp" => Ok(Addressing::Dhcp),
        _ => Err("`static` or `dhcp` is needed".into()),
    }
}

fn model(text: &str) -> Result<String, String> {
    let boards = hardware::TABLE.iter().filter(|known| known.is_board()).map(|known| known.name);
    if boards.clone().any(|known| known == text) {
        return Ok(text.to_owned());
    }
    let near = nearest::by_likeness(text, boards);
    Err(format!("{text:?} is not known; did you mean {}?", near[..3].join(", ")))
}

/// The network that the boards' addresses are probably from.
fn neighbourhood(boards: &[NewBoard]) -> String {
    let first = boards.iter().find_map(|board| match board.address {
        IpAddr::V4(address) => IpNet::new(address.into(), 24).ok(),
        IpAddr::V6(address) => IpNet::new(address.into(), 64).ok(),
    });
    first.map(|net| net.trunc().to_string()).unwrap_or_default()
}
