//! A stack described: what people get wrong in `cluster.yaml`, what scripts get of exit codes, and
//! boards found on a real network.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::harness::{Netns, coracle};

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples")
}

/// Runs Coracle without a terminal: exit code, output, error output.
fn told(mut command: Command, line: &str, folder: &Path) -> (i32, String, String) {
    command.args(line.split_whitespace()).current_dir(folder).stdin(Stdio::null());
    let output = command.output().expect("coracle runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

fn run(line: &str, folder: &Path) -> (i32, String, String) {
    told(Command::new(coracle()), line, folder)
}

#[test]
fn a_mistake_is_told_with_its_line_and_a_suggestion() {
    let folder = tempfile::tempdir().expect("a folder");
    let good = fs::read_to_string(examples().join("five-boards.yaml")).expect("the example");
    let bad =
        good.replace("addressing: static", "adressing: static").replace("[server]", "[sever]");
    fs::write(folder.path().join("cluster.yaml"), bad).expect("written");
    for command in ["config check", "plan"] {
        let (code, out, error) = run(command, folder.path());
        assert_eq!((code, out.as_str()), (1, ""), "{error}");
        assert!(
            error.starts_with("error: cluster.yaml has 2 problems\ncluster.yaml:9:3: "),
            "{error}"
        );
        assert!(error.contains("  9 |   adressing: static\n"), "{error}");
        assert!(error.contains("did you mean `addressing`?"), "{error}");
        assert!(error.contains("did you mean `server`?"), "{error}");
    }
}

#[test]
fn keys_of_the_configuration_are_those_that_the_binary_has() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = "name: a\nserver: {disable-agent: true, max-podz: 3, vip: 10.0.0.9}\n\
                boards: [{name: a, address: 10.0.0.1, roles: [server]}]\n";
    fs::write(folder.path().join("cluster.yaml"), text).expect("written");
    let (_, _, error) = run("config check", folder.path());
    assert!(error.contains("2:41: `max-podz` is no flag of Coracle"), "{error}");
    assert!(error.contains("did you mean `max-pods`?"), "{error}");
    assert!(error.contains("`vip` is decided by `network.vip`"), "{error}");
    assert!(error.contains("has 2 problems"), "{error}");
}

#[test]
fn scripts_get_json_and_an_exit_code() {
    let (code, out, _) = run("plan --file three-masters.yaml --output json", &examples());
    let plan: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, &plan["quorum"]["mayFail"]), (0, &1.into()));
    let folder = tempfile::tempdir().expect("a folder");
    let good = fs::read_to_string(examples().join("three-masters.yaml")).expect("the example");
    let zero = good.replacen("model: raspberry-pi-4-8gb", "model: raspberry-pi-zero", 1);
    fs::write(folder.path().join("cluster.yaml"), zero).expect("written");
    let (code, out, error) = run("plan", folder.path());
    assert_eq!(code, 1, "{error}");
    assert!(out.contains("error: melchior: its processor is an ARMv6"), "{out}");
}

#[test]
fn boards_are_found_and_a_file_is_written_once() {
    let (here, there) = (Netns::new("here"), Netns::new("there"));
    let veth = format!("link add near type veth peer name far netns {}", there.name);
    here.ip(&veth);
    there.ip("link set far address dc:a6:32:00:00:0b");
    for (netns, line) in [
        (&here, "addr add 10.77.0.1/28 dev near"),
        (&there, "addr add 10.77.0.11/28 dev far"),
        (&here, "link set near up"),
        (&there, "link set far up"),
    ] {
        netns.ip(line);
    }
    let listener = there.run(|| TcpListener::bind("10.77.0.11:22").expect("bound"));
    // The listener lives as long as the test; a thread that still waits then ends with the process.
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = stream;
            _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n");
        }
    });
    let folder = tempfile::tempdir().expect("a folder");
    let look = |line: &str| told(here.command(coracle()), line, folder.path());
    let (code, out, error) = look("discover --subnet 10.77.0.0/28");
    assert_eq!(code, 0, "{error}");
    let entry = "  # a Raspberry Pi, SSH-2.0-OpenSSH_9.2p1 Debian-2\n  - name: board-11\n    \
                 address: 10.77.0.11\n    mac: dc:a6:32:00:00:0b\n";
    assert!(out.ends_with(entry), "{out}");
    let (code, _, error) = look("init --discover --subnet 10.77.0.0/28");
    assert_eq!(code, 0, "{error}");
    let (code, out, error) = look("config check");
    assert_eq!((code, out.as_str()), (0, "home: 1 board, 1 server\n"), "{error}");
    let (code, _, error) = look("init --discover --subnet 10.77.0.0/28");
    assert!(code == 1 && error.contains("is there already, and is left as it is"), "{error}");
}
