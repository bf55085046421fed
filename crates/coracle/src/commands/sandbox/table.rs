//! What people see of sandboxes.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use sandbox::Sandbox;

use super::cluster;
use crate::failure::Outcome;

/// Rows in columns as wide as they need to be.
fn columns(rows: &[Vec<String>]) -> String {
    let count = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..count).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}   "));
        format!("{}\n", cells.collect::<String>().trim_end())
    };
    rows.iter().map(line).collect()
}

fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

/// What `up` ends with.
pub fn up(sandbox: &Sandbox, ready: &BTreeMap<String, Duration>, whole: Duration) -> Outcome {
    let mut rows = vec![row(["NODE", "ADDRESS", "READY AFTER"])];
    for board in &sandbox.plan().boards {
        let after = match ready.get(&board.name) {
            None | Some(&Duration::ZERO) => "was up".to_owned(),
            Some(after) => format!("{:.1} s", after.as_secs_f64()),
        };
        rows.push(vec![board.name.clone(), board.address.to_string(), after]);
    }
    print!("{}", columns(&rows));
    let (path, _) = cluster::kubeconfig(sandbox)?;
    println!("\nThe cluster is up after {:.1} s. Next:", whole.as_secs_f64());
    println!("  export KUBECONFIG={}", path.display());
    println!("  coracle sandbox kubectl -- get nodes");
    println!("  coracle sandbox down {}", sandbox.plan().name);
    Ok(())
}

/// All sandboxes.
pub fn sandboxes(dir: &Path) -> Outcome {
    let mut rows = vec![row(["NAME", "SERVERS", "AGENTS", "ON", "NETWORK"])];
    for name in sandbox::list(dir) {
        let Ok(sandbox) = Sandbox::look(dir, &name) else {
            rows.push(row([&name, "-", "-", "half made", "-"]));
            continue;
        };
        let plan = sandbox.plan();
        let on = plan.boards.iter().filter(|board| sandbox.is_on(board)).count();
        rows.push(vec![
            name,
            plan.options.servers.to_string(),
            plan.options.agents.to_string(),
            format!("{on}/{}", plan.boards.len()),
            format!("{}/24", plan.segment(0)),
        ]);
    }
    print!("{}", columns(&rows));
    Ok(())
}

/// The boards of a sandbox.
pub async fn boards(sandbox: &Sandbox) -> Outcome {
    let mut rows = vec![row(["NODE", "ADDRESS", "POWER", "NODE STATUS", "WRONG WITH IT"])];
    let nodes = nodes(sandbox).await;
    for board in &sandbox.plan().boards {
        let status = match &nodes {
            None => "unknown",
            Some(nodes) => match nodes.get(&board.name) {
                Some(true) => "Ready",
                Some(false) => "NotReady",
                None => "not joined",
            },
        };
        let power = if sandbox.is_on(board) { "on" } else { "off" };
        rows.push(vec![
            board.name.clone(),
            board.address.to_string(),
            power.to_owned(),
            status.to_owned(),
            sandbox.faults().of(&board.name).join(", "),
        ]);
    }
    print!("{}", columns(&rows));
    Ok(())
}

/// As any server that answers tells it.
async fn nodes(sandbox: &Sandbox) -> Option<BTreeMap<String, bool>> {
    let servers = sandbox.plan().boards.iter().filter(|b| b.role == sandbox::Role::Server);
    for server in servers.filter(|server| sandbox.is_on(server)) {
        if let Ok(client) = cluster::client(sandbox, Some(server)).await
            && let Ok(nodes) = cluster::nodes(&client).await
        {
            return Some(nodes);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [row(["NODE", "X"]), row(["server-1", ""]), row(["a", "b"])];
        assert_eq!(columns(&rows), "NODE       X\nserver-1\na          b\n");
    }
}
