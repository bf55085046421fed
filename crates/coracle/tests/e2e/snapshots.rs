//! The cluster in a file, and back: on the same board, on an empty one, through S3.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::harness::{Board, Kubectl, eventually, tools};

const PASSPHRASE: &str = "correct horse battery staple";

/// Runs a command of the binary, which must succeed; gives what it printed.
fn ok(mut line: Command) -> String {
    let out = line.output().expect("coracle");
    assert!(out.status.success(), "{line:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// Runs a command that must fail; gives its error and its hint.
fn refused(mut line: Command) -> String {
    let out = line.output().expect("coracle");
    assert!(!out.status.success(), "{line:?}: {}", String::from_utf8_lossy(&out.stdout));
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(said.contains("error: ") && said.contains("hint: "), "{said}");
    said
}

/// Takes a snapshot; gives its file.
fn save(board: &Board, arguments: &str) -> PathBuf {
    let printed = ok(board.coracle(&format!("snapshot save{arguments}")));
    PathBuf::from(printed.lines().next().expect("the file is printed"))
}

fn passphrase_file(board: &Board, text: &str) -> PathBuf {
    let path = board.folder.join(format!("passphrase-{}", text.len()));
    fs::write(&path, format!("{text}\n")).expect("written");
    path
}

fn secret_of(board: &Board) -> String {
    fs::read_to_string(board.data().join("server/token")).expect("a token").trim().to_owned()
}

/// The board of a test without pods: its API, and some objects.
fn board_with_objects() -> Board {
    let board = Board::unstarted();
    board.serve_api();
    let kubectl = Kubectl::default(&board);
    kubectl.ok("create namespace home");
    kubectl.ok("-n home create configmap boat --from-literal=name=coracle");
    kubectl.ok("-n home create deployment web --image=example.test/web:1 --replicas=3");
    board
}

fn revision(kubectl: &Kubectl) -> u64 {
    let list = kubectl.ok("get --raw /api/v1/namespaces?limit=1");
    let (_, behind) = list.split_once("\"resourceVersion\":\"").expect("a revision");
    behind.split('"').next().expect("digits").parse().expect("a number")
}

#[test]
fn an_empty_board_becomes_the_cluster_again() {
    let old = board_with_objects();
    let kubectl = Kubectl::default(&old);
    let before = revision(&kubectl);
    let token = kubectl.ok("create token default");
    let uid = kubectl.ok("get namespace home -o 'jsonpath={.metadata.uid}'");
    let plain = save(&old, "");
    let checked = ok(old.coracle(&format!("snapshot check {}", plain.display())));
    assert!(checked.contains("is sound") && checked.contains("configmaps"), "{checked}");
    kubectl.ok("-n home delete configmap boat");
    let admin = old.kubeconfig();
    let secret = secret_of(&old);
    old.stop();

    let new = Board::unstarted();
    let restore = |arguments: &str| {
        new.coracle(format!("snapshot restore {} {arguments}", plain.display()).trim_end())
    };
    let said = refused(restore(""));
    assert!(said.contains("sealed with its server token"), "{said}");
    let said = refused(restore("--token wrong"));
    assert!(said.contains("the token that was given is another"), "{said}");
    assert!(!new.data().join("server/db").exists(), "what failed leaves nothing");
    let told = ok(restore(&format!("--token {secret}")));
    assert!(told.contains("restored ") && told.contains("next: start this server"), "{told}");

    new.serve_api();
    let kubectl = Kubectl::default(&new);
    let boat = "-n home get configmap boat -o 'jsonpath={.data.name}'";
    assert_eq!(kubectl.ok(boat), "coracle", "deleted after the snapshot");
    assert_eq!(kubectl.ok("get namespace home -o 'jsonpath={.metadata.uid}'"), uid);
    assert!(revision(&kubectl) > before + 1_000_000_000, "revisions never come twice");
    kubectl.until("-n home get deployment web -o 'jsonpath={.status.replicas}'", "3");
    // What people and pods hold of the old cluster is good in the new one.
    let admin = admin.to_str().expect("a plain path");
    assert!(kubectl.ok(&format!("--kubeconfig {admin} get nodes")).is_empty());
    let bearer =
        "--kubeconfig /dev/null --server https://127.0.0.1:6443 --insecure-skip-tls-verify";
    let said = kubectl.fails(&format!("{bearer} --token {token} get namespaces"));
    assert!(said.contains("User \"system:serviceaccount:default:default\" cannot list"), "{said}");
    assert_eq!(secret_of(&new), secret);
}

#[test]
fn a_passphrase_alone_brings_the_cluster_back_and_age_opens_the_file() {
    let old = board_with_objects();
    let right = passphrase_file(&old, PASSPHRASE);
    let file = save(&old, &format!(" nightly --encrypt-passphrase-file {}", right.display()));
    assert!(file.to_string_lossy().ends_with(".snapshot.age"), "{}", file.display());
    let bytes = fs::read(&file).expect("the file");
    let secret = secret_of(&old);
    let secret = secret.rsplit(':').next().expect("a secret").as_bytes();
    assert!(!bytes.windows(secret.len()).any(|window| window == secret));
    let opened = opened_by_age(&old, &file);
    assert!(opened.starts_with(b"coracle-snapshot\n"));
    let plain = old.folder.join("by-age.snapshot");
    fs::write(&plain, opened).expect("written");
    ok(old.coracle(&format!("snapshot check {}", plain.display())));

    let new = Board::unstarted();
    let said = refused(new.coracle(&format!("snapshot restore {}", file.display())));
    assert!(said.contains("it is encrypted") && said.contains("--passphrase-file"), "{said}");
    let wrong = passphrase_file(&new, "wrong");
    let restore = |passphrase: &Path| {
        let arguments = format!("--passphrase-file {}", passphrase.display());
        new.coracle(&format!("snapshot restore {} {arguments}", file.display()))
    };
    let said = refused(restore(&wrong));
    assert!(said.contains("the passphrase is wrong"), "{said}");
    ok(restore(&right));
    new.serve_api();
    Kubectl::default(&new).ok("-n home get configmap boat");
}

/// Debian's `age` asks a terminal for the passphrase, so it gets one.
fn opened_by_age(board: &Board, file: &Path) -> Vec<u8> {
    let (age, out) = (tools().join("age/usr/bin/age"), board.folder.join("opened"));
    assert!(age.exists(), "./test.sh tools brings age");
    let inner = format!("{} -d -o {} {}", age.display(), out.display(), file.display());
    let mut script = Command::new("script");
    script.args(["-qec", &inner, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = script.spawn().expect("script");
    let mut terminal = child.stdin.take().expect("a pipe");
    writeln!(terminal, "{PASSPHRASE}").expect("typed");
    // The terminal stays open until the end, as a person's would.
    assert!(child.wait().expect("age").success());
    drop(terminal);
    fs::read(out).expect("what age has written")
}

#[test]
fn what_is_here_is_moved_aside_and_only_when_told() {
    let board = board_with_objects();
    let file = save(&board, "");
    let kubectl = Kubectl::default(&board);
    kubectl.ok("-n home create configmap later");
    let restore = |arguments: &str| {
        board.coracle(format!("snapshot restore {} {arguments}", file.display()).trim_end())
    };
    let said = refused(restore("--replace"));
    assert!(said.contains("a server is running in"), "{said}");
    board.stop();
    let said = refused(restore(""));
    assert!(said.contains("has a cluster already") && said.contains("--replace"), "{said}");
    let told = ok(restore("--replace"));
    let aside = told.lines().find(|line| line.contains("what was here")).expect("it says where");
    let aside = aside.split(' ').find(|word| word.contains("replaced-")).expect("a folder");
    assert!(Path::new(aside.trim_end_matches(';')).join("db/store.db").exists(), "{aside}");
    board.serve_api();
    kubectl.ok("-n home get configmap boat");
    assert!(kubectl.fails("-n home get configmap later").contains("NotFound"));

    // Cut short between the two moves: the server does not start, and the next try heals it.
    board.stop();
    fs::write(board.data().join("server/restoring.marker"), "").expect("written");
    let said = refused(board.server());
    assert!(said.contains("a restore was cut short"), "{said}");
    ok(restore(""));
    board.serve_api();
    kubectl.ok("-n home get configmap boat");
}

#[test]
fn a_cut_or_altered_snapshot_is_refused_and_said_where() {
    let board = board_with_objects();
    let file = save(&board, "");
    let bytes = fs::read(&file).expect("the file");
    let bad = board.folder.join("bad.snapshot");
    let middle = bytes.len() / 2;
    let mut flipped = bytes.clone();
    flipped[middle] ^= 1;
    for (content, expected) in [
        (&bytes[..middle], format!("it is cut: it ends at byte {middle}")),
        (&flipped[..], "it is altered: the checksum does not match at byte".to_owned()),
        (&b"SQLite format 3"[..], "it is no snapshot of Coracle".to_owned()),
        (&b""[..], "it is cut: it ends at byte 0".to_owned()),
    ] {
        fs::write(&bad, content).expect("written");
        for command in ["check", "restore"] {
            let other = Board::unstarted();
            let said = refused(other.coracle(&format!("snapshot {command} {}", bad.display())));
            assert!(said.contains(&expected) && said.contains("bad.snapshot"), "{said}");
            assert!(!other.data().join("server/db").exists());
        }
    }
}

#[test]
fn a_full_disk_leaves_nothing_half() {
    let board = board_with_objects();
    let small = board.folder.join("small");
    fs::create_dir_all(&small).expect("made");
    mount(Some("small"), &small, Some("tmpfs"), MsFlags::empty(), Some("size=16k"))
        .expect("a disk");
    let arguments = format!("snapshot save --dir {}", small.display());
    let said = refused(board.coracle(&arguments));
    let left = fs::read_dir(&small).expect("listed").count();
    umount2(&small, MntFlags::MNT_DETACH).expect("unmounted");
    assert!(said.contains("No space left") && said.contains("free some space"), "{said}");
    assert_eq!(left, 0);
}

#[test]
fn a_stopped_server_is_saved_listed_and_pruned() {
    let board = board_with_objects();
    save(&board, " scheduled");
    board.stop();
    let second = save(&board, " mine");
    let listed = ok(board.coracle("snapshot list --output json"));
    let listed: Vec<serde_json::Value> = serde_json::from_str(&listed).expect("JSON");
    assert_eq!(listed.len(), 2);
    // Two more of the schedule's, the newest damaged.
    let folder = second.parent().expect("a folder");
    fs::copy(&second, folder.join("scheduled-board-1000.snapshot")).expect("copied");
    fs::write(folder.join("scheduled-board-9999999999.snapshot"), "x").expect("written");
    let told = ok(board.coracle("snapshot prune --keep 1"));
    assert!(told.contains("scheduled-board-1000.snapshot"), "{told}");
    let names: Vec<String> = fs::read_dir(folder)
        .expect("listed")
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    assert_eq!(names.len(), 3, "the damaged one, the last good one, and another's: {names:?}");
    let said = refused(board.coracle("snapshot delete nothing-1.snapshot"));
    assert!(said.contains("there is no snapshot nothing-1.snapshot"), "{said}");
}

#[test]
fn the_schedule_takes_them_and_says_so() {
    let board = Board::unstarted();
    let mut line = board.server();
    line.args(["--disable-agent", "--snapshot-schedule-cron", "* * * * *"]);
    board.launch(line);
    let kubectl = Kubectl::default(&board);
    let folder = board.data().join("server/snapshots");
    // Up to a minute away, and as long again on a busy machine.
    let taken = || {
        fs::read_dir(&folder).is_ok_and(|entries| {
            entries.flatten().any(|e| {
                let name = e.file_name().to_string_lossy().into_owned();
                name.starts_with("scheduled-") && name.ends_with(".snapshot")
            })
        })
    };
    let minute = || jiff::Timestamp::now().as_second() / 60;
    let start = minute();
    eventually("the minute is over", || minute() > start || taken());
    eventually("a snapshot is taken", taken);
    kubectl.until_that("get events -A", |events| events.contains("SnapshotTaken"));
    let metrics = kubectl.ok("get --raw /metrics");
    assert!(metrics.contains("coracle_snapshots_total{result=\"taken\"} 1"));
}

/// A storage that speaks S3, on the board's own loopback. It knows one access key, and whether
/// its secret made a signature.
struct S3 {
    children: [Child; 2],
    flags: String,
}

impl S3 {
    /// With TLS from an authority of its own.
    fn start(board: &Board) -> Self {
        let server = tools().join("s3rver/node_modules/s3rver/bin/s3rver.js");
        assert!(server.exists(), "./test.sh tools brings s3rver");
        let folder = board.folder.join("s3");
        fs::create_dir_all(&folder).expect("made");
        let (cert, key) = (folder.join("tls.crt"), folder.join("tls.key"));
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a leaf");
        fs::write(&cert, made.cert.pem()).expect("written");
        fs::write(&key, made.signing_key.serialize_pem()).expect("written");
        let mut storage = board.netns.command("node");
        storage.arg(server).arg("-d").arg(&folder).args(["-a", "127.0.0.1", "-p", "4569", "-s"]);
        storage.args(["--no-vhost-buckets", "--configure-bucket", "boats"]);
        // It believes any signature; AWS' own library before it does not.
        let mut check = board.netns.command("/usr/bin/python3");
        check.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/s3_check.py"));
        check.args(["4568", "4569"]).arg(&cert).arg(&key).args(["S3RVER", "S3RVER"]);
        check.env("PYTHONPATH", tools().join("botocore/usr/lib/python3/dist-packages"));
        let children = [storage, check].map(|mut line| {
            line.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("node and python3")
        });
        board.netns.run(|| {
            for address in ["127.0.0.1:4569", "127.0.0.1:4568"] {
                eventually("the storage listens", || std::net::TcpStream::connect(address).is_ok());
            }
        });
        let flags = format!(
            "--s3 --s3-endpoint localhost:4568 --s3-bucket boats --s3-folder fleet/home \
             --s3-access-key S3RVER --s3-endpoint-ca {}",
            cert.display()
        );
        S3 { children, flags }
    }

    fn coracle(&self, board: &Board, command: &str) -> Command {
        Self::with_flags(board, command, &self.flags)
    }

    fn with_flags(board: &Board, command: &str, flags: &str) -> Command {
        let mut line = board.coracle(&format!("snapshot {command} {flags}"));
        line.env("AWS_SECRET_ACCESS_KEY", "S3RVER");
        line
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn a_storage_keeps_them_and_gives_them_back() {
    let board = board_with_objects();
    let storage = S3::start(&board);
    // Large enough for several parts: it does not compress.
    let kubectl = Kubectl::default(&board);
    let mut random = fastrand::Rng::with_seed(3);
    let noise = board.folder.join("noise");
    for number in 0..8 {
        let bytes: Vec<u8> = (0..700_000).map(|_| random.u8(..)).collect();
        fs::write(&noise, bytes).expect("written");
        kubectl.ok(&format!(
            "-n home create configmap noise-{number} --from-file={}",
            noise.display()
        ));
    }
    let printed = ok(storage.coracle(&board, "save"));
    let mut lines = printed.lines();
    let local = PathBuf::from(lines.next().expect("the file"));
    let size = fs::metadata(&local).expect("the file").len();
    assert!(size > 5 << 20, "{size} bytes take several parts");
    let stored = lines.next().expect("the object");
    let name = local.file_name().expect("a name").to_str().expect("text").to_owned();
    assert_eq!(stored, format!("s3://boats/fleet/home/{name}"));
    let listed = ok(storage.coracle(&board, "list"));
    assert!(listed.contains(stored), "{listed}");

    // Without the board's own copy it is fetched.
    fs::remove_file(&local).expect("removed");
    let checked = ok(storage.coracle(&board, &format!("check {name}")));
    assert!(checked.contains("is sound"), "{checked}");
    let token = secret_of(&board);
    board.stop();
    ok(storage.coracle(&board, &format!("restore {name} --replace --token {token}")));
    board.serve_api();
    kubectl.ok("-n home get configmap noise-7");

    for _ in 0..2 {
        ok(storage.coracle(&board, "save scheduled"));
        // Names tell seconds apart.
        let now = || jiff::Timestamp::now().as_second();
        let then = now();
        eventually("the next second", || now() > then);
    }
    let told = ok(storage.coracle(&board, "prune --keep 1"));
    assert_eq!(told.matches("removed s3://").count(), 1, "{told}");
    ok(storage.coracle(&board, &format!("delete {name}")));
    let listed = ok(storage.coracle(&board, "list"));
    assert_eq!(listed.matches("s3://").count(), 1, "{listed}");

    let mut line = storage.coracle(&board, "list");
    line.env("AWS_SECRET_ACCESS_KEY", "another");
    let said = refused(line);
    assert!(said.contains("SignatureDoesNotMatch") && said.contains("--s3-secret-key"), "{said}");
    let flags = storage.flags.replace("S3RVER", "nobody");
    let said = refused(S3::with_flags(&board, "list", &flags));
    assert!(said.contains("InvalidAccessKeyId") && said.contains("--s3-access-key"), "{said}");
    let said = refused(S3::with_flags(&board, "list", &storage.flags.replace("boats", "none")));
    assert!(said.contains("NoSuchBucket") && said.contains("--s3-bucket"), "{said}");
}
