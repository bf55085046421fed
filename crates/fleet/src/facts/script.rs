use crate::board::paths;

/// What the script is asked beyond what it always says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Questions {
    /// Files whose checksum is wanted.
    pub files: Vec<String>,
    /// Packages that may be installed.
    pub packages: Vec<String>,
    /// Kernel settings.
    pub sysctls: Vec<String>,
    /// Names that should lead to boards.
    pub names: Vec<String>,
    /// Disks whose true names are wanted.
    pub devices: Vec<String>,
    /// The account that logs in.
    pub login: String,
    /// Whether the checksum of the binary is wanted, which takes a slow board a second.
    pub sums: bool,
}

/// The script, with its questions before it.
pub fn script(questions: &Questions) -> String {
    // Words of the shell; what is none cannot be asked for.
    let words = |list: &[String]| {
        let plain = |word: &&String| {
            word.chars().all(|c| c.is_ascii_alphanumeric() || "-_=/.,:@+".contains(c))
        };
        list.iter().filter(plain).cloned().collect::<Vec<_>>().join(" ")
    };
    let Questions { files, packages, sysctls, names, devices, login, sums } = questions;
    format!(
        "files='{}' packages='{}' sysctls='{}' names='{}' devices='{}' cmdlines='{}' \
         sums={}\nlogin='{}'\n\
         [ -n \"$login\" ] || login=${{SUDO_USER:-$(id -un)}}\n{}",
        words(files),
        words(packages),
        words(sysctls),
        words(names),
        words(devices),
        paths::CMDLINES.join(" "),
        u8::from(*sums),
        words(std::slice::from_ref(login)),
        include_str!("facts.sh")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_looked_for_where_the_newest_firmware_reads_it_first() {
        let script = script(&Questions::default());
        let newest = "cmdlines='/boot/firmware/current/cmdline.txt /boot/firmware/cmdline.txt ";
        assert!(script.contains(newest), "{}", script.lines().next().unwrap_or_default());
        assert!(script.contains("for place in $cmdlines; do"));
    }
}
