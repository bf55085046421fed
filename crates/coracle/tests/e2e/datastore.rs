//! The engines of one board: a cluster moves from one to another, and one is full.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::etcds::Etcds;
use crate::harness::{BOARD_ADDRESS, Board, Kubectl, Run, eventually_some, tools};
use crate::sqls::{Kind, Sql};

/// A command that knows where etcd is.
fn with_etcd(mut command: Command) -> Command {
    command.env("CORACLE_ETCD_BINARY", tools().join("etcd/usr/bin/etcd"));
    command.env("CORACLE_NODE_NAME", "board");
    command
}

fn moved(board: &Board, to: &str) -> String {
    let line = format!("datastore move --to {to}");
    let out = with_etcd(board.coracle(&line)).output().expect("coracle");
    let said = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
    assert!(out.status.success(), "{line}\n{said}");
    said
}

fn revision(kubectl: &Kubectl, name: &str) -> u64 {
    let field = format!("configmap/{name}");
    kubectl.field(&field, ".metadata.resourceVersion").parse().expect("a number")
}

#[test]
fn a_cluster_moves_to_etcd_and_back_with_all_it_holds() {
    let board = Board::unstarted();
    board.serve_api();
    let kubectl = Kubectl::default(&board);
    kubectl.ok("create configmap first --from-literal=a=b");
    let first = revision(&kubectl, "first");
    let out = board.coracle("datastore move --to etcd").output().expect("coracle");
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(!out.status.success() && said.contains("a server is running in"), "{said}");
    assert!(board.stop().success());

    let said = moved(&board, "etcd");
    assert!(said.contains("the old data are kept in"), "{said}");
    let mut line = board.server();
    line.arg("--disable-agent");
    board.launch(with_etcd(line));
    assert_eq!(kubectl.field("configmap/first", ".data.a"), "b");
    kubectl.ok("create configmap second --from-literal=a=b");
    let second = revision(&kubectl, "second");
    assert!(second > first, "{second} after {first}");
    assert!(board.stop().success());

    moved(&board, "sqlite");
    board.serve_api();
    for name in ["first", "second"] {
        assert_eq!(kubectl.field(&format!("configmap/{name}"), ".data.a"), "b");
    }
    kubectl.ok("create configmap third --from-literal=a=b");
    assert!(revision(&kubectl, "third") > second);
    assert!(board.stop().success());

    let out = board.coracle("datastore forget").output().expect("coracle");
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    assert_eq!(said.matches("removed ").count(), 2, "{said}");
}

/// What `home` holds, but for revisions.
fn contents(kubectl: &Kubectl) -> String {
    let fields = "{.kind} {.metadata.name} {.metadata.uid} {.data}";
    kubectl.ok(&format!(
        "get configmaps,secrets -n home -o 'jsonpath={{range .items[*]}}{fields}|{{end}}'"
    ))
}

/// Writes the board's configuration file.
fn configure(board: &Board, endpoint: Option<&str>) {
    let text = endpoint.map_or(String::new(), |url| format!("datastore-endpoint: \"{url}\"\n"));
    fs::write(board.folder.join("no-config.yaml"), text).expect("written");
}

/// Runs a command of the binary to its end; gives whether it succeeded and all that it said.
fn run(board: &Board, line: &str) -> (bool, String) {
    let out = with_etcd(board.coracle(line)).output().expect("coracle");
    let said = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
    (out.status.success(), said)
}

/// Kills a move after so long. Whether it was still under way.
#[expect(clippy::disallowed_methods, reason = "the moment of the kill is the fault")]
fn killed_move(board: &Board, to: &str, after: Duration) -> bool {
    let mut line = with_etcd(board.coracle(&format!("datastore move --to {to}")));
    let mut child = line.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("coracle");
    std::thread::sleep(after);
    let under_way = child.try_wait().expect("wait").is_none();
    child.kill().expect("kill");
    child.wait().expect("wait");
    under_way
}

/// Moves a stopped cluster to `url`, where it must hold `wanted` and go on above `newest`; gives a
/// snapshot that was taken there, and the newest revision.
fn moved_on(board: &Board, url: &str, wanted: &str, newest: u64) -> (String, u64) {
    configure(board, Some(url));
    board.serve_api();
    let kubectl = Kubectl::default(board);
    assert_eq!(contents(&kubectl), wanted, "in {url}");
    kubectl.ok("create configmap mark --from-literal=a=b");
    let mark = revision(&kubectl, "mark");
    assert!(mark > newest, "{mark} after {newest} in {url}");
    kubectl.ok("delete configmap mark");
    let file = saved(board);
    let (success, said) = run(board, "datastore status");
    assert!(success && said.contains("objects     "), "{said}");
    assert!(board.stop().success());
    (file, mark)
}

