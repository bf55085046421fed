//! A stock image as distributions make them, with their tools: a partition table, FAT for the firmware,
//! and a Debian on ext4.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::tools;

const MIB: u64 = 1024 * 1024;
const FAT_START: u64 = 4 * MIB;
const FAT_BYTES: u64 = 40 * MIB;
/// Where the root's partition begins.
pub const ROOT_START: u64 = FAT_START + FAT_BYTES;
const ROOT_BYTES: u64 = 512 * MIB;
const CMDLINE: &str = "console=tty1 root=PARTUUID=deadbeef-02 rootfstype=ext4 rootwait quiet \
                       init=/usr/lib/raspberrypi-sys-mods/firstboot\n";
const FSTAB: &str = "LABEL=BOOTFS /boot/firmware vfat defaults 0 2\n\
                     PARTUUID=deadbeef-02 / ext4 defaults,noatime 0 1\n\
                     /var/swap none swap sw 0 0\n";
/// As Raspberry Pi OS has it.
pub const MBR: &str = "label: dos\nlabel-id: 0xdeadbeef\nstart=4MiB, size=40MiB, type=c\n\
                       start=44MiB, type=83\n";
/// As Debian's images for clouds have it: the root is the first by number and the last by place. (The
/// kernel's command line and fstab name it otherwise; nothing here boots.)
pub const GPT: &str = "label: gpt\n15: start=4MiB, size=40MiB, type=U\n1: start=44MiB, type=L\n";

/// An image in a folder that goes with the value.
pub struct Stock {
    pub folder: PathBuf,
    pub image: PathBuf,
}

impl Drop for Stock {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Stock {
    /// Makes one from the Debian that `./test.sh tools` makes.
    pub fn new(name: &str, table: &str) -> Self {
        // Not in /tmp, which may be memory.
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("image-{name}"));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("a folder");
        let stock = Stock { image: folder.join("stock.img"), folder };
        let root = stock.root();
        let text = |path: &Path| path.display().to_string();
        let (fat, ext) = (stock.folder.join("fat"), stock.folder.join("ext"));
        File::create(&fat).and_then(|file| file.set_len(FAT_BYTES)).expect("made");
        tool("mkfs.fat", &["-F", "32", "-n", "BOOTFS", &text(&fat)]);
        let cmdline = stock.folder.join("cmdline.txt");
        fs::write(&cmdline, CMDLINE).expect("written");
        tool("mcopy", &["-i", &text(&fat), &text(&cmdline), "::cmdline.txt"]);
        File::create(&ext).and_then(|file| file.set_len(ROOT_BYTES)).expect("made");
        let from = text(&root);
        tool("mke2fs", &["-q", "-t", "ext4", "-L", "rootfs", "-d", &from, &text(&ext)]);
        fs::remove_dir_all(&root).expect("removed");
        File::create(&stock.image)
            .and_then(|file| file.set_len(ROOT_START + ROOT_BYTES + MIB))
            .expect("made");
        let rows = stock.folder.join("table");
        fs::write(&rows, table).expect("written");
        let mut sfdisk = command("sfdisk");
        let status = sfdisk.arg("-q").arg(&stock.image).stdin(File::open(&rows).expect("there"));
        assert!(status.status().expect("sfdisk runs").success());
        for (part, start) in [(&fat, FAT_START), (&ext, ROOT_START)] {
            copy(part, &stock.image, start);
            fs::remove_file(part).expect("removed");
        }
        stock
    }

