use super::*;
use crate::snapshot::format::{FORMAT, Reason};

fn about() -> About {
    About {
        format: FORMAT,
        created: Timestamp::from_second(100).expect("a time"),
        node: "pi".into(),
        version: "0.1.0".into(),
        engine: "sqlite".into(),
        cluster: "c".into(),
        revision: 9,
        reason: Reason::OnDemand,
    }
}

fn write(folder: &Folder, name: &str, passphrase: Option<&str>) -> Outcome<Taken> {
    let objects = (0..300u64).map(|n| (["pods", "default", "a"], [n, n + 1], &b"{\"a\": 1}"[..]));
    folder.write(name, &about(), b"{}", passphrase, objects)
}

fn folder() -> (tempfile::TempDir, Folder) {
    let place = tempfile::tempdir().expect("temporary folder");
    let folder = Folder(place.path().join("snapshots"));
    (place, folder)
}

#[test]
fn a_snapshot_is_written_listed_and_read() {
    let (_place, folder) = folder();
    assert_eq!(folder.list().expect("no folder is an empty one"), []);
    for (name, passphrase) in
        [("a-pi-100.snapshot", None), ("a-pi-200.snapshot.age", Some("correct horse"))]
    {
        let taken = write(&folder, name, passphrase).expect("taken");
        assert_eq!(taken.totals.objects, 300);
        let (found, _, objects) = read(&taken.path, passphrase).expect("read");
        assert_eq!((found, objects.len()), (about(), 300));
        assert!(folder.is_good(name, None), "without its passphrase nothing speaks against it");
    }
    let listed = folder.list().expect("listed");
    let shown: Vec<(&str, bool)> =
        listed.iter().map(|one| (one.name.as_str(), one.encrypted)).collect();
    assert_eq!(shown, [("a-pi-200.snapshot.age", true), ("a-pi-100.snapshot", false)]);
}

#[test]
fn refusals_name_what_is_wrong() {
    let (_place, folder) = folder();
    let sealed = write(&folder, "a-1.snapshot.age", Some("right")).expect("taken").path;
    let plain = write(&folder, "a-1.snapshot", None).expect("taken").path;
    assert_eq!(check(&sealed, None).expect_err("refused").to_string(), "it is encrypted");
    let wrong = check(&sealed, Some("wrong")).expect_err("refused").to_string();
    assert_eq!(wrong, "the passphrase is wrong");
    assert!(write(&folder, "a-1.snapshot", None).is_err(), "no snapshot is replaced");
    for path in [&plain, &sealed] {
        let bytes = fs::read(path).expect("bytes");
        fs::write(path, &bytes[..bytes.len() - 10]).expect("cut");
        assert!(check(path, Some("right")).is_err());
        let name = path.file_name().expect("a name").to_str().expect("text");
        assert!(!folder.is_good(name, Some("right")), "{name}");
    }
}

#[test]
fn what_a_power_cut_left_is_cleared_and_nothing_else() {
    let (_place, folder) = folder();
    fs::create_dir_all(&folder.0).expect("made");
    for file in ["a-1.snapshot.part", "b-1.snapshot.age.part", "mine.part", "notes"] {
        fs::write(folder.0.join(file), "x").expect("written");
    }
    write(&folder, "a-1.snapshot", None).expect("taken");
    let mut left: Vec<String> = fs::read_dir(&folder.0)
        .expect("a folder")
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    left.sort();
    assert_eq!(left, ["a-1.snapshot", "mine.part", "notes"]);
}