/// Takes a snapshot; gives its file.
fn saved(board: &Board) -> String {
    let (success, said) = run(board, "snapshot save");
    assert!(success, "{said}");
    said.lines().next().expect("a file").to_owned()
}

/// Restores a snapshot with this token.
fn restore(board: &Board, file: &str, token: &str) -> (bool, String) {
    run(board, &format!("snapshot restore {file} --replace --token {token}"))
}

/// Restores a snapshot into a datastore, where it must hold `wanted`.
fn restored_into(board: &Board, url: &str, (file, token): (&str, &str), wanted: &str) {
    configure(board, Some(url));
    let (success, said) = restore(board, file, token);
    assert!(success && said.contains("the objects are in "), "{said}");
    board.serve_api();
    let kubectl = Kubectl::default(board);
    assert_eq!(contents(&kubectl), wanted, "{file} in {url}");
    kubectl.ok("-n home create configmap later");
    assert!(board.stop().success());
    let (success, said) = restore(board, file, token);
    assert!(!success && said.contains("is not empty"), "{said}");
    assert!(said.contains("hint: name an empty datastore"), "{said}");
}

/// Restores a snapshot into sqlite, and from there into the etcd that further servers can join.
fn restored_for_several(board: &Board, (file, token): (&str, &str), wanted: &str) {
    configure(board, None);
    let (success, said) = restore(board, file, token);
    assert!(success && said.contains("start this one with --cluster-init"), "{said}");
    let mut line = board.server();
    line.args(["--disable-agent", "--cluster-init"]);
    board.launch(with_etcd(line));
    assert_eq!(contents(&Kubectl::default(board)), wanted, "{file}");
    let (success, said) = run(board, "datastore status");
    assert!(success && said.contains("1 of 1 answer"), "{said}");
    let (_, said) = run(board, &format!("snapshot check {}", saved(board)));
    assert!(said.contains("is sound"), "{said}");
}

#[test]
fn a_cluster_moves_to_datastores_of_its_owner_and_snapshots_go_into_them() {
    let board = Board::unstarted();
    let (mysql, postgres, etcd) =
        board.netns.run(|| (Sql::start(Kind::Mysql), Sql::start(Kind::Postgres), Etcds::start(1)));
    board.serve_api();
    let kubectl = Kubectl::default(&board);
    kubectl.ok("create namespace home");
    kubectl.ok("-n home create configmap boat --from-literal=name=coracle");
    kubectl.ok("-n home create secret generic key --from-literal=a=b");
    let wanted = contents(&kubectl);
    assert!(board.stop().success());
    let token = fs::read_to_string(board.data().join("server/token")).expect("a token");
    let token = token.trim();

    // Killed at any moment: the next run does it all.
    let url = mysql.endpoint("coracle", mysql.port());
    [40, 120, 250, 400].into_iter().all(|ms| killed_move(&board, &url, Duration::from_millis(ms)));
    let (success, said) = run(&board, &format!("datastore move --to {url}"));
    assert!(success || said.contains("moved to a datastore elsewhere"), "{said}");
    let out = board.server().arg("--disable-agent").output().expect("coracle");
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(!out.status.success(), "it must not begin anew");
    assert!(said.contains("were moved to a datastore elsewhere"), "{said}");
    let (of_mysql, newest) = moved_on(&board, &url, &wanted, 0);
    let (_, said) = run(&board, "datastore forget");
    assert_eq!(said.matches("removed ").count(), 1, "sqlite's was kept until now: {said}");

    let url = postgres.endpoint("coracle", postgres.port());
    moved(&board, &url);
    let (of_postgres, newest) = moved_on(&board, &url, &wanted, newest);
    moved(&board, &etcd.members[0].url);
    let (of_etcd, _) = moved_on(&board, &etcd.members[0].url, &wanted, newest);

    // Each snapshot into another engine than it is of.
    let url = postgres.endpoint("again", postgres.port());
    restored_into(&board, &url, (&of_mysql, token), &wanted);
    let url = mysql.endpoint("again", mysql.port());
    restored_into(&board, &url, (&of_postgres, token), &wanted);
    restored_for_several(&board, (&of_etcd, token), &wanted);
}

