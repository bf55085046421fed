//! Who may log in: one account, by its key.

use super::super::change::{Change, Owner, ROOT};
use super::super::error::ImageError;
use super::{Draft, Scene};

/// Accounts of people begin here.
const FIRST_PERSON: u32 = 1000;
/// Behind these are accounts with a meaning.
const LAST_PERSON: u32 = 60_000;
/// Of what is in `/etc/skel`, what makes a shell pleasant.
const SKELETON: [&str; 3] = [".bash_logout", ".bashrc", ".profile"];
/// No password at all, without locking the account, which sshd may take as "no keys either".
const NO_PASSWORD: &str = "*";

/// The account, its keys, and sshd without passwords.
pub fn changes(draft: &mut Draft<'_>, scene: &Scene<'_>) -> Result<(), ImageError> {
    let user = scene.given.user.as_str();
    if scene.given.authorized_keys.is_empty() {
        return Err(ImageError::refused(
            format!("nobody could log in to {}: there is no key", scene.board.name),
            "name public keys or files of them in ssh.authorizedKeys, such as \
             ~/.ssh/id_ed25519.pub",
        ));
    }
    let account = Account::find(draft, user)?;
    if user != "root" {
        if !draft.layout().has_program("sudo") {
            return Err(ImageError::refused(
                format!(
                    "{} has no sudo, so {user} could not set anything up",
                    draft.layout().system()
                ),
                "set ssh.user to root, who then logs in by key only",
            ));
        }
        let line = format!("{user} ALL=(ALL) NOPASSWD: ALL\n");
        draft.put("/etc/sudoers.d/010-coracle", line, 0o440, ROOT, false);
    }
    keys(draft, scene, &account);
    sshd(draft);
    Ok(())
}

struct Account {
    home: String,
    owner: Owner,
}

impl Account {
    fn find(draft: &mut Draft<'_>, user: &str) -> Result<Self, ImageError> {
        let passwd = draft.text("/etc/passwd").unwrap_or_default();
        let lines = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let accounts: Vec<Vec<&str>> = lines.filter(|fields| fields.len() >= 7).collect();
        if let Some(fields) = accounts.iter().find(|fields| fields[0] == user) {
            let number = |text: &str| text.parse().unwrap_or_default();
            return Ok(Account {
                home: fields[5].to_owned(),
                owner: (number(fields[2]), number(fields[3])),
            });
        }
        if user == "root" || passwd.is_empty() {
            return Err(ImageError::refused(
                "the image has no accounts in /etc/passwd",
                "this image is laid out in a way that is not known here",
            ));
        }
        let groups = draft.text("/etc/group").unwrap_or_default();
        let numbers = |text: &str| -> Vec<u32> {
            text.lines().filter_map(|line| line.split(':').nth(2)?.parse().ok()).collect()
        };
        let taken: Vec<u32> = numbers(&passwd).into_iter().chain(numbers(&groups)).collect();
        let free = (FIRST_PERSON..LAST_PERSON).find(|number| !taken.contains(number));
        let number = free.unwrap_or(LAST_PERSON);
        Account::make(draft, user, number);
        Ok(Account { home: format!("/home/{user}"), owner: (number, number) })
    }

    fn make(draft: &mut Draft<'_>, user: &str, number: u32) {
        let bash = draft.layout().has_program("bash");
        let shell = if bash { "/bin/bash" } else { "/bin/sh" };
        let home = format!("/home/{user}");
        let line = format!("{user}:x:{number}:{number}::{home}:{shell}");
        draft.edit("/etc/passwd", |text| with_line(text, &line));
        // Without the day of its last change a password has no age; there is none to change.
        let line = format!("{user}:{NO_PASSWORD}::0:99999:7:::");
        draft.edit("/etc/shadow", |text| with_line(text, &line));
        draft.edit("/etc/group", |text| {
            with_line(&with_member(text, "sudo", 3, user), &format!("{user}:x:{number}:"))
        });
        draft.edit("/etc/gshadow", |text| {
            with_line(&with_member(text, "sudo", 3, user), &format!("{user}:!::"))
        });
        let owner = (number, number);
        draft.push(Change::Folder { path: home.clone(), mode: 0o700, owner });
        for name in SKELETON {
            if let Some(text) = draft.text(&format!("/etc/skel/{name}")) {
                draft.put(format!("{home}/{name}"), text, 0o644, owner, false);
            }
        }
    }
}

fn keys(draft: &mut Draft<'_>, scene: &Scene<'_>, account: &Account) {
    let (home, owner) = (&account.home, account.owner);
    let file = format!("{home}/.ssh/authorized_keys");
    draft.push(Change::Folder { path: format!("{home}/.ssh"), mode: 0o700, owner });
    let before = draft.text(&file).unwrap_or_default();
    let keys = scene.given.authorized_keys.iter().fold(before, |text, key| {
        if text.lines().any(|line| line == key) { text } else { with_line(&text, key) }
    });
    draft.put(file, keys, 0o600, owner, false);
}

/// sshd runs, and takes keys only. The first file that says something is the one that counts.
fn sshd(draft: &mut Draft<'_>) {
    const ONLY_KEYS: &str = "PasswordAuthentication no\nKbdInteractiveAuthentication no\n\
                             PermitRootLogin prohibit-password\n";
    let layout = draft.layout();
    if !layout.has_program("sshd") {
        draft.warn(
            "the image has no SSH server: the board joins by itself, but `coracle up` will not \
             reach it (apt install openssh-server)",
        );
        return;
    }
    let config = layout.text("/etc/ssh/sshd_config").unwrap_or_default();
    let includes = config.lines().any(|line| {
        let mut words = line.split_whitespace();
        words.next() == Some("Include")
            && words.any(|word| word.starts_with("/etc/ssh/sshd_config.d"))
    });
    match includes {
        true => draft.file("/etc/ssh/sshd_config.d/00-coracle.conf", ONLY_KEYS),
        false => draft.edit("/etc/ssh/sshd_config", |text| format!("{ONLY_KEYS}{text}")),
    }
    // A stock Raspberry Pi OS has it switched off.
    if !["ssh.service", "ssh.socket", "sshd.service"].iter().any(|unit| layout.starts(unit)) {
        draft.enable("ssh.service", "multi-user.target", "/lib/systemd/system/ssh.service");
    }
}

/// The text with one more line at its end.
pub fn with_line(text: &str, line: &str) -> String {
    let break_ = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    format!("{text}{break_}{line}\n")
}

/// Adds a member to a group's line, in the field where they stand.
fn with_member(text: &str, group: &str, field: usize, user: &str) -> String {
    let line = |line: &str| {
        let mut fields: Vec<String> = line.split(':').map(str::to_owned).collect();
        if fields[0] == group && fields.len() > field {
            let members = &mut fields[field];
            let there = members.split(',').any(|member| member == user);
            if !there {
                *members =
                    if members.is_empty() { user.into() } else { format!("{members},{user}") };
            }
        }
        fields.join(":") + "\n"
    };
    text.lines().map(line).collect()
}