    /// The Debian, by hard links, with what a stock image has beyond it.
    fn root(&self) -> PathBuf {
        let root = self.folder.join("root");
        let debian = tools().join("debian");
        let copied = Command::new("cp").arg("-al").arg(&debian).arg(&root).status();
        assert!(copied.expect("cp runs").success(), "./test.sh tools makes {}", debian.display());
        fs::create_dir_all(root.join("boot/firmware")).expect("made");
        let put = |path: &str, text: &str, mode: u32| {
            let path = root.join(path);
            let _ = fs::remove_file(&path);
            fs::write(&path, text).expect("written");
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set");
        };
        put("etc/fstab", FSTAB, 0o644);
        put("etc/machine-id", "uninitialized\n", 0o444);
        for program in ["usr/sbin/sshd", "usr/bin/sudo"] {
            if !root.join(program).exists() {
                put(program, "#!/bin/sh\n", 0o755);
            }
        }
        // What copies of file systems lose most easily.
        put("usr/local/bin/set id", "#!/bin/sh\n", 0o4755);
        symlink("../nowhere", root.join("etc/dangling")).expect("made");
        root
    }
}

/// Copies a part into an image, with holes.
fn copy(part: &Path, image: &Path, start: u64) {
    let mut from = File::open(part).expect("there");
    let mut to = OpenOptions::new().write(true).open(image).expect("there");
    let mut block = vec![0; MIB as usize];
    let mut at = start;
    loop {
        let count = from.read(&mut block).expect("read");
        if count == 0 {
            return;
        }
        if block[..count].iter().any(|byte| *byte != 0) {
            to.seek(SeekFrom::Start(at)).expect("there");
            to.write_all(&block[..count]).expect("written");
        }
        at += count as u64;
    }
}

fn command(program: &str) -> Command {
    let disk = tools().join("disk");
    let path = std::env::var("PATH").unwrap_or_default();
    let folders =
        ["sbin", "usr/sbin", "usr/bin"].map(|folder| disk.join(folder).display().to_string());
    let mut command = Command::new("/usr/bin/env");
    command.env("PATH", format!("{}:{path}:/usr/sbin:/sbin", folders.join(":")));
    command.env("LD_LIBRARY_PATH", disk.join("lib/x86_64-linux-gnu")).arg(program);
    command
}

/// Runs one of the distribution's tools; what it printed.
pub fn tool(program: &str, arguments: &[&str]) -> String {
    let output = command(program).args(arguments).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The FAT partition of an image, as a file beside it.
pub fn extract_fat(image: &Path) -> PathBuf {
    let file = image.with_extension("fat");
    let mut from = File::open(image).expect("there");
    from.seek(SeekFrom::Start(FAT_START)).expect("there");
    let mut bytes = vec![0; FAT_BYTES as usize];
    from.read_exact(&mut bytes).expect("read");
    fs::write(&file, bytes).expect("written");
    file
}

/// Everything in an image by its path on the board: sort, permissions, owner, and what it holds.
pub fn files(image: &Path) -> BTreeMap<String, String> {
    let root = image.with_extension("files");
    let firmware = root.join("boot/firmware");
    let _ = fs::remove_dir_all(&root);
    fs::create_dir_all(&root).expect("made");
    let from = format!("{}?offset={ROOT_START}", image.display());
    tool("debugfs", &["-R", &format!("rdump / {}", root.display()), &from]);
    let inside = format!("{}@@{FAT_START}", image.display());
    tool("mcopy", &["-s", "-n", "-i", &inside, "::", &firmware.display().to_string()]);
    let mut found = BTreeMap::new();
    walk(&root, "", &mut found);
    fs::remove_dir_all(&root).expect("removed");
    found
}

fn walk(folder: &Path, path: &str, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).expect("read").flatten() {
        let about = entry.metadata().expect("there");
        let path = format!("{path}/{}", entry.file_name().to_string_lossy());
        let rights = format!("{:o} {}:{}", about.mode() & 0o7777, about.uid(), about.gid());
        let text = if about.is_symlink() {
            format!("link {}", fs::read_link(entry.path()).expect("read").display())
        } else if about.is_dir() {
            walk(&entry.path(), &path, found);
            format!("folder {rights}")
        } else {
            let mut hash = DefaultHasher::new();
            fs::read(entry.path()).expect("read").hash(&mut hash);
            format!("file {rights} {:016x}", hash.finish())
        };
        found.insert(path, text);
    }
}
