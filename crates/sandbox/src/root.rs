//! A board's file system: the machine's programs to read, and everything that a board writes to
//! its own.
//!
//! | where | what |
//! |---|---|
//! | `/usr`, `/bin`, `/home`, ... | the machine's, read only |
//! | `/etc` | the machine's, with the board's changes on the board's disk |
//! | `/var` | the board's disk |
//! | `/run`, `/tmp`, `/dev/shm` | in memory: a power cut empties them |
//! | `/proc`, `/sys` | of the board's namespaces |

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::pivot_root;

use crate::cgroup;
use crate::error::{Doing, Error, Hinted, Result};
use crate::plan::{Board, Plan};
use crate::state::{BoardFolder, Folder};

/// Folders of the machine that a board has of its own, or has no need of.
const OWN: &[&str] =
    &["boot", "dev", "etc", "lost+found", "proc", "run", "sys", "tmp", "var", "media", "mnt"];
/// Where the sandbox's binary is found on a board.
pub(crate) const PROGRAMS: &str = "/coracle";
/// How much of the machine's memory each folder in memory may take.
const MEMORY_OPTIONS: &str = "size=256m,mode=0755";

/// Puts the root together and enters it. To be called in a new mount namespace.
pub(crate) fn enter(plan: &Plan, board: &Board, folder: &Folder) -> Result {
    let place = folder.board(&board.name);
    // What is mounted from here on must not reach the machine.
    change("/", MsFlags::MS_REC | MsFlags::MS_PRIVATE)?;
    let root = place.root();
    fs::create_dir_all(&root).doing(|| format!("making {}", root.display()))?;
    memory(&root)?;
    programs(&root, folder)?;
    kernel(&root)?;
    disk(plan, &place, &root)?;
    identity(plan, board, &root)?;
    let old = root.join("mnt/machine");
    fs::create_dir_all(&old)
        .and_then(|()| Ok(pivot_root(&root, &old)?))
        .and_then(|()| std::env::set_current_dir("/"))
        .and_then(|()| Ok(umount2("/mnt/machine", MntFlags::MNT_DETACH)?))
        .and_then(|()| fs::remove_dir("/mnt/machine"))
        .doing(|| format!("entering the board's root {}", root.display()))?;
    // As systemd has it: a pod may mount for the board and for other pods.
    change("/", MsFlags::MS_REC | MsFlags::MS_SHARED)
}

fn programs(root: &Path, folder: &Folder) -> Result {
    let doing = || "showing the board the machine's programs".to_owned();
    for entry in fs::read_dir("/").doing(doing)?.flatten() {
        let name = entry.file_name();
        if OWN.iter().any(|own| name == *own) {
            continue;
        }
        let (from, to) = (entry.path(), root.join(&name));
        let kind = entry.file_type().doing(doing)?;
        if kind.is_symlink() {
            fs::read_link(&from).and_then(|target| symlink(target, &to)).doing(doing)?;
        } else if kind.is_dir() {
            fs::create_dir(&to).doing(doing)?;
            bind(&from, &to)?;
            read_only(&to)?;
        }
    }
    let own = root.join(PROGRAMS.trim_start_matches('/'));
    fs::create_dir(&own).doing(doing)?;
    bind(&folder.programs(), &own)
}

fn kernel(root: &Path) -> Result {
    for name in ["proc", "sys", "dev", "run", "tmp", "mnt"] {
        fs::create_dir(root.join(name)).doing(|| format!("making /{name}"))?;
    }
    fresh("proc", &root.join("proc"), "proc", "")?;
    fresh("sysfs", &root.join("sys"), "sysfs", "")?;
    bind(Path::new("/dev"), &root.join("dev"))?;
    memory(&root.join("dev/shm"))?;
    memory(&root.join("run"))?;
    fs::create_dir(root.join("run/lock")).doing(|| "making /run/lock".into())?;
    fresh("tmpfs", &root.join("tmp"), "tmpfs", "size=1g,mode=1777")?;
    let groups = root.join("sys/fs/cgroup");
    let all = cgroup::hierarchies();
    if !matches!(&all[..], [only] if only.unified) {
        memory(&groups)?;
    }
    for hierarchy in &all {
        let Ok(inside) = hierarchy.mount.strip_prefix("/sys/fs/cgroup") else { continue };
        let point = groups.join(inside);
        fs::create_dir_all(&point).doing(|| format!("making {}", point.display()))?;
        match hierarchy.unified {
            true => fresh("cgroup2", &point, "cgroup2", "")?,
            false => fresh("cgroup", &point, "cgroup", &hierarchy.options)?,
        }
    }
    linked_groups(&groups).doing(|| "linking the control groups' other names".into())
}