/// The quota of the etcd that is filled, in MiB.
const QUOTA_MIB: u32 = 8;
/// The board's next address.
const NEXT_ADDRESS: &str = "192.0.2.77";

/// Fills a board's etcd with old states of one object, which is mended by itself.
fn fill_with_history(board: &Board, kubectl: &Kubectl) {
    let mut round = 0;
    eventually_some("the alarm is taken back", || {
        round += 1;
        kubectl.run(&format!("annotate configmap churn round={round} --overwrite"));
        if board.log().contains("alarm is taken back") { Ok(()) } else { Err(round) }
    });
    until_ok(kubectl, "label configmap churn written=again --overwrite");
}

/// Waits until a command succeeds.
fn until_ok(kubectl: &Kubectl, line: &str) {
    eventually_some(line, || {
        let run = kubectl.run(line);
        if run.success { Ok(()) } else { Err(run) }
    });
}

/// Fills a board's etcd with what is needed: nothing can be written, and everybody says so.
fn fill_with_objects(board: &Board, kubectl: &Kubectl, create: impl Fn(&str) -> Run) {
    let mut count = 0;
    let said = eventually_some("it stays full", || {
        let run = create(&format!("full-{count}"));
        count += u32::from(run.success);
        let stays = !run.success && board.log().contains("etcd's database still takes");
        if stays { Ok(run.stderr) } else { Err(run) }
    });
    assert!(said.contains("its database is full"), "{said}");
    kubectl.ok("get configmap full-0 full-1");
    eventually_some("the server is not ready", || {
        let run = kubectl.run("get --raw /readyz");
        if run.stderr.contains("[-]etcd failed") { Ok(()) } else { Err(run) }
    });
    let (success, said) = run(board, "datastore status");
    assert!(!success && said.contains("board: the database is full"), "{said}");
    assert!(said.contains("hint: "), "{said}");
}

#[test]
fn a_full_etcd_is_mended_and_a_new_address_is_taken() {
    let board = Board::unstarted();
    let serve = || {
        let mut line = board.server();
        line.args(["--disable-agent", "--cluster-init", "--etcd-quota", &QUOTA_MIB.to_string()]);
        // etcd learns how large its database is when it syncs it.
        line.args(["--etcd-arg", "backend-batch-interval=200ms"]);
        board.launch(with_etcd(line));
    };
    serve();
    let kubectl = Kubectl::default(&board);
    let mut random = fastrand::Rng::with_seed(5);
    let noise = board.folder.join("noise");
    let text: String = (0..700_000).map(|_| random.alphanumeric()).collect();
    fs::write(&noise, text).expect("written");
    let create = |name: &str| {
        kubectl.run(&format!("create configmap {name} --from-file={}", noise.display()))
    };
    create("churn").ok();
    fill_with_history(&board, &kubectl);
    fill_with_objects(&board, &kubectl, create);
    // What makes room is taken, and then everything is.
    kubectl.ok("delete configmap full-0 full-1 full-2 full-3 churn");
    until_ok(&kubectl, "create configmap after --from-literal=a=b");
    eventually_some("no alarm is on", || match run(&board, "datastore status") {
        (true, _) => Ok(()),
        (false, said) => Err(said),
    });

    // The network gives the board another address.
    assert!(board.stop().success());
    board.netns.ip(&format!("addr del {BOARD_ADDRESS}/24 dev uplink"));
    board.netns.ip(&format!("addr add {NEXT_ADDRESS}/24 dev uplink"));
    board.netns.ip("route replace default via 192.0.2.2");
    serve();
    let (_, said) = run(&board, "datastore status");
    assert!(said.contains(&format!("https://{NEXT_ADDRESS}:2380")), "{said}");
    let endpoints = "get endpointslice kubernetes -o 'jsonpath={.endpoints[*].addresses[*]}'";
    kubectl.until(endpoints, NEXT_ADDRESS);
    let there = Kubectl {
        server: Some(format!("https://{NEXT_ADDRESS}:6443")),
        ..Kubectl::at(&board.client, board.kubeconfig(), board.folder.clone())
    };
    there.ok("get configmap after");
}
