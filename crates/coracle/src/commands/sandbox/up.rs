//! `coracle sandbox up`: the first server, then everybody else at once, then the wait.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use sandbox::{Board, Role, Sandbox};

use super::options::{Datastore, Up};
use super::{cluster, table};
use crate::failure::{Failure, Outcome, While};

/// Makes a sandbox, or brings one up again.
pub async fn run(dir: &Path, options: Up) -> Outcome {
    let begun = Instant::now();
    let wait = u64::try_from(sandbox::parse_duration_ms(&options.wait)?).unwrap_or(0);
    let deadline = begun + Duration::from_millis(wait);
    warn_of_even(options.servers);
    let path = std::env::var("PATH").unwrap_or_default();
    let sandbox = Sandbox::create(dir, &options.sandbox, shape(&options)?, path).await?;
    sandbox.switch_on().await?;
    let mut started = BTreeMap::new();
    let (first, others) =
        sandbox.plan().boards.split_first().ok_or_else(|| Failure::new("no board was planned"))?;
    configure(&sandbox, first, &options, None)?;
    switch_on(&sandbox, first, &options, &mut started).await?;
    let client = cluster::api(&sandbox, first, deadline).await?;
    for board in others {
        let token = cluster::token(&sandbox, board.role, deadline).await?;
        configure(&sandbox, board, &options, Some(&token))?;
        switch_on(&sandbox, board, &options, &mut started).await?;
    }
    let mut ready = BTreeMap::new();
    wait_for_nodes(&sandbox, &client, &started, deadline, &mut ready).await?;
    table::up(&sandbox, &ready, begun.elapsed())
}

fn shape(options: &Up) -> Outcome<sandbox::Options> {
    let datastore = options.datastore.unwrap_or(match options.servers {
        1 => Datastore::Sqlite,
        _ => Datastore::Etcd,
    });
    if datastore == Datastore::Sqlite && options.servers > 1 {
        return Err(Failure::new("several servers cannot share a file of sqlite")
            .hint("leave --datastore away for etcd, or use --servers 1"));
    }
    Ok(sandbox::Options {
        servers: options.servers,
        agents: options.agents,
        subnets: options.subnets,
        vip: options.vip.is_some(),
        datastore: format!("{datastore:?}").to_lowercase(),
        disk_mib: options.disk,
    })
}

fn warn_of_even(servers: u8) {
    if servers > 0 && servers.is_multiple_of(2) {
        eprintln!(
            "warning: {servers} servers stand no more failures than {}: a majority of {servers} \
             is {}",
            servers - 1,
            servers / 2 + 1
        );
    }
}

/// Writes a board's configuration, as its command finds it at its next start.
fn configure(sandbox: &Sandbox, board: &Board, options: &Up, token: Option<&str>) -> Outcome {
    let own = match board.role {
        Role::Server => &options.server_arg,
        Role::Agent => &options.agent_arg,
    };
    let text = config(sandbox.plan(), board, token, own)?;
    Ok(sandbox.configure(board, &text)?)
}

/// A board's configuration file. Values are quoted as JSON strings, which are YAML too.
fn config(
    plan: &sandbox::Plan,
    board: &Board,
    token: Option<&str>,
    own: &[String],
) -> Outcome<String> {
    let mut keys: Vec<(String, Vec<String>)> = Vec::new();
    let mut add = |key: &str, value: String| match keys.iter_mut().find(|(k, _)| k == key) {
        Some((_, values)) => values.push(value),
        None => keys.push((key.to_owned(), vec![value])),
    };
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    match token {
        Some(token) => {
            add("server", quoted(&format!("https://{}:6443", plan.boards[0].address)));
            add("token", quoted(token));
        }
        None if plan.options.datastore == "etcd" => add("cluster-init", "true".into()),
        None => {}
    }
    if let (Role::Server, Some(vip)) = (board.role, plan.vip()) {
        add("vip", quoted(&vip.to_string()));
    }
    for pair in own {
        let (key, value) = pair.split_once('=').ok_or_else(|| {
            Failure::new(format!("{pair:?} is no key of a configuration file"))
                .hint("write it as KEY=VALUE, such as node-label=disk=ssd")
        })?;
        match value {
            "true" | "false" => add(key, value.to_owned()),
            _ => add(key, quoted(value)),
        }
    }
    let line = |(key, values): &(String, Vec<String>)| match &values[..] {
        [value] => format!("{key}: {value}\n"),
        values => format!("{key}: [{}]\n", values.join(", ")),
    };
    Ok(keys.iter().map(line).collect())
}

