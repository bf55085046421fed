//! Images for boards: a Debian is packed as distributions pack it, prepared, and compared file by file;
//! and written to a card, which is a loop device here.

mod card;
mod stock;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use self::stock::{Stock, files, tool};
use crate::harness::coracle;

/// Two boards: pi2 keeps its data in a partition of its own.
const CLUSTER: &str = "\
name: home
token: {file: token}
ssh: {user: admin, authorizedKeys: [key.pub]}
network: {subnet: 192.0.2.0/24, gateway: 192.0.2.1, addressing: static}
boards:
  - {name: pi1, roles: [server], address: 192.0.2.11}
  - {name: pi2, address: 192.0.2.12, data: {device: card, format: true}}
";
const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHk1 me\n";

/// What stands for the binary, which is larger than all the rest in a build that is not optimised.
const PROGRAM_BYTES: usize = 1 << 20;

/// Runs `coracle image prepare` on the stock image, with the head of the binary for all of it.
fn prepare(stock: &Stock, arguments: &str) -> Output {
    let folder = &stock.folder;
    Command::new(coracle())
        .args(["image", "prepare", "--file"])
        .arg(folder.join("cluster.yaml"))
        .arg("--image")
        .arg(&stock.image)
        .args(["--binary", "program"])
        .args(arguments.split_whitespace())
        .current_dir(folder)
        .output()
        .expect("coracle runs")
}

fn ok(output: Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn refused(output: Output) -> String {
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A stock image with a description of two boards beside it.
fn stage(name: &str, table: &str) -> Stock {
    let stock = Stock::new(name, table);
    for (file, text) in [("cluster.yaml", CLUSTER), ("key.pub", KEY), ("token", "s3cret\n")] {
        fs::write(stock.folder.join(file), text).expect("written");
    }
    let program = &fs::read(coracle()).expect("the binary")[..PROGRAM_BYTES];
    fs::write(stock.folder.join("program"), program).expect("written");
    let token = stock.folder.join("token");
    let owner_only = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(token, owner_only).expect("for its owner only");
    stock
}

/// The paths that a dry run says will be changed.
fn planned(printed: &str) -> BTreeSet<String> {
    let lines = printed.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    lines.filter_map(|line| line.split_whitespace().nth(1)).map(str::to_owned).collect()
}

/// Paths whose content, permissions or owner are not the same in both.
fn different(
    before: &BTreeMap<String, String>,
    after: &BTreeMap<String, String>,
) -> BTreeSet<String> {
    let all = before.keys().chain(after.keys());
    all.filter(|path| before.get(*path) != after.get(*path)).cloned().collect()
}

#[test]
fn each_board_gets_an_image_and_nothing_else_in_it_changes() {
    let stock = stage("prepare", stock::MBR);
    let hash = |path: &Path| fs::read(path).expect("read").len();
    let (before, length) = (files(&stock.image), hash(&stock.image));

    let said = refused(prepare(&stock, "--board pi3 --dry-run"));
    assert!(
        said.contains("there is no board pi3 in home\nhint: its boards are pi1, pi2"),
        "{said}"
    );
    let printed = ok(prepare(&stock, "--board pi2 --dry-run"));
    assert!(printed.contains("+ admin:x:1000:1000::/home/admin:/bin/bash"), "{printed}");
    assert!(!printed.contains("s3cret"), "{printed}");

    ok(prepare(&stock, "--output out"));
    let out = stock.folder.join("out");
    let names = fs::read_dir(&out).expect("read").flatten().map(|entry| entry.file_name());
    assert_eq!(names.collect::<BTreeSet<_>>(), ["pi1.img".into(), "pi2.img".into()].into());
    let after = files(&out.join("pi2.img"));
    let mut changed = different(&before, &after);
    // Folders that were made on the way to a file are not announced one by one.
    let is_new_folder =
        |path: &str| !before.contains_key(path) && after[path].starts_with("folder 755 0:0");
    let on_the_way: Vec<String> =
        changed.iter().filter(|path| is_new_folder(path)).cloned().collect();
    for folder in on_the_way {
        let inside = format!("{folder}/");
        assert!(changed.iter().any(|path| path.starts_with(&inside)), "{folder} is empty");
        changed.remove(&folder);
    }
    assert_eq!(changed, planned(&printed));
    let is_left = |path: &str| before[path] == after[path];
    assert!(is_left("/boot/cmdline.txt") && is_left("/boot/firmware/user-data"));
    let flags = "root=PARTUUID=deadbeef-02 rootfstype=ext4 rootwait quiet cgroup_enable=cpuset ";
    assert!(printed.contains(flags), "{printed}");
    assert_eq!(length, hash(&stock.image), "the stock image is left alone");

    as_they_should_be(&after);
    partitions(&stock, &out);
    let said = refused(prepare(&stock, "--output out"));
    assert!(said.contains("out/pi1.img is there already"), "{said}");
}

fn as_they_should_be(after: &BTreeMap<String, String>) {
    for (path, expected) in [
        ("/etc/cloud/cloud-init.disabled", "file 644 0:0 "),
        ("/etc/coracle/token", "file 600 0:0 "),
        ("/etc/coracle/config.yaml", "file 600 0:0 "),
        ("/etc/shadow", "file 640 0:42 "),
        ("/etc/sudoers.d/010-coracle", "file 440 0:0 "),
        ("/home/admin/.ssh", "folder 700 1000:1000"),
        ("/home/admin/.ssh/authorized_keys", "file 600 1000:1000 "),
        ("/usr/local/bin/coracle", "file 755 0:0 "),
        (
            "/etc/systemd/system/multi-user.target.wants/coracle-agent.service",
            "link /etc/systemd/system/coracle-agent.service",
        ),
    ] {
        assert!(after[path].starts_with(expected), "{path}: {}", after[path]);
    }
}

/// What the distribution's own tools say of the images.
fn partitions(stock: &Stock, out: &Path) {
    let dump = |image: &Path| {
        let text = tool("sfdisk", &["--dump", &image.display().to_string()]);
        let text = text.replace(&image.display().to_string(), "disk");
        let rows = text.lines().filter(|line| line.starts_with("disk")).map(str::to_owned);
        rows.collect::<Vec<_>>()
    };
    let (stock, first, second) =
        (dump(&stock.image), dump(&out.join("pi1.img")), dump(&out.join("pi2.img")));
    assert_eq!(first, stock, "there was room for what is new");
    assert_eq!(second[0], stock[0]);
    assert_eq!(second.len(), 3, "{second:?}");
    let gib8 = (8_u64 << 30) / 512;
    assert!(second[2].contains(&format!("start={gib8:12}, size=       32768")), "{second:?}");
    for name in ["pi1.img", "pi2.img"] {
        let image = out.join(name).display().to_string();
        let fat = stock::extract_fat(&out.join(name));
        tool("fsck.fat", &["-n", &fat.display().to_string()]);
        fs::remove_file(fat).expect("removed");
        tool("e2fsck", &["-fn", &format!("{image}?offset={}", stock::ROOT_START)]);
    }
}
