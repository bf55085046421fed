use super::super::change::Content;
use super::*;
use crate::config::Flags;

mod stock;

/// What is particular to a stock Raspberry Pi OS.
const RASPBERRY_PI_OS: &[(&str, &str)] = &[
    ("/etc/os-release", "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n"),
    (
        "/boot/firmware/cmdline.txt",
        "console=tty1 root=PARTUUID=ab-02 rootwait quiet init=/usr/lib/raspberrypi-sys-mods/firstboot\n",
    ),
    ("/etc/fstab", "PARTUUID=ab-02 / ext4 defaults 0 1\n"),
    ("/etc/group", "root:x:0:\nsudo:x:27:pi\npi:x:1000:\n"),
    ("/etc/gshadow", "root:*::\nsudo:*::pi\n"),
    ("/etc/hosts", "127.0.0.1\tlocalhost\n127.0.1.1\traspberrypi\n"),
    ("/etc/machine-id", "uninitialized\n"),
    ("/etc/passwd", "root:x:0:0:root:/root:/bin/bash\npi:x:1000:1000:,,,:/home/pi:/bin/bash\n"),
    ("/etc/shadow", "root:*:19700:0:99999:7:::\npi:!:19700:0:99999:7:::\n"),
    ("/etc/skel/.profile", "umask 022\n"),
    ("/etc/ssh/sshd_config", "Include /etc/ssh/sshd_config.d/*.conf\n"),
    ("/etc/ssh/sshd_config.d/rename_user.conf", ""),
    ("/etc/systemd/system/multi-user.target.wants/NetworkManager.service", ""),
    ("/usr/bin/bash", ""),
    ("/usr/bin/sudo", ""),
    ("/usr/lib/systemd/system/dphys-swapfile.service", ""),
    ("/usr/lib/systemd/system/multi-user.target", ""),
    ("/usr/lib/systemd/system/userconfig.service", ""),
    ("/usr/sbin/sshd", ""),
];

fn cluster(more: &str) -> Cluster {
    let yaml = format!(
        "name: home\n{more}boards:\n  - {{name: pi1, roles: [server], address: 192.168.1.41}}\n  - \
         {{name: pi2, address: 192.168.1.42}}\n"
    );
    Cluster::parse(&yaml, "cluster.yaml", &Flags::default()).expect("a cluster")
}

fn given() -> Given {
    Given {
        user: "admin".into(),
        authorized_keys: vec!["ssh-ed25519 AAAA me".into()],
        token: Some("s3cret".into()),
        binary: ("/tmp/coracle".into(), 50_000_000),
        machine: Some(Machine::Arm64),
        ..Given::default()
    }
}

fn plan(image: &[(&str, &str)], cluster: &Cluster, name: &str) -> Plan {
    let board = cluster.board(name).expect("a board");
    changes(cluster, board, &Layout::of_arm64(image), &given()).expect("a plan")
}

/// The file that a plan has at a path.
fn text(plan: &Plan, path: &str) -> String {
    let found = plan.changes.iter().find(|change| change.path() == path);
    match found {
        Some(Change::File { content: Content::Bytes(bytes), .. }) => {
            String::from_utf8_lossy(bytes).into_owned()
        }
        other => format!("{other:?}"),
    }
}

/// Without one of its files.
fn without(
    image: &[(&'static str, &'static str)],
    path: &str,
) -> Vec<(&'static str, &'static str)> {
    image.iter().filter(|(at, _)| *at != path).copied().collect()
}