/// `cpu` and `cpuacct` are links where both are one hierarchy.
fn linked_groups(groups: &Path) -> io::Result<()> {
    for entry in fs::read_dir("/sys/fs/cgroup")?.flatten() {
        let link = groups.join(entry.file_name());
        if entry.file_type()?.is_symlink() && !link.exists() {
            symlink(fs::read_link(entry.path())?, link)?;
        }
    }
    Ok(())
}

/// Makes the file system of a board that has a disk of its own.
pub(crate) fn format_disk(place: &BoardFolder, mib: u32) -> Result {
    let image = place.disk_image();
    if image.exists() {
        return Ok(());
    }
    let doing = || format!("making the disk {}", image.display());
    let temporary = image.with_extension("new");
    let file = fs::File::create(&temporary).doing(doing)?;
    file.set_len(u64::from(mib) << 20).doing(doing)?;
    // A journal that is written at once keeps a small disk's data, as a board's card would.
    run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&temporary))
        .hinted("`apt-get install e2fsprogs`, or leave --disk away")?;
    fs::rename(&temporary, &image).doing(doing)
}

fn disk(plan: &Plan, place: &BoardFolder, root: &Path) -> Result {
    let disk = place.disk();
    fs::create_dir_all(&disk).doing(|| format!("making {}", disk.display()))?;
    if plan.options.disk_mib.is_some() {
        run(Command::new("mount").args(["-o", "loop"]).arg(place.disk_image()).arg(&disk))
            .hinted("disks of their own need loop devices and ext4; leave --disk away")?;
    }
    for name in ["var/lib/coracle", "var/log/pods", "var/tmp", "var/cache", "etc", "etc.work"] {
        let folder = disk.join(name);
        fs::create_dir_all(&folder).doing(|| format!("making {}", folder.display()))?;
    }
    for name in ["etc", "var"] {
        fs::create_dir(root.join(name)).doing(|| format!("making /{name}"))?;
    }
    bind(&disk.join("var"), &root.join("var"))?;
    let layers = format!(
        "lowerdir=/etc,upperdir={0}/etc,workdir={0}/etc.work",
        disk.to_str().unwrap_or_default()
    );
    fresh("overlay", &root.join("etc"), "overlay", &layers)
        .hinted("the sandbox's folder must not be on an overlay itself: name another with --dir")
}

fn identity(plan: &Plan, board: &Board, root: &Path) -> Result {
    let mut hosts = String::from("127.0.0.1 localhost\n::1 localhost\n");
    for other in &plan.boards {
        hosts += &format!("{} {}\n", other.address, other.name);
    }
    let files = [
        ("hostname", format!("{}\n", board.name)),
        ("hosts", hosts),
        // A board of a sandbox has no way out, so nobody is asked in vain.
        ("resolv.conf", "# nothing beyond the sandbox is reached from here\n".to_owned()),
    ];
    for (name, content) in files {
        let path = root.join("etc").join(name);
        // It may be a link into a folder that the board does not see.
        let _ = fs::remove_file(&path);
        fs::write(&path, content).doing(|| format!("writing {}", path.display()))?;
    }
    nix::unistd::sethostname(&board.name).doing(|| "setting the host name".into())
}

fn run(command: &mut Command) -> Result {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().doing(|| format!("running {name}"))?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Err(Error::new(format!("{name}: {said}")))
        }
    }
}

fn fresh(source: &str, at: &Path, kind: &str, options: &str) -> Result {
    let options = (!options.is_empty()).then_some(options);
    mount(Some(source), at, Some(kind), MsFlags::empty(), options)
        .doing(|| format!("mounting {kind} at {}", at.display()))
}

fn memory(at: &Path) -> Result {
    fresh("tmpfs", at, "tmpfs", MEMORY_OPTIONS)
}

fn bind(from: &Path, to: &Path) -> Result {
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(from), to, None::<&str>, flags, None::<&str>)
        .doing(|| format!("mounting {} at {}", from.display(), to.display()))
}

fn read_only(at: &Path) -> Result {
    change(at, MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY)
}

fn change(at: impl AsRef<Path>, flags: MsFlags) -> Result {
    let at = at.as_ref();
    mount(None::<&str>, at, None::<&str>, flags, None::<&str>)
        .doing(|| format!("changing the mount at {}", at.display()))
        .hinted("use sudo: a sandbox is made of namespaces and mounts")
}
