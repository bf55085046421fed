//! `/etc/hosts`: the boards stand in a block of ours, the rest is the owner's.

use std::net::IpAddr;

const BEGIN: &str = "# begin coracle";
const END: &str = "# end coracle";
/// The address that Debian gives a host's own name.
const OWN: &str = "127.0.1.1";

/// The file with our block in it, and with the board's own name where Debian has it.
pub fn with_boards(text: &str, own: &str, boards: &[(IpAddr, String)]) -> String {
    let own_line = |line: &str| match line.split_whitespace().next() == Some(OWN) {
        true => format!("{OWN}\t{own}"),
        false => line.to_owned(),
    };
    let mut lines: Vec<String> = parts(text).0.into_iter().map(own_line).collect();
    while lines.last().is_some_and(|line| line.trim().is_empty()) {
        lines.pop();
    }
    if lines.is_empty() {
        lines.push("127.0.0.1\tlocalhost".into());
    }
    lines.push(BEGIN.into());
    lines.extend(boards.iter().map(|(address, name)| format!("{address}\t{name}")));
    lines.push(END.into());
    lines.join("\n") + "\n"
}

/// The file without our block.
pub fn without_boards(text: &str) -> String {
    parts(text).0.into_iter().flat_map(|line| [line, "\n"]).collect()
}

/// Where the file knows a board to be.
pub fn address_of(text: &str, board: &str) -> Option<IpAddr> {
    let mut lines = parts(text).1.into_iter().map(|line| line.split_whitespace());
    lines.find_map(|mut words| {
        let address = words.next()?.parse().ok()?;
        words.any(|name| name == board).then_some(address)
    })
}

/// The owner's lines, and ours.
fn parts(text: &str) -> (Vec<&str>, Vec<&str>) {
    let (mut owners, mut ours, mut inside) = (Vec::new(), Vec::new(), false);
    for line in text.lines() {
        match line.trim() {
            BEGIN => inside = true,
            END => inside = false,
            _ if inside => ours.push(line),
            _ => owners.push(line),
        }
    }
    (owners, ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_block_is_replaced_and_the_rest_stays() {
        let boards = [("10.0.0.1".parse().expect("an address"), "pi1".to_owned())];
        let before = "127.0.0.1 localhost\n127.0.1.1 raspberrypi\n\n10.9.9.9 printer\n\n";
        let after = "127.0.0.1 localhost\n127.0.1.1\tpi1\n\n10.9.9.9 printer\n\
                     # begin coracle\n10.0.0.1\tpi1\n# end coracle\n";
        assert_eq!(with_boards(before, "pi1", &boards), after);
        assert_eq!(with_boards(after, "pi1", &boards), after);
        assert_eq!(
            without_boards(after),
            "127.0.0.1 localhost\n127.0.1.1\tpi1\n\n10.9.9.9 printer\n"
        );
        assert_eq!(address_of(after, "pi1"), Some(boards[0].0));
        assert_eq!(address_of(after, "printer"), None, "the owner's");
    }
}