#[test]
fn a_stock_raspberry_pi_os_becomes_an_agent() {
    let plan = plan(RASPBERRY_PI_OS, &cluster(""), "pi2");
    let shown = plan.changes.iter().map(|change| {
        let line = change.to_string();
        line.lines().next().unwrap_or_default().to_owned()
    });
    let expected = include_str!("agent.txt");
    assert_eq!(shown.collect::<Vec<_>>().join("\n"), expected.trim_end());
    assert!(plan.warnings.is_empty(), "{:?}", plan.warnings);
    assert_eq!(
        text(&plan, "/boot/firmware/cmdline.txt"),
        "console=tty1 root=PARTUUID=ab-02 rootwait quiet cgroup_enable=cpuset cgroup_enable=memory \
         cgroup_memory=1\n"
    );
    assert!(text(&plan, "/etc/passwd").ends_with("\nadmin:x:1001:1001::/home/admin:/bin/bash\n"));
    assert!(text(&plan, "/etc/shadow").ends_with("\nadmin:*::0:99999:7:::\n"));
    let group = text(&plan, "/etc/group");
    assert_eq!(group, "root:x:0:\nsudo:x:27:pi,admin\npi:x:1000:\nadmin:x:1001:\n");
    assert_eq!(text(&plan, "/etc/machine-id"), "");
    let config = text(&plan, "/etc/coracle/config.yaml");
    assert!(config.contains("server: \"https://192.168.1.41:6443\"\n"), "{config}");
    assert!(config.contains("token-file: \"/etc/coracle/token\"\n"), "{config}");
    assert!(!plan.changes.iter().any(|change| change.to_string().contains("s3cret")));
}

#[test]
fn the_first_server_joins_nobody_and_others_need_a_token() {
    let cluster = cluster("");
    let first = plan(RASPBERRY_PI_OS, &cluster, "pi1");
    let config = text(&first, "/etc/coracle/config.yaml");
    assert!(!config.contains("server: "), "{config}");
    let layout = Layout::of_arm64(RASPBERRY_PI_OS);
    let no_token = Given { token: None, ..given() };
    changes(&cluster, &cluster.boards[0], &layout, &no_token).expect("it makes one");
    let refused = changes(&cluster, &cluster.boards[1], &layout, &no_token).expect_err("refused");
    assert_eq!(refused.to_string(), "pi2 cannot join by itself: there is no token");
}

#[test]
fn agents_join_at_the_virtual_address_and_servers_at_the_first_one_s() {
    let yaml = "name: home\nnetwork: {subnet: 192.168.1.0/24, vip: 192.168.1.40}\nboards:\n  \
                - {name: pi1, roles: [server], address: 192.168.1.41}\n  \
                - {name: pi2, roles: [server], address: 192.168.1.42}\n  \
                - {name: pi3, address: 192.168.1.43}\n";
    let cluster = Cluster::parse(yaml, "cluster.yaml", &Flags::default()).expect("a cluster");
    for (name, server) in [("pi2", "192.168.1.41"), ("pi3", "192.168.1.40")] {
        let plan = plan(RASPBERRY_PI_OS, &cluster, name);
        let config = text(&plan, "/etc/coracle/config.yaml");
        assert!(config.contains(&format!("server: \"https://{server}:6443\"\n")), "{config}");
        // Several servers run etcd, which the distribution has in a package.
        let packages = text(&plan, "/etc/coracle/first-start.packages");
        assert_eq!(packages == "etcd-server\n", name == "pi2", "{packages}");
    }
}

#[test]
fn what_cannot_work_is_refused() {
    let cluster = cluster("");
    let said = |image: &[(&str, &str)], given: &Given| {
        let refused = changes(&cluster, &cluster.boards[1], &Layout::of_arm64(image), given);
        let refused = refused.expect_err("refused");
        assert!(refused.hint().is_some(), "{refused}");
        refused.to_string()
    };
    let wrong = Given { machine: Some(Machine::Amd64), ..given() };
    assert_eq!(
        said(RASPBERRY_PI_OS, &wrong),
        "the image is for aarch64, and /tmp/coracle for x86_64"
    );
    let nobody = Given { authorized_keys: vec![], ..given() };
    assert_eq!(said(RASPBERRY_PI_OS, &nobody), "nobody could log in to pi2: there is no key");
    let no_sudo = without(RASPBERRY_PI_OS, "/usr/bin/sudo");
    assert_eq!(
        said(&no_sudo, &given()),
        "Debian GNU/Linux 12 (bookworm) has no sudo, so admin could not set anything up"
    );
    let no_systemd = without(RASPBERRY_PI_OS, "/usr/lib/systemd/system/multi-user.target");
    assert!(said(&no_systemd, &given()).ends_with("has no systemd"));
}

