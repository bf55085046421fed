//! What must be refused when boards join, and how.

use crate::harness::{Boards, Stack};

#[test]
fn a_stranger_is_refused_with_the_reason() {
    let stack = Stack::up("--servers 1 --agents 1");
    let kubectl = stack.kubectl();
    // The agent's own token would be the right one; the command line beats it.
    for (token, wanted) in [
        (
            format!("K10{}::node:secret", "0".repeat(64)),
            "is not of the cluster that the token is for",
        ),
        ("K10zz".to_owned(), "token"),
        ("wrong".to_owned(), "token"),
    ] {
        let line = format!(
            "exec agent-1 -- timeout 10 coracle agent --data-dir /tmp/other --node-name other --token {token}"
        );
        let said = stack.fails(&line);
        assert!(said.contains(wanted) && said.contains("hint: "), "{token}: {said}");
    }
    assert!(!kubectl.ok("get nodes -o name").contains("other"));
    // A board that calls itself by another's name does not know that one's password.
    let line =
        "exec agent-1 -- timeout 10 coracle agent --data-dir /tmp/thief --node-name server-1";
    let said = stack.fails(line);
    assert!(said.contains("server-1") && said.contains("hint: "), "{said}");
}

#[test]
fn an_even_number_of_servers_works_with_a_warning() {
    let stack = Stack::unstarted();
    let said = stack.ok("up --servers 2 --agents 0");
    assert!(said.contains("warning: 2 servers stand no more failures than 1"), "{said}");
}
