//! `/etc/hosts`: the boards stand in a block of ours, the rest is the owner's.

use std::net::IpAddr;

const BEGIN: &str = "# begin coracle";
const END: &str = "# end coracle";
/// The address that Debian gives a host's own name.
const OWN: &str = "127.0.1.1";

/// The file with our block in it, and with the board's own name where Debian has it.
pub fn with_boards(text: &str, own: &str, boards: &[(IpAddr, String)]) -> String {
    let mut lines = Vec::new();
    let mut ours = false;
    for line in text.lines() {
        match line.trim() {
            BEGIN => ours = true,
            END => ours = false,
            _ if ours => {}
            line if line.split_whitespace().next() == Some(OWN) => {
                lines.push(format!("{OWN}\t{own}"));
            }
            _ => lines.push(line.to_owned()),
        }
    }
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
    let mut ours = false;
    let mut kept = String::new();
    for line in text.lines() {
        match line.trim() {
            BEGIN => ours = true,
            END => ours = false,
            _ if ours => {}
            _ => {
                kept.push_str(line);
                kept.push('\n');
            }
        }
    }
    kept
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
    }
}