#[test]
fn who_is_there_already_keeps_number_and_home() {
    let cluster = cluster("");
    let given = Given { user: "pi".into(), ..given() };
    let layout = Layout::of_arm64(RASPBERRY_PI_OS);
    let plan = changes(&cluster, &cluster.boards[1], &layout, &given).expect("a plan");
    assert!(!plan.changes.iter().any(|change| change.path() == "/etc/passwd"));
    let keys = plan.changes.iter().find(|c| c.path() == "/home/pi/.ssh/authorized_keys");
    let Some(Change::File { mode, owner, .. }) = keys else { panic!("no keys") };
    assert_eq!((*mode, *owner), (0o600, (1000, 1000)));
}

#[test]
fn boot_loaders_say_the_flags_now_and_after_the_next_kernel() {
    let mut image = without(RASPBERRY_PI_OS, "/boot/firmware/cmdline.txt");
    image.push((
        "/boot/grub/grub.cfg",
        "menuentry 'Debian' {\n\tlinux\t/vmlinuz root=LABEL=x ro \n\tinitrd\t/initrd.img\n}\n",
    ));
    image.push(("/boot/extlinux/extlinux.conf", "label l0\n\tappend root=LABEL=x\n\tfdt /dtb\n"));
    image.push(("/etc/default/u-boot", "U_BOOT_UPDATE=true\n"));
    let plan = plan(&image, &cluster(""), "pi2");
    let flags = "cgroup_enable=cpuset cgroup_enable=memory cgroup_memory=1";
    assert_eq!(
        text(&plan, "/boot/grub/grub.cfg"),
        format!(
            "menuentry 'Debian' {{\n\tlinux\t/vmlinuz root=LABEL=x ro  {flags}\n\tinitrd\t/initrd.img\n}}\n"
        )
    );
    assert_eq!(
        text(&plan, "/etc/default/grub.d/90-coracle.cfg"),
        format!("GRUB_CMDLINE_LINUX=\"$GRUB_CMDLINE_LINUX {flags}\"\n")
    );
    let extlinux = format!("label l0\n\tappend root=LABEL=x {flags}\n\tfdt /dtb\n");
    assert_eq!(text(&plan, "/boot/extlinux/extlinux.conf"), extlinux);
    let uboot = "U_BOOT_UPDATE=true\nU_BOOT_PARAMETERS=\"${U_BOOT_PARAMETERS:-ro quiet} ";
    assert_eq!(text(&plan, "/etc/default/u-boot"), format!("{uboot}{flags}\"\n"));
    let bare = without(RASPBERRY_PI_OS, "/boot/firmware/cmdline.txt");
    let bare = super::tests::plan(&bare, &cluster(""), "pi2");
    assert_eq!(bare.warnings.len(), 1, "{:?}", bare.warnings);
}

#[test]
fn the_data_s_disk_is_mounted_by_label_and_waited_for() {
    let cluster = cluster("defaults: {data: {device: /dev/sda, format: true}}\n");
    let plan = plan(RASPBERRY_PI_OS, &cluster, "pi2");
    let fstab = text(&plan, "/etc/fstab");
    assert!(fstab.contains("\nLABEL=coracle /var/lib/coracle ext4 "), "{fstab}");
    let waits = text(&plan, "/etc/systemd/system/coracle-agent.service.d/data.conf");
    assert!(waits.contains("RequiresMountsFor=/var/lib/coracle"), "{waits}");
    let tasks = text(&plan, "/etc/coracle/first-start.json");
    assert!(tasks.contains("\"device\": \"/dev/sda\""), "{tasks}");
}