async fn switch_on(
    sandbox: &Sandbox,
    board: &Board,
    options: &Up,
    started: &mut BTreeMap<String, Instant>,
) -> Outcome {
    let now = Instant::now();
    let was_off = sandbox.power_on(board).await?;
    if was_off {
        started.insert(board.name.clone(), now);
    }
    import(sandbox, board, options)
}

/// Imports images in the board's own view, so that nothing of the machine's is touched. Archives go
/// one by one, since they lie in the board's memory meanwhile.
fn import(sandbox: &Sandbox, board: &Board, options: &Up) -> Outcome {
    const PLACE: &str = "/run/image-archive";
    let place = sandbox.on_board(board, PLACE)?;
    for archive in &options.image {
        std::fs::copy(archive, &place)
            .doing(|| format!("giving {} to {}", archive.display(), board.name))?;
        let imported = import_on(sandbox, board, PLACE);
        let _ = std::fs::remove_file(&place);
        imported?;
    }
    if options.hello { import_on(sandbox, board, "--hello") } else { Ok(()) }
}

fn import_on(sandbox: &Sandbox, board: &Board, what: &str) -> Outcome {
    let line = ["image", "import", what].map(str::to_owned);
    let output = sandbox.run_on(board, "coracle", &line)?.wait();
    let status = output.doing(|| format!("importing images on {}", board.name))?;
    match status.success() {
        true => Ok(()),
        false => Err(Failure::new(format!("importing images on {} failed", board.name))
            .hint("what it said is above")),
    }
}

fn missing(sandbox: &Sandbox, ready: &BTreeMap<String, Duration>) -> String {
    let names = sandbox.plan().boards.iter().map(|board| board.name.as_str());
    names.filter(|name| !ready.contains_key(*name)).collect::<Vec<_>>().join(", ")
}

async fn wait_for_nodes(
    sandbox: &Sandbox,
    client: &kube::Client,
    started: &BTreeMap<String, Instant>,
    deadline: Instant,
    ready: &mut BTreeMap<String, Duration>,
) -> Outcome {
    cluster::until(
        deadline,
        || "all nodes are ready".into(),
        sandbox,
        async || {
            let nodes = cluster::nodes(client).await?;
            for (name, _) in nodes.into_iter().filter(|(_, ready)| *ready) {
                let taken = started.get(&name).map_or(Duration::ZERO, Instant::elapsed);
                ready.entry(name).or_insert(taken);
            }
            match missing(sandbox, ready) {
                none if none.is_empty() => Ok(()),
                some => Err(Failure::new(format!("{some} not ready yet"))),
            }
        },
    )
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(servers: u8, agents: u8, vip: bool) -> sandbox::Plan {
        let datastore = "etcd".to_owned();
        let options =
            sandbox::Options { servers, agents, subnets: 1, vip, datastore, disk_mib: None };
        sandbox::Plan::new("lab", options, String::new(), &[]).expect("a plan")
    }

    #[test]
    fn boards_are_configured_by_their_role() {
        let plan = plan(2, 1, true);
        let own = ["node-label=a=b".to_owned(), "node-label=c=d".to_owned()];
        let boards = [(0, None, &own[..0]), (1, Some("K10x"), &own[..]), (2, Some("y"), &own[..1])];
        let shown: Vec<String> = boards
            .into_iter()
            .map(|(board, token, own)| {
                config(&plan, &plan.boards[board], token, own).expect("a configuration")
            })
            .collect();
        assert_eq!(
            shown,
            [
                "cluster-init: true\nvip: \"10.87.0.100\"\n",
                "server: \"https://10.87.0.11:6443\"\ntoken: \"K10x\"\nvip: \"10.87.0.100\"\n\
                 node-label: [\"a=b\", \"c=d\"]\n",
                "server: \"https://10.87.0.11:6443\"\ntoken: \"y\"\nnode-label: \"a=b\"\n",
            ]
        );
    }
}
