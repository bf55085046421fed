//! Writing to a card: a loop device is one, as far as the kernel shows.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::stock::tool;
use super::{ok, prepare, refused, stage, stock};

/// A loop device over a file, gone with the value.
struct Card {
    device: String,
    file: PathBuf,
}

impl Drop for Card {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["-d", &self.device]).status();
    }
}

impl Card {
    /// None where this machine lets nobody make loop devices.
    fn insert(folder: &Path, bytes: u64) -> Option<Self> {
        let file = folder.join(format!("card-{bytes}"));
        File::create(&file).and_then(|file| file.set_len(bytes)).expect("made");
        let output = Command::new("losetup").args(["-f", "--show"]).arg(&file).output().ok()?;
        let device = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        output.status.success().then_some(Card { device, file })
    }
}

#[test]
fn a_card_is_written_only_when_it_is_confirmed_and_is_the_image_then() {
    let stock = stage("card", stock::GPT);
    let Some(card) = Card::insert(&stock.folder, 640 << 20) else {
        eprintln!("no loop devices here: nothing was tested");
        return;
    };
    let device = &card.device;
    let said = refused(prepare(&stock, &format!("--device {device}")));
    assert!(said.contains("one card is for one board, and there are 2"), "{said}");
    let said = refused(prepare(&stock, &format!("--board pi1 --device {device}")));
    assert!(said.contains("everything on unnamed, 0.67 GB ("), "{said}");
    assert!(
        said.contains(&format!("hint: if it is the right one: --yes-i-mean {device}")),
        "{said}"
    );
    let other = format!("--board pi1 --device {device} --yes-i-mean /dev/null");
    assert!(refused(prepare(&stock, &other)).contains("was not confirmed"));
    let small = Card::insert(&stock.folder, 1 << 20).expect("another");
    let small = format!("--board pi1 --device {0} --yes-i-mean {0}", small.device);
    assert!(refused(prepare(&stock, &small)).contains("take a larger card"));
    let this_disk = refused(prepare(&stock, "--board pi1 --device cluster.yaml"));
    assert!(this_disk.contains("cluster.yaml is no device"), "{this_disk}");
    let head = |length: usize| {
        let mut bytes = fs::read(&card.file).expect("read");
        bytes.truncate(length);
        bytes
    };
    assert!(head(1 << 20).iter().all(|byte| *byte == 0), "nothing was written so far");

    let line = format!("--board pi1 --output out --device {device} --yes-i-mean {device}");
    let said = ok(prepare(&stock, &line));
    assert!(said.contains("and read it back"), "{said}");
    let image = fs::read(stock.folder.join("out/pi1.img")).expect("read");
    assert!(head(image.len()) == image, "the card is the image");

    // Of a GPT the second copy stands where the image ends, and the data's partition is in both.
    ok(prepare(&stock, "--board pi2 --output out"));
    let second = stock.folder.join("out/pi2.img").display().to_string();
    assert!(tool("sfdisk", &["--verify", &second]).contains("No errors detected"));
    let dump = tool("sfdisk", &["--dump", &second]);
    let gib8 = (8_u64 << 30) / 512;
    assert!(dump.contains(&format!("pi2.img2 : start={gib8:12}, size=       32768")), "{dump}");

    mounted_cards_are_refused(&stock.folder, &card, &stock);
}

fn mounted_cards_are_refused(folder: &Path, card: &Card, stock: &super::Stock) {
    let at = folder.join("mounted");
    fs::create_dir_all(&at).expect("made");
    let fat = Command::new("mkfs.ext4").args(["-q", "-F", &card.device]).status();
    assert!(fat.expect("mkfs runs").success());
    let mounted = Command::new("mount").arg(&card.device).arg(&at).status().expect("mount runs");
    assert!(mounted.success());
    let line = format!("--board pi1 --device {0} --yes-i-mean {0}", card.device);
    let said = refused(prepare(stock, &line));
    let unmounted = Command::new("umount").arg(&at).status().expect("umount runs");
    assert!(unmounted.success());
    assert!(said.contains(&format!("is in use: {}", at.display())), "{said}");
}
