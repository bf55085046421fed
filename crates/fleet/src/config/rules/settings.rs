//! What is set for boards, and how they are reached.

use super::Rules;
use crate::config::document::Path;
use crate::config::{CARD, DataDisk, Settings, Ssh, Storage, Wifi, syntax};

/// Longest label of an ext4 file system.
const MAX_LABEL_BYTES: usize = 16;

impl<'a> Rules<'a> {
    pub(super) fn settings(&mut self, settings: &Settings, at: &Path) {
        if let Some(data) = &settings.data {
            self.data(data, &at.key("data"));
        }
        if let Some(storage) = &settings.storage {
            self.storage(storage, &at.key("storage"));
        }
        if let Some(wifi) = &settings.wifi {
            self.wifi(wifi, &at.key("wifi"));
        }
        if let Some(journal) = &settings.journal {
            self.size(journal, &at.key("journal"));
        }
        if let Some(zone) = &settings.timezone {
            let fits = syntax::word(zone, "/_+-") && !zone.starts_with('/');
            self.when(!fits, zone, "a time zone such as Europe/Berlin", &at.key("timezone"));
        }
        let words = |rules: &mut Self, key: &str, list: &[String], further: &str, wanted| {
            for (position, text) in list.iter().enumerate() {
                let at = at.key(key).item(position);
                rules.when(!syntax::word(text, further), text, wanted, &at);
            }
        };
        words(self, "ntp", &settings.ntp, ".:-", "a name or an address");
        words(self, "packages", &settings.packages, ".+-:", "the name of a package");
        for (key, value) in &settings.sysctl {
            let at = at.key("sysctl").key(key);
            self.when(!syntax::word(key, "._-/*"), key, "the name of a kernel setting", &at);
            self.when(value.contains('\n'), value, "one line", &at);
        }
    }

    fn data(&mut self, data: &DataDisk, at: &Path) {
        let fits = data.device.starts_with("/dev/") && syntax::word(&data.device, "/._:+-");
        let fits = fits || data.device == CARD;
        self.when(!fits, &data.device, "a device such as /dev/sda1, or card", &at.key("device"));
        let fits = data.label.len() <= MAX_LABEL_BYTES && syntax::word(&data.label, "._-");
        let wanted = "a label of letters, digits, `.`, `_` and `-`, 16 at the most,";
        self.when(!fits, &data.label, wanted, &at.key("label"));
    }

    fn storage(&mut self, storage: &Storage, at: &Path) {
        for (key, value) in [("size", &storage.size), ("endurance", &storage.endurance)] {
            if let Some(value) = value {
                self.size(value, &at.key(key));
            }
        }
    }

    pub(super) fn size(&mut self, text: &str, at: &Path) {
        let wrong = syntax::bytes(text).is_none();
        self.when(wrong, text, "an amount such as 64M, 32GB or 20TB", at);
    }

    fn wifi(&mut self, wifi: &Wifi, at: &Path) {
        let fits = wifi.country.len() == 2 && wifi.country.chars().all(|c| c.is_ascii_uppercase());
        self.when(
            !fits,
            &wifi.country,
            "a country in two letters, such as DE,",
            &at.key("country"),
        );
        let fits = (1..=32).contains(&wifi.ssid.len()) && !wifi.ssid.contains(['\n', '\0']);
        self.when(!fits, &wifi.ssid, "a name of 1 to 32 bytes", &at.key("ssid"));
    }

    /// What goes to `ssh` as arguments must not look like options of it.
    pub(super) fn ssh(&mut self, ssh: &Ssh, at: &Path) {
        self.when(ssh.port == Some(0), "0", "a port", &at.key("port"));
        let words = [
            ("user", &ssh.user, "._-", "an account"),
            ("host", &ssh.host, "._:-", "a name or an address"),
            ("jump", &ssh.jump, "._:@,[]-", "`user@host`, or several with commas between,"),
        ];
        for (key, text, further, wanted) in words {
            if let Some(text) = text {
                let fits = syntax::word(text, further) && !text.starts_with('-');
                self.when(!fits, text, wanted, &at.key(key));
            }
        }
    }
}
